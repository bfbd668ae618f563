//! The rules of the task scheduler, written for reading: every question is answered by scanning everything. Slow and obvious.

use std::collections::BTreeMap;

use pointsman_policies::Time;
use pointsman_policies::index::sortable;
use pointsman_schedulers::task::{Dependency, FailKind, Limits, ReplyKind, TaskSpec};

/// What the model says has to be done.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Deed {
    Dispatch { id: String, engine: String, attempt: u32 },
    Reply { answer: u64 },
    Fail { id: String, kind: String },
}

#[derive(Clone, Debug)]
enum Failure {
    Reply(u64, String),
    Lost(String),
}

#[derive(Clone, Debug)]
struct Task {
    id: String,
    seq: u64,
    submitted: Time,
    spec: TaskSpec,
    running: Option<String>,
    blacklist: Vec<String>,
    retries: u32,
    deadline: Option<Time>,
    sent_before: Option<Time>,
    attempt: u32,
    last_failure: Option<Failure>,
    /// When it was last turned away, if it is free to go anywhere else.
    turn: Option<u64>,
    /// Became startable by the event being handled.
    released: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum Presence {
    Up,
    Dying(Time),
}

#[derive(Clone, Debug)]
struct Engine {
    uuid: String,
    number: usize,
    presence: Presence,
    draining: bool,
    unreachable: Option<Time>,
    load: u32,
}

#[derive(Debug)]
pub(crate) struct Naive {
    scheme: &'static str,
    order: &'static str,
    paused: bool,
    limits: Limits,
    /// Live and dying engines in least-recently-used order.
    engines: Vec<Engine>,
    ever_up: Vec<String>,
    tasks: Vec<Task>,
    ended: BTreeMap<String, (bool, Option<String>)>,
    seq: u64,
    turns: u64,
    pub(crate) deeds: Vec<Deed>,
}

impl Naive {
    pub(crate) fn new(scheme: &'static str, limits: Limits) -> Self {
        Naive {
            scheme,
            order: "fifo",
            paused: false,
            limits,
            engines: vec![],
            ever_up: vec![],
            tasks: vec![],
            ended: BTreeMap::new(),
            seq: 0,
            turns: 0,
            deeds: vec![],
        }
    }

    /// Another scheme, order, limit, or a pause, while everything goes on.
    pub(crate) fn change(&mut self, scheme: &'static str, order: &'static str, hwm: u32, paused: bool) {
        (self.scheme, self.order, self.limits.hwm, self.paused) = (scheme, order, hwm, paused);
        self.settle();
    }

    /// Who goes first: less, and then the older.
    fn standing(&self, task: &Task) -> (u64, u64) {
        let hints = &task.spec.facts.hints;
        let key = match self.order {
            "lifo" => !task.seq,
            "priority" => sortable(-hints.priority),
            "shortest[size=exact]" => sortable(hints.cost_s.unwrap_or(f64::MAX)),
            "longest[size=exact]" => sortable(-hints.cost_s.unwrap_or(0.0)),
            "deadline" => hints.deadline.map_or(u64::MAX, |after| (task.submitted + after).as_ns()),
            _ => 0,
        };
        (key, task.seq)
    }

    fn engine(&mut self, uuid: &str) -> Option<&mut Engine> {
        self.engines.iter_mut().find(|engine| engine.uuid == uuid)
    }

    fn is_up(&self, uuid: &str) -> bool {
        self.engines.iter().any(|engine| engine.uuid == uuid && engine.presence == Presence::Up)
    }

    fn is_open(&self, engine: &Engine) -> bool {
        engine.presence == Presence::Up
            && !engine.draining
            && engine.unreachable.is_none()
            && (self.limits.hwm == 0 || engine.load < self.limits.hwm)
    }

    /// (counted, missed, not ended) of a dependency.
    fn tally(&self, on: &Dependency) -> (usize, usize, usize) {
        let (mut counted, mut missed, mut open) = (0, 0, 0);
        for id in &on.ids {
            match self.ended.get(&**id) {
                Some((ok, _)) if (if *ok { on.success } else { on.failure }) => counted += 1,
                Some(_) => missed += 1,
                None => open += 1,
            }
        }
        (counted, missed, open)
    }

    fn met(&self, on: &Dependency) -> bool {
        let (counted, _, _) = self.tally(on);
        on.ids.is_empty() || if on.all { counted == on.ids.len() } else { counted > 0 }
    }

