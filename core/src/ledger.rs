//! What became of every finished task, for ever, in a few bytes each: message ids are `<session>_<pid>_<counter>`, so one word in a
//! table by counter is enough. An id of another shape, or far from its neighbours, costs at most 30 bytes; no id is ever forgotten.

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use std::cell::Cell;
use std::hash::{BuildHasher, Hasher};

/// A run keeps one word for each counter as long as at least one in this many is used.
const SPARSEST: u64 = 4;
/// Counters up to this from the beginning of a run are always kept in it, however few of them are used.
const SLACK: u64 = 256;
/// So many ids near each other, and far from all runs of their session, begin another.
const STREAK: u32 = 64;
/// Sessions of which streaks are noticed at the same time.
const STREAKS: usize = 16;

/// Words of a table that are kept together.
const PIECE: usize = 256;

/// A longer prefix is nobody's session: it is hashed, not kept.
const MAX_PREFIX_BYTES: usize = 128;

/// A map from message id to a non-zero word. Reads and writes are O(1); ids of the session seen last cost a comparison and no hash.
#[derive(Debug, Default)]
pub struct Ledger {
    /// A session's table, by its prefix.
    places: HashMap<Box<str>, usize, FixedState>,
    tables: Vec<Table>,
    /// The table found last: ids come in long runs of one session.
    last: Cell<usize>,
    /// What may become runs.
    streaks: [Streak; STREAKS],
    next_streak: usize,
    /// The ids that fit no run, by a 64-bit hash in two halves: 12 bytes an entry instead of 16.
    sparse: HashMap<[u32; 2], u32, FixedState>,
    len: u64,
}

/// A session's runs, by where they begin: one, unless the session is older than this controller or many of its tasks have yet to end.
#[derive(Debug)]
struct Table {
    prefix: Box<str>,
    runs: Vec<Run>,
}

impl Table {
    /// The run in which a counter would be: the last that begins no later.
    fn run(&self, counter: u64) -> Option<usize> {
        self.runs.partition_point(|run| run.from <= counter).checked_sub(1)
    }

    fn get(&self, counter: u64) -> u32 {
        self.run(counter).map_or(0, |at| self.runs[at].get(counter))
    }
}

/// Words of counters that follow each other closely.
#[derive(Debug)]
struct Run {
    /// The first counter.
    from: u64,
    /// In pieces, so that growing never moves what is there.
    #[allow(clippy::vec_box, reason = "a vector of pieces would move them as it grows")]
    words: Vec<Box<[u32; PIECE]>>,
    used: u64,
}

/// Ids that came one after the other and fit no run.
#[derive(Clone, Copy, Debug, Default)]
struct Streak {
    session: u64,
    last: u64,
    count: u32,
}

impl Run {
    fn admits(&self, counter: u64) -> bool {
        let at = counter - self.from;
        at < (self.words.len() * PIECE) as u64 || at < (self.used + 1) * SPARSEST + SLACK
    }

    fn get(&self, counter: u64) -> u32 {
        let at = (counter - self.from) as usize;
        self.words.get(at / PIECE).map_or(0, |piece| piece[at % PIECE])
    }

    /// Sets a word, and returns the one before.
    fn set(&mut self, counter: u64, word: u32) -> u32 {
        let at = (counter - self.from) as usize;
        while self.words.len() <= at / PIECE {
            self.words.push(Box::new([0; PIECE]));
        }
        let before = std::mem::replace(&mut self.words[at / PIECE][at % PIECE], word);
        self.used = self.used + u64::from(before == 0 && word != 0) - u64::from(before != 0 && word == 0);
        before
    }
}

