//! A socket with whole messages in and out: frames are received into a buffer that is used again, and sent by moving them.
//! Nothing blocks here but [`wait`]; a send that can not be done now is an error, never a loss.

use std::cell::Cell;
use std::ffi::c_void;
use std::os::fd::{BorrowedFd, RawFd};
use std::time::Duration;

use bytes::Bytes;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use smallvec::SmallVec;

use crate::message::find_parts;
use crate::{Malformed, Multipart, MultipartBuilder};

use super::Frame;

/// More frames than this in one message are read and thrown away: no peer can make us hold an endless message. The frames themselves take
/// 16 MiB then. Each large array or byte string that a task is given is one, so that there may well be tens of thousands.
pub const MAX_FRAMES: usize = 262_144;

/// So many frames of a message that has too many are kept: enough to tell its sender.
const BEGINNING_FRAMES: usize = 16;

/// Frames whose memory is kept from message to message.
const KEPT_FRAMES: usize = 32;
/// Room for more frames than this is given back: it is 256 KiB.
const MANY_FRAMES: usize = 4096;

/// The frames of one message. The few words of each are used again for the next message; what a frame holds is not: at most one message is
/// held, and none once a socket has been found empty.
#[derive(Debug, Default)]
pub struct FrameBuf {
    frames: Vec<Frame>,
    len: usize,
    /// Frames from here on are empty.
    filled: usize,
    /// Frames that are left of a message that had too many.
    cut: usize,
}

impl FrameBuf {
    /// The frames of the message.
    pub fn frames(&self) -> &[Frame] {
        &self.frames[..self.len]
    }

    /// The frames of the message, to send or swap.
    pub fn frames_mut(&mut self) -> &mut [Frame] {
        &mut self.frames[..self.len]
    }

    /// Packs the message for keeping: small frames copied together, large ones moved. O(small bytes).
    pub fn pack(&mut self) -> Multipart {
        // Moved, not shared: what stayed in the buffer would be held until the next message.
        pack_with(self.frames_mut(), |frame| std::mem::take(frame).into_bytes())
    }
}

impl FrameBuf {
    /// Lets go of what lies in the frames from `from` on. O(1) if nothing was received into them since it last did.
    fn let_go(&mut self, from: usize) {
        if self.filled > from {
            // Those that were sent or taken are empty.
            let held = self.frames[from..self.filled].iter_mut().filter(|frame| !frame.is_empty());
            held.for_each(|frame| drop(std::mem::take(frame)));
            self.filled = from;
        }
        let most = KEPT_FRAMES.max(from);
        if self.frames.len() > most {
            self.frames.truncate(most);
            if self.frames.capacity() > MANY_FRAMES {
                self.frames.shrink_to(most);
            }
        }
    }

    /// The first frames of the message if it had too many; [`frames`](Self::frames) has none of them then.
    pub fn beginning_of_too_long(&self) -> Option<&[Frame]> {
        (self.cut > 0).then(|| &self.frames[..self.cut])
    }

    /// Lets go of the message, if nobody has taken it.
    pub fn clear(&mut self) {
        (self.len, self.cut) = (0, 0);
        self.let_go(0);
    }
}

/// A message whose frames were received, opened where they lie.
#[derive(Clone, Copy, Debug)]
pub struct Opened<'f> {
    frames: &'f [Frame],
    delimiter: usize,
}

impl<'f> Opened<'f> {
    /// Finds the parts. O(identities).
    ///
    /// # Errors
    /// If there is no delimiter or too little behind it.
    pub fn new(frames: &'f [Frame]) -> Result<Opened<'f>, Malformed> {
        let delimiter = find_parts(frames.iter().map(AsRef::as_ref))?;
        Ok(Opened { frames, delimiter })
    }

    /// How many identity frames stand before the delimiter.
    pub fn identity_count(&self) -> usize {
        self.delimiter
    }

    /// An identity frame, the outermost first.
    pub fn identity(&self, index: usize) -> &'f [u8] {
        if index < self.delimiter { self.frames[index].as_ref() } else { &[] }
    }

