//! The power of d choices: d engines at random, the one with the fewest tasks in flight. Sources: Vvedenskaya, Dobrushin and Karpelevich
//! 1996; Mitzenmacher, IEEE TPDS 12(10), 2001; with memory: Mitzenmacher, Prabhakar and Shah, FOCS 2002.

use smallvec::SmallVec;

use super::{check_members, engine_or_defer, least_of};
use crate::index::DenseSet;
use crate::registry::in_range;
use crate::{Cx, EngineIx, Named, Pick, PolicyError, Request, Roster, Scheme, Ticket};

/// Who goes first among drawn engines with the same load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
enum Tie {
    #[default]
    Random,
    Lru,
}

/// The scheme `choices`.
#[derive(Clone, Debug, Default)]
pub struct Choices {
    config: ChoicesConfig,
    open: DenseSet,
    /// The engines looked at by the last pick, and the best of those that a dispatch left behind.
    looked_at: SmallVec<[EngineIx; 16]>,
    remembered: Option<EngineIx>,
}

/// Parameters of [`Choices`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ChoicesConfig {
    d: usize,
    replacement: bool,
    memory: bool,
    tie: Tie,
}

impl Default for ChoicesConfig {
    fn default() -> Self {
        ChoicesConfig { d: 2, replacement: false, memory: false, tie: Tie::Random }
    }
}

impl Scheme for Choices {
    fn is_work_conserving(&self) -> Option<bool> {
        Some(true)
    }

    fn pick(&mut self, cx: &mut Cx<'_>, request: &Request<'_>) -> Pick {
        let eligible = self.open.eligible(request.candidates);
        let mut drawn = if self.config.replacement {
            (0..self.config.d).filter_map(|_| eligible.draw(cx.rng)).collect()
        } else {
            eligible.sample(self.config.d, cx.rng)
        };
        if let Some(engine) = self.remembered
            && cx.roster.is_open(engine)
            && request.candidates.contains(engine)
        {
            drawn.push(engine);
        }
        let found = match self.config.tie {
            Tie::Random => least_of(cx, drawn.iter().copied(), |cx, engine| f64::from(cx.roster.load(engine))),
            Tie::Lru => {
                let key = |engine: &EngineIx| (cx.roster.load(*engine), cx.roster.stamp(*engine));
                let found = drawn.iter().copied().min_by_key(key);
                for &engine in &drawn {
                    cx.consider(engine, |roster| f64::from(roster.load(engine)));
                }
                found
            }
        };
        if self.config.memory {
            self.looked_at = drawn;
        }
        engine_or_defer(found)
    }

    fn on_open(&mut self, _cx: &mut Cx<'_>, engine: EngineIx) {
        self.open.insert(engine);
    }

    fn on_close(&mut self, _cx: &mut Cx<'_>, engine: EngineIx) {
        self.open.remove(engine);
    }

    fn on_leave(&mut self, _cx: &mut Cx<'_>, engine: EngineIx) {
        self.remembered = self.remembered.filter(|&held| held != engine);
        self.looked_at.retain(|held| *held != engine);
    }

    fn on_dispatch(&mut self, cx: &mut Cx<'_>, engine: EngineIx, _request: &Request<'_>) -> Ticket {
        if self.config.memory {
            // Loads are those after the dispatch: the one picked stays in memory only if it is still the best.
            let seen = std::mem::take(&mut self.looked_at);
            self.remembered = seen.iter().copied().chain([engine]).min_by_key(|&engine| cx.roster.load(engine));
        }
        Ticket::default()
    }

    fn check(&self, roster: &Roster) -> Result<(), String> {
        check_members(&self.open, roster)
    }
}

impl Named for Choices {
    const NAME: &'static str = "choices";
    const SUMMARY: &'static str = "d engines at random, the one with the fewest tasks in flight: JSQ(d)";
    const SOURCE: &'static str = "Vvedenskaya et al. 1996; Mitzenmacher 2001";
    const PARAMETERS: &'static [(&'static str, &'static str)] = &[
        ("d", "how many are drawn, 1 to 64"),
        ("replacement", "whether an engine may be drawn twice"),
        ("memory", "whether the best engine seen at the last decision is looked at too"),
        ("tie", "among equals: random or lru"),
    ];
    type Config = ChoicesConfig;
    fn build(config: ChoicesConfig) -> Result<Self, PolicyError> {
        in_range(Self::NAME, "d", config.d, 1..=64)?;
        Ok(Choices { config, ..Choices::default() })
    }
}
