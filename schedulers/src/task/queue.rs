//! Waiting tasks in the order that the policy gives them: lanes by their tags, and within a lane by key and age. Entries of tasks that have
//! left are recognised by their epoch and skipped, and swept once they are the majority: O(1) amortised in the common case of one lane
//! and arrival in order, O(log n) otherwise.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use pointsman_policies::Rank;

use super::TaskKey;

/// One task's place in a queue, within its lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    /// The order's key; less goes first.
    pub(super) key: u64,
    /// Age: the order of first submission.
    pub(super) seq: u64,
    pub(super) task: TaskKey,
    /// Which stay in queues of the task this entry belongs to.
    pub(super) epoch: u32,
}

/// Where a task stands among all that wait: tag of its lane, lane, key, age. Less goes first.
pub(super) type Standing = (u64, u64, u64, u64);

pub(super) fn standing(tag: u64, rank: Rank, seq: u64) -> Standing {
    (tag, rank.lane, rank.key, seq)
}

/// The smallest ratio of dead entries that is worth a sweep is one half; below this length none is.
const SWEEP_FROM: usize = 64;

/// The tasks of one lane.
#[derive(Debug, Default)]
struct Lane {
    /// Entries that came in order.
    fresh: VecDeque<Entry>,
    /// The rest.
    late: BinaryHeap<Reverse<Entry>>,
    dead: usize,
}

impl Lane {
    fn push(&mut self, entry: Entry) {
        if self.fresh.back().is_none_or(|last| (last.key, last.seq) < (entry.key, entry.seq)) {
            self.fresh.push_back(entry);
        } else {
            self.late.push(Reverse(entry));
        }
    }

    /// The first entry for which `alive` holds; drops the dead ones before it.
    fn first(&mut self, alive: &impl Fn(&Entry) -> bool) -> Option<Entry> {
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

    fn len(&self) -> usize {
        self.fresh.len() + self.late.len()
    }

    fn died(&mut self, alive: impl Fn(&Entry) -> bool) {
        self.dead += 1;
        if self.dead * 2 > self.len() && (self.len() >= SWEEP_FROM || self.dead >= self.len()) {
            self.fresh.retain(|entry| alive(entry));
            self.late.retain(|Reverse(entry)| alive(entry));
            self.dead = 0;
        }
    }
}

/// Lanes whose tags have fallen, for queues that have not looked since.
#[derive(Debug, Default)]
pub(super) struct Falls {
    recent: VecDeque<u64>,
    count: u64,
}

impl Falls {
    /// The most that are remembered; a queue that has not looked for longer sorts its lanes anew.
    const MAX: usize = 1024;

    pub(super) fn add(&mut self, lane: u64) {
        self.count += 1;
        if self.recent.len() == Self::MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(lane);
    }

    /// Those since a count; nothing if that is too long ago to tell.
    fn since(&self, count: u64) -> Option<impl Iterator<Item = u64> + '_> {
        let fresh = usize::try_from(self.count - count).ok().filter(|&fresh| fresh <= self.recent.len())?;
        Some(self.recent.iter().skip(self.recent.len() - fresh).copied())
    }
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Lane 0, which is the only one in most orders.
    main: Lane,
    others: HashMap<u64, Lane, FixedState>,
    /// The other lanes by the tags they had when last looked at. Those that have fallen since are entered again, and others only grow, so
    /// the first is found by bringing the top up to date.
    tags: BinaryHeap<Reverse<(u64, u64)>>,
    falls_seen: u64,
}

impl Queue {
    pub(super) fn push(&mut self, rank: Rank, tag: u64, entry: Entry) {
        if rank.lane == 0 {
            return self.main.push(entry);
        }
        let tags = &mut self.tags;
        let lane = self.others.entry(rank.lane).or_insert_with(|| {
            tags.push(Reverse((tag, rank.lane)));
            Lane::default()
        });
        lane.push(entry);
    }

