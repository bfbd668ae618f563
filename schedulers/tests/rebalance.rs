//! Second copies and tasks taken back, with engines that behave as ipyparallel's do: they run what they get in order, note on a connection
//! of its own what they shall drop, and say so when its turn comes. In random lives, with delays, slow engines and deaths.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::time::Duration;

use pointsman_policies::{Hints, PolicySpec, Registry, Rng, Time, schemes::LeastLoad};
use pointsman_schedulers::task::{Action, Event, Limits, Measured, ReplyKind, TaskKey, TaskScheduler, TaskSpec};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Submit(usize),
    /// A request reaches an engine, or the wish to drop one.
    Arrive(usize, String),
    ArriveAbort(usize, String),
    /// The engine is done with what it runs.
    Done(usize, u64),
    /// An answer reaches the scheduler, or the note that something will be dropped.
    Answer(usize, String, bool, u64),
    Noted(usize, String),
    Die(usize),
}

#[derive(Default)]
struct Engine {
    queue: VecDeque<String>,
    running: Option<String>,
    dropped: BTreeSet<String>,
    slowness: u64,
    life: u64,
}

struct World {
    machine: TaskScheduler<LeastLoad, String>,
    now_ms: u64,
    agenda: BinaryHeap<Reverse<(u64, u64, What)>>,
    next: u64,
    engines: Vec<Engine>,
    rng: Rng,
    label: &'static str,
    begun: BTreeMap<String, u32>,
    ended: BTreeMap<String, u64>,
    submitted: BTreeMap<String, u64>,
    /// The last dispatch of each task to each engine; in every other life answers are told by it.
    sent: BTreeMap<(usize, String), (TaskKey, u32)>,
    tells_dispatch: bool,
}

impl World {
    fn new(seed: u64, rebalance: &str, label: &'static str, hwm: u32, slow: u64) -> World {
        let limits = Limits { hwm, grace: Duration::from_millis(300), ..Limits::default() };
        let mut machine = TaskScheduler::new(LeastLoad::default(), limits, seed);
        let spec: PolicySpec = rebalance.parse().unwrap();
        machine.set_rebalance(Time::ZERO, Registry::builtin().build_rebalance(&spec).unwrap());
        let mut world = World {
            machine,
            now_ms: 0,
            agenda: BinaryHeap::new(),
            next: 0,
            engines: vec![],
            rng: Rng::new(seed),
            label,
            begun: BTreeMap::new(),
            ended: BTreeMap::new(),
            submitted: BTreeMap::new(),
            sent: BTreeMap::new(),
            tells_dispatch: seed % 2 == 1,
        };
        for n in 0..3 {
            world.engines.push(Engine { slowness: if n == 0 { slow } else { 1 }, ..Engine::default() });
            world.machine.handle(Time::ZERO, Event::EngineUp { uuid: &format!("e{n}"), number: n });
        }
        world
    }

    fn now(&self) -> Time {
        Time::ZERO + Duration::from_millis(self.now_ms)
    }

    fn at(&mut self, after_ms: u64, what: What) {
        self.next += 1;
        self.agenda.push(Reverse((self.now_ms + after_ms, self.next, what)));
    }

    /// Connections take up to a tenth of a second, each its own time, and keep their order.
    fn delay(&mut self) -> u64 {
        1 + self.rng.below(100) as u64
    }

    fn run(&mut self) {
        loop {
            let wake = self.machine.poll_timeout().map(|at| at.as_ns().div_ceil(1_000_000).max(self.now_ms));
            let next = self.agenda.peek().map(|Reverse((at, ..))| *at);
            match (next, wake) {
                (None, None) => break,
                (Some(at), wake) if wake.is_none_or(|wake| at <= wake) => {
                    let Reverse((at, _, what)) = self.agenda.pop().unwrap();
                    self.now_ms = at;
                    self.happen(what);
                }
                (_, Some(wake)) => {
                    self.now_ms = wake;
                    self.machine.handle_timeout(self.now());
                    if self.machine.live_tasks() == 0 && self.agenda.is_empty() {
                        break;
                    }
                }
                (Some(_), None) => unreachable!(),
            }
            self.act();
            self.machine.check().unwrap();
            assert!(self.now_ms < 10_000_000, "it does not end: {} left", self.machine.live_tasks());
        }
    }

    fn act(&mut self) {
        while let Some(action) = self.machine.poll_action() {
            match action {
                Action::Dispatch { engine, payload, task, attempt } => {
                    let n: usize = self.machine.uuid(engine)[1..].parse().unwrap();
                    self.sent.insert((n, payload.clone()), (task, attempt));
                    self.at(1, What::Arrive(n, payload));
                }
                Action::Abort { engine, id } => {
                    let n: usize = self.machine.uuid(engine)[1..].parse().unwrap();
                    let delay = self.delay();
                    self.at(delay, What::ArriveAbort(n, id.into()));
                }
                Action::Reply { payload, .. } => self.end(&payload),
                Action::Fail { payload, .. } => self.end(&payload),
                Action::PassOn { payload } => panic!("{payload} is not known"),
                Action::Reject { .. } => {}
            }
        }
    }

    fn end(&mut self, id: &str) {
        assert!(self.ended.insert(id.to_owned(), self.now_ms).is_none(), "{id} ended twice");
    }

    fn start_next(&mut self, n: usize) {
        while self.engines[n].running.is_none()
            && let Some(id) = self.engines[n].queue.pop_front()
        {
            if self.engines[n].dropped.remove(&id) {
                let (delay, life) = (self.delay(), self.engines[n].life);
                self.at(delay, What::Answer(n, id, false, life));
                continue;
            }
            *self.begun.entry(id.clone()).or_default() += 1;
            let (slowness, life) = (self.engines[n].slowness, self.engines[n].life);
            let run = (20 + self.rng.below(20) as u64) * slowness;
            self.engines[n].running = Some(id);
            self.at(run, What::Done(n, life));
        }
    }

