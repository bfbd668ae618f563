//! Signing and checking of messages: HMAC-SHA256 over the four packed parts, compared in constant time, and a window of digests
//! against replay. A digest is remembered only after it has been verified, so that forgeries can not push real ones out.

use std::borrow::Cow;
use std::collections::VecDeque;

use hashbrown::HashSet;
use hmac::{Hmac, KeyInit, Mac};
use serde::Serialize;
use sha2::Sha256;
use smallvec::SmallVec;

use crate::date::Date;
use crate::{Envelope, Packer};

/// A signature as it travels: 64 hexadecimal digits, or nothing without a key.
pub type Signature = SmallVec<[u8; 64]>;

/// How many digests a [`Session`] remembers.
const REPLAY_WINDOW: usize = 65_536;

/// Why a message is not taken for genuine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No signature, and the session has a key.
    #[error("unsigned message")]
    Unsigned,
    /// A signature by another key, of other content, or no signature at all.
    #[error("invalid signature")]
    Signature,
    /// The same signed bytes were seen before.
    #[error("replayed message")]
    Replay,
}

/// Signs and checks with one key. Cloning is cheap: the key schedule is done once.
#[derive(Clone)]
pub struct Signer {
    keyed: Option<Hmac<Sha256>>,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.keyed.is_some() { "Signer(keyed)" } else { "Signer(no key)" })
    }
}

impl Signer {
    /// With a key of any length; an empty one means that nothing is signed or checked.
    pub fn new(key: &[u8]) -> Signer {
        // HMAC takes keys of every length, so the error case does not exist for it.
        Signer { keyed: if key.is_empty() { None } else { Hmac::new_from_slice(key).ok() } }
    }

    /// Whether messages are signed.
    pub fn has_key(&self) -> bool {
        self.keyed.is_some()
    }

    /// The signature of header, parent header, metadata and content. O(bytes).
    pub fn sign(&self, parts: [&[u8]; 4]) -> Signature {
        let mut signature = Signature::new();
        if let Some(mut mac) = self.keyed.clone() {
            for part in parts {
                mac.update(part);
            }
            signature.resize(64, 0);
            // 32 bytes into 64 digits always fit.
            let _ = const_hex::encode_to_slice(mac.finalize().into_bytes(), &mut signature);
        }
        signature
    }

    /// Checks a signature in constant time and returns the digest it stands for. Only one spelling of a digest is its signature, 64
    /// lower-case digits: peers compare text, and would drop what passed here in another. O(bytes).
    ///
    /// # Errors
    /// If it is missing or wrong; never without a key.
    pub fn verify(&self, signature: &[u8], parts: [&[u8]; 4]) -> Result<[u8; 32], Refused> {
        let Some(mut mac) = self.keyed.clone() else { return Ok([0; 32]) };
        if signature.is_empty() {
            return Err(Refused::Unsigned);
        }
        let mut digest = [0; 32];
        if signature.len() != 64 || const_hex::decode_to_slice(signature, &mut digest).is_err() {
            return Err(Refused::Signature);
        }
        for part in parts {
            mac.update(part);
        }
        mac.verify_slice(&digest).map_err(|_| Refused::Signature)?;
        // It is genuine, so nothing that this comparison takes tells of the key.
        let mut spelled = [0; 64];
        match const_hex::encode_to_slice(digest, &mut spelled) {
            Ok(()) if spelled == *signature => Ok(digest),
            _ => Err(Refused::Signature),
        }
    }
}

/// The last verified digests, oldest forgotten first. O(1) each.
#[derive(Debug, Default)]
struct ReplayWindow {
    seen: HashSet<u128, foldhash::fast::FixedState>,
    order: VecDeque<u128>,
}

impl ReplayWindow {
    fn first_time(&mut self, digest: &[u8; 32]) -> bool {
        let mut half = [0; 16];
        half.copy_from_slice(&digest[..16]);
        let half = u128::from_le_bytes(half);
        if !self.seen.insert(half) {
            return false;
        }
        self.order.push_back(half);
        if self.order.len() > REPLAY_WINDOW
            && let Some(oldest) = self.order.pop_front()
        {
            self.seen.remove(&oldest);
        }
        true
    }
}

