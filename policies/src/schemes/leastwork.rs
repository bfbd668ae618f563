//! Least work left: the engine that will have finished what it has soonest, by labels or learned times; idle ones first.
//! Source: Harchol-Balter, Crovella and Murta, JPDC 59(2), 1999; with exact sizes it starts tasks as one queue for all would (Kiefer and Wolfowitz 1955).

use super::{NoParameters, engine_or_defer, stamp_key};
use crate::index::{WinnerTree, fresh_row};
use crate::{Cx, EngineIx, Named, Needs, Outcome, Pick, PolicyError, Request, Roster, Scheme, Ticket};

/// What a task is taken to last while nothing is known of any, in nanoseconds.
const UNKNOWN_NS: u64 = 1_000_000_000;

#[derive(Clone, Copy, Debug, Default)]
struct Work {
    /// Of all tasks in flight, as expected when they were sent.
    sent_ns: u64,
    /// When it will have been done; 0 for an engine with nothing.
    until_ns: u64,
}

/// The scheme `leastwork`. All in whole nanoseconds, so that equal work is equal.
#[derive(Clone, Debug, Default)]
pub struct LeastWork {
    work: Vec<Work>,
    open: WinnerTree,
}

fn key(work: &[Work], roster: &Roster, engine: EngineIx) -> u128 {
    u128::from(work[engine.slot()].until_ns) << 64 | stamp_key(roster, engine)
}

impl LeastWork {
    fn refresh(&mut self, roster: &Roster, engine: EngineIx) {
        if roster.is_open(engine) {
            self.open.set(engine, key(&self.work, roster, engine));
        }
    }
}

impl Scheme for LeastWork {
    fn is_work_conserving(&self) -> Option<bool> {
        Some(true)
    }

    fn needs(&self) -> Needs {
        Needs::COST | Needs::ESTIMATE | Needs::SPEED
    }

    fn pick(&mut self, cx: &mut Cx<'_>, request: &Request<'_>) -> Pick {
        let found = self.open.least(request.candidates, |engine| key(&self.work, cx.roster, engine));
        if let Some(engine) = found {
            let now = cx.now.as_ns();
            cx.consider(engine, |_| self.work[engine.slot()].until_ns.saturating_sub(now) as f64 / 1e9);
        }
        engine_or_defer(found)
    }

    fn on_join(&mut self, _cx: &mut Cx<'_>, engine: EngineIx) {
        fresh_row(&mut self.work, engine);
    }

    fn on_open(&mut self, cx: &mut Cx<'_>, engine: EngineIx) {
        self.refresh(cx.roster, engine);
    }

    fn on_close(&mut self, _cx: &mut Cx<'_>, engine: EngineIx) {
        self.open.remove(engine);
    }

    fn on_dispatch(&mut self, cx: &mut Cx<'_>, engine: EngineIx, request: &Request<'_>) -> Ticket {
        let expected_ns = cx.expected_s(&request.task, engine).map_or(UNKNOWN_NS, |s| (s * 1e9).round().clamp(1.0, 1e18) as u64);
        let work = &mut self.work[engine.slot()];
        work.sent_ns = work.sent_ns.saturating_add(expected_ns);
        work.until_ns = work.until_ns.max(cx.now.as_ns()).saturating_add(expected_ns);
        self.refresh(cx.roster, engine);
        Ticket(expected_ns)
    }

    fn on_outcome(&mut self, cx: &mut Cx<'_>, engine: EngineIx, outcome: &Outcome) {
        let work = &mut self.work[engine.slot()];
        work.sent_ns = work.sent_ns.saturating_sub(outcome.ticket.0);
        // Engines run in the order of arrival: what is left begins now, whatever the last one had been expected to take.
        *work = match cx.roster.load(engine) {
            0 => Work::default(),
            _ => Work { sent_ns: work.sent_ns, until_ns: cx.now.as_ns().saturating_add(work.sent_ns) },
        };
        self.refresh(cx.roster, engine);
    }

    fn check(&self, roster: &Roster) -> Result<(), String> {
        self.open.check(roster, |engine| key(&self.work, roster, engine))
    }
}

impl Named for LeastWork {
    const NAME: &'static str = "leastwork";
    const SUMMARY: &'static str = "the engine that will be done soonest, by labels or learned times";
    const SOURCE: &'static str = "Harchol-Balter, Crovella and Murta 1999 (least work left)";
    const ALIASES: &'static [&'static str] = &["lwl"];
    type Config = NoParameters;
    fn build(_: NoParameters) -> Result<Self, PolicyError> {
        Ok(LeastWork::default())
    }
}