    fn happen(&mut self, what: What) {
        let now = self.now();
        match what {
            What::Submit(n) => {
                let id = format!("t_1_{n}");
                let mut spec = TaskSpec { retries: 3, ..TaskSpec::default() };
                spec.facts.class = 7;
                spec.facts.hints = Hints::parse(self.label).0;
                self.submitted.insert(id.clone(), self.now_ms);
                self.machine.handle(now, Event::Submit { id: &id, spec: Ok(spec), payload: id.clone(), bytes: 1 });
            }
            What::Arrive(n, id) => {
                self.engines[n].queue.push_back(id);
                self.start_next(n);
            }
            What::ArriveAbort(n, id) => {
                // ipyparallel's kernel notes any id, also one that has run.
                self.engines[n].dropped.insert(id.clone());
                let delay = self.delay();
                self.at(delay, What::Noted(n, id));
            }
            What::Done(n, life) if life == self.engines[n].life => {
                let id = self.engines[n].running.take().unwrap();
                let delay = self.delay();
                self.at(delay, What::Answer(n, id, true, life));
                self.start_next(n);
            }
            What::Done(..) => {}
            What::Answer(n, id, ok, life) if life == self.engines[n].life => {
                let kind = if ok { ReplyKind::Ok } else { ReplyKind::Aborted };
                let run = ok.then(|| Duration::from_millis(30 * self.engines[n].slowness));
                let measured = Measured { run, bytes: 10 };
                let (engine, payload) = (format!("e{n}"), id.clone());
                let (task, attempt) = self.sent[&(n, id.clone())];
                let event = match self.tells_dispatch {
                    true => Event::Answer { task, attempt, kind, payload, measured },
                    false => Event::Result { id: &id, engine: &engine, kind, payload, measured },
                };
                self.machine.handle(now, event);
            }
            What::Answer(..) => {}
            What::Noted(n, id) => self.machine.handle(now, Event::AbortNoted { id: &id, engine: &format!("e{n}") }),
            What::Die(n) => {
                let engine = &mut self.engines[n];
                *engine = Engine { slowness: 1, life: engine.life + 1, ..Engine::default() };
                self.machine.handle(now, Event::EngineDown { uuid: &format!("e{n}") });
                self.act();
                self.now_ms += 400;
                self.machine.handle_timeout(self.now());
                self.act();
                self.machine.handle(self.now(), Event::EngineUp { uuid: &format!("e{n}"), number: n as u64 });
            }
        }
    }

    fn play(&mut self, tasks: usize, every_ms: u64, deaths: usize) {
        for n in 0..tasks {
            self.at(n as u64 * every_ms, What::Submit(n));
        }
        for n in 0..deaths {
            let at = 100 + self.rng.below(tasks * every_ms as usize) as u64;
            self.at(at, What::Die(n % 3));
        }
        self.run();
        assert_eq!(
            self.ended.len(),
            tasks,
            "lost: {:?}",
            self.submitted.keys().filter(|id| !self.ended.contains_key(*id)).collect::<Vec<_>>()
        );
        assert!(
            self.machine.roster().live_engines().all(|engine| self.machine.roster().load(engine) == 0),
            "places are given back"
        );
    }
}

#[test]
fn a_copy_of_a_straggler_wins_and_the_straggler_is_cancelled() {
    let (mut without, mut with) = (0, 0);
    for seed in 0..40 {
        let longest = |rebalance: &str| {
            let mut world = World::new(seed, rebalance, "#hedge", 1, 100);
            world.play(60, 120, 0);
            assert!(world.begun.values().all(|&begun| begun <= 2));
            (world.ended.iter().map(|(id, at)| at - world.submitted[id]).max().unwrap(), world.machine.counters().hedged)
        };
        without += longest("none").0;
        let (longest, hedged) = longest("hedge[min_ms=100]");
        with += longest;
        assert!(hedged > 0);
    }
    assert!(with * 3 < without, "the longest wait, of 40 lives: {with} ms with copies, {without} without");
}

#[test]
fn nobody_gets_a_copy_who_has_not_asked_for_it() {
    let mut world = World::new(1, "hedge[min_ms=1]", "", 1, 50);
    world.play(60, 40, 0);
    assert_eq!((world.machine.counters().hedged, world.begun.values().max()), (0, Some(&1)));
}

#[test]
fn what_waits_on_an_engine_that_turned_slow_is_placed_anew_and_nothing_begins_twice() {
    let (mut without, mut with) = (0, 0);
    for seed in 0..40 {
        let longest = |rebalance: &str| {
            let mut world = World::new(seed, rebalance, "", 6, 100);
            world.play(120, 20, 0);
            assert!(world.begun.values().all(|&begun| begun == 1), "seed {seed}: {:?}", world.begun);
            let ended = world.ended.values().max().unwrap() - 2400;
            (ended, world.machine.counters().recalled)
        };
        without += longest("none").0;
        let (longest, recalled) = longest("replace[min_ms=200]");
        with += longest;
        assert!(recalled > 0, "seed {seed}");
    }
    assert!(with * 3 < without * 2, "until all had ended, of 40 lives: {with} ms with, {without} without");
}

#[test]
fn engines_may_die_at_any_moment_of_it() {
    for seed in 0..300 {
        let (rebalance, label, hwm) =
            [("hedge[min_ms=50]", "#hedge", 2), ("replace[min_ms=50]", "", 5), ("replace[min_ms=50]", "", 0)][seed as usize % 3];
        World::new(seed, rebalance, label, hwm, 30).play(80, 15, 4);
    }
}
