//! Schemes that decide on the live state without acting, beside the one that acts: what each would have chosen, how often it agrees, what
//! its choices promised, and what it costs. They are told everything that the acting scheme is told, and nothing they answer is followed.

use smallvec::SmallVec;

use crate::placement::{InFlight, tell_the_past};
use crate::{Cx, EngineIx, Learned, Needs, Pick, Request, Rng, Roster, Scheme, Ticket, Time};

/// Nanoseconds from some origin: how a driver lends its clock to those who have none.
pub type Stopwatch = fn() -> u64;

/// Schemes with the names that they are reported under.
pub type NamedSchemes = Vec<(String, Box<dyn Scheme>)>;

/// What came of a shadow so far.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct ShadowReport {
    /// The scheme with its parameters.
    pub name: String,
    /// Decisions that it was asked for.
    pub decisions: u64,
    /// Those in which it chose the same engine.
    pub agreed: u64,
    /// Those that it would have put off.
    pub deferred: u64,
    /// Those in which it chose an engine that it must not use.
    pub faults: u64,
    /// By how many seconds sooner the task would have been done on the shadow's engines, expected at the moment of each decision, summed:
    /// tasks in flight there and this one, times how long it is expected to run, by the engine's speed. Below 0 if later.
    pub gain_s: f64,
    /// What its decisions cost, in nanoseconds, summed; 0 without a stopwatch.
    pub cost_ns: u64,
}

pub(crate) struct Shadow {
    scheme: Box<dyn Scheme>,
    needs: Needs,
    rng: Rng,
    report: ShadowReport,
}

/// The shadows of a placement, and the tickets of all: the acting scheme's first.
#[derive(Default)]
pub(crate) struct Shadows {
    list: Vec<Shadow>,
    tickets: Vec<SmallVec<[Ticket; 3]>>,
    free: Vec<u32>,
    pub(crate) stopwatch: Option<Stopwatch>,
}

impl std::fmt::Debug for Shadows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.list.iter().map(|shadow| &shadow.report)).finish()
    }
}

