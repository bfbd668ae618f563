//! A task's place in the growing graph: its bottom level, the longest path from its start to the last end, and about how many tasks wait
//! for it. Kept up only while the order looks at it; a submission reaches its ancestors a bounded number of steps at a time.

use std::collections::{BTreeMap, VecDeque};

use pointsman_policies::facts::mix;
use pointsman_policies::{Needs, Scheme, Time};
use smallvec::SmallVec;

use super::TaskKey;
use super::machine::TaskScheduler;

/// How many ancestors are reached, and how many tasks swept, by one event.
const STEPS: usize = 64;
/// A count of descendants is exact up to here.
const EXACT: usize = 32;
/// What a task is taken to last while nothing is known: levels then count tasks.
const UNKNOWN_S: f64 = 1.0;

/// The least hashes of a task's descendants: a bottom-k sketch (Cohen 1997), exact while it is not full.
#[derive(Clone, Debug, Default)]
pub(super) struct Sketch {
    /// Ascending, distinct.
    least: SmallVec<[u64; 4]>,
}

impl Sketch {
    /// Adds a descendant by its hash. Whether that changed anything.
    fn insert(&mut self, hash: u64) -> bool {
        if self.least.len() == EXACT && self.least.last().is_some_and(|&last| hash >= last) {
            return false;
        }
        let Err(at) = self.least.binary_search(&hash) else { return false };
        self.least.insert(at, hash);
        self.least.truncate(EXACT);
        true
    }

    /// Adds a child and its descendants. Whether that changed anything.
    fn merge(&mut self, child: u64, descendants: Option<&Sketch>) -> bool {
        let mut changed = self.insert(child);
        for &hash in descendants.iter().flat_map(|sketch| &sketch.least) {
            changed |= self.insert(hash);
        }
        changed
    }

    pub(super) fn count(&self) -> f64 {
        match self.least.last() {
            Some(&last) if self.least.len() == EXACT => (EXACT - 1) as f64 * (u64::MAX as f64 / last as f64),
            _ => self.least.len() as f64,
        }
    }
}

/// What is kept up, and what is yet to be done for it.
#[derive(Debug, Default)]
pub(super) struct Growth {
    levels: bool,
    descendants: bool,
    /// Whether tasks are ranked again as more is learned.
    revised: bool,
    /// Tasks whose parents have yet to hear what has changed; each once.
    news: VecDeque<TaskKey>,
    /// Live tasks by age, for sweeps: dependents are younger than what they wait for.
    by_age: BTreeMap<u64, TaskKey>,
    /// The task below which a sweep goes on, and when the next begins, in observations of run times.
    sweep: Option<u64>,
    sweep_at: u64,
}

impl Growth {
    /// Whether there is more to do than the last event could.
    pub(super) fn is_behind(&self) -> bool {
        !self.news.is_empty()
    }

    pub(super) fn forget(&mut self, seq: u64) {
        if self.revised {
            self.by_age.remove(&seq);
        }
    }
}

impl<S: Scheme, P: Clone> TaskScheduler<S, P> {
    /// Begins or ceases to keep levels and counts, as the order needs; computes them for what is there. O(tasks + edges).
    pub(super) fn set_growth(&mut self) {
        let (levels, descendants) = (self.order_needs.contains(Needs::LEVEL), self.order_needs.contains(Needs::DESCENDANTS));
        let revised = self.order.is_revised();
        self.growth = Growth { levels, descendants, revised, ..Growth::default() };
        let mut by_age: Vec<(u64, TaskKey)> = self.tasks.iter().map(|(key, task)| (task.seq, key)).collect();
        by_age.sort_unstable();
        for &(_, key) in by_age.iter().rev() {
            let task = &mut self.tasks[key];
            if let Some(rest) = task.rest.get_mut() {
                (rest.level_s, rest.sketch, rest.has_news) = (0.0, None, false);
            }
            if levels {
                self.tasks[key].rest.edit().level_s = self.level_by_dependents(key);
            }
            if descendants {
                let mut sketch = Sketch::default();
                for child in self.tasks[key].dependents.iter().filter_map(|(child, _)| self.tasks.get(*child)) {
                    sketch.merge(mix(child.seq), child.rest.sketch.as_deref());
                }
                if !sketch.least.is_empty() {
                    self.tasks[key].rest.edit().sketch = Some(Box::new(sketch));
                }
            }
        }
        if revised {
            self.growth.by_age = by_age.into_iter().collect();
        }
    }

    fn own_cost_s(&self, key: TaskKey) -> f64 {
        let task = &self.tasks[key];
        self.placement.learned().expected_s(&task.shown(&task.facts.open(), self.order_needs)).unwrap_or(UNKNOWN_S)
    }

