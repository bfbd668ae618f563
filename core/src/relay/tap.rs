//! Where the copies go. A tap sees frames in the order in which they leave the relay and must not wait for anybody.

use crate::net::{Frame, PortError, Tally};

use super::watch::Watch;

/// Which way a message went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the front socket (clients) to the back socket (engines).
    In,
    /// From the back socket to the front socket.
    Out,
}

/// Sees every message that a relay passes on.
pub trait Tap {
    /// Called now and then, and before the first message after a while: the time to see whether anybody watches.
    fn refresh(&mut self) {}

    /// Called at the end of a burst: the time to hand over what was gathered.
    fn flush(&mut self) {}

    /// Called with the frames as they are about to be sent. They may be shared, and must be left as they are.
    fn copy(&mut self, direction: Direction, frames: &mut [Frame]);
}

/// Nobody watches.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoTap;

impl Tap for NoTap {
    fn copy(&mut self, _direction: Direction, _frames: &mut [Frame]) {}
}

/// A tap, or none: that costs a branch.
impl<T: Tap> Tap for Option<T> {
    fn refresh(&mut self) {
        self.iter_mut().for_each(T::refresh);
    }

    fn flush(&mut self) {
        self.iter_mut().for_each(T::flush);
    }

    fn copy(&mut self, direction: Direction, frames: &mut [Frame]) {
        if let Some(tap) = self {
            tap.copy(direction, frames);
        }
    }
}

/// Both, one after the other.
impl<A: Tap, B: Tap> Tap for (A, B) {
    fn refresh(&mut self) {
        self.0.refresh();
        self.1.refresh();
    }

    fn flush(&mut self) {
        self.0.flush();
        self.1.flush();
    }

    fn copy(&mut self, direction: Direction, frames: &mut [Frame]) {
        self.0.copy(direction, frames);
        self.1.copy(direction, frames);
    }
}

/// Publishes each message behind a prefix frame, as pyzmq's monitored queue does. With an XPUB socket nothing is copied while nobody
/// has subscribed.
#[derive(Debug)]
pub struct PublishTap {
    watch: Watch,
    /// Kept as frames: short ones are shared by copying a few words.
    prefixes: [Frame; 2],
}

impl PublishTap {
    /// With a PUB or XPUB socket and the prefixes for [`Direction::In`] and [`Direction::Out`].
    ///
    /// # Errors
    /// If the socket does not know its own type.
    pub fn new(socket: zmq::Socket, in_prefix: &[u8], out_prefix: &[u8]) -> Result<Self, PortError> {
        Ok(PublishTap { watch: Watch::new(socket)?, prefixes: [Frame::copy_of(in_prefix), Frame::copy_of(out_prefix)] })
    }

    /// Counts what subscribers miss in this tally, under this name.
    #[must_use]
    pub fn counted_as(mut self, name: &'static str, tally: &Tally) -> Self {
        self.watch = self.watch.counted_as(name, tally);
        self
    }
}

impl Tap for PublishTap {
    fn refresh(&mut self) {
        self.watch.refresh();
    }

    fn copy(&mut self, direction: Direction, frames: &mut [Frame]) {
        if self.watch.is_watched() {
            self.watch.copy(&mut self.prefixes[direction as usize], frames);
        }
    }
}
