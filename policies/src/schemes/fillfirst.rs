//! The first engine with room, in the order of places: fills one before it uses the next, so that the rest can be switched off.
//! Source: first fit, as packing; "fill first" of HAProxy's `first` and of energy-aware placement (Pinheiro et al. 2001).

use super::roundrobin::check_slots;
use super::{NoParameters, engine_or_defer};
use crate::index::SlotSet;
use crate::{Candidates, Cx, EngineIx, Named, Pick, PolicyError, Request, Roster, Scheme};

/// The scheme `fillfirst`.
#[derive(Clone, Debug, Default)]
pub struct FillFirst {
    open: SlotSet,
}

impl Scheme for FillFirst {
    fn is_work_conserving(&self) -> Option<bool> {
        Some(true)
    }

    fn pick(&mut self, cx: &mut Cx<'_>, request: &Request<'_>) -> Pick {
        let found = match request.candidates {
            Candidates::Only(list) => list.iter().copied().min(),
            others => self.open.next_where(0, |engine| others.contains(engine)),
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

    fn check(&self, roster: &Roster) -> Result<(), String> {
        check_slots(&self.open, roster)
    }
}

impl Named for FillFirst {
    const NAME: &'static str = "fillfirst";
    const SUMMARY: &'static str = "the first engine with room, so that the others stay free; wants a limit (hwm)";
    const SOURCE: &'static str = "first fit; Pinheiro et al. 2001";
    const ROOM: crate::Room = crate::Room::Limited;
    type Config = NoParameters;
    fn build(_: NoParameters) -> Result<Self, PolicyError> {
        Ok(FillFirst::default())
    }
}
