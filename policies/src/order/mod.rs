//! The order axis: among tasks that an engine could take, which goes next. An order gives each ready task a rank, once, and a queue
//! keeps them sorted; orders that share between parties keep those apart as lanes, each with a tag that moves as it is served.

mod fair;
mod graph;
mod keyed;

pub use fair::Fair;
pub use graph::{CriticalPath, DepthFirst, Heft, MostDescendants};
pub use keyed::{Deadline, Fifo, Lifo, Longest, Priority, Shortest};

use crate::{Ending, Learned, Needs, PolicyError, Registry, TaskView, Ticket, Time};

/// Ranks ready tasks.
///
/// # Calling order
/// `rank` when a task becomes ready, and again when what it is ranked by has changed or another order takes over; then, in the lane that it
/// was ranked into, `on_wait`; then `on_dispatch` when it is sent or `on_withdraw` when it no longer waits for another reason; after
/// `on_dispatch`, `on_outcome` once.
///
/// # The order of tasks
/// By their lane's tag, then their lane, then their key, then the order of submission; less goes first.
pub trait Order: Send {
    /// What it looks at; all else is hidden from it. Must not change.
    fn needs(&self) -> Needs {
        Needs::empty()
    }

    /// Where a ready task stands.
    fn rank(&mut self, cx: &OrderCx<'_>, task: &TaskView<'_>) -> Rank;

    /// Whether ranks follow from what changes while a task waits: what is learned, its place in a growing graph. Waiting tasks are ranked again
    /// then, a few at a time.
    fn is_revised(&self) -> bool {
        false
    }

    /// Where a lane stands. May fall while a task waits in it only with an outcome, and [`take_fallen`](Self::take_fallen) says so. O(1).
    fn tag(&self, _lane: u64) -> u64 {
        0
    }

    /// The lane whose tag the last outcome has let fall, if it has. Asked once after each outcome.
    fn take_fallen(&mut self) -> Option<u64> {
        None
    }

    /// A task waits in a lane from now on.
    fn on_wait(&mut self, _cx: &OrderCx<'_>, _lane: u64) {}

    /// A task no longer waits in a lane, and was not sent.
    fn on_withdraw(&mut self, _cx: &OrderCx<'_>, _lane: u64) {}

    /// A task of a lane was sent. The returned word comes back with its outcome.
    fn on_dispatch(&mut self, _cx: &OrderCx<'_>, _lane: u64, _task: &TaskView<'_>) -> Ticket {
        Ticket::default()
    }

    /// A task that was sent is no longer at its engine; it ran for `run_s` seconds, as far as that is known.
    fn on_outcome(&mut self, _cx: &OrderCx<'_>, _lane: u64, _ticket: Ticket, _ending: Ending, _run_s: Option<f64>) {}

    /// What it costs to move a result of so many bytes to another engine, in seconds: part of [`TaskView::level_s`].
    fn transfer_s(&self, _bytes: f64) -> f64 {
        0.0
    }

    /// How many lanes it remembers; for tests.
    fn lane_count(&self) -> usize {
        0
    }
}

/// What an order may look at during a call.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct OrderCx<'a> {
    /// The time of the event being handled.
    pub now: Time,
    /// What the run has taught so far.
    pub learned: &'a Learned,
}

impl<'a> OrderCx<'a> {
    /// At this moment, knowing this.
    pub const fn new(now: Time, learned: &'a Learned) -> Self {
        OrderCx { now, learned }
    }
}

/// Where a task stands among those that wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rank {
    /// Whose share it belongs to; 0 in orders without lanes.
    pub lane: u64,
    /// Its place in the lane; less goes first.
    pub key: u64,
}

impl Rank {
    /// In the only lane, by an integer.
    pub const fn key(key: u64) -> Self {
        Rank { lane: 0, key }
    }

    /// In the only lane, least number first.
    pub fn least(number: f64) -> Self {
        Rank::key(crate::index::sortable(number))
    }

    /// In the only lane, greatest number first.
    pub fn greatest(number: f64) -> Self {
        Rank::least(-number)
    }
}

pub(crate) fn register(registry: &mut Registry) -> Result<(), PolicyError> {
    registry
        .register_order::<Fifo>()?
        .register_order::<Lifo>()?
        .register_order::<Priority>()?
        .register_order::<Shortest>()?
        .register_order::<Longest>()?
        .register_order::<Deadline>()?
        .register_order::<Fair>()?
        .register_order::<CriticalPath>()?
        .register_order::<Heft>()?
        .register_order::<MostDescendants>()?
        .register_order::<DepthFirst>()?;
    Ok(())
}
