//! The second part: waiting for an engine, and getting one. A task that may go anywhere waits in one queue, one that may use only a
//! few engines is parked on each of them, and one that engines have turned away stands in a log that each engine reads once.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use pointsman_policies::{Candidates, Chosen, Considered, EngineIx, Request, Scheme, Time};
use smallvec::SmallVec;

use super::TaskKey;
use super::decisions::{Decision, MAX_CONSIDERED};
use super::event::Action;
use super::known::{EngineId, Presence};
use super::machine::TaskScheduler;
use super::queue::{Entry, Standing};
use super::rank::is_alive;
use super::state::{Recall, Run, State};

/// How many tasks may be put off by the scheme at a time: those behind them are looked at meanwhile, and no more.
const LOOK_AHEAD: usize = 16;
/// A scheme that puts a task off to a moment that has passed is asked again after this.
const SOONEST: Duration = Duration::from_millis(1);

/// What limits the engines that a task may be sent to.
pub(super) enum Limit {
    None,
    Only(SmallVec<[EngineIx; 8]>),
    Except(SmallVec<[EngineIx; 8]>),
}

impl Limit {
    pub(super) fn candidates(&self) -> Candidates<'_> {
        match self {
            Limit::None => Candidates::All,
            Limit::Only(list) => Candidates::Only(list),
            Limit::Except(list) => Candidates::Except(list),
        }
    }
}

impl<S: Scheme, P: Clone> TaskScheduler<S, P> {
    /// Begins a stay among waiting tasks: starts its clock, and, if its dependencies are met, queues it.
    pub(super) fn start_waiting(&mut self, now: Time, key: TaskKey) {
        let task = &mut self.tasks[key];
        if let Some(timeout) = task.rest.timeout {
            let rest = task.rest.edit();
            let deadline = rest.sent_before.take().unwrap_or(now + timeout);
            rest.deadline = Some(deadline);
            self.deadlines.insert((deadline, key));
        }
        self.release_if_met(now, key);
    }

    /// Queues a blocked task whose dependencies are met.
    pub(super) fn release_if_met(&mut self, now: Time, key: TaskKey) {
        let task = &mut self.tasks[key];
        if task.state != State::Blocked || !task.dependencies_met() {
            return;
        }
        task.ready_since = now;
        if !(task.rest.after.empty && task.rest.follow.empty) {
            task.rest.edit().release = self.ends;
        }
        let rank = self.ask_rank(now, key);
        self.tasks[key].rank = rank;
        self.tell_waiting(now, rank.lane);
        self.queue_up(key);
    }

    /// Puts a task that only lacks an engine where it belongs, and sees to it that an engine which is open already looks at it.
    fn queue_up(&mut self, key: TaskKey) {
        let task = &mut self.tasks[key];
        if task.is_bound(self.soft_follow) {
            task.state = State::Parked;
            let open: SmallVec<[EngineId; 4]> =
                self.tasks[key].allowed(self.soft_follow).into_iter().filter(|&id| self.open_ix(id).is_some()).collect();
            self.turn.opened.extend(open);
        } else if task.rest.blacklist.is_empty() && task.rest.haunted.is_empty() {
            task.state = State::Ready;
        } else {
            task.state = State::TurnedAway(self.next_turn);
            self.longest_blacklist = self.longest_blacklist.max(task.rest.blacklist.len());
            self.next_turn += 1;
            self.turn.released.insert((self.standing(key), key));
        }
        self.enter_queues(key);
    }

    /// Parks a task on one of the engines it may use, if that is up.
    pub(super) fn park_on(&mut self, key: TaskKey, engine: EngineId) {
        if self.engines.is_up(engine) {
            let task = &self.tasks[key];
            let tag = self.order.tag(task.rank.lane);
            self.engines.get_mut(engine).parked.get_or_insert_default().push(task.rank, tag, task.entry(key));
        }
    }

