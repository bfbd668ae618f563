//! A multipart message as it travels, packed for keeping, and the split into identities, signature, parts and buffers.
//! Nothing here looks inside a part or trusts a length; what has not the right frames is [`Malformed`].

use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

/// The frame between identities and the signed message.
pub const DELIMITER: &[u8] = b"<IDS|MSG>";

/// Frames at least this long are kept by reference instead of being packed, in bytes: below it, holding a frame of libzmq pins a
/// receive buffer of 8 KiB, above it, a copy costs more than the reference count.
pub const LARGE_FRAME_BYTES: usize = 4096;

/// More identity frames than any route has; a message without a delimiter among its first frames is refused early.
const MAX_IDENTITIES: usize = 16;

#[derive(Clone, Copy, Debug)]
struct Span {
    start: u32,
    len: u32,
}

/// `start` of a span whose `len` is an index into the large frames.
const LARGE: u32 = u32::MAX;

/// Frames kept together: small ones packed into one allocation, large ones by reference. Cheap to share behind an [`Arc`].
#[derive(Clone, Debug, Default)]
pub struct Multipart {
    small: Bytes,
    large: Vec<Bytes>,
    spans: SmallVec<[Span; 12]>,
}

impl Multipart {
    /// Packs frames by copying all of them.
    pub fn pack<F: AsRef<[u8]>>(frames: impl IntoIterator<Item = F>) -> Multipart {
        let mut builder = MultipartBuilder::default();
        for frame in frames {
            let frame = frame.as_ref();
            if frame.len() >= LARGE_FRAME_BYTES {
                builder.push_large(Bytes::copy_from_slice(frame));
            } else {
                builder.push_small(frame);
            }
        }
        builder.finish()
    }

    /// Number of frames.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there are no frames.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// A frame's bytes; empty beyond the last.
    pub fn frame(&self, index: usize) -> &[u8] {
        match self.spans.get(index) {
            Some(span) if span.start == LARGE => &self.large[span.len as usize],
            Some(span) => &self.small[span.start as usize..(span.start + span.len) as usize],
            None => &[],
        }
    }

    /// A frame's bytes, sharing this message's storage.
    pub fn frame_bytes(&self, index: usize) -> Bytes {
        match self.spans.get(index) {
            Some(span) if span.start == LARGE => self.large[span.len as usize].clone(),
            Some(span) => self.small.slice(span.start as usize..(span.start + span.len) as usize),
            None => Bytes::new(),
        }
    }

    /// All frames in order.
    pub fn frames(&self) -> impl ExactSizeIterator<Item = &[u8]> + '_ {
        (0..self.len()).map(|index| self.frame(index))
    }

    /// Bytes in all frames together.
    pub fn size_bytes(&self) -> usize {
        self.small.len() + self.large.iter().map(Bytes::len).sum::<usize>()
    }
}

/// Collects frames into a [`Multipart`].
#[derive(Debug, Default)]
pub struct MultipartBuilder {
    small: Vec<u8>,
    large: Vec<Bytes>,
    spans: SmallVec<[Span; 12]>,
}

impl MultipartBuilder {
    /// A builder with room for `bytes` of small frames.
    pub fn with_capacity(bytes: usize) -> Self {
        MultipartBuilder { small: Vec::with_capacity(bytes), ..Self::default() }
    }

    /// Adds a frame by copying it.
    pub fn push_small(&mut self, frame: &[u8]) {
        // Packed bytes are addressed with 32 bits; whatever does not fit is kept by reference.
        let Ok(start) = u32::try_from(self.small.len() + frame.len()).map(|end| end - frame.len() as u32) else {
            return self.push_large(Bytes::copy_from_slice(frame));
        };
        self.spans.push(Span { start, len: frame.len() as u32 });
        self.small.extend_from_slice(frame);
    }

    /// Adds a frame by reference.
    pub fn push_large(&mut self, frame: Bytes) {
        self.spans.push(Span { start: LARGE, len: self.large.len() as u32 });
        self.large.push(frame);
    }

    /// The packed message.
    pub fn finish(self) -> Multipart {
        Multipart { small: self.small.into_boxed_slice().into(), large: self.large, spans: self.spans }
    }
}

/// Why a message has not the frames of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// No delimiter among the first frames.
    #[error("no <IDS|MSG> delimiter")]
    NoDelimiter,
    /// Fewer than five frames after the delimiter.
    #[error("only {0} of at least 5 frames after the delimiter")]
    TooShort(usize),
}

/// How many frames after its delimiter a message's buffers begin: behind signature, header, parent header, metadata and content.
pub const BUFFERS_AT: usize = 6;

/// Where the parts of a message are: identities, then the delimiter at `delimiter`, signature, header, parent header, metadata,
/// content, buffers (PROTOCOL: message format).
#[derive(Clone, Debug)]
pub struct Envelope {
    message: Arc<Multipart>,
    delimiter: usize,
}

impl Envelope {
    /// Finds the parts. O(identities).
    ///
    /// # Errors
    /// If there is no delimiter or too little behind it.
    pub fn open(message: Arc<Multipart>) -> Result<Envelope, Malformed> {
        let delimiter = find_parts(message.frames())?;
        Ok(Envelope { message, delimiter })
    }

