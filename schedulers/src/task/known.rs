//! Every engine that ever was: a number for its uuid that is never given to another, so that a finished task's record of where it
//! ran stays true, and which tasks are bound to it. The roster of live engines is the placement's.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use pointsman_policies::{EngineIx, Time};
use smallvec::SmallVec;

use super::TaskKey;
use super::queue::Queue;

/// An engine's number, for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EngineId(pub(super) u32);

impl EngineId {
    /// The number.
    pub const fn number(self) -> u32 {
        self.0
    }
}

/// An engine's present.
#[derive(Debug)]
pub(super) enum Presence {
    /// Not there. Its tasks have been dealt with.
    Gone,
    Up(EngineIx),
    /// Lost; its tasks may be answered until then.
    Dying(EngineIx, Time),
}

#[derive(Debug)]
pub(super) struct Known {
    pub(super) uuid: Arc<str>,
    pub(super) presence: Presence,
    /// Tasks in flight on it; each knows its place in here.
    pub(super) running: SmallVec<[TaskKey; 2]>,
    /// The same in the order of dispatch, with its number, while the rebalance policy watches; may hold some that are there no more.
    pub(super) sent: VecDeque<(u64, TaskKey)>,
    /// Tasks in flight on it whose answers no longer matter: they were answered elsewhere, or taken back.
    pub(super) ghosts: u32,
    /// Ready tasks that may run only on a few engines, this among them; made when there is one.
    pub(super) parked: Option<Box<Queue>>,
    /// Live tasks that name it in targets or follow a task that ran on it; may hold dead keys until the next sweep.
    pub(super) bound: Vec<TaskKey>,
    pub(super) bound_swept: usize,
    /// Up to where it has read the log of turned-away tasks.
    pub(super) cursor: u64,
    /// Asked to take no more.
    pub(super) draining: bool,
    /// Could not be reached; to be tried again then.
    pub(super) unreachable_until: Option<Time>,
    /// The moment under which it stands among those that wait for one.
    noted: Option<Time>,
}

#[derive(Debug, Default)]
pub(super) struct KnownEngines {
    list: Vec<Known>,
    by_uuid: HashMap<Box<str>, EngineId, FixedState>,
    /// The engine in each roster slot.
    by_slot: Vec<EngineId>,
    /// How many are up.
    pub(super) up: usize,
    /// Those that wait for a moment, lost or to be tried again, by when that comes.
    wakes: BTreeSet<(Time, EngineId)>,
}

impl Known {
    /// When something is to be done about it.
    pub(super) fn wakes_at(&self) -> Option<Time> {
        match self.presence {
            Presence::Dying(_, until) => Some(until),
            Presence::Up(_) => self.unreachable_until,
            Presence::Gone => None,
        }
    }
}

impl KnownEngines {
    pub(super) fn find(&self, uuid: &str) -> Option<EngineId> {
        self.by_uuid.get(uuid).copied()
    }

    pub(super) fn find_or_add(&mut self, uuid: &str) -> EngineId {
        if let Some(id) = self.find(uuid) {
            return id;
        }
        let id = EngineId(self.list.len() as u32);
        self.list.push(Known {
            uuid: uuid.into(),
            presence: Presence::Gone,
            running: SmallVec::new(),
            sent: VecDeque::new(),
            ghosts: 0,
            parked: None,
            bound: Vec::new(),
            bound_swept: 0,
            cursor: 0,
            draining: false,
            unreachable_until: None,
            noted: None,
        });
        self.by_uuid.insert(uuid.into(), id);
        id
    }

    pub(super) fn get(&self, id: EngineId) -> &Known {
        &self.list[id.0 as usize]
    }

    pub(super) fn get_mut(&mut self, id: EngineId) -> &mut Known {
        &mut self.list[id.0 as usize]
    }

    /// Its place in the roster, if it is up.
    pub(super) fn up_ix(&self, id: EngineId) -> Option<EngineIx> {
        match self.get(id).presence {
            Presence::Up(ix) => Some(ix),
            _ => None,
        }
    }

    pub(super) fn set_presence(&mut self, id: EngineId, presence: Presence) {
        self.up -= usize::from(self.is_up(id));
        self.get_mut(id).presence = presence;
        self.up += usize::from(self.is_up(id));
        self.note_wake(id);
    }

    /// To be called when its presence or reachability has changed.
    pub(super) fn note_wake(&mut self, id: EngineId) {
        let engine = &mut self.list[id.0 as usize];
        let at = engine.wakes_at();
        let before = std::mem::replace(&mut engine.noted, at);
        if before != at {
            before.map(|before| self.wakes.remove(&(before, id)));
            at.map(|at| self.wakes.insert((at, id)));
        }
    }

    /// When the first of those that wait for a moment is to be looked at, and which it is.
    pub(super) fn next_wake(&self) -> Option<(Time, EngineId)> {
        self.wakes.first().copied()
    }

    pub(super) fn is_up(&self, id: EngineId) -> bool {
        self.up_ix(id).is_some()
    }

    pub(super) fn at(&self, ix: EngineIx) -> EngineId {
        self.by_slot[ix.slot()]
    }

    pub(super) fn took_slot(&mut self, id: EngineId, ix: EngineIx) {
        if self.by_slot.len() <= ix.slot() {
            self.by_slot.resize(ix.slot() + 1, id);
        }
        self.by_slot[ix.slot()] = id;
    }

    /// The numbers of all engines ever known.
    pub(super) fn ids(&self) -> std::ops::Range<u32> {
        0..self.list.len() as u32
    }
}
