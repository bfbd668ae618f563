//! Addresses: from connection files that are reused, from the ports that were asked for, or whatever is free.

use std::collections::VecDeque;

use anyhow::{Context as _, bail};
use pointsman_core::connection_file::{ClientFile, Common, EngineFile};

use super::address::{Address, why_not_bound};
use super::curve::CurveServer;
use crate::config::{Config, Transport, parse_ports};

/// The most that a frame of a request to the hub, or of a heartbeat, may have.
const MAX_REQUEST_BYTES: u64 = 16 << 20;
/// The most that a subscription may have. A publisher hears nothing else, and keeps every byte of it as a node of a tree.
const MAX_SUBSCRIPTION_BYTES: u64 = 4 << 10;
/// Less than this and peers could not even connect with what they say of themselves.
const LEAST_MAX_MESSAGE_BYTES: u64 = 64 << 10;

/// Whose socket it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// For clients.
    Client,
    /// For engines.
    Engine,
    /// For both: on the clients' interface, from the engines' ports.
    Shared,
}

/// Where sockets of a side listen.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Tcp(Address),
    /// Files whose names begin so.
    Ipc(String),
}

impl Place {
    /// Refuses what would listen to strangers by mistake, before anything is bound.
    fn new(setting: &str, transport: Transport, text: &str, may_be_remote: bool) -> anyhow::Result<Place> {
        if text.is_empty() || text.contains("://") {
            bail!("{setting}: '{text}' is not an address: give a host, IP or interface for tcp, a path for ipc");
        }
        if transport == Transport::Ipc {
            if text == "127.0.0.1" {
                bail!("{setting}: with transport ipc this is the path of the sockets, such as /tmp/cluster");
            }
            return Ok(Place::Ipc(text.to_owned()));
        }
        let address = Address::resolve(setting, text)?;
        if !address.is_loopback() && !may_be_remote {
            bail!(
                "{setting}: on {text} other machines could read all traffic on its way: encrypt it with --enable-curve, or say that your \
                 network is trusted with --allow-plaintext (controller.allow_plaintext in pointsman.toml, POINTSMAN_ALLOW_PLAINTEXT=1)"
            );
        }
        if address.is_ipv6() && !address.is_everywhere() {
            tracing::warn!(
                "{setting}: {} is an address of IPv6: ipyparallel's clients reach it only with `zmq.Context.instance().IPV6 = 1` before they \
                 connect, its engines not at all (their heart has a context of its own); native engines do",
                address.plain()
            );
        }
        Ok(Place::Tcp(address))
    }

    fn is_everywhere(&self) -> bool {
        matches!(self, Place::Tcp(address) if address.is_everywhere())
    }
}

/// Binds sockets one after the other.
pub(super) struct Binder<'a> {
    context: &'a zmq::Context,
    curve: Option<&'a CurveServer>,
    clients: Place,
    engines: Place,
    client_pool: VecDeque<u16>,
    engine_pool: VecDeque<u16>,
    common_pool: VecDeque<u16>,
    registration: Option<u16>,
    former: Option<&'a (ClientFile, EngineFile)>,
    former_leaves: VecDeque<u16>,
    next_ipc: u16,
    /// The largest frame that a peer may send.
    max_message_bytes: u64,
    /// Channels that got a port that was asked for, and channels that got any.
    chosen: usize,
    random: usize,
}

