//! Every socket of a controller, bound, and what peers are told of them. Nothing is sent or read here; sockets that can not be had fail the
//! start by the channel's name.

use pointsman_core::connection_file::{ClientFile, Common, EngineFile};
use pointsman_schedulers::broadcast::Broadcast;

use super::files::Identity;
use super::monitor::Monitor;
use super::ports::{Binder, Side};
use crate::config::Config;

/// Where the task scheduler finds the control relay.
const CONTROL_INSIDE: &str = "inproc://control";

/// A socket and the port that it has.
type Bound = (zmq::Socket, u16);

/// The sockets, by channel. `_in` is the clients' side, `_out` the engines'.
pub(super) struct Channels {
    pub(super) queries: Bound,
    pub(super) queries_of_engines: Option<zmq::Socket>,
    pub(super) notifications: Bound,
    pub(super) ping: Bound,
    pub(super) pong: Bound,
    pub(super) control_in: Bound,
    pub(super) control_out: Bound,
    pub(super) mux_in: Bound,
    pub(super) mux_out: Bound,
    pub(super) task_in: Bound,
    pub(super) task_out: Bound,
    /// Output: in from engines, out to clients.
    pub(super) iopub_in: Bound,
    pub(super) iopub_out: Bound,
    pub(super) broadcast_root: Bound,
    pub(super) broadcast_leaves: Vec<Bound>,
    /// A client of the control relay within this process: the task scheduler's.
    pub(super) control_within: zmq::Socket,
    /// Where copies of all traffic go, if anywhere.
    pub(super) monitor: Option<Monitor>,
}

impl Channels {
    /// Binds them in a fixed order, which decides who gets which of the ports that were asked for.
    ///
    /// # Errors
    /// If an address can not be had, with the channel.
    pub(super) fn bind(
        context: &zmq::Context,
        binder: &mut Binder<'_>,
        tree: &Broadcast,
        config: &Config,
    ) -> anyhow::Result<Self> {
        let queries = binder.bind(Side::Shared, "registration", zmq::ROUTER)?;
        let queries_of_engines = binder.bind_registration_for_engines(queries.1)?;
        let control_out = binder.bind(Side::Engine, "control", zmq::ROUTER)?;
        let mux_out = binder.bind(Side::Engine, "mux", zmq::ROUTER)?;
        let task_out = binder.bind(Side::Engine, "task", zmq::ROUTER)?;
        let iopub_in = binder.bind(Side::Engine, "iopub", zmq::SUB)?;
        let ping = binder.bind(Side::Engine, "hb_ping", zmq::PUB)?;
        let pong = binder.bind(Side::Engine, "hb_pong", zmq::ROUTER)?;
        let leaves = (0..tree.leaves()).map(|_| binder.bind(Side::Engine, "broadcast", zmq::ROUTER));
        let broadcast_leaves = leaves.collect::<Result<Vec<_>, _>>()?;
        let control_in = binder.bind(Side::Client, "control", zmq::ROUTER)?;
        let mux_in = binder.bind(Side::Client, "mux", zmq::ROUTER)?;
        let task_in = binder.bind(Side::Client, "task", zmq::ROUTER)?;
        let iopub_out = binder.bind(Side::Client, "iopub", zmq::PUB)?;
        let notifications = binder.bind(Side::Client, "notification", zmq::XPUB)?;
        let broadcast_root = binder.bind(Side::Client, "broadcast", zmq::ROUTER)?;
        let may_be_remote = config.controller.allow_plaintext;
        let monitor = config.controller.monitor_url.as_ref().map(|url| {
            let publisher = binder.bind_monitor(url, may_be_remote)?;
            Monitor::new(context, publisher)
        });
        let monitor = monitor.transpose()?;
        binder.say_if_too_few();
        iopub_in.0.set_subscribe(b"")?;
        // The task scheduler speaks to engines' control channel as clients do, from within this process.
        control_in.0.bind(CONTROL_INSIDE)?;
        let control_within = context.socket(zmq::DEALER)?;
        control_within.set_linger(0)?;
        control_within.connect(CONTROL_INSIDE)?;
        Ok(Channels {
            queries,
            queries_of_engines,
            notifications,
            ping,
            pong,
            control_in,
            control_out,
            mux_in,
            mux_out,
            task_in,
            task_out,
            iopub_in,
            iopub_out,
            broadcast_root,
            broadcast_leaves,
            control_within,
            monitor,
        })
    }

    /// What clients and engines are told: where each channel is, and how messages are signed. `placement` is the scheme's name.
    pub(super) fn connection_files(
        &self,
        binder: &Binder<'_>,
        config: &Config,
        identity: &Identity,
        server_key: Option<&str>,
        placement: &str,
    ) -> (ClientFile, EngineFile) {
        let location = match &config.controller.location {
            Some(location) => location.clone(),
            None => gethostname::gethostname().to_string_lossy().into_owned(),
        };
        let common = |interface: String, ssh: &str, ports: [u16; 5]| Common {
            ssh: ssh.to_owned(),
            interface,
            location: location.clone(),
            registration: ports[0],
            control: ports[1],
            mux: ports[2],
            task: ports[3],
            iopub: ports[4],
            key: identity.key.clone(),
            curve_serverkey: server_key.map(str::to_owned),
            pack: identity.packer.name().into(),
            unpack: identity.packer.name().into(),
            signature_scheme: "hmac-sha256".into(),
        };
        let registration = self.queries.1;
        let client = ClientFile {
            common: common(
                binder.interface(Side::Client),
                &config.controller.ssh,
                [registration, self.control_in.1, self.mux_in.1, self.task_in.1, self.iopub_out.1],
            ),
            notification: self.notifications.1,
            broadcast: self.broadcast_root.1,
            // At `pure` a client refuses dependencies, which are not refused here.
            task_scheme: match placement {
                "pure" => "lru".into(),
                name => name.to_owned(),
            },
        };
        let engine_ssh = Some(&config.controller.engine_ssh).filter(|ssh| !ssh.is_empty()).unwrap_or(&config.controller.ssh);
        let engine = EngineFile {
            common: common(
                binder.interface(Side::Engine),
                engine_ssh,
                [registration, self.control_out.1, self.mux_out.1, self.task_out.1, self.iopub_in.1],
            ),
            hb_ping: self.ping.1,
            hb_pong: self.pong.1,
            broadcast: self.broadcast_leaves.iter().map(|leaf| leaf.1).collect(),
        };
        (client, engine)
    }
}
