//! Messages for peers that are not connected: an engine can be known a moment before its sockets are, and a link can break and come back.
//! They are kept in order, bounded in bytes and in time; what is given up is told to the caller one by one, never silently.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hashbrown::{HashMap, HashSet};

use crate::net::Frame;

/// How long a message is kept.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// How often a kept message is tried again.
pub(super) const RETRY: Duration = Duration::from_millis(10);

/// What is kept for peers that the hub knows, and for all others together.
const FOR_KNOWN: Bounds = Bounds { bytes: 2 << 30, names: usize::MAX };
/// Anybody can send to names that he makes up: these have little, and can not take what the others have.
const FOR_STRANGERS: Bounds = Bounds { bytes: 64 << 20, names: 1_000 };
/// What a message counts for besides its frames: each may pin one of libzmq's receive buffers.
const OVERHEAD_BYTES: usize = 8 << 10;

#[derive(Clone, Copy, Debug)]
struct Bounds {
    bytes: usize,
    names: usize,
}

/// The names of peers for whom messages are worth keeping: whoever admits them says so, and relays look only when a peer is not connected.
/// Clones share them.
#[derive(Clone, Debug, Default)]
pub struct KnownPeers {
    names: Arc<Mutex<HashSet<Box<[u8]>, foldhash::fast::FixedState>>>,
}

impl KnownPeers {
    fn lock(&self) -> MutexGuard<'_, HashSet<Box<[u8]>, foldhash::fast::FixedState>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner) // an insert leaves the set whole
    }

    /// A peer is there, connected or not.
    pub fn add(&self, name: &[u8]) {
        self.lock().insert(name.into());
    }

    /// A peer is gone.
    pub fn remove(&self, name: &[u8]) {
        self.lock().remove(name);
    }

    fn has(&self, name: &[u8]) -> bool {
        self.lock().contains(name)
    }
}

/// Why a message was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GivenUp {
    /// Its peer did not connect in time.
    Late,
    /// There was no room to keep it.
    NoRoom,
}

#[derive(Debug)]
struct Message {
    until: Duration,
    bytes: usize,
    frames: Vec<Frame>,
}

