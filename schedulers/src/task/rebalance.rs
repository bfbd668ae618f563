//! Where the rebalance policy meets tasks in flight: when it looks at one again, and what it then does. A second copy is a run beside the
//! first; a task that is taken back becomes a ghost where it was, once its engine has taken note and cannot have begun it.

use std::time::Duration;

use pointsman_policies::{Chosen, EngineIx, Flight, Move, RebalanceCx, Request, Scheme, Time};
use slotmap::SlotMap;
use smallvec::SmallVec;

use super::TaskKey;
use super::event::Action;
use super::known::EngineId;
use super::machine::TaskScheduler;
use super::state::{Recall, Run, Task};

/// How long after an engine has taken note of an abort the answers arrive that it had sent before. The two travel on different
/// connections; an answer that is on its way for longer could mean that the task had begun, and would run twice.
const ANSWERS_WITHIN: Duration = Duration::from_millis(250);

/// How many tasks are looked at in one turn; the rest in the next.
const LOOKS: usize = 256;
/// When to look again at a task for which nothing can be done at the moment.
const LATER: Duration = Duration::from_millis(50);

/// Whether a dispatch of a task to an engine is still in flight there.
fn is_there<P>(tasks: &SlotMap<TaskKey, Box<Task<P>>>, engine: EngineId, &(dispatch, key): &(u64, TaskKey)) -> bool {
    tasks.get(key).is_some_and(|task| task.runs.iter().any(|run| run.engine == engine && run.dispatch == dispatch))
}

impl<S: Scheme, P: Clone> TaskScheduler<S, P> {
    /// Asks the policy when it wants to look at a task that was just sent, or that is in flight when it takes over.
    pub(super) fn ask_lookout(&mut self, now: Time, key: TaskKey, ix: EngineIx) -> Option<Time> {
        let task = &self.tasks[key];
        let facts = task.facts.open();
        let view = task.shown(&facts, self.rebalance_needs);
        let cx = RebalanceCx::new(now, self.placement.roster(), self.placement.learned());
        let at = self.rebalance.on_dispatch(&cx, &view, ix)?;
        let attempt = task.runs.iter().find(|run| run.ix == ix).map_or(task.attempt + 1, |run| run.attempt);
        self.lookouts.insert((at, key, attempt));
        Some(at)
    }

    /// Looks at the tasks whose time has come.
    pub(super) fn look_out(&mut self, now: Time) {
        for _ in 0..LOOKS {
            let Some(&(at, key, attempt)) = self.lookouts.first() else { break };
            if at > now {
                break;
            }
            self.lookouts.pop_first();
            let Some(run) = self.tasks.get_mut(key).and_then(|task| task.runs.iter_mut().find(|run| run.attempt == attempt))
            else {
                continue;
            };
            run.look_at = None;
            let run = *run;
            match run.recall {
                Recall::No => self.ask_move(now, key, &run),
                Recall::Asked => {} // the engine has not answered; the task stays
                Recall::Until(at) if at > now => self.look_again(key, &run, at),
                Recall::Until(_) => self.take_back(now, key, &run),
            }
        }
    }

    fn look_again(&mut self, key: TaskKey, run: &Run, at: Time) {
        let runs = &mut self.tasks[key].runs;
        if let Some(run) = runs.iter_mut().find(|other| other.attempt == run.attempt) {
            if let Some(before) = run.look_at.replace(at) {
                self.lookouts.remove(&(before, key, run.attempt));
            }
            self.lookouts.insert((at, key, run.attempt));
        }
    }

    /// Whether a task that was sent to the engine before this one is still there. O(1) amortised.
    fn is_behind_another(&mut self, run: &Run) -> bool {
        let tasks = &self.tasks;
        let sent = &mut self.engines.get_mut(run.engine).sent;
        while let Some(entry) = sent.front()
            && !is_there(tasks, run.engine, entry)
        {
            sent.pop_front();
        }
        sent.front().is_some_and(|&(dispatch, _)| dispatch < run.dispatch)
    }

