//! What is still in flight of tasks that have been answered by another engine or were taken back: each holds its engine's place until that
//! engine has answered or gone, so that limits and loads stay true.

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use pointsman_policies::{Ending, Scheme, Time};
use smallvec::SmallVec;

use super::TaskKey;
use super::event::{Action, Measured, ReplyKind};
use super::known::EngineId;
use super::machine::TaskScheduler;
use super::rank::size_class;
use super::state::{Run, State};

#[derive(Clone, Copy, Debug)]
pub(super) struct Ghost {
    pub(super) task: TaskKey,
    pub(super) run: Run,
    pub(super) class: u64,
    pub(super) lane: u64,
    /// Whether the order in force was told that it was sent.
    pub(super) is_charged: bool,
}

/// The ghosts of one task.
#[derive(Debug, Default)]
struct Haunt {
    id: Box<str>,
    ghosts: SmallVec<[Ghost; 1]>,
}

/// Ghosts by task, and the tasks by their ids: most of them have ended and are known nowhere else.
#[derive(Debug, Default)]
pub(super) struct Ghosts {
    by_task: HashMap<TaskKey, Haunt, FixedState>,
    by_id: HashMap<Box<str>, TaskKey, FixedState>,
}

impl Ghosts {
    pub(super) fn add(&mut self, id: &str, ghost: Ghost) {
        self.by_id.insert(id.into(), ghost.task);
        self.by_task.entry(ghost.task).or_insert_with(|| Haunt { id: id.into(), ..Haunt::default() }).ghosts.push(ghost);
    }

    /// The ghost of a task at an engine, which is none any more.
    pub(super) fn take(&mut self, id: &str, engine: EngineId) -> Option<Ghost> {
        let task = self.by_id.get(id).copied()?;
        self.take_where(task, |ghost| ghost.run.engine == engine)
    }

    /// The ghost of an attempt, which is none any more.
    pub(super) fn take_attempt(&mut self, task: TaskKey, attempt: u32) -> Option<Ghost> {
        self.take_where(task, |ghost| ghost.run.attempt == attempt)
    }

    fn take_where(&mut self, task: TaskKey, is_it: impl Fn(&Ghost) -> bool) -> Option<Ghost> {
        let haunt = self.by_task.get_mut(&task)?;
        let at = haunt.ghosts.iter().position(is_it)?;
        let ghost = haunt.ghosts.remove(at);
        if haunt.ghosts.is_empty() {
            self.by_id.remove(&haunt.id);
            self.by_task.remove(&task);
        }
        Some(ghost)
    }

    /// Takes those at an engine, which are none any more. O(ghosts).
    fn take_all_at(&mut self, engine: EngineId) -> SmallVec<[Ghost; 4]> {
        let mut gone = SmallVec::new();
        let by_id = &mut self.by_id;
        self.by_task.retain(|_, Haunt { id, ghosts }| {
            ghosts.retain(|ghost| {
                let here = ghost.run.engine == engine;
                gone.extend(here.then_some(*ghost));
                !here
            });
            if ghosts.is_empty() {
                by_id.remove(id);
            }
            !ghosts.is_empty()
        });
        gone
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &SmallVec<[Ghost; 1]>> {
        self.by_task.values().map(|haunt| &haunt.ghosts)
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut SmallVec<[Ghost; 1]>> {
        self.by_task.values_mut().map(|haunt| &mut haunt.ghosts)
    }
}

impl<S: Scheme, P: Clone> TaskScheduler<S, P> {
    /// Makes a ghost of a run that is in flight.
    pub(super) fn give_up_run(&mut self, key: TaskKey, engine: EngineId) {
        let Some(run) = self.detach_run(key, engine) else { return };
        let task = &self.tasks[key];
        self.ghosts.add(&task.id, Ghost { task: key, run, class: task.facts.class, lane: task.rank.lane, is_charged: true });
        self.engines.get_mut(engine).ghosts += 1;
    }

    /// A task has its answer: what is still in flight of it is cancelled.
    pub(super) fn cancel_copies(&mut self, key: TaskKey) {
        while let Some(run) = self.tasks[key].runs.first().copied() {
            let id = self.tasks[key].id.clone();
            self.actions.push_back(Action::Abort { engine: run.engine, id });
            self.give_up_run(key, run.engine);
        }
    }

    /// A ghost has been answered.
    pub(super) fn release_ghost(&mut self, now: Time, ghost: Ghost, measured: &Measured) {
        self.end_ghost(now, &ghost, Ending::Cancelled, measured);
        self.bury_if_idle(now, ghost.run.engine);
    }

    fn end_ghost(&mut self, now: Time, ghost: &Ghost, ending: Ending, measured: &Measured) {
        self.engines.get_mut(ghost.run.engine).ghosts -= 1;
        self.account(now, &ghost.run, ghost.class, ghost.is_charged.then_some(ghost.lane), ending, measured);
    }

    /// A task that was taken back from an engine and lives elsewhere was answered there: dropped as asked, or it had begun after all, and
    /// then the first answer is its answer.
    pub(super) fn result_of_ghost(
        &mut self,
        now: Time,
        key: TaskKey,
        ghost: Ghost,
        kind: ReplyKind,
        payload: P,
        measured: &Measured,
    ) {
        let engine = ghost.run.engine;
        if kind == ReplyKind::Ok {
            if self.tasks[key].state != State::Running {
                self.leave_waiting(now, key);
            }
            self.reply(key, payload, true, engine, size_class(measured.bytes));
        } else {
            self.lay_to_rest(now, key, engine);
        }
        self.release_ghost(now, ghost, measured);
    }

    /// A task may be sent again to an engine that it was taken back from.
    pub(super) fn lay_to_rest(&mut self, now: Time, key: TaskKey, engine: EngineId) {
        let waits = self.tasks[key].state.is_waiting_for_engine();
        if waits {
            self.withdraw(now, key);
        }
        self.tasks[key].rest.edit().haunted.retain(|other| *other != engine);
        if waits {
            self.release_if_met(now, key);
        }
    }

    /// An engine has gone, and its ghosts with it.
    pub(super) fn release_ghosts_of(&mut self, now: Time, engine: EngineId) {
        let mut gone = self.ghosts.take_all_at(engine);
        gone.sort_unstable_by_key(|ghost| ghost.run.dispatch);
        for ghost in gone {
            if self.tasks.contains_key(ghost.task) {
                self.lay_to_rest(now, ghost.task, engine);
            }
            self.end_ghost(now, &ghost, Ending::Lost, &Measured::default());
        }
    }
}
