//! A scheme and its roster, kept in step: every change goes through here, so hooks come in the promised order and a scheme that
//! answers with a closed or forbidden engine is caught before anything is sent. It never decides anything itself.

use crate::{
    AdmissionCx, Candidates, Considered, Cx, EngineIx, Joining, Learned, Needs, Outcome, Pick, Request, Rng, Roster, Scheme,
    Ticket, Time,
};

/// A roster, the scheme that picks from it, and the scheme's stream of draws.
#[derive(Debug)]
pub struct Placement<S> {
    roster: Roster,
    scheme: S,
    needs: Needs,
    rng: Rng,
    learned: Learned,
    trace: Vec<Considered>,
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
        Placement {
            roster: Roster::default(),
            needs: scheme.needs(),
            scheme,
            rng: Rng::stream(seed, "scheme"),
            learned: Learned::default(),
            trace: Vec::new(),
            faults: 0,
        }
    }

    /// Puts another scheme in the place of this one. It is told of every engine and of every task in flight (`running`, in the order of
    /// dispatch) as if it had been there from the start, and gives each task its ticket through `hand_out`, with the index in `running`.
    /// Draws go on where they were. Returns the old scheme. O(engines + tasks in flight).
    pub fn replace(
        &mut self,
        now: Time,
        scheme: S,
        running: &[(EngineIx, Request<'_>)],
        mut hand_out: impl FnMut(usize, Ticket),
    ) -> S {
        self.needs = scheme.needs();
        let former = std::mem::replace(&mut self.scheme, scheme);
        let mut past = self.roster.idle_copy();
        let live: Vec<EngineIx> = past.live_engines().collect();
        let Placement { scheme, rng, learned, needs, roster, .. } = self;
        macro_rules! cx {
            () => {
                &mut Cx { now, roster: &past, rng, learned, trace: None }
            };
        }
        for &engine in &live {
            scheme.on_join(cx!(), engine);
            scheme.on_open(cx!(), engine);
        }
        for (index, (engine, request)) in running.iter().enumerate() {
            past.replayed(*engine);
            let ticket = scheme.on_dispatch(cx!(), *engine, &request.shown(*needs));
            hand_out(index, ticket);
        }
        for engine in live {
            if !roster.is_open(engine) {
                scheme.on_close(&mut Cx { now, roster, rng, learned, trace: None }, engine);
            }
        }
        former
    }

    /// What has been learned of classes and engines.
    pub fn learned(&self) -> &Learned {
        &self.learned
    }

    /// The same, for whoever hears of ended tasks.
    pub fn learned_mut(&mut self) -> &mut Learned {
        &mut self.learned
    }

    /// What the scheme looks at.
    pub fn needs(&self) -> Needs {
        self.needs
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
        let Placement { scheme, roster, rng, learned, .. } = self;
        hook(scheme, &mut Cx { now, roster, rng, learned, trace: None });
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
        self.join_as(now, Joining::new(hwm))
    }

    /// Adds an engine with a name; it is open.
    pub fn join_as(&mut self, now: Time, joining: Joining) -> EngineIx {
        self.join_limited(now, joining, |_, _| joining.hwm)
    }

    /// Adds an engine whose hwm is decided when it has its place in the roster; it is open.
    pub fn join_limited(&mut self, now: Time, joining: Joining, hwm: impl FnOnce(&AdmissionCx<'_>, EngineIx) -> u32) -> EngineIx {
        let engine = self.roster.join(joining);
        let hwm = hwm(&AdmissionCx::new(now, &self.roster), engine);
        self.roster.set_hwm(engine, hwm);
        self.learned.forget_engine(engine);
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
        self.pick_traced(now, request, false).0
    }

    /// Asks the scheme, and, if `traced`, returns the candidates that it says it considered.
    pub fn pick_traced(&mut self, now: Time, request: &Request<'_>, traced: bool) -> (Chosen, &[Considered]) {
        self.trace.clear();
        if !self.any_open(&request.candidates) {
            return (Chosen::NoneOpen, &self.trace);
        }
        let request = &request.shown(self.needs);
        let trace = traced.then_some(&mut self.trace);
        let mut cx = Cx { now, roster: &self.roster, rng: &mut self.rng, learned: &self.learned, trace };
        let chosen = match self.scheme.pick(&mut cx, request) {
            Pick::Engine(engine) if self.roster.is_open(engine) && request.candidates.contains(engine) => Chosen::Engine(engine),
            Pick::Engine(_) => {
                self.faults += 1;
                Chosen::Defer { until: None }
            }
            Pick::Defer { until } => Chosen::Defer { until },
        };
        (chosen, &self.trace)
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
        let request = request.shown(self.needs);
        self.tell(now, |scheme, cx| ticket = scheme.on_dispatch(cx, engine, &request));
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
