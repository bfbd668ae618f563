//! Fewest tasks in flight; among equals the least recently used. ipyparallel's default.
//! Source: ipyparallel's `leastload` (first minimum of its least-recently-used list); join the shortest queue in the literature.

use super::{NoParameters, stamp_key};
use crate::index::WinnerTree;
use crate::{Candidates, Cx, EngineIx, Named, Outcome, Pick, Request, Roster, Scheme, SchemeError, Ticket};

/// The scheme `leastload`.
#[derive(Clone, Debug, Default)]
pub struct LeastLoad {
    open: WinnerTree,
}

fn key(roster: &Roster, engine: EngineIx) -> u128 {
    u128::from(roster.load(engine)) << 64 | stamp_key(roster, engine)
}

impl LeastLoad {
    fn refresh(&mut self, roster: &Roster, engine: EngineIx) {
        if roster.is_open(engine) {
            self.open.set(engine, key(roster, engine));
        }
    }
}

impl Scheme for LeastLoad {
    fn pick(&mut self, cx: &mut Cx<'_>, request: &Request<'_>) -> Pick {
        let found = match request.candidates {
            Candidates::All => self.open.min(),
            Candidates::Only(list) => list.iter().copied().min_by_key(|&engine| key(cx.roster, engine)),
            Candidates::Except(list) => self.open.min_except(list),
        };
        found.map_or(Pick::Defer { until: None }, Pick::Engine)
    }

    fn on_open(&mut self, cx: &mut Cx<'_>, engine: EngineIx) {
        self.refresh(cx.roster, engine);
    }

    fn on_close(&mut self, _cx: &mut Cx<'_>, engine: EngineIx) {
        self.open.remove(engine);
    }

    fn on_dispatch(&mut self, cx: &mut Cx<'_>, engine: EngineIx, _request: &Request<'_>) -> Ticket {
        self.refresh(cx.roster, engine);
        Ticket::default()
    }

    fn on_outcome(&mut self, cx: &mut Cx<'_>, engine: EngineIx, _outcome: &Outcome) {
        self.refresh(cx.roster, engine);
    }

    fn check(&self, roster: &Roster) -> Result<(), String> {
        for engine in (0..roster.slots() as u32).map(EngineIx::new) {
            let expected = roster.is_open(engine).then(|| key(roster, engine));
            if self.open.key(engine) != expected {
                return Err(format!("{engine:?}: indexed under {:?}, roster says {expected:?}", self.open.key(engine)));
            }
        }
        Ok(())
    }
}

impl Named for LeastLoad {
    const NAME: &'static str = "leastload";
    const SUMMARY: &'static str = "fewest tasks in flight, ties to the least recently used";
    type Config = NoParameters;
    fn build(_: NoParameters) -> Result<Self, SchemeError> {
        Ok(LeastLoad::default())
    }
}
