//! Two engines uniformly at random, with replacement; the less recently used of them. Despite the name it never looks at load.
//! Source: ipyparallel's `twobin`, which takes the lower of two random indices into its least-recently-used list.

use super::NoParameters;
use super::plainrandom::check_members;
use crate::index::DenseSet;
use crate::{Candidates, Cx, EngineIx, Named, Pick, Request, Roster, Scheme, SchemeError};

/// The scheme `twobin`.
#[derive(Clone, Debug, Default)]
pub struct TwoBin {
    open: DenseSet,
}

impl Scheme for TwoBin {
    fn pick(&mut self, cx: &mut Cx<'_>, request: &Request<'_>) -> Pick {
        let rng = &mut *cx.rng;
        let (a, b) = match request.candidates {
            Candidates::All => (self.open.draw(rng), self.open.draw(rng)),
            Candidates::Only(list) => {
                let n = list.len().max(1);
                (list.get(rng.below(n)).copied(), list.get(rng.below(n)).copied())
            }
            Candidates::Except(list) => {
                let draws = self.open.draws_except(list);
                (draws.draw(rng), draws.draw(rng))
            }
        };
        match (a, b) {
            (Some(a), Some(b)) if cx.roster.stamp(b) < cx.roster.stamp(a) => Pick::Engine(b),
            (Some(a), Some(_)) => Pick::Engine(a),
            _ => Pick::Defer { until: None },
        }
    }

    fn on_open(&mut self, _cx: &mut Cx<'_>, engine: EngineIx) {
        self.open.insert(engine);
    }

    fn on_close(&mut self, _cx: &mut Cx<'_>, engine: EngineIx) {
        self.open.remove(engine);
    }

    fn check(&self, roster: &Roster) -> Result<(), String> {
        check_members(&self.open, roster)
    }
}

impl Named for TwoBin {
    const NAME: &'static str = "twobin";
    const SUMMARY: &'static str = "two engines at random, the less recently used of them";
    type Config = NoParameters;
    fn build(_: NoParameters) -> Result<Self, SchemeError> {
        Ok(TwoBin::default())
    }
}
