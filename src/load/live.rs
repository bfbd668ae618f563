//! A workload of the lab on a live cluster: a controller of our own with engines that do nothing for as long as each task says.

use std::path::Path;
use std::time::Duration;

use anyhow::bail;
use pointsman_policies::{Axis, Registry};

use super::clients::Clients;
use super::plan::{After, Arrivals, Durations, Plan};
use super::{Site, Which};
use crate::lab::experiment::{Outcome, Point, Work, source_of};
use crate::lab::measure::Collector;
use crate::lab::world::{Ended, Source, Totals};

/// What a live cluster is.
#[derive(Clone, Debug, PartialEq)]
pub struct Live {
    /// Engines.
    pub engines: usize,
    /// Connections of clients.
    pub clients: usize,
    /// Options of the controller: its policies.
    pub options: Vec<String>,
    /// What a second of the workload takes, in seconds.
    pub unit_s: f64,
}

/// Runs the jobs of a source; `watch` sees each end in the source's time. `progress` as in [`run`](super::run).
///
/// # Errors
/// If the controller does not start, or stops answering.
pub fn run_live(
    live: &Live,
    source: &mut dyn Source,
    progress: &dyn Fn(&str, f64),
    watch: &mut dyn FnMut(&Ended),
) -> anyhow::Result<Duration> {
    let plan = Plan {
        engines: live.engines,
        clients: live.clients.max(1),
        arrivals: Arrivals::Window(1),
        payload_bytes: 24,
        result_bytes: 8,
        duration: Durations::Zero,
        after: After::Nothing,
        blocked: 0,
        history: 0,
        rounds: 1,
        round_s: 0.0,
        warmup_s: 0.0,
        seed: 1,
    };
    let Site { target, mut farm } = Site::open(&plan, &Which::Own(live.options.clone()), progress)?;
    let mut clients = Clients::connect(&target.client, &plan)?;
    let from = clients.now();
    clients.drive_source(source, live.unit_s, watch, || farm.check())?;
    Ok(clients.now() - from)
}

/// Runs a point once on a live cluster of this machine: our own controller as a process, engines that are busy for as long as tasks take. A second
/// of the point takes `unit_s`.
///
/// # Errors
/// As [`run_point`](crate::lab::experiment::run_point); if the point has what only a simulator can have; or if the cluster fails.
pub fn run_point_live(point: &Point, registry: &Registry, folder: &Path, seed: u64, unit_s: f64) -> anyhow::Result<Outcome> {
    let plain = Point {
        speeds: "equal".into(),
        dispatchers: 1,
        latency_s: 0.0,
        jitter: None,
        loss: 0.0,
        client_latency_s: 0.0,
        lives: None,
        slow_every: None,
        failing: 0.0,
        report_every_s: None,
        bandwidth_bytes_per_s: None,
        ..point.clone()
    };
    if point.reference().is_some() || plain != *point {
        bail!("live, engines are alike, links are what they are, and nothing fails on purpose");
    }
    let resolved = point.policies(registry)?;
    let names =
        [("scheme", Axis::Placement), ("order", Axis::Order), ("admission", Axis::Admission), ("rebalance", Axis::Rebalance)];
    let mut options: Vec<String> = names.into_iter().map(|(name, axis)| format!("--{name}={}", resolved.on(axis))).collect();
    options.extend(["--nodb".to_owned(), format!("--seed={}", seed >> 1)]);
    let live = Live { engines: point.engines, clients: point.clients as usize, options, unit_s };
    let (mut source, tasks) = match source_of(point, folder, seed)? {
        Work::Tasks(source, tasks) => (source, tasks),
        Work::Graphs(..) => bail!("live runs are of independent tasks"),
    };
    let mut collector = Collector::new((tasks as f64 * point.warmup) as u64);
    let mut totals = Totals { busy_ns: vec![0; point.engines], ..Totals::default() };
    let length = run_live(&live, &mut source, &|_, _| (), &mut |ended| {
        collector.see(ended);
        totals.ended += 1;
        totals.failed += u64::from(!ended.ok);
        totals.busy_ns[0] += ended.work_ns;
    })?;
    totals.busy_ns = vec![totals.busy_ns[0] / point.engines as u64; point.engines];
    totals.end_ns = (length.as_nanos() as f64 / unit_s) as u64;
    Ok(Outcome { measures: collector.measures(&totals, None), totals, gantt: Vec::new() })
}
