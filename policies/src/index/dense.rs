//! A set of engines that can be drawn from uniformly in O(1). Order inside means nothing and changes with removals.

use crate::{EngineIx, Rng};

const ABSENT: u32 = u32::MAX;

/// Engines in an array, with the place of each, so that insertion, removal and a uniform draw are O(1).
#[derive(Clone, Debug, Default)]
pub struct DenseSet {
    members: Vec<EngineIx>,
    place: Vec<u32>,
}

impl DenseSet {
    /// Adds an engine; no effect if it is there.
    pub fn insert(&mut self, engine: EngineIx) {
        if self.place.len() <= engine.slot() {
            self.place.resize(engine.slot() + 1, ABSENT);
        }
        if self.place[engine.slot()] == ABSENT {
            self.place[engine.slot()] = self.members.len() as u32;
            self.members.push(engine);
        }
    }

    /// Removes an engine; no effect if it is not there.
    pub fn remove(&mut self, engine: EngineIx) {
        let Some(place) = self.place.get(engine.slot()).copied().filter(|&place| place != ABSENT) else { return };
        self.members.swap_remove(place as usize);
        if let Some(moved) = self.members.get(place as usize) {
            self.place[moved.slot()] = place;
        }
        self.place[engine.slot()] = ABSENT;
    }

    /// Whether the engine is in the set.
    pub fn contains(&self, engine: EngineIx) -> bool {
        self.place.get(engine.slot()).is_some_and(|&place| place != ABSENT)
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The members, in no meaningful order.
    pub fn as_slice(&self) -> &[EngineIx] {
        &self.members
    }

    /// Where a member is in [`as_slice`](Self::as_slice).
    pub(super) fn place(&self, engine: EngineIx) -> Option<u32> {
        self.place.get(engine.slot()).copied().filter(|&place| place != ABSENT)
    }

    /// A member uniformly at random, or `None` of an empty set.
    pub fn draw(&self, rng: &mut Rng) -> Option<EngineIx> {
        (!self.members.is_empty()).then(|| self.members[rng.below(self.members.len())])
    }
}
