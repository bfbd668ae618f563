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

/// Publishes each message behind a prefix frame, as pyzmq's monitored queue does. With an XPUB socket nothing is copied while nobody
/// has subscribed.
#[derive(Debug)]
pub struct PublishTap {
    socket: Port,
    /// Kept as frames: short ones are shared by copying a few words.
    prefixes: [Frame; 2],
    copies: Vec<Frame>,
    /// Subscriptions seen on an XPUB; a PUB does not tell, and counts as one.
    subscriptions: Option<u32>,
    is_watched: bool,
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
            prefixes: [Frame::copy_of(in_prefix), Frame::copy_of(out_prefix)],
            copies: Vec::new(),
            subscriptions: tells.then_some(0),
            is_watched: !tells,
        })
    }
}

impl Tap for PublishTap {
    fn refresh(&mut self) {
        let Some(count) = &mut self.subscriptions else { return };
        for _ in 0..16 {
            let Ok(event) = self.socket.socket().recv_bytes(zmq::DONTWAIT) else { break };
            match event.first() {
                Some(1) => *count += 1,
                Some(0) => *count = count.saturating_sub(1),
                _ => {}
            }
        }
        self.is_watched = *count > 0;
    }

    fn copy(&mut self, direction: Direction, frames: &mut [Frame]) {
        if !self.is_watched {
            return;
        }
        // The frames of the last copy are empty by now, and are filled again.
        self.copies.resize_with(frames.len() + 1, Frame::default);
        self.copies[0].share_from(&mut self.prefixes[direction as usize]);
        for (copy, frame) in self.copies[1..].iter_mut().zip(frames) {
            copy.share_from(frame);
        }
        // A PUB never waits: what a slow subscriber can not take is dropped for that subscriber.
        let _ = self.socket.send(&mut self.copies);
    }
}