    /// The signature frame.
    pub fn signature(&self) -> &'f [u8] {
        self.frames[self.delimiter + 1].as_ref()
    }

    /// A part: 0 header, 1 parent header, 2 metadata, 3 content.
    ///
    /// # Panics
    /// Beyond 3.
    pub fn part(&self, part: usize) -> &'f [u8] {
        assert!(part < 4, "a message has four parts");
        self.frames[self.delimiter + 2 + part].as_ref()
    }
}

/// Packs frames for keeping that are still needed themselves: small ones copied together, large ones shared. O(small bytes).
pub fn pack(frames: &mut [Frame]) -> Multipart {
    pack_with(frames, Frame::to_bytes)
}

fn pack_with(frames: &mut [Frame], keep: impl Fn(&mut Frame) -> Bytes) -> Multipart {
    let small: usize = frames.iter().map(Frame::len).filter(|&len| len < crate::LARGE_FRAME_BYTES).sum();
    let mut builder = MultipartBuilder::with_capacity(small);
    for frame in frames {
        if frame.len() < crate::LARGE_FRAME_BYTES {
            builder.push_small(frame.as_ref());
        } else {
            builder.push_large(keep(frame));
        }
    }
    builder.finish()
}

/// Why a message was not sent or received.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// Nothing to receive, or no room to send.
    #[error("not now")]
    NotNow,
    /// The first frame names nobody who is connected.
    #[error("no such peer")]
    NoSuchPeer,
    /// The message had more frames than any message has; it is gone.
    #[error("too many frames")]
    TooManyFrames,
    /// The context was terminated.
    #[error("the context is terminated")]
    Terminated,
    /// Anything else that libzmq reports.
    #[error("{0}")]
    Other(zmq::Error),
}

impl From<zmq::Error> for PortError {
    fn from(error: zmq::Error) -> Self {
        match error {
            zmq::Error::EAGAIN => PortError::NotNow,
            zmq::Error::EHOSTUNREACH => PortError::NoSuchPeer,
            zmq::Error::ETERM => PortError::Terminated,
            other => PortError::Other(other),
        }
    }
}

/// A socket.
pub struct Port {
    socket: zmq::Socket,
    raw: *mut c_void,
    /// None if its context had ended before.
    fd: Option<RawFd>,
    /// Nothing was there at the last look, and it has not been used since: only then does `fd` tell of the next message.
    idle: Cell<bool>,
}

// SAFETY: `raw` is the socket's own handle, and `zmq::Socket` is Send for the same reason: whoever owns it may use it.
#[allow(unsafe_code, reason = "the handle travels with the socket that owns it")]
unsafe impl Send for Port {}

impl std::fmt::Debug for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Port")
    }
}

impl From<zmq::Socket> for Port {
    fn from(mut socket: zmq::Socket) -> Self {
        let raw = socket.as_mut_ptr();
        let fd = socket.get_fd().ok();
        Port { socket, raw, fd, idle: Cell::new(false) }
    }
}

impl Port {
    /// The socket, to set options, and to poll by whoever does not [`wait`].
    pub fn socket(&self) -> &zmq::Socket {
        self.idle.set(false); // libzmq takes note of messages whatever it is asked
        &self.socket
    }

    /// Whether there was nothing at the last look, and there has been nothing to look for since.
    pub fn is_idle(&self) -> bool {
        self.idle.get()
    }

