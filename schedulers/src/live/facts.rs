//! What policies may see of a request and a reply, read from their messages. It looks at bytes that are there anyway, and never fails: what
//! can not be told is left unknown.

use std::hash::{BuildHasher, Hasher};

use bytes::Bytes;
use foldhash::fast::FixedState;
use pointsman_core::date::Date;
use pointsman_core::wire::{Header, ReplyMetadata};
use pointsman_core::{Envelope, Packer};
use pointsman_policies::{Hints, TaskFacts};

/// A function's buffer is told from others by its beginning and its length.
const HASHED_BYTES: usize = 4096;

/// Hashes what names a class or a client. The seed is fixed: the same function is the same class in every run.
#[derive(Debug)]
pub struct FactReader {
    hasher: FixedState,
    /// The hash of a buffer that was last found to be, or not to be, the function that runs maps.
    map: u64,
    not_map: u64,
}

impl Default for FactReader {
    fn default() -> Self {
        FactReader { hasher: FixedState::with_seed(0x706f_696e), map: 0, not_map: 0 }
    }
}

impl FactReader {
    fn hash(&self, bytes: &[u8]) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(&bytes[..bytes.len().min(HASHED_BYTES)]);
        hasher.write_usize(bytes.len());
        hasher.finish().max(1)
    }

    fn name(&self, bytes: &[u8]) -> u64 {
        if bytes.is_empty() { 0 } else { self.hash(bytes) }
    }

    /// The facts of a request : they carry the function in their first buffer.
    pub(super) fn of_request(&mut self, request: &Envelope, header: &Header<'_>, hints: Hints) -> TaskFacts {
        let mut facts = TaskFacts::default();
        facts.hints = hints;
        facts.bytes = request.message().size_bytes() as u64;
        facts.client = self.name(request.identity(0));
        facts.session = self.name(header.session.as_bytes());
        facts.class = self.class_of(request.buffers());
        facts
    }

    /// The class of a request with these buffers: which function it calls; 0 without any.
    pub fn class_of(&mut self, buffers: impl IntoIterator<Item = Bytes>) -> u64 {
        let mut buffers = buffers.into_iter();
        let Some(function) = buffers.next() else { return 0 };
        let class = self.hash(&function);
        // A map calls the same function whatever it maps; what it maps is its first argument, after the layout of arguments.
        let mapped = if self.is_map(class, &function) { buffers.nth(1) } else { None };
        mapped.map_or(class, |mapped| self.hash(&mapped))
    }

    fn is_map(&mut self, hash: u64, function: &[u8]) -> bool {
        if hash == self.map || hash == self.not_map {
            return hash == self.map;
        }
        let holds = |words: &[u8]| function.windows(words.len()).any(|window| window == words);
        let is_map = function.len() <= HASHED_BYTES && holds(b"ipyparallel.client.remotefunction") && holds(b"_map");
        *(if is_map { &mut self.map } else { &mut self.not_map }) = hash;
        is_map
    }
}

/// How long a reply says that its task ran: from its `started` to the date of its header, both by the engine's clock.
pub(super) fn run_time(packer: Packer, header: &[u8], metadata: &ReplyMetadata<'_>) -> Option<std::time::Duration> {
    let started = Date::parse(metadata.started.as_deref()?)?;
    let ended = Header::read(packer, header).ok()?.date()?;
    let us = ended.as_unix_us().checked_sub(started.as_unix_us())?;
    u64::try_from(us).ok().map(std::time::Duration::from_micros)
}
