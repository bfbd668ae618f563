//! An engine: one task at a time, first come first served, at a speed that may change, until it dies.

use std::collections::VecDeque;

use pointsman_policies::{Rng, Signal};
use pointsman_schedulers::task::TaskKey;

use crate::lab::draw::Dist;

/// What an engine is like.
#[derive(Clone, Debug, PartialEq)]
pub struct EngineModel {
    /// Work done in a second.
    pub speed: f64,
    /// Now and then something else takes a part of it.
    pub slowdowns: Option<Slowdowns>,
    /// It dies now and then, and another takes its place.
    pub failures: Option<Failures>,
    /// When it joins, in nanoseconds; 0 if it is there from the start.
    pub joins_ns: u64,
    /// From when on it takes no new task, in nanoseconds; never without. What it has by then it does.
    pub leaves_ns: Option<u64>,
}

impl Default for EngineModel {
    fn default() -> Self {
        EngineModel { speed: 1.0, slowdowns: None, failures: None, joins_ns: 0, leaves_ns: None }
    }
}

/// An antagonist that comes and goes (Wydrowski et al. 2024), or a drift if it always stays.
#[derive(Clone, Debug, PartialEq)]
pub struct Slowdowns {
    /// How long it stays away, in seconds.
    pub every: Dist,
    /// How long it stays, in seconds.
    pub lasts: Dist,
    /// The speed meanwhile, as a share of the engine's own.
    pub factor: Dist,
}

/// Deaths.
#[derive(Clone, Debug, PartialEq)]
pub struct Failures {
    /// How long an engine lives, in seconds.
    pub lives: Dist,
    /// How long it takes until another is there, in seconds.
    pub repair: Dist,
}

/// A run of a task, from its scheduler to the engine and back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Flight {
    /// Its place among the tasks in the system; another task may have it by then if this is a second copy.
    pub(super) slot: u32,
    pub(super) dispatcher: u32,
    pub(super) number: u64,
    /// What its scheduler calls this dispatch.
    pub(super) task: TaskKey,
    pub(super) attempt: u32,
    pub(super) outcome: FlightOutcome,
    pub(super) work_ns: u64,
    /// How long its inputs take to come.
    pub(super) fetch_ns: u64,
}

/// A run that is over.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Landed {
    pub(super) flight: Flight,
    pub(super) started_ns: u64,
    /// How long it ran.
    pub(super) ran_ns: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FlightOutcome {
    Ok,
    Failed,
    /// Dropped on request before it began.
    Aborted,
}

/// What a scheduler says to an engine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Order {
    Run(Flight),
    Drop { number: u64, dispatcher: u32 },
}

/// What an engine says to a scheduler.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Word {
    Answer(Landed),
    Noted {
        number: u64,
        dispatcher: u32,
    },
    /// Of the life that says so: what an engine said that has died is nothing that its successor says.
    Load {
        signal: Signal,
        dispatcher: u32,
        life: u32,
    },
}

/// The task that an engine is at.
#[derive(Clone, Copy, Debug)]
pub(super) struct AtWork {
    pub(super) flight: Flight,
    started_ns: u64,
    /// Work left when the speed last changed, and when that was.
    left_ns: f64,
    since_ns: u64,
}

/// An engine at some moment: what each of its tasks touches. With many engines this is what fits into a processor's caches, or does not.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) at_work: Option<AtWork>,
    pub(super) queue: VecDeque<Flight>,
    /// Work done in a second, at present.
    rate: f64,
    pub(super) busy_ns: u64,
    /// Counts what it began, so that a moment foreseen before the speed changed is recognised.
    pub(super) epoch: u32,
    pub(super) is_alive: bool,
    pub(super) rest: Box<Rest>,
}

/// The rest of an engine.
#[derive(Debug)]
pub(super) struct Rest {
    pub(super) model: EngineModel,
    /// Its name; each life has another.
    pub(super) uuid: String,
    pub(super) life: u32,
    /// Messages under way to it and from it, in order and with the moments at which they arrive, and the last such moment of each.
    pub(super) orders: VecDeque<(u64, Order)>,
    pub(super) words: VecDeque<(u64, Word)>,
    pub(super) last_order_ns: u64,
    pub(super) last_word_ns: u64,
    /// An antagonist is here.
    pub(super) is_slow: bool,
    pub(super) fate: Rng,
}

