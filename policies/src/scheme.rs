//! The placement axis: the trait that chooses an engine for a task, and the few types it speaks in.
//! A scheme owns an index over the roster and is told of every change; it never owns the truth and never commits anything itself.

use std::time::Duration;

use crate::{EngineIx, Learned, Needs, Rng, Roster, TaskView, Time};

/// Chooses an engine for each task.
///
/// # Calling order
/// [`Placement`](crate::Placement) keeps it: `on_join` and then `on_open` before an engine can be picked; `pick` only when at
/// least one candidate is open; `on_dispatch` after a pick that was taken, followed by `on_close` if that filled the engine;
/// `on_outcome` once for each dispatch, followed by `on_open` if it made room; `on_close` before `on_leave` for an open engine.
/// The roster already shows the state after the change when a hook is called.
///
/// # Cost
/// `pick` with [`Candidates::All`] should be O(1) or O(log n) in engines, `Only` O(k), `Except` a few steps for each excluded
/// engine; the hooks O(log n). [`conformance`](crate::conformance) checks the behaviour, the `pick` benchmark the cost.
pub trait Scheme: Send {
    /// What it looks at beyond the roster; all else is hidden from it. Must not change.
    fn needs(&self) -> Needs {
        Needs::empty()
    }

    /// Whether it gives a task to an open engine whenever one of its candidates is open, as is assumed by queueing theory: never
    /// [`Pick::Defer`] then. `None` if it does not say, and nothing is concluded. Must not change.
    fn is_work_conserving(&self) -> Option<bool> {
        None
    }

    /// Decides, and commits nothing: the same call without a dispatch between may be made again.
    fn pick(&mut self, cx: &mut Cx<'_>, request: &Request<'_>) -> Pick;

