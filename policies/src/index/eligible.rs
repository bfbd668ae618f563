//! What a request leaves of a set of engines, as a list that can be indexed and drawn from: all of it, a few, or all but a few.

use smallvec::SmallVec;

use super::DenseSet;
use crate::{Candidates, EngineIx, Rng};

/// The open candidates of a request, in no meaningful order.
#[derive(Debug)]
pub struct Eligible<'a> {
    members: &'a [EngineIx],
    /// Places in `members` that are left out, ascending.
    holes: SmallVec<[u32; 8]>,
}

impl DenseSet {
    /// What `candidates` leave of this set, which holds the open engines. O(k log k) for those excluded, O(1) otherwise.
    pub fn eligible<'a>(&'a self, candidates: Candidates<'a>) -> Eligible<'a> {
        let mut holes = SmallVec::new();
        let members = match candidates {
            Candidates::All => self.as_slice(),
            Candidates::Only(list) => list,
            Candidates::Except(list) => {
                holes.extend(list.iter().filter_map(|&engine| self.place(engine)));
                holes.sort_unstable();
                holes.dedup();
                self.as_slice()
            }
        };
        Eligible { members, holes }
    }
}

impl Eligible<'_> {
    /// How many engines are left.
    pub fn len(&self) -> usize {
        self.members.len() - self.holes.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One of them by index. O(k) for those excluded, O(1) otherwise.
    ///
    /// # Panics
    /// If `index` is not below [`len`](Self::len).
    pub fn get(&self, index: usize) -> EngineIx {
        let mut place = index as u32;
        for &hole in &self.holes {
            place += u32::from(hole <= place);
        }
        self.members[place as usize]
    }

    /// One of them uniformly at random, or `None` if there is none.
    pub fn draw(&self, rng: &mut Rng) -> Option<EngineIx> {
        (!self.is_empty()).then(|| self.get(rng.below(self.len())))
    }

    /// `count` of them uniformly at random without repetition, or all if there are fewer. Which ones is random, their order is not:
    /// Floyd's algorithm (Bentley and Floyd, CACM 30(9), 1987). O(count^2) for the few that are sampled.
    pub fn sample(&self, count: usize, rng: &mut Rng) -> SmallVec<[EngineIx; 16]> {
        let len = self.len();
        if count >= len {
            return (0..len).map(|index| self.get(index)).collect();
        }
        let mut chosen: SmallVec<[usize; 16]> = SmallVec::new();
        for last in len - count..len {
            let drawn = rng.below(last + 1);
            chosen.push(if chosen.contains(&drawn) { last } else { drawn });
        }
        chosen.into_iter().map(|index| self.get(index)).collect()
    }
}