    /// The same message without what follows its content, packed anew. O(bytes that stay).
    #[must_use]
    pub fn without_buffers(&self) -> Envelope {
        let frames = self.message.frames().take(self.delimiter + BUFFERS_AT);
        Envelope { message: Arc::new(Multipart::pack(frames)), delimiter: self.delimiter }
    }

    /// The same message with other parts: header, parent header, metadata and content. O(frames), and O(bytes) of the small ones.
    #[must_use]
    pub fn with_parts(&self, parts: [&[u8]; 4]) -> Envelope {
        let mut builder = MultipartBuilder::default();
        let mut push =
            |frame: Bytes| if frame.len() < LARGE_FRAME_BYTES { builder.push_small(&frame) } else { builder.push_large(frame) };
        (0..self.delimiter + 2).for_each(|index| push(self.message.frame_bytes(index)));
        parts.into_iter().for_each(|part| push(Bytes::copy_from_slice(part)));
        self.buffers().for_each(push);
        Envelope { message: Arc::new(builder.finish()), delimiter: self.delimiter }
    }

    /// The message that this looks into.
    pub fn message(&self) -> &Arc<Multipart> {
        &self.message
    }

    /// How many identity frames stand before the delimiter.
    pub fn identity_count(&self) -> usize {
        self.delimiter
    }

    /// An identity frame, the outermost first.
    pub fn identity(&self, index: usize) -> &[u8] {
        if index < self.delimiter { self.message.frame(index) } else { &[] }
    }

    /// The index of the delimiter frame: a forwarded message is new identities and the frames from here.
    pub fn delimiter(&self) -> usize {
        self.delimiter
    }

    /// The signature frame.
    pub fn signature(&self) -> &[u8] {
        self.message.frame(self.delimiter + 1)
    }

    /// Header, parent header, metadata and content.
    pub fn parts(&self) -> [&[u8]; 4] {
        [2, 3, 4, 5].map(|offset| self.message.frame(self.delimiter + offset))
    }

    /// The header.
    pub fn header(&self) -> &[u8] {
        self.message.frame(self.delimiter + 2)
    }

    /// The parent header.
    pub fn parent(&self) -> &[u8] {
        self.message.frame(self.delimiter + 3)
    }

    /// The metadata.
    pub fn metadata(&self) -> &[u8] {
        self.message.frame(self.delimiter + 4)
    }

    /// The content.
    pub fn content(&self) -> &[u8] {
        self.message.frame(self.delimiter + 5)
    }

    /// A part (0 header, 1 parent, 2 metadata, 3 content), sharing the message's storage.
    pub fn part_bytes(&self, part: usize) -> Bytes {
        self.message.frame_bytes(self.delimiter + 2 + part)
    }

    /// The buffers behind the content, sharing the message's storage.
    pub fn buffers(&self) -> impl ExactSizeIterator<Item = Bytes> + '_ {
        (self.delimiter + BUFFERS_AT..self.message.len()).map(|index| self.message.frame_bytes(index))
    }
}

/// The index of the delimiter of a message that has all parts.
pub(crate) fn find_parts<'a>(frames: impl ExactSizeIterator<Item = &'a [u8]>) -> Result<usize, Malformed> {
    let len = frames.len();
    let delimiter = find_delimiter(frames).ok_or(Malformed::NoDelimiter)?;
    let behind = len - delimiter - 1;
    if behind < BUFFERS_AT - 1 { Err(Malformed::TooShort(behind)) } else { Ok(delimiter) }
}

/// The index of the delimiter, if it stands among the first frames.
pub fn find_delimiter<'a>(frames: impl Iterator<Item = &'a [u8]>) -> Option<usize> {
    frames.take(MAX_IDENTITIES + 1).position(|frame| frame == DELIMITER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packing_keeps_every_frame() {
        let frames = [vec![1u8; 3], vec![], vec![2u8; LARGE_FRAME_BYTES], vec![3u8; LARGE_FRAME_BYTES - 1]];
        let packed = Multipart::pack(&frames);
        assert_eq!(packed.frames().map(<[u8]>::to_vec).collect::<Vec<_>>(), frames);
        assert_eq!(packed.frame(9), b"");
        assert_eq!(packed.size_bytes(), frames.iter().map(Vec::len).sum::<usize>());
    }

    #[test]
    fn what_has_not_the_frames_of_a_message_is_refused() {
        let open = |frames: &[&[u8]]| Envelope::open(Arc::new(Multipart::pack(frames)));
        assert_eq!(open(&[]).unwrap_err(), Malformed::NoDelimiter);
        assert_eq!(open(&[b"a", DELIMITER, b"s", b"h", b"p", b"m"]).unwrap_err(), Malformed::TooShort(4));
        let mut deep: Vec<&[u8]> = vec![b"id"; 1000];
        deep.extend([DELIMITER, b"s", b"{}", b"{}", b"{}", b"{}"]);
        assert_eq!(open(&deep).unwrap_err(), Malformed::NoDelimiter);
        let envelope = open(&[b"a", DELIMITER, b"s", b"h", b"p", b"m", b"c", b"b0", b"b1"]).unwrap();
        assert_eq!((envelope.identity(0), envelope.identity(1), envelope.content()), (&b"a"[..], &b""[..], &b"c"[..]));
        assert_eq!(envelope.buffers().collect::<Vec<_>>(), ["b0", "b1"]);
    }
}
