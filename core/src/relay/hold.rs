//! Messages for peers that are not connected yet: an engine can be known a moment before its sockets are. They are kept in order,
//! bounded in number and time, and given up with a count, never silently.

use std::collections::VecDeque;
use std::time::Duration;

use hashbrown::HashMap;

use crate::net::Frame;

/// How long a message is kept.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// How often a kept message is tried again.
pub(super) const RETRY: Duration = Duration::from_millis(10);
/// The most messages that are kept.
const CAPACITY: usize = 10_000;
/// The most messages that are kept for one peer, so that a stranger's do not take the places of others'.
const CAPACITY_EACH: usize = 1_000;

type Held = VecDeque<(Duration, Vec<Frame>)>;

/// Kept messages by the identity they are for.
#[derive(Debug, Default)]
pub(super) struct Hold {
    peers: HashMap<Box<[u8]>, Held, foldhash::fast::FixedState>,
    count: usize,
}

impl Hold {
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether messages for this peer are kept, so that a later one must queue behind them.
    pub(super) fn has(&self, peer: &[u8]) -> bool {
        self.count > 0 && self.peers.contains_key(peer)
    }

    /// Keeps a message; false if there is no room.
    pub(super) fn keep(&mut self, now: Duration, frames: Vec<Frame>) -> bool {
        let Some(peer) = frames.first().filter(|_| self.count < CAPACITY) else { return false };
        let peer: Box<[u8]> = peer.as_ref().into();
        let held = self.peers.entry(peer).or_default();
        if held.len() >= CAPACITY_EACH {
            return false;
        }
        held.push_back((now + PATIENCE, frames));
        self.count += 1;
        true
    }

    /// Tries to send what is kept, in order for each peer. Returns how many messages were given up.
    pub(super) fn retry(&mut self, now: Duration, mut send: impl FnMut(&mut Vec<Frame>) -> bool) -> u64 {
        let mut lost = 0;
        let count = &mut self.count;
        self.peers.retain(|_, held| {
            while let Some((until, frames)) = held.front_mut() {
                let expired = *until <= now;
                let sent = send(frames);
                if !sent && !expired {
                    break;
                }
                lost += u64::from(!sent);
                held.pop_front();
                *count -= 1;
            }
            !held.is_empty()
        });
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(peer: &str, text: &str) -> Vec<Frame> {
        vec![Frame::copy_of(peer.as_bytes()), Frame::copy_of(text.as_bytes())]
    }

    #[test]
    fn kept_messages_go_in_order_or_are_counted() {
        let mut hold = Hold::default();
        let ms = Duration::from_millis;
        assert!(
            hold.keep(ms(0), message("a", "1")) && hold.keep(ms(1), message("a", "2")) && hold.keep(ms(0), message("b", "3"))
        );
        assert!(hold.has(b"a") && !hold.has(b"c"));
        let mut sent = Vec::new();
        let mut only_a = |frames: &mut Vec<Frame>| {
            let goes = frames[0].as_ref() == b"a";
            if goes {
                sent.push(frames[1].as_ref().to_vec());
            }
            goes
        };
        assert_eq!(hold.retry(ms(5), &mut only_a), 0);
        assert_eq!(hold.retry(PATIENCE, &mut only_a), 1);
        assert_eq!((sent, hold.is_empty()), (vec![b"1".to_vec(), b"2".to_vec()], true));
    }
}
