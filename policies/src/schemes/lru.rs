//! Least recently used: the engine that has waited longest for a task, whatever its load.
//! Source: ipyparallel's `lru` (the head of its engine list). Without an hwm this is round robin.

use super::{NoParameters, engine_or_defer, stamp_key};
use crate::index::WinnerTree;
use crate::{Cx, EngineIx, Named, Pick, PolicyError, Request, Roster, Scheme, Ticket};

/// The scheme `lru`.
#[derive(Clone, Debug, Default)]
pub struct Lru {
    open: WinnerTree,
}

impl Scheme for Lru {
    fn is_work_conserving(&self) -> Option<bool> {
        Some(true)
    }

    fn pick(&mut self, cx: &mut Cx<'_>, request: &Request<'_>) -> Pick {
        let found = self.open.least(request.candidates, |engine| stamp_key(cx.roster, engine));
        if let Some(engine) = found {
            cx.consider(engine, |roster| roster.stamp(engine) as f64);
        }
        engine_or_defer(found)
    }

    fn on_open(&mut self, cx: &mut Cx<'_>, engine: EngineIx) {
        self.open.set(engine, stamp_key(cx.roster, engine));
    }

    fn on_close(&mut self, _cx: &mut Cx<'_>, engine: EngineIx) {
        self.open.remove(engine);
    }

    fn on_dispatch(&mut self, cx: &mut Cx<'_>, engine: EngineIx, _request: &Request<'_>) -> Ticket {
        if cx.roster.is_open(engine) {
            self.open.set(engine, stamp_key(cx.roster, engine));
        }
        Ticket::default()
    }

    fn check(&self, roster: &Roster) -> Result<(), String> {
        self.open.check(roster, |engine| stamp_key(roster, engine))
    }
}

impl Named for Lru {
    const NAME: &'static str = "lru";
    const SUMMARY: &'static str = "the least recently used engine; round robin when hwm is 0";
    const SOURCE: &'static str = "ipyparallel";
    type Config = NoParameters;
    fn build(_: NoParameters) -> Result<Self, PolicyError> {
        Ok(Lru::default())
    }
}
