//! A scheme and its roster, kept in step: every change goes through here, so hooks come in the promised order and a scheme that
//! answers with a closed or forbidden engine is caught before anything is sent. It never decides anything itself.

use crate::shadow::{NamedSchemes, ShadowReport, Shadows, Stopwatch};
use crate::{
    AdmissionCx, Candidates, Considered, Cx, EngineIx, Joining, Learned, Needs, Outcome, Pick, Request, Rng, Roster, Scheme,
    Signal, Ticket, Time,
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
    /// Boxed, as there are none mostly.
    shadows: Option<Box<Shadows>>,
    seed: u64,
    faults: u64,
}

/// A task at an engine, for a scheme that takes over.
#[derive(Clone, Copy, Debug)]
pub struct InFlight<'a> {
    /// Where it is.
    pub engine: EngineIx,
    /// The ticket of its dispatch.
    pub ticket: Ticket,
    /// The task.
    pub request: Request<'a>,
}

/// Tells a scheme of every engine and of every task in flight as if it had been there from the start.
#[allow(clippy::too_many_arguments, reason = "the parts of a placement, borrowed one by one")]
pub(crate) fn tell_the_past<S: Scheme + ?Sized>(
    now: Time,
    scheme: &mut S,
    needs: Needs,
    rng: &mut Rng,
    roster: &Roster,
    learned: &Learned,
    running: &[InFlight<'_>],
    mut hand_out: impl FnMut(usize, Ticket),
) {
    let learned = learned.shown(needs);
    let mut past = roster.idle_copy();
    let live: Vec<EngineIx> = past.live_engines().collect();
    for &engine in &live {
        let cx = &mut Cx { now, roster: &past, rng, learned, trace: None };
        scheme.on_join(cx, engine);
        scheme.on_open(cx, engine);
    }
    for (index, InFlight { engine, request, .. }) in running.iter().enumerate() {
        past.replayed(*engine);
        let cx = &mut Cx { now, roster: &past, rng, learned, trace: None };
        hand_out(index, scheme.on_dispatch(cx, *engine, &request.shown(needs)));
    }
    for engine in live {
        if !roster.is_open(engine) {
            scheme.on_close(&mut Cx { now, roster, rng, learned, trace: None }, engine);
        }
    }
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
            shadows: None,
            seed,
            faults: 0,
        }
    }

    /// Puts another scheme in the place of this one. It is told of every engine and of every task in flight (`running`, in the order of
    /// dispatch, with the tickets they have) as if it had been there from the start; `hand_out` gets the new ticket of each, by its index.
    /// Draws go on where they were. Returns the old scheme. O(engines + tasks in flight).
    pub fn replace(&mut self, now: Time, scheme: S, running: &[InFlight<'_>], mut hand_out: impl FnMut(usize, Ticket)) -> S {
        self.needs = scheme.needs();
        let former = std::mem::replace(&mut self.scheme, scheme);
        let Placement { scheme, rng, learned, needs, roster, shadows, .. } = self;
        tell_the_past(now, scheme, *needs, rng, roster, learned, running, |index, ticket| match shadows {
            Some(shadows) => shadows.set_own_ticket(running[index].ticket, ticket),
            None => hand_out(index, ticket),
        });
        former
    }

    /// Lets other schemes decide on the same state without acting, instead of those that do. They are told the past as in
    /// [`replace`](Self::replace); tasks in flight get other tickets. `stopwatch` measures what they cost. O(shadows * (engines + tasks)).
    pub fn set_shadows(
        &mut self,
        now: Time,
        schemes: NamedSchemes,
        stopwatch: Option<Stopwatch>,
        running: &[InFlight<'_>],
        mut hand_out: impl FnMut(usize, Ticket),
    ) {
        let former = self.shadows.take();
        let own = |ticket: Ticket| former.as_ref().map_or(ticket, |shadows| shadows.own_ticket(ticket));
        let mut shadows = Box::new(Shadows::new(schemes, self.seed));
        shadows.stopwatch = stopwatch;
        if shadows.is_empty() {
            return running.iter().enumerate().for_each(|(index, task)| hand_out(index, own(task.ticket)));
        }
        let owned: Vec<Ticket> = running.iter().map(|task| own(task.ticket)).collect();
        shadows.tell_past(now, &self.roster, &self.learned, running, &owned, &mut hand_out);
        self.shadows = Some(shadows);
    }

    /// What came of the shadows so far.
    pub fn shadow_reports(&self) -> impl Iterator<Item = &ShadowReport> {
        self.shadows.iter().flat_map(|shadows| shadows.reports())
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

    /// What the scheme and its shadows look at together.
    pub fn all_needs(&self) -> Needs {
        self.needs | self.shadows.as_ref().map_or(Needs::empty(), |shadows| shadows.needs())
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
        let Placement { scheme, roster, rng, learned, needs, .. } = self;
        hook(scheme, &mut Cx { now, roster, rng, learned: learned.shown(*needs), trace: None });
    }

    fn tell_shadows(&mut self, now: Time, hook: impl Fn(&mut dyn Scheme, &mut Cx<'_>)) {
        let Placement { shadows, roster, learned, .. } = self;
        if let Some(shadows) = shadows {
            shadows.tell(now, roster, learned, hook);
        }
    }

    /// Tells the scheme if `change` opened or closed `engine`. Returns whether it is open now and was not before.
    fn tell_change(&mut self, now: Time, engine: EngineIx, was_open: bool) -> bool {
        let is_open = self.roster.is_open(engine);
        match (was_open, is_open) {
            (false, true) => {
                self.tell(now, |scheme, cx| scheme.on_open(cx, engine));
                self.tell_shadows(now, |scheme, cx| scheme.on_open(cx, engine));
            }
            (true, false) => {
                self.tell(now, |scheme, cx| scheme.on_close(cx, engine));
                self.tell_shadows(now, |scheme, cx| scheme.on_close(cx, engine));
            }
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
        self.tell_shadows(now, |scheme, cx| scheme.on_join(cx, engine));
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
        self.tell_shadows(now, |scheme, cx| scheme.on_leave(cx, engine));
    }

    /// Bars an engine from new work (draining, lost) or admits it again. Returns whether this opened it.
    pub fn set_barred(&mut self, now: Time, engine: EngineIx, barred: bool) -> bool {
        let (was_open, was_barred) = (self.roster.is_open(engine), self.roster.is_barred(engine));
        self.roster.set_barred(engine, barred);
        if was_barred != barred && was_open == self.roster.is_open(engine) {
            self.tell(now, |scheme, cx| scheme.on_barred(cx, engine));
            self.tell_shadows(now, |scheme, cx| scheme.on_barred(cx, engine));
        }
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
        let whole = request;
        let request = &request.shown(self.needs);
        let trace = traced.then_some(&mut self.trace);
        let learned = self.learned.shown(self.needs);
        let mut cx = Cx { now, roster: &self.roster, rng: &mut self.rng, learned, trace };
        let chosen = match self.scheme.pick(&mut cx, request) {
            Pick::Engine(engine) if self.roster.is_open(engine) && request.candidates.contains(engine) => Chosen::Engine(engine),
            Pick::Engine(_) => {
                self.faults += 1;
                Chosen::Defer { until: None }
            }
            Pick::Defer { until } => Chosen::Defer { until },
        };
        if let (Some(shadows), Chosen::Engine(engine)) = (&mut self.shadows, chosen) {
            shadows.compare(now, &self.roster, &self.learned, whole, engine);
        }
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
        let shown = request.shown(self.needs);
        self.tell(now, |scheme, cx| ticket = scheme.on_dispatch(cx, engine, &shown));
        if let Some(shadows) = &mut self.shadows {
            ticket = shadows.dispatched(now, &self.roster, &self.learned, engine, request, ticket);
        }
        self.tell_change(now, engine, was_open);
        ticket
    }

    /// Records what an engine says of its load.
    pub fn signal(&mut self, now: Time, engine: EngineIx, signal: Signal) {
        if self.needs.contains(Needs::SIGNAL) {
            self.tell(now, |scheme, cx| scheme.on_signal(cx, engine, signal));
        }
        self.tell_shadows(now, |scheme, cx| {
            if scheme.needs().contains(Needs::SIGNAL) {
                scheme.on_signal(cx, engine, signal);
            }
        });
    }

    /// Records that a task is no longer on `engine`. Returns whether this opened the engine.
    pub fn outcome(&mut self, now: Time, engine: EngineIx, outcome: &Outcome) -> bool {
        let was_open = self.roster.is_open(engine);
        self.roster.released(engine);
        match self.shadows.take() {
            None => {
                let shown = outcome.shown(self.needs);
                self.tell(now, |scheme, cx| scheme.on_outcome(cx, engine, &shown));
            }
            Some(mut shadows) => {
                let tickets = shadows.take_tickets(outcome.ticket);
                let own = Outcome { ticket: tickets.first().copied().unwrap_or_default(), ..outcome.shown(self.needs) };
                self.tell(now, |scheme, cx| scheme.on_outcome(cx, engine, &own));
                shadows.ended(now, &self.roster, &self.learned, &tickets, |scheme, cx, ticket, needs| {
                    scheme.on_outcome(cx, engine, &Outcome { ticket, ..outcome.shown(needs) });
                });
                self.shadows = Some(shadows);
            }
        }
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
        self.tell_shadows(now, |scheme, cx| {
            if scheme.next_wake().is_some_and(|at| at <= cx.now) {
                scheme.on_wake(cx);
            }
        });
    }

    /// The scheme's own check of its index. O(n).
    ///
    /// # Errors
    /// Says what differs from the roster.
    pub fn check(&self) -> Result<(), String> {
        self.scheme.check(&self.roster)?;
        self.shadows.as_ref().map_or(Ok(()), |shadows| shadows.check(&self.roster))
    }
}
