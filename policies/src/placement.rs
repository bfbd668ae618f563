//! A scheme and its roster, kept in step: every change goes through here, so hooks come in the promised order and a scheme that
//! answers with a closed or forbidden engine is caught before anything is sent. It never decides anything itself.

use crate::{Candidates, Cx, EngineIx, Outcome, Pick, Request, Rng, Roster, Scheme, Ticket, Time};

/// A roster, the scheme that picks from it, and the scheme's stream of draws.
#[derive(Debug)]
pub struct Placement<S> {
    roster: Roster,
    scheme: S,
    rng: Rng,
    faults: u64,
}

/// A checked decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chosen {
    /// An open candidate.
    Engine(EngineIx),
    /// Not now.
    Defer {
        /// When to ask again at the latest.
        until: Option<Time>,
    },
    /// No candidate is open: the scheme was not asked.
    NoneOpen,
}

impl<S: Scheme> Placement<S> {
    /// An empty roster under `scheme`, whose draws follow from `seed` alone.
    pub fn new(scheme: S, seed: u64) -> Self {
        Placement { roster: Roster::default(), scheme, rng: Rng::stream(seed, "scheme"), faults: 0 }
    }

    /// The engines.
    pub fn roster(&self) -> &Roster {
        &self.roster
    }

    /// The scheme.
    pub fn scheme(&self) -> &S {
        &self.scheme
    }

    /// How often the scheme picked an engine that was closed or not a candidate; each was treated as a deferral.
    pub fn faults(&self) -> u64 {
        self.faults
    }

    fn tell(&mut self, now: Time, hook: impl FnOnce(&mut S, &mut Cx<'_>)) {
        hook(&mut self.scheme, &mut Cx { now, roster: &self.roster, rng: &mut self.rng });
    }

    /// Tells the scheme if `change` opened or closed `engine`. Returns whether it is open now and was not before.
    fn tell_change(&mut self, now: Time, engine: EngineIx, was_open: bool) -> bool {
        let is_open = self.roster.is_open(engine);
        match (was_open, is_open) {
            (false, true) => self.tell(now, |scheme, cx| scheme.on_open(cx, engine)),
            (true, false) => self.tell(now, |scheme, cx| scheme.on_close(cx, engine)),
            _ => {}
        }
        is_open && !was_open
    }

    /// Adds an engine that may have `hwm` tasks in flight (0: no limit); it is open.
    pub fn join(&mut self, now: Time, hwm: u32) -> EngineIx {
        let engine = self.roster.join(hwm);
        self.tell(now, |scheme, cx| scheme.on_join(cx, engine));
        self.tell_change(now, engine, false);
        engine
    }

    /// Removes an engine. Its in-flight tasks must have had their outcome.
    ///
    /// # Panics
    /// In debug builds, if the engine does not exist.
    pub fn leave(&mut self, now: Time, engine: EngineIx) {
        self.set_barred(now, engine, true);
        self.roster.leave(engine);
        self.tell(now, |scheme, cx| scheme.on_leave(cx, engine));
    }

    /// Bars an engine from new work (draining, lost) or admits it again. Returns whether this opened it.
    pub fn set_barred(&mut self, now: Time, engine: EngineIx, barred: bool) -> bool {
        let was_open = self.roster.is_open(engine);
        self.roster.set_barred(engine, barred);
        self.tell_change(now, engine, was_open)
    }

    /// Changes the most tasks that an engine may have in flight (0: no limit). Returns whether this opened it.
    pub fn set_hwm(&mut self, now: Time, engine: EngineIx, hwm: u32) -> bool {
        let was_open = self.roster.is_open(engine);
        self.roster.set_hwm(engine, hwm);
        self.tell_change(now, engine, was_open)
    }

    /// Asks the scheme. O(k) for restricted requests, plus the scheme's own cost.
    pub fn pick(&mut self, now: Time, request: &Request<'_>) -> Chosen {
        if !self.any_open(&request.candidates) {
            return Chosen::NoneOpen;
        }
        let mut cx = Cx { now, roster: &self.roster, rng: &mut self.rng };
        match self.scheme.pick(&mut cx, request) {
            Pick::Engine(engine) if self.roster.is_open(engine) && request.candidates.contains(engine) => Chosen::Engine(engine),
            Pick::Engine(_) => {
                self.faults += 1;
                Chosen::Defer { until: None }
            }
            Pick::Defer { until } => Chosen::Defer { until },
        }
    }

    /// Whether any candidate is open.
    pub fn any_open(&self, candidates: &Candidates<'_>) -> bool {
        match candidates {
            Candidates::All => self.roster.open_count() > 0,
            Candidates::Only(list) => list.iter().any(|&engine| self.roster.is_open(engine)),
            Candidates::Except(list) => {
                self.roster.open_count() > list.iter().filter(|&&engine| self.roster.is_open(engine)).count()
            }
        }
    }

    /// Records that a task went to `engine`.
    pub fn dispatch(&mut self, now: Time, engine: EngineIx, request: &Request<'_>) -> Ticket {
        let was_open = self.roster.is_open(engine);
        self.roster.dispatched(engine);
        let mut ticket = Ticket::default();
        self.tell(now, |scheme, cx| ticket = scheme.on_dispatch(cx, engine, request));
        self.tell_change(now, engine, was_open);
        ticket
    }

    /// Records that a task is no longer on `engine`. Returns whether this opened the engine.
    pub fn outcome(&mut self, now: Time, engine: EngineIx, outcome: &Outcome) -> bool {
        let was_open = self.roster.is_open(engine);
        self.roster.released(engine);
        self.tell(now, |scheme, cx| scheme.on_outcome(cx, engine, outcome));
        self.tell_change(now, engine, was_open)
    }

    /// When the scheme wants to be woken.
    pub fn next_wake(&self) -> Option<Time> {
        self.scheme.next_wake()
    }

    /// Wakes the scheme if its time has come.
    pub fn wake(&mut self, now: Time) {
        if self.scheme.next_wake().is_some_and(|at| at <= now) {
            self.tell(now, Scheme::on_wake);
        }
    }

    /// The scheme's own check of its index. O(n).
    ///
    /// # Errors
    /// Says what differs from the roster.
    pub fn check(&self) -> Result<(), String> {
        self.scheme.check(&self.roster)
    }
}
