//! Orders by a task's place in the graph: how much of it waits behind the task, by time or by number, or how recently it was released.
//! The scheduler keeps those numbers up as the graph grows; the orders only compare them.

use super::{Order, OrderCx, Rank};
use crate::registry::in_range;
use crate::schemes::NoParameters;
use crate::{Named, Needs, PolicyError, TaskView};

/// The order `criticalpath`.
#[derive(Clone, Copy, Debug, Default)]
pub struct CriticalPath;

impl Order for CriticalPath {
    fn needs(&self) -> Needs {
        Needs::LEVEL | Needs::COST | Needs::ESTIMATE
    }

    fn rank(&mut self, _cx: &OrderCx<'_>, task: &TaskView<'_>) -> Rank {
        Rank::greatest(task.level_s())
    }

    fn is_revised(&self) -> bool {
        true
    }
}

impl Named for CriticalPath {
    const NAME: &'static str = "criticalpath";
    const SUMMARY: &'static str = "the longest path behind it (bottom level), by labels or learned times";
    const SOURCE: &'static str = "Hu 1961; Adam, Chandy and Dickson 1974";
    const ALIASES: &'static [&'static str] = &["bottomlevel"];
    type Config = NoParameters;
    fn build(_: NoParameters) -> Result<Self, PolicyError> {
        Ok(CriticalPath)
    }
}

/// The order `heft`.
#[derive(Clone, Copy, Debug)]
pub struct Heft {
    bytes_per_s: f64,
    latency_s: f64,
}

/// Parameters of [`Heft`].
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HeftConfig {
    bandwidth_mib_s: f64,
    latency_ms: f64,
}

impl Default for HeftConfig {
    fn default() -> Self {
        HeftConfig { bandwidth_mib_s: 1000.0, latency_ms: 1.0 }
    }
}

impl Order for Heft {
    fn needs(&self) -> Needs {
        Needs::LEVEL | Needs::COST | Needs::ESTIMATE
    }

    fn rank(&mut self, _cx: &OrderCx<'_>, task: &TaskView<'_>) -> Rank {
        Rank::greatest(task.level_s())
    }

    fn is_revised(&self) -> bool {
        true
    }

    fn transfer_s(&self, bytes: f64) -> f64 {
        self.latency_s + bytes / self.bytes_per_s
    }
}

impl Named for Heft {
    const NAME: &'static str = "heft";
    const SUMMARY: &'static str = "upward rank: the longest path behind it, with the transfer of results in between";
    const SOURCE: &'static str = "Topcuoglu, Hariri and Wu 2002";
    const PARAMETERS: &'static [(&'static str, &'static str)] = &[
        ("bandwidth_mib_s", "between engines, MiB per second"),
        ("latency_ms", "of a transfer, before its first byte, milliseconds"),
    ];
    type Config = HeftConfig;
    fn build(config: HeftConfig) -> Result<Self, PolicyError> {
        Ok(Heft {
            bytes_per_s: in_range(Self::NAME, "bandwidth_mib_s", config.bandwidth_mib_s, 1e-3..=1e9)? * 1024.0 * 1024.0,
            latency_s: in_range(Self::NAME, "latency_ms", config.latency_ms, 0.0..=1e6)? / 1e3,
        })
    }
}

/// The order `mostdescendants`.
#[derive(Clone, Copy, Debug, Default)]
pub struct MostDescendants;

impl Order for MostDescendants {
    fn needs(&self) -> Needs {
        Needs::DESCENDANTS
    }

    fn rank(&mut self, _cx: &OrderCx<'_>, task: &TaskView<'_>) -> Rank {
        Rank::greatest(task.descendants())
    }

    fn is_revised(&self) -> bool {
        true
    }
}

impl Named for MostDescendants {
    const NAME: &'static str = "mostdescendants";
    const SUMMARY: &'static str = "the task for which most others wait, directly or not";
    const SOURCE: &'static str = "Cohen 1997 for the count (exact to 32)";
    type Config = NoParameters;
    fn build(_: NoParameters) -> Result<Self, PolicyError> {
        Ok(MostDescendants)
    }
}

/// The order `depthfirst`.
#[derive(Clone, Copy, Debug, Default)]
pub struct DepthFirst;

impl Order for DepthFirst {
    fn rank(&mut self, _cx: &OrderCx<'_>, task: &TaskView<'_>) -> Rank {
        // Last released first; those released together, by one end or by none, in the order of submission.
        Rank::key(!task.release())
    }
}

impl Named for DepthFirst {
    const NAME: &'static str = "depthfirst";
    const SUMMARY: &'static str = "the task released last: follows a branch to its end, so that results are used soon";
    const SOURCE: &'static str = "the aim of dask.order; Blumofe and Leiserson 1999";
    type Config = NoParameters;
    fn build(_: NoParameters) -> Result<Self, PolicyError> {
        Ok(DepthFirst)
    }
}
