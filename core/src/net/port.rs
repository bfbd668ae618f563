//! A socket with whole messages in and out: frames are received into a buffer that is used again, and sent by moving them.
//! Nothing blocks here but [`Port::wait`]'s callers' own polling; a send that can not be done now is an error, never a loss.

use std::ffi::c_void;

use bytes::Bytes;

use crate::{Multipart, MultipartBuilder};

use super::Frame;

/// More frames than this in one message are read and thrown away: no peer can make us hold an endless message.
const MAX_FRAMES: usize = 16_384;

/// Frames whose memory is kept from message to message.
const KEPT_FRAMES: usize = 32;

/// The frames of one message, kept from message to message for their memory.
#[derive(Debug, Default)]
pub struct FrameBuf {
    frames: Vec<Frame>,
    len: usize,
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
        // Moved, not shared: what stayed in the buffer would keep it alive until the next message of this many frames.
        pack_with(self.frames_mut(), |frame| std::mem::take(frame).into_bytes())
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
        Port { socket, raw }
    }
}

impl Port {
    /// The socket, to poll and to set options.
    pub fn socket(&self) -> &zmq::Socket {
        &self.socket
    }

    /// Receives a whole message without waiting.
    ///
    /// # Errors
    /// [`PortError::NotNow`] if there is none; the buffer's content is then unspecified.
    pub fn receive(&self, into: &mut FrameBuf) -> Result<(), PortError> {
        into.len = 0;
        into.frames.truncate(KEPT_FRAMES);
        let mut too_many = false;
        loop {
            if into.frames.len() == into.len {
                into.frames.push(Frame::default());
            }
            let frame = &mut into.frames[into.len];
            // Once the first frame is there the rest is too: libzmq delivers messages whole.
            match frame.receive(self.raw, if into.len == 0 && !too_many { zmq::DONTWAIT } else { 0 }) {
                Err(zmq::Error::EINTR) => continue,
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
                    into.len = 0; // half a message is none
                    return Err(PortError::TooManyFrames);
                }
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

    /// Sends a message made of frames. Sent frames are empty afterwards; after an error all are as they were.
    ///
    /// # Errors
    /// [`PortError::NoSuchPeer`] from a mandatory ROUTER, [`PortError::NotNow`] at the high-water mark.
    pub fn send<'f>(&self, frames: impl IntoIterator<Item = &'f mut Frame>) -> Result<(), PortError> {
        let mut frames = frames.into_iter().peekable();
        let mut first = true;
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

    /// Sends a message of byte strings, copying small and lending large ones.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_parts<'b>(&self, parts: impl IntoIterator<Item = &'b [u8]>) -> Result<(), PortError> {
        let mut frames: smallvec::SmallVec<[Frame; 12]> = parts.into_iter().map(Frame::copy_of).collect();
        self.send(&mut frames)
    }
}
