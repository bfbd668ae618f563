//! ZMTP 3.0 with the NULL mechanism, as bytes: what a peer without libzmq says to one with it (RFC 23/ZMTP).
//! Pure: it is given what has been read and hands out whole messages as ranges of its buffer; no message can grow beyond a limit.

use smallvec::SmallVec;

/// What both sides send first.
const GREETING_BYTES: usize = 64;
const MORE: u8 = 1;
const LONG: u8 = 2;
const COMMAND: u8 = 4;
/// More frames than this are no message.
const MAX_FRAMES: usize = 16_384;

/// Why a connection can not go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ZmtpError {
    /// It does not begin as ZMTP 3 does.
    #[error("the other side does not speak ZMTP 3")]
    Greeting,
    /// It wants authentication or encryption.
    #[error("the other side wants the security mechanism {0}, and this one has NULL")]
    Mechanism(String),
    /// A frame with flags that do not exist.
    #[error("a frame with impossible flags {0:#04x}")]
    Flags(u8),
    /// A message above the limit.
    #[error("a message of more than {0} bytes or {MAX_FRAMES} frames")]
    TooLarge(usize),
    /// It has ended the conversation, and said why.
    #[error("the other side refuses: {0}")]
    Refused(String),
}

/// The beginning of a conversation: greeting and READY. `identity` is the name under which a ROUTER knows this peer, or empty.
/// It can be sent in one piece; messages have to wait until [`Decoder::is_ready`], as the other side takes what comes before its own READY
/// for a part of the handshake.
///
/// # Panics
/// If `socket_type` or `identity` has more than 255 bytes.
pub fn hello(socket_type: &str, identity: &[u8]) -> Vec<u8> {
    assert!(socket_type.len() < 256 && identity.len() < 256, "names have at most 255 bytes");
    let mut bytes = vec![0; GREETING_BYTES];
    (bytes[0], bytes[9]) = (0xff, 0x7f);
    bytes[10] = 3; // version 3.0: subscriptions are messages there, and there are no pings
    bytes[12..16].copy_from_slice(b"NULL");
    let mut ready = b"\x05READY".to_vec();
    for (name, value) in [("Socket-Type", socket_type.as_bytes()), ("Identity", identity)] {
        ready.push(name.len() as u8);
        ready.extend(name.as_bytes());
        ready.extend((value.len() as u32).to_be_bytes());
        ready.extend(value);
    }
    push_header(&mut bytes, COMMAND, ready.len());
    bytes.extend(ready);
    bytes
}

/// Adds a frame; `more` says that another of the same message follows. O(bytes).
pub fn push_frame(out: &mut Vec<u8>, body: &[u8], more: bool) {
    push_header(out, if more { MORE } else { 0 }, body.len());
    out.extend_from_slice(body);
}

fn push_header(out: &mut Vec<u8>, flags: u8, len: usize) {
    match u8::try_from(len) {
        Ok(short) => out.extend([flags, short]),
        Err(_) => {
            out.push(flags | LONG);
            out.extend((len as u64).to_be_bytes());
        }
    }
}

