//! A second copy of a task that takes much longer than its class usually does, on another engine; the first answer counts.
//! Source: Dean and Barroso, The tail at scale, CACM 56(2), 2013. Only for tasks whose label says `#hedge`: they may run twice.

use std::time::Duration;

use super::{Flight, Move, Rebalance, RebalanceCx};
use crate::registry::in_range;
use crate::{EngineIx, Named, Needs, PolicyError, TaskView, Time};

/// The rebalance policy `hedge`.
#[derive(Clone, Copy, Debug)]
pub struct Hedge {
    deviations: f64,
    min: Duration,
}

/// Parameters of [`Hedge`].
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HedgeConfig {
    deviations: f64,
    min_ms: f64,
}

impl Default for HedgeConfig {
    fn default() -> Self {
        HedgeConfig { deviations: 3.0, min_ms: 100.0 }
    }
}

impl Rebalance for Hedge {
    fn needs(&self) -> Needs {
        Needs::HINTS | Needs::COST | Needs::ESTIMATE
    }

    fn on_dispatch(&mut self, cx: &RebalanceCx<'_>, task: &TaskView<'_>, engine: EngineIx) -> Option<Time> {
        if !task.hints().hedge {
            return None;
        }
        let class = cx.learned.class(task.class()).map(|class| class.run_s);
        let deviation = class.map_or(0.0, |run| run.variance.max(0.0).sqrt());
        // Of what nothing is known, the least delay is all there is to go by.
        let usual_s = cx.learned.expected_s(task).unwrap_or(0.0) + self.deviations * deviation;
        let ahead = f64::from(cx.roster.load(engine).max(1));
        let delay = Duration::try_from_secs_f64(ahead * usual_s).unwrap_or(Duration::MAX);
        Some(cx.now + delay.max(self.min))
    }

    fn on_overdue(&mut self, cx: &RebalanceCx<'_>, _task: &TaskView<'_>, flight: &Flight) -> Move {
        // A copy is worth it only where it would start at once.
        let elsewhere = cx.roster.open_count() > usize::from(cx.roster.is_open(flight.engine));
        if elsewhere { Move::Hedge } else { Move::Again(cx.now + self.min) }
    }
}

impl Named for Hedge {
    const NAME: &'static str = "hedge";
    const SUMMARY: &'static str =
        "a second copy of a straggler whose label says #hedge; first answer wins, the other is cancelled";
    const SOURCE: &'static str = "Dean and Barroso 2013";
    const LABELS: &'static [&'static str] = &["#hedge"];
    const PARAMETERS: &'static [(&'static str, &'static str)] = &[
        ("deviations", "standard deviations above its class' mean after which a task is a straggler, 0 to 100"),
        ("min_ms", "the least time before a second copy, milliseconds, 1 to 1e9"),
    ];
    type Config = HedgeConfig;
    fn build(config: HedgeConfig) -> Result<Self, PolicyError> {
        Ok(Hedge {
            deviations: in_range(Self::NAME, "deviations", config.deviations, 0.0..=100.0)?,
            min: Duration::from_secs_f64(in_range(Self::NAME, "min_ms", config.min_ms, 1.0..=1e9)? / 1e3),
        })
    }
}
