//! The turning of the crank: each happening is given to the machine that it concerns, and what that answers becomes happenings.

use std::collections::VecDeque;
use std::time::Duration;

use pointsman_policies::{Admission, Order as TaskOrder, Rebalance, Rng, Scheme, Signal, TaskFacts, Time};
use pointsman_schedulers::task::{
    Action, Counters, Dependency, Event, Limits, Measured, PolicyChange, ReplyKind, TaskScheduler, TaskSpec,
};

use super::engine::{Engine, Flight, FlightOutcome, Landed, Order, Word};
use super::heap::{Happening, Heap};
use super::{Ended, Job, Setup, Source};

/// Policies on the four axes, for one scheduler.
pub struct PolicySet<S> {
    /// Which engine takes a task.
    pub scheme: S,
    /// Which task goes next.
    pub order: Box<dyn TaskOrder>,
    /// How many an engine may have.
    pub admission: Box<dyn Admission>,
    /// Whether a task is left where it was sent.
    pub rebalance: Box<dyn Rebalance>,
}

/// What a run comes to beside its tasks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Totals {
    /// Tasks that ended.
    pub ended: u64,
    /// Those of them that failed.
    pub failed: u64,
    /// Tasks that nothing would ever have ended.
    pub stuck: u64,
    /// When the last thing happened, in nanoseconds.
    pub end_ns: u64,
    /// How long each engine was at work, in nanoseconds.
    pub busy_ns: Vec<u64>,
    /// Work for nothing: lost with its engine, failed, or answered elsewhere.
    pub wasted_ns: u64,
    /// Happenings: submissions, ends of runs, messages that took time, and so on.
    pub events: u64,
    /// What the schedulers have counted, together.
    pub counters: Counters,
    /// The most tasks that were in the system at once.
    pub most_live: usize,
}

/// A task in the system: what every task needs, in one line of a processor's cache.
#[derive(Clone, Debug, Default)]
struct Slot {
    number: u64,
    at_ns: u64,
    work_ns: u64,
    started_ns: u64,
    class: u64,
    client: u32,
    dispatcher: u32,
    /// Where it ran, or [`NOWHERE`].
    engine: u32,
    ok: bool,
    /// Its scheduler is done with it.
    is_answered: bool,
    /// The whole of it, if it is still under way, or if it or its result has a size.
    job: Option<Box<Job>>,
}

impl Slot {
    fn result_bytes(&self) -> u64 {
        self.job.as_ref().map_or(0, |job| job.result_bytes)
    }
}

struct Dispatcher<S> {
    machine: TaskScheduler<S, u32>,
    /// The engine of each number that the machine gave.
    engine_of: Vec<u32>,
    timer_ns: Option<u64>,
}

/// The world at some moment of virtual time.
pub struct World<S> {
    setup: Setup,
    dispatchers: Vec<Dispatcher<S>>,
    engines: Vec<Engine>,
    heap: Heap,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// When the last submission of each client arrives.
    last_of_client_ns: Vec<u64>,
    now_ns: u64,
    next_number: u64,
    dealing: Rng,
    /// More is being submitted at this very moment.
    holds_back: bool,
    links: Rng,
    luck: Rng,
    totals: Totals,
    /// Tasks whose clients have their answers, and that have yet to be counted.
    answered: Vec<u32>,
    /// Policies that take over later, until they have.
    changes: Vec<Option<PolicySet<S>>>,
    /// Where each result is and how large, by the number of its job, while transfers take time.
    places: Vec<(u32, u64)>,
    id: String,
}

/// Writes the id of a job: of the shape that the scheduler's ledger keeps in four bytes.
fn spell(number: u64, id: &mut String) -> &str {
    id.clear();
    id.push_str("t_");
    id.push_str(itoa::Buffer::new().format(number));
    id
}

fn number_of(id: &str) -> u64 {
    id.strip_prefix("t_").and_then(|digits| digits.parse().ok()).unwrap_or(u64::MAX)
}

