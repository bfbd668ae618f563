//! Rendezvous hashing by weight: each engine draws a lot for the task's key, the best lot wins. Sources: Thaler and Ravishankar 1998; drawn
//! down a tree, for O(log n): Wang and Ravishankar 2009; weights: Schindelhauer and Schomaker 2005.
//!
//! The tree is that of the engines' identities, so a key's home does not depend on the order in which engines joined. A task whose home is
//! closed goes to the next best lot beside it, and nobody else's moves; who joins or leaves moves its own keys and few others.

use smallvec::SmallVec;

use super::weights::{BY, WeightBy};
use super::{engine_or_defer, hash_key};
use crate::facts::mix;
use crate::{Candidates, Cx, EngineIx, Named, Needs, Outcome, Pick, PolicyError, Request, Roster, Scheme, Ticket};

/// Bits of an identity that tell a node's children apart, and how many children those make.
const BITS: u32 = 2;
const FANOUT: usize = 1 << BITS;
const NOBODY: u32 = u32::MAX;

/// A set of engines whose identities begin alike, or one engine.
#[derive(Clone, Debug)]
struct Node {
    parent: u32,
    children: [u32; FANOUT],
    /// What its lots follow from: the bits that its engines share, or the engine's identity.
    name: u64,
    engine: Option<EngineIx>,
    /// Of all its engines, open or not; and how many are open.
    weight: f64,
    open: u32,
}

