//! The second part: waiting for an engine, and getting one. A task that may go anywhere waits in one queue, one that may use only a
//! few engines is parked on each of them, and one that engines have turned away stands in a log that each engine reads once.

use pointsman_policies::{Candidates, Chosen, EngineIx, Request, Scheme, Time};
use smallvec::SmallVec;

use super::TaskKey;
use super::event::Action;
use super::known::{EngineId, Presence};
use super::machine::TaskScheduler;
use super::queue::Entry;
use super::state::State;

impl<S: Scheme, P: Clone> TaskScheduler<S, P> {
    /// Begins a stay among waiting tasks: starts its clock, and, if its dependencies are met, queues it.
    pub(super) fn start_waiting(&mut self, now: Time, key: TaskKey) {
        let task = &mut self.tasks[key];
        if let Some(timeout) = task.timeout {
            let deadline = task.sent_before.take().unwrap_or(now + timeout);
            task.deadline = Some(deadline);
            self.deadlines.insert((deadline, key));
        }
        self.release_if_met(key);
    }

    /// Queues a blocked task whose dependencies are met.
    pub(super) fn release_if_met(&mut self, key: TaskKey) {
        let task = &mut self.tasks[key];
        if task.state != State::Blocked || !task.dependencies_met() {
            return;
        }
        if task.is_bound() {
            task.state = State::Parked;
            for engine in task.allowed() {
                self.park_on(key, engine);
            }
        } else if task.blacklist.is_empty() {
            task.state = State::Ready;
            self.ready.push(Entry { seq: task.seq, task: key, epoch: task.epoch });
        } else {
            task.state = State::TurnedAway(self.next_turn);
            self.longest_blacklist = self.longest_blacklist.max(task.blacklist.len());
            self.turned_away.insert(self.next_turn, key);
            self.next_turn += 1;
        }
        self.turn.released.push(key);
    }

    /// Parks a task on one of the engines it may use, if that is up.
    pub(super) fn park_on(&mut self, key: TaskKey, engine: EngineId) {
        if self.engines.is_up(engine) {
            let task = &self.tasks[key];
            self.engines.get_mut(engine).parked.push(Entry { seq: task.seq, task: key, epoch: task.epoch });
        }
    }

    /// Ends a stay among waiting tasks, wherever it was.
    pub(super) fn leave_waiting(&mut self, key: TaskKey) {
        let task = &mut self.tasks[key];
        if let Some(deadline) = task.deadline.take() {
            self.deadlines.remove(&(deadline, key));
        }
        let was = std::mem::replace(&mut task.state, State::Blocked);
        task.epoch += 1;
        let tasks = &self.tasks;
        let alive = |entry: &Entry| tasks.get(entry.task).is_some_and(|task| task.epoch == entry.epoch);
        match was {
            State::Ready => self.ready.died(alive),
            State::Parked => {
                for engine in tasks[key].allowed() {
                    if self.engines.is_up(engine) {
                        self.engines.get_mut(engine).parked.died(alive);
                    }
                }
            }
            State::TurnedAway(turn) => {
                self.turned_away.remove(&turn);
            }
            State::Blocked | State::Running { .. } => {}
        }
    }

    /// Places whatever the event has made placeable, oldest first, until nothing more fits.
    pub(super) fn fill(&mut self, now: Time) {
        if std::mem::take(&mut self.deferred) {
            let up: Vec<EngineIx> = self.placement.roster().open_engines().collect();
            self.turn.opened.extend(up.into_iter().map(|ix| self.engines.at(ix)));
        }
        let mut released = std::mem::take(&mut self.turn.released);
        released.retain(|&key| self.tasks.get(key).is_some_and(|task| task.state.is_waiting_for_engine()));
        released.sort_unstable_by_key(|&key| self.tasks[key].seq);
        let mut next_released = 0;
        loop {
            // The oldest released task that has an open engine now; the others wait where they are.
            let mut best: Option<(u64, TaskKey, Option<usize>)> = None;
            while let Some(&key) = released.get(next_released) {
                let placeable = self.tasks.get(key).is_some_and(|task| task.state.is_waiting_for_engine());
                if placeable && self.has_open_engine(key) {
                    best = Some((self.tasks[key].seq, key, None));
                    break;
                }
                next_released += 1;
            }
            // Older ones may have waited for the engines that have room now.
            let mut index = 0;
            while let Some(&engine) = self.turn.opened.get(index) {
                match self.first_for(engine) {
                    Some((seq, key)) => {
                        if best.is_none_or(|(oldest, ..)| seq < oldest) {
                            best = Some((seq, key, Some(index)));
                        }
                        index += 1;
                    }
                    None => {
                        self.turn.opened.swap_remove(index);
                    }
                }
            }
            let Some((_, key, opened_index)) = best else { break };
            if !self.place(now, key) {
                match opened_index {
                    Some(index) => {
                        self.turn.opened.swap_remove(index);
                    }
                    None => next_released += 1,
                }
            }
        }
        released.clear();
        self.turn.released = released;
        self.turn.opened.clear();
    }

