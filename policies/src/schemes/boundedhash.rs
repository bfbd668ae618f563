//! Consistent hashing with bounded loads: tasks of one key go to one engine while it has at most its share and a bit, then to the next on
//! the ring. Source: Mirrokni, Thorup and Zadimoghaddam, SODA 2018. The next engine below the bound is found by a tree, not by walking.

use super::{engine_or_defer, hash_key};
use crate::facts::mix;
use crate::index::MinTree;
use crate::registry::in_range;
use crate::{Candidates, Cx, EngineIx, Named, Needs, Outcome, Pick, PolicyError, Request, Roster, Scheme, Ticket};

/// The scheme `boundedhash`. Joins and leaves make the next decision cost O(n log n): the ring is sorted anew.
#[derive(Clone, Debug, Default)]
pub struct BoundedHash {
    config: BoundedHashConfig,
    /// Points on the ring, ascending, each an engine's; and the leaves of `loads` that are an engine's.
    ring: Vec<(u64, EngineIx)>,
    points: Vec<Vec<u32>>,
    /// Load of the open engine at each point.
    loads: MinTree,
    in_flight: u64,
    stale: bool,
}

/// Parameters of [`BoundedHash`].
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BoundedHashConfig {
    factor: f64,
    points: u32,
}

impl Default for BoundedHashConfig {
    fn default() -> Self {
        BoundedHashConfig { factor: 1.25, points: 1 }
    }
}

impl BoundedHash {
    fn refresh(&mut self, roster: &Roster, engine: EngineIx) {
        if self.stale {
            return;
        }
        let open = roster.is_open(engine);
        for &point in self.points.get(engine.slot()).into_iter().flatten() {
            if open {
                self.loads.set_leaf(point as usize, u64::from(roster.load(engine)));
            } else {
                self.loads.remove(EngineIx::new(point));
            }
        }
    }

    fn rebuild(&mut self, roster: &Roster) {
        self.stale = false;
        self.ring.clear();
        for engine in roster.live_engines() {
            let identity = roster.identity(engine);
            let point = |n: u32| mix(identity ^ u64::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            self.ring.extend((0..self.config.points).map(|n| (point(n), engine)));
        }
        self.ring.sort_unstable();
        self.points.iter_mut().for_each(Vec::clear);
        self.points.resize(self.points.len().max(roster.slots()), Vec::new());
        for (leaf, (_, engine)) in self.ring.iter().enumerate() {
            self.points[engine.slot()].push(leaf as u32);
        }
        self.loads.clear();
        for engine in roster.open_engines() {
            self.refresh(roster, engine);
        }
    }

    fn leaves_of<'a>(points: &'a [Vec<u32>], engines: &'a [EngineIx]) -> impl Iterator<Item = usize> + 'a {
        engines.iter().filter_map(|engine| points.get(engine.slot())).flatten().map(|&point| point as usize)
    }
}

/// From a place on the ring the first engine at most at the bound; the next least loaded one if all are above it.
fn first(tree: &MinTree, from: usize, bound: u64) -> Option<usize> {
    let (least, _) = tree.min()?;
    tree.first_at_most_around(from, bound.max(least))
}

impl Scheme for BoundedHash {
    fn is_work_conserving(&self) -> Option<bool> {
        Some(true)
    }

    fn needs(&self) -> Needs {
        Needs::HINTS | Needs::CLASS | Needs::CLIENT
    }

    fn pick(&mut self, cx: &mut Cx<'_>, request: &Request<'_>) -> Pick {
        if self.stale {
            self.rebuild(cx.roster);
        }
        let place = mix(hash_key(cx, &request.task));
        let from = self.ring.partition_point(|&(point, _)| point < place);
        // ceil(factor * (tasks with this one) / engines), less one: what an engine may have before it.
        let share = self.config.factor * (self.in_flight + 1) as f64 / cx.roster.live_count().max(1) as f64;
        let bound = (share.ceil() as u64).max(1) - 1;
        let leaf = match request.candidates {
            Candidates::All => first(&self.loads, from, bound),
            Candidates::Except(list) => self.loads.without(Self::leaves_of(&self.points, list), |tree| first(tree, from, bound)),
            Candidates::Only(list) => {
                let least = list.iter().map(|&engine| u64::from(cx.roster.load(engine))).min().unwrap_or(0);
                let (ring, limit) = (&self.ring, bound.max(least));
                let admitted = |leaf: &usize| ring.get(*leaf).is_some_and(|&(_, e)| u64::from(cx.roster.load(e)) <= limit);
                Self::leaves_of(&self.points, list).filter(admitted).min_by_key(|&leaf| (leaf < from, leaf))
            }
        };
        let found = leaf.and_then(|leaf| self.ring.get(leaf)).map(|&(_, engine)| engine);
        if let Some(engine) = found {
            cx.consider(engine, |roster| f64::from(roster.load(engine)));
        }
        engine_or_defer(found)
    }

    fn on_join(&mut self, _cx: &mut Cx<'_>, _engine: EngineIx) {
        self.stale = true;
    }

    fn on_leave(&mut self, _cx: &mut Cx<'_>, _engine: EngineIx) {
        self.stale = true;
    }

    fn on_open(&mut self, cx: &mut Cx<'_>, engine: EngineIx) {
        self.refresh(cx.roster, engine);
    }

    fn on_close(&mut self, cx: &mut Cx<'_>, engine: EngineIx) {
        self.refresh(cx.roster, engine);
    }

    fn on_dispatch(&mut self, cx: &mut Cx<'_>, engine: EngineIx, _request: &Request<'_>) -> Ticket {
        self.in_flight += 1;
        self.refresh(cx.roster, engine);
        Ticket::default()
    }

    fn on_outcome(&mut self, cx: &mut Cx<'_>, engine: EngineIx, _outcome: &Outcome) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.refresh(cx.roster, engine);
    }

    fn check(&self, roster: &Roster) -> Result<(), String> {
        let in_flight: u64 = roster.live_engines().map(|engine| u64::from(roster.load(engine))).sum();
        if in_flight != self.in_flight {
            return Err(format!("{} counted in flight, {in_flight} are", self.in_flight));
        }
        for (leaf, &(_, engine)) in self.ring.iter().enumerate().filter(|_| !self.stale) {
            let expected = roster.is_open(engine).then(|| u64::from(roster.load(engine)));
            if self.loads.key(leaf) != expected {
                return Err(format!("{engine:?}: indexed under {:?}, roster says {expected:?}", self.loads.key(leaf)));
            }
        }
        Ok(())
    }
}

impl Named for BoundedHash {
    const NAME: &'static str = "boundedhash";
    const SUMMARY: &'static str = "tasks of one #key (or class) to one engine, within factor times the mean load";
    const SOURCE: &'static str = "Mirrokni, Thorup and Zadimoghaddam 2018";
    const PARAMETERS: &'static [(&'static str, &'static str)] = &[
        ("factor", "multiple of the mean load that an engine may reach, 1 to 100"),
        ("points", "places of each engine on the ring, 1 to 256: more are fairer and cost more"),
    ];
    type Config = BoundedHashConfig;
    fn build(config: BoundedHashConfig) -> Result<Self, PolicyError> {
        in_range(Self::NAME, "factor", config.factor, 1.0..=100.0)?;
        in_range(Self::NAME, "points", config.points, 1..=256)?;
        Ok(BoundedHash { config, ..BoundedHash::default() })
    }
}
