//! The loop: bounded bursts in each direction by turns, polling only when both sides are empty.

use std::fmt;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::net::{Clock, Complaints, Frame, FrameBuf, Mailbox, Port, PortError, Tally, wait};

use super::hold::{GivenUp, Hold, KnownPeers, PATIENCE, RETRY};
use super::tap::{Direction, Tap};

/// Messages passed in one direction before the other has its turn.
const BURST: usize = 32;

/// How often the tap may see whether anybody watches: it costs a system call.
const REFRESH: Duration = Duration::from_millis(1);

/// Which sockets a relay joins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairing {
    /// ROUTER and ROUTER, both ways: the first two frames change places, so that the identity to send to comes first.
    Swap,
    /// ROUTER and DEALER, or any two that go both ways as they are.
    Straight,
    /// SUB and PUB: only from front to back.
    OneWay,
}

/// What a running relay can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Pass nothing on until `Resume`; messages wait in the sockets.
    Pause,
    /// Go on.
    Resume,
    /// Return from [`Relay::run`].
    Terminate,
}

/// What a relay has passed on so far; shared, and read while it runs. What it has not is in its [`Tally`].
#[derive(Debug, Default)]
pub struct Counters {
    /// Messages passed from front to back.
    pub passed_in: AtomicU64,
    /// Messages passed from back to front.
    pub passed_out: AtomicU64,
}

/// A relay between two sockets.
#[derive(Debug)]
pub struct Relay<T> {
    front: Port,
    back: Port,
    pairing: Pairing,
    /// Whether what goes in, and what goes out, goes to an XPUB.
    publishes: [bool; 2],
    tap: T,
    counters: Arc<Counters>,
    complaints: Complaints,
    held: Hold,
    retry_at: Duration,
    refresh_at: Duration,
    clock: Clock,
}

impl<T: Tap> Relay<T> {
    /// Joins two sockets that are bound or connected already. ROUTERs are made mandatory, so that what can not be delivered is held for a
    /// moment and then counted, and XPUBs notice subscribers that have no room.
    ///
    /// # Errors
    /// If an option can not be set.
    pub fn new(front: zmq::Socket, back: zmq::Socket, pairing: Pairing, tap: T) -> Result<Self, PortError> {
        let kinds = [front.get_socket_type()?, back.get_socket_type()?];
        let ports = [Port::from(front), Port::from(back)];
        for (port, kind) in ports.iter().zip(kinds) {
            match kind {
                zmq::SocketType::ROUTER => port.socket().set_router_mandatory(true)?,
                zmq::SocketType::XPUB => port.notice_slow_subscribers()?,
                _ => {}
            }
        }
        let [front, back] = ports;
        Ok(Relay {
            front,
            back,
            pairing,
            publishes: [kinds[1], kinds[0]].map(|kind| kind == zmq::SocketType::XPUB),
            tap,
            counters: Arc::default(),
            complaints: Complaints::new("relay", &Tally::default()),
            held: Hold::default(),
            retry_at: Duration::ZERO,
            refresh_at: Duration::ZERO,
            clock: Clock::default(),
        })
    }

    /// Counts what it gives up in this tally, under this name.
    #[must_use]
    pub fn counted_as(mut self, name: &'static str, tally: &Tally) -> Self {
        self.complaints = Complaints::new(name, tally);
        self
    }

    /// Keeps messages rather for these peers than for others.
    #[must_use]
    pub fn knowing(mut self, peers: KnownPeers) -> Self {
        self.held = Hold::knowing(peers);
        self
    }

    /// The counters, to be read from elsewhere.
    pub fn counters(&self) -> Arc<Counters> {
        self.counters.clone()
    }

    /// Relays until told to terminate.
    ///
    /// # Errors
    /// If libzmq fails in a way that makes going on senseless, or the context is terminated.
    pub fn run(mut self, commands: &Mailbox<Command>) -> Result<(), PortError> {
        let mut buffer = FrameBuf::default();
        let mut told = Vec::new();
        let mut paused = false;
        let mut turns = 0_u32;
        let mut look_for_commands = true;
        loop {
            // Between sleeps, which tell of commands, they are looked for now and then only: it takes a lock.
            turns = turns.wrapping_add(1);
            if look_for_commands || turns.is_multiple_of(16) {
                commands.take(16, &mut told);
                for command in told.drain(..) {
                    match command {
                        Command::Pause => paused = true,
                        Command::Resume => paused = false,
                        Command::Terminate => {
                            self.say_what_stays();
                            return Ok(());
                        }
                    }
                }
            }
            let mut drained = true;
            if !paused {
                let now = self.clock.now();
                if now >= self.refresh_at {
                    self.refresh_at = now + REFRESH;
                    self.tap.refresh();
                }
                drained &= self.burst(Direction::In, &mut buffer)? < BURST;
                if self.pairing != Pairing::OneWay {
                    drained &= self.burst(Direction::Out, &mut buffer)? < BURST;
                }
            }
            self.tap.flush();
            if !self.held.is_empty() && self.clock.now() >= self.retry_at {
                self.retry_held();
            }
            look_for_commands = drained && self.sleep(commands, paused)?;
        }
    }

