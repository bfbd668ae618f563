//! Log lines about peers' mistakes, at a bounded rate: the first of a kind at once, then at most one a period with a count of the rest.
//! They hold sizes, ids and reasons, never contents or keys.

use std::time::Duration;

use hashbrown::HashMap;

const PERIOD: Duration = Duration::from_secs(5);
/// Kinds are our own words, so few; a bound all the same.
const MAX_KINDS: usize = 64;

#[derive(Debug, Default)]
struct Kind {
    logged_at: Option<Duration>,
    unlogged: u64,
}

/// Complaints of one driver, by kind.
#[derive(Debug)]
pub struct Complaints {
    about: &'static str,
    kinds: HashMap<&'static str, Kind, foldhash::fast::FixedState>,
}

impl Complaints {
    /// Of the named part.
    pub fn new(about: &'static str) -> Self {
        Complaints { about, kinds: HashMap::default() }
    }

    /// Counts one of a kind, and logs it if it is time to.
    pub fn note(&mut self, now: Duration, kind: &'static str, detail: impl std::fmt::Display) {
        if self.kinds.len() >= MAX_KINDS && !self.kinds.contains_key(kind) {
            return;
        }
        let entry = self.kinds.entry(kind).or_default();
        if entry.logged_at.is_some_and(|at| now < at + PERIOD) {
            entry.unlogged += 1;
            return;
        }
        match std::mem::take(&mut entry.unlogged) {
            0 => tracing::warn!("{}: {kind}: {detail}", self.about),
            more => tracing::warn!("{}: {kind}: {detail} (and {more} more like it before)", self.about),
        }
        entry.logged_at = Some(now);
    }
}