impl<S: Scheme> World<S> {
    /// A world at time 0, with policies for each of its schedulers.
    pub fn new(setup: Setup, policies: impl IntoIterator<Item = PolicySet<S>>) -> Self {
        let limits = Limits { queued_tasks: usize::MAX, queued_bytes: usize::MAX, ..Limits::default() };
        let seed = setup.seed;
        let dispatcher = |(n, set): (usize, PolicySet<S>)| {
            let mut machine = TaskScheduler::new(set.scheme, limits, Rng::stream(seed, &format!("scheduler {n}")).next_u64());
            let changes =
                [PolicyChange::Order(set.order), PolicyChange::Admission(set.admission), PolicyChange::Rebalance(set.rebalance)];
            machine.change(Time::ZERO, changes);
            Dispatcher { machine, engine_of: Vec::new(), timer_ns: None }
        };
        let mut world = World {
            dispatchers: policies.into_iter().take(setup.dispatchers.max(1)).enumerate().map(dispatcher).collect(),
            engines: Vec::new(),
            heap: Heap::default(),
            slots: Vec::new(),
            free: Vec::new(),
            last_of_client_ns: Vec::new(),
            now_ns: 0,
            next_number: 0,
            dealing: Rng::stream(seed, "dealing"),
            holds_back: false,
            links: Rng::stream(seed, "links"),
            luck: Rng::stream(seed, "luck"),
            totals: Totals::default(),
            answered: Vec::new(),
            changes: Vec::new(),
            places: Vec::new(),
            id: String::new(),
            setup,
        };
        assert!(!world.dispatchers.is_empty(), "a world needs policies for a scheduler");
        for index in 0..world.setup.engines.len() {
            let fate = Rng::stream(seed, &format!("engine {index}"));
            let model = world.setup.engines[index].clone();
            if let Some(leaves_ns) = model.leaves_ns {
                world.heap.push(leaves_ns, Happening::Leave { engine: index as u32 });
            }
            if model.joins_ns > 0 {
                world.heap.push(model.joins_ns, Happening::Birth { engine: index as u32 });
            }
            world.engines.push(Engine::new(index, model, fate));
            if world.engines[index].is_alive {
                world.announce(index);
                world.foresee_death(index);
            }
            world.foresee_slowdown(index);
        }
        if let Some(every_s) = world.setup.report_every_s {
            // They do not speak in step.
            let mut phases = Rng::stream(seed, "reports");
            for index in 0..world.engines.len() {
                world.heap.push(to_ns(every_s * phases.unit()), Happening::Report { engine: index as u32 });
            }
        }
        world
    }

    /// Lets other policies take over the first scheduler at a moment, in nanoseconds.
    pub fn change_at(&mut self, at_ns: u64, policies: PolicySet<S>) {
        self.heap.push(at_ns, Happening::Change { at: self.changes.len() as u32 });
        self.changes.push(Some(policies));
    }

