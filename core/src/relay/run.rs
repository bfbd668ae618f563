//! The loop: bounded bursts in each direction by turns, polling only when both sides are empty.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::net::{Clock, Frame, FrameBuf, Mailbox, Port, PortError, wait};

use super::hold::{Hold, RETRY};
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

/// What a relay has done so far; shared, and read while it runs.
#[derive(Debug, Default)]
pub struct Counters {
    /// Messages passed from front to back.
    pub passed_in: AtomicU64,
    /// Messages passed from back to front.
    pub passed_out: AtomicU64,
    /// Messages dropped because they had too few or too many frames to be anyone's.
    pub malformed: AtomicU64,
    /// Messages dropped because their peer was not connected and did not connect in time.
    pub unroutable: AtomicU64,
}

/// A relay between two sockets.
#[derive(Debug)]
pub struct Relay<T> {
    front: Port,
    back: Port,
    pairing: Pairing,
    tap: T,
    counters: Arc<Counters>,
    held: Hold,
    retry_at: Duration,
    refresh_at: Duration,
    clock: Clock,
}

impl<T: Tap> Relay<T> {
    /// Joins two sockets that are bound or connected already. ROUTERs of a [`Pairing::Swap`] are made mandatory, so that what can
    /// not be delivered is held for a moment and then counted.
    ///
    /// # Errors
    /// If an option can not be set.
    pub fn new(front: zmq::Socket, back: zmq::Socket, pairing: Pairing, tap: T) -> Result<Self, zmq::Error> {
        if pairing == Pairing::Swap {
            front.set_router_mandatory(true)?;
            back.set_router_mandatory(true)?;
        }
        Ok(Relay {
            front: front.into(),
            back: back.into(),
            pairing,
            tap,
            counters: Arc::default(),
            held: Hold::default(),
            retry_at: Duration::ZERO,
            refresh_at: Duration::ZERO,
            clock: Clock::default(),
        })
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
                        Command::Terminate => return Ok(()),
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
                self.retry_at = self.clock.now() + RETRY;
                let back = &self.back;
                let lost = self.held.retry(self.clock.now(), |frames| back.send(frames.iter_mut()).is_ok());
                self.counters.unroutable.fetch_add(lost, Relaxed);
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
        let [told] = wait(&ports[..watched], [commands.fd()], timeout)?;
        Ok(told)
    }

    /// Passes on up to [`BURST`] messages; returns how many were read.
    fn burst(&mut self, direction: Direction, buffer: &mut FrameBuf) -> Result<usize, PortError> {
        for read in 0..BURST {
            let from = if direction == Direction::In { &self.front } else { &self.back };
            match from.receive(buffer) {
                Ok(()) => self.pass(direction, buffer.frames_mut())?,
                Err(PortError::NotNow) => return Ok(read),
                Err(PortError::TooManyFrames) => {
                    self.counters.malformed.fetch_add(1, Relaxed);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(BURST)
    }

    fn pass(&mut self, direction: Direction, frames: &mut [Frame]) -> Result<(), PortError> {
        if self.pairing == Pairing::Swap {
            // Two identities and something to say: shorter ones are nobody's, and would block or glue themselves to the next.
            if frames.len() < 3 {
                self.counters.malformed.fetch_add(1, Relaxed);
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
            }
            Err(PortError::NoSuchPeer) if direction == Direction::In => self.hold(frames),
            Err(PortError::NoSuchPeer | PortError::NotNow) => {
                self.counters.unroutable.fetch_add(1, Relaxed);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn hold(&mut self, frames: &mut [Frame]) {
        let kept: Vec<Frame> = frames.iter_mut().map(std::mem::take).collect();
        if !self.held.keep(self.clock.now(), kept) {
            self.counters.unroutable.fetch_add(1, Relaxed);
        }
    }
}
