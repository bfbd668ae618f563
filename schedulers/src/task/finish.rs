//! The last part: answers, failed attempts, and ends. An end tells every dependent, whose end may follow from it, without recursion.

use std::collections::VecDeque;

use pointsman_policies::{AdmissionCx, Ending, Needs, OrderCx, Outcome, Scheme, Time};

use super::event::{Action, Measured, Reason, ReplyKind};
use super::ghosts::Ghost;
use super::known::EngineId;
use super::machine::{Ended, TaskScheduler};
use super::rank::size_class;
use super::state::{Edge, Failure, Recall, Run, State, Task};
use super::submit::ledger_word;
use super::{FailKind, TaskKey};

impl<P> Task<P> {
    /// One of its dependencies ended.
    pub(super) fn dependency_ended(&mut self, edge: Edge, ok: bool, engine: Option<EngineId>, size: u8) {
        let rest = self.rest.edit();
        if ok && let Some(engine) = engine {
            rest.inputs.push((engine, size));
        }
        match edge {
            Edge::After => {
                rest.after.ended(ok);
            }
            Edge::Follow => {
                if rest.follow.ended(ok) {
                    match engine {
                        Some(engine) if rest.follow_places.contains(&engine) => {}
                        Some(engine) => rest.follow_places.push(engine),
                        None => rest.follow_nowhere = true,
                    }
                }
            }
        }
    }
}

impl<S: Scheme, P: Clone> TaskScheduler<S, P> {
    pub(super) fn result(&mut self, now: Time, id: &str, engine: &str, kind: ReplyKind, payload: P, measured: &Measured) {
        let Some(key) = self.find(id) else {
            if self.ledger.get(id) != 0 {
                let ghost = self.engines.find(engine).and_then(|place| self.ghosts.take(id, place));
                return self.other_result(now, None, ghost, kind, payload, measured);
            }
            // Nobody has answered it before: its request was handled by an earlier scheduler. Its client may still wait.
            return self.actions.push_back(Action::PassOn { payload });
        };
        // The engines that run it are one or two: comparing their names is cheaper than looking this one up among all.
        let (engines, mut runs) = (&self.engines, self.tasks[key].runs.iter());
        match runs.find(|run| *engines.get(run.engine).uuid == *engine).copied() {
            Some(run) => self.result_of_run(now, key, &run, kind, payload, measured),
            None => {
                let place = self.engines.find(engine);
                let ghost = place.and_then(|place| self.ghosts.take(id, place));
                match place.filter(|_| ghost.is_none() && kind == ReplyKind::Ok && self.tasks[key].rest.inherited) {
                    Some(place) => self.result_of_the_past(now, key, place, payload, measured),
                    None => self.other_result(now, Some(key), ghost, kind, payload, measured),
                }
            }
        }
    }

    /// A task that this scheduler took over had been sent by the one before, and has been answered there.
    fn result_of_the_past(&mut self, now: Time, key: TaskKey, engine: EngineId, payload: P, measured: &Measured) {
        if self.tasks[key].state != State::Running {
            self.leave_waiting(now, key);
        }
        self.reply(key, payload, true, engine, size_class(measured.bytes));
    }

    /// The answer to a dispatch.
    pub(super) fn answer(&mut self, now: Time, key: TaskKey, attempt: u32, kind: ReplyKind, payload: P, measured: &Measured) {
        let task = self.tasks.get(key);
        match task.and_then(|task| task.runs.iter().find(|run| run.attempt == attempt).copied()) {
            Some(run) => self.result_of_run(now, key, &run, kind, payload, measured),
            None => {
                let live = task.map(|_| key);
                let ghost = self.ghosts.take_attempt(key, attempt);
                self.other_result(now, live, ghost, kind, payload, measured);
            }
        }
    }

    /// An answer from where a task is not in flight: of a run that no longer matters, if it is any. The task, if it lives.
    fn other_result(
        &mut self,
        now: Time,
        live: Option<TaskKey>,
        ghost: Option<Ghost>,
        kind: ReplyKind,
        payload: P,
        measured: &Measured,
    ) {
        match (ghost, live) {
            (Some(ghost), Some(key)) => self.result_of_ghost(now, key, ghost, kind, payload, measured),
            (Some(ghost), None) => self.release_ghost(now, ghost, measured),
            (None, Some(_)) => self.reject(Reason::NotRunningThere),
            (None, None) => self.reject(Reason::AlreadyAnswered),
        }
    }

