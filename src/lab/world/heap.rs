//! What will happen, by time: a heap in which what was put in first comes out first among equals.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// Something that will happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Happening {
    /// A job reaches its scheduler.
    Submitted { slot: u32 },
    /// A message of a scheduler reaches an engine.
    AtEngine { engine: u32 },
    /// A message of an engine reaches its scheduler.
    AtScheduler { engine: u32 },
    /// An answer reaches its client.
    Answered { slot: u32 },
    /// An engine has done what it began with this number.
    Done { engine: u32, epoch: u32 },
    /// An engine goes faster or slower.
    SpeedChange { engine: u32 },
    /// An engine dies.
    Death { engine: u32 },
    /// A scheduler hears of that.
    Missed { engine: u32 },
    /// Another engine takes its place, or one joins.
    Birth { engine: u32 },
    /// An engine takes no more tasks from now on.
    Leave { engine: u32 },
    /// Other policies take over.
    Change { at: u32 },
    /// An engine says how much it has to do.
    Report { engine: u32 },
    /// That reaches a scheduler.
    Reported { engine: u32 },
    /// A scheduler wanted to be woken.
    Timer { dispatcher: u32 },
}

impl Happening {
    /// Whether it comes again and again, and never by itself ends or moves a task.
    fn is_idle(self) -> bool {
        matches!(
            self,
            Happening::SpeedChange { .. } | Happening::Report { .. } | Happening::Reported { .. } | Happening::Leave { .. }
        )
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    at_ns: u64,
    seq: u64,
    what: Happening,
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at_ns, other.seq).cmp(&(self.at_ns, self.seq)) // the earliest is the greatest
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The heap.
#[derive(Debug, Default)]
pub(super) struct Heap {
    entries: BinaryHeap<Entry>,
    seq: u64,
    idle: usize,
}

impl Heap {
    pub(super) fn push(&mut self, at_ns: u64, what: Happening) {
        self.seq += 1;
        self.idle += usize::from(what.is_idle());
        self.entries.push(Entry { at_ns, seq: self.seq, what });
    }

    pub(super) fn next_at(&self) -> Option<u64> {
        self.entries.peek().map(|entry| entry.at_ns)
    }

    pub(super) fn pop(&mut self) -> Option<(u64, Happening)> {
        let Entry { at_ns, what, .. } = self.entries.pop()?;
        self.idle -= usize::from(what.is_idle());
        Some((at_ns, what))
    }

    /// Whether nothing is left that could end or move a task.
    pub(super) fn is_idle(&self) -> bool {
        self.idle == self.entries.len()
    }
}