    /// An engine exists from now on. It is not yet open.
    fn on_join(&mut self, _cx: &mut Cx<'_>, _engine: EngineIx) {}

    /// An engine that was closed anyhow, being full, is barred from work or admitted again; it stays closed for now.
    fn on_barred(&mut self, _cx: &mut Cx<'_>, _engine: EngineIx) {}

    /// An engine is gone; its index may be given to another. Its in-flight tasks have had their outcome.
    fn on_leave(&mut self, _cx: &mut Cx<'_>, _engine: EngineIx) {}

    /// An engine may take work.
    fn on_open(&mut self, _cx: &mut Cx<'_>, _engine: EngineIx) {}

    /// An engine may take no more work: full, draining or lost.
    fn on_close(&mut self, _cx: &mut Cx<'_>, _engine: EngineIx) {}

    /// A task was sent to an engine. The returned word comes back in [`Outcome::ticket`], so that a scheme needs no map of tasks.
    fn on_dispatch(&mut self, _cx: &mut Cx<'_>, _engine: EngineIx, _request: &Request<'_>) -> Ticket {
        Ticket::default()
    }

    /// A task that was sent to an engine is no longer there.
    fn on_outcome(&mut self, _cx: &mut Cx<'_>, _engine: EngineIx, _outcome: &Outcome) {}

    /// An engine has said how much it has to do. Needs [`Needs::SIGNAL`].
    fn on_signal(&mut self, _cx: &mut Cx<'_>, _engine: EngineIx, _signal: Signal) {}

    /// When the scheme wants `on_wake`, if ever.
    fn next_wake(&self) -> Option<Time> {
        None
    }

    /// The time of `next_wake` has come.
    fn on_wake(&mut self, _cx: &mut Cx<'_>) {}

    /// Compares the scheme's own index with the roster; for tests, O(n).
    ///
    /// # Errors
    /// Says what differs.
    fn check(&self, _roster: &Roster) -> Result<(), String> {
        Ok(())
    }
}

impl<S: Scheme + ?Sized> Scheme for Box<S> {
    fn needs(&self) -> Needs {
        (**self).needs()
    }
    fn is_work_conserving(&self) -> Option<bool> {
        (**self).is_work_conserving()
    }
    fn pick(&mut self, cx: &mut Cx<'_>, request: &Request<'_>) -> Pick {
        (**self).pick(cx, request)
    }
    fn on_join(&mut self, cx: &mut Cx<'_>, engine: EngineIx) {
        (**self).on_join(cx, engine);
    }
    fn on_barred(&mut self, cx: &mut Cx<'_>, engine: EngineIx) {
        (**self).on_barred(cx, engine);
    }
    fn on_leave(&mut self, cx: &mut Cx<'_>, engine: EngineIx) {
        (**self).on_leave(cx, engine);
    }
    fn on_open(&mut self, cx: &mut Cx<'_>, engine: EngineIx) {
        (**self).on_open(cx, engine);
    }
    fn on_close(&mut self, cx: &mut Cx<'_>, engine: EngineIx) {
        (**self).on_close(cx, engine);
    }
    fn on_dispatch(&mut self, cx: &mut Cx<'_>, engine: EngineIx, request: &Request<'_>) -> Ticket {
        (**self).on_dispatch(cx, engine, request)
    }
    fn on_outcome(&mut self, cx: &mut Cx<'_>, engine: EngineIx, outcome: &Outcome) {
        (**self).on_outcome(cx, engine, outcome);
    }
    fn on_signal(&mut self, cx: &mut Cx<'_>, engine: EngineIx, signal: Signal) {
        (**self).on_signal(cx, engine, signal);
    }
    fn next_wake(&self) -> Option<Time> {
        (**self).next_wake()
    }
    fn on_wake(&mut self, cx: &mut Cx<'_>) {
        (**self).on_wake(cx);
    }
    fn check(&self, roster: &Roster) -> Result<(), String> {
        (**self).check(roster)
    }
}

/// What a scheme may look at and draw from during a call.
#[derive(Debug)]
#[non_exhaustive]
pub struct Cx<'a> {
    /// The time of the event being handled.
    pub now: Time,
    /// Every engine.
    pub roster: &'a Roster,
    /// The scheme's own stream of the run's seed.
    pub rng: &'a mut Rng,
    /// What the run has taught so far; nothing for a scheme that declares neither [`Needs::ESTIMATE`] nor [`Needs::SPEED`].
    pub learned: &'a Learned,
    /// Where [`consider`](Self::consider) writes, if anybody reads.
    pub(crate) trace: Option<&'a mut Vec<Considered>>,
}

/// A candidate that a scheme has looked at, for those who want to know why it chose.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Considered {
    /// The candidate.
    pub engine: EngineIx,
    /// What the scheme judged it by; mostly less is better.
    pub key: f64,
}

impl Cx<'_> {
    /// Tells whoever traces decisions that a candidate was looked at, and what it was judged by. Costs nothing when nobody does.
    #[inline]
    pub fn consider(&mut self, engine: EngineIx, key: impl FnOnce(&Roster) -> f64) {
        if let Some(trace) = &mut self.trace {
            trace.push(Considered { engine, key: key(self.roster) });
        }
    }

    /// How long a task is expected to run on an engine: [`Learned::expected_s`] by the engine's speed. `None` if nothing is known.
    pub fn expected_s(&self, task: &TaskView<'_>, engine: EngineIx) -> Option<f64> {
        Some(self.learned.expected_s(task)? / self.learned.speed(engine))
    }
}

/// What is known of the task to place.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Request<'a> {
    /// The engines it may go to.
    pub candidates: Candidates<'a>,
    /// 1 for the first dispatch of a task, counted up with each further one.
    pub attempt: u32,
    /// The task, as far as the scheme has declared that it looks at it.
    pub task: TaskView<'a>,
    waiting: usize,
}

impl<'a> Request<'a> {
    /// A first attempt among `candidates`, of a task of which nothing is known.
    pub fn new(candidates: Candidates<'a>) -> Self {
        Request { candidates, attempt: 1, task: TaskView::default(), waiting: 1 }
    }

    /// The same for this task.
    pub const fn task(mut self, task: TaskView<'a>) -> Self {
        self.task = task;
        self
    }

    /// The same with so many ready tasks waiting, this one among them.
    pub const fn with_waiting(mut self, waiting: usize) -> Self {
        self.waiting = waiting;
        self
    }

    /// How many ready tasks wait, this one among them. Needs [`Needs::WAITING`], and is 1 otherwise.
    pub const fn waiting(&self) -> usize {
        self.waiting
    }

    /// What a scheme with these needs sees of it.
    pub(crate) const fn shown(mut self, needs: Needs) -> Self {
        self.task = self.task.shown(needs);
        if !needs.contains(Needs::WAITING) {
            self.waiting = 1;
        }
        self
    }

    /// The same with another attempt number.
    pub const fn attempt(mut self, attempt: u32) -> Self {
        self.attempt = attempt;
        self
    }
}

/// Limits on placement that depend on the task. Those that do not (hwm, draining, dead) are the roster's `is_open`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Candidates<'a> {
    /// Any open engine.
    All,
    /// Only these; each of them is open, and there is at least one.
    Only(&'a [EngineIx]),
    /// Any open engine but these (open or not); at least one open engine is left.
    Except(&'a [EngineIx]),
}

impl Candidates<'_> {
    /// Whether the limits admit `engine`. O(k).
    pub fn contains(&self, engine: EngineIx) -> bool {
        match self {
            Candidates::All => true,
            Candidates::Only(list) => list.contains(&engine),
            Candidates::Except(list) => !list.contains(&engine),
        }
    }
}

/// A decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pick {
    /// Send it to this engine, which is open and a candidate.
    Engine(EngineIx),
    /// Send it nowhere yet: ask again at `until`, or, if `None`, at the next change of an engine.
    Defer {
        /// When to ask again at the latest.
        until: Option<Time>,
    },
}

/// One word of a scheme's own for each task in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ticket(pub u64);

/// What an engine says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal {
    /// Tasks that it has, waiting and running, whoever sent them.
    pub load: u32,
    /// When that was so.
    pub at: Time,
}

/// How a dispatch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outcome {
    /// What `on_dispatch` returned.
    pub ticket: Ticket,
    /// How it ended.
    pub ending: Ending,
    /// From dispatch to now. Needs [`Needs::LATENCY`].
    pub latency: Duration,
    /// How long the task ran, by the engine's own clock, if it ran and said so. Needs [`Needs::RUN`].
    pub run: Option<Duration>,
    /// How many other tasks were in flight there when it was sent: 0 means that it did not wait for any.
    pub ahead: u32,
}

impl Outcome {
    /// What a policy with these needs sees of it.
    pub fn shown(mut self, needs: Needs) -> Self {
        if !needs.contains(Needs::LATENCY) {
            self.latency = Duration::ZERO;
        }
        self.run = self.run.filter(|_| needs.contains(Needs::RUN));
        self
    }

    /// An end of which only the latency is known.
    pub const fn new(ticket: Ticket, ending: Ending, latency: Duration) -> Self {
        Outcome { ticket, ending, latency, run: None, ahead: 0 }
    }
}

/// The ways in which a dispatch ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The engine ran it and it succeeded.
    Ok,
    /// The engine ran it and it failed.
    Failed,
    /// The engine refused it: a dependency that it checks itself was not met.
    Unmet,
    /// The engine died, or could not be reached.
    Lost,
    /// It was taken back, or the engine dropped it on request.
    Cancelled,
}