impl Engine {
    pub(super) fn new(index: usize, model: EngineModel, fate: Rng) -> Engine {
        Engine {
            at_work: None,
            queue: VecDeque::new(),
            rate: model.speed,
            busy_ns: 0,
            epoch: 0,
            is_alive: model.joins_ns == 0,
            rest: Box::new(Rest {
                model,
                uuid: name(index, 0),
                life: 0,
                orders: VecDeque::new(),
                words: VecDeque::new(),
                last_order_ns: 0,
                last_word_ns: 0,
                is_slow: false,
                fate,
            }),
        }
    }

    /// Begins what is next in its queue; when that will be done, unless the speed changes.
    pub(super) fn begin(&mut self, now_ns: u64) -> Option<u64> {
        if self.at_work.is_some() || !self.is_alive {
            return None;
        }
        let flight = self.queue.pop_front()?;
        // What was to be dropped takes no time.
        let dropped = flight.outcome == FlightOutcome::Aborted;
        let (left_ns, begins_ns) = if dropped { (0.0, now_ns) } else { (flight.work_ns as f64, now_ns + flight.fetch_ns) };
        self.at_work = Some(AtWork { flight, started_ns: now_ns, left_ns, since_ns: begins_ns });
        Some(self.foresee(begins_ns))
    }

    /// When what it is at will be done, if it works on it from then on.
    fn foresee(&mut self, now_ns: u64) -> u64 {
        self.epoch = self.epoch.wrapping_add(1);
        let left_ns = self.at_work.map_or(0.0, |at| at.left_ns);
        let rate = self.rate;
        now_ns + if rate == 1.0 { left_ns as u64 } else { (left_ns / rate).ceil() as u64 }
    }

    /// Ends what it is at.
    pub(super) fn finish(&mut self, now_ns: u64) -> Option<Landed> {
        let AtWork { flight, started_ns, .. } = self.at_work.take()?;
        let ran_ns = now_ns - started_ns;
        self.busy_ns += ran_ns;
        Some(Landed { flight, started_ns, ran_ns })
    }

    /// Changes its speed to a share of its own; when what it is at will be done now.
    pub(super) fn set_factor(&mut self, now_ns: u64, factor: f64) -> Option<u64> {
        let rate = self.rate;
        if let Some(at) = &mut self.at_work {
            // Still fetching, it has done nothing yet.
            at.left_ns = (at.left_ns - now_ns.saturating_sub(at.since_ns) as f64 * rate).max(0.0);
            at.since_ns = at.since_ns.max(now_ns);
        }
        self.rate = self.rest.model.speed * factor;
        let since_ns = self.at_work?.since_ns;
        Some(self.foresee(since_ns))
    }

    /// Tasks that it has, waiting and running.
    pub(super) fn load(&self) -> u32 {
        self.queue.len() as u32 + u32::from(self.at_work.is_some())
    }

    /// Loses everything. Returns what it had done in vain, in nanoseconds.
    pub(super) fn die(&mut self, now_ns: u64) -> u64 {
        self.is_alive = false;
        self.queue.clear();
        self.rest.orders.clear();
        self.epoch = self.epoch.wrapping_add(1);
        let wasted = self.at_work.take().map_or(0, |at| now_ns - at.started_ns);
        self.busy_ns += wasted;
        wasted
    }

    /// Another takes its place, under another name.
    pub(super) fn be_born(&mut self, index: usize) {
        self.rest.life += 1;
        self.rest.uuid = name(index, self.rest.life);
        self.is_alive = true;
    }

    /// Marks a task that it has not begun as dropped; whether there was one.
    pub(super) fn drop_queued(&mut self, number: u64, dispatcher: u32) -> bool {
        let is_it = |flight: &&mut Flight| flight.number == number && flight.dispatcher == dispatcher;
        let found = self.queue.iter_mut().find(is_it);
        found.map(|flight| flight.outcome = FlightOutcome::Aborted).is_some()
    }
}

fn name(index: usize, life: u32) -> String {
    if life == 0 { format!("e{index}") } else { format!("e{index}.{life}") }
}