/// One party of the conversation: its key, its name, the ids of its messages, and its memory of what it has read.
#[derive(Debug)]
pub struct Session {
    signer: Signer,
    packer: Packer,
    id: String,
    username: String,
    pid: u32,
    sent: u64,
    window: ReplayWindow,
}

/// A header of our own.
#[derive(Serialize)]
struct Header<'a> {
    msg_id: &'a str,
    msg_type: &'a str,
    username: &'a str,
    session: &'a str,
    date: Date,
    version: &'a str,
}

/// A signed message of our own: delimiter, signature, four parts.
pub type Parts = [Vec<u8>; 6];

impl Session {
    /// A party with a session id that no other has, which writes JSON. `pid` only makes message ids look like everyone else's.
    pub fn new(signer: Signer, id: impl Into<String>, username: impl Into<String>, pid: u32) -> Session {
        let (id, username, window) = (id.into(), username.into(), ReplayWindow::default());
        Session { signer, packer: Packer::Json, id, username, pid, sent: 0, window }
    }

    /// The same, of a cluster that packs its messages so.
    #[must_use]
    pub fn packed_by(mut self, packer: Packer) -> Session {
        self.packer = packer;
        self
    }

    /// How it writes, and reads, the parts of messages.
    pub fn packer(&self) -> Packer {
        self.packer
    }

    /// The session id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The signer.
    pub fn signer(&self) -> &Signer {
        &self.signer
    }

    /// A message id that this session has not used.
    pub fn next_msg_id(&mut self) -> String {
        self.sent += 1;
        format!("{}_{}_{}", self.id, self.pid, self.sent - 1)
    }

    /// Checks a message's signature and that it is new.
    ///
    /// # Errors
    /// If it is not genuine, or seen before. Without a key nothing is refused.
    pub fn admit(&mut self, envelope: &Envelope) -> Result<(), Refused> {
        let digest = self.signer.verify(envelope.signature(), envelope.parts())?;
        if self.signer.has_key() && !self.window.first_time(&digest) {
            return Err(Refused::Replay);
        }
        Ok(())
    }

    /// A header with a fresh id, packed.
    pub fn header(&mut self, msg_type: &str, now: Date) -> (String, Vec<u8>) {
        let msg_id = self.next_msg_id();
        let header = self.header_with_id(&msg_id, msg_type, now);
        (msg_id, header)
    }

    /// A header with a given id, packed.
    pub fn header_with_id(&self, msg_id: &str, msg_type: &str, now: Date) -> Vec<u8> {
        let header =
            Header { msg_id, msg_type, username: &self.username, session: &self.id, date: now, version: crate::wire::VERSION };
        self.packer.write(&header)
    }

    /// A whole message with a fresh id. `metadata` and `content` are JSON objects, which are packed here; `parent` is a header as it was
    /// received, or as JSON, and `{}` for none.
    pub fn compose(&mut self, msg_type: &str, now: Date, parent: &[u8], metadata: &[u8], content: Vec<u8>) -> Parts {
        let (_, header) = self.header(msg_type, now);
        self.compose_under(header, parent, metadata, content)
    }

    /// The same under a header that was made before.
    pub fn compose_under(&self, header: Vec<u8>, parent: &[u8], metadata: &[u8], content: Vec<u8>) -> Parts {
        self.seal(self.packed(header), self.packed(parent), self.packed(metadata), self.packed(content))
    }

