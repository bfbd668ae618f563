//! Fewest tasks in flight; among equals the least recently used (ipyparallel's default), or by another rule.
//! Source: ipyparallel's `leastload` (first minimum of its least-recently-used list); join the shortest queue (Winston 1977).

use smallvec::SmallVec;

use super::{engine_or_defer, stamp_key};
use crate::index::{MinTree, WinnerTree};
use crate::{Candidates, Cx, EngineIx, Named, Outcome, Pick, PolicyError, Request, Roster, Scheme, Ticket};

/// Who goes first among engines with the same load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
enum Tie {
    /// The least recently used.
    #[default]
    Lru,
    /// Any, uniformly at random.
    Random,
    /// The one in the lowest place.
    First,
    /// The next after the last one picked.
    Round,
}

/// The scheme `leastload`.
#[derive(Clone, Debug, Default)]
pub struct LeastLoad {
    tie: Tie,
    /// By load and use, for [`Tie::Lru`].
    by_use: WinnerTree,
    /// By load, for the others.
    by_load: MinTree,
    next: usize,
}

/// Parameters of [`LeastLoad`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LeastLoadConfig {
    tie: Tie,
}

fn key(roster: &Roster, engine: EngineIx) -> u128 {
    u128::from(roster.load(engine)) << 64 | stamp_key(roster, engine)
}

impl LeastLoad {
    fn refresh(&mut self, roster: &Roster, engine: EngineIx) {
        if roster.is_open(engine) {
            match self.tie {
                Tie::Lru => self.by_use.set(engine, key(roster, engine)),
                _ => self.by_load.set(engine, u64::from(roster.load(engine))),
            }
        }
    }

    fn of_tree(tie: Tie, next: usize, tree: &MinTree, cx: &mut Cx<'_>) -> Option<EngineIx> {
        let (least, count) = tree.min()?;
        let slot = match tie {
            Tie::Random => tree.nth_min(cx.rng.below(count as usize) as u32),
            Tie::Round => tree.first_at_most_around(next, least),
            Tie::First | Tie::Lru => tree.first_at_most(0, least),
        };
        slot.map(|slot| EngineIx::new(slot as u32))
    }

    fn of_list(&self, list: &[EngineIx], cx: &mut Cx<'_>) -> Option<EngineIx> {
        let least = list.iter().map(|&engine| cx.roster.load(engine)).min()?;
        let mut equal: SmallVec<[EngineIx; 16]> =
            list.iter().copied().filter(|&engine| cx.roster.load(engine) == least).collect();
        match self.tie {
            Tie::Lru => equal.into_iter().min_by_key(|&engine| cx.roster.stamp(engine)),
            Tie::First => equal.into_iter().min(),
            Tie::Round => equal.into_iter().min_by_key(|engine| (engine.slot() < self.next, engine.slot())),
            Tie::Random => {
                equal.sort_unstable();
                equal.dedup();
                equal.get(cx.rng.below(equal.len())).copied()
            }
        }
    }
}

impl Scheme for LeastLoad {
    fn is_work_conserving(&self) -> Option<bool> {
        Some(true)
    }

    fn pick(&mut self, cx: &mut Cx<'_>, request: &Request<'_>) -> Pick {
        let (tie, next) = (self.tie, self.next);
        let found = match (request.candidates, tie) {
            (Candidates::Only(list), _) => self.of_list(list, cx),
            (Candidates::All, Tie::Lru) => self.by_use.min(),
            (Candidates::Except(list), Tie::Lru) => self.by_use.min_except(list),
            (Candidates::All, _) => Self::of_tree(tie, next, &self.by_load, cx),
            (Candidates::Except(list), _) => {
                self.by_load.without(list.iter().map(|engine| engine.slot()), |tree| Self::of_tree(tie, next, tree, cx))
            }
        };
        if let Some(engine) = found {
            cx.consider(engine, |roster| f64::from(roster.load(engine)));
        }
        engine_or_defer(found)
    }

    fn on_open(&mut self, cx: &mut Cx<'_>, engine: EngineIx) {
        self.refresh(cx.roster, engine);
    }

    fn on_close(&mut self, _cx: &mut Cx<'_>, engine: EngineIx) {
        self.by_use.remove(engine);
        self.by_load.remove(engine);
    }

    fn on_dispatch(&mut self, cx: &mut Cx<'_>, engine: EngineIx, _request: &Request<'_>) -> Ticket {
        self.next = engine.slot() + 1;
        self.refresh(cx.roster, engine);
        Ticket::default()
    }

    fn on_outcome(&mut self, cx: &mut Cx<'_>, engine: EngineIx, _outcome: &Outcome) {
        self.refresh(cx.roster, engine);
    }

    fn check(&self, roster: &Roster) -> Result<(), String> {
        for engine in (0..roster.slots() as u32).map(EngineIx::new) {
            let open = roster.is_open(engine);
            let (indexed, expected) = match self.tie {
                Tie::Lru => (self.by_use.key(engine), open.then(|| key(roster, engine))),
                _ => (self.by_load.key(engine.slot()).map(u128::from), open.then(|| u128::from(roster.load(engine)))),
            };
            if indexed != expected {
                return Err(format!("{engine:?}: indexed under {indexed:?}, roster says {expected:?}"));
            }
        }
        Ok(())
    }
}

impl Named for LeastLoad {
    const NAME: &'static str = "leastload";
    const SUMMARY: &'static str = "fewest tasks in flight; ties to the least recently used, or by another rule";
    const SOURCE: &'static str = "ipyparallel; Winston 1977 (JSQ)";
    const ALIASES: &'static [&'static str] = &["jsq"];
    const PARAMETERS: &'static [(&'static str, &'static str)] =
        &[("tie", "among equals: lru, random, first (lowest place), or round (the next after the last)")];
    type Config = LeastLoadConfig;
    fn build(config: LeastLoadConfig) -> Result<Self, PolicyError> {
        Ok(LeastLoad { tie: config.tie, ..LeastLoad::default() })
    }
}