    /// Lets everything happen until the source has no more jobs and every task has ended. `watch` sees each end.
    pub fn run(mut self, source: &mut impl Source, mut watch: impl FnMut(&Ended)) -> Totals {
        loop {
            let happening = self.heap.next_at();
            match source.next_at() {
                Some(at) if happening.is_none_or(|other| at <= other) => {
                    self.now_ns = self.now_ns.max(at);
                    let job = source.take();
                    // What is submitted at once is known as a whole before any of it is sent.
                    let more = source.next_at() == Some(at);
                    if more && !self.holds_back {
                        self.hold_back(true);
                    }
                    self.arrive(job);
                    if !more && self.holds_back {
                        self.hold_back(false);
                    }
                }
                None if self.slots.len() == self.free.len() || self.heap.is_idle() => break,
                _ => match self.heap.pop() {
                    Some((at, what)) => {
                        self.now_ns = at;
                        self.happen(what);
                    }
                    None => break,
                },
            }
            self.totals.events += 1;
            if !self.answered.is_empty() {
                let mut answered = std::mem::take(&mut self.answered);
                answered.drain(..).for_each(|slot| self.end(slot, source, &mut watch));
                self.answered = answered;
            }
        }
        self.totals.stuck = (self.slots.len() - self.free.len()) as u64;
        self.totals.end_ns = self.now_ns;
        self.totals.busy_ns = self.engines.iter().map(|engine| engine.busy_ns).collect();
        for dispatcher in &self.dispatchers {
            let Counters { accepted, dispatched, replied, failed, retried, unmet, hedged, recalled, late, rejected } =
                dispatcher.machine.counters();
            let all = &mut self.totals.counters;
            all.accepted += accepted;
            all.dispatched += dispatched;
            all.replied += replied;
            all.failed += failed;
            all.retried += retried;
            all.unmet += unmet;
            all.hedged += hedged;
            all.recalled += recalled;
            all.late += late;
            all.rejected += rejected;
        }
        self.totals
    }

    fn now(&self) -> Time {
        Time::from_ns(self.now_ns)
    }
}

/// What happens to tasks.
impl<S: Scheme> World<S> {
    /// Lets schedulers take tasks without sending any, or lets go of them.
    fn hold_back(&mut self, hold: bool) {
        self.holds_back = hold;
        let now = self.now();
        for at in 0..self.dispatchers.len() {
            let machine = &mut self.dispatchers[at].machine;
            // What a scheduler still has to think about a graph it thinks first.
            for _ in 0..MOST_THOUGHTS {
                if hold || machine.poll_timeout().is_none_or(|due| due > now) {
                    break;
                }
                machine.handle_timeout(now);
            }
            machine.set_paused(now, hold);
            self.act(at);
        }
    }

    /// A client submits a job.
    fn arrive(&mut self, job: Job) {
        let number = self.next_number;
        self.next_number += 1;
        // A client speaks to one scheduler, as its tasks may wait for each other; without clients they are dealt out at random:
        // in turn, schedulers that go through the engines would do so in step.
        let dispatcher = match self.dispatchers.len() {
            1 => 0,
            count if job.client > 0 => job.client as usize % count,
            count => self.dealing.below(count),
        };
        let slot = Slot {
            number,
            at_ns: job.at_ns,
            work_ns: job.work_ns,
            started_ns: 0,
            class: job.class,
            client: job.client,
            dispatcher: dispatcher as u32,
            engine: NOWHERE,
            ok: false,
            is_answered: false,
            job: None,
        };
        let at = match self.free.pop() {
            Some(at) => {
                self.slots[at as usize] = slot;
                at
            }
            None => {
                self.slots.push(slot);
                (self.slots.len() - 1) as u32
            }
        };
        self.totals.most_live = self.totals.most_live.max(self.slots.len() - self.free.len());
        if self.setup.client_link.is_instant() {
            self.submit(at, job);
        } else {
            let client = job.client as usize;
            if self.last_of_client_ns.len() <= client {
                self.last_of_client_ns.resize(client + 1, 0);
            }
            let arrives = (self.now_ns + self.setup.client_link.draw_ns(&mut self.links)).max(self.last_of_client_ns[client]);
            self.last_of_client_ns[client] = arrives;
            self.slots[at as usize].job = Some(Box::new(job));
            self.heap.push(arrives, Happening::Submitted { slot: at });
        }
    }

    fn submit(&mut self, at: u32, job: Job) {
        let mut facts = TaskFacts::default();
        (facts.class, facts.client, facts.hints) = (job.class, u64::from(job.client) + 1, job.hints);
        let mut spec = TaskSpec { retries: self.setup.retries, facts, ..TaskSpec::default() };
        if !job.after.is_empty() {
            spec.after = Dependency::on(job.after.iter().map(|number| format!("t_{number}")));
        }
        if job.result_bytes > 0 || self.setup.bandwidth_bytes_per_s.is_some() {
            self.slots[at as usize].job = Some(Box::new(job));
        }
        let (now, slot) = (self.now(), &self.slots[at as usize]);
        let dispatcher = slot.dispatcher as usize;
        let id = spell(slot.number, &mut self.id);
        self.dispatchers[dispatcher].machine.handle(now, Event::Submit { id, spec: Ok(spec), payload: at, bytes: 0 });
        self.act(dispatcher);
    }

