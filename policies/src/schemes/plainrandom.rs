//! One engine uniformly at random. Source: ipyparallel's `plainrandom`.

use super::NoParameters;
use crate::index::DenseSet;
use crate::{Candidates, Cx, EngineIx, Named, Pick, Request, Roster, Scheme, SchemeError};

/// The scheme `plainrandom`.
#[derive(Clone, Debug, Default)]
pub struct PlainRandom {
    open: DenseSet,
}

impl Scheme for PlainRandom {
    fn pick(&mut self, cx: &mut Cx<'_>, request: &Request<'_>) -> Pick {
        let found = match request.candidates {
            Candidates::All => self.open.draw(cx.rng),
            Candidates::Only(list) => list.get(cx.rng.below(list.len().max(1))).copied(),
            Candidates::Except(list) => self.open.draws_except(list).draw(cx.rng),
        };
        found.map_or(Pick::Defer { until: None }, Pick::Engine)
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

/// Whether `set` holds exactly the open engines.
pub(super) fn check_members(set: &DenseSet, roster: &Roster) -> Result<(), String> {
    let missing = roster.open_engines().find(|&engine| !set.contains(engine));
    match missing {
        Some(engine) => Err(format!("{engine:?} is open and not indexed")),
        None if set.len() != roster.open_count() => Err(format!("{} indexed, {} open", set.len(), roster.open_count())),
        None => Ok(()),
    }
}

impl Named for PlainRandom {
    const NAME: &'static str = "plainrandom";
    const SUMMARY: &'static str = "one engine uniformly at random";
    type Config = NoParameters;
    fn build(_: NoParameters) -> Result<Self, SchemeError> {
        Ok(PlainRandom::default())
    }
}