    /// A task that is in flight has been answered.
    fn result_of_run(&mut self, now: Time, key: TaskKey, run: &Run, kind: ReplyKind, payload: P, measured: &Measured) {
        let where_ = run.engine;
        let ending = match kind {
            ReplyKind::Ok => Ending::Ok,
            ReplyKind::Failed => Ending::Failed,
            ReplyKind::Aborted => Ending::Cancelled,
            ReplyKind::Unmet => Ending::Unmet,
        };
        self.end_run(now, key, where_, ending, measured);
        self.tasks[key].got_there();
        let others = !self.tasks[key].runs.is_empty();
        match kind {
            // The other copy may yet succeed.
            ReplyKind::Failed | ReplyKind::Aborted if others => {}
            // It was taken back before it had begun.
            ReplyKind::Aborted if run.recall != Recall::No => {
                self.counters.recalled += 1;
                self.wait_again(now, key);
            }
            ReplyKind::Ok | ReplyKind::Aborted => {
                self.reply(key, payload, kind == ReplyKind::Ok, where_, size_class(measured.bytes));
            }
            ReplyKind::Failed => self.attempt_failed(now, key, Failure { engine: where_, reply: Some(payload) }),
            ReplyKind::Unmet => {
                self.counters.unmet += 1;
                self.tasks[key].rest.edit().blacklist.push(where_);
                if !others {
                    self.wait_again(now, key);
                }
            }
        }
        self.bury_if_idle(now, where_);
    }

    /// A lost engine whose last task has been answered need not be waited for.
    pub(super) fn bury_if_idle(&mut self, now: Time, id: EngineId) {
        if self.engines.get(id).running.is_empty() && self.engines.get(id).ghosts == 0 {
            self.bury(now, id);
        }
    }

    /// Takes a task off one of its engines.
    pub(super) fn end_run(&mut self, now: Time, key: TaskKey, id: EngineId, ending: Ending, measured: &Measured) {
        let Some(run) = self.detach_run(key, id) else { return };
        let task = &self.tasks[key];
        let (class, lane) = (task.facts.class, task.rank.lane);
        self.account(now, &run, class, Some(lane), ending, measured);
    }

    /// Takes a run out of its task and its engine's list, without a word to any policy: the engine still has it.
    pub(super) fn detach_run(&mut self, key: TaskKey, id: EngineId) -> Option<Run> {
        let task = &mut self.tasks[key];
        let at = task.runs.iter().position(|run| run.engine == id)?;
        let run = task.runs.remove(at);
        if task.runs.is_empty() {
            task.state = State::Blocked;
        }
        if let Some(at) = run.look_at {
            self.lookouts.remove(&(at, key, run.attempt));
        }
        let running = &mut self.engines.get_mut(id).running;
        running.swap_remove(run.place as usize);
        if let Some(&moved) = running.get(run.place as usize) {
            self.tasks[moved].runs.iter_mut().filter(|other| other.engine == id).for_each(|other| other.place = run.place);
        }
        Some(run)
    }

    /// Tells the policies that a run is over; `lane` is nothing if the order was never charged for it.
    pub(super) fn account(&mut self, now: Time, run: &Run, class: u64, lane: Option<u64>, ending: Ending, measured: &Measured) {
        let (id, ix) = (run.engine, run.ix);
        let mut outcome = Outcome::new(run.ticket, ending, now.since(run.since));
        (outcome.run, outcome.ahead) = (measured.run, run.ahead);
        let order_ticket = run.order_ticket;
        // An engine that does not say how long it ran is believed to have begun at once if it was idle.
        let ran = measured.run.or((run.ahead == 0).then_some(outcome.latency));
        if let Some(ran) = ran.filter(|_| ending == Ending::Ok && self.needs.intersects(Needs::ESTIMATE | Needs::SPEED)) {
            self.placement.learned_mut().observe(now, class, ix, ran, measured.bytes);
        }
        let used_s = match ending {
            Ending::Ok | Ending::Failed | Ending::Lost => ran.map(|ran| ran.as_secs_f64()),
            Ending::Unmet | Ending::Cancelled => Some(measured.run.map_or(0.0, |ran| ran.as_secs_f64())),
        };
        let mut opened = self.placement.outcome(now, ix, &outcome);
        if let Some(lane) = lane {
            let cx = OrderCx::new(now, self.placement.learned());
            self.order.on_outcome(&cx, lane, order_ticket, ending, used_s);
            if let Some(lane) = self.order.take_fallen() {
                self.falls.add(lane);
            }
        }
        if let Some(hwm) =
            self.admission.on_outcome(&AdmissionCx::new(now, self.placement.roster()), ix, &outcome.shown(self.admission_needs))
        {
            opened |= self.placement.set_hwm(now, ix, hwm);
        }
        if opened {
            self.turn.opened.push(id);
        }
    }

