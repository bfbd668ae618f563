//! One engine uniformly at random. Source: ipyparallel's `plainrandom`.

use super::{NoParameters, check_members, engine_or_defer};
use crate::index::DenseSet;
use crate::{Cx, EngineIx, Named, Pick, PolicyError, Request, Roster, Scheme};

/// The scheme `plainrandom`.
#[derive(Clone, Debug, Default)]
pub struct PlainRandom {
    open: DenseSet,
}

impl Scheme for PlainRandom {
    fn is_work_conserving(&self) -> Option<bool> {
        Some(true)
    }

    fn pick(&mut self, cx: &mut Cx<'_>, request: &Request<'_>) -> Pick {
        let found = self.open.eligible(request.candidates).draw(cx.rng);
        if let Some(engine) = found {
            cx.consider(engine, |_| 0.0);
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
        check_members(&self.open, roster)
    }
}

impl Named for PlainRandom {
    const NAME: &'static str = "plainrandom";
    const SUMMARY: &'static str = "one engine uniformly at random";
    const SOURCE: &'static str = "ipyparallel";
    type Config = NoParameters;
    fn build(_: NoParameters) -> Result<Self, PolicyError> {
        Ok(PlainRandom::default())
    }
}