impl<'a> Binder<'a> {
    pub(super) fn new(
        context: &'a zmq::Context,
        config: &Config,
        former: Option<&'a (ClientFile, EngineFile)>,
        curve: Option<&'a CurveServer>,
    ) -> anyhow::Result<Self> {
        let controller = &config.controller;
        let max_message_bytes = controller.max_message_bytes;
        if max_message_bytes < LEAST_MAX_MESSAGE_BYTES {
            bail!(
                "controller.max_message_bytes: {max_message_bytes} is less than any cluster works with: give at least \
                 {LEAST_MAX_MESSAGE_BYTES}, and more than the largest array that is sent"
            );
        }
        let may_be_remote = curve.is_some() || controller.allow_plaintext;
        let place = |setting: &str, own: &Option<String>, former: Option<&Common>| {
            let Some(common) = former else {
                let setting = if own.is_some() { setting } else { "controller.ip" };
                return Place::new(setting, controller.transport, own.as_ref().unwrap_or(&controller.ip), may_be_remote);
            };
            let Some((scheme, address)) = common.interface.split_once("://") else {
                bail!("the connection file to be reused has no transport in its interface '{}'", common.interface);
            };
            let transport = if scheme == "ipc" { Transport::Ipc } else { Transport::Tcp };
            Place::new("the interface in the connection file to be reused", transport, address, may_be_remote)
        };
        let pool =
            |setting: &str, text: &str| parse_ports(text).map(VecDeque::from).map_err(|why| anyhow::anyhow!("{setting}: {why}"));
        let registration = controller.registration_port.filter(|port| *port != 0);
        let mut binder = Binder {
            context,
            curve,
            clients: place("controller.client_ip", &controller.client_ip, former.map(|(client, _)| &client.common))?,
            engines: place("controller.engine_ip", &controller.engine_ip, former.map(|(_, engine)| &engine.common))?,
            client_pool: pool("controller.client_ports", &controller.client_ports)?,
            engine_pool: pool("controller.engine_ports", &controller.engine_ports)?,
            common_pool: pool("controller.ports", &controller.ports)?,
            registration,
            former_leaves: former.map(|(_, engine)| engine.broadcast.iter().copied().collect()).unwrap_or_default(),
            former,
            next_ipc: 0,
            max_message_bytes,
            chosen: 0,
            random: 0,
        };
        // The hub's port is spoken for, also where a range of ports holds it.
        for pool in [&mut binder.client_pool, &mut binder.engine_pool, &mut binder.common_pool] {
            pool.retain(|port| Some(*port) != registration);
        }
        Ok(binder)
    }

    /// Where a side's sockets listen. What both use listens for engines where that is everywhere, and else for clients.
    fn place(&self, side: Side) -> &Place {
        match side {
            Side::Client => &self.clients,
            Side::Engine => &self.engines,
            Side::Shared if self.engines.is_everywhere() => &self.engines,
            Side::Shared => &self.clients,
        }
    }

    /// `tcp://127.0.0.1` or the like, as connection files say it.
    pub(super) fn interface(&self, side: Side) -> String {
        match self.place(side) {
            Place::Tcp(address) => format!("tcp://{}", address.told()),
            Place::Ipc(path) => format!("ipc://{path}"),
        }
    }

    /// Where engines connect: an address without brackets, or a path.
    pub(super) fn engine_ip(&self) -> String {
        match &self.engines {
            Place::Tcp(address) => address.plain(),
            Place::Ipc(path) => path.clone(),
        }
    }

    /// Binds a socket of a channel and returns it with its port.
    pub(super) fn bind(&mut self, side: Side, channel: &str, kind: zmq::SocketType) -> anyhow::Result<(zmq::Socket, u16)> {
        let socket = self.socket(kind, channel, side)?;
        let wanted = self.wanted(side, channel);
        let port = self.bind_to(&socket, side, wanted).with_context(|| format!("the {channel} channel can not listen"))?;
        Ok((socket, port))
    }

    /// The hub listens on the engines' interface too, under the same port, where that is another.
    pub(super) fn bind_registration_for_engines(&mut self, port: u16) -> anyhow::Result<Option<zmq::Socket>> {
        if self.engines == self.clients || self.clients.is_everywhere() || self.engines.is_everywhere() {
            return Ok(None);
        }
        let socket = self.socket(zmq::ROUTER, "registration", Side::Engine)?;
        self.bind_to(&socket, Side::Engine, Some(port)).context("the registration channel can not listen for engines")?;
        Ok(Some(socket))
    }

    /// Binds the monitor's socket where the configuration says. It obeys the rules of all others.
    pub(super) fn bind_monitor(&mut self, url: &str, may_be_remote: bool) -> anyhow::Result<zmq::Socket> {
        let bound = (|| {
            let (scheme, address) = url.split_once("://").context("no address: give tcp://ADDRESS:PORT or ipc://PATH")?;
            let socket = self.socket(zmq::XPUB, "monitor", Side::Client)?;
            let endpoint = match scheme {
                "tcp" => {
                    let (ip, port) = address.rsplit_once(':').context("no port: give tcp://ADDRESS:PORT")?;
                    match Place::new("its address", Transport::Tcp, ip, self.curve.is_some() || may_be_remote)? {
                        Place::Tcp(address) => {
                            socket.set_ipv6(address.is_ipv6())?;
                            format!("tcp://{}:{port}", address.bound())
                        }
                        Place::Ipc(_) => bail!("give tcp://ADDRESS:PORT"),
                    }
                }
                "ipc" => url.to_owned(),
                other => bail!("'{other}' is no transport: give tcp://ADDRESS:PORT or ipc://PATH"),
            };
            socket.set_sndhwm(super::monitor::BACKLOG)?;
            socket.bind(&endpoint)?;
            Ok(socket)
        })();
        let socket = bound.with_context(|| format!("controller.monitor_url {url}"))?;
        let endpoint = socket.get_last_endpoint()?.unwrap_or_default();
        tracing::info!("copies of all traffic can be watched on {}", endpoint);
        Ok(socket)
    }

