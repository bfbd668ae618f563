//! Minima with their multiplicity: the least key, how many have it, any one of those by number or from a slot on.
//! Where [`WinnerTree`](super::WinnerTree) needs distinct keys, this one is for rules that treat equals in ways of their own.

use smallvec::SmallVec;

use crate::EngineIx;

/// Key of a leaf that takes no part.
const OUT: u64 = u64::MAX;

/// A complete binary tree of (least key below, leaves that have it), in one array: node `i` has children `2i` and `2i + 1`.
#[derive(Clone, Debug)]
pub struct MinTree {
    nodes: Vec<(u64, u32)>,
    leaves: usize,
}

impl Default for MinTree {
    fn default() -> Self {
        MinTree { nodes: vec![(OUT, 0); 2], leaves: 1 }
    }
}

fn join(a: (u64, u32), b: (u64, u32)) -> (u64, u32) {
    match a.0.cmp(&b.0) {
        std::cmp::Ordering::Less => a,
        std::cmp::Ordering::Greater => b,
        std::cmp::Ordering::Equal => (a.0, a.1 + b.1),
    }
}

impl MinTree {
    /// Sets the key of an engine, less than `u64::MAX`. O(log n), O(n) when the array has to grow.
    pub fn set(&mut self, engine: EngineIx, key: u64) {
        debug_assert!(key < OUT, "that key means absence");
        self.set_leaf(engine.slot(), key);
    }

    /// Takes an engine out. O(log n).
    pub fn remove(&mut self, engine: EngineIx) {
        if engine.slot() < self.leaves {
            self.put(engine.slot(), OUT);
        }
    }

    /// The same by number of leaf, for trees whose leaves are not slots.
    pub fn set_leaf(&mut self, leaf: usize, key: u64) {
        if leaf >= self.leaves {
            self.grow(leaf + 1);
        }
        self.put(leaf, key);
    }

    /// The key of a leaf that takes part.
    pub fn key(&self, leaf: usize) -> Option<u64> {
        if leaf >= self.leaves {
            return None;
        }
        Some(self.nodes[self.leaves + leaf].0).filter(|&key| key != OUT)
    }

    /// The least key, and how many have it.
    pub fn min(&self) -> Option<(u64, u32)> {
        Some(self.nodes[1]).filter(|&(key, _)| key != OUT)
    }

    /// The `n`-th leaf, from 0, of those with the least key. O(log n).
    pub fn nth_min(&self, mut n: u32) -> Option<usize> {
        let (least, count) = self.min()?;
        if n >= count {
            return None;
        }
        let mut node = 1;
        while node < self.leaves {
            node *= 2;
            let (key, count) = self.nodes[node];
            if key != least {
                node += 1;
            } else if n >= count {
                n -= count;
                node += 1;
            }
        }
        Some(node - self.leaves)
    }

    /// The first leaf from `from` on whose key is at most `bound`, without wrapping. O(log n).
    pub fn first_at_most(&self, from: usize, bound: u64) -> Option<usize> {
        if from >= self.leaves || bound == OUT {
            return None;
        }
        let mut node = self.leaves + from;
        // Up until a subtree to the right holds one, then down to its first.
        while self.nodes[node].0 > bound {
            while node & 1 == 1 {
                node /= 2;
                if node <= 1 {
                    return None;
                }
            }
            node += 1;
        }
        while node < self.leaves {
            node *= 2;
            node += usize::from(self.nodes[node].0 > bound);
        }
        Some(node - self.leaves)
    }

    /// The first leaf at most `bound` from `from` on, else from the start. O(log n).
    pub fn first_at_most_around(&self, from: usize, bound: u64) -> Option<usize> {
        self.first_at_most(from, bound).or_else(|| self.first_at_most(0, bound))
    }

    /// Calls `look` on the tree with some leaves taken out, then puts them back. O(k log n).
    pub fn without<R>(&mut self, leaves: impl IntoIterator<Item = usize>, look: impl FnOnce(&MinTree) -> R) -> R {
        let taken: SmallVec<[(usize, u64); 8]> =
            leaves.into_iter().filter_map(|leaf| self.key(leaf).map(|key| (leaf, key))).collect();
        for &(leaf, _) in &taken {
            self.put(leaf, OUT);
        }
        let result = look(self);
        for &(leaf, key) in &taken {
            self.put(leaf, key);
        }
        result
    }

    /// Takes every leaf out. O(n).
    pub fn clear(&mut self) {
        self.nodes.fill((OUT, 0));
    }

    fn put(&mut self, leaf: usize, key: u64) {
        let mut node = self.leaves + leaf;
        self.nodes[node] = (key, u32::from(key != OUT));
        while node > 1 {
            let joined = join(self.nodes[node], self.nodes[node ^ 1]);
            node /= 2;
            if self.nodes[node] == joined {
                break;
            }
            self.nodes[node] = joined;
        }
    }

    fn grow(&mut self, wanted: usize) {
        let leaves = wanted.next_power_of_two();
        let mut nodes = vec![(OUT, 0); 2 * leaves];
        nodes[leaves..leaves + self.leaves].copy_from_slice(&self.nodes[self.leaves..]);
        for node in (1..leaves).rev() {
            nodes[node] = join(nodes[2 * node], nodes[2 * node + 1]);
        }
        *self = MinTree { nodes, leaves };
    }
}