    /// Ends a stay among waiting tasks, wherever it was.
    pub(super) fn leave_waiting(&mut self, now: Time, key: TaskKey) {
        let task = &mut self.tasks[key];
        if let Some(deadline) = task.rest.get_mut().and_then(|rest| rest.deadline.take()) {
            self.deadlines.remove(&(deadline, key));
        }
        self.withdraw(now, key);
    }

    /// Takes a task out of the queues; its clock runs on.
    pub(super) fn withdraw(&mut self, now: Time, key: TaskKey) {
        self.leave_queues(key);
        let task = &mut self.tasks[key];
        let (was, lane) = (std::mem::replace(&mut task.state, State::Blocked), task.rank.lane);
        if was.is_waiting_for_engine() {
            self.tell_withdrawn(now, lane);
        }
    }

    /// Tasks that the scheme has put off are asked about again: something has happened, or their time has come.
    pub(super) fn ask_again(&mut self, now: Time) {
        for (key, _) in std::mem::take(&mut self.set_aside) {
            self.queue_up(key);
            self.end_if_hopeless(now, key); // an engine may have gone meanwhile
        }
    }

    /// Places whatever the event has made placeable, in the policy's order, until nothing more fits.
    pub(super) fn fill(&mut self, now: Time) {
        // The first task parked on each engine that has room now. Within a queue standings only grow in here, so whatever is on top is
        // brought up to date or right.
        if self.can_place_nothing() {
            return;
        }
        let opened = std::mem::take(&mut self.turn.opened);
        let mut firsts: BinaryHeap<Reverse<(Standing, TaskKey, EngineId)>> = BinaryHeap::new();
        for id in opened {
            firsts.extend(self.first_bound_for(id).map(|(standing, key)| Reverse((standing, key, id))));
        }
        // A scheme may put a few tasks off, and others go ahead of them. What is not looked at then is looked at with the next event.
        while self.set_aside.len() < LOOK_AHEAD {
            // Mostly all that waits may go anywhere.
            let next = if firsts.is_empty() && self.turned_away.is_empty() {
                self.first_ready()
            } else {
                let bound = self.first_bound(&mut firsts);
                let next = [self.first_ready(), self.first_released(), self.first_turned_away(), bound];
                next.into_iter().flatten().min()
            };
            let Some((_, key)) = next else { return self.turn.released.clear() };
            self.place(now, key);
            if self.can_place_nothing() {
                return;
            }
        }
        self.turn.opened.extend(firsts.into_iter().map(|Reverse((_, _, id))| id));
        self.turn.opened.sort_unstable();
        self.turn.opened.dedup();
    }

    /// Whether it is paused, no task waits that has not been put off, or no engine has room: then there is nothing to look at, and nothing to
    /// remember.
    fn can_place_nothing(&mut self) -> bool {
        let nothing = self.paused || self.waiting == self.set_aside.len() || self.placement.roster().open_count() == 0;
        if nothing {
            self.turn.opened.clear();
            self.turn.released.clear();
        }
        nothing
    }

    /// The first of the tasks that wait for engines which have room now.
    fn first_bound(&mut self, firsts: &mut BinaryHeap<Reverse<(Standing, TaskKey, EngineId)>>) -> Option<(Standing, TaskKey)> {
        while let Some(&Reverse((standing, key, id))) = firsts.peek() {
            match self.first_bound_for(id) {
                Some(found) if found == (standing, key) => return Some(found),
                found => {
                    firsts.pop();
                    firsts.extend(found.map(|(standing, key)| Reverse((standing, key, id))));
                }
            }
        }
        None
    }

    /// The first of the tasks that came into the log by this event: any engine may take them, whatever it has read.
    fn first_released(&mut self) -> Option<(Standing, TaskKey)> {
        while let Some(&(standing, key)) = self.turn.released.first() {
            let waits = self.tasks.get(key).is_some_and(|task| matches!(task.state, State::TurnedAway(_)));
            if waits && self.has_open_engine(key) {
                let now = self.standing(key);
                if now <= standing {
                    return Some((now, key));
                }
                self.turn.released.insert((now, key));
            }
            self.turn.released.remove(&(standing, key));
        }
        None
    }