/// Splits `<prefix>_<counter>`; leading zeros are part of another id's spelling and do not count as a counter.
fn split(id: &str) -> Option<(&str, u64)> {
    let bytes = id.as_bytes();
    let (mut counter, mut scale, mut at) = (0, 1, bytes.len());
    loop {
        at = at.checked_sub(1)?;
        match bytes[at] {
            digit @ b'0'..=b'9' if bytes.len() - at <= 15 => counter += u64::from(digit - b'0') * scale,
            b'_' => break,
            _ => return None,
        }
        scale *= 10;
    }
    let digits = &bytes[at + 1..];
    let is_canonical = !digits.is_empty() && (digits.len() == 1 || digits[0] != b'0');
    (is_canonical && at <= MAX_PREFIX_BYTES).then(|| (&id[..at], counter))
}

fn halves(id: &str) -> [u32; 2] {
    let mut hasher = FixedState::with_seed(0x706f_696e_7473_6d61).build_hasher();
    hasher.write(id.as_bytes());
    let hash = hasher.finish();
    [hash as u32, (hash >> 32) as u32]
}

impl Ledger {
    /// The table of a prefix.
    fn place(&self, prefix: &str) -> Option<usize> {
        let last = self.last.get();
        if self.tables.get(last).is_some_and(|table| *table.prefix == *prefix) {
            return Some(last);
        }
        let place = self.places.get(prefix).copied()?;
        self.last.set(place);
        Some(place)
    }

    fn sparse_word(&self, id: &str) -> u32 {
        if self.sparse.is_empty() { 0 } else { self.sparse.get(&halves(id)).copied().unwrap_or(0) }
    }

    /// The word of an id, 0 if it has none.
    pub fn get(&self, id: &str) -> u32 {
        if let Some((prefix, counter)) = split(id)
            && let Some(place) = self.place(prefix)
            && let word = self.tables[place].get(counter)
            && word != 0
        {
            return word;
        }
        self.sparse_word(id)
    }

    /// Sets the word of an id. 0 clears it.
    pub fn set(&mut self, id: &str, word: u32) {
        let counted = split(id).filter(|_| self.sparse_word(id) == 0);
        let Some((prefix, counter)) = counted else { return self.set_sparse(id, word) };
        let Some((place, run)) = self.run_for(prefix, counter, word) else { return self.set_sparse(id, word) };
        let before = self.tables[place].runs[run].set(counter, word);
        self.len = self.len + u64::from(before == 0 && word != 0) - u64::from(before != 0 && word == 0);
    }

    /// The run that a counter of a session goes into, if one takes it or it is worth one.
    fn run_for(&mut self, prefix: &str, counter: u64, word: u32) -> Option<(usize, usize)> {
        let place = self.place(prefix);
        if let Some(place) = place
            && let Some(run) = self.tables[place].run(counter)
            && self.tables[place].runs[run].admits(counter)
        {
            return Some((place, run));
        }
        let is_first = counter < SLACK && place.is_none();
        if word == 0 || !(is_first || self.is_streak(prefix, counter)) {
            return None;
        }
        let place = place.unwrap_or_else(|| {
            self.places.insert(prefix.into(), self.tables.len());
            self.tables.push(Table { prefix: prefix.into(), runs: Vec::new() });
            self.last.set(self.tables.len() - 1);
            self.tables.len() - 1
        });
        let runs = &mut self.tables[place].runs;
        let at = runs.partition_point(|run| run.from <= counter);
        runs.insert(at, Run { from: if is_first { 0 } else { counter }, words: Vec::new(), used: 0 });
        Some((place, at))
    }

    /// Takes note of an id that fits no run; whether enough came close to each other.
    fn is_streak(&mut self, prefix: &str, counter: u64) -> bool {
        let [low, high] = halves(prefix);
        let session = u64::from(low) | u64::from(high) << 32;
        let at = self.streaks.iter().position(|streak| streak.session == session && streak.count > 0).unwrap_or_else(|| {
            self.next_streak = (self.next_streak + 1) % STREAKS;
            self.streaks[self.next_streak] = Streak { session, last: counter, count: 0 };
            self.next_streak
        });
        let streak = &mut self.streaks[at];
        streak.count = if counter.abs_diff(streak.last) < PIECE as u64 { streak.count + 1 } else { 1 };
        streak.last = counter;
        let is_long = streak.count >= STREAK;
        if is_long {
            streak.count = 0;
        }
        is_long
    }