    fn unreachable(&self, on: &Dependency) -> bool {
        let (counted, missed, open) = self.tally(on);
        !on.ids.is_empty() && if on.all { missed > 0 } else { open == 0 && counted == 0 }
    }

    /// Where followed tasks that count have run; `None` for one that ran nowhere.
    fn places(&self, on: &Dependency) -> Vec<Option<String>> {
        let counts = |id: &str| {
            let (ok, place) = self.ended.get(id)?;
            (if *ok { on.success } else { on.failure }).then(|| place.clone())
        };
        let mut places: Vec<_> = on.ids.iter().filter_map(|id| counts(id)).collect();
        places.sort();
        places.dedup();
        places
    }

    fn is_bound(task: &Task) -> bool {
        !task.spec.targets.is_empty() || !task.spec.follow.ids.is_empty()
    }

    fn may_use(&self, task: &Task, uuid: &str) -> bool {
        let targets = &task.spec.targets;
        !task.blacklist.iter().any(|other| other == uuid)
            && (targets.is_empty() || targets.iter().any(|other| &**other == uuid))
            && (task.spec.follow.ids.is_empty() || self.places(&task.spec.follow).contains(&Some(uuid.to_owned())))
    }

    fn is_hopeless(&self, task: &Task) -> bool {
        if self.unreachable(&task.spec.after) || self.unreachable(&task.spec.follow) {
            return true;
        }
        let up: Vec<&str> = self.engines.iter().filter(|e| e.presence == Presence::Up).map(|e| &*e.uuid).collect();
        if !Self::is_bound(task) {
            return task.last_failure.is_some() && up.iter().all(|uuid| task.blacklist.iter().any(|b| b == uuid));
        }
        let targets = &task.spec.targets;
        let named = |uuid: &str| targets.iter().any(|t| &**t == uuid) && !task.blacklist.iter().any(|b| b == uuid);
        if !targets.is_empty() && !up.iter().any(|uuid| named(uuid)) {
            return true;
        }
        let follow = &task.spec.follow;
        if follow.ids.is_empty() {
            return false;
        }
        let places = self.places(follow);
        if follow.all && (places.contains(&None) || places.len() > 1) {
            return true;
        }
        let settled = if follow.all { !places.is_empty() } else { self.tally(follow).2 == 0 };
        settled && !up.iter().any(|uuid| self.may_use(task, uuid))
    }

    pub(crate) fn engine_up(&mut self, now: Time, uuid: &str) {
        if self.is_up(uuid) {
            return;
        }
        if self.engine(uuid).is_some() {
            self.bury(now, uuid);
        }
        if !self.ever_up.iter().any(|known| known == uuid) {
            self.ever_up.push(uuid.to_owned());
        }
        let number = self.ever_up.iter().position(|known| known == uuid).unwrap();
        let uuid = uuid.to_owned();
        let engine = Engine { uuid, number, presence: Presence::Up, draining: false, unreachable: None, load: 0 };
        self.engines.insert(0, engine);
        self.settle();
    }

    pub(crate) fn engine_down(&mut self, now: Time, uuid: &str) {
        if !self.is_up(uuid) {
            return;
        }
        let until = now + self.limits.grace;
        let engine = self.engine(uuid).unwrap();
        engine.presence = Presence::Dying(until);
        if engine.load == 0 || until == now {
            self.bury(now, uuid);
        }
        self.settle();
    }

    pub(crate) fn drain(&mut self, uuid: &str, draining: bool) {
        if self.is_up(uuid) {
            self.engine(uuid).unwrap().draining = draining;
        }
        self.settle();
    }

    fn bury(&mut self, now: Time, uuid: &str) {
        let lost: Vec<u64> =
            self.tasks.iter().filter(|task| task.running.as_deref() == Some(uuid)).map(|task| task.seq).collect();
        self.engines.retain(|engine| engine.uuid != uuid);
        for seq in lost {
            self.attempt_failed(now, seq, Failure::Lost(uuid.to_owned()));
        }
    }

