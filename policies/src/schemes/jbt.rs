//! Join below threshold: any engine with fewer tasks in flight than the threshold, at random; any at all if there is none.
//! Source: Zhou, Wu, Tan, Sun and Shroff, Designing low-complexity heavy-traffic delay-optimal load balancing schemes, POMACS 1(2), 2017.

use super::{check_members, engine_or_defer};
use crate::index::DenseSet;
use crate::registry::in_range;
use crate::{Candidates, Cx, EngineIx, Named, Outcome, Pick, PolicyError, Request, Roster, Scheme, Ticket};

/// The scheme `jbt`.
#[derive(Clone, Debug, Default)]
pub struct Jbt {
    threshold: u32,
    open: DenseSet,
    below: DenseSet,
}

/// Parameters of [`Jbt`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JbtConfig {
    threshold: u32,
}

impl Default for JbtConfig {
    fn default() -> Self {
        JbtConfig { threshold: 2 }
    }
}

impl Jbt {
    fn refresh(&mut self, roster: &Roster, engine: EngineIx) {
        if roster.is_open(engine) && roster.load(engine) < self.threshold {
            self.below.insert(engine);
        } else {
            self.below.remove(engine);
        }
    }
}

impl Scheme for Jbt {
    fn is_work_conserving(&self) -> Option<bool> {
        Some(true)
    }

    fn pick(&mut self, cx: &mut Cx<'_>, request: &Request<'_>) -> Pick {
        let found = match request.candidates {
            Candidates::Only(list) => {
                let below = list.iter().filter(|&&engine| self.below.contains(engine)).count();
                match below {
                    0 => list.get(cx.rng.below(list.len().max(1))).copied(),
                    _ => {
                        let nth = cx.rng.below(below);
                        list.iter().copied().filter(|&engine| self.below.contains(engine)).nth(nth)
                    }
                }
            }
            others => {
                let below = self.below.eligible(others).draw(cx.rng);
                below.or_else(|| self.open.eligible(others).draw(cx.rng))
            }
        };
        if let Some(engine) = found {
            cx.consider(engine, |roster| f64::from(roster.load(engine)));
        }
        engine_or_defer(found)
    }

    fn on_open(&mut self, cx: &mut Cx<'_>, engine: EngineIx) {
        self.open.insert(engine);
        self.refresh(cx.roster, engine);
    }

    fn on_close(&mut self, _cx: &mut Cx<'_>, engine: EngineIx) {
        self.open.remove(engine);
        self.below.remove(engine);
    }

    fn on_dispatch(&mut self, cx: &mut Cx<'_>, engine: EngineIx, _request: &Request<'_>) -> Ticket {
        self.refresh(cx.roster, engine);
        Ticket::default()
    }

    fn on_outcome(&mut self, cx: &mut Cx<'_>, engine: EngineIx, _outcome: &Outcome) {
        self.refresh(cx.roster, engine);
    }

    fn check(&self, roster: &Roster) -> Result<(), String> {
        check_members(&self.open, roster)?;
        for engine in (0..roster.slots() as u32).map(EngineIx::new) {
            let below = roster.is_open(engine) && roster.load(engine) < self.threshold;
            if self.below.contains(engine) != below {
                return Err(format!("{engine:?}: below the threshold {below}, indexed otherwise"));
            }
        }
        Ok(())
    }
}

impl Named for Jbt {
    const NAME: &'static str = "jbt";
    const SUMMARY: &'static str = "any engine below a threshold of tasks in flight, at random, else any";
    const SOURCE: &'static str = "Zhou, Wu, Tan, Sun and Shroff 2017 (JBT, with a fixed threshold)";
    const PARAMETERS: &'static [(&'static str, &'static str)] = &[("threshold", "tasks in flight, 1 to 1000000")];
    type Config = JbtConfig;
    fn build(config: JbtConfig) -> Result<Self, PolicyError> {
        Ok(Jbt { threshold: in_range(Self::NAME, "threshold", config.threshold, 1..=1_000_000)?, ..Jbt::default() })
    }
}
