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

use crate::connection_file::Common;
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

/// The key pair of this process's peers: the one in `IPP_CURVE_PUBLICKEY` and `IPP_CURVE_SECRETKEY`, or one made for the occasion.
fn own_curve_keys() -> Result<&'static zmq::CurveKeyPair, PeerError> {
    static KEYS: std::sync::OnceLock<zmq::CurveKeyPair> = std::sync::OnceLock::new();
    if let Some(keys) = KEYS.get() {
        return Ok(keys);
    }
    if zmq::has("curve") != Some(true) {
        return Err(PeerError::Unreadable("the controller encrypts with CURVE, and this program was built without it".into()));
    }
    let given = |name: &str| std::env::var(name).ok().filter(|key| !key.is_empty());
    let keys = match (given("IPP_CURVE_PUBLICKEY"), given("IPP_CURVE_SECRETKEY")) {
        (Some(public), Some(secret)) => {
            let read = |key: &str| zmq::z85_decode(key).ok().and_then(|key| <[u8; 32]>::try_from(key).ok());
            let (Some(public_key), Some(secret_key)) = (read(&public), read(&secret)) else {
                return Err(PeerError::Unreadable(
                    "IPP_CURVE_PUBLICKEY or IPP_CURVE_SECRETKEY is not a key of 40 Z85 characters".into(),
                ));
            };
            zmq::CurveKeyPair { public_key, secret_key }
        }
        _ => zmq::CurveKeyPair::new()?,
    };
    Ok(KEYS.get_or_init(|| keys))
}

/// A socket connected to one of a controller's ports.
fn connect(
    context: &zmq::Context,
    kind: zmq::SocketType,
    identity: &[u8],
    file: &Common,
    port: u16,
) -> Result<zmq::Socket, PeerError> {
    let socket = context.socket(kind)?;
    if !identity.is_empty() {
        socket.set_identity(identity)?;
    }
    socket.set_sndhwm(0)?;
    socket.set_rcvhwm(0)?;
    socket.set_linger(500)?;
    if let Some(key) = &file.curve_serverkey {
        let server = zmq::z85_decode(key).map_err(|_| PeerError::Unreadable("curve_serverkey is not Z85".into()))?;
        let own = own_curve_keys()?;
        socket.set_curve_serverkey(&server)?;
        socket.set_curve_publickey(&own.public_key)?;
        socket.set_curve_secretkey(&own.secret_key)?;
    }
    socket.set_ipv6(file.interface.contains('['))?;
    socket.connect(&file.url(port))?;
    Ok(socket)
}
