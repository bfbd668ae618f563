//! A tournament over engines: the one with the least key, in O(1), under changes of any key in O(log n).
//! Keys are distinct by construction (they end in the roster's stamp), so ties never depend on the shape of the tree.

use crate::{Candidates, EngineIx, Roster};

/// Key of an engine that does not take part.
const OUT: u128 = u128::MAX;

/// A complete binary tree of minima, in one array: node `i` has children `2i` and `2i + 1`, engine `e` is leaf `leaves + e`.
#[derive(Clone, Debug)]
pub struct WinnerTree {
    nodes: Vec<u128>,
    leaves: usize,
}

impl Default for WinnerTree {
    fn default() -> Self {
        WinnerTree { nodes: vec![OUT; 2], leaves: 1 }
    }
}

impl WinnerTree {
    /// Sets the key of an engine, less than `u128::MAX`. O(log n), and O(n) when the slot is the first beyond the array.
    pub fn set(&mut self, engine: EngineIx, key: u128) {
        debug_assert!(key < OUT, "that key means absence");
        if engine.slot() >= self.leaves {
            self.grow(engine.slot() + 1);
        }
        self.put(engine.slot(), key);
    }

    /// Takes an engine out. O(log n).
    pub fn remove(&mut self, engine: EngineIx) {
        if engine.slot() < self.leaves {
            self.put(engine.slot(), OUT);
        }
    }

    /// The key of an engine that takes part.
    pub fn key(&self, engine: EngineIx) -> Option<u128> {
        self.nodes.get(self.leaves + engine.slot()).copied().filter(|&key| engine.slot() < self.leaves && key != OUT)
    }

    /// The engine with the least key. O(log n).
    pub fn min(&self) -> Option<EngineIx> {
        let least = self.nodes[1];
        if least == OUT {
            return None;
        }
        let mut node = 1;
        while node < self.leaves {
            node *= 2;
            node += usize::from(self.nodes[node] != least);
        }
        Some(EngineIx::new((node - self.leaves) as u32))
    }

    /// The engine with the least key among those not in `except`. O(k log n).
    pub fn min_except(&mut self, except: &[EngineIx]) -> Option<EngineIx> {
        let taken: smallvec::SmallVec<[(usize, u128); 8]> =
            except.iter().filter_map(|&engine| self.key(engine).map(|key| (engine.slot(), key))).collect();
        for &(slot, _) in &taken {
            self.put(slot, OUT);
        }
        let found = self.min();
        for &(slot, key) in &taken {
            self.put(slot, key);
        }
        found
    }

    /// The engine with the least key among open candidates; `key` gives that of engines in a list. O(log n), O(k) for those listed,
    /// O(k log n) for those excluded.
    pub fn least(&mut self, candidates: Candidates<'_>, key: impl Fn(EngineIx) -> u128) -> Option<EngineIx> {
        match candidates {
            Candidates::All => self.min(),
            Candidates::Only(list) => list.iter().copied().min_by_key(|&engine| key(engine)),
            Candidates::Except(list) => self.min_except(list),
        }
    }

    /// Compares the tree with what it should hold: the open engines, each under its key. O(n).
    ///
    /// # Errors
    /// Says which engine is indexed otherwise.
    pub fn check(&self, roster: &Roster, key: impl Fn(EngineIx) -> u128) -> Result<(), String> {
        for engine in (0..roster.slots() as u32).map(EngineIx::new) {
            let expected = roster.is_open(engine).then(|| key(engine));
            if self.key(engine) != expected {
                return Err(format!("{engine:?}: indexed under {:?}, expected {expected:?}", self.key(engine)));
            }
        }
        Ok(())
    }

    fn put(&mut self, slot: usize, key: u128) {
        let mut node = self.leaves + slot;
        self.nodes[node] = key;
        while node > 1 {
            let least = self.nodes[node].min(self.nodes[node ^ 1]);
            node /= 2;
            if self.nodes[node] == least {
                break; // nothing above can change either
            }
            self.nodes[node] = least;
        }
    }

    fn grow(&mut self, slots: usize) {
        let leaves = slots.next_power_of_two();
        let mut nodes = vec![OUT; 2 * leaves];
        nodes[leaves..leaves + self.leaves].copy_from_slice(&self.nodes[self.leaves..]);
        for node in (1..leaves).rev() {
            nodes[node] = nodes[2 * node].min(nodes[2 * node + 1]);
        }
        *self = WinnerTree { nodes, leaves };
    }
}