    /// Sleeps until there is something to pass on or to be told; whether there is something to be told.
    fn sleep(&self, commands: &Mailbox<Command>, paused: bool) -> Result<bool, PortError> {
        let timeout = (!self.held.is_empty()).then_some(RETRY);
        let ports = [&self.front, &self.back];
        let watched = match (paused, self.pairing) {
            (true, _) => 0,
            (false, Pairing::OneWay) => 1,
            (false, _) => 2,
        };
        let [told] = wait(&ports[..watched], [commands.as_fd()], timeout)?;
        Ok(told)
    }

    /// Passes on up to [`BURST`] messages; returns how many were read.
    fn burst(&mut self, direction: Direction, buffer: &mut FrameBuf) -> Result<usize, PortError> {
        for read in 0..BURST {
            let from = if direction == Direction::In { &self.front } else { &self.back };
            match from.receive(buffer) {
                Ok(()) => self.pass(direction, buffer.frames_mut())?,
                Err(PortError::NotNow) => return Ok(read),
                Err(PortError::TooManyFrames) => self.complain("malformed message", "it has more frames than any message has"),
                Err(error) => return Err(error),
            }
        }
        Ok(BURST)
    }

    fn complain(&mut self, kind: &'static str, detail: impl fmt::Display) {
        self.complaints.note(self.clock.now(), kind, detail);
    }

    fn pass(&mut self, direction: Direction, frames: &mut [Frame]) -> Result<(), PortError> {
        if self.pairing == Pairing::Swap {
            // Two identities and something to say: shorter ones are nobody's, and would block or glue themselves to the next.
            if frames.len() < 3 {
                let detail = format_args!("{} frames, of at least 3: two identities and something to say", frames.len());
                self.complain("malformed message", detail);
                return Ok(());
            }
            frames.swap(0, 1);
        }
        self.tap.copy(direction, frames);
        if direction == Direction::In && self.held.has(frames[0].as_ref()) {
            self.hold(frames);
            return Ok(());
        }
        let (to, passed) = match direction {
            Direction::In => (&self.back, &self.counters.passed_in),
            Direction::Out => (&self.front, &self.counters.passed_out),
        };
        match to.send(frames.iter_mut()) {
            Ok(()) => {
                passed.fetch_add(1, Relaxed);
                Ok(())
            }
            Err(error) => self.not_sent(direction, frames, error),
        }
    }

    #[cold]
    fn not_sent(&mut self, direction: Direction, frames: &mut [Frame], error: PortError) -> Result<(), PortError> {
        let to = if direction == Direction::In { &self.back } else { &self.front };
        match error {
            PortError::NoSuchPeer if direction == Direction::In => self.hold(frames),
            PortError::NoSuchPeer => {
                let to = frames.first().map_or(&b""[..], AsRef::as_ref);
                self.complaints.note(self.clock.now(), "reply to a client that has gone", Name(to));
            }
            // For one subscriber's sake; whoever has room gets it.
            PortError::NotNow if self.publishes[direction as usize] => {
                to.publish(frames)?;
                self.complain("subscriber too slow", "it misses messages; others get them");
            }
            PortError::NotNow => self.complain("no room to send", "the peer takes nothing, or there is none"),
            error => return Err(error),
        }
        Ok(())
    }

    fn hold(&mut self, frames: &mut [Frame]) {
        let kept: Vec<Frame> = frames.iter_mut().map(std::mem::take).collect();
        let now = self.clock.now();
        let complaints = &mut self.complaints;
        self.held.keep(now, kept, |peer, why| give_up(complaints, now, peer, why));
    }

    fn retry_held(&mut self) {
        let now = self.clock.now();
        self.retry_at = now + RETRY;
        let (back, complaints) = (&self.back, &mut self.complaints);
        let send = |frames: &mut Vec<Frame>| back.send(frames.iter_mut()).is_ok();
        self.held.retry(now, send, |peer, why| give_up(complaints, now, peer, why));
    }

    /// What is still held at the end is given up with it.
    fn say_what_stays(&mut self) {
        let count = self.held.len() as u64;
        if count > 0 {
            self.complaints.note_many(self.clock.now(), "undelivered", count, "their peers were not connected at the end");
        }
    }
}

fn give_up(complaints: &mut Complaints, now: Duration, peer: &[u8], why: GivenUp) {
    let peer = Name(peer);
    match why {
        GivenUp::Late => {
            let patience_s = PATIENCE.as_secs();
            complaints.note(now, "undelivered", format_args!("for {peer}, which was not connected for {patience_s} s"));
        }
        GivenUp::NoRoom => {
            complaints.note(now, "no room to wait", format_args!("for {peer}, which is not connected: too much waits for such"));
        }
    }
}

/// A peer's identity, as much of it as fits into a line.
struct Name<'a>(&'a [u8]);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}'", self.0[..self.0.len().min(64)].escape_ascii())
    }
}