    /// Notes the order in which tasks were sent to an engine; those that are gone are swept when they are the majority.
    pub(super) fn note_sent(&mut self, engine: EngineId, dispatch: u64, key: TaskKey) {
        let tasks = &self.tasks;
        let row = self.engines.get_mut(engine);
        if row.sent.len() > 2 * row.running.len() + 16 {
            row.sent.retain(|entry| is_there(tasks, engine, entry));
        }
        row.sent.push_back((dispatch, key));
    }

    fn ask_move(&mut self, now: Time, key: TaskKey, run: &Run) {
        let is_queued = self.is_behind_another(run);
        let flight = Flight::new(run.ix, run.since, is_queued);
        let task = &self.tasks[key];
        let facts = task.facts.open();
        let view = task.shown(&facts, self.rebalance_needs);
        let cx = RebalanceCx::new(now, self.placement.roster(), self.placement.learned());
        match self.rebalance.on_overdue(&cx, &view, &flight) {
            Move::Leave => {}
            Move::Hedge | Move::Recall if self.paused => self.look_again(key, run, now + LATER),
            Move::Again(at) => self.look_again(key, run, at.max(now + Duration::from_millis(1))),
            // One copy besides the first is enough, and only where its client has allowed it.
            Move::Hedge if task.runs.len() > 1 || !task.facts.may_be_hedged() => {}
            Move::Hedge => {
                if !self.send_copy(now, key) {
                    self.look_again(key, run, now + LATER);
                }
            }
            Move::Recall if !is_queued || task.runs.len() > 1 => {}
            Move::Recall if !self.placement.any_open(&self.limit(key, &[run.engine]).candidates()) => {
                self.look_again(key, run, now + LATER);
            }
            Move::Recall => {
                let id = task.id.clone();
                self.actions.push_back(Action::Abort { engine: run.engine, id });
                self.tasks[key].runs[0].recall = Recall::Asked;
            }
        }
    }

    /// Sends a second copy to another engine that has room. False if there is none.
    fn send_copy(&mut self, now: Time, key: TaskKey) -> bool {
        let there: SmallVec<[EngineId; 2]> = self.tasks[key].runs.iter().map(|run| run.engine).collect();
        let limit = self.limit(key, &there);
        let inputs = self.inputs(key, self.placement.all_needs());
        let task = &self.tasks[key];
        let facts = task.facts.open();
        let request = Request::new(limit.candidates())
            .attempt(task.attempt + 1)
            .task(task.view(&facts, &inputs))
            .with_waiting(self.waiting + 1);
        let Chosen::Engine(ix) = self.placement.pick(now, &request) else { return false };
        self.tell_waiting(now, self.tasks[key].rank.lane); // for the order it is a task like any other
        self.begin_run(now, key, ix, &request);
        self.counters.hedged += 1;
        true
    }

    /// The engine has taken note that it shall drop a task. What it had sent before is waited for.
    pub(super) fn abort_noted(&mut self, now: Time, id: &str, engine: &str) {
        let (Some(key), Some(engine)) = (self.find(id), self.engines.find(engine)) else { return };
        let asked = |run: &&mut Run| run.engine == engine && run.recall == Recall::Asked;
        let Some(run) = self.tasks[key].runs.iter_mut().find(asked) else { return };
        let until = now + ANSWERS_WITHIN;
        run.recall = Recall::Until(until);
        let run = *run;
        self.look_again(key, &run, until);
    }

    /// If what was before it in its engine's queue is still there, the task has not begun, and will not: it is placed anew.
    fn take_back(&mut self, now: Time, key: TaskKey, run: &Run) {
        if !self.is_behind_another(run) {
            return; // it may have begun; its engine answers either way
        }
        self.give_up_run(key, run.engine);
        self.tasks[key].rest.edit().haunted.push(run.engine);
        self.tasks[key].got_there();
        self.counters.recalled += 1;
        self.wait_again(now, key);
    }
}
