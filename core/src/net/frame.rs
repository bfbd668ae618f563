//! One frame of libzmq, received into, moved and shared by reference count. A frame that could not be sent is still there afterwards, which
//! the safe crate can not promise; all unsafe code of the project stands here and in `port.rs`.
#![allow(unsafe_code, reason = "zmq_msg_t is reached through the C interface; each block says why it is sound")]

use std::ffi::c_void;
use std::ptr;

use bytes::Bytes;
use zmq_sys::zmq_msg_t;

use crate::LARGE_FRAME_BYTES;

/// A frame, owned. Always initialised, so that dropping and receiving into it are sound.
pub struct Frame {
    message: zmq_msg_t,
}

// SAFETY: a zmq_msg_t is a value that refers to reference-counted memory with atomic counts; libzmq itself moves messages between its
// threads. It is not Sync: sharing needs `share`.
unsafe impl Send for Frame {}

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Frame({} bytes)", self.len())
    }
}

impl Default for Frame {
    fn default() -> Self {
        let mut message = zmq_msg_t::default();
        // SAFETY: initialises the memory it is given; documented never to fail.
        unsafe { zmq_sys::zmq_msg_init(&mut message) };
        Frame { message }
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        // SAFETY: the message is initialised, and not used after this.
        unsafe { zmq_sys::zmq_msg_close(&mut self.message) };
    }
}

impl AsRef<[u8]> for Frame {
    fn as_ref(&self) -> &[u8] {
        // zmq_msg_data takes a mutable pointer but only reads the struct to find the data.
        let message = (&raw const self.message).cast_mut();
        // SAFETY: data and size belong to an initialised message and stay valid until it is sent, received into or closed, all of
        // which need `&mut self`. The data pointer of an empty message may be null, which a slice must not have.
        unsafe {
            let len = zmq_sys::zmq_msg_size(message);
            if len == 0 { &[] } else { std::slice::from_raw_parts(zmq_sys::zmq_msg_data(message).cast::<u8>(), len) }
        }
    }
}

/// Frees what `Frame::of_bytes` lent to libzmq.
unsafe extern "C" fn release(_data: *mut c_void, hint: *mut c_void) {
    // SAFETY: `hint` is the box that `of_bytes` leaked for exactly this call, which libzmq makes once.
    drop(unsafe { Box::from_raw(hint.cast::<Bytes>()) });
}

impl Frame {
    /// A frame with a copy of `data`. O(bytes).
    ///
    /// # Panics
    /// If memory is exhausted.
    pub fn copy_of(data: &[u8]) -> Frame {
        let mut message = zmq_msg_t::default();
        // SAFETY: init_size initialises the message with room for len bytes, which are then written before anyone reads them.
        unsafe {
            let failed = zmq_sys::zmq_msg_init_size(&mut message, data.len());
            assert_eq!(failed, 0, "out of memory for a frame of {} bytes", data.len());
            if !data.is_empty() {
                ptr::copy_nonoverlapping(data.as_ptr(), zmq_sys::zmq_msg_data(&mut message).cast(), data.len());
            }
        }
        Frame { message }
    }

    /// A frame of shared bytes: large ones are lent to libzmq by reference, small ones copied.
    ///
    /// # Panics
    /// If memory is exhausted.
    pub fn of_bytes(data: Bytes) -> Frame {
        if data.len() < LARGE_FRAME_BYTES {
            return Frame::copy_of(&data);
        }
        let mut message = zmq_msg_t::default();
        let (start, len) = (data.as_ptr().cast_mut().cast::<c_void>(), data.len());
        let hint = Box::into_raw(Box::new(data)).cast::<c_void>();
        // SAFETY: the bytes live in the box until `release`, do not move, and libzmq only reads them.
        let failed = unsafe { zmq_sys::zmq_msg_init_data(&mut message, start, len, Some(release), hint) };
        assert_eq!(failed, 0, "out of memory for a frame of {len} bytes");
        Frame { message }
    }

    /// Another frame with the same data, by reference count for all but the shortest. O(1).
    pub fn share(&mut self) -> Frame {
        let mut other = Frame::default();
        other.share_from(self);
        other
    }

    /// Makes this frame share the data of another, letting go of its own. O(1).
    pub fn share_from(&mut self, other: &mut Frame) {
        // SAFETY: both messages are initialised; the call releases the one and changes the other's kind of storage, hence `&mut` twice.
        unsafe { zmq_sys::zmq_msg_copy(&mut self.message, &mut other.message) };
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        // SAFETY: reads the size of an initialised message, and changes nothing, though its parameter is not const.
        unsafe { zmq_sys::zmq_msg_size((&raw const self.message).cast_mut()) }
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the frame, as received, has another behind it in its message.
    pub fn more(&self) -> bool {
        // SAFETY: reads a flag of an initialised message.
        unsafe { zmq_sys::zmq_msg_more(&self.message) != 0 }
    }

    /// The data as shared bytes: large frames by keeping the frame, small ones by a copy.
    pub fn to_bytes(&mut self) -> Bytes {
        if self.len() < LARGE_FRAME_BYTES { Bytes::copy_from_slice(self.as_ref()) } else { Bytes::from_owner(self.share()) }
    }

    /// The data as shared bytes, without a copy.
    pub fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self)
    }

    /// Receives into this frame. `socket` must be a live socket of libzmq that no other thread uses.
    pub(super) fn receive(&mut self, socket: *mut c_void, flags: i32) -> Result<(), zmq::Error> {
        // SAFETY: the message is initialised; `Port`, the only caller, owns the socket.
        checked(unsafe { zmq_sys::zmq_msg_recv(&mut self.message, socket, flags) })
    }

    /// Sends this frame, leaving an empty one; on an error it is left as it was.
    pub(super) fn send(&mut self, socket: *mut c_void, flags: i32) -> Result<(), zmq::Error> {
        // SAFETY: as above; on success libzmq has taken the content and re-initialised the message.
        checked(unsafe { zmq_sys::zmq_msg_send(&mut self.message, socket, flags) })
    }
}

fn checked(result: i32) -> Result<(), zmq::Error> {
    if result >= 0 {
        return Ok(());
    }
    // SAFETY: reads this thread's error number.
    Err(zmq::Error::from_raw(unsafe { zmq_sys::zmq_errno() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_share_and_outlive_their_source() {
        for len in [0, 1, 33, 34, LARGE_FRAME_BYTES, 100_000] {
            let data = vec![7u8; len];
            let mut frame = Frame::of_bytes(Bytes::from(data.clone()));
            let shared = frame.share();
            let bytes = frame.to_bytes();
            drop(frame);
            assert_eq!((shared.as_ref(), &bytes[..]), (&data[..], &data[..]), "{len}");
        }
    }
}