    /// Does what a scheduler says.
    fn act(&mut self, dispatcher: usize) {
        while let Some(action) = self.dispatchers[dispatcher].machine.poll_action() {
            match action {
                Action::Dispatch { engine, payload, task, attempt } => {
                    let Slot { number, work_ns, .. } = self.slots[payload as usize];
                    let flight = Flight {
                        slot: payload,
                        dispatcher: dispatcher as u32,
                        number,
                        task,
                        attempt,
                        outcome: FlightOutcome::Ok,
                        work_ns,
                        fetch_ns: 0,
                    };
                    let index = self.dispatchers[dispatcher].engine_of[engine.number() as usize];
                    self.tell_engine(index, Order::Run(flight));
                }
                Action::Abort { engine, id } => {
                    let order = Order::Drop { number: number_of(&id), dispatcher: dispatcher as u32 };
                    self.tell_engine(self.dispatchers[dispatcher].engine_of[engine.number() as usize], order);
                }
                Action::Reply { payload, .. } => self.answer(payload),
                Action::Fail { payload, .. } => {
                    self.slots[payload as usize].ok = false;
                    self.answer(payload);
                }
                Action::PassOn { .. } | Action::Reject { .. } => {}
            }
        }
        let dispatcher_state = &mut self.dispatchers[dispatcher];
        if let Some(at) = dispatcher_state.machine.poll_timeout() {
            let at_ns = at.as_ns().max(self.now_ns);
            if dispatcher_state.timer_ns.is_none_or(|timer| at_ns < timer) {
                dispatcher_state.timer_ns = Some(at_ns);
                self.heap.push(at_ns, Happening::Timer { dispatcher: dispatcher as u32 });
            }
        }
    }

    /// A scheduler has answered a task; so does its client know, now or in a while.
    fn answer(&mut self, at: u32) {
        self.slots[at as usize].is_answered = true;
        if self.setup.client_link.is_instant() {
            self.answered.push(at);
        } else {
            let arrives = self.now_ns + self.setup.client_link.draw_ns(&mut self.links);
            self.heap.push(arrives, Happening::Answered { slot: at });
        }
    }

    fn end(&mut self, at: u32, source: &mut impl Source, watch: &mut impl FnMut(&Ended)) {
        let slot = &self.slots[at as usize];
        let ended = Ended {
            number: slot.number,
            class: slot.class,
            client: slot.client,
            at_ns: slot.at_ns,
            started_ns: slot.started_ns,
            ended_ns: self.now_ns,
            work_ns: slot.work_ns,
            engine: (slot.engine != NOWHERE).then_some(slot.engine),
            ok: slot.ok,
        };
        self.slots[at as usize].number = NOBODY;
        self.free.push(at);
        self.totals.ended += 1;
        self.totals.failed += u64::from(!ended.ok);
        source.ended(&ended);
        watch(&ended);
    }
}

/// What happens to engines.
impl<S: Scheme> World<S> {
    /// Schedulers hear of an engine.
    fn announce(&mut self, index: usize) {
        let (now, uuid) = (self.now(), self.engines[index].rest.uuid.clone());
        for at in 0..self.dispatchers.len() {
            // A machine numbers engines in the order in which it hears of them; each life has a name of its own.
            self.dispatchers[at].engine_of.push(index as u32);
            self.dispatchers[at].machine.handle(now, Event::EngineUp { uuid: &uuid, number: index as u64 });
            self.act(at);
        }
    }