    /// An attempt failed, or its engine died: again elsewhere if it may, else that is the end.
    pub(super) fn attempt_failed(&mut self, now: Time, key: TaskKey, failure: Failure<P>) {
        let task = &mut self.tasks[key];
        if task.retries == 0 {
            return self.end_with(key, failure);
        }
        task.retries -= 1;
        task.rest.edit().blacklist.push(failure.engine);
        task.last_failure = Some(Box::new(failure));
        self.counters.retried += 1;
        self.wait_again(now, key);
    }

    /// Back among the waiting after an attempt, if any engine is left for it.
    pub(super) fn wait_again(&mut self, now: Time, key: TaskKey) {
        self.start_waiting(now, key);
        self.end_if_hopeless(now, key);
    }

    /// The engine of a dispatch is not connected: it is barred for a while, and the task waits as if it had never been sent.
    pub(super) fn send_failed(&mut self, now: Time, key: TaskKey, attempt: u32) {
        let run = self.tasks.get(key).and_then(|task| task.runs.iter().find(|run| run.attempt == attempt));
        match run.map(|run| run.engine) {
            Some(engine) => {
                self.end_run(now, key, engine, Ending::Lost, &Measured::default());
                if self.engines.is_up(engine) {
                    self.engines.get_mut(engine).unreachable_until = Some(now + self.limits.reconnect);
                    self.bar_or_admit(now, engine);
                }
                if self.tasks[key].runs.is_empty() {
                    self.wait_again(now, key);
                }
                self.bury_if_idle(now, engine);
            }
            // It may have been cancelled before anybody knew that it was never sent.
            None => match self.ghosts.take_attempt(key, attempt) {
                Some(ghost) => {
                    if self.tasks.contains_key(key) {
                        self.lay_to_rest(now, key, ghost.run.engine);
                    }
                    self.release_ghost(now, ghost, &Measured::default());
                }
                None => self.reject(Reason::StaleAttempt),
            },
        }
    }

    /// Whether no engine that is up can ever run it, whatever happens but a new engine.
    pub(super) fn is_hopeless(&self, task: &Task<P>) -> bool {
        if task.rest.after.unreachable() || task.rest.follow.unreachable() {
            return true;
        }
        if !task.is_bound(self.soft_follow) {
            let turned = task.rest.blacklist.iter().filter(|&&id| self.engines.is_up(id)).count();
            return task.last_failure.is_some() && turned >= self.engines.up;
        }
        let usable = |engine: &EngineId| self.engines.is_up(*engine) && !task.rest.blacklist.contains(engine);
        if let Some(targets) = &task.rest.targets
            && !targets.iter().any(usable)
        {
            return true;
        }
        let follow = &task.rest.follow;
        if follow.empty || self.soft_follow {
            return false;
        }
        // All: one place for everything followed, and that place usable. Any: some place, now or when the rest has ended.
        if follow.all && (task.rest.follow_nowhere || task.rest.follow_places.len() > 1) {
            return true;
        }
        let settled = if follow.all { !task.rest.follow_places.is_empty() } else { follow.open == 0 };
        settled && !task.allowed_ever(false).iter().any(|&engine| self.engines.is_up(engine))
    }

    /// Ends a waiting task that no engine can ever run: with the failure it had, or as impossible. One that has failed and has a
    /// timeout waits for that instead, in case an engine joins.
    pub(super) fn end_if_hopeless(&mut self, now: Time, key: TaskKey) {
        let Some(task) = self.tasks.get(key) else { return };
        if task.state == State::Running || !self.is_hopeless(task) {
            return;
        }
        if task.last_failure.is_some()
            && task.rest.timeout.is_some()
            && !task.rest.after.unreachable()
            && !task.rest.follow.unreachable()
        {
            return;
        }
        self.leave_waiting(now, key);
        match self.tasks[key].last_failure.take() {
            Some(failure) => self.end_with(key, *failure),
            None => self.fail(key, FailKind::ImpossibleDependency, None),
        }
    }

