//! Random lives for a scheduler: engines come and go, clients submit sense and nonsense, engines answer what they were asked and what
//! they were not. Each step is told to the model too, and their deeds compared.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use pointsman_policies::admission::Fixed;
use pointsman_policies::{Axis, Hints, Needs, PolicySpec, Registry, Rng, Scheme, Signal, Time};
use pointsman_schedulers::task::{Action, Dependency, Event, Limits, Measured, ReplyKind, TaskKey, TaskScheduler, TaskSpec};

use super::naive::{Deed, Naive};

const UUIDS: [&str; 5] = ["e0", "e1", "e2", "e3", "e4"];

/// Requests carry the id of their task; answers a number of their own.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Payload {
    Request(String),
    Answer(u64),
}

pub(crate) struct World {
    rng: Rng,
    now: Time,
    machine: TaskScheduler<Box<dyn Scheme>, Payload>,
    model: Option<Naive>,
    /// Tasks that were accepted and have not ended, and where each was sent last.
    open: BTreeMap<String, Option<(String, TaskKey, u32)>>,
    ended: BTreeSet<String>,
    /// Every dispatch of each task that there ever was.
    dispatches: BTreeMap<String, Vec<(String, TaskKey, u32)>>,
    /// Which task each answer belongs to.
    answers: Vec<String>,
    submitted: u64,
    story: String,
    scheme: &'static str,
    order: &'static str,
    hwm: u32,
    paused: bool,
    up: BTreeSet<&'static str>,
}

impl World {
    pub(crate) fn new(seed: u64, scheme: Box<dyn Scheme>, name: &str, with_model: bool) -> World {
        let mut rng = Rng::stream(seed, "world");
        let limits = Limits {
            hwm: rng.below(4) as u32,
            grace: Duration::from_millis([0, 50, 1000][rng.below(3)]),
            reconnect: Duration::from_millis(20),
            ..Limits::default()
        };
        let name = if name == "lru" { "lru" } else { "leastload" };
        World {
            rng,
            now: Time::ZERO,
            machine: TaskScheduler::new(scheme, limits, seed),
            model: with_model.then(|| Naive::new(name, limits)),
            open: BTreeMap::new(),
            ended: BTreeSet::new(),
            dispatches: BTreeMap::new(),
            answers: Vec::new(),
            submitted: 0,
            story: format!("{limits:?}\n"),
            scheme: name,
            order: "fifo",
            hwm: limits.hwm,
            paused: false,
            up: BTreeSet::new(),
        }
    }

    /// Everything that happened, as text.
    pub(crate) fn story(&self) -> String {
        self.story.clone()
    }

    pub(crate) fn step(&mut self) -> Result<(), String> {
        self.now = self.now + Duration::from_millis(self.rng.below(40) as u64);
        // Time passes before anything else can happen, as the driver promises.
        if self.machine.poll_timeout().is_some_and(|at| at <= self.now) {
            self.tick()?;
        }
        match self.rng.below(23) {
            0 | 1 => self.engine_up(),
            2 => self.engine_down(),
            3 => self.drain(),
            4..=9 => self.submit(),
            10..=16 => self.answer(),
            17 => self.send_failed(),
            18 => self.cancel(),
            19 => self.swap(),
            21 => self.signal(),
            20 => {
                let paused = self.rng.below(4) == 0;
                self.pause(paused)
            }
            _ => self.tick(),
        }
    }

