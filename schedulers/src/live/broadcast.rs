//! The broadcast tree on its sockets: one ROUTER for clients, one for each leaf.

use std::collections::VecDeque;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use smallvec::SmallVec;

use pointsman_core::net::{Clock, Complaints, Frame, FrameBuf, MAX_FRAMES, Mailbox, Port, PortError, Tally, wait};
use pointsman_core::{Envelope, Multipart, Parts};

use super::BURST;
use crate::admit;
use crate::broadcast::{Action, Broadcast, Event, Reason};

/// What other threads tell the tree.
#[derive(Debug)]
pub enum BroadcastInput {
    /// An engine is there, under this number.
    EngineUp(Box<str>, u64),
    /// An engine is gone.
    EngineDown(Box<str>),
    /// The process shall end.
    Stop,
}

/// The tree's sockets, bound.
pub struct BroadcastSockets {
    /// ROUTER for clients.
    pub root: zmq::Socket,
    /// ROUTERs for engines, in order of leaves.
    pub leaves: Vec<zmq::Socket>,
}

/// Runs a tree until it is told to stop.
///
/// # Errors
/// If libzmq fails.
pub fn run_broadcast(
    tree: Broadcast,
    sockets: BroadcastSockets,
    inputs: &Mailbox<BroadcastInput>,
    tally: &Tally,
) -> Result<(), PortError> {
    let root = Port::from(sockets.root);
    let leaves: Vec<Port> = sockets.leaves.into_iter().map(Port::from).collect();
    for port in leaves.iter().chain([&root]) {
        port.socket().set_router_mandatory(true)?;
    }
    let mut driver = Driver {
        unsent: Unsent::default(),
        retry_at: Duration::ZERO,
        tree,
        root,
        leaves,
        clock: Clock::default(),
        complaints: Complaints::new("broadcast", tally),
    };
    let mut buffer = FrameBuf::default();
    let mut batch = Vec::new();
    loop {
        let mut busy = false;
        for index in 0..driver.leaves.len() {
            for _ in 0..BURST {
                if !driver.leaves[index].take_unless_idle(&mut buffer)? {
                    break;
                }
                busy = true;
                driver.take_reply(&mut buffer);
                driver.act()?;
            }
        }
        inputs.take(usize::MAX, &mut batch);
        for input in batch.drain(..) {
            busy = true;
            match input {
                BroadcastInput::EngineUp(uuid, number) => driver.handle(Event::EngineUp { uuid: &uuid, number }),
                BroadcastInput::EngineDown(uuid) => driver.handle(Event::EngineDown { uuid: &uuid }),
                BroadcastInput::Stop => return Ok(()),
            }
            driver.act()?;
        }
        for _ in 0..BURST {
            if !driver.root.take_unless_idle(&mut buffer)? {
                break;
            }
            busy = true;
            driver.take_request(&mut buffer);
            driver.act()?;
        }
        if !driver.unsent.requests.is_empty() && driver.clock.now() >= driver.retry_at {
            driver.retry_at = driver.clock.now() + RETRY;
            driver.retry()?;
        }
        let timeout = match (busy, driver.unsent.requests.is_empty()) {
            (true, _) => Some(Duration::ZERO),
            (false, true) => None,
            (false, false) => Some(RETRY),
        };
        let ports: SmallVec<[&Port; 12]> = std::iter::once(&driver.root).chain(&driver.leaves).collect();
        wait(&ports, [inputs.as_fd()], timeout)?;
    }
}

/// How long an engine that is known may take to connect to its leaf.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often what could not be sent is tried again.
const RETRY: Duration = Duration::from_millis(20);
/// The most requests that wait for a connection, and their bytes: buffers that several share are counted for each.
const MAX_UNSENT: usize = 10_000;
const MAX_UNSENT_BYTES: usize = 2 << 30;

/// Requests to engines that are not connected to their leaves yet.
#[derive(Default)]
struct Unsent {
    requests: VecDeque<Waiting>,
    bytes: usize,
}

impl Unsent {
    /// Adds one, or gives it back if there is no room.
    fn push(&mut self, request: Waiting) -> Option<Waiting> {
        let bytes = request.size_bytes();
        let is_full = self.requests.len() >= MAX_UNSENT || self.bytes.saturating_add(bytes) > MAX_UNSENT_BYTES;
        if is_full && !self.requests.is_empty() {
            return Some(request);
        }
        self.bytes += bytes;
        self.requests.push_back(request);
        None
    }

    fn pop(&mut self) -> Option<Waiting> {
        let request = self.requests.pop_front()?;
        self.bytes -= request.size_bytes();
        Some(request)
    }
}

struct Waiting {
    until: Duration,
    leaf: usize,
    uuid: Arc<str>,
    client: Bytes,
    parts: Parts,
    buffers: Vec<Bytes>,
}

