//! Registration: who is coming, who is there, under which number. Numbers are never used twice, and a uuid is in one state at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::date::Date;

/// The number by which clients know an engine.
pub type EngineNumber = u64;

/// The engines of a controller, as they are kept for the next one.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct EnginesState {
    /// Uuids by number.
    pub engines: BTreeMap<EngineNumber, String>,
    /// The number that the next engine gets.
    #[serde(default)]
    pub next_id: EngineNumber,
    /// Engines that have just been lost, and whose requests may not have been given up yet.
    #[serde(default)]
    pub leaving: Vec<String>,
    /// When the first of the controllers that took over from one another started.
    #[serde(default)]
    pub since: Option<Date>,
}

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
    /// When it first answered a ping.
    pub(super) answered: Option<Duration>,
    /// Something of its output has arrived: what it prints from now on will, too.
    pub(super) heard: bool,
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
        self.pending.insert(uuid.into(), Pending { number, until, answered: None, heard: false });
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
        self.add(uuid, number);
        Some(number)
    }

    fn add(&mut self, uuid: &str, number: EngineNumber) {
        self.live.insert(number, Live { uuid: uuid.into(), ..Live::default() });
        self.numbers.insert(uuid.into(), number);
    }

    /// Makes an engine of a former controller live. False if its number or uuid is taken.
    pub(super) fn restore(&mut self, uuid: &str, number: EngineNumber) -> bool {
        let is_free = !self.live.contains_key(&number) && !self.numbers.contains_key(uuid) && number < 1 << 53;
        if is_free {
            self.add(uuid, number);
            self.next = self.next.max(number + 1);
        }
        is_free
    }

    /// Who is there or is coming, as the next controller may want to know: one that has been told its number may take itself for registered.
    pub(super) fn state(&self) -> EnginesState {
        let live = self.live.iter().map(|(number, live)| (*number, live.uuid.to_string()));
        let coming = self.pending.iter().map(|(uuid, pending)| (pending.number, uuid.to_string()));
        let engines = live.chain(coming).collect();
        EnginesState { engines, next_id: self.next, ..EnginesState::default() }
    }

    /// Continues the numbers of a former controller.
    pub(super) fn continue_at(&mut self, next: EngineNumber) {
        self.next = self.next.max(next.min(1 << 53));
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
