//! Waiting tasks by age. Entries of tasks that have left are recognised by their epoch and skipped, and swept once they are the
//! majority, so that every operation is O(1) amortised in the common case of arrival in order, O(log n) otherwise.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use super::TaskKey;

/// One task's place in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    /// Age: the order of first submission.
    pub(super) seq: u64,
    pub(super) task: TaskKey,
    /// Which stay in queues of the task this entry belongs to.
    pub(super) epoch: u32,
}

/// The smallest ratio of dead entries that is worth a sweep is one half; below this length none is.
const SWEEP_FROM: usize = 64;

#[derive(Debug, Default)]
pub(super) struct SeqQueue {
    /// Entries that came in order of age.
    fresh: VecDeque<Entry>,
    /// The rest: tasks that come back, or were released by another's end.
    late: BinaryHeap<Reverse<Entry>>,
    dead: usize,
}

impl SeqQueue {
    pub(super) fn push(&mut self, entry: Entry) {
        if self.fresh.back().is_none_or(|last| last.seq < entry.seq) {
            self.fresh.push_back(entry);
        } else {
            self.late.push(Reverse(entry));
        }
    }

    /// The oldest entry for which `alive` holds; drops the dead ones before it.
    pub(super) fn first(&mut self, alive: impl Fn(&Entry) -> bool) -> Option<Entry> {
        while let Some(front) = self.fresh.front()
            && !alive(front)
        {
            self.fresh.pop_front();
            self.dead = self.dead.saturating_sub(1);
        }
        while let Some(Reverse(top)) = self.late.peek()
            && !alive(top)
        {
            self.late.pop();
            self.dead = self.dead.saturating_sub(1);
        }
        match (self.fresh.front(), self.late.peek()) {
            (Some(front), Some(Reverse(top))) => Some(*front.min(top)),
            (front, top) => front.or(top.map(|Reverse(top)| top)).copied(),
        }
    }

    /// Notes that an entry in here has died; sweeps if most have.
    pub(super) fn died(&mut self, alive: impl Fn(&Entry) -> bool) {
        self.dead += 1;
        let len = self.fresh.len() + self.late.len();
        if len >= SWEEP_FROM && self.dead * 2 > len {
            self.fresh.retain(|entry| alive(entry));
            self.late.retain(|Reverse(entry)| alive(entry));
            self.dead = 0;
        }
    }

    /// Every entry, dead ones too, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.fresh.iter().chain(self.late.iter().map(|Reverse(entry)| entry))
    }
}
