//! Rendezvous hashing by weight: each engine draws a lot for the task's key, the best lot wins; who comes or goes moves its own
//! tasks and few others. Sources: Thaler and Ravishankar 1998; in a tree, for O(log n): Wang, Ravishankar 2009; weights: Schindelhauer and Schomaker 2005.

use smallvec::SmallVec;

use super::weights::{BY, WeightBy};
use super::{engine_or_defer, hash_key};
use crate::facts::mix;
use crate::{Candidates, Cx, EngineIx, Named, Needs, Outcome, Pick, PolicyError, Request, Roster, Scheme, Ticket};

/// Children of a node.
const FANOUT: usize = 4;

/// The scheme `rendezvous`.
#[derive(Clone, Debug, Default)]
pub struct Rendezvous {
    by: WeightBy,
    /// Sums of weights, a level after the other, the engines' own first; 0 for closed ones.
    levels: Vec<Vec<f64>>,
    /// What an engine's lots follow from.
    identities: Vec<u64>,
}

/// Parameters of [`Rendezvous`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RendezvousConfig {
    by: WeightBy,
}

impl Default for RendezvousConfig {
    fn default() -> Self {
        RendezvousConfig { by: WeightBy::Equal }
    }
}

/// The lot of something with this identity for this key: the less the better, and less the heavier.
fn lot(key: u64, identity: u64, weight: f64) -> f64 {
    if weight <= 0.0 {
        return f64::INFINITY;
    }
    let uniform = ((mix(key ^ identity) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    -uniform.ln() / weight
}

impl Rendezvous {
    fn weight(&self, slot: usize) -> f64 {
        self.levels.first().and_then(|engines| engines.get(slot)).copied().unwrap_or(0.0)
    }

    /// O(log n), and O(n) when it is the first beyond the array.
    fn set(&mut self, slot: usize, weight: f64) {
        if self.levels.first().is_none_or(|engines| engines.len() <= slot) {
            self.grow(slot + 1);
        }
        let mut at = slot;
        self.levels[0][at] = weight;
        for level in 1..self.levels.len() {
            at /= FANOUT;
            let children = &self.levels[level - 1];
            let sum = children[at * FANOUT..(at * FANOUT + FANOUT).min(children.len())].iter().sum();
            self.levels[level][at] = sum;
        }
    }

    fn grow(&mut self, slots: usize) {
        let mut level = self.levels.first().cloned().unwrap_or_default();
        level.resize(slots.next_power_of_two(), 0.0);
        self.levels = vec![level];
        while let Some(below) = self.levels.last().filter(|level| level.len() > 1) {
            let above = below.chunks(FANOUT).map(|children| children.iter().sum()).collect();
            self.levels.push(above);
        }
    }

    /// Down the tree, the best lot at each node.
    fn descend(&self, key: u64) -> Option<EngineIx> {
        if self.levels.last()?.first().is_none_or(|&total| total <= 0.0) {
            return None;
        }
        let mut at = 0;
        for level in (0..self.levels.len() - 1).rev() {
            let children = at * FANOUT..(at * FANOUT + FANOUT).min(self.levels[level].len());
            let name = |child: usize| match level {
                0 => self.identities.get(child).copied().unwrap_or(0),
                _ => mix((level as u64) << 32 | child as u64),
            };
            let lots = children.map(|child| (lot(key, name(child), self.levels[level][child]), child));
            at = lots.min_by(|a, b| a.0.total_cmp(&b.0))?.1;
        }
        Some(EngineIx::new(at as u32))
    }

    fn refresh(&mut self, cx: &Cx<'_>, engine: EngineIx) {
        let weight = if cx.roster.is_open(engine) { self.by.weight(cx, engine) } else { 0.0 };
        if weight != self.weight(engine.slot()) {
            self.set(engine.slot(), weight);
        }
    }
}

impl Scheme for Rendezvous {
    fn needs(&self) -> Needs {
        Needs::HINTS | Needs::CLASS | Needs::CLIENT | self.by.needs()
    }

    fn pick(&mut self, cx: &mut Cx<'_>, request: &Request<'_>) -> Pick {
        let key = mix(hash_key(cx, &request.task));
        let found = match request.candidates {
            Candidates::All => self.descend(key),
            Candidates::Only(list) => {
                let own = |engine: EngineIx| lot(key, self.identities[engine.slot()], self.weight(engine.slot()));
                list.iter().copied().min_by(|&a, &b| own(a).total_cmp(&own(b)))
            }
            Candidates::Except(list) => {
                let slots = list.iter().map(|engine| engine.slot());
                let taken: SmallVec<[(usize, f64); 8]> =
                    slots.map(|slot| (slot, self.weight(slot))).filter(|&(_, weight)| weight > 0.0).collect();
                for &(slot, _) in &taken {
                    self.set(slot, 0.0);
                }
                let found = self.descend(key);
                for &(slot, weight) in &taken {
                    if self.weight(slot) == 0.0 {
                        self.set(slot, weight);
                    }
                }
                found
            }
        };
        if let Some(engine) = found {
            cx.consider(engine, |roster| f64::from(roster.load(engine)));
        }
        engine_or_defer(found)
    }

    fn on_join(&mut self, cx: &mut Cx<'_>, engine: EngineIx) {
        if self.identities.len() <= engine.slot() {
            self.identities.resize(engine.slot() + 1, 0);
        }
        self.identities[engine.slot()] = cx.roster.identity(engine);
    }

    fn on_open(&mut self, cx: &mut Cx<'_>, engine: EngineIx) {
        self.refresh(cx, engine);
    }

    fn on_close(&mut self, cx: &mut Cx<'_>, engine: EngineIx) {
        self.refresh(cx, engine);
    }

    fn on_dispatch(&mut self, cx: &mut Cx<'_>, engine: EngineIx, _request: &Request<'_>) -> Ticket {
        if self.by == WeightBy::Hwm {
            self.refresh(cx, engine); // its limit may have changed
        }
        Ticket::default()
    }

    fn on_outcome(&mut self, cx: &mut Cx<'_>, engine: EngineIx, _outcome: &Outcome) {
        if self.by == WeightBy::Speed {
            self.refresh(cx, engine);
        }
    }

    fn check(&self, roster: &Roster) -> Result<(), String> {
        for engine in (0..roster.slots() as u32).map(EngineIx::new) {
            if (self.weight(engine.slot()) > 0.0) != roster.is_open(engine) {
                return Err(format!("{engine:?}: open {}, indexed otherwise", roster.is_open(engine)));
            }
        }
        Ok(())
    }
}

impl Named for Rendezvous {
    const NAME: &'static str = "rendezvous";
    const SUMMARY: &'static str = "tasks of one #key (or class) to one engine by highest lot, shares by weight";
    const SOURCE: &'static str = "Thaler and Ravishankar 1998; Schindelhauer and Schomaker 2005";
    const PARAMETERS: &'static [(&'static str, &'static str)] = &[BY];
    type Config = RendezvousConfig;
    fn build(config: RendezvousConfig) -> Result<Self, PolicyError> {
        Ok(Rendezvous { by: config.by, ..Rendezvous::default() })
    }
}
