//! Where the copies go. A tap sees frames in the order in which they leave the relay and must not wait for anybody.

use crate::net::{Frame, Port};

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
    /// Called with the frames as they are about to be sent. They may be shared, and must be left as they are.
    fn copy(&mut self, direction: Direction, frames: &mut [Frame]);
}

/// Nobody watches.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoTap;

impl Tap for NoTap {
    fn copy(&mut self, _direction: Direction, _frames: &mut [Frame]) {}
}

/// Publishes each message behind a prefix frame, as pyzmq's monitored queue does. With an XPUB socket nothing is copied while nobody
/// has subscribed.
#[derive(Debug)]
pub struct PublishTap {
    socket: Port,
    prefixes: [Vec<u8>; 2],
    /// Subscriptions seen on an XPUB; a PUB does not tell, and counts as one.
    subscriptions: Option<u32>,
}

impl PublishTap {
    /// With a PUB or XPUB socket and the prefixes for [`Direction::In`] and [`Direction::Out`].
    ///
    /// # Errors
    /// If the socket does not know its own type.
    pub fn new(socket: zmq::Socket, in_prefix: &[u8], out_prefix: &[u8]) -> Result<Self, zmq::Error> {
        let tells = socket.get_socket_type()? == zmq::SocketType::XPUB;
        Ok(PublishTap {
            socket: socket.into(),
            prefixes: [in_prefix.to_vec(), out_prefix.to_vec()],
            subscriptions: tells.then_some(0),
        })
    }

    fn is_watched(&mut self) -> bool {
        let Some(count) = &mut self.subscriptions else { return true };
        // Reading the socket on every message is cheap: it is a look at an empty pipe.
        while let Ok(event) = self.socket.socket().recv_bytes(zmq::DONTWAIT) {
            match event.first() {
                Some(1) => *count += 1,
                Some(0) => *count = count.saturating_sub(1),
                _ => {}
            }
        }
        *count > 0
    }
}

impl Tap for PublishTap {
    fn copy(&mut self, direction: Direction, frames: &mut [Frame]) {
        if !self.is_watched() {
            return;
        }
        let mut prefix = Frame::copy_of(&self.prefixes[direction as usize]);
        let mut copies: smallvec::SmallVec<[Frame; 12]> = frames.iter_mut().map(Frame::share).collect();
        // A PUB never waits: what a slow subscriber can not take is dropped for that subscriber.
        let _ = self.socket.send(std::iter::once(&mut prefix).chain(&mut copies));
    }
}
