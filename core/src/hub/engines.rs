//! Registration: who is coming, who is there, under which number. Numbers are never used twice, and a uuid is in one state at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

/// The number by which clients know an engine.
pub type EngineNumber = u64;

/// An engine that is there.
#[derive(Debug, Default)]
pub(super) struct Live {
    pub(super) uuid: Box<str>,
    /// Direct messages in flight, tasks in flight, and all that have completed.
    pub(super) queue: u64,
    pub(super) tasks: u64,
    pub(super) completed: u64,
}

/// An engine that has asked to register and has not yet answered a ping.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    pub(super) number: EngineNumber,
    pub(super) until: Duration,
}

#[derive(Debug, Default)]
pub(super) struct Engines {
    pub(super) live: BTreeMap<EngineNumber, Live>,
    pub(super) numbers: HashMap<Box<str>, EngineNumber, FixedState>,
    pub(super) pending: HashMap<Box<str>, Pending, FixedState>,
    reserved: BTreeSet<EngineNumber>,
    next: EngineNumber,
}

impl Engines {
    /// Reserves a number: the one asked for if nobody has or had it, else the next.
    pub(super) fn reserve(&mut self, uuid: &str, wanted: Option<EngineNumber>, until: Duration) -> EngineNumber {
        let free = |number: &EngineNumber| !self.live.contains_key(number) && !self.reserved.contains(number);
        let number = wanted.filter(|number| *number < 1 << 53).filter(free).unwrap_or(self.next);
        self.next = self.next.max(number + 1);
        self.reserved.insert(number);
        self.pending.insert(uuid.into(), Pending { number, until });
        number
    }

    /// Ends a reservation.
    pub(super) fn cancel(&mut self, uuid: &str) -> Option<EngineNumber> {
        let pending = self.pending.remove(uuid)?;
        self.reserved.remove(&pending.number);
        Some(pending.number)
    }

    /// Makes a pending engine live.
    pub(super) fn confirm(&mut self, uuid: &str) -> Option<EngineNumber> {
        let number = self.cancel(uuid)?;
        self.live.insert(number, Live { uuid: uuid.into(), ..Live::default() });
        self.numbers.insert(uuid.into(), number);
        Some(number)
    }

    pub(super) fn remove(&mut self, number: EngineNumber) -> Option<Live> {
        let live = self.live.remove(&number)?;
        self.numbers.remove(&live.uuid);
        Some(live)
    }

    pub(super) fn by_uuid(&mut self, uuid: &str) -> Option<&mut Live> {
        self.live.get_mut(self.numbers.get(uuid)?)
    }
}