    pub(crate) fn submit(&mut self, now: Time, id: &str, spec: Option<TaskSpec>) {
        if self.ended.contains_key(id) || self.tasks.iter().any(|task| task.id == id) {
            return;
        }
        let known =
            |other: &str| other != id && (self.ended.contains_key(other) || self.tasks.iter().any(|task| task.id == other));
        let valid = |on: &Dependency| on.ids.is_empty() || (on.success || on.failure) && on.ids.iter().all(|o| known(o));
        let Some(mut spec) = spec.filter(|spec| valid(&spec.after) && valid(&spec.follow)) else {
            self.ended.insert(id.to_owned(), (false, None));
            return self.deeds.push(Deed::Fail { id: id.to_owned(), kind: "InvalidDependency".into() });
        };
        // A name that no engine ever had stands for nobody, but a list of names is still a list.
        for name in &mut spec.targets {
            if !self.ever_up.iter().any(|known| **known == **name) {
                *name = "nobody".into();
            }
        }
        self.seq += 1;
        let task = Task {
            id: id.to_owned(),
            seq: self.seq,
            submitted: now,
            running: None,
            blacklist: vec![],
            retries: spec.retries,
            deadline: spec.timeout.map(|timeout| now + timeout),
            sent_before: None,
            attempt: 0,
            last_failure: None,
            turn: None,
            released: false,
            spec,
        };
        self.tasks.push(task);
        self.settle();
    }

    pub(crate) fn result(&mut self, now: Time, id: &str, uuid: &str, kind: ReplyKind, answer: u64) {
        let Some(task) = self.tasks.iter_mut().find(|task| task.id == id && task.running.as_deref() == Some(uuid)) else {
            return;
        };
        let seq = task.seq;
        match kind {
            ReplyKind::Ok | ReplyKind::Aborted => {
                self.release(uuid);
                self.reply(seq, answer, kind == ReplyKind::Ok, Some(uuid.to_owned()));
            }
            ReplyKind::Failed => {
                self.release(uuid);
                self.attempt_failed(now, seq, Failure::Reply(answer, uuid.to_owned()));
            }
            ReplyKind::Unmet => {
                task.blacklist.push(uuid.to_owned());
                self.release(uuid);
                self.wait_again(now, seq);
            }
        }
        self.bury_if_idle(now, uuid);
        self.settle();
    }

    fn bury_if_idle(&mut self, now: Time, uuid: &str) {
        if self.engine(uuid).is_some_and(|engine| engine.load == 0 && engine.presence != Presence::Up) {
            self.bury(now, uuid);
        }
    }

    pub(crate) fn send_failed(&mut self, now: Time, id: &str, attempt: u32) {
        let Some(task) = self.tasks.iter().find(|task| task.id == id && task.attempt == attempt) else { return };
        let (seq, Some(uuid)) = (task.seq, task.running.clone()) else { return };
        let again = now + self.limits.reconnect;
        if self.is_up(&uuid) {
            self.engine(&uuid).unwrap().unreachable = Some(again);
        }
        self.release(&uuid);
        let before = self.task(seq).sent_before;
        self.wait_again(now, seq);
        self.task(seq).deadline = before;
        self.bury_if_idle(now, &uuid);
        self.settle();
    }

    pub(crate) fn cancel(&mut self, id: &str) {
        if let Some(task) = self.tasks.iter().find(|task| task.id == id && task.running.is_none()) {
            self.fail(task.seq, FailKind::Cancelled, None);
        }
        self.settle();
    }

    pub(crate) fn timeout(&mut self, now: Time) {
        let expired: Vec<u64> = self
            .tasks
            .iter()
            .filter(|task| task.running.is_none() && task.deadline.is_some_and(|at| at <= now))
            .map(|task| task.seq)
            .collect();
        for seq in expired {
            self.fail(seq, FailKind::TaskTimeout, None);
        }
        let mut due = self.engines.clone();
        due.sort_by_key(|engine| engine.number);
        for engine in due {
            match engine.presence {
                Presence::Dying(until) if until <= now => self.bury(now, &engine.uuid),
                Presence::Up if engine.unreachable.is_some_and(|at| at <= now) => {
                    self.engine(&engine.uuid).unwrap().unreachable = None;
                }
                _ => {}
            }
        }
        self.settle();
    }

    fn release(&mut self, uuid: &str) {
        if let Some(engine) = self.engine(uuid) {
            engine.load -= 1;
        }
    }

    fn task(&mut self, seq: u64) -> &mut Task {
        self.tasks.iter_mut().find(|task| task.seq == seq).unwrap()
    }

