//! Live tasks by the hashes of their ids: many small tables instead of one large, so that no submission waits until a million entries have moved.

use hashbrown::HashTable;

use super::TaskKey;

/// Tables. With a million tasks each has four thousand entries, which move in some twenty microseconds.
const TABLES: usize = 256;

/// A map from hashes to tasks. Hashes are kept: that tables grow touches no task. O(1).
#[derive(Debug)]
pub(super) struct Ids {
    tables: Box<[HashTable<(u64, TaskKey)>; TABLES]>,
    len: usize,
}

impl Default for Ids {
    fn default() -> Self {
        Ids { tables: Box::new(std::array::from_fn(|_| HashTable::new())), len: 0 }
    }
}

impl Ids {
    /// By bits of the hash that the tables themselves use last.
    fn place(hash: u64) -> usize {
        (hash >> 48) as usize % TABLES
    }

    /// The task of this hash that `is_it`.
    pub(super) fn find(&self, hash: u64, is_it: impl Fn(TaskKey) -> bool) -> Option<TaskKey> {
        self.tables[Ids::place(hash)].find(hash, |&(other, key)| other == hash && is_it(key)).map(|&(_, key)| key)
    }

    /// Adds a task that is not there.
    pub(super) fn insert(&mut self, hash: u64, key: TaskKey) {
        self.tables[Ids::place(hash)].insert_unique(hash, (hash, key), |&(hash, _)| hash);
        self.len += 1;
    }

    /// Removes a task, if it is there.
    pub(super) fn remove(&mut self, hash: u64, key: TaskKey) {
        if let Ok(entry) = self.tables[Ids::place(hash)].find_entry(hash, |&(_, other)| other == key) {
            entry.remove();
            self.len -= 1;
        }
    }

    /// How many tasks there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }
}