    /// The oldest task that an engine with room may run.
    fn first_for(&mut self, id: EngineId) -> Option<(u64, TaskKey)> {
        let ix = self.engines.up_ix(id).filter(|&ix| self.placement.roster().is_open(ix))?;
        debug_assert_eq!(self.engines.at(ix), id);
        let tasks = &self.tasks;
        let alive = |entry: &Entry| tasks.get(entry.task).is_some_and(|task| task.epoch == entry.epoch);
        let engine = self.engines.get_mut(id);
        let parked = engine.parked.first(alive);
        let turned_away = loop {
            // Whoever excludes this engine does so for the rest of its stay in the log, so it is read once.
            match self.turned_away.range(engine.cursor..).next() {
                Some((&turn, &key)) if tasks[key].blacklist.contains(&id) => engine.cursor = turn + 1,
                Some((&turn, &key)) => {
                    engine.cursor = turn;
                    break Some((tasks[key].seq, key));
                }
                None => {
                    engine.cursor = self.next_turn;
                    break None;
                }
            }
        };
        let anyone = self.ready.first(alive);
        [anyone, parked].into_iter().flatten().map(|entry| (entry.seq, entry.task)).chain(turned_away).min()
    }

    /// The open engines that a bound task may use.
    fn open_allowed(&self, key: TaskKey) -> SmallVec<[EngineIx; 8]> {
        let open = |&ix: &EngineIx| self.placement.roster().is_open(ix);
        self.tasks[key].allowed().into_iter().filter_map(|id| self.engines.up_ix(id)).filter(open).collect()
    }

    /// The roster places of the engines that turned a task away.
    fn excluded(&self, key: TaskKey) -> SmallVec<[EngineIx; 8]> {
        let present = |&id: &EngineId| match self.engines.get(id).presence {
            Presence::Up(ix) => Some(ix),
            _ => None,
        };
        self.tasks[key].blacklist.iter().filter_map(present).collect()
    }

    fn has_open_engine(&self, key: TaskKey) -> bool {
        match self.tasks[key].state {
            State::Parked => !self.open_allowed(key).is_empty(),
            State::TurnedAway(_) => self.placement.any_open(&Candidates::Except(&self.excluded(key))),
            _ => self.placement.any_open(&Candidates::All),
        }
    }

    /// Asks the scheme and sends the task where it says. False if the scheme put it off.
    fn place(&mut self, now: Time, key: TaskKey) -> bool {
        let list;
        let candidates = match self.tasks[key].state {
            State::Parked => {
                list = self.open_allowed(key);
                Candidates::Only(&list)
            }
            State::TurnedAway(_) => {
                list = self.excluded(key);
                Candidates::Except(&list)
            }
            _ => Candidates::All,
        };
        let request = Request::new(candidates).attempt(self.tasks[key].attempt + 1);
        match self.placement.pick(now, &request) {
            Chosen::Engine(ix) => {
                let sent_before = self.tasks[key].deadline;
                self.leave_waiting(key);
                let ticket = self.placement.dispatch(now, ix, &request);
                let engine = self.engines.at(ix);
                let running = &mut self.engines.get_mut(engine).running;
                let place = running.len() as u32;
                running.push(key);
                let task = &mut self.tasks[key];
                task.attempt += 1;
                task.sent_before = sent_before;
                task.state = State::Running { engine, ix, place, ticket, since: now };
                self.counters.dispatched += 1;
                let payload = task.payload.clone();
                self.actions.push_back(Action::Dispatch { task: key, attempt: task.attempt, engine, payload });
                true
            }
            Chosen::Defer { until } => {
                match until {
                    Some(at) => self.deferred_until = Some(self.deferred_until.map_or(at, |before| before.min(at))),
                    None => self.deferred = true,
                }
                false
            }
            Chosen::NoneOpen => false,
        }
    }
}
