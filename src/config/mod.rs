//! The configuration as one typed tree, and where it comes from: defaults, ipcontroller's own files, a TOML file, the command line.
//! Whatever is not understood is an error or a warning with the nearest valid name, never a silent default.

mod argv;
mod check;
mod doubts;
mod ipcontroller;
mod literal;
mod log_level;
mod policy;
mod python;
mod rules;
mod toml_file;
mod traits;

use std::path::PathBuf;

use pointsman_core::Packer;
use pointsman_core::db::{MemoryLimits, Retention};
use serde::{Deserialize, Serialize};

pub use ipcontroller::{Arguments, Special, profile_dir, read_arguments};
pub use policy::{Policies, Resolved, fixed};
pub(crate) use rules::parse_ports;
pub use toml_file::{parse_toml, read_toml_over};

/// Everything that can be configured. Names end in their units.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the controller listens and what it tells peers.
    pub controller: Controller,
    /// Which engines count as alive.
    pub heartbeat: Heartbeat,
    /// Which policies decide.
    pub policy: Policies,
    /// The task scheduler's bounds.
    pub scheduler: Scheduler,
    /// The broadcast tree.
    pub broadcast: Broadcast,
    /// Task records.
    pub records: Records,
    /// Encryption.
    pub curve: Curve,
    /// A Dask scheduler on clients' request.
    pub dask: Dask,
    /// Messages' signatures and names.
    pub session: SessionConfig,
    /// Log lines.
    pub log: Log,
}

/// Where the controller listens and what it tells peers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Controller {
    /// Address to listen on, for clients and engines.
    pub ip: String,
    /// Address for clients alone.
    pub client_ip: Option<String>,
    /// Address for engines alone.
    pub engine_ip: Option<String>,
    /// `tcp`, or `ipc` with `ip` as a path.
    pub transport: Transport,
    /// The controller's name for peers on other machines; its host name by default.
    pub location: Option<String>,
    /// Ports to use: numbers and ranges, `10101-10120,10200`. Random free ones when they run out.
    pub ports: String,
    /// Ports for engines, used before `ports`.
    pub engine_ports: String,
    /// Ports for clients, used before `ports`.
    pub client_ports: String,
    /// Port of the hub.
    pub registration_port: Option<u16>,
    /// `user@host` through which clients reach the controller.
    pub ssh: String,
    /// `user@host` through which engines reach the controller.
    pub engine_ssh: String,
    /// Keep the connection files at the end, and take addresses and key from them at the start.
    pub reuse: bool,
    /// Take over the engines and the unfinished tasks of the controller before; needs `reuse`.
    pub restore: bool,
    /// Listen for other machines without encryption: messages are signed, and whoever sees the network can read them.
    pub allow_plaintext: bool,
    /// The largest frame that a peer may send, in bytes; one that sends a larger one is disconnected. The hub's requests and heartbeats may
    /// have 16 MiB at most, whatever this says.
    pub max_message_bytes: u64,
    /// Where copies of all traffic can be watched, such as `tcp://127.0.0.1:10555`: what ipcontroller's queues show its hub. Nowhere by default.
    pub monitor_url: Option<String>,
    /// Folder with the profile.
    #[serde(serialize_with = "as_text")]
    pub profile_dir: Option<PathBuf>,
    /// Name of the profile, if its folder is not given.
    pub profile: Option<String>,
    /// Folder with the profiles.
    pub ipython_dir: Option<PathBuf>,
    /// Name of the cluster, part of file names.
    pub cluster_id: Option<String>,
    /// File name for clients instead of `ipcontroller-client.json`.
    pub client_file: Option<String>,
    /// File name for engines instead of `ipcontroller-engine.json`.
    pub engine_file: Option<String>,
    /// How long an engine may take to answer its first ping after it asked to register.
    pub registration_timeout_s: f64,
    /// Folder to change to at the start.
    pub work_dir: Option<PathBuf>,
}

/// A path for people to read: bytes that are no text are replaced. The variables that name the profile may hold such.
#[expect(clippy::ref_option, reason = "serde hands a reference to the field")]
fn as_text<S: serde::Serializer>(path: &Option<PathBuf>, to: S) -> Result<S::Ok, S::Error> {
    path.as_ref().map(|path| path.to_string_lossy()).serialize(to)
}

/// How peers reach the controller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// By network.
    #[default]
    Tcp,
    /// By files, on one machine.
    Ipc,
}

impl Default for Controller {
    fn default() -> Self {
        Controller {
            ip: "127.0.0.1".into(),
            client_ip: None,
            engine_ip: None,
            transport: Transport::Tcp,
            location: None,
            ports: String::new(),
            engine_ports: String::new(),
            client_ports: String::new(),
            registration_port: None,
            ssh: String::new(),
            engine_ssh: String::new(),
            reuse: false,
            restore: false,
            allow_plaintext: false,
            max_message_bytes: 2 << 30,
            monitor_url: None,
            profile_dir: None,
            profile: None,
            ipython_dir: None,
            cluster_id: None,
            client_file: None,
            engine_file: None,
            registration_timeout_s: 30.0,
            work_dir: None,
        }
    }
}

/// Which engines count as alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Heartbeat {
    /// Time between pings.
    pub period_ms: u64,
    /// Pings that an engine may miss in a row.
    pub max_misses: u32,
}

