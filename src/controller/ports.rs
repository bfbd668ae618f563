//! Addresses: from connection files that are reused, from the ports that were asked for, or whatever is free.

use std::collections::VecDeque;

use anyhow::{Context as _, bail};
use pointsman_core::connection_file::{ClientFile, Common, EngineFile};

use super::check_interface;
use super::curve::CurveServer;
use crate::config::{Config, Transport};

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

/// Binds sockets one after the other.
pub(super) struct Binder<'a> {
    context: &'a zmq::Context,
    curve: Option<&'a CurveServer>,
    transport: Transport,
    client_ip: String,
    engine_ip: String,
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
        let mut transport = controller.transport;
        let mut ips =
            [&controller.client_ip, &controller.engine_ip].map(|own| own.clone().unwrap_or_else(|| controller.ip.clone()));
        if let Some((client, engine)) = former {
            for (ip, common) in ips.iter_mut().zip([&client.common, &engine.common]) {
                let Some((scheme, address)) = common.interface.split_once("://") else {
                    bail!("the connection file to be reused has no transport in its interface '{}'", common.interface);
                };
                transport = if scheme == "ipc" { Transport::Ipc } else { Transport::Tcp };
                address.clone_into(ip);
            }
        }
        let max_message_bytes = controller.max_message_bytes;
        if max_message_bytes < LEAST_MAX_MESSAGE_BYTES {
            bail!(
                "controller.max_message_bytes: {max_message_bytes} is less than any cluster works with: give at least \
                 {LEAST_MAX_MESSAGE_BYTES}, and more than the largest array that is sent"
            );
        }
        let [client_ip, engine_ip] = ips;
        for ip in [&client_ip, &engine_ip] {
            check_interface(transport, ip, curve.is_some() || controller.allow_plaintext)?;
        }
        Ok(Binder {
            context,
            curve,
            transport,
            client_ip,
            engine_ip,
            client_pool: parse_ports(&controller.client_ports).context("controller.client_ports")?,
            engine_pool: parse_ports(&controller.engine_ports).context("controller.engine_ports")?,
            common_pool: parse_ports(&controller.ports).context("controller.ports")?,
            registration: controller.registration_port.filter(|port| *port != 0),
            former_leaves: former.map(|(_, engine)| engine.broadcast.iter().copied().collect()).unwrap_or_default(),
            former,
            next_ipc: 0,
            max_message_bytes,
            chosen: 0,
            random: 0,
        })
    }

    /// `tcp://127.0.0.1` or the like, as connection files say it.
    pub(super) fn interface(&self, side: Side) -> String {
        let ip = if side == Side::Engine { &self.engine_ip } else { &self.client_ip };
        match self.transport {
            Transport::Tcp => format!("tcp://{ip}"),
            Transport::Ipc => format!("ipc://{ip}"),
        }
    }

    /// Where engines connect.
    pub(super) fn engine_ip(&self) -> &str {
        &self.engine_ip
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
        let everywhere = |ip: &str| matches!(ip, "*" | "0.0.0.0");
        if self.engine_ip == self.client_ip || everywhere(&self.client_ip) {
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
            match scheme {
                "tcp" => {
                    let (ip, _) = address.rsplit_once(':').context("no port: give tcp://ADDRESS:PORT")?;
                    check_interface(Transport::Tcp, ip, self.curve.is_some() || may_be_remote)?;
                }
                "ipc" => {}
                other => bail!("'{other}' is no transport: give tcp://ADDRESS:PORT or ipc://PATH"),
            }
            let socket = self.socket(zmq::XPUB, "monitor", Side::Client)?;
            socket.set_sndhwm(super::monitor::BACKLOG)?;
            socket.bind(url)?;
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
        let socket = self.context.socket(kind).context("no more sockets: raise the limit of open files (ulimit -n)")?;
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
        let interface = self.interface(side);
        if self.transport == Transport::Ipc {
            self.next_ipc += 1;
            let port = wanted.unwrap_or(self.next_ipc);
            let address = format!("{interface}:{port}");
            socket.bind(&address).with_context(|| address)?;
            return Ok(port);
        }
        let address = wanted.map_or_else(|| format!("{interface}:*"), |port| format!("{interface}:{port}"));
        socket.bind(&address).with_context(|| address)?;
        let bound = socket.get_last_endpoint()?.unwrap_or_default();
        bound.rsplit(':').next().and_then(|port| port.parse().ok()).with_context(|| format!("no port in '{bound}'"))
    }
}

/// `10101-10120,10200` as numbers, in order.
fn parse_ports(text: &str) -> anyhow::Result<VecDeque<u16>> {
    let mut ports = VecDeque::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let number =
            |text: &str| text.trim().parse::<u16>().with_context(|| format!("'{part}' is not a port or a range of ports"));
        match part.split_once('-') {
            Some((first, last)) => ports.extend(number(first)?..=number(last)?),
            None => ports.push_back(number(part)?),
        }
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_numbers_and_ranges() {
        assert_eq!(parse_ports("10-12, 20").unwrap(), [10, 11, 12, 20]);
        assert!(parse_ports("").unwrap().is_empty());
        assert!(parse_ports("10-x").is_err() && parse_ports("70000").is_err());
    }
}
