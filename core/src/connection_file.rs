//! The two JSON files by which engines and clients find a controller. Reading and writing of the text
//! only; placing the files safely on disk is [`net::files`](crate::net)' work.

use serde::{Deserialize, Serialize};

/// Fields that both files have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Common {
    /// `user@host[:port]` for tunnels, or empty.
    #[serde(default)]
    pub ssh: String,
    /// `tcp://127.0.0.1` or `ipc://path`: addresses are this, a colon and the port.
    pub interface: String,
    /// The controller's host name or address, by which peers tell whether it is their own machine.
    pub location: String,
    /// Port of the hub.
    pub registration: u16,
    /// Port of the control relay.
    pub control: u16,
    /// Port of the direct relay.
    pub mux: u16,
    /// Port of the task scheduler.
    pub task: u16,
    /// Port of the output relay.
    pub iopub: u16,
    /// Signing key; empty means unsigned.
    pub key: String,
    /// CURVE public key of the controller, 40 Z85 characters, if it has one.
    #[serde(default)]
    pub curve_serverkey: Option<String>,
    /// Serialisation that peers write.
    pub pack: String,
    /// Serialisation that peers read.
    pub unpack: String,
    /// Always `hmac-sha256` here.
    pub signature_scheme: String,
}

/// `ipcontroller-client.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientFile {
    /// The shared fields.
    #[serde(flatten)]
    pub common: Common,
    /// Port of notifications.
    pub notification: u16,
    /// Port of the broadcast tree's root.
    pub broadcast: u16,
    /// The scheme's name. Never `pure`, at which clients refuse dependencies.
    pub task_scheme: String,
}

/// `ipcontroller-engine.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineFile {
    /// The shared fields.
    #[serde(flatten)]
    pub common: Common,
    /// Port of heartbeat pings.
    pub hb_ping: u16,
    /// Port of heartbeat answers.
    pub hb_pong: u16,
    /// Ports of the broadcast leaves; an engine connects to the one of its id modulo their number.
    pub broadcast: Vec<u16>,
}

impl Common {
    /// The address of a port. A wildcard interface is replaced by loopback: native peers run beside the controller or name a host.
    pub fn url(&self, port: u16) -> String {
        let interface = match self.interface.strip_prefix("tcp://") {
            Some("*" | "0.0.0.0") => "tcp://127.0.0.1",
            _ => &self.interface,
        };
        format!("{interface}:{port}")
    }
}

/// A connection file as text.
pub fn to_text<T: Serialize>(file: &T) -> String {
    // Strings, numbers and lists of them always serialise.
    serde_json::to_string_pretty(file).unwrap_or_default()
}
