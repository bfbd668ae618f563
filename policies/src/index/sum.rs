//! Weighted draws: an engine with probability proportional to its weight, in O(log n), under changes of any weight.
//! Every inner sum is recomputed from its two children, so rounding errors never accumulate however long it runs.

use smallvec::SmallVec;

use crate::{EngineIx, Rng};

/// A complete binary tree of sums in one array, laid out as [`WinnerTree`](super::WinnerTree).
#[derive(Clone, Debug)]
pub struct SumTree {
    nodes: Vec<f64>,
    leaves: usize,
}

impl Default for SumTree {
    fn default() -> Self {
        SumTree { nodes: vec![0.0; 2], leaves: 1 }
    }
}

impl SumTree {
    /// Sets the weight of an engine, finite and not negative; 0 takes it out. O(log n), O(n) when the array has to grow.
    pub fn set(&mut self, engine: EngineIx, weight: f64) {
        debug_assert!(weight.is_finite() && weight >= 0.0, "not a weight: {weight}");
        if engine.slot() >= self.leaves {
            if weight == 0.0 {
                return;
            }
            self.grow(engine.slot() + 1);
        }
        self.put(engine.slot(), weight);
    }

    /// The weight of an engine, 0 if it takes no part.
    pub fn weight(&self, engine: EngineIx) -> f64 {
        if engine.slot() < self.leaves { self.nodes[self.leaves + engine.slot()] } else { 0.0 }
    }

    /// An engine, with probability proportional to its weight; `None` if all weights are 0. O(log n).
    pub fn draw(&self, rng: &mut Rng) -> Option<EngineIx> {
        if self.nodes[1] <= 0.0 {
            return None;
        }
        let mut left_over = rng.unit() * self.nodes[1];
        let mut node = 1;
        while node < self.leaves {
            let (left, right) = (self.nodes[2 * node], self.nodes[2 * node + 1]);
            node *= 2;
            if right > 0.0 && (left_over >= left || left == 0.0) {
                left_over -= left;
                node += 1;
            }
        }
        Some(EngineIx::new((node - self.leaves) as u32))
    }

    /// Calls `draws` on the tree with the engines in `except` taken out, then puts them back. O(k log n).
    pub fn with_except<R>(&mut self, except: &[EngineIx], draws: impl FnOnce(&SumTree) -> R) -> R {
        let taken: SmallVec<[(EngineIx, f64); 8]> =
            except.iter().map(|&engine| (engine, self.weight(engine))).filter(|&(_, weight)| weight > 0.0).collect();
        for &(engine, _) in &taken {
            self.set(engine, 0.0);
        }
        let result = draws(self);
        for &(engine, weight) in &taken {
            self.set(engine, weight.max(self.weight(engine)));
        }
        result
    }

    fn put(&mut self, slot: usize, weight: f64) {
        let mut node = self.leaves + slot;
        self.nodes[node] = weight;
        while node > 1 {
            node /= 2;
            self.nodes[node] = self.nodes[2 * node] + self.nodes[2 * node + 1];
        }
    }

    fn grow(&mut self, slots: usize) {
        let leaves = slots.next_power_of_two();
        let mut nodes = vec![0.0; 2 * leaves];
        nodes[leaves..leaves + self.leaves].copy_from_slice(&self.nodes[self.leaves..]);
        for node in (1..leaves).rev() {
            nodes[node] = nodes[2 * node] + nodes[2 * node + 1];
        }
        *self = SumTree { nodes, leaves };
    }
}
