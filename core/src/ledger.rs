//! What became of every finished task, for ever, in a few bytes each: message ids are `<session>_<pid>_<counter>`, so one word in a
//! table by counter is enough. An id of another shape, or far from its neighbours, costs at most 30 bytes; no id is ever forgotten.

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use std::hash::{BuildHasher, Hasher};

/// A table keeps one word for each counter as long as at least one in this many is used.
const SPARSEST: u64 = 4;
/// Counters up to this are always kept in the table, however few of them are used.
const SLACK: u64 = 256;

/// A longer prefix is nobody's session: it is hashed, not kept.
const MAX_PREFIX_BYTES: usize = 128;

/// A map from message id to a non-zero word. Reads and writes are O(1) and hash the id once.
#[derive(Debug, Default)]
pub struct Ledger {
    prefixes: HashMap<Box<str>, Table, FixedState>,
    /// The ids that fit no table, by a 64-bit hash in two halves: 12 bytes an entry instead of 16.
    sparse: HashMap<[u32; 2], u32, FixedState>,
    len: u64,
}

#[derive(Debug, Default)]
struct Table {
    words: Vec<u32>,
    used: u64,
}

impl Table {
    fn admits(&self, counter: u64) -> bool {
        counter < self.words.len() as u64 || counter < (self.used + 1) * SPARSEST + SLACK
    }
}

/// Splits `<prefix>_<counter>`; leading zeros are part of another id's spelling and do not count as a counter.
fn split(id: &str) -> Option<(&str, u64)> {
    let (prefix, counter) = id.rsplit_once('_')?;
    if prefix.len() > MAX_PREFIX_BYTES {
        return None;
    }
    let canonical = !counter.is_empty() && counter.len() <= 15 && (counter == "0" || !counter.starts_with('0'));
    if !canonical || !counter.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    counter.parse().ok().map(|counter| (prefix, counter))
}

fn halves(id: &str) -> [u32; 2] {
    let mut hasher = FixedState::with_seed(0x706f_696e_7473_6d61).build_hasher();
    hasher.write(id.as_bytes());
    let hash = hasher.finish();
    [hash as u32, (hash >> 32) as u32]
}

impl Ledger {
    /// The word of an id, 0 if it has none.
    pub fn get(&self, id: &str) -> u32 {
        if let Some((prefix, counter)) = split(id)
            && let Some(table) = self.prefixes.get(prefix)
            && let Some(&word) = table.words.get(counter as usize)
            && word != 0
        {
            return word;
        }
        if self.sparse.is_empty() { 0 } else { self.sparse.get(&halves(id)).copied().unwrap_or(0) }
    }

    /// Sets the word of an id. 0 clears it.
    pub fn set(&mut self, id: &str, word: u32) {
        let before = self.get(id);
        self.len = self.len + u64::from(before == 0 && word != 0) - u64::from(before != 0 && word == 0);
        if before == 0 && word == 0 {
            return;
        }
        if let Some((prefix, counter)) = split(id)
            && self.fits(prefix, counter)
            && (before == 0 || !self.sparse.contains_key(&halves(id)))
        {
            if !self.prefixes.contains_key(prefix) {
                self.prefixes.insert(prefix.into(), Table::default());
            }
            let Some(table) = self.prefixes.get_mut(prefix) else { return };
            let index = counter as usize;
            if index >= table.words.len() {
                table.words.resize(index + 1, 0);
            }
            table.used = table.used + u64::from(before == 0) - u64::from(word == 0);
            table.words[index] = word;
        } else if word == 0 {
            self.sparse.remove(&halves(id));
        } else {
            self.sparse.insert(halves(id), word);
        }
    }

    fn fits(&self, prefix: &str, counter: u64) -> bool {
        self.prefixes.get(prefix).map_or(counter < SLACK, |table| table.admits(counter))
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
        let tables: usize = self.prefixes.iter().map(|(prefix, table)| prefix.len() + 4 * table.words.capacity()).sum();
        tables + self.prefixes.allocation_size() + self.sparse.allocation_size()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_finished_task_costs_at_most_32_bytes() {
        for step in [1, 3, 4, 7, 1000] {
            let mut ledger = Ledger::default();
            for n in 0..300_000_u64 {
                ledger.set(&format!("c8a26bde-323a3fc84006137c3c739507_4242_{}", n * step), 1 + n as u32);
            }
            let each = ledger.heap_bytes() as f64 / 300_000.0;
            assert!(each <= 32.0, "every {step}th id: {each} bytes");
            assert_eq!(ledger.len(), 300_000);
        }
    }

    proptest! {
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
