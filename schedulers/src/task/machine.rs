//! The machine's state and its front door: one event in, any number of actions out.
//! What each event does is told in the files beside this one, in the order of a task's life: submit, place, finish.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use foldhash::fast::FixedState;
use pointsman_core::Ledger;
use pointsman_policies::admission::Fixed;
use pointsman_policies::order::Fifo;
use pointsman_policies::{
    Admission, AdmissionCx, Joining, Learned, Needs, Order, Placement, Rebalance, Roster, Scheme, Time, rebalance,
};
use slotmap::SlotMap;
use smallvec::SmallVec;
use thin_vec::ThinVec;

use super::decisions::{Decision, DecisionLog};
use super::event::{Action, Counters, Event, Limits, Measured, Reason};
use super::ghosts::Ghosts;
use super::growth::Growth;
use super::ids::Ids;
use super::known::{EngineId, KnownEngines, Presence};
use super::queue::{Falls, Queue, Standing};
use super::state::{Edge, Failure, State, Task};
use super::{FailKind, TaskKey};

/// Holds tasks back until their dependencies are met, places them by a scheme, and sees each through to one terminal action.
///
/// # Calling order
/// [`handle`](Self::handle) an event or [`handle_timeout`](Self::handle_timeout); then [`poll_action`](Self::poll_action) until it
/// returns nothing; then sleep at most until [`poll_timeout`](Self::poll_timeout). `now` never goes back.
///
/// # Contracts
/// Every accepted task gets exactly one terminal action. The load of an engine is the number of tasks running there. No open engine
/// stands by while a ready task that may use it waits, unless the scheme deferred it. Among tasks that an engine may run, the first in the
/// policy's order goes first; those that an engine has turned away are ordered among themselves by when that was. The same configuration,
/// seed and events give the same actions. What a peer does wrong is an [`Action::Reject`]. [`check`](Self::check) verifies what can be seen.
///
/// # Cost
/// A submission costs O(dependencies + targets), an end O(dependents), each plus the scheme's O(log engines): nothing depends on how many
/// tasks wait or have ended. A departure of an engine costs O(tasks bound to it).
///
/// ```
/// use pointsman_policies::{Time, schemes::LeastLoad};
/// use pointsman_schedulers::task::{Action, Event, Limits, Measured, ReplyKind, TaskScheduler, TaskSpec};
///
/// let mut scheduler = TaskScheduler::new(LeastLoad::default(), Limits::default(), 1);
/// let now = Time::ZERO;
/// scheduler.handle(now, Event::Submit { id: "t", spec: Ok(TaskSpec::default()), payload: "request", bytes: 7 });
/// assert!(scheduler.poll_action().is_none()); // no engine yet
/// scheduler.handle(now, Event::EngineUp { uuid: "e", number: 0 });
/// assert!(matches!(scheduler.poll_action(), Some(Action::Dispatch { payload: "request", attempt: 1, .. })));
/// let measured = Measured::default();
/// scheduler.handle(now, Event::Result { id: "t", engine: "e", kind: ReplyKind::Ok, payload: "answer", measured });
/// assert_eq!(scheduler.poll_action(), Some(Action::Reply { id: "t".into(), payload: "answer" }));
/// ```
pub struct TaskScheduler<S, P> {
    pub(super) limits: Limits,
    pub(super) placement: Placement<S>,
    pub(super) order: Box<dyn Order>,
    pub(super) order_needs: Needs,
    /// Of all policies together.
    pub(super) needs: Needs,
    pub(super) admission: Box<dyn Admission>,
    pub(super) admission_needs: Needs,
    pub(super) rebalance: Box<dyn Rebalance>,
    pub(super) rebalance_needs: Needs,
    /// It looks at tasks in flight at all.
    pub(super) watches: bool,
    /// Tasks in flight that the rebalance policy wants to look at: when, and which attempt.
    pub(super) lookouts: BTreeSet<(Time, TaskKey, u32)>,
    /// What is still in flight of tasks that were answered elsewhere or taken back.
    pub(super) ghosts: Ghosts,
    pub(super) growth: Growth,
    pub(super) decisions: DecisionLog,
    /// A task's `follow` is a wish, because the scheme says so.
    pub(super) soft_follow: bool,
    pub(super) paused: bool,
    pub(super) engines: KnownEngines,
    /// Boxed: they are large, and come and go.
    pub(super) tasks: SlotMap<TaskKey, Box<Task<P>>>,
    /// Live tasks by id; the ids themselves are in `tasks`.
    pub(super) by_id: Ids,
    pub(super) hasher: FixedState,
    /// What became of every task that has ended.
    pub(super) ledger: Ledger,
    pub(super) next_seq: u64,
    /// How many tasks have ended.
    pub(super) ends: u64,
    /// How many tasks lack nothing but an engine.
    pub(super) waiting: usize,
    pub(super) queued_bytes: usize,
    /// Ready tasks that may run anywhere.
    pub(super) ready: Queue,
    /// Lanes that stand further ahead than queues may think.
    pub(super) falls: Falls,
    /// Ready tasks that may run anywhere but where they were turned away, in the order in which that happened.
    pub(super) turned_away: BTreeMap<u64, TaskKey>,
    pub(super) next_turn: u64,
    /// The longest blacklist that a task in `turned_away` may have.
    pub(super) longest_blacklist: usize,
    pub(super) deadlines: BTreeSet<(Time, TaskKey)>,
    pub(super) actions: VecDeque<Action<P>>,
    pub(super) counters: Counters,
    /// Tasks that the scheme has put off, a few at most, each until something happens or a time.
    pub(super) set_aside: Vec<(TaskKey, Option<Time>)>,
    /// Work of the event being handled, kept for its allocations.
    pub(super) turn: Turn,
}

