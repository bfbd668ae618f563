//! What was refused, given up or lost: each is counted where it can be read, and told in the log at a bounded rate, by one call. No line
//! holds contents or keys, only sizes, ids and reasons.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hashbrown::HashMap;

const PERIOD: Duration = Duration::from_secs(5);

/// How often each kind of thing has happened, by the part that saw it. Clones share their counts, and any thread may read them.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    counts: Arc<Mutex<BTreeMap<Name, Arc<AtomicU64>>>>,
}

/// The part that counts, and what it counts.
type Name = (&'static str, &'static str);

impl Tally {
    /// The counter of one kind; the same for everyone who asks by these words. O(log n) in the number of kinds, which are our own words.
    pub fn counter(&self, part: &'static str, kind: &'static str) -> Arc<AtomicU64> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner); // an insert leaves the map whole
        counts.entry((part, kind)).or_default().clone()
    }

    /// Part, kind and count of all that has happened at least once, in alphabetical order.
    pub fn counts(&self) -> Vec<(&'static str, &'static str, u64)> {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let read = counts.iter().map(|(&(part, kind), count)| (part, kind, count.load(Ordering::Relaxed)));
        read.filter(|(.., count)| *count > 0).collect()
    }
}

#[derive(Debug)]
struct Kind {
    count: Arc<AtomicU64>,
    logged_at: Option<Duration>,
    unlogged: u64,
}

/// Complaints of one driver, by kind.
#[derive(Debug)]
pub struct Complaints {
    about: &'static str,
    tally: Tally,
    kinds: HashMap<&'static str, Kind, foldhash::fast::FixedState>,
}

impl Complaints {
    /// Of the named part, counted in that tally.
    pub fn new(about: &'static str, tally: &Tally) -> Self {
        Complaints { about, tally: tally.clone(), kinds: HashMap::default() }
    }

    /// Counts one of a kind, and logs it if it is time to: the first at once, then at most one a period with a count of the rest.
    pub fn note(&mut self, now: Duration, kind: &'static str, detail: impl std::fmt::Display) {
        self.note_many(now, kind, 1, detail);
    }

    /// Counts one of a kind that honest peers cause too, which is worth a line for those only who look for it.
    pub fn count(&mut self, kind: &'static str) {
        self.kind(kind).count.fetch_add(1, Ordering::Relaxed);
        tracing::debug!("{}: {kind}", self.about);
    }

    fn kind(&mut self, kind: &'static str) -> &mut Kind {
        let (about, tally) = (self.about, &self.tally);
        self.kinds.entry(kind).or_insert_with(|| Kind { count: tally.counter(about, kind), logged_at: None, unlogged: 0 })
    }

    /// The same as [`note`](Self::note) for so many at once.
    pub fn note_many(&mut self, now: Duration, kind: &'static str, count: u64, detail: impl std::fmt::Display) {
        let about = self.about;
        let entry = self.kind(kind);
        entry.count.fetch_add(count, Ordering::Relaxed);
        if entry.logged_at.is_some_and(|at| now < at + PERIOD) {
            entry.unlogged += count;
            return;
        }
        match std::mem::take(&mut entry.unlogged) + count - 1 {
            0 => tracing::warn!("{about}: {kind}: {detail}"),
            more => tracing::warn!("{about}: {kind}: {detail} (and {more} more like it before)"),
        }
        entry.logged_at = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_is_counted_for_all_who_share_the_tally_whether_it_is_logged_or_not() {
        let tally = Tally::default();
        let mut relay = Complaints::new("mux", &tally);
        let mut hub = Complaints::new("hub", &tally);
        assert_eq!(tally.counts(), []);
        for second in 0..3 {
            relay.note(Duration::from_secs(second), "undelivered", "to nobody");
        }
        hub.note_many(Duration::ZERO, "record lost", 40, "no room");
        hub.note(Duration::ZERO, "refused", "a signature");
        assert_eq!(tally.counts(), [("hub", "record lost", 40), ("hub", "refused", 1), ("mux", "undelivered", 3)]);
    }
}
