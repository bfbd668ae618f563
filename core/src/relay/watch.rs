//! A publisher of copies: whoever has the right may subscribe, and nothing is copied while nobody does. It never waits for a subscriber, and
//! counts what one that is too slow misses.

use crate::net::{Clock, Complaints, Frame, Port, PortError, Tally};

/// Subscriptions that are looked at at once.
const AT_ONCE: usize = 16;

/// A PUB or XPUB socket that copies are sent to.
#[derive(Debug)]
pub struct Watch {
    socket: Port,
    copies: Vec<Frame>,
    /// Subscriptions seen on an XPUB; a PUB does not tell, and counts as one.
    subscriptions: Option<u32>,
    is_watched: bool,
    clock: Clock,
    complaints: Complaints,
}

impl Watch {
    /// With a PUB or XPUB socket.
    ///
    /// # Errors
    /// If the socket does not know its own type.
    pub fn new(socket: zmq::Socket) -> Result<Self, PortError> {
        let tells = socket.get_socket_type()? == zmq::SocketType::XPUB;
        let socket = Port::from(socket);
        if tells {
            socket.notice_slow_subscribers()?;
        }
        Ok(Watch {
            socket,
            copies: Vec::new(),
            subscriptions: tells.then_some(0),
            is_watched: !tells,
            clock: Clock::default(),
            complaints: Complaints::new("watch", &Tally::default()),
        })
    }

    /// Counts what subscribers miss in this tally, under this name.
    #[must_use]
    pub fn counted_as(mut self, name: &'static str, tally: &Tally) -> Self {
        self.complaints = Complaints::new(name, tally);
        self
    }

    /// Looks whether anybody watches. A system call or two, so not for each message.
    pub fn refresh(&mut self) {
        let Some(count) = &mut self.subscriptions else { return };
        for _ in 0..AT_ONCE {
            let Ok(event) = self.socket.socket().recv_bytes(zmq::DONTWAIT) else { break };
            match event.first() {
                Some(1) => *count += 1,
                Some(0) => *count = count.saturating_sub(1),
                _ => {}
            }
        }
        self.is_watched = *count > 0;
    }

    /// Whether anybody watched at the last look.
    pub fn is_watched(&self) -> bool {
        self.is_watched
    }

    /// Sends the frames behind a topic, by reference. O(frames).
    pub fn copy(&mut self, topic: &mut Frame, frames: &mut [Frame]) {
        // The frames of the last copy are empty by now, and are filled again.
        self.copies.resize_with(frames.len() + 1, Frame::default);
        self.copies[0].share_from(topic);
        for (copy, frame) in self.copies[1..].iter_mut().zip(frames) {
            copy.share_from(frame);
        }
        self.send();
    }

    /// The same with a message of bytes, which are copied. O(bytes).
    pub fn copy_bytes<'b>(&mut self, topic: &mut Frame, parts: impl IntoIterator<Item = &'b [u8]>) {
        self.copies.clear();
        self.copies.push(topic.share());
        self.copies.extend(parts.into_iter().map(Frame::copy_of));
        self.send();
    }

    fn send(&mut self) {
        match self.socket.publish(&mut self.copies) {
            Ok(true) => {}
            Ok(false) => self.complaints.note(self.clock.now(), "watcher too slow", "it misses copies; traffic is not affected"),
            Err(error) => self.complaints.note(self.clock.now(), "copy not sent", error),
        }
    }
}