/// What the event being handled has set in motion.
#[derive(Debug, Default)]
pub(super) struct Turn {
    /// Engines that have room now, or that a task was parked on while they had.
    pub(super) opened: SmallVec<[EngineId; 4]>,
    /// Tasks that came into the log of those turned away.
    pub(super) released: BTreeSet<(Standing, TaskKey)>,
    /// Ends of tasks that dependents have not heard of.
    pub(super) ended: VecDeque<Ended>,
}

#[derive(Debug)]
pub(super) struct Ended {
    pub(super) dependents: ThinVec<(TaskKey, Edge)>,
    pub(super) ok: bool,
    pub(super) engine: Option<EngineId>,
    /// Class of the size of its result.
    pub(super) size: u8,
}

impl<S: Scheme, P: Clone> TaskScheduler<S, P> {
    /// An empty scheduler: first in, first out, with the same limit on every engine, until told otherwise. All randomness follows from `seed`.
    pub fn new(scheme: S, limits: Limits, seed: u64) -> Self {
        let scheme_needs = scheme.needs();
        TaskScheduler {
            limits,
            soft_follow: scheme_needs.contains(Needs::SOFT_FOLLOW),
            placement: Placement::new(scheme, seed),
            order: Box::new(Fifo),
            order_needs: Needs::empty(),
            needs: scheme_needs,
            admission: Box::new(Fixed::new(limits.hwm)),
            admission_needs: Needs::empty(),
            rebalance: Box::new(rebalance::None),
            rebalance_needs: Needs::empty(),
            watches: false,
            lookouts: BTreeSet::new(),
            ghosts: Ghosts::default(),
            growth: Growth::default(),
            decisions: DecisionLog::default(),
            paused: false,
            engines: KnownEngines::default(),
            tasks: SlotMap::with_key(),
            by_id: Ids::default(),
            hasher: FixedState::with_seed(seed),
            ledger: Ledger::default(),
            next_seq: 0,
            ends: 0,
            waiting: 0,
            queued_bytes: 0,
            ready: Queue::default(),
            falls: Falls::default(),
            turned_away: BTreeMap::new(),
            next_turn: 0,
            longest_blacklist: 0,
            deadlines: BTreeSet::new(),
            actions: VecDeque::new(),
            counters: Counters::default(),
            set_aside: Vec::new(),
            turn: Turn::default(),
        }
    }

    /// Takes in one event.
    pub fn handle(&mut self, now: Time, event: Event<'_, P>) {
        match event {
            Event::EngineUp { uuid, number } => self.engine_up(now, uuid, number),
            Event::EngineDown { uuid } => self.engine_down(now, uuid),
            Event::EngineDraining { uuid, draining } => self.engine_draining(now, uuid, draining),
            Event::Submit { id, spec, payload, bytes } => self.submit(now, id, spec, payload, bytes),
            Event::Result { id, engine, kind, payload, measured } => self.result(now, id, engine, kind, payload, &measured),
            Event::Answer { task, attempt, kind, payload, measured } => self.answer(now, task, attempt, kind, payload, &measured),
            Event::Signal { engine, signal } => match self.engines.find(engine).and_then(|id| self.engines.up_ix(id)) {
                Some(ix) => self.placement.signal(now, ix, signal),
                None => self.reject(Reason::UnknownEngine),
            },
            Event::AbortNoted { id, engine } => self.abort_noted(now, id, engine),
            Event::SendFailed { task, attempt } => self.send_failed(now, task, attempt),
            Event::Cancel { id } => match self.find(id) {
                Some(key) if self.tasks[key].state != State::Running => {
                    self.leave_waiting(now, key);
                    self.fail(key, FailKind::Cancelled, None);
                }
                _ => self.reject(Reason::NotWaiting),
            },
        }
        self.settle(now);
    }