    fn end_with(&mut self, key: TaskKey, failure: Failure<P>) {
        match failure.reply {
            Some(payload) => self.reply(key, payload, false, failure.engine, 0),
            None => self.fail(key, FailKind::EngineError, Some(failure.engine)),
        }
    }

    /// Terminal: an engine's answer.
    pub(super) fn reply(&mut self, key: TaskKey, payload: P, ok: bool, engine: EngineId, size: u8) {
        self.counters.replied += 1;
        self.cancel_copies(key);
        if let Some(task) = self.end(key, ok, Some(engine), size) {
            self.actions.push_back(Action::Reply { id: task.id, payload });
        }
    }

    /// Terminal: an error of our own. The task is in no queue any more.
    pub(super) fn fail(&mut self, key: TaskKey, kind: FailKind, engine: Option<EngineId>) {
        self.counters.failed += 1;
        if let Some(task) = self.end(key, false, engine, 0) {
            self.actions.push_back(Action::Fail { id: task.id, kind, engine, payload: task.payload });
        }
    }

    /// Forgets a task but for its word in the ledger, and remembers to tell its dependents. What is left of it is its caller's.
    fn end(&mut self, key: TaskKey, ok: bool, engine: Option<EngineId>, size: u8) -> Option<Box<Task<P>>> {
        let hash = self.hash(&self.tasks[key].id);
        self.by_id.remove(hash, key);
        let mut task = self.tasks.remove(key)?;
        self.ends += 1;
        self.growth.forget(task.seq);
        self.queued_bytes -= task.bytes;
        self.ledger.set(&task.id, ledger_word(ok, engine, size));
        for &dependency in &task.rest.waits_for {
            self.forget_dependent(dependency);
        }
        if !task.dependents.is_empty() {
            let dependents = std::mem::take(&mut task.dependents);
            self.turn.ended.push_back(Ended { dependents, ok, engine, size });
        }
        Some(task)
    }

    /// One dependent of a live task has ended: its edge is dead, and dead edges are swept once they are the majority.
    fn forget_dependent(&mut self, dependency: TaskKey) {
        let Some(task) = self.tasks.get_mut(dependency) else { return };
        task.rest.edit().dead_dependents += 1;
        if task.rest.dead_dependents as usize * 2 > task.dependents.len() && task.dependents.len() >= 64 {
            let mut edges = std::mem::take(&mut task.dependents);
            task.rest.edit().dead_dependents = 0;
            edges.retain(|&(key, _)| self.tasks.contains_key(key));
            self.tasks[dependency].dependents = edges;
        }
    }

    /// Tells dependents of ends, and theirs of theirs, then places what has become placeable.
    pub(super) fn settle(&mut self, now: Time) {
        self.grow(now);
        self.ask_again(now);
        loop {
            while let Some(Ended { dependents, ok, engine, size }) = self.turn.ended.pop_front() {
                for (key, edge) in dependents {
                    self.hear_of_end(now, key, edge, ok, engine, size);
                }
            }
            self.fill(now);
            if self.turn.ended.is_empty() {
                break;
            }
        }
        if self.turn.ended.capacity() > 1024 {
            self.turn.ended = VecDeque::new();
        }
    }

    fn hear_of_end(&mut self, now: Time, key: TaskKey, edge: Edge, ok: bool, engine: Option<EngineId>, size: u8) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        let places = task.rest.follow_places.len();
        task.dependency_ended(edge, ok, engine, size);
        if task.rest.follow_places.len() > places
            && let Some(engine) = engine
        {
            self.bind(key, engine);
            let task = &self.tasks[key];
            if task.state == State::Parked && task.allowed(self.soft_follow).contains(&engine) {
                self.park_on(key, engine);
                self.turn.opened.push(engine);
            }
        }
        self.end_if_hopeless(now, key);
        if self.tasks.contains_key(key) {
            self.release_if_met(now, key);
        }
    }
}
