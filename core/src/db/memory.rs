//! Records in memory, bounded by number and by bytes of buffers; the oldest go first, by arrival. The default store.

use std::collections::BTreeMap;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use super::{DbError, Ended, Key, Keys, Patch, Query, Record, TaskDb};
use crate::Ledger;
use crate::date::Date;

/// When records are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MemoryLimits {
    /// The most records kept.
    pub record_limit: usize,
    /// The most bytes of buffers and values kept.
    pub size_limit_bytes: usize,
    /// How much of the number is dropped at once when it is reached.
    pub cull_fraction: f64,
}

impl Default for MemoryLimits {
    fn default() -> Self {
        MemoryLimits { record_limit: 1024, size_limit_bytes: 1 << 30, cull_fraction: 0.1 }
    }
}

/// Records in memory.
#[derive(Debug, Default)]
pub struct MemoryDb {
    limits: MemoryLimits,
    /// By order of arrival.
    records: BTreeMap<u64, Record>,
    arrivals: HashMap<Box<str>, u64, FixedState>,
    next: u64,
    bytes: usize,
    /// Ids whose records were dropped: later news of them must not make new, empty records.
    culled: Ledger,
}

impl MemoryDb {
    /// An empty store.
    pub fn new(limits: MemoryLimits) -> Self {
        MemoryDb { limits, ..Self::default() }
    }

    fn cull(&mut self) {
        if self.records.len() > self.limits.record_limit {
            let share = (self.limits.record_limit as f64 * self.limits.cull_fraction.clamp(0.0, 1.0)) as usize;
            let excess = self.records.len() - self.limits.record_limit;
            for _ in 0..share.max(excess) {
                self.drop_oldest();
            }
        }
        if self.bytes > self.limits.size_limit_bytes {
            while self.bytes > self.limits.size_limit_bytes / 10 * 9 && self.drop_oldest() {}
        }
    }

    fn drop_oldest(&mut self) -> bool {
        let Some((_, record)) = self.records.pop_first() else { return false };
        self.bytes -= record.size_bytes();
        self.arrivals.remove(record.id.as_str());
        self.culled.set(&record.id, 1);
        true
    }
}

impl TaskDb for MemoryDb {
    fn merge(&mut self, id: &str, patch: &Patch, create: bool) -> Result<(), DbError> {
        let arrival = match self.arrivals.get(id) {
            Some(&arrival) => arrival,
            None if !create || self.culled.get(id) != 0 => return Ok(()),
            None => {
                self.next += 1;
                self.arrivals.insert(id.into(), self.next);
                let record = Record::new(id);
                self.bytes += record.size_bytes();
                self.records.insert(self.next, record);
                self.next
            }
        };
        if let Some(record) = self.records.get_mut(&arrival) {
            let before = record.size_bytes();
            record.merge(patch);
            self.bytes = self.bytes - before + record.size_bytes();
        }
        self.cull();
        Ok(())
    }

    fn get(&mut self, id: &str) -> Result<Option<Record>, DbError> {
        Ok(self.arrivals.get(id).and_then(|arrival| self.records.get(arrival)).cloned())
    }

    fn find(&mut self, query: &Query, _keys: &Keys) -> Result<Vec<Record>, DbError> {
        Ok(self.records.values().filter(|record| query.matches(record)).cloned().collect())
    }

    fn history(&mut self) -> Result<Vec<String>, DbError> {
        let mut submitted: Vec<(String, &Record)> = self
            .records
            .values()
            .filter(|record| record.is_submitted())
            .map(|record| (record.value(Key::Submitted).as_str().unwrap_or_default().to_owned(), record))
            .collect();
        submitted.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(submitted.into_iter().map(|(_, record)| record.id.clone()).collect())
    }

    fn remove(&mut self, ids: &[String]) -> Result<(), DbError> {
        for id in ids {
            if let Some(record) = self.arrivals.remove(id.as_str()).and_then(|arrival| self.records.remove(&arrival)) {
                self.bytes -= record.size_bytes();
            }
        }
        Ok(())
    }

    fn ended(&mut self, _with_bytes: bool) -> Result<Vec<Ended>, DbError> {
        let completed = self.records.values().filter(|record| record.json(Key::Completed).is_some());
        let mut ended: Vec<Ended> = completed
            .map(|record| Ended {
                id: record.id.clone(),
                completed: record.value(Key::Completed).as_str().and_then(Date::parse),
                bytes: record.size_bytes() as u64,
                status: record.status(),
            })
            .collect();
        ended.reverse();
        ended.sort_by_key(|record| std::cmp::Reverse(record.completed));
        Ok(ended)
    }
}