    /// Says it if there were ports to take, but too few: behind a firewall, the others are the ones that nobody reaches.
    pub(super) fn say_if_too_few(&self) {
        if self.former.is_none() && self.chosen > 0 && self.random > 0 {
            tracing::warn!(
                "{} ports were given and {} more are needed; those were taken at random (see controller.ports)",
                self.chosen,
                self.random
            );
        }
    }

    fn socket(&self, kind: zmq::SocketType, channel: &str, side: Side) -> anyhow::Result<zmq::Socket> {
        let socket = self.context.socket(kind).with_context(|| {
            format!("no socket can be had for the {channel} channel: raise the limit of open files (ulimit -n)")
        })?;
        // No limits inside libzmq: it would drop or block silently. Backlogs are bounded where they are kept.
        socket.set_sndhwm(0)?;
        socket.set_rcvhwm(0)?;
        socket.set_linger(500)?;
        // What comes in; for each frame. Whoever sends a larger one is disconnected before it is received.
        let most = match (kind, channel) {
            (zmq::PUB | zmq::XPUB, _) => MAX_SUBSCRIPTION_BYTES,
            (_, "registration" | "hb_pong") => self.max_message_bytes.min(MAX_REQUEST_BYTES),
            _ => self.max_message_bytes,
        };
        socket.set_maxmsgsize(i64::try_from(most).unwrap_or(i64::MAX))?;
        // An engine's one socket is connected to three of ours, which must not announce the same name.
        let name = match (kind, channel, side) {
            (zmq::ROUTER, "mux" | "task" | "control", Side::Client) => Some(format!("{channel}_in")),
            (zmq::ROUTER, "mux" | "task" | "control", Side::Engine) => Some(format!("{channel}_out")),
            _ => None,
        };
        if let Some(name) = name {
            socket.set_identity(name.as_bytes())?;
        }
        if let Some(curve) = self.curve {
            curve.arm(&socket)?;
        }
        Ok(socket)
    }

    /// The port that the files of a former life name, or the next of the ones asked for.
    fn wanted(&mut self, side: Side, channel: &str) -> Option<u16> {
        if let Some((client, engine)) = self.former {
            let of = |common: &Common| match channel {
                "registration" => Some(common.registration),
                "control" => Some(common.control),
                "mux" => Some(common.mux),
                "task" => Some(common.task),
                "iopub" => Some(common.iopub),
                _ => None,
            };
            return match (side, channel) {
                (Side::Engine, "broadcast") => self.former_leaves.pop_front(),
                (Side::Engine, "hb_ping") => Some(engine.hb_ping),
                (Side::Engine, "hb_pong") => Some(engine.hb_pong),
                (Side::Engine, _) => of(&engine.common),
                (_, "notification") => Some(client.notification),
                (_, "broadcast") => Some(client.broadcast),
                _ => of(&client.common),
            };
        }
        if channel == "registration" && self.registration.is_some() {
            return self.registration;
        }
        let own = if side == Side::Client { &mut self.client_pool } else { &mut self.engine_pool };
        let port = own.pop_front().or_else(|| self.common_pool.pop_front());
        *(if port.is_some() { &mut self.chosen } else { &mut self.random }) += 1;
        port
    }

    fn bind_to(&mut self, socket: &zmq::Socket, side: Side, wanted: Option<u16>) -> anyhow::Result<u16> {
        let Place::Tcp(address) = self.place(side).clone() else {
            self.next_ipc += 1;
            let port = wanted.unwrap_or(self.next_ipc);
            let endpoint = format!("{}:{port}", self.interface(side));
            socket.bind(&endpoint).with_context(|| endpoint)?;
            return Ok(port);
        };
        socket.set_ipv6(address.is_ipv6())?;
        let port = wanted.map_or_else(|| "*".to_owned(), |port| port.to_string());
        let endpoint = format!("tcp://{}:{port}", address.bound());
        if let Err(error) = socket.bind(&endpoint) {
            bail!("{endpoint}: {}", why_not_bound(error, &address, wanted, self.former.is_some()));
        }
        let bound = socket.get_last_endpoint()?.unwrap_or_default();
        bound.rsplit(':').next().and_then(|port| port.parse().ok()).with_context(|| format!("no port in '{bound}'"))
    }
}
