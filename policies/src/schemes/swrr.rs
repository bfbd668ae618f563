//! Engines in turn, each as often as its weight says and as evenly spread as can be. Source: the aim is nginx's smooth weighted round
//! robin (Dounin 2012), which scans all; here each has a next virtual turn, as in stride scheduling (Waldspurger and Weihl, MIT TM-528, 1995).

use super::weights::{BY, WeightBy};
use super::{engine_or_defer, stamp_key};
use crate::index::{WinnerTree, fresh_row, sortable};
use crate::{Cx, EngineIx, Named, Needs, Pick, PolicyError, Request, Roster, Scheme, Ticket};

/// The scheme `swrr`.
#[derive(Clone, Debug, Default)]
pub struct Swrr {
    by: WeightBy,
    /// Each engine's next turn, in virtual time.
    turns: Vec<f64>,
    open: WinnerTree,
    /// Virtual time: the least turn of an open engine.
    now: f64,
}

/// Parameters of [`Swrr`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SwrrConfig {
    by: WeightBy,
}

fn key(turns: &[f64], roster: &Roster, engine: EngineIx) -> u128 {
    u128::from(sortable(turns[engine.slot()])) << 64 | stamp_key(roster, engine)
}

impl Scheme for Swrr {
    fn is_work_conserving(&self) -> Option<bool> {
        Some(true)
    }

    fn needs(&self) -> Needs {
        self.by.needs()
    }

    fn pick(&mut self, cx: &mut Cx<'_>, request: &Request<'_>) -> Pick {
        let found = self.open.least(request.candidates, |engine| key(&self.turns, cx.roster, engine));
        if let Some(engine) = found {
            cx.consider(engine, |_| self.turns[engine.slot()]);
        }
        engine_or_defer(found)
    }

    fn on_join(&mut self, _cx: &mut Cx<'_>, engine: EngineIx) {
        fresh_row(&mut self.turns, engine);
    }

    fn on_open(&mut self, cx: &mut Cx<'_>, engine: EngineIx) {
        // Turns that it could not take are not owed to it; the first is half a period away, so that equals interleave.
        let turn = &mut self.turns[engine.slot()];
        *turn = turn.max(self.now + 0.5 / self.by.weight(cx, engine));
        self.open.set(engine, key(&self.turns, cx.roster, engine));
    }

    fn on_close(&mut self, _cx: &mut Cx<'_>, engine: EngineIx) {
        self.open.remove(engine);
    }

    fn on_dispatch(&mut self, cx: &mut Cx<'_>, engine: EngineIx, _request: &Request<'_>) -> Ticket {
        // The least turn of all is what time it is: a task that was bound to an engine far ahead tells nothing.
        if let Some(least) = self.open.min() {
            self.now = self.now.max(self.turns[least.slot()]);
        }
        self.turns[engine.slot()] += 1.0 / self.by.weight(cx, engine);
        if cx.roster.is_open(engine) {
            self.open.set(engine, key(&self.turns, cx.roster, engine));
        }
        Ticket::default()
    }

    fn check(&self, roster: &Roster) -> Result<(), String> {
        self.open.check(roster, |engine| key(&self.turns, roster, engine))
    }
}

impl Named for Swrr {
    const NAME: &'static str = "swrr";
    const SUMMARY: &'static str = "smooth weighted round robin: faster engines more often, evenly spread";
    const SOURCE: &'static str = "Dounin 2012; Waldspurger and Weihl 1995";
    const PARAMETERS: &'static [(&'static str, &'static str)] = &[BY];
    type Config = SwrrConfig;
    fn build(config: SwrrConfig) -> Result<Self, PolicyError> {
        Ok(Swrr { by: config.by, ..Swrr::default() })
    }
}