    /// Lets time pass: expires waiting tasks, gives up on lost engines, tries unreachable ones again, wakes the scheme.
    pub fn handle_timeout(&mut self, now: Time) {
        while let Some(&(at, key)) = self.deadlines.first()
            && at <= now
        {
            self.leave_waiting(now, key);
            self.fail(key, FailKind::TaskTimeout, None);
        }
        while let Some((at, id)) = self.engines.next_wake()
            && at <= now
        {
            match self.engines.get(id).presence {
                Presence::Dying(..) => self.bury(now, id),
                Presence::Up(_) | Presence::Gone => {
                    self.engines.get_mut(id).unreachable_until = None;
                    self.bar_or_admit(now, id);
                }
            }
        }
        self.look_out(now);
        self.placement.wake(now);
        self.settle(now);
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action<P>> {
        self.actions.pop_front()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) at the latest.
    pub fn poll_timeout(&self) -> Option<Time> {
        let engine = self.engines.next_wake().map(|(at, _)| at);
        let task = self.deadlines.first().map(|&(at, _)| at);
        let put_off = self.set_aside.iter().filter_map(|(_, until)| *until).min();
        let behind = self.growth.is_behind().then_some(Time::ZERO);
        let lookout = self.lookouts.first().map(|&(at, ..)| at);
        [task, engine, put_off, behind, lookout, self.placement.next_wake()].into_iter().flatten().min()
    }

    /// An engine's uuid.
    ///
    /// # Panics
    /// If the id is of another scheduler.
    pub fn uuid(&self, engine: EngineId) -> &str {
        &self.engines.get(engine).uuid
    }

    /// An engine's uuid, shared.
    ///
    /// # Panics
    /// If the id is of another scheduler.
    pub fn shared_uuid(&self, engine: EngineId) -> &Arc<str> {
        &self.engines.get(engine).uuid
    }

    /// The engines as the scheme sees them.
    pub fn roster(&self) -> &Roster {
        self.placement.roster()
    }

    /// The scheme.
    pub fn scheme(&self) -> &S {
        self.placement.scheme()
    }

    /// What has been learned of classes of tasks and of engines.
    pub fn learned(&self) -> &Learned {
        self.placement.learned()
    }

    /// Keeps the last decisions with their reasons, so many; 0 for none. `stopwatch` measures what they cost.
    pub fn log_decisions(&mut self, keep: usize, stopwatch: Option<pointsman_policies::Stopwatch>) {
        self.decisions.set(keep, stopwatch);
    }

    /// The decisions made after the one of that number, oldest first, as far as they are kept.
    pub fn decisions_since(&self, number: u64) -> impl Iterator<Item = &Decision> {
        self.decisions.since(number)
    }

    /// What it has done so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// How often the scheme answered with an engine that it must not use.
    pub fn scheme_faults(&self) -> u64 {
        self.placement.faults()
    }

    /// Tasks that have not ended.
    pub fn live_tasks(&self) -> usize {
        self.tasks.len()
    }

    /// The live task of an id.
    pub fn task(&self, id: &str) -> Option<TaskKey> {
        self.find(id)
    }

    /// The id of a live task.
    pub fn task_id(&self, task: TaskKey) -> Option<&str> {
        self.tasks.get(task).map(|task| &*task.id)
    }

    /// What is known of ended tasks.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    pub(super) fn find(&self, id: &str) -> Option<TaskKey> {
        self.find_hashed(self.hash(id), id)
    }

    pub(super) fn find_hashed(&self, hash: u64, id: &str) -> Option<TaskKey> {
        self.by_id.find(hash, |key| &*self.tasks[key].id == id)
    }

    pub(super) fn hash(&self, id: &str) -> u64 {
        use std::hash::{BuildHasher, Hasher};
        let mut hasher = self.hasher.build_hasher();
        hasher.write(id.as_bytes());
        hasher.finish()
    }

    pub(super) fn reject(&mut self, reason: Reason) {
        match reason {
            Reason::AlreadyAnswered => self.counters.late += 1,
            _ => self.counters.rejected += 1,
        }
        self.actions.push_back(Action::Reject { reason });
    }