    fn attempt_failed(&mut self, now: Time, seq: u64, failure: Failure) {
        let task = self.task(seq);
        if task.retries == 0 {
            return self.end_with(seq, failure);
        }
        task.retries -= 1;
        let (Failure::Reply(_, place) | Failure::Lost(place)) = &failure;
        task.blacklist.push(place.clone());
        task.last_failure = Some(failure);
        self.wait_again(now, seq);
    }

    fn end_with(&mut self, seq: u64, failure: Failure) {
        match failure {
            Failure::Reply(answer, place) => self.reply(seq, answer, false, Some(place)),
            Failure::Lost(place) => self.fail(seq, FailKind::EngineError, Some(place)),
        }
    }

    fn wait_again(&mut self, now: Time, seq: u64) {
        self.turns += 1;
        let turn = self.turns;
        let task = self.task(seq);
        task.running = None;
        task.released = true;
        task.deadline = task.spec.timeout.map(|timeout| now + timeout);
        task.turn = (!Self::is_bound(task) && !task.blacklist.is_empty()).then_some(turn);
    }

    fn reply(&mut self, seq: u64, answer: u64, ok: bool, place: Option<String>) {
        self.deeds.push(Deed::Reply { answer });
        self.end(seq, ok, place);
    }

    fn fail(&mut self, seq: u64, kind: FailKind, place: Option<String>) {
        let id = self.task(seq).id.clone();
        self.deeds.push(Deed::Fail { id, kind: kind.ename().into() });
        self.end(seq, false, place);
    }

    fn end(&mut self, seq: u64, ok: bool, place: Option<String>) {
        let id = self.task(seq).id.clone();
        self.tasks.retain(|task| task.seq != seq);
        self.ended.insert(id, (ok, place));
    }

    /// Ends what is hopeless until nothing is, then starts what can be started.
    fn settle(&mut self) {
        let doomed = |model: &Naive| {
            let waits_for_timeout = |task: &Task| {
                task.last_failure.is_some()
                    && task.spec.timeout.is_some()
                    && !model.unreachable(&task.spec.after)
                    && !model.unreachable(&task.spec.follow)
            };
            let doomed = |task: &&Task| task.running.is_none() && model.is_hopeless(task) && !waits_for_timeout(task);
            model.tasks.iter().find(doomed).map(|task| (task.seq, task.last_failure.clone()))
        };
        while let Some((seq, failure)) = doomed(self) {
            match failure {
                Some(failure) => self.end_with(seq, failure),
                None => self.fail(seq, FailKind::ImpossibleDependency, None),
            }
        }
        while let Some((seq, uuid)) = self.next_start() {
            let task = self.task(seq);
            task.running = Some(uuid.clone());
            task.attempt += 1;
            task.sent_before = task.deadline.take();
            let deed = Deed::Dispatch { id: task.id.clone(), engine: uuid.clone(), attempt: task.attempt };
            self.deeds.push(deed);
            let at = self.engines.iter().position(|engine| engine.uuid == uuid).unwrap();
            let mut engine = self.engines.remove(at);
            engine.load += 1;
            self.engines.push(engine);
        }
        for task in &mut self.tasks {
            task.released = false;
        }
    }

    /// The first startable task and the engine that the scheme gives it. Of the tasks that have been turned away, an engine looks only at
    /// the one that was turned away first, unless this very event brought one back.
    fn next_start(&self) -> Option<(u64, String)> {
        if self.paused {
            return None;
        }
        let open: Vec<&Engine> = self.engines.iter().filter(|engine| self.is_open(engine)).collect();
        let ready = |task: &&Task| task.running.is_none() && self.met(&task.spec.after) && self.met(&task.spec.follow);
        let startable = |task: &&Task| ready(task) && open.iter().any(|engine| self.may_use(task, &engine.uuid));
        let in_order = self.tasks.iter().filter(startable).filter(|task| task.turn.is_none() || task.released);
        let first_turned = |engine: &&Engine| {
            let turned = self.tasks.iter().filter(|task| task.turn.is_some() && ready(task) && self.may_use(task, &engine.uuid));
            turned.min_by_key(|task| task.turn)
        };
        let task = in_order.chain(open.iter().filter_map(first_turned)).min_by_key(|task| self.standing(task))?;
        let mut candidates = open.iter().filter(|engine| self.may_use(task, &engine.uuid));
        let engine = match self.scheme {
            "lru" => candidates.next(),
            _ => candidates.min_by_key(|engine| engine.load),
        };
        engine.map(|engine| (task.seq, engine.uuid.clone()))
    }
}