/// Adds a message made of frames. O(bytes).
pub fn push_message<'f>(out: &mut Vec<u8>, frames: impl IntoIterator<Item = &'f [u8]>) {
    let mut frames = frames.into_iter().peekable();
    while let Some(frame) = frames.next() {
        push_frame(out, frame, frames.peek().is_some());
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Greeting,
    Handshake,
    Traffic,
}

/// Turns what is read from a connection into messages.
#[derive(Debug)]
pub struct Decoder {
    buffer: Vec<u8>,
    /// What has been read and not handed out is `start..end`.
    start: usize,
    end: usize,
    /// From `start`: what has been looked at of the message under way.
    parsed: usize,
    /// From `start`: frames of the message under way.
    frames: SmallVec<[(usize, usize); 16]>,
    phase: Phase,
    /// The message that was handed out last is still at the start.
    handed_out: bool,
    max_bytes: usize,
}

impl Decoder {
    /// For a connection that has said nothing yet; no message may have more than `max_bytes`.
    pub fn new(max_bytes: usize) -> Decoder {
        Decoder {
            buffer: Vec::new(),
            start: 0,
            end: 0,
            parsed: 0,
            frames: SmallVec::new(),
            phase: Phase::Greeting,
            handed_out: false,
            max_bytes,
        }
    }

    /// Room to read into, at least `least` bytes. Say with [`filled`](Self::filled) how much was read. Amortised O(bytes read).
    pub fn room(&mut self, least: usize) -> &mut [u8] {
        self.let_go();
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        if self.buffer.len() - self.end < least {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            if self.buffer.len() - self.end < least {
                // Doubling keeps a long message from being moved for each piece of it.
                let wanted = (self.end + least).max(self.buffer.len() * 2);
                self.buffer.resize(wanted, 0);
            }
        }
        &mut self.buffer[self.end..]
    }

    /// So many bytes have been read into the room.
    ///
    /// # Panics
    /// If there was less room.
    pub fn filled(&mut self, bytes: usize) {
        self.end += bytes;
        assert!(self.end <= self.buffer.len(), "more was read than there was room for");
    }

    /// Whether the other side is ready for messages.
    pub fn is_ready(&self) -> bool {
        self.phase == Phase::Traffic
    }

    /// Forgets the message that was handed out.
    fn let_go(&mut self) {
        if std::mem::take(&mut self.handed_out) {
            self.start += std::mem::take(&mut self.parsed);
            self.frames.clear();
        }
    }

    /// The next whole message, if all of it has been read. It is forgotten at the next call. O(bytes that are new).
    ///
    /// # Errors
    /// If the other side does not keep to the protocol. The connection is then of no use.
    pub fn next_message(&mut self) -> Result<Option<Message<'_>>, ZmtpError> {
        self.let_go();
        if self.phase == Phase::Greeting {
            let Some(greeting) = self.buffer[self.start..self.end].first_chunk::<GREETING_BYTES>() else { return Ok(None) };
            check_greeting(greeting)?;
            self.start += GREETING_BYTES;
            self.phase = Phase::Handshake;
        }
        loop {
            let unread = &self.buffer[self.start + self.parsed..self.end];
            let Some((flags, head, len)) = read_header(unread)? else { return Ok(None) };
            if self.parsed.saturating_add(head).saturating_add(len) > self.max_bytes || self.frames.len() == MAX_FRAMES {
                return Err(ZmtpError::TooLarge(self.max_bytes));
            }
            let Some(body) = unread[head..].get(..len) else { return Ok(None) };
            if flags & COMMAND != 0 {
                if let Some(reason) = body.strip_prefix(b"\x05ERROR") {
                    return Err(ZmtpError::Refused(String::from_utf8_lossy(reason.get(1..).unwrap_or_default()).into_owned()));
                }
                if body.starts_with(b"\x05READY") {
                    self.phase = Phase::Traffic; // what else it says does not matter here
                }
                if !self.frames.is_empty() {
                    return Err(ZmtpError::Flags(flags)); // in the middle of a message
                }
                self.start += head + len;
                continue;
            }
            let from = self.parsed + head;
            self.frames.push((from, from + len));
            self.parsed = from + len;
            if flags & MORE == 0 {
                self.handed_out = true;
                return Ok(Some(Message { bytes: &self.buffer[self.start..], frames: &self.frames }));
            }
        }
    }
}

fn check_greeting(greeting: &[u8; GREETING_BYTES]) -> Result<(), ZmtpError> {
    if greeting[0] != 0xff || greeting[9] & 1 != 1 || greeting[10] < 3 {
        return Err(ZmtpError::Greeting);
    }
    let mechanism = greeting[12..32].split(|byte| *byte == 0).next().unwrap_or_default();
    if mechanism == b"NULL" { Ok(()) } else { Err(ZmtpError::Mechanism(String::from_utf8_lossy(mechanism).into_owned())) }
}