/// The scheme `rendezvous`. Joins and leaves make the next decision cost O(n log n): the tree is built anew.
#[derive(Clone, Debug, Default)]
pub struct Rendezvous {
    by: WeightBy,
    nodes: Vec<Node>,
    /// Each engine's leaf.
    leaves: Vec<u32>,
    stale: bool,
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

/// The lot of something with this name for this key: the less the better, and less the heavier.
fn lot(key: u64, name: u64, weight: f64) -> f64 {
    let uniform = ((mix(key ^ name) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    -uniform.ln() / weight.max(1e-300)
}

impl Rendezvous {
    fn rebuild(&mut self, cx: &Cx<'_>) {
        self.stale = false;
        self.nodes.clear();
        self.leaves.clear();
        self.leaves.resize(cx.roster.slots(), NOBODY);
        let mut engines: Vec<(u64, EngineIx)> = cx.roster.live_engines().map(|e| (mix(cx.roster.identity(e)), e)).collect();
        engines.sort_unstable();
        for n in 1..engines.len() {
            // Two of one name are told apart by their order.
            if engines[n].0 <= engines[n - 1].0 {
                engines[n].0 = engines[n - 1].0.saturating_add(1);
            }
        }
        if !engines.is_empty() {
            self.grow(cx, &engines, 0, NOBODY);
        }
    }

    /// Adds the node of engines whose identities share their first `depth` bits, and those below it. Returns its index.
    fn grow(&mut self, cx: &Cx<'_>, engines: &[(u64, EngineIx)], depth: u32, parent: u32) -> u32 {
        let at = self.nodes.len() as u32;
        let prefix = if depth == 0 { 0 } else { engines[0].0 >> (u64::BITS - depth) };
        let node = Node {
            parent,
            children: [NOBODY; FANOUT],
            name: mix(prefix << 8 | u64::from(depth)),
            engine: None,
            weight: 0.0,
            open: 0,
        };
        self.nodes.push(node);
        if let &[(identity, engine)] = engines {
            let leaf = &mut self.nodes[at as usize];
            (leaf.name, leaf.engine) = (identity, Some(engine));
            (leaf.weight, leaf.open) = (self.by.weight(cx, engine), u32::from(cx.roster.is_open(engine)));
            self.leaves[engine.slot()] = at;
            return at;
        }
        let digit = |identity: u64| (identity >> (u64::BITS - depth - BITS)) as usize & (FANOUT - 1);
        let mut rest = engines;
        while let Some(&(first, _)) = rest.first() {
            let (same, others) = rest.split_at(rest.partition_point(|&(identity, _)| digit(identity) == digit(first)));
            let child = if depth + BITS < u64::BITS || same.len() == 1 { self.grow(cx, same, depth + BITS, at) } else { NOBODY };
            if child != NOBODY {
                let (weight, open) = (self.nodes[child as usize].weight, self.nodes[child as usize].open);
                let node = &mut self.nodes[at as usize];
                node.children[digit(first)] = child;
                (node.weight, node.open) = (node.weight + weight, node.open + open);
            }
            rest = others;
        }
        at
    }

    /// Opens or closes an engine's leaf, for the whole path above it. O(log n).
    fn set_open(&mut self, engine: EngineIx, open: bool) {
        let Some(leaf) = self.leaves.get(engine.slot()).copied().filter(|&leaf| leaf != NOBODY && !self.stale) else { return };
        if (self.nodes[leaf as usize].open == 1) == open {
            return;
        }
        let mut at = leaf;
        while at != NOBODY {
            let node = &mut self.nodes[at as usize];
            node.open = if open { node.open + 1 } else { node.open - 1 };
            at = node.parent;
        }
    }

    /// Brings an engine's weight up to date. O(log n).
    fn set_weight(&mut self, cx: &Cx<'_>, engine: EngineIx) {
        let Some(leaf) = self.leaves.get(engine.slot()).copied().filter(|&leaf| leaf != NOBODY && !self.stale) else { return };
        let mut weight = self.by.weight(cx, engine);
        let mut at = leaf;
        loop {
            self.nodes[at as usize].weight = weight;
            at = self.nodes[at as usize].parent;
            if at == NOBODY {
                break;
            }
            // Summed anew, so that rounding errors never add up.
            let children = self.nodes[at as usize].children.iter().filter(|&&child| child != NOBODY);
            weight = children.map(|&child| self.nodes[child as usize].weight).sum();
        }
    }

    /// Down the tree, at each node to the best lot that still has an open engine.
    fn descend(&self, key: u64) -> Option<EngineIx> {
        let mut node = self.nodes.first().filter(|node| node.open > 0)?;
        while node.engine.is_none() {
            let children = node.children.iter().filter(|&&child| child != NOBODY).map(|&child| &self.nodes[child as usize]);
            let open = children.filter(|child| child.open > 0);
            node = open.min_by(|a, b| lot(key, a.name, a.weight).total_cmp(&lot(key, b.name, b.weight)))?;
        }
        node.engine
    }

    /// The same with only these engines open. O(k log n).
    fn descend_among(&self, key: u64, engines: &[EngineIx]) -> Option<EngineIx> {
        let leaf_of = |engine: &EngineIx| self.leaves.get(engine.slot()).copied().filter(|&leaf| leaf != NOBODY);
        // Each engine's path from the root.
        let mut paths: SmallVec<[SmallVec<[u32; 12]>; 8]> = SmallVec::new();
        for leaf in engines.iter().filter_map(leaf_of) {
            let mut path: SmallVec<[u32; 12]> =
                std::iter::successors(Some(leaf), |&at| Some(self.nodes[at as usize].parent).filter(|&parent| parent != NOBODY))
                    .collect();
            path.reverse();
            paths.push(path);
        }
        let mut depth = 0;
        loop {
            let here = paths.first()?.get(depth).copied()?;
            if let Some(engine) = self.nodes[here as usize].engine {
                return Some(engine);
            }
            depth += 1;
            let best = |path: &SmallVec<[u32; 12]>| {
                let node = &self.nodes[path[depth] as usize];
                lot(key, node.name, node.weight)
            };
            let winner = paths.iter().min_by(|a, b| best(a).total_cmp(&best(b)))?[depth];
            paths.retain(|path| path[depth] == winner);
        }
    }
}

impl Scheme for Rendezvous {
    fn is_work_conserving(&self) -> Option<bool> {
        Some(true)
    }

    fn needs(&self) -> Needs {
        Needs::HINTS | Needs::CLASS | Needs::CLIENT | self.by.needs()
    }

    fn pick(&mut self, cx: &mut Cx<'_>, request: &Request<'_>) -> Pick {
        if self.stale {
            self.rebuild(cx);
        }
        let key = mix(hash_key(cx, &request.task));
        let found = match request.candidates {
            Candidates::All => self.descend(key),
            Candidates::Only(list) => self.descend_among(key, list),
            Candidates::Except(list) => {
                list.iter().for_each(|&engine| self.set_open(engine, false));
                let found = self.descend(key);
                list.iter().for_each(|&engine| self.set_open(engine, cx.roster.is_open(engine)));
                found
            }
        };
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

    fn on_open(&mut self, _cx: &mut Cx<'_>, engine: EngineIx) {
        self.set_open(engine, true);
    }

    fn on_close(&mut self, _cx: &mut Cx<'_>, engine: EngineIx) {
        self.set_open(engine, false);
    }

    fn on_dispatch(&mut self, cx: &mut Cx<'_>, engine: EngineIx, _request: &Request<'_>) -> Ticket {
        if self.by == WeightBy::Hwm {
            self.set_weight(cx, engine); // its limit may have changed
        }
        Ticket::default()
    }

    fn on_outcome(&mut self, cx: &mut Cx<'_>, engine: EngineIx, _outcome: &Outcome) {
        if self.by == WeightBy::Speed {
            self.set_weight(cx, engine);
        }
    }

    fn check(&self, roster: &Roster) -> Result<(), String> {
        if self.stale {
            return Ok(()); // it is built anew before it is used
        }
        for engine in roster.live_engines() {
            let indexed =
                self.leaves.get(engine.slot()).filter(|&&leaf| leaf != NOBODY).map(|&leaf| self.nodes[leaf as usize].open == 1);
            if indexed != Some(roster.is_open(engine)) {
                return Err(format!("{engine:?}: open {}, indexed {indexed:?}", roster.is_open(engine)));
            }
        }
        let open = self.nodes.first().map_or(0, |root| root.open as usize);
        if open == roster.open_count() { Ok(()) } else { Err(format!("{open} indexed, {} open", roster.open_count())) }
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