    /// The healed phase: engines stay and answer everything, and every task that is not out of reach must end.
    pub(crate) fn finish(&mut self) -> Result<(), String> {
        self.pause(false)?;
        for uuid in UUIDS {
            self.drain_one(uuid, false)?;
            self.up_one(uuid)?;
        }
        for _ in 0..20_000 {
            let running = self.open.iter().find_map(|(id, sent)| sent.clone().map(|sent| (id.clone(), sent.0)));
            match running {
                Some((id, engine)) => self.answer_one(&id, &engine, ReplyKind::Ok)?,
                None if self.machine.poll_timeout().is_some() => {
                    self.now = self.machine.poll_timeout().unwrap().max(self.now);
                    self.tick()?;
                }
                None => break,
            }
        }
        // What is left has been turned away by every engine there is, which is a legal reason to wait.
        let stuck: Vec<_> = self.open.keys().collect();
        if self.machine.live_tasks() != stuck.len() {
            return Err(format!("{} live tasks, {} open", self.machine.live_tasks(), stuck.len()));
        }
        let mut uuids: Vec<String> = (0..60).map(|n| format!("fresh{n}")).collect();
        for uuid in uuids.drain(..) {
            self.machine.handle(self.now, Event::EngineUp { uuid: &uuid, number: 0 });
            if let Some(model) = &mut self.model {
                model.engine_up(self.now, &uuid);
            }
            self.settle(format!("up {uuid}"))?;
            while let Some((id, engine)) = self.open.iter().find_map(|(id, sent)| Some((id.clone(), sent.clone()?.0))) {
                self.answer_one(&id, &engine, ReplyKind::Ok)?;
            }
        }
        if self.open.is_empty() { Ok(()) } else { Err(format!("never ended: {:?}", self.open)) }
    }