    /// The first entry for which `alive` holds, with its standing; drops the dead ones before it. `tag_of` tells where lanes stand now.
    pub(super) fn first(
        &mut self,
        alive: impl Fn(&Entry) -> bool,
        tag_of: impl Fn(u64) -> u64,
        falls: &Falls,
    ) -> Option<(Standing, TaskKey)> {
        self.catch_up(&tag_of, falls);
        let at = |tag, lane, entry: Entry| ((tag, lane, entry.key, entry.seq), entry.task);
        let main = self.main.first(&alive).map(|entry| at(tag_of(0), 0, entry));
        let other = loop {
            let Some(&Reverse((tag, lane))) = self.tags.peek() else { break None };
            let entry = self.others.get_mut(&lane).and_then(|entries| entries.first(&alive));
            match entry {
                None => {
                    self.tags.pop();
                    self.others.remove(&lane);
                }
                Some(entry) => {
                    let now = tag_of(lane);
                    if now <= tag {
                        break Some(at(now, lane, entry));
                    }
                    self.tags.pop();
                    self.tags.push(Reverse((now, lane)));
                }
            }
        };
        match (main, other) {
            (Some(main), Some(other)) => Some(main.min(other)),
            (main, other) => main.or(other),
        }
    }

    /// Hears of the tags that have fallen since it last looked.
    fn catch_up(&mut self, tag_of: &impl Fn(u64) -> u64, falls: &Falls) {
        if self.falls_seen == falls.count {
            return;
        }
        match falls.since(self.falls_seen).filter(|_| self.tags.len() <= 2 * self.others.len() + 64) {
            Some(lanes) => {
                let here = lanes.filter(|lane| self.others.contains_key(lane));
                self.tags.extend(here.map(|lane| Reverse((tag_of(lane), lane))));
            }
            None => self.tags = self.others.keys().map(|&lane| Reverse((tag_of(lane), lane))).collect(),
        }
        self.falls_seen = falls.count;
    }

    /// Notes that an entry in a lane has died; sweeps if most have.
    pub(super) fn died(&mut self, lane: u64, alive: impl Fn(&Entry) -> bool) {
        if lane == 0 {
            self.main.died(alive);
        } else if let Some(entries) = self.others.get_mut(&lane) {
            entries.died(alive);
            // Nobody may ever look here, while parties come and go.
            if entries.len() == 0 {
                self.others.remove(&lane);
            }
            self.sweep_tags();
        }
    }

    /// Drops the tags of lanes that have gone, once they are the majority.
    fn sweep_tags(&mut self) {
        if self.tags.len() > 2 * self.others.len() + 64 {
            let others = &self.others;
            self.tags.retain(|Reverse((_, lane))| others.contains_key(lane));
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        *self = Queue::default();
    }

    /// Every entry, dead ones too, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        let lanes = std::iter::once(&self.main).chain(self.others.values());
        lanes.flat_map(|lane| lane.fresh.iter().chain(lane.late.iter().map(|Reverse(entry)| entry)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_of_those_who_have_gone_leave_nothing_behind() {
        let (mut queue, task) = (Queue::default(), TaskKey::default());
        for lane in 1..=10_000 {
            for seq in 0..3 {
                queue.push(Rank { lane, key: 0 }, lane, Entry { key: 0, seq, task, epoch: 0 });
            }
            (0..3).for_each(|_| queue.died(lane, |_| false));
        }
        assert!(queue.others.is_empty() && queue.tags.len() <= 64, "{} lanes, {} tags", queue.others.len(), queue.tags.len());
    }

    #[test]
    fn a_tag_that_falls_is_heard_of_however_late() {
        let (mut queue, task, mut falls) = (Queue::default(), TaskKey::default(), Falls::default());
        let mut tags: HashMap<u64, u64, FixedState> = (1..=4).map(|lane| (lane, lane * 10)).collect();
        for lane in 1..=4 {
            queue.push(Rank { lane, key: 0 }, tags[&lane], Entry { key: 0, seq: lane, task, epoch: 0 });
        }
        let first = |queue: &mut Queue, tags: &HashMap<u64, u64, FixedState>, falls: &Falls| {
            queue.first(|_| true, |lane| tags.get(&lane).copied().unwrap_or(0), falls).map(|((_, lane, ..), _)| lane)
        };
        assert_eq!(first(&mut queue, &tags, &falls), Some(1));
        tags.insert(1, 50);
        assert_eq!(first(&mut queue, &tags, &falls), Some(2), "one that has grown");
        for many in [1, 5_000] {
            tags.insert(4, 5 - u64::from(many > 1));
            (0..many).for_each(|_| falls.add(4));
            assert_eq!(first(&mut queue, &tags, &falls), Some(4), "one that has fallen, {many} falls ago");
            tags.insert(4, 100);
            assert_eq!(first(&mut queue, &tags, &falls), Some(2));
        }
    }
}