    fn tell_engine(&mut self, index: u32, order: Order) {
        if self.setup.engine_link.is_instant() {
            return self.obey(index as usize, order);
        }
        let delay_ns = self.setup.engine_link.draw_ns(&mut self.links);
        let engine = &mut self.engines[index as usize].rest;
        let arrives = (self.now_ns + delay_ns).max(engine.last_order_ns);
        engine.last_order_ns = arrives;
        engine.orders.push_back((arrives, order));
        self.heap.push(arrives, Happening::AtEngine { engine: index });
    }

    fn obey(&mut self, index: usize, order: Order) {
        let engine = &mut self.engines[index];
        if !engine.is_alive {
            return; // its scheduler will hear of that
        }
        match order {
            Order::Run(mut flight) => {
                // Work is what an engine of speed 1 does in that time; a transfer takes as long on any.
                flight.fetch_ns = self.fetch_ns(index, flight.slot);
                self.engines[index].queue.push_back(flight);
                self.begin(index);
            }
            Order::Drop { number, dispatcher } => {
                engine.drop_queued(number, dispatcher);
                self.tell_scheduler(index, Word::Noted { number, dispatcher });
            }
        }
    }

    /// How long an engine takes to fetch what a task needs and is not there.
    fn fetch_ns(&self, index: usize, slot: u32) -> u64 {
        let Some(bytes_per_s) = self.setup.bandwidth_bytes_per_s else { return 0 };
        let elsewhere = |number: &u64| {
            let (engine, bytes) = self.places.get(*number as usize).copied().unwrap_or_default();
            if engine == index as u32 { 0 } else { bytes }
        };
        let inputs = self.slots[slot as usize].job.iter().flat_map(|job| &job.after);
        let bytes: u64 = inputs.map(elsewhere).sum();
        to_ns(bytes as f64 / bytes_per_s)
    }

    fn begin(&mut self, index: usize) {
        if let Some(at_ns) = self.engines[index].begin(self.now_ns) {
            let epoch = self.engines[index].epoch;
            self.heap.push(at_ns, Happening::Done { engine: index as u32, epoch });
        }
    }

    fn done(&mut self, index: usize) {
        let Some(mut landed) = self.engines[index].finish(self.now_ns) else { return };
        let outcome = &mut landed.flight.outcome;
        if *outcome == FlightOutcome::Ok && self.setup.failing > 0.0 && self.luck.unit() < self.setup.failing {
            *outcome = FlightOutcome::Failed;
            self.totals.wasted_ns += landed.ran_ns;
        }
        self.begin(index);
        self.tell_scheduler(index, Word::Answer(landed));
    }

    fn tell_scheduler(&mut self, index: usize, word: Word) {
        if self.setup.engine_link.is_instant() {
            return self.hear(index, word);
        }
        let delay_ns = self.setup.engine_link.draw_ns(&mut self.links);
        let engine = &mut self.engines[index].rest;
        let arrives = (self.now_ns + delay_ns).max(engine.last_word_ns);
        engine.last_word_ns = arrives;
        engine.words.push_back((arrives, word));
        let engine = index as u32;
        let is_report = matches!(word, Word::Load { .. });
        self.heap.push(arrives, if is_report { Happening::Reported { engine } } else { Happening::AtScheduler { engine } });
    }

