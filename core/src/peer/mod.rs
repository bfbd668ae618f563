//! A client and an engine in Rust that speak the same protocol as the Python ones, to the same controllers. An engine runs named
//! functions and shell commands; benchmarks, tests and the demo are built of them, and programs of other people may be.
//!
//! Start from [`Client`] and [`Engine`].

mod abort;
mod client;
mod engine;
mod reply;
mod task;
mod vigil;
mod work;

pub use client::{Client, Reply};
pub use engine::{Engine, EngineHandle, EngineOptions, EngineStopper};
pub use task::{Call, TaskRequest};
pub use work::Functions;

use crate::Packer;
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
    /// The connection file asks for what native peers do not speak.
    #[error(
        "the connection file says {what} '{value}'; native peers speak {spoken} here, nothing else: start the controller with that"
    )]
    Foreign {
        /// Which of its settings.
        what: &'static str,
        /// What it is set to.
        value: String,
        /// What it may be set to.
        spoken: &'static str,
    },
    /// The controller encrypts, and this program can not.
    #[error("the controller encrypts with CURVE, and this program was built without it: use a build with libsodium")]
    NoCurve,
    /// A key that is none.
    #[error("{0} is not a CURVE key of 40 Z85 characters")]
    CurveKey(&'static str),
    /// A thread of the peer panicked, which is a mistake in this library.
    #[error("the engine's thread panicked")]
    Panicked,
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
        return Err(PeerError::NoCurve);
    }
    let given = |name: &str| std::env::var(name).ok().filter(|key| !key.is_empty());
    let keys = match (given("IPP_CURVE_PUBLICKEY"), given("IPP_CURVE_SECRETKEY")) {
        (Some(public), Some(secret)) => {
            let public_key = curve_key("IPP_CURVE_PUBLICKEY", &public)?;
            zmq::CurveKeyPair { public_key, secret_key: curve_key("IPP_CURVE_SECRETKEY", &secret)? }
        }
        _ => zmq::CurveKeyPair::new()?,
    };
    Ok(KEYS.get_or_init(|| keys))
}

fn curve_key(name: &'static str, text: &str) -> Result<[u8; 32], PeerError> {
    // Anything else than 40 characters would be decoded to another number of bytes, or not at all.
    let key = (text.len() == 40).then(|| zmq::z85_decode(text).ok()).flatten();
    key.and_then(|key| key.try_into().ok()).ok_or(PeerError::CurveKey(name))
}

/// How the messages of a connection file's cluster are packed, if native peers speak as it says.
fn language(file: &Common) -> Result<Packer, PeerError> {
    let foreign = |what, value: &str, spoken| PeerError::Foreign { what, value: value.to_owned(), spoken };
    let packer = |what, name: &str| Packer::of_name(name).map_err(|_| foreign(what, name, "json and msgpack"));
    let pack = packer("pack", &file.pack)?;
    if packer("unpack", &file.unpack)? != pack {
        return Err(foreign("unpack", &file.unpack, pack.name()));
    }
    match file.signature_scheme.as_str() {
        "hmac-sha256" => Ok(pack),
        other => Err(foreign("signature_scheme", other, "hmac-sha256")),
    }
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
        let server = curve_key("curve_serverkey of the connection file", key)?;
        let own = own_curve_keys()?;
        socket.set_curve_serverkey(&server)?;
        socket.set_curve_publickey(&own.public_key)?;
        socket.set_curve_secretkey(&own.secret_key)?;
    }
    socket.set_ipv6(file.interface.contains('['))?;
    socket.connect(&file.url(port))?;
    Ok(socket)
}