/// What is kept for one peer, oldest first.
#[derive(Debug)]
struct Held {
    messages: VecDeque<Message>,
    bytes: usize,
    is_known: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Used {
    bytes: usize,
    names: usize,
}

/// Kept messages by the identity they are for. Those of peers that are known and those of strangers have room of their own; within either, who
/// has least comes first.
#[derive(Debug, Default)]
pub(super) struct Hold {
    peers: HashMap<Box<[u8]>, Held, foldhash::fast::FixedState>,
    known: KnownPeers,
    /// By strangers, by known peers.
    used: [Used; 2],
}

impl Hold {
    /// With the names of those who are known.
    pub(super) fn knowing(known: KnownPeers) -> Self {
        Hold { known, ..Hold::default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    /// Whether messages for this peer are kept, so that a later one must queue behind them.
    pub(super) fn has(&self, peer: &[u8]) -> bool {
        !self.peers.is_empty() && self.peers.contains_key(peer)
    }

    /// Keeps a message, or says of which message it was given up for want of room: of this, or of one for a peer that had more. O(1), but
    /// O(peers) where another's goes.
    pub(super) fn keep(&mut self, now: Duration, frames: Vec<Frame>, mut given_up: impl FnMut(&[u8], GivenUp)) {
        let Some(peer) = frames.first().map(Frame::as_ref) else { return };
        let bytes = OVERHEAD_BYTES + frames.iter().map(|frame| size_of::<Frame>() + frame.len()).sum::<usize>();
        let is_known = self.recognise(peer);
        let bounds = if is_known { FOR_KNOWN } else { FOR_STRANGERS };
        let own = self.peers.get(peer).map_or(0, |held| held.bytes) + bytes;
        let used = &self.used[usize::from(is_known)];
        let names = used.names + usize::from(own == bytes);
        if names > bounds.names {
            return given_up(peer, GivenUp::NoRoom);
        }
        // One larger than all the room still has it alone, if it is for somebody known.
        let fits = |used: &Used| used.bytes + bytes <= bounds.bytes || is_known && used.bytes == 0;
        while !fits(&self.used[usize::from(is_known)]) {
            // Above its share it can not win, however much the others have.
            let is_fair = own.saturating_mul(names) <= bounds.bytes;
            let others = self.peers.iter_mut().filter(|(_, held)| held.is_known == is_known && held.bytes > own);
            let largest = if is_fair { others.max_by_key(|(_, held)| held.bytes) } else { None };
            // Its newest: what goes out is in order, without a gap.
            let Some((name, held, newest)) = largest.and_then(|(name, held)| held.messages.pop_back().map(|it| (name, held, it)))
            else {
                return given_up(peer, GivenUp::NoRoom);
            };
            held.bytes -= newest.bytes;
            given_up(name, GivenUp::NoRoom);
            let used = &mut self.used[usize::from(is_known)];
            used.bytes -= newest.bytes;
            if held.messages.is_empty() {
                used.names -= 1;
                let name = name.clone();
                self.peers.remove(&name);
            }
        }
        let used = &mut self.used[usize::from(is_known)];
        used.bytes += bytes;
        let held = self.peers.entry(peer.into()).or_insert_with(|| {
            used.names += 1;
            Held { messages: VecDeque::new(), bytes: 0, is_known }
        });
        held.bytes += bytes;
        held.messages.push_back(Message { until: now + PATIENCE, bytes, frames });
    }

    /// Whether a peer is known by now; what is kept for one who was a stranger moves with it.
    fn recognise(&mut self, peer: &[u8]) -> bool {
        let is_known = self.known.has(peer);
        if let Some(held) = self.peers.get_mut(peer)
            && held.is_known != is_known
        {
            let [strangers, known] = &mut self.used;
            let (from, to) = if is_known { (strangers, known) } else { (known, strangers) };
            (from.bytes, from.names) = (from.bytes - held.bytes, from.names - 1);
            (to.bytes, to.names) = (to.bytes + held.bytes, to.names + 1);
            held.is_known = is_known;
        }
        is_known
    }

    /// Tries to send what is kept, in order for each peer, and says of whom a message was given up. O(peers) and what is sent.
    pub(super) fn retry(
        &mut self,
        now: Duration,
        mut send: impl FnMut(&mut Vec<Frame>) -> bool,
        mut given_up: impl FnMut(&[u8], GivenUp),
    ) {
        let used = &mut self.used;
        self.peers.retain(|peer, held| {
            let used = &mut used[usize::from(held.is_known)];
            while let Some(message) = held.messages.front_mut() {
                let is_late = message.until <= now;
                let sent = send(&mut message.frames);
                if !sent && !is_late {
                    break;
                }
                if !sent {
                    given_up(peer, GivenUp::Late);
                }
                held.bytes -= message.bytes;
                used.bytes -= message.bytes;
                held.messages.pop_front();
            }
            used.names -= usize::from(held.messages.is_empty());
            !held.messages.is_empty()
        });
    }

    /// How many messages are kept.
    pub(super) fn len(&self) -> usize {
        self.peers.values().map(|held| held.messages.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::ZERO;

    fn message(peer: &str, text: &[u8]) -> Vec<Frame> {
        vec![Frame::copy_of(peer.as_bytes()), Frame::copy_of(text)]
    }

    /// Keeps one and returns whose message went for it.
    fn keep(hold: &mut Hold, peer: &str, text: &[u8]) -> Vec<String> {
        let mut lost = Vec::new();
        hold.keep(NOW, message(peer, text), |peer, why| {
            assert_eq!(why, GivenUp::NoRoom);
            lost.push(String::from_utf8(peer.to_vec()).unwrap());
        });
        lost
    }

    /// What is counted is what is there.
    fn check(hold: &Hold) {
        for is_known in [false, true] {
            let of_kind = || hold.peers.values().filter(|held| held.is_known == is_known);
            let used = hold.used[usize::from(is_known)];
            assert_eq!(used.names, of_kind().count());
            assert_eq!(used.bytes, of_kind().map(|held| held.bytes).sum::<usize>());
            assert!(of_kind().all(|held| held.bytes == held.messages.iter().map(|message| message.bytes).sum::<usize>()));
        }
    }

    fn sent(hold: &mut Hold, now: Duration, to: &str) -> (Vec<Vec<u8>>, usize) {
        check(hold);
        let (mut sent, mut lost) = (Vec::new(), 0);
        let send = |frames: &mut Vec<Frame>| {
            let goes = frames[0].as_ref() == to.as_bytes();
            if goes {
                sent.push(frames[1].as_ref().to_vec());
            }
            goes
        };
        hold.retry(now, send, |_, why| {
            assert_eq!(why, GivenUp::Late);
            lost += 1;
        });
        check(hold);
        (sent, lost)
    }

    #[test]
    fn kept_messages_go_in_order_or_are_said_to_be_late() {
        let mut hold = Hold::default();
        for (peer, text) in [("a", b"1"), ("a", b"2"), ("b", b"3")] {
            assert!(keep(&mut hold, peer, text).is_empty());
        }
        assert!(hold.has(b"a") && !hold.has(b"c") && hold.len() == 3);
        assert_eq!(sent(&mut hold, Duration::from_millis(5), "a"), (vec![b"1".to_vec(), b"2".to_vec()], 0));
        assert_eq!(sent(&mut hold, PATIENCE, "a"), (vec![], 1));
        assert!(hold.is_empty());
    }

    #[test]
    fn a_flood_for_nobodies_takes_no_place_of_an_engine_that_is_known() {
        let known = KnownPeers::default();
        known.add(b"engine");
        let mut hold = Hold::knowing(known);
        let flood = |hold: &mut Hold, names: usize, messages: usize| {
            (0..messages).map(|n| keep(hold, &format!("nobody{}", n % names), b"bad").len()).sum::<usize>()
        };
        assert!(flood(&mut hold, 20, 10_000) > 1_000, "there is a bound");
        assert!(flood(&mut hold, 2_000, 2_000) > 1_000);
        for n in 0..100 {
            assert!(keep(&mut hold, "engine", &[n]).is_empty());
        }
        assert_eq!(sent(&mut hold, NOW, "engine").0.len(), 100);
    }

    #[test]
    fn among_strangers_who_has_least_comes_first() {
        let mut hold = Hold::default();
        while keep(&mut hold, "greedy", &[0; 100_000]).is_empty() {}
        let lost = keep(&mut hold, "modest", &[1; 110_000]);
        assert!(!lost.is_empty() && lost.iter().all(|peer| peer == "greedy"), "{lost:?}");
        assert!(keep(&mut hold, "modest", b"2").is_empty(), "there is room for more where those were");
        assert_eq!(keep(&mut hold, "greedy", &[0; 210_000]), ["greedy"], "who has most gets nothing of others'");
        assert_eq!(sent(&mut hold, NOW, "modest").0, [vec![1; 110_000], b"2".to_vec()]);
    }

    #[test]
    fn bytes_are_bounded_for_strangers_and_for_those_who_are_known() {
        let mut hold = Hold::default();
        assert_eq!(keep(&mut hold, "nobody", &vec![0; FOR_STRANGERS.bytes]), ["nobody"], "more than all the room");
        for n in 0..1_000 {
            keep(&mut hold, &format!("nobody{}", n % 7), &[0; 1 << 20]);
        }
        assert!(hold.used[0].bytes <= FOR_STRANGERS.bytes && hold.used[0].bytes > FOR_STRANGERS.bytes / 2);
    }

    #[test]
    fn whoever_becomes_known_takes_along_what_is_kept() {
        let known = KnownPeers::default();
        let mut hold = Hold::knowing(known.clone());
        assert!(keep(&mut hold, "engine", b"early").is_empty());
        known.add(b"engine");
        assert!(keep(&mut hold, "engine", b"later").is_empty());
        assert_eq!((hold.used[0].bytes, hold.used[1].names), (0, 1));
        known.remove(b"engine");
        assert!(keep(&mut hold, "engine", b"last").is_empty());
        assert_eq!((hold.used[0].names, hold.used[1].bytes), (1, 0));
        assert_eq!(sent(&mut hold, NOW, "engine").0, [&b"early"[..], b"later", b"last"]);
    }
}
