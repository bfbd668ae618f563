//! The rebalance axis: whether a task that was sent is left where it is. A policy says when to look at a task again, and, if it is still
//! there then, whether it gets a second copy elsewhere or is taken back.

mod hedge;
mod none;
mod replace;

pub use hedge::Hedge;
pub use none::None;
pub use replace::Replace;

use crate::{EngineIx, Learned, Needs, PolicyError, Registry, Roster, TaskView, Time};

/// Decides about tasks that take long.
///
/// # Calling order
/// `on_dispatch` for each task sent; if it returns a time, `on_overdue` then, if the task is still there, and again whenever that asks for it.
pub trait Rebalance: Send {
    /// What it looks at. Must not change.
    fn needs(&self) -> Needs {
        Needs::empty()
    }

    /// Whether it ever looks at a task. One that never does costs nothing. Must not change.
    fn watches(&self) -> bool {
        true
    }

    /// A task was sent: when to look at it again, if ever.
    fn on_dispatch(&mut self, cx: &RebalanceCx<'_>, task: &TaskView<'_>, engine: EngineIx) -> Option<Time>;

    /// It is still there.
    fn on_overdue(&mut self, cx: &RebalanceCx<'_>, task: &TaskView<'_>, flight: &Flight) -> Move;
}

/// What a rebalance policy may look at during a call.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct RebalanceCx<'a> {
    /// The time of the event being handled.
    pub now: Time,
    /// Every engine.
    pub roster: &'a Roster,
    /// What the run has taught so far.
    pub learned: &'a Learned,
}

impl<'a> RebalanceCx<'a> {
    /// At this moment, with these engines, knowing this.
    pub const fn new(now: Time, roster: &'a Roster, learned: &'a Learned) -> Self {
        RebalanceCx { now, roster, learned }
    }
}

/// A task at an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Flight {
    /// Where it was sent.
    pub engine: EngineIx,
    /// When.
    pub since: Time,
    /// Whether a task that was sent to that engine before it is still there: then it has not begun.
    pub is_queued: bool,
}

impl Flight {
    /// A task sent to `engine` at `since`, behind another that is still there, or not.
    pub const fn new(engine: EngineIx, since: Time, is_queued: bool) -> Self {
        Flight { engine, since, is_queued }
    }
}

/// What to do about a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// Nothing, and do not ask again.
    Leave,
    /// Nothing yet: ask again then.
    Again(Time),
    /// Send a second copy to another engine. The first answer is its answer; the other copy is cancelled.
    Hedge,
    /// Take it back from the engine's queue, if it has not begun there, and place it anew elsewhere.
    Recall,
}

pub(crate) fn register(registry: &mut Registry) -> Result<(), PolicyError> {
    registry.register_rebalance::<None>()?.register_rebalance::<Hedge>()?.register_rebalance::<Replace>()?;
    Ok(())
}
