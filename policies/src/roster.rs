//! The engines as policies see them: which exist, which may take work, how much each runs, which was used least recently.
//! The scheduler writes it through [`Placement`](crate::Placement); policies only read, and nothing here ever guesses.

use crate::facts::{hash_name, mix};

/// Index of an engine in the roster. Dense and reused after an engine has left, so that policies can use arrays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EngineIx(u32);

impl EngineIx {
    /// The engine in slot `slot`.
    pub const fn new(slot: u32) -> EngineIx {
        EngineIx(slot)
    }

    /// The slot, for indexing arrays.
    pub const fn slot(self) -> usize {
        self.0 as usize
    }
}

/// An engine that is about to join.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Joining {
    /// The most tasks it may have in flight; 0 means no limit.
    pub hwm: u32,
    /// A hash of its name; of its slot unless given.
    pub identity: Option<u64>,
    /// The number by which people know it; its slot unless given.
    pub number: Option<u64>,
}

impl Joining {
    /// An engine without a name.
    pub const fn new(hwm: u32) -> Self {
        Joining { hwm, identity: None, number: None }
    }

    /// The same with a name and a number.
    pub fn named(mut self, name: &str, number: u64) -> Self {
        (self.identity, self.number) = (Some(hash_name(name)), Some(number));
        self
    }
}

#[derive(Clone, Copy, Debug)]
struct Row {
    live: bool,
    /// Draining or lost: takes no more work whatever its load.
    barred: bool,
    open: bool,
    load: u32,
    hwm: u32,
    stamp: i64,
    identity: u64,
    number: u64,
}

const ABSENT: Row = Row { live: false, barred: false, open: false, load: 0, hwm: 0, stamp: 0, identity: 0, number: 0 };

/// What is true of every engine. All methods are O(1) unless they return an iterator.
#[derive(Clone, Debug, Default)]
pub struct Roster {
    rows: Vec<Row>,
    free: Vec<u32>,
    live: usize,
    open: usize,
    /// Next stamp to give at the back (most recently used) and at the front (joined last, used never).
    back: i64,
    front: i64,
}

impl Roster {
    /// One more than the highest slot ever used: the length for arrays indexed by [`EngineIx::slot`].
    pub fn slots(&self) -> usize {
        self.rows.len()
    }

    /// How many engines exist, open or not.
    pub fn live_count(&self) -> usize {
        self.live
    }

    /// How many engines may take work.
    pub fn open_count(&self) -> usize {
        self.open
    }

    /// Whether the engine exists.
    pub fn is_live(&self, engine: EngineIx) -> bool {
        self.rows.get(engine.slot()).is_some_and(|row| row.live)
    }

    /// Whether the engine may take work now: it exists, is below its hwm, neither draining nor lost.
    pub fn is_open(&self, engine: EngineIx) -> bool {
        self.rows.get(engine.slot()).is_some_and(|row| row.open)
    }

    /// Tasks in flight on the engine; 0 for one that does not exist.
    pub fn load(&self, engine: EngineIx) -> u32 {
        self.rows.get(engine.slot()).map_or(0, |row| row.load)
    }

    /// The most tasks the engine may have in flight; 0 means no limit.
    pub fn hwm(&self, engine: EngineIx) -> u32 {
        self.rows.get(engine.slot()).map_or(0, |row| row.hwm)
    }

    /// Position in least-recently-used order: lower is used less recently. A newly joined engine comes before all others and
    /// every dispatch moves an engine behind all others; completions change nothing (the order of ipyparallel's engine list).
    pub fn stamp(&self, engine: EngineIx) -> i64 {
        self.rows.get(engine.slot()).map_or(i64::MAX, |row| row.stamp)
    }

    /// A hash of the engine's name, the same in every run and wherever it joins: what consistent hashing goes by.
    pub fn identity(&self, engine: EngineIx) -> u64 {
        self.rows.get(engine.slot()).map_or(0, |row| row.identity)
    }

    /// The number by which people know the engine.
    pub fn number(&self, engine: EngineIx) -> u64 {
        self.rows.get(engine.slot()).map_or(0, |row| row.number)
    }

    /// Every open engine, by slot. O(slots).
    pub fn open_engines(&self) -> impl Iterator<Item = EngineIx> + '_ {
        self.filtered(|row| row.open)
    }

    /// Every existing engine, by slot. O(slots).
    pub fn live_engines(&self) -> impl Iterator<Item = EngineIx> + '_ {
        self.filtered(|row| row.live)
    }

    fn filtered(&self, keep: fn(&Row) -> bool) -> impl Iterator<Item = EngineIx> + '_ {
        self.rows.iter().enumerate().filter(move |(_, row)| keep(row)).map(|(slot, _)| EngineIx(slot as u32))
    }

    /// Adds an engine at the front of the least-recently-used order; its slot may have been another's. It is open at once.
    pub(crate) fn join(&mut self, joining: Joining) -> EngineIx {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.rows.push(ABSENT);
            (self.rows.len() - 1) as u32
        });
        self.front -= 1;
        self.rows[slot as usize] = Row {
            live: true,
            barred: false,
            open: true,
            load: 0,
            hwm: joining.hwm,
            stamp: self.front,
            identity: joining.identity.unwrap_or_else(|| mix(u64::from(slot) + 1)),
            number: joining.number.unwrap_or(u64::from(slot)),
        };
        self.live += 1;
        self.open += 1;
        EngineIx(slot)
    }

    /// Whether the engine is barred from work, draining or lost, whatever it has in flight.
    pub fn is_barred(&self, engine: EngineIx) -> bool {
        self.rows.get(engine.slot()).is_some_and(|row| row.barred)
    }

    /// The same engines with nothing in flight and all open, for a scheme that takes over to be told of them one by one.
    pub(crate) fn idle_copy(&self) -> Roster {
        let mut copy = self.clone();
        for row in copy.rows.iter_mut().filter(|row| row.live) {
            (row.barred, row.open, row.load) = (false, true, 0);
        }
        copy.open = copy.live;
        copy
    }

    /// Notes a task that was sent before, without touching the order of use.
    pub(crate) fn replayed(&mut self, engine: EngineIx) {
        self.rows[engine.slot()].load += 1;
    }

    pub(crate) fn leave(&mut self, engine: EngineIx) {
        let row = &mut self.rows[engine.slot()];
        debug_assert!(row.live, "left twice");
        self.open -= usize::from(row.open);
        self.live -= 1;
        *row = ABSENT;
        self.free.push(engine.0);
    }

    pub(crate) fn dispatched(&mut self, engine: EngineIx) {
        let stamp = self.back;
        self.back += 1;
        let row = &mut self.rows[engine.slot()];
        row.load += 1;
        row.stamp = stamp;
        self.settle(engine);
    }

    pub(crate) fn released(&mut self, engine: EngineIx) {
        let row = &mut self.rows[engine.slot()];
        debug_assert!(row.load > 0, "released more than dispatched");
        row.load = row.load.saturating_sub(1);
        self.settle(engine);
    }

    pub(crate) fn set_hwm(&mut self, engine: EngineIx, hwm: u32) {
        self.rows[engine.slot()].hwm = hwm;
        self.settle(engine);
    }

    pub(crate) fn set_barred(&mut self, engine: EngineIx, barred: bool) {
        self.rows[engine.slot()].barred = barred;
        self.settle(engine);
    }

    fn settle(&mut self, engine: EngineIx) {
        let row = &mut self.rows[engine.slot()];
        let open = row.live && !row.barred && (row.hwm == 0 || row.load < row.hwm);
        self.open = self.open + usize::from(open) - usize::from(row.open);
        row.open = open;
    }
}