    /// The first task that any engine may run, if one is open.
    fn first_ready(&mut self) -> Option<(Standing, TaskKey)> {
        if self.placement.roster().open_count() == 0 {
            return None;
        }
        let (tasks, order) = (&self.tasks, &self.order);
        let alive = |entry: &Entry| is_alive(tasks, entry);
        self.ready.first(alive, |lane| order.tag(lane), &self.falls)
    }

    /// The first task parked on an engine with room.
    fn first_bound_for(&mut self, id: EngineId) -> Option<(Standing, TaskKey)> {
        let ix = self.open_ix(id)?;
        debug_assert_eq!(self.engines.at(ix), id);
        let (tasks, order) = (&self.tasks, &self.order);
        let alive = |entry: &Entry| is_alive(tasks, entry);
        self.engines.get_mut(id).parked.as_mut()?.first(alive, |lane| order.tag(lane), &self.falls)
    }

    /// Each engine with room would take the first task in the log that it has not turned away; the first of those in the policy's order.
    /// That is the first in the log for all engines but the few that it excludes. O(those).
    fn first_turned_away(&mut self) -> Option<(Standing, TaskKey)> {
        let (_, &key) = self.turned_away.first_key_value()?;
        let open = self.has_open_engine(key).then(|| (self.standing(key), key));
        let task = &self.tasks[key];
        let excluded: SmallVec<[EngineId; 4]> = task.rest.blacklist.iter().chain(&task.rest.haunted).copied().collect();
        let others = excluded.into_iter().filter_map(|id| self.first_in_log_for(id));
        open.into_iter().chain(others.collect::<SmallVec<[_; 4]>>()).min()
    }

    /// The first task in the log that an engine with room has not turned away.
    fn first_in_log_for(&mut self, id: EngineId) -> Option<(Standing, TaskKey)> {
        self.open_ix(id)?;
        let engine = self.engines.get_mut(id);
        loop {
            // Whoever excludes this engine does so for the rest of its stay in the log, so it is read once.
            match self.turned_away.range(engine.cursor..).next() {
                Some((&turn, &key)) if self.tasks[key].excludes(id) => engine.cursor = turn + 1,
                Some((&turn, &key)) => {
                    engine.cursor = turn;
                    return Some((self.standing(key), key));
                }
                None => {
                    engine.cursor = self.next_turn;
                    return None;
                }
            }
        }
    }

    /// Its place in the roster, if an engine is there and has room.
    fn open_ix(&self, id: EngineId) -> Option<EngineIx> {
        self.engines.up_ix(id).filter(|&ix| self.placement.roster().is_open(ix))
    }

    /// The engines that a task may be sent to now, but for some: those with room of the few that it is bound to, or all that have not turned
    /// it away.
    pub(super) fn limit(&self, key: TaskKey, but: &[EngineId]) -> Limit {
        let task = &self.tasks[key];
        if task.is_bound(self.soft_follow) {
            let allowed = task.allowed(self.soft_follow).into_iter().filter(|id| !but.contains(id));
            return Limit::Only(allowed.filter_map(|id| self.open_ix(id)).collect());
        }
        if task.rest.blacklist.is_empty() && task.rest.haunted.is_empty() && but.is_empty() {
            return Limit::None;
        }
        let mut except = self.excluded(key);
        except.extend(but.iter().filter_map(|&id| self.engines.up_ix(id)));
        Limit::Except(except)
    }

    /// The roster places of the engines that turned a task away.
    fn excluded(&self, key: TaskKey) -> SmallVec<[EngineIx; 8]> {
        let present = |&id: &EngineId| match self.engines.get(id).presence {
            Presence::Up(ix) => Some(ix),
            _ => None,
        };
        let task = &self.tasks[key];
        task.rest.blacklist.iter().chain(&task.rest.haunted).filter_map(present).collect()
    }

    fn has_open_engine(&self, key: TaskKey) -> bool {
        self.placement.any_open(&Candidates::Except(&self.excluded(key)))
    }