impl Default for Heartbeat {
    fn default() -> Self {
        Heartbeat { period_ms: 3000, max_misses: 10 }
    }
}

/// The task scheduler's bounds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scheduler {
    /// How long tasks of a lost engine may still be answered.
    pub grace_ms: u64,
    /// The most tasks waiting and running together.
    pub max_queued_tasks: usize,
    /// The most bytes of requests held for them.
    pub max_queued_bytes: usize,
}

impl Default for Scheduler {
    fn default() -> Self {
        let limits = pointsman_schedulers::task::Limits::default();
        Scheduler {
            grace_ms: limits.grace.as_millis() as u64,
            max_queued_tasks: limits.queued_tasks,
            max_queued_bytes: limits.queued_bytes,
        }
    }
}

/// The broadcast tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Broadcast {
    /// Levels below the root; the tree has two to this power leaves, each with a port.
    pub depth: u32,
}

impl Default for Broadcast {
    fn default() -> Self {
        Broadcast { depth: 1 }
    }
}

/// Task records.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Records {
    /// Where they are kept.
    pub store: Store,
    /// Bounds of the store in memory.
    pub memory: MemoryLimits,
    /// The store in SQLite.
    pub sqlite: Sqlite,
    /// The store in MongoDB.
    pub mongodb: Mongo,
    /// Which completed records are dropped when: any number of rules, `[[records.retention]]` in TOML. What is pending always stays.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub retention: Vec<Retention>,
}

/// Where task records are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Store {
    /// In memory, within bounds.
    #[default]
    Memory,
    /// In a file.
    Sqlite,
    /// In MongoDB; needs a build with the feature `mongodb`.
    Mongodb,
    /// Nowhere.
    None,
}

/// The store in MongoDB.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mongo {
    /// Where it is, `mongodb://user:password@host:port/?option=value`.
    pub uri: String,
    /// Database name.
    pub database: String,
}

impl Default for Mongo {
    fn default() -> Self {
        Mongo { uri: "mongodb://localhost:27017".into(), database: "ipython-tasks".into() }
    }
}

/// The store in SQLite.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sqlite {
    /// File name.
    pub filename: String,
    /// Its folder; the profile's by default.
    pub location: Option<PathBuf>,
    /// Table name.
    pub table: String,
}

impl Default for Sqlite {
    fn default() -> Self {
        Sqlite { filename: "tasks.db".into(), location: None, table: "ipython-tasks".into() }
    }
}

/// Encryption by CURVE.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Curve {
    /// Encrypt everything; needs a build with libsodium.
    pub enabled: bool,
    /// The controller's public key, 40 Z85 characters. Made at the first start and kept in the profile by default.
    pub public_key: Option<String>,
    /// Its secret key, of the same form.
    pub secret_key: Option<String>,
    /// Public keys of clients and engines that may connect; anybody who knows the controller's public key by default.
    pub allowed_keys: Vec<String>,
}

/// A Dask scheduler on clients' request (`Client.become_dask`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dask {
    /// Whether clients may start one.
    pub allow: bool,
    /// The program that is one, with its first arguments.
    pub command: Vec<String>,
    /// How long it may take to listen.
    pub timeout_ms: u64,
}

impl Default for Dask {
    fn default() -> Self {
        Dask { allow: false, command: vec!["dask".into(), "scheduler".into()], timeout_ms: 30_000 }
    }
}

/// Messages' signatures and names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SessionConfig {
    /// Signing key; empty for none, a fresh one by default.
    pub key: Option<String>,
    /// File with the signing key.
    pub keyfile: Option<PathBuf>,
    /// Session id of the hub; a fresh one by default.
    pub ident: Option<String>,
    /// User name in headers.
    pub username: Option<String>,
    /// How messages are packed, `json` or `msgpack`. By default as the connection files that are used again say, else `json`.
    pub packer: Option<Packer>,
    /// The same; given as in `Session.unpacker`, it has to agree.
    pub unpacker: Option<Packer>,
}

impl SessionConfig {
    /// How messages are packed, if anything says so.
    ///
    /// # Errors
    /// If they would be read otherwise than they are written.
    pub fn packed_by(&self) -> Result<Option<Packer>, ConfigError> {
        match (self.packer, self.unpacker) {
            (Some(packer), Some(unpacker)) if packer != unpacker => Err(ConfigError::Value {
                setting: "session.unpacker".into(),
                reason: format!(
                    "{} can not read what session.packer = {} writes: give both the same",
                    unpacker.name(),
                    packer.name()
                ),
            }),
            (packer, unpacker) => Ok(packer.or(unpacker)),
        }
    }
}

/// Log lines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug` or `trace`, another usual word, a number of Python's, or filters by module.
    #[serde(deserialize_with = "log_level::text_or_number")]
    pub level: String,
    /// To the profile's `log` folder instead of standard error.
    pub to_file: bool,
    /// Where an `iplogger` listens that shows the lines too, such as `tcp://127.0.0.1:20202`.
    pub url: Option<String>,
}

impl Default for Log {
    fn default() -> Self {
        Log { level: "info".into(), to_file: false, url: None }
    }
}

/// Why a configuration can not be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file that can not be read.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A value that a setting can not have.
    #[error("{setting}: {reason}")]
    Value {
        /// The setting, as the user wrote it.
        setting: String,
        /// What is wrong with the value.
        reason: String,
    },
    /// A command line that can not be meant.
    #[error("{0}")]
    Option(String),
}