    /// What it takes to move the result of a task to another engine.
    fn transfer_s(&self, key: TaskKey) -> f64 {
        let learned = self.placement.learned();
        let class = learned.class(self.tasks[key].facts.class).unwrap_or(learned.overall());
        self.order.transfer_s(class.result_bytes.mean)
    }

    fn level_by_dependents(&self, key: TaskKey) -> f64 {
        let dependents = self.tasks[key].dependents.iter().filter_map(|(dependent, _)| self.tasks.get(*dependent));
        let below = dependents.map(|task| task.rest.level_s).reduce(f64::max);
        self.own_cost_s(key) + below.map_or(0.0, |below| below + self.transfer_s(key))
    }

    /// A task was submitted: it has a level of its own, and its ancestors will hear of it.
    pub(super) fn note_submitted(&mut self, key: TaskKey) {
        if self.growth.revised {
            self.growth.by_age.insert(self.tasks[key].seq, key);
        }
        if self.growth.levels {
            self.tasks[key].rest.edit().level_s = self.own_cost_s(key);
        }
        if self.growth.levels || self.growth.descendants {
            self.has_news(key);
        }
    }

    fn has_news(&mut self, key: TaskKey) {
        if !std::mem::replace(&mut self.tasks[key].rest.edit().has_news, true) {
            self.growth.news.push_back(key);
        }
    }

    /// Passes on what ancestors have yet to hear, and sweeps, within bounds.
    pub(super) fn grow(&mut self, now: Time) {
        if !self.growth.levels && !self.growth.descendants && !self.growth.revised {
            return;
        }
        let mut steps = 0;
        while steps < STEPS
            && let Some(key) = self.growth.news.pop_front()
        {
            let Some(task) = self.tasks.get_mut(key) else { continue };
            task.rest.edit().has_news = false;
            let (level_s, own, parents) = (task.rest.level_s, mix(task.seq), task.rest.waits_for.clone());
            let sketch = task.rest.sketch.clone();
            steps += 1 + parents.len();
            for parent in parents {
                if self.tell_parent(parent, level_s, own, sketch.as_deref()) {
                    self.has_news(parent);
                    self.rank_again(now, parent);
                }
            }
        }
        if self.growth.news.is_empty() && self.growth.news.capacity() > 1024 {
            self.growth.news = VecDeque::new();
        }
        if self.growth.revised {
            self.sweep(now);
        }
    }

    /// What a child is tells its parent. Whether that changed anything.
    fn tell_parent(&mut self, parent: TaskKey, level_s: f64, child: u64, sketch: Option<&Sketch>) -> bool {
        if !self.tasks.contains_key(parent) {
            return false;
        }
        let mut changed = false;
        if self.growth.levels {
            let through = self.own_cost_s(parent) + self.transfer_s(parent) + level_s;
            let level = &mut self.tasks[parent].rest.edit().level_s;
            changed |= through > *level;
            *level = level.max(through);
        }
        if self.growth.descendants {
            changed |= self.tasks[parent].rest.edit().sketch.get_or_insert_default().merge(child, sketch);
        }
        changed
    }

    /// Brings levels and ranks up to date with what has been learned since: a sweep from the youngest to the oldest each time the number of
    /// observations has doubled, so that the work for each observation stays bounded.
    fn sweep(&mut self, now: Time) {
        let samples = self.placement.learned().overall().run_s.samples;
        if self.growth.sweep.is_none() && samples >= self.growth.sweep_at.max(8) {
            self.growth.sweep_at = 2 * samples;
            self.growth.sweep = Some(u64::MAX);
        }
        let Some(below) = self.growth.sweep else { return };
        let next: SmallVec<[(u64, TaskKey); STEPS]> =
            self.growth.by_age.range(..below).rev().take(STEPS).map(|(&seq, &key)| (seq, key)).collect();
        self.growth.sweep = next.last().map(|&(seq, _)| seq).filter(|_| next.len() == STEPS);
        for (_, key) in next {
            if self.growth.levels {
                self.tasks[key].rest.edit().level_s = self.level_by_dependents(key);
            }
            self.rank_again(now, key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_descendants_are_counted_exactly_and_many_about() {
        let mut sketch = Sketch::default();
        for n in 1..=20 {
            assert!(sketch.insert(mix(n)) && !sketch.insert(mix(n)));
            assert_eq!(sketch.count(), n as f64);
        }
        for n in 21..=10_000 {
            sketch.insert(mix(n));
        }
        assert!((sketch.count() / 10_000.0 - 1.0).abs() < 0.5, "{}", sketch.count());
    }
}