    /// Asks the scheme and sends the task where it says, or puts it aside if that is nowhere for now.
    fn place(&mut self, now: Time, key: TaskKey) {
        let limit = self.limit(key, &[]);
        let inputs = self.inputs(key, self.placement.all_needs());
        let task = &self.tasks[key];
        let facts = task.facts.open();
        let request = Request::new(limit.candidates())
            .attempt(task.attempt + 1)
            .task(task.view(&facts, &inputs))
            .with_waiting(self.waiting);
        let chosen =
            if self.decisions.is_on() { self.pick_logged(now, key, &request) } else { self.placement.pick(now, &request) };
        let until = match chosen {
            Chosen::Engine(ix) => return self.dispatch(now, key, ix, &request),
            Chosen::Defer { until } => until.map(|until| until.max(now + SOONEST)),
            Chosen::NoneOpen => None, // an engine closed between; the next that opens is asked
        };
        self.leave_queues(key);
        self.tasks[key].state = State::SetAside;
        self.set_aside.push((key, until));
    }

    /// Asks the scheme and notes what it says of it.
    fn pick_logged(&mut self, now: Time, key: TaskKey, request: &Request<'_>) -> Chosen {
        let watch = self.decisions.stopwatch;
        let start = watch.map_or(0, |watch| watch());
        let (chosen, considered) = self.placement.pick_traced(now, request, true);
        let cost_ns = watch.map_or(0, |watch| watch().saturating_sub(start));
        let considered: SmallVec<[Considered; MAX_CONSIDERED]> = considered.iter().take(MAX_CONSIDERED).copied().collect();
        let roster = self.placement.roster();
        self.decisions.add(Decision {
            number: 0,
            at: now,
            task: self.tasks[key].id.clone(),
            attempt: request.attempt,
            waiting: self.waiting,
            open: roster.open_count(),
            limit: match request.candidates {
                Candidates::All => ("any", 0),
                Candidates::Only(list) => ("only", list.len()),
                Candidates::Except(list) => ("except", list.len()),
            },
            considered: considered.iter().map(|seen| (roster.number(seen.engine), seen.key)).collect(),
            chosen: match chosen {
                Chosen::Engine(engine) => Some(roster.number(engine)),
                Chosen::Defer { .. } | Chosen::NoneOpen => None,
            },
            cost_ns,
        });
        chosen
    }

    /// Sends a waiting task to an engine.
    fn dispatch(&mut self, now: Time, key: TaskKey, ix: EngineIx, request: &Request<'_>) {
        self.leave_queues(key);
        let task = &mut self.tasks[key];
        if let Some(rest) = task.rest.get_mut() {
            rest.sent_before = rest.deadline.take();
            if let Some(deadline) = rest.sent_before {
                self.deadlines.remove(&(deadline, key));
            }
        }
        self.begin_run(now, key, ix, request);
    }

    /// Sends a task that waits in no queue to an engine.
    pub(super) fn begin_run(&mut self, now: Time, key: TaskKey, ix: EngineIx, request: &Request<'_>) {
        let order_ticket = self.tell_dispatched(now, key);
        let ticket = self.placement.dispatch(now, ix, request);
        let engine = self.engines.at(ix);
        let running = &mut self.engines.get_mut(engine).running;
        let place = running.len() as u32;
        running.push(key);
        self.counters.dispatched += 1;
        let look_at = if self.watches {
            self.note_sent(engine, self.counters.dispatched, key);
            self.ask_lookout(now, key, ix)
        } else {
            None
        };
        let task = &mut self.tasks[key];
        task.attempt += 1;
        task.state = State::Running;
        task.runs.push(Run {
            engine,
            ix,
            place,
            attempt: task.attempt,
            dispatch: self.counters.dispatched,
            since: now,
            ticket,
            order_ticket,
            ahead: self.placement.roster().load(ix).saturating_sub(1),
            look_at,
            recall: Recall::No,
        });
        let payload = task.payload.clone();
        self.actions.push_back(Action::Dispatch { task: key, attempt: task.attempt, engine, payload });
    }
}