    /// Receives a whole message without waiting.
    ///
    /// # Errors
    /// [`PortError::NotNow`] if there is none, [`PortError::TooManyFrames`] if it was thrown away. The buffer is empty then, and holds
    /// nothing but perhaps the [beginning](FrameBuf::beginning_of_too_long).
    pub fn receive(&self, into: &mut FrameBuf) -> Result<(), PortError> {
        (into.len, into.cut) = (0, 0);
        self.idle.set(false);
        let mut too_many = false;
        loop {
            if into.frames.len() == into.len {
                into.frames.push(Frame::default());
            }
            let frame = &mut into.frames[into.len];
            // Once the first frame is there the rest is too: libzmq delivers messages whole.
            match frame.receive(self.raw, if into.len == 0 && !too_many { zmq::DONTWAIT } else { 0 }) {
                Err(zmq::Error::EINTR) => continue,
                Err(zmq::Error::EAGAIN) => {
                    self.idle.set(true);
                    into.clear();
                    return Err(PortError::NotNow);
                }
                outcome => outcome?,
            }
            let more = frame.more();
            if into.len + 1 < MAX_FRAMES {
                into.len += 1;
            } else {
                too_many = true; // the last place is used again and again
            }
            if !more {
                if too_many {
                    into.filled = into.frames.len();
                    into.len = 0; // half a message is none
                    into.let_go(BEGINNING_FRAMES);
                    into.cut = BEGINNING_FRAMES;
                    return Err(PortError::TooManyFrames);
                }
                into.let_go(into.len); // of a longer message before
                into.filled = into.len;
                return Ok(());
            }
        }
    }

    /// Receives a message if there is one; whether there was. One with too many frames is there, and empty: it has not the frames of a
    /// message, and is rejected by whoever opens it.
    ///
    /// # Errors
    /// If the socket fails.
    pub fn take(&self, into: &mut FrameBuf) -> Result<bool, PortError> {
        match self.receive(into) {
            Ok(()) | Err(PortError::TooManyFrames) => Ok(true),
            Err(PortError::NotNow) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The same, without asking the socket while it is idle.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    pub fn take_unless_idle(&self, into: &mut FrameBuf) -> Result<bool, PortError> {
        if self.is_idle() { Ok(false) } else { self.take(into) }
    }

    /// Sends a message made of frames. Sent frames are empty afterwards; after an error all are as they were.
    ///
    /// # Errors
    /// [`PortError::NoSuchPeer`] from a mandatory ROUTER, [`PortError::NotNow`] at the high-water mark.
    pub fn send<'f>(&self, frames: impl IntoIterator<Item = &'f mut Frame>) -> Result<(), PortError> {
        let mut frames = frames.into_iter().peekable();
        let mut first = true;
        self.idle.set(false);
        while let Some(frame) = frames.next() {
            let more = if frames.peek().is_some() { zmq::SNDMORE } else { 0 };
            // Only the first frame can be refused: libzmq decides there for the whole message.
            loop {
                match frame.send(self.raw, more | if first { zmq::DONTWAIT } else { 0 }) {
                    Err(zmq::Error::EINTR) => {}
                    outcome => break outcome?,
                }
            }
            first = false;
        }
        Ok(())
    }

    /// Makes an XPUB notice whom it leaves out, so that [`publish`](Self::publish) can say so.
    ///
    /// # Errors
    /// If the socket is not an XPUB.
    pub fn notice_slow_subscribers(&self) -> Result<(), PortError> {
        self.leave_out_silently(false)
    }

    /// Sends to every subscriber that has room: a PUB or XPUB never waits. False if some had none and are left out, which only an XPUB that
    /// [notices](Self::notice_slow_subscribers) tells.
    ///
    /// # Errors
    /// If the socket fails.
    pub fn publish(&self, frames: &mut [Frame]) -> Result<bool, PortError> {
        match self.send(frames.iter_mut()) {
            // Refused for all because of one: the others get it all the same.
            Err(PortError::NotNow) => {
                self.leave_out_silently(true)?;
                let sent = self.send(frames.iter_mut());
                self.leave_out_silently(false)?;
                sent.map(|()| false)
            }
            sent => sent.map(|()| true),
        }
    }

    #[allow(unsafe_code, reason = "an option that the safe crate has no name for")]
    fn leave_out_silently(&self, silently: bool) -> Result<(), PortError> {
        let nodrop = i32::from(!silently);
        // SAFETY: the socket is alive and ours, and the option is an int, which is copied.
        let failed = unsafe {
            zmq_sys::zmq_setsockopt(self.raw, zmq_sys::ZMQ_XPUB_NODROP as i32, (&raw const nodrop).cast(), size_of::<i32>())
        };
        // SAFETY: reads this thread's error number.
        if failed == 0 { Ok(()) } else { Err(zmq::Error::from_raw(unsafe { zmq_sys::zmq_errno() }).into()) }
    }

    /// Sends a message of byte strings, copying small and lending large ones.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_parts<'b>(&self, parts: impl IntoIterator<Item = &'b [u8]>) -> Result<(), PortError> {
        let mut frames: smallvec::SmallVec<[Frame; 12]> = parts.into_iter().map(Frame::copy_of).collect();
        self.send(&mut frames)
    }
}