impl Shadows {
    pub(crate) fn new(schemes: NamedSchemes, seed: u64) -> Self {
        let shadow = |(name, scheme): (String, Box<dyn Scheme>)| Shadow {
            needs: scheme.needs(),
            scheme,
            rng: Rng::stream(seed, &format!("shadow {name}")),
            report: ShadowReport { name, ..ShadowReport::default() },
        };
        Shadows { list: schemes.into_iter().map(shadow).collect(), ..Shadows::default() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(crate) fn needs(&self) -> Needs {
        // `follow` is a wish only if the acting scheme says so.
        let all = self.list.iter().fold(Needs::empty(), |all, shadow| all | shadow.needs).difference(Needs::SOFT_FOLLOW);
        // Choices are compared by when the task would be done.
        if self.list.is_empty() { all } else { all | Needs::COST | Needs::ESTIMATE | Needs::SPEED }
    }

    pub(crate) fn reports(&self) -> impl Iterator<Item = &ShadowReport> {
        self.list.iter().map(|shadow| &shadow.report)
    }

    /// Tells each the past, and gathers the tickets of all.
    pub(crate) fn tell_past(
        &mut self,
        now: Time,
        roster: &Roster,
        learned: &Learned,
        running: &[InFlight<'_>],
        own: &[Ticket],
        hand_out: &mut impl FnMut(usize, Ticket),
    ) {
        self.tickets = own.iter().map(|&ticket| SmallVec::from_slice(&[ticket])).collect();
        let Shadows { list, tickets, .. } = self;
        for Shadow { scheme, needs, rng, .. } in list {
            tell_the_past(now, &mut **scheme, *needs, rng, roster, learned, running, |index, ticket| tickets[index].push(ticket));
        }
        (0..own.len()).for_each(|index| hand_out(index, Ticket(index as u64)));
    }

    /// Tells each what has happened.
    pub(crate) fn tell(&mut self, now: Time, roster: &Roster, learned: &Learned, hook: impl Fn(&mut dyn Scheme, &mut Cx<'_>)) {
        for Shadow { scheme, rng, needs, .. } in &mut self.list {
            hook(&mut **scheme, &mut Cx { now, roster, rng, learned: learned.shown(*needs), trace: None });
        }
    }

    /// Tells each of a dispatch, and keeps its ticket beside the acting scheme's. Returns what stands for all of them.
    pub(crate) fn dispatched(
        &mut self,
        now: Time,
        roster: &Roster,
        learned: &Learned,
        engine: EngineIx,
        request: &Request<'_>,
        own: Ticket,
    ) -> Ticket {
        let mut tickets: SmallVec<[Ticket; 3]> = SmallVec::from_slice(&[own]);
        for Shadow { scheme, rng, needs, .. } in &mut self.list {
            let cx = &mut Cx { now, roster, rng, learned: learned.shown(*needs), trace: None };
            tickets.push(scheme.on_dispatch(cx, engine, &request.shown(*needs)));
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.tickets.push(SmallVec::new());
            (self.tickets.len() - 1) as u32
        });
        self.tickets[slot as usize] = tickets;
        Ticket(u64::from(slot))
    }

    /// The acting scheme's ticket of a dispatch.
    pub(crate) fn own_ticket(&self, all: Ticket) -> Ticket {
        self.tickets.get(all.0 as usize).and_then(|tickets| tickets.first()).copied().unwrap_or_default()
    }

    pub(crate) fn set_own_ticket(&mut self, all: Ticket, own: Ticket) {
        if let Some(first) = self.tickets.get_mut(all.0 as usize).and_then(|tickets| tickets.first_mut()) {
            *first = own;
        }
    }

    /// Takes the tickets of a dispatch that is over; the acting scheme's first.
    pub(crate) fn take_tickets(&mut self, all: Ticket) -> SmallVec<[Ticket; 3]> {
        let Some(tickets) = self.tickets.get_mut(all.0 as usize) else { return SmallVec::new() };
        self.free.push(all.0 as u32);
        std::mem::take(tickets)
    }

    /// Tells each of an end, with its own ticket.
    pub(crate) fn ended(
        &mut self,
        now: Time,
        roster: &Roster,
        learned: &Learned,
        tickets: &[Ticket],
        hook: impl Fn(&mut dyn Scheme, &mut Cx<'_>, Ticket, Needs),
    ) {
        for (Shadow { scheme, rng, needs, .. }, &ticket) in self.list.iter_mut().zip(tickets.iter().skip(1)) {
            hook(&mut **scheme, &mut Cx { now, roster, rng, learned: learned.shown(*needs), trace: None }, ticket, *needs);
        }
    }

    /// Each scheme's own check, none of them at fault, and no more tickets than tasks in flight.
    pub(crate) fn check(&self, roster: &Roster) -> Result<(), String> {
        let in_flight: usize = roster.live_engines().map(|engine| roster.load(engine) as usize).sum();
        let held = self.tickets.len() - self.free.len();
        if held != in_flight {
            return Err(format!("shadows hold tickets of {held} tasks, {in_flight} are in flight"));
        }
        self.list.iter().try_for_each(|shadow| {
            let name = &shadow.report.name;
            if shadow.report.faults > 0 {
                return Err(format!("shadow {name}: chose an engine that it must not use"));
            }
            shadow.scheme.check(roster).map_err(|error| format!("shadow {name}: {error}"))
        })
    }

    /// Asks each what it would do where `chosen` was chosen.
    pub(crate) fn compare(&mut self, now: Time, roster: &Roster, learned: &Learned, request: &Request<'_>, chosen: EngineIx) {
        let each_s = learned.expected_s(&request.task.shown(Needs::COST | Needs::ESTIMATE)).unwrap_or(1.0);
        let done_s = |engine: EngineIx| f64::from(roster.load(engine) + 1) * each_s / learned.speed(engine);
        for Shadow { scheme, rng, needs, report } in &mut self.list {
            let start = self.stopwatch.map_or(0, |watch| watch());
            let picked =
                scheme.pick(&mut Cx { now, roster, rng, learned: learned.shown(*needs), trace: None }, &request.shown(*needs));
            report.cost_ns += self.stopwatch.map_or(0, |watch| watch().saturating_sub(start));
            report.decisions += 1;
            match picked {
                Pick::Engine(engine) if !roster.is_open(engine) || !request.candidates.contains(engine) => report.faults += 1,
                Pick::Engine(engine) => {
                    report.agreed += u64::from(engine == chosen);
                    report.gain_s += done_s(chosen) - done_s(engine);
                }
                Pick::Defer { .. } => report.deferred += 1,
            }
        }
    }
}
