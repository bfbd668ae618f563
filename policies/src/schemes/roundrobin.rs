//! Engines in turn, in the order of their places, whatever they run; closed ones are passed over.
//! Source: folklore; as "cyclic" in Ephremides, Varaiya and Walrand 1980, where it is best among rules that see nothing.

use super::{NoParameters, engine_or_defer};
use crate::index::SlotSet;
use crate::{Candidates, Cx, EngineIx, Named, Pick, PolicyError, Request, Roster, Scheme, Ticket};

/// The scheme `roundrobin`.
#[derive(Clone, Debug, Default)]
pub struct RoundRobin {
    open: SlotSet,
    next: usize,
}

impl Scheme for RoundRobin {
    fn is_work_conserving(&self) -> Option<bool> {
        Some(true)
    }

    fn pick(&mut self, cx: &mut Cx<'_>, request: &Request<'_>) -> Pick {
        let found = match request.candidates {
            Candidates::Only(list) => list.iter().copied().min_by_key(|engine| (engine.slot() < self.next, engine.slot())),
            others => {
                let admitted = |engine| others.contains(engine);
                self.open.next_where(self.next, admitted).or_else(|| self.open.next_where(0, admitted))
            }
        };
        if let Some(engine) = found {
            cx.consider(engine, |_| engine.slot() as f64);
        }
        engine_or_defer(found)
    }

    fn on_open(&mut self, _cx: &mut Cx<'_>, engine: EngineIx) {
        self.open.insert(engine);
    }

    fn on_close(&mut self, _cx: &mut Cx<'_>, engine: EngineIx) {
        self.open.remove(engine);
    }

    fn on_dispatch(&mut self, _cx: &mut Cx<'_>, engine: EngineIx, _request: &Request<'_>) -> Ticket {
        self.next = engine.slot() + 1;
        Ticket::default()
    }

    fn check(&self, roster: &Roster) -> Result<(), String> {
        check_slots(&self.open, roster)
    }
}

/// Whether `set` holds exactly the open engines.
pub(super) fn check_slots(set: &SlotSet, roster: &Roster) -> Result<(), String> {
    match roster.open_engines().find(|&engine| !set.contains(engine)) {
        Some(engine) => Err(format!("{engine:?} is open and not indexed")),
        None if set.len() != roster.open_count() => Err(format!("{} indexed, {} open", set.len(), roster.open_count())),
        None => Ok(()),
    }
}

impl Named for RoundRobin {
    const NAME: &'static str = "roundrobin";
    const SUMMARY: &'static str = "engines in turn, whatever they run";
    const SOURCE: &'static str = "Ephremides, Varaiya and Walrand 1980";
    type Config = NoParameters;
    fn build(_: NoParameters) -> Result<Self, PolicyError> {
        Ok(RoundRobin::default())
    }
}
