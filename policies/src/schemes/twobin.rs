//! Two engines uniformly at random, with replacement; the less recently used of them. Despite the name it never looks at load.
//! Source: ipyparallel's `twobin`, which takes the lower of two random indices into its least-recently-used list.

use super::{NoParameters, check_members, engine_or_defer};
use crate::index::DenseSet;
use crate::{Cx, EngineIx, Named, Pick, PolicyError, Request, Roster, Scheme};

/// The scheme `twobin`.
#[derive(Clone, Debug, Default)]
pub struct TwoBin {
    open: DenseSet,
}

impl Scheme for TwoBin {
    fn is_work_conserving(&self) -> Option<bool> {
        Some(true)
    }

    fn pick(&mut self, cx: &mut Cx<'_>, request: &Request<'_>) -> Pick {
        let eligible = self.open.eligible(request.candidates);
        let drawn = [eligible.draw(cx.rng), eligible.draw(cx.rng)];
        for engine in drawn.into_iter().flatten() {
            cx.consider(engine, |roster| roster.stamp(engine) as f64);
        }
        engine_or_defer(drawn.into_iter().flatten().min_by_key(|&engine| cx.roster.stamp(engine)))
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
    const SOURCE: &'static str = "ipyparallel";
    type Config = NoParameters;
    fn build(_: NoParameters) -> Result<Self, PolicyError> {
        Ok(TwoBin::default())
    }
}