/// Flags, length of the header and length of the body, if the header is there.
fn read_header(bytes: &[u8]) -> Result<Option<(u8, usize, usize)>, ZmtpError> {
    let Some(&flags) = bytes.first() else { return Ok(None) };
    if flags & !(MORE | LONG | COMMAND) != 0 || flags & (MORE | COMMAND) == MORE | COMMAND {
        return Err(ZmtpError::Flags(flags));
    }
    if flags & LONG == 0 {
        return Ok(bytes.get(1).map(|&len| (flags, 2, usize::from(len))));
    }
    let Some(len) = bytes[1..].first_chunk::<8>() else { return Ok(None) };
    Ok(Some((flags, 9, usize::try_from(u64::from_be_bytes(*len)).unwrap_or(usize::MAX))))
}

/// A message in a [`Decoder`]'s buffer.
#[derive(Clone, Copy, Debug)]
pub struct Message<'d> {
    bytes: &'d [u8],
    frames: &'d [(usize, usize)],
}

impl<'d> Message<'d> {
    /// How many frames it has; at least one.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Never: a message has a frame.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// A frame's bytes; empty beyond the last.
    pub fn frame(&self, index: usize) -> &'d [u8] {
        self.frames.get(index).map_or(&[], |&(from, to)| &self.bytes[from..to])
    }

    /// All frames in order.
    pub fn frames(&self) -> impl ExactSizeIterator<Item = &'d [u8]> + use<'d> {
        let Message { bytes, frames } = *self;
        frames.iter().map(move |&(from, to)| &bytes[from..to])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(decoder: &mut Decoder, bytes: &[u8]) {
        decoder.room(bytes.len())[..bytes.len()].copy_from_slice(bytes);
        decoder.filled(bytes.len());
    }

    #[test]
    fn messages_come_out_whole_however_they_are_cut() {
        let messages: Vec<Vec<Vec<u8>>> =
            vec![vec![vec![1; 3], vec![], vec![2; 255]], vec![vec![3; 256], vec![4; 70_000]], vec![vec![]], vec![vec![5]; 20]];
        let mut bytes = hello("ROUTER", b"me");
        for message in &messages {
            push_message(&mut bytes, message.iter().map(Vec::as_slice));
        }
        for step in [1, 2, 7, 63, 64, 65, 1000, bytes.len()] {
            let mut decoder = Decoder::new(1 << 20);
            let mut seen: Vec<Vec<Vec<u8>>> = Vec::new();
            for piece in bytes.chunks(step) {
                feed(&mut decoder, piece);
                while let Some(message) = decoder.next_message().unwrap() {
                    seen.push(message.frames().map(<[u8]>::to_vec).collect());
                }
            }
            assert_eq!(seen, messages, "in pieces of {step}");
        }
    }

    #[test]
    fn what_is_not_zmtp_is_refused() {
        let outcome = |bytes: &[u8]| {
            let mut decoder = Decoder::new(1000);
            feed(&mut decoder, bytes);
            decoder.next_message().map(drop)
        };
        assert_eq!(outcome(&[b'G'; 64]), Err(ZmtpError::Greeting));
        let mut curve = hello("DEALER", b"");
        curve[12..17].copy_from_slice(b"CURVE");
        assert_eq!(outcome(&curve), Err(ZmtpError::Mechanism("CURVE".into())));
        let with = |rest: &[u8]| outcome(&[&hello("DEALER", b""), rest].concat());
        assert_eq!(with(&[0x80, 0]), Err(ZmtpError::Flags(0x80)));
        assert_eq!(with(&[1, 0, 4, 1, 0]), Err(ZmtpError::Flags(4)));
        assert_eq!(with(&[2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), Err(ZmtpError::TooLarge(1000)));
        assert_eq!(with(b"\x04\x0b\x05ERROR\x04Sad!"), Err(ZmtpError::Refused("Sad!".into())));
        assert_eq!(with(&[1; 3]), Ok(()));
    }
}
