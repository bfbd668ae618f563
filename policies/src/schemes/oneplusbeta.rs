//! With probability beta the better of two engines drawn, otherwise one at random: most of the gain of two choices for part of the looks.
//! Source: Peres, Talwar and Wieder, The (1+beta)-choice process and weighted balls-into-bins, SODA 2010.

use super::{check_members, engine_or_defer, least_of};
use crate::index::DenseSet;
use crate::registry::in_range;
use crate::{Cx, EngineIx, Named, Pick, PolicyError, Request, Roster, Scheme};

/// The scheme `oneplusbeta`.
#[derive(Clone, Debug, Default)]
pub struct OnePlusBeta {
    beta: f64,
    open: DenseSet,
}

/// Parameters of [`OnePlusBeta`].
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OnePlusBetaConfig {
    beta: f64,
}

impl Default for OnePlusBetaConfig {
    fn default() -> Self {
        OnePlusBetaConfig { beta: 0.5 }
    }
}

impl Scheme for OnePlusBeta {
    fn is_work_conserving(&self) -> Option<bool> {
        Some(true)
    }

    fn pick(&mut self, cx: &mut Cx<'_>, request: &Request<'_>) -> Pick {
        let eligible = self.open.eligible(request.candidates);
        let draws = if cx.rng.unit() < self.beta { 2 } else { 1 };
        let drawn: [Option<EngineIx>; 2] = std::array::from_fn(|n| if n < draws { eligible.draw(cx.rng) } else { None });
        engine_or_defer(least_of(cx, drawn.into_iter().flatten(), |cx, engine| f64::from(cx.roster.load(engine))))
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

impl Named for OnePlusBeta {
    const NAME: &'static str = "oneplusbeta";
    const SUMMARY: &'static str = "two engines at random with probability beta, else one; the less loaded";
    const SOURCE: &'static str = "Peres, Talwar and Wieder 2010";
    const PARAMETERS: &'static [(&'static str, &'static str)] = &[("beta", "probability of a second draw, 0 to 1")];
    type Config = OnePlusBetaConfig;
    fn build(config: OnePlusBetaConfig) -> Result<Self, PolicyError> {
        Ok(OnePlusBeta { beta: in_range(Self::NAME, "beta", config.beta, 0.0..=1.0)?, ..OnePlusBeta::default() })
    }
}