/// Sleeps until a port or one of `others` is readable, at most for `timeout` if there is one. Returns at once while a port is not idle, and
/// says of `others` which are readable. One system call, where `zmq_poll` makes one for each socket besides.
///
/// # Errors
/// If the operating system refuses.
#[allow(unsafe_code, reason = "file descriptors of sockets that are alive")]
pub fn wait<const N: usize>(
    ports: &[&Port],
    others: [BorrowedFd<'_>; N],
    timeout: Option<Duration>,
) -> Result<[bool; N], PortError> {
    let busy = ports.iter().any(|port| !port.idle.get());
    let sockets = ports.iter().map(|port| port.fd.ok_or(PortError::Terminated)).collect::<Result<SmallVec<[RawFd; 12]>, _>>()?;
    // SAFETY: a socket keeps its descriptor open as long as it lives, and the ports that own the sockets are borrowed for the call.
    let sockets = sockets.into_iter().map(|fd| unsafe { BorrowedFd::borrow_raw(fd) });
    let fds: SmallVec<[BorrowedFd<'_>; 12]> = others.into_iter().chain(sockets).collect();
    let mut polled: SmallVec<[PollFd<'_>; 12]> = fds.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
    let timeout = if busy { Some(Duration::ZERO) } else { timeout };
    // What does not fit is for ever.
    let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
    match poll(&mut polled, timeout.as_ref()) {
        Ok(_) => {}
        Err(rustix::io::Errno::INTR) => return Ok([false; N]),
        Err(error) => return Err(PortError::Other(zmq::Error::from_raw(error.raw_os_error()))),
    }
    for (port, polled) in ports.iter().zip(&polled[N..]) {
        port.idle.set(port.idle.get() && polled.revents().is_empty());
    }
    Ok(std::array::from_fn(|at| !polled[at].revents().is_empty()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    struct Owner(Arc<Vec<u8>>);

    impl AsRef<[u8]> for Owner {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }

    #[test]
    fn frames_are_let_go_of_when_a_shorter_message_comes_and_when_none_does() {
        let context = zmq::Context::new();
        let [from, to] = [(); 2].map(|()| context.socket(zmq::PAIR).unwrap());
        to.bind("inproc://there").unwrap();
        from.connect("inproc://there").unwrap();
        let (from, to) = (Port::from(from), Port::from(to));
        let held = Arc::new(vec![7; 10_000]);
        let frames = |count: usize| -> Vec<Frame> {
            (0..count).map(|_| Frame::of_bytes(Bytes::from_owner(Owner(held.clone())))).collect()
        };
        let mut buffer = FrameBuf::default();
        for count in [3, KEPT_FRAMES, 100, MANY_FRAMES + 1] {
            from.send(&mut frames(count)).unwrap();
            to.receive(&mut buffer).unwrap();
            assert_eq!((buffer.frames().len(), Arc::strong_count(&held)), (count, 1 + count));
            from.send(&mut frames(1)).unwrap();
            to.receive(&mut buffer).unwrap();
            assert_eq!((buffer.frames().len(), Arc::strong_count(&held)), (1, 2), "{count}");
            from.send(&mut frames(count)).unwrap();
            to.receive(&mut buffer).unwrap();
            assert_eq!(to.receive(&mut buffer), Err(PortError::NotNow));
            assert_eq!((buffer.frames().len(), Arc::strong_count(&held)), (0, 1), "{count}");
            assert!(buffer.frames.capacity() <= MANY_FRAMES);
        }
    }
}