    fn set_sparse(&mut self, id: &str, word: u32) {
        let before = if word == 0 { self.sparse.remove(&halves(id)) } else { self.sparse.insert(halves(id), word) };
        self.len = self.len + u64::from(before.is_none() && word != 0) - u64::from(before.is_some() && word == 0);
    }

    /// How many ids have a word.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether no id has a word.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Heap bytes held. O(sessions).
    pub fn heap_bytes(&self) -> usize {
        let tables: usize = self
            .tables
            .iter()
            .map(|table| {
                let runs = table.runs.iter().map(|run| 4 * PIECE * run.words.len() + 8 * run.words.capacity());
                2 * table.prefix.len() + table.runs.capacity() * size_of::<Run>() + runs.sum::<usize>()
            })
            .sum();
        tables + self.tables.capacity() * size_of::<Table>() + self.places.allocation_size() + self.sparse.allocation_size()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_finished_task_costs_a_few_bytes() {
        for (step, most) in [(1, 4.5), (3, 16.0), (4, 20.0), (7, 32.0), (1000, 32.0)] {
            let mut ledger = Ledger::default();
            for n in 0..300_000_u64 {
                ledger.set(&format!("c8a26bde-323a3fc84006137c3c739507_4242_{}", n * step), 1 + n as u32);
            }
            let each = ledger.heap_bytes() as f64 / 300_000.0;
            assert!(each <= most, "every {step}th id: {each} bytes");
            assert_eq!(ledger.len(), 300_000);
        }
    }

    #[test]
    fn ids_far_from_the_first_cost_as_little_once_they_come_in_order() {
        let mut ledger = Ledger::default();
        for n in (0..300_000_u64).map(|n| n + 5_000_000) {
            // Two sessions at once, one that has begun before.
            for session in ["a_1", "b_2"] {
                ledger.set(&format!("{session}_{n}"), 7);
            }
            ledger.set(&format!("b_2_{}", n - 5_000_000), 8);
        }
        let each = ledger.heap_bytes() as f64 / 900_000.0;
        assert!(each <= 4.5, "{each} bytes");
        assert_eq!(
            (ledger.get("a_1_5000000"), ledger.get("b_2_5299999"), ledger.get("b_2_9"), ledger.get("a_1_9")),
            (7, 7, 8, 0)
        );
    }

    proptest! {
        #[test]
        fn runs_anywhere_are_a_map(starts in prop::collection::vec((0u64..3_000, 0u64..200, 1u64..5, 0u32..3), 0..40)) {
            let mut ledger = Ledger::default();
            let mut model = std::collections::BTreeMap::new();
            for (from, count, step, word) in starts {
                for n in 0..count {
                    let id = format!("a_{}", from + n * step);
                    ledger.set(&id, word);
                    if word == 0 { model.remove(&id); } else { model.insert(id, word); }
                }
                prop_assert_eq!(ledger.len(), model.len() as u64);
            }
            for n in 0..4_000 {
                let id = format!("a_{n}");
                prop_assert_eq!(ledger.get(&id), model.get(&id).copied().unwrap_or(0));
            }
        }

        #[test]
        fn the_ledger_is_a_map(ops in prop::collection::vec(("[ab]_(0|[1-9][0-9]{0,4}|00|x|)", 0u32..3), 0..300)) {
            let mut ledger = Ledger::default();
            let mut model = std::collections::BTreeMap::new();
            for (id, word) in ops {
                ledger.set(&id, word);
                if word == 0 { model.remove(&id); } else { model.insert(id, word); }
                prop_assert_eq!(ledger.len(), model.len() as u64);
            }
            for (id, word) in &model {
                prop_assert_eq!(ledger.get(id), *word);
            }
            prop_assert_eq!(ledger.get("c_7"), 0);
        }
    }
}