impl Waiting {
    fn size_bytes(&self) -> usize {
        self.client.len() + self.parts.iter().map(Vec::len).sum::<usize>() + self.buffers.iter().map(Bytes::len).sum::<usize>()
    }
}

struct Driver {
    unsent: Unsent,
    retry_at: Duration,
    tree: Broadcast,
    root: Port,
    leaves: Vec<Port>,
    clock: Clock,
    complaints: Complaints,
}

impl Driver {
    fn handle(&mut self, event: Event<'_>) {
        self.tree.handle(Clock::date(), event);
    }

    fn take_request(&mut self, buffer: &mut FrameBuf) {
        let session = self.tree.session();
        let (signer, packer) = (session.signer(), session.packer());
        let opened = match buffer.beginning_of_too_long() {
            Some(beginning) => Err(admit::too_long(&Multipart::pack(beginning), signer, packer, MAX_FRAMES)),
            None => admit::open(buffer.pack(), signer, packer),
        };
        match opened {
            Ok(envelope) => self.handle(Event::Request(envelope)),
            Err(denied) => {
                let kind = denied.kind;
                let why = self.tree.deny(Clock::date(), denied);
                self.complain(kind, why);
            }
        }
    }

    fn take_reply(&mut self, buffer: &mut FrameBuf) {
        match Envelope::open(Arc::new(buffer.pack())) {
            Ok(envelope) if envelope.identity_count() == 2 => self.handle(Event::Reply(envelope)),
            Ok(_) => self.complain("malformed message", "it has other than two identities"),
            Err(malformed) => self.complain("malformed message", malformed),
        }
    }

    fn complain(&mut self, kind: &'static str, detail: impl std::fmt::Display) {
        self.complaints.note(self.clock.now(), kind, detail);
    }

    fn try_to_send(&self, request: &Waiting) -> Result<(), PortError> {
        let Waiting { leaf, uuid, client, parts, buffers, .. } = request;
        send(&self.leaves[*leaf], &[uuid.as_bytes(), client], parts, buffers.clone())
    }

    fn give_up(&mut self, Waiting { uuid, client, parts, leaf, .. }: Waiting) {
        self.complain("engine not connected", format_args!("{uuid} on leaf {leaf}; answered with an error"));
        self.handle(Event::Undelivered { uuid: &uuid, client, parts });
    }

    /// Tries again what could not be sent, each once.
    fn retry(&mut self) -> Result<(), PortError> {
        for _ in 0..self.unsent.requests.len() {
            let Some(request) = self.unsent.pop() else { break };
            match self.try_to_send(&request) {
                Err(PortError::NoSuchPeer) if request.until > self.clock.now() => self.wait_or_give_up(request),
                Err(PortError::NoSuchPeer) => self.give_up(request),
                outcome => outcome?,
            }
        }
        self.act()
    }

    fn wait_or_give_up(&mut self, request: Waiting) {
        if let Some(request) = self.unsent.push(request) {
            self.give_up(request);
        }
    }

    fn act(&mut self) -> Result<(), PortError> {
        while let Some(action) = self.tree.poll_action() {
            let sent = match action {
                Action::Send { leaf, uuid, client, parts, buffers } => {
                    let until = self.clock.now() + PATIENCE;
                    let request = Waiting { until, leaf, uuid, client, parts, buffers };
                    match self.try_to_send(&request) {
                        Err(PortError::NoSuchPeer) => {
                            self.wait_or_give_up(request);
                            Ok(())
                        }
                        sent => sent,
                    }
                }
                Action::Answer { client, parts, buffers } => send(&self.root, &[&client], &parts, buffers),
                Action::PassOn(reply) => {
                    let message = reply.message();
                    self.root.send_parts((1..message.len()).map(|index| message.frame(index)))
                }
                Action::Reject(reason) => {
                    match reason {
                        Reason::Refused(refused) => self.complain("refused message", refused),
                        Reason::Json(part) => {
                            self.complain("unreadable message", format_args!("its {part} is not what it should be"));
                        }
                        Reason::Unanswerable(why) => self.complain("refused request", why),
                        Reason::Stray => self.complain("stray reply", "nobody waits for it"),
                        Reason::Full => self.complain("too many broadcasts", "refused with an error reply"),
                    }
                    Ok(())
                }
            };
            match sent {
                Ok(()) => {}
                Err(PortError::NoSuchPeer) => self.complain("reply to a client that has gone", "broadcasts are not recorded"),
                Err(PortError::NotNow) => self.complain("no room to send", "dropped"),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn send(port: &Port, identities: &[&[u8]], parts: &Parts, buffers: Vec<Bytes>) -> Result<(), PortError> {
    let heads = identities.iter().copied().chain(parts.iter().map(Vec::as_slice)).map(Frame::copy_of);
    let mut frames: Vec<Frame> = heads.chain(buffers.into_iter().map(Frame::of_bytes)).collect();
    port.send(&mut frames)
}