    fn hear(&mut self, index: usize, word: Word) {
        let now = self.now();
        let dispatcher = match word {
            Word::Noted { number, dispatcher } => {
                let (id, engine) = (spell(number, &mut self.id), &self.engines[index].rest.uuid);
                self.dispatchers[dispatcher as usize].machine.handle(now, Event::AbortNoted { id, engine });
                dispatcher
            }
            Word::Load { life, .. } if life != self.engines[index].rest.life => return,
            Word::Load { signal, dispatcher, .. } => {
                let engine = &self.engines[index].rest.uuid;
                self.dispatchers[dispatcher as usize].machine.handle(now, Event::Signal { engine, signal });
                dispatcher
            }
            Word::Answer(Landed { flight, started_ns, ran_ns }) => {
                let kind = match flight.outcome {
                    FlightOutcome::Ok => ReplyKind::Ok,
                    FlightOutcome::Failed => ReplyKind::Failed,
                    FlightOutcome::Aborted => ReplyKind::Aborted,
                };
                let slot = &mut self.slots[flight.slot as usize];
                let bytes = slot.result_bytes();
                if slot.number == flight.number && !slot.is_answered {
                    (slot.started_ns, slot.engine, slot.ok) = (started_ns, index as u32, kind == ReplyKind::Ok);
                    if self.setup.bandwidth_bytes_per_s.is_some() {
                        let at = flight.number as usize;
                        if self.places.len() <= at {
                            self.places.resize(at + 1, (u32::MAX, 0));
                        }
                        self.places[at] = (index as u32, bytes);
                    }
                } else {
                    self.totals.wasted_ns += ran_ns; // it was answered elsewhere
                }
                let measured = Measured { run: Some(Duration::from_nanos(ran_ns)), bytes };
                let Flight { task, attempt, slot: payload, .. } = flight;
                let answer = Event::Answer { task, attempt, kind, payload, measured };
                self.dispatchers[flight.dispatcher as usize].machine.handle(now, answer);
                flight.dispatcher
            }
        };
        self.act(dispatcher as usize);
    }

    /// An engine tells all schedulers its load.
    fn report(&mut self, index: usize) {
        let Some(every_s) = self.setup.report_every_s else { return };
        self.heap.push(self.now_ns + to_ns(every_s).max(1), Happening::Report { engine: index as u32 });
        if self.engines[index].is_alive {
            let signal = Signal { load: self.engines[index].load(), at: self.now() };
            let life = self.engines[index].rest.life;
            for dispatcher in 0..self.dispatchers.len() as u32 {
                self.tell_scheduler(index, Word::Load { signal, dispatcher, life });
            }
        }
    }

    fn foresee_death(&mut self, index: usize) {
        let engine = &mut self.engines[index].rest;
        if let Some(failures) = &engine.model.failures {
            let at_ns = self.now_ns + to_ns(failures.lives.draw(&mut engine.fate));
            self.heap.push(at_ns, Happening::Death { engine: index as u32 });
        }
    }

    fn die(&mut self, index: usize) {
        let rest = &mut self.engines[index].rest;
        let Some(failures) = &rest.model.failures else { return };
        let repair_ns = to_ns(failures.repair.draw(&mut rest.fate));
        self.totals.wasted_ns += self.engines[index].die(self.now_ns);
        let detected_ns = self.now_ns + to_ns(self.setup.detect_s);
        self.heap.push(detected_ns, Happening::Missed { engine: index as u32 });
        self.heap.push(detected_ns.max(self.now_ns + repair_ns), Happening::Birth { engine: index as u32 });
    }

    fn miss(&mut self, index: usize) {
        let (now, uuid) = (self.now(), self.engines[index].rest.uuid.clone());
        for at in 0..self.dispatchers.len() {
            self.dispatchers[at].machine.handle(now, Event::EngineDown { uuid: &uuid });
            self.act(at);
        }
    }

    /// Schedulers send an engine nothing more.
    fn leave(&mut self, index: usize) {
        let (now, uuid) = (self.now(), self.engines[index].rest.uuid.clone());
        for at in 0..self.dispatchers.len() {
            self.dispatchers[at].machine.handle(now, Event::EngineDraining { uuid: &uuid, draining: true });
            self.act(at);
        }
    }

    fn change(&mut self, at: usize) {
        let Some(PolicySet { scheme, order, admission, rebalance }) = self.changes.get_mut(at).and_then(Option::take) else {
            return;
        };
        let changes = [
            PolicyChange::Placement(scheme),
            PolicyChange::Order(order),
            PolicyChange::Admission(admission),
            PolicyChange::Rebalance(rebalance),
        ];
        let now = self.now();
        self.dispatchers[0].machine.change(now, changes);
        self.act(0);
    }