    /// A part that is JSON, or has been packed: no msgpack object begins as a JSON object does.
    fn packed<'a>(&self, part: impl Into<Cow<'a, [u8]>>) -> Vec<u8> {
        let part = part.into();
        match self.packer {
            Packer::Json => part.into_owned(),
            // JSON that is none is of nobody here: parts of others are read before they are written.
            Packer::Msgpack if part.trim_ascii_start().first() == Some(&b'{') => {
                self.packer.of_json(part).unwrap_or_else(|_| self.packer.empty_object().to_vec())
            }
            Packer::Msgpack => part.into_owned(),
        }
    }

    /// Signs four parts that have been packed.
    pub fn seal(&self, header: Vec<u8>, parent: Vec<u8>, metadata: Vec<u8>, content: Vec<u8>) -> Parts {
        let signature = self.signer.sign([&header, &parent, &metadata, &content]);
        [crate::DELIMITER.to_vec(), signature.to_vec(), header, parent, metadata, content]
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::Multipart;

    fn envelope(parts: &Parts) -> Envelope {
        Envelope::open(Arc::new(Multipart::pack(parts))).unwrap()
    }

    /// Computed with Python's `hmac.new(b"key", b"{}{}{}{}", "sha256").hexdigest()`.
    #[test]
    fn signatures_are_those_of_python() {
        let signature = Signer::new(b"key").sign([b"{}"; 4]);
        assert_eq!(signature.as_slice(), b"ca767b02c5bc061ed184a9a029e7f93a7f2f7ed4e8fe74120fc1212f0b008fa3".as_slice());
    }

    #[test]
    fn forgeries_replays_and_unsigned_messages_are_refused() {
        let mut alice = Session::new(Signer::new(b"key"), "a", "u", 1);
        let mut bob = Session::new(Signer::new(b"key"), "b", "u", 1);
        let genuine = alice.compose("hello", Date::from_unix_us(0), b"{}", b"{}", b"{}".to_vec());
        let mut forged = genuine.clone();
        forged[5] = b"{\"x\":1}".to_vec();
        assert_eq!(bob.admit(&envelope(&forged)), Err(Refused::Signature));
        assert_eq!(bob.admit(&envelope(&genuine)), Ok(()));
        assert_eq!(bob.admit(&envelope(&genuine)), Err(Refused::Replay));
        let mut unsigned = genuine.clone();
        unsigned[1].clear();
        assert_eq!(bob.admit(&envelope(&unsigned)), Err(Refused::Unsigned));
        for junk in [&b"zz"[..], &[0xff; 64], &genuine[1][..62]] {
            unsigned[1] = junk.to_vec();
            assert_eq!(bob.admit(&envelope(&unsigned)), Err(Refused::Signature));
        }
        let mut keyless = Session::new(Signer::new(b""), "c", "u", 1);
        assert_eq!((keyless.admit(&envelope(&genuine)), keyless.admit(&envelope(&genuine))), (Ok(()), Ok(())));
    }

    #[test]
    fn a_signature_has_one_spelling() {
        let signer = Signer::new(b"key");
        let parts = [&b"{}"[..]; 4];
        let genuine = signer.sign(parts).to_vec();
        assert!(signer.verify(&genuine, parts).is_ok());
        let digits = genuine.iter().position(u8::is_ascii_lowercase).unwrap();
        let mut one_upper = genuine.clone();
        one_upper[digits].make_ascii_uppercase();
        for other in [one_upper, genuine.to_ascii_uppercase(), [b"0x", &genuine[..]].concat(), [&genuine[..], b" "].concat()] {
            assert_eq!(signer.verify(&other, parts), Err(Refused::Signature), "{}", String::from_utf8_lossy(&other));
        }
    }

    #[test]
    fn messages_are_packed_as_the_cluster_does() {
        let mut session = Session::new(Signer::new(b"key"), "a", "u", 1).packed_by(Packer::Msgpack);
        let parts = session.compose("hello", Date::from_unix_us(0), b"{}", b"{}", b"{\"x\":[1]}".to_vec());
        assert_eq!((&parts[3][..], &parts[4][..], &parts[5][..]), (&b"\x80"[..], &b"\x80"[..], &b"\x81\xa1x\x91\x01"[..]));
        let header = crate::wire::Header::read(Packer::Msgpack, &parts[2]).unwrap();
        assert_eq!((&*header.msg_type, header.date()), ("hello", Some(Date::from_unix_us(0))));
        let reply = session.compose("hello_reply", Date::from_unix_us(0), &parts[2].clone(), b"{}", b"{}".to_vec());
        assert_eq!(reply[3], parts[2], "the parent is echoed as it was");
        assert_eq!(session.admit(&envelope(&reply)), Ok(()));
    }

    #[test]
    fn a_forgery_never_enters_the_replay_window() {
        let mut bob = Session::new(Signer::new(b"key"), "b", "u", 1);
        let mut alice = Session::new(Signer::new(b"key"), "a", "u", 1);
        let genuine = alice.compose("hello", Date::from_unix_us(0), b"{}", b"{}", b"{}".to_vec());
        let mut forged = genuine.clone();
        forged[5] = b"{ }".to_vec(); // the genuine signature over other content
        assert_eq!(bob.admit(&envelope(&forged)), Err(Refused::Signature));
        assert_eq!(bob.admit(&envelope(&genuine)), Ok(()));
    }
}
