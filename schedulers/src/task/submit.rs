//! The first part of a task's life: admission. Dependencies become counters and edges here, names of engines become numbers, and
//! what can never run is refused at once, always with a reply.

use pointsman_policies::{Rank, Scheme, Time};
use smallvec::SmallVec;
use thin_vec::ThinVec;

use super::event::{Action, Reason};
use super::known::EngineId;
use super::machine::TaskScheduler;
use super::spec::{InvalidSpec, TaskSpec};
use super::state::{Edge, Facts, Lazy, Progress, State, Task};
use super::{FailKind, TaskKey};

/// A finished task's word in the ledger: how it ended in the two low bits, the class of its result's size in the next five, and above where
/// it ran, plus one; nowhere for engines beyond the 33 millionth.
pub(super) fn ledger_word(ok: bool, engine: Option<EngineId>, size: u8) -> u32 {
    let place = engine.map_or(0, |engine| engine.number() + 1);
    let place = if place < 1 << 25 { place } else { 0 };
    place << 7 | u32::from(size & 31) << 2 | if ok { 1 } else { 2 }
}

/// The reverse; `None` for a task that has not ended.
pub(super) fn read_word(word: u32) -> Option<(bool, Option<EngineId>, u8)> {
    (word != 0).then(|| (word & 3 == 1, (word >> 7).checked_sub(1).map(EngineId), (word >> 2 & 31) as u8))
}

/// What a dependency is when its task is submitted.
#[derive(Clone, Copy)]
enum Resolved {
    /// It has ended: well or not, where, with a result of this class of sizes.
    Ended(bool, Option<EngineId>, u8),
    Live(TaskKey),
}

impl<S: Scheme, P: Clone> TaskScheduler<S, P> {
    pub(super) fn submit(&mut self, now: Time, id: &str, spec: Result<TaskSpec, InvalidSpec>, payload: P, bytes: usize) {
        let hash = self.hash(id);
        if self.find_hashed(hash, id).is_some() || self.ledger.get(id) != 0 {
            return self.reject(Reason::DuplicateTask);
        }
        if self.tasks.len() >= self.limits.queued_tasks || self.queued_bytes.saturating_add(bytes) > self.limits.queued_bytes {
            return self.refuse(id, payload, FailKind::QueueFull);
        }
        let Ok(spec) = spec else { return self.refuse(id, payload, FailKind::InvalidDependency) };
        let Some(dependencies) = self.resolve(&spec) else { return self.refuse(id, payload, FailKind::InvalidDependency) };
        let mut task = self.new_task(now, id, &spec, payload, bytes);
        for &(edge, dependency) in &dependencies {
            match dependency {
                Resolved::Ended(ok, engine, size) => task.dependency_ended(edge, ok, engine, size),
                Resolved::Live(key) => task.rest.edit().waits_for.push(key),
            }
        }
        if self.is_hopeless(&task) {
            return self.refuse(id, task.payload, FailKind::ImpossibleDependency);
        }
        self.counters.accepted += 1;
        self.queued_bytes += bytes;
        let key = self.tasks.insert(task);
        self.by_id.insert(hash, key);
        for (edge, dependency) in dependencies {
            if let Resolved::Live(dependency) = dependency {
                self.tasks[dependency].dependents.push((key, edge));
            }
        }
        if self.tasks[key].rest.targets.is_some() || !spec.follow.ids.is_empty() {
            for engine in self.bonds(key) {
                self.bind(key, engine);
            }
        }
        self.note_submitted(key);
        self.start_waiting(now, key);
    }

    /// Ends a task that was never accepted. Its dependents will find it failed.
    fn refuse(&mut self, id: &str, payload: P, kind: FailKind) {
        if kind != FailKind::QueueFull {
            self.ledger.set(id, ledger_word(false, None, 0));
        }
        self.counters.failed += 1;
        self.actions.push_back(Action::Fail { id: id.into(), kind, engine: None, payload });
    }

    /// What each dependency is by now; nothing unless every one is another task that has been submitted, and some outcome counts.
    /// O(dependencies). The task itself is not known yet.
    fn resolve(&self, spec: &TaskSpec) -> Option<SmallVec<[(Edge, Resolved); 4]>> {
        let mut resolved = SmallVec::new();
        for (dependency, edge) in [(&spec.after, Edge::After), (&spec.follow, Edge::Follow)] {
            if !dependency.ids.is_empty() && !dependency.success && !dependency.failure {
                return None;
            }
            for other in &dependency.ids {
                let found = match self.find(other) {
                    Some(key) => Resolved::Live(key),
                    None => read_word(self.ledger.get(other)).map(|(ok, engine, size)| Resolved::Ended(ok, engine, size))?,
                };
                resolved.push((edge, found));
            }
        }
        Some(resolved)
    }

    fn new_task(&mut self, now: Time, id: &str, spec: &TaskSpec, payload: P, bytes: usize) -> Box<Task<P>> {
        self.next_seq += 1;
        let targets = (!spec.targets.is_empty()).then(|| {
            let mut known: ThinVec<EngineId> = spec.targets.iter().filter_map(|uuid| self.engines.find(uuid)).collect();
            known.sort_unstable();
            known.dedup();
            known
        });
        let mut rest = Lazy::default();
        if !(spec.after.ids.is_empty() && spec.follow.ids.is_empty()) {
            (rest.edit().after, rest.edit().follow) = (Progress::of(&spec.after), Progress::of(&spec.follow));
        }
        if targets.is_some() {
            rest.edit().targets = targets;
        }
        if spec.timeout.is_some() {
            rest.edit().timeout = spec.timeout;
        }
        if spec.inherited {
            rest.edit().inherited = true;
        }
        Box::new(Task {
            id: id.into(),
            seq: self.next_seq,
            payload,
            bytes,
            facts: Facts::of(&spec.facts),
            submitted: now,
            ready_since: now,
            rank: Rank::default(),
            state: State::Blocked,
            runs: ThinVec::new(),
            epoch: 0,
            attempt: 0,
            retries: spec.retries,
            last_failure: None,
            dependents: ThinVec::new(),
            rest,
        })
    }

    /// The engines a task is bound to by now.
    fn bonds(&self, key: TaskKey) -> SmallVec<[EngineId; 4]> {
        let task = &self.tasks[key];
        task.rest.targets.iter().flatten().chain(&task.rest.follow_places).copied().collect()
    }
}