    fn foresee_slowdown(&mut self, index: usize) {
        let engine = &mut self.engines[index].rest;
        if let Some(slowdowns) = &engine.model.slowdowns {
            let length = if engine.is_slow { &slowdowns.lasts } else { &slowdowns.every };
            let at_ns = self.now_ns + to_ns(length.draw(&mut engine.fate));
            self.heap.push(at_ns, Happening::SpeedChange { engine: index as u32 });
        }
    }

    fn change_speed(&mut self, index: usize) {
        let engine = &mut self.engines[index];
        let rest = &mut *engine.rest;
        let Some(slowdowns) = &rest.model.slowdowns else { return };
        rest.is_slow = !rest.is_slow;
        // Nothing comes to a standstill: what never ends is a death.
        let factor = if rest.is_slow { slowdowns.factor.draw(&mut rest.fate).max(1e-3) } else { 1.0 };
        if let Some(at_ns) = engine.set_factor(self.now_ns, factor) {
            let epoch = engine.epoch;
            self.heap.push(at_ns, Happening::Done { engine: index as u32, epoch });
        }
        self.foresee_slowdown(index);
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Submitted { slot } => {
                if let Some(job) = self.slots[slot as usize].job.take() {
                    self.submit(slot, *job);
                }
            }
            Happening::AtEngine { engine } => {
                // What was under way to an engine that died is no longer there.
                if let Some(order) = take_due(&mut self.engines[engine as usize].rest.orders, self.now_ns) {
                    self.obey(engine as usize, order);
                }
            }
            // What arrives at the same moment arrives in the order in which it was said, so the first is the one that is meant.
            Happening::AtScheduler { engine } | Happening::Reported { engine } => {
                if let Some(word) = take_due(&mut self.engines[engine as usize].rest.words, self.now_ns) {
                    self.hear(engine as usize, word);
                }
            }
            Happening::Answered { slot } => self.answered.push(slot),
            Happening::Done { engine, epoch } => {
                if self.engines[engine as usize].epoch == epoch {
                    self.done(engine as usize);
                }
            }
            Happening::Report { engine } => self.report(engine as usize),
            Happening::SpeedChange { engine } => self.change_speed(engine as usize),
            Happening::Death { engine } => self.die(engine as usize),
            Happening::Missed { engine } => self.miss(engine as usize),
            Happening::Birth { engine } => {
                self.engines[engine as usize].be_born(engine as usize);
                self.announce(engine as usize);
                self.foresee_death(engine as usize);
            }
            Happening::Leave { engine } => self.leave(engine as usize),
            Happening::Change { at } => self.change(at as usize),
            Happening::Timer { dispatcher } => {
                let now = self.now();
                let state = &mut self.dispatchers[dispatcher as usize];
                if state.timer_ns.is_some_and(|at| at <= self.now_ns) {
                    state.timer_ns = None;
                }
                if state.machine.poll_timeout().is_some_and(|at| at <= now) {
                    state.machine.handle_timeout(now);
                }
                self.act(dispatcher as usize);
            }
        }
    }
}

/// How often a scheduler is given time to think about what was submitted at once: enough for a graph of millions of tasks, and never for ever.
const MOST_THOUGHTS: usize = 100_000;

/// No engine.
const NOWHERE: u32 = u32::MAX;

/// The number of no job: its slot is free.
const NOBODY: u64 = u64::MAX;

/// The first message under way, if it has arrived.
fn take_due<M>(under_way: &mut VecDeque<(u64, M)>, now_ns: u64) -> Option<M> {
    let is_due = under_way.front().is_some_and(|(at_ns, _)| *at_ns <= now_ns);
    if is_due { under_way.pop_front().map(|(_, message)| message) } else { None }
}

fn to_ns(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}