    fn uuid(&mut self) -> &'static str {
        UUIDS[self.rng.below(UUIDS.len())]
    }

    fn engine_up(&mut self) -> Result<(), String> {
        let uuid = self.uuid();
        self.up_one(uuid)
    }

    fn up_one(&mut self, uuid: &'static str) -> Result<(), String> {
        self.up.insert(uuid);
        self.machine.handle(self.now, Event::EngineUp { uuid, number: 0 });
        if let Some(model) = &mut self.model {
            model.engine_up(self.now, uuid);
        }
        self.settle(format!("up {uuid}"))
    }

    fn engine_down(&mut self) -> Result<(), String> {
        let uuid = self.uuid();
        self.up.remove(uuid);
        self.machine.handle(self.now, Event::EngineDown { uuid });
        if let Some(model) = &mut self.model {
            model.engine_down(self.now, uuid);
        }
        self.settle(format!("down {uuid}"))
    }

    fn drain(&mut self) -> Result<(), String> {
        let (uuid, draining) = (self.uuid(), self.rng.below(2) == 0);
        self.drain_one(uuid, draining)
    }

    fn drain_one(&mut self, uuid: &str, draining: bool) -> Result<(), String> {
        self.machine.handle(self.now, Event::EngineDraining { uuid, draining });
        if let Some(model) = &mut self.model {
            model.drain(uuid, draining);
        }
        self.settle(format!("drain {uuid} {draining}"))
    }

    fn some_ids(&mut self) -> Vec<Box<str>> {
        let count = [0, 0, 0, 1, 1, 2, 3][self.rng.below(7)];
        let mut ids = Vec::new();
        for _ in 0..count {
            // Mostly recent tasks; now and then itself, or one that was never submitted.
            let back = self.rng.below(8) as u64;
            let number = if self.rng.below(40) == 0 { self.submitted + back } else { self.submitted.saturating_sub(1 + back) };
            ids.push(format!("s_1_{number}").into());
        }
        ids
    }

    fn dependency(&mut self) -> Dependency {
        let ids = self.some_ids();
        let on = Dependency::on(ids);
        if self.rng.below(3) > 0 {
            return on;
        }
        Dependency { all: self.rng.below(2) == 0, success: self.rng.below(4) > 0, failure: self.rng.below(2) == 0, ..on }
    }

    fn submit(&mut self) -> Result<(), String> {
        let id = if self.rng.below(30) == 0 { "s_1_0".to_owned() } else { format!("s_1_{}", self.submitted) };
        let invalid = self.rng.below(50) == 0;
        let spec = if invalid {
            TaskSpec::parse(b"{\"after\": 7}")
        } else {
            let mut spec = TaskSpec { after: self.dependency(), ..TaskSpec::default() };
            if self.rng.below(3) == 0 {
                spec.follow = self.dependency();
            }
            if self.rng.below(4) == 0 {
                let count = 1 + self.rng.below(3);
                spec.targets = (0..count).map(|_| if self.rng.below(12) == 0 { "ghost" } else { self.uuid() }.into()).collect();
            }
            if self.rng.below(4) == 0 {
                spec.timeout = Some(Duration::from_millis(1 + self.rng.below(300) as u64));
            }
            spec.retries = [0, 0, 1, 2, 7][self.rng.below(5)];
            let (n, m) = (self.rng.below(3), self.rng.below(4));
            let label = ["", "#prio=1 #tenant=a", "#prio=-2 #cost=3 #tenant=b #weight=2", "#cost=0.5 #deadline=0.1"][m];
            spec.facts.hints = Hints::parse(label).0;
            spec.facts.class = n as u64;
            spec.facts.client = 1 + n as u64;
            Ok(spec)
        };
        self.submitted += 1;
        let known = self.open.contains_key(&id) || self.ended.contains(&id);
        let what = format!("submit {id} {spec:?}");
        if let Some(model) = &mut self.model {
            model.submit(self.now, &id, spec.clone().ok());
        }
        if !known {
            self.open.insert(id.clone(), None);
        }
        let payload = Payload::Request(id.clone());
        self.machine.handle(self.now, Event::Submit { id: &id, spec, payload, bytes: 10 });
        self.settle(what)
    }

    fn answer(&mut self) -> Result<(), String> {
        let kind = [ReplyKind::Ok, ReplyKind::Ok, ReplyKind::Failed, ReplyKind::Unmet, ReplyKind::Failed, ReplyKind::Aborted]
            [self.rng.below(6)];
        let running: Vec<(String, String)> =
            self.open.iter().filter_map(|(id, sent)| sent.clone().map(|sent| (id.clone(), sent.0))).collect();
        if running.is_empty() || self.rng.below(25) == 0 {
            // An engine that answers what it was not asked.
            let number = self.rng.below(1 + self.submitted as usize);
            let engine = self.uuid();
            return self.answer_one(&format!("s_1_{number}"), engine, kind);
        }
        let (id, engine) = &running[self.rng.below(running.len())];
        self.answer_one(id, engine, kind)
    }

    fn answer_one(&mut self, id: &str, engine: &str, kind: ReplyKind) -> Result<(), String> {
        let answer = self.answers.len() as u64;
        self.answers.push(id.to_owned());
        let sent = self.open.get(id).cloned().flatten().filter(|sent| sent.0 == engine);
        // Whatever comes of it, it is no longer there: answered, waiting again, or lost before.
        if let Some(sent) = self.open.get_mut(id).filter(|sent| sent.as_ref().is_some_and(|sent| sent.0 == engine)) {
            *sent = None;
        }
        if let Some(model) = &mut self.model {
            model.result(self.now, id, engine, kind, answer);
        }
        let payload = Payload::Answer(answer);
        let run = (!answer.is_multiple_of(3)).then(|| Duration::from_millis(answer % 50));
        let measured = Measured { run, bytes: answer * 50 };
        // Half of those that answer what they were asked do so by its name, and half by its number.
        let event = match sent {
            Some((_, task, attempt)) if answer.is_multiple_of(2) => Event::Answer { task, attempt, kind, payload, measured },
            Some(_) => Event::Result { id, engine, kind, payload, measured },
            // So do those that answer once more, or after they were given up.
            None => match self.dispatches.get(id).and_then(|all| all.iter().rfind(|(place, ..)| place == engine)) {
                Some(&(_, task, attempt)) if answer.is_multiple_of(2) => {
                    let event = Event::Answer { task, attempt, kind, payload, measured };
                    self.machine.handle(self.now, event);
                    return self.settle_rejected(format!("answer {id} from {engine} too late: {kind:?}"));
                }
                _ => Event::Result { id, engine, kind, payload, measured },
            },
        };
        self.machine.handle(self.now, event);
        self.settle(format!("answer {id} from {engine}: {kind:?}"))
    }

    /// An engine tells its load, if it is there.
    fn signal(&mut self) -> Result<(), String> {
        let uuid = if self.rng.below(4) == 0 { "nobody" } else { self.uuid() };
        let signal = Signal { load: self.rng.below(9) as u32, at: self.now };
        self.machine.handle(self.now, Event::Signal { engine: uuid, signal });
        if uuid == "nobody" {
            return self.settle_rejected("a signal of nobody".into());
        }
        self.settle(format!("signal of {uuid}: {}", signal.load))
    }

    /// What it must reject, and do nothing else.
    fn settle_rejected(&mut self, what: String) -> Result<(), String> {
        match self.machine.poll_action() {
            Some(Action::Reject { .. }) => {}
            other => return Err(format!("{what}: {other:?} instead of a rejection")),
        }
        self.settle(what)
    }

    fn send_failed(&mut self) -> Result<(), String> {
        let sent: Vec<_> = self.open.iter().filter_map(|(id, sent)| Some((id.clone(), sent.clone()?))).collect();
        if sent.is_empty() {
            return Ok(());
        }
        let (id, (_, task, mut attempt)) = sent[self.rng.below(sent.len())].clone();
        attempt -= u32::from(self.rng.below(5) == 0);
        if let Some(model) = &mut self.model {
            model.send_failed(self.now, &id, attempt);
        }
        if self.open[&id].as_ref().is_some_and(|sent| sent.2 == attempt) {
            self.open.insert(id.clone(), None);
        }
        self.machine.handle(self.now, Event::SendFailed { task, attempt });
        self.settle(format!("send failed {id} {attempt}"))
    }

    fn cancel(&mut self) -> Result<(), String> {
        let id = format!("s_1_{}", self.rng.below(1 + self.submitted as usize));
        if let Some(model) = &mut self.model {
            model.cancel(&id);
        }
        self.machine.handle(self.now, Event::Cancel { id: &id });
        self.settle(format!("cancel {id}"))
    }

    fn pause(&mut self, paused: bool) -> Result<(), String> {
        self.paused = paused;
        if let Some(model) = &mut self.model {
            model.change(self.scheme, self.order, self.hwm, paused);
        }
        self.machine.set_paused(self.now, paused);
        self.settle(format!("paused {paused}"))
    }

    /// Another policy on one of the axes: one that the model knows, if there is one, else any.
    fn swap(&mut self) -> Result<(), String> {
        let registry = Registry::builtin();
        let any = |rng: &mut Rng, axis: Axis| {
            let names: Vec<&str> = registry.on(axis).map(|entry| entry.name).collect();
            PolicySpec::named(names[rng.below(names.len())])
        };
        let known = self.model.is_some();
        let what = match self.rng.below(4) {
            3 => {
                let specs: Vec<PolicySpec> = (0..self.rng.below(3)).map(|_| any(&mut self.rng, Axis::Placement)).collect();
                let shadows = specs.iter().map(|spec| (spec.to_string(), registry.build(spec).unwrap())).collect();
                self.machine.set_shadows(self.now, shadows, None);
                self.machine.log_decisions(self.rng.below(20), None);
                format!("shadows {specs:?}")
            }
            0 => {
                self.scheme = ["leastload", "lru"][self.rng.below(2)];
                let spec = if known { PolicySpec::named(self.scheme) } else { any(&mut self.rng, Axis::Placement) };
                if let Some(model) = &mut self.model {
                    model.change(self.scheme, self.order, self.hwm, self.paused);
                }
                self.machine.set_scheme(self.now, registry.build(&spec).unwrap());
                spec.to_string()
            }
            1 => {
                let orders = ["fifo", "lifo", "priority", "shortest[size=exact]", "longest[size=exact]", "deadline"];
                self.order = orders[self.rng.below(orders.len())];
                let spec = if known { self.order.parse().unwrap() } else { any(&mut self.rng, Axis::Order) };
                if let Some(model) = &mut self.model {
                    model.change(self.scheme, self.order, self.hwm, self.paused);
                }
                self.machine.set_order(self.now, registry.build_order(&spec).unwrap());
                spec.to_string()
            }
            _ => {
                self.hwm = self.rng.below(4) as u32;
                if let Some(model) = &mut self.model {
                    model.change(self.scheme, self.order, self.hwm, self.paused);
                }
                if known {
                    self.machine.set_admission(self.now, Box::new(Fixed::new(self.hwm)));
                    format!("hwm {}", self.hwm)
                } else {
                    let spec = any(&mut self.rng, Axis::Admission);
                    self.machine.set_admission(self.now, registry.build_admission(&spec).unwrap());
                    spec.to_string()
                }
            }
        };
        if self.machine.needs().contains(Needs::SOFT_FOLLOW) {
            let _ = writeln!(self.story, "(follow is a wish)");
        }
        self.settle(format!("swap to {what}"))
    }

    fn tick(&mut self) -> Result<(), String> {
        if let Some(model) = &mut self.model {
            model.timeout(self.now);
        }
        self.machine.handle_timeout(self.now);
        self.settle("tick".to_owned())
    }

    /// Collects what the machine does, holds it against what it may do, and against the model.
    fn settle(&mut self, what: String) -> Result<(), String> {
        let _ = writeln!(self.story, "{:>6} ms  {what}", self.now.as_ns() / 1_000_000);
        let mut deeds = Vec::new();
        while let Some(action) = self.machine.poll_action() {
            let _ = writeln!(self.story, "             {action:?}");
            match action {
                Action::Dispatch { task, attempt, engine, payload: Payload::Request(id) } => {
                    let uuid = self.machine.uuid(engine).to_owned();
                    let Some(sent) = self.open.get_mut(&id) else { return Err(format!("{id} was sent after its end")) };
                    *sent = Some((uuid.clone(), task, attempt));
                    self.dispatches.entry(id.clone()).or_default().push((uuid.clone(), task, attempt));
                    deeds.push(Deed::Dispatch { id, engine: uuid, attempt });
                }
                Action::Reply { payload: Payload::Answer(answer), .. } => {
                    let id = &self.answers[answer as usize];
                    self.end(&id.clone())?;
                    deeds.push(Deed::Reply { answer });
                }
                Action::Fail { kind, payload: Payload::Request(id), .. } => {
                    self.end(&id)?;
                    deeds.push(Deed::Fail { id, kind: kind.ename().into() });
                }
                Action::PassOn { payload: Payload::Answer(answer) } => {
                    let id = &self.answers[answer as usize];
                    if self.open.contains_key(id) || self.ended.contains(id) {
                        return Err(format!("passed on an answer to {id}, which it knows"));
                    }
                }
                Action::Reject { .. } => {}
                other => return Err(format!("mixed up its payloads: {other:?}")),
            }
        }
        self.machine.check()?;
        let Some(model) = &mut self.model else { return Ok(()) };
        // Ends in one event come in no promised order; starts do.
        let sorted = |deeds: Vec<Deed>| {
            let (starts, mut ends): (Vec<_>, Vec<_>) = deeds.into_iter().partition(|deed| matches!(deed, Deed::Dispatch { .. }));
            ends.sort();
            (ends, starts)
        };
        let (machine, model) = (sorted(deeds), sorted(std::mem::take(&mut model.deeds)));
        if machine == model { Ok(()) } else { Err(format!("machine: {machine:?}\n  model: {model:?}")) }
    }

    fn end(&mut self, id: &str) -> Result<(), String> {
        if self.open.remove(id).is_none() {
            return Err(format!("{id} ended twice, or was never open"));
        }
        self.ended.insert(id.to_owned());
        Ok(())
    }
}