    /// Gives up on a lost engine: what still ran there has failed, and its place in the roster is free.
    pub(super) fn bury(&mut self, now: Time, id: EngineId) {
        let Presence::Dying(ix, _) = self.engines.get(id).presence else { return };
        let mut running = self.engines.get(id).running.clone();
        running.sort_unstable_by_key(|&key| self.tasks[key].seq); // the oldest goes back first
        self.release_ghosts_of(now, id);
        for key in running {
            self.end_run(now, key, id, pointsman_policies::Ending::Lost, &Measured::default());
            if self.tasks[key].runs.is_empty() {
                self.tasks[key].got_there();
                self.attempt_failed(now, key, Failure { engine: id, reply: None });
            }
        }
        self.placement.leave(now, ix);
        self.admission.on_leave(&AdmissionCx::new(now, self.placement.roster()), ix);
        self.engines.set_presence(id, Presence::Gone);
        let engine = self.engines.get_mut(id);
        engine.running = SmallVec::new();
        engine.sent = VecDeque::new();
        engine.parked = None;
    }

    fn engine_up(&mut self, now: Time, uuid: &str, number: u64) {
        let id = self.engines.find_or_add(uuid);
        match self.engines.get(id).presence {
            Presence::Up(_) => return self.reject(Reason::EngineAlreadyUp),
            Presence::Dying(..) => self.bury(now, id), // it is another life: what the former ran is lost
            Presence::Gone => {}
        }
        let admission = &mut self.admission;
        let joining = Joining::new(0).named(uuid, number);
        let ix = self.placement.join_limited(now, joining, |cx, engine| admission.on_join(cx, engine));
        self.engines.took_slot(id, ix);
        let engine = self.engines.get_mut(id);
        engine.cursor = 0;
        engine.draining = false;
        engine.unreachable_until = None;
        engine.parked = None;
        self.engines.set_presence(id, Presence::Up(ix));
        // Tasks that name it, or follow what ran on it in a former life, may use it again.
        for key in self.bound_tasks(id) {
            if self.tasks[key].state == State::Parked && self.tasks[key].allowed(self.soft_follow).contains(&id) {
                self.park_on(key, id);
            }
        }
        self.turn.opened.push(id);
    }

    fn engine_down(&mut self, now: Time, uuid: &str) {
        let Some((id, ix)) = self.engines.find(uuid).and_then(|id| Some((id, self.engines.up_ix(id)?))) else {
            return self.reject(Reason::UnknownEngine);
        };
        self.placement.set_barred(now, ix, true);
        self.engines.get_mut(id).unreachable_until = None;
        self.engines.set_presence(id, Presence::Dying(ix, now + self.limits.grace));
        if self.limits.grace.is_zero() {
            self.bury(now, id);
        }
        self.bury_if_idle(now, id);
        for key in self.bound_tasks(id) {
            self.end_if_hopeless(now, key);
        }
        // A free task is lost only if every engine left has turned it away, which takes a blacklist as long as the roster.
        if self.longest_blacklist >= self.engines.up {
            let keys: Vec<TaskKey> = self.turned_away.values().copied().collect();
            self.longest_blacklist = keys.iter().map(|&key| self.tasks[key].rest.blacklist.len()).max().unwrap_or(0);
            for key in keys {
                self.end_if_hopeless(now, key);
            }
        }
    }

    fn engine_draining(&mut self, now: Time, uuid: &str, draining: bool) {
        match self.engines.find(uuid).filter(|&id| self.engines.is_up(id)) {
            Some(id) => {
                self.engines.get_mut(id).draining = draining;
                self.bar_or_admit(now, id);
            }
            None => self.reject(Reason::UnknownEngine),
        }
    }

    /// Opens or closes an engine that is up, after draining or reachability has changed.
    pub(super) fn bar_or_admit(&mut self, now: Time, id: EngineId) {
        self.engines.note_wake(id);
        if let Some(ix) = self.engines.up_ix(id) {
            let engine = self.engines.get(id);
            let barred = engine.draining || engine.unreachable_until.is_some();
            if self.placement.set_barred(now, ix, barred) {
                self.turn.opened.push(id);
            }
        }
    }

    /// Live tasks that name the engine or follow what ran on it; drops the keys of those that have ended.
    fn bound_tasks(&mut self, id: EngineId) -> Vec<TaskKey> {
        let tasks = &self.tasks;
        let engine = self.engines.get_mut(id);
        engine.bound.retain(|&key| tasks.contains_key(key));
        engine.bound_swept = engine.bound.len();
        engine.bound.clone()
    }

    /// Notes that a task names an engine or follows what ran there.
    pub(super) fn bind(&mut self, key: TaskKey, id: EngineId) {
        let tasks = &self.tasks;
        let engine = self.engines.get_mut(id);
        engine.bound.push(key);
        // Swept when it has doubled: O(1) amortised, and never more than half dead plus a little.
        if engine.bound.len() > 2 * engine.bound_swept + 64 {
            engine.bound.retain(|&key| tasks.contains_key(key));
            engine.bound_swept = engine.bound.len();
        }
    }
}
