//! A client and an engine in Rust that speak the same protocol as the Python ones, to the same controllers. An engine runs named
//! functions and shell commands; benchmarks, tests and the demo are built of them, and programs of other people may be.
//!
//! Start from [`Client`] and [`Engine`].

mod client;
mod engine;
mod task;

pub use client::{Client, Reply};
pub use engine::{Engine, EngineHandle, Functions};
pub use task::{Call, TaskRequest};

use crate::net::PortError;

/// Why a peer could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// The socket library failed.
    #[error("socket: {0}")]
    Socket(#[from] PortError),
    /// Nobody answered in time.
    #[error("no answer to {0} in time: is the controller running, and is the connection file its own?")]
    Timeout(String),
    /// The controller refused.
    #[error("{0}")]
    Refused(RemoteError),
    /// An answer that is none.
    #[error("unreadable answer: {0}")]
    Unreadable(String),
    /// The operating system refused.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

impl From<zmq::Error> for PeerError {
    fn from(error: zmq::Error) -> Self {
        PeerError::Socket(error.into())
    }
}

/// An error at the other end, by name and message.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize, thiserror::Error)]
#[error("{ename}: {evalue}")]
pub struct RemoteError {
    /// The exception's name.
    #[serde(default)]
    pub ename: String,
    /// Its message.
    #[serde(default)]
    pub evalue: String,
}

/// A socket connected to one of a controller's ports.
fn connect(context: &zmq::Context, kind: zmq::SocketType, identity: &[u8], url: &str) -> Result<zmq::Socket, PeerError> {
    let socket = context.socket(kind)?;
    if !identity.is_empty() {
        socket.set_identity(identity)?;
    }
    socket.set_sndhwm(0)?;
    socket.set_rcvhwm(0)?;
    socket.set_linger(500)?;
    socket.connect(url)?;
    Ok(socket)
}
