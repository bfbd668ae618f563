//! Tasks stay where they were sent.

use super::{Flight, Move, Rebalance, RebalanceCx};
use crate::schemes::NoParameters;
use crate::{EngineIx, Named, PolicyError, TaskView, Time};

/// The rebalance policy `none`.
#[derive(Clone, Copy, Debug, Default)]
pub struct None;

impl Rebalance for None {
    fn watches(&self) -> bool {
        false
    }

    fn on_dispatch(&mut self, _cx: &RebalanceCx<'_>, _task: &TaskView<'_>, _engine: EngineIx) -> Option<Time> {
        Option::None
    }

    fn on_overdue(&mut self, _cx: &RebalanceCx<'_>, _task: &TaskView<'_>, _flight: &Flight) -> Move {
        Move::Leave
    }
}

impl Named for None {
    const NAME: &'static str = "none";
    const SUMMARY: &'static str = "a task stays where it was sent";
    const SOURCE: &'static str = "ipyparallel";
    type Config = NoParameters;
    fn build(_: NoParameters) -> Result<Self, PolicyError> {
        Ok(None)
    }
}
