//! Tasks that wait in the queue of an engine that turned slow are taken back and placed anew. Only what has not begun is moved.
//! Source: task migration as in Casanova et al., Heuristics for scheduling parameter sweep applications, 2000 (rescheduling of queued tasks).

use std::time::Duration;

use super::{Flight, Move, Rebalance, RebalanceCx};
use crate::registry::in_range;
use crate::{EngineIx, Named, Needs, PolicyError, TaskView, Time};

/// The rebalance policy `replace`.
#[derive(Clone, Copy, Debug)]
pub struct Replace {
    factor: f64,
    min: Duration,
}

/// Parameters of [`Replace`].
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReplaceConfig {
    factor: f64,
    min_ms: f64,
}

impl Default for ReplaceConfig {
    fn default() -> Self {
        ReplaceConfig { factor: 3.0, min_ms: 500.0 }
    }
}

impl Rebalance for Replace {
    fn needs(&self) -> Needs {
        Needs::COST | Needs::ESTIMATE
    }

    fn on_dispatch(&mut self, cx: &RebalanceCx<'_>, task: &TaskView<'_>, engine: EngineIx) -> Option<Time> {
        let load = cx.roster.load(engine);
        if load <= 1 {
            return None; // it runs at once
        }
        let each_s = cx.learned.expected_s(task).unwrap_or(0.0);
        let usual = Duration::try_from_secs_f64(self.factor * f64::from(load - 1) * each_s).unwrap_or(Duration::MAX);
        Some(cx.now + usual.max(self.min))
    }

    fn on_overdue(&mut self, cx: &RebalanceCx<'_>, _task: &TaskView<'_>, flight: &Flight) -> Move {
        if !flight.is_queued {
            return Move::Leave;
        }
        let elsewhere = cx.roster.open_count() > usize::from(cx.roster.is_open(flight.engine));
        if elsewhere { Move::Recall } else { Move::Again(cx.now + self.min) }
    }
}

impl Named for Replace {
    const NAME: &'static str = "replace";
    const SUMMARY: &'static str = "tasks queued on an engine that turned slow are placed anew, if they have not begun";
    const SOURCE: &'static str = "Casanova et al. 2000";
    const ROOM: crate::Room = crate::Room::Several;
    const PARAMETERS: &'static [(&'static str, &'static str)] = &[
        ("factor", "multiple of the expected wait after which a queued task is moved, 1 to 1000"),
        ("min_ms", "the least time before a task is moved, milliseconds, 1 to 1e9"),
    ];
    type Config = ReplaceConfig;
    fn build(config: ReplaceConfig) -> Result<Self, PolicyError> {
        Ok(Replace {
            factor: in_range(Self::NAME, "factor", config.factor, 1.0..=1000.0)?,
            min: Duration::from_secs_f64(in_range(Self::NAME, "min_ms", config.min_ms, 1.0..=1e9)? / 1e3),
        })
    }
}
