//! A workload of the lab on a live cluster: a controller of our own with engines that do nothing for as long as each task says.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::bail;
use pointsman_policies::{Axis, PolicySpec, Registry};

use super::clients::Clients;
use super::plan::{After, Arrivals, Durations, Plan};
use super::report::Ran;
use super::{Site, Which};
use crate::lab::experiment::{Outcome, Point, Work, Workload, source_of};
use crate::lab::measure::{Collector, Measures};
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

/// Runs the jobs of a source; `watch` sees each end in the source's time, with the run time that its engine has stamped. `progress` and `stop` as in
/// [`run`](super::run). Returns how long it took, and how long tasks ran.
///
/// # Errors
/// If the controller does not start, or stops answering; if it is stopped.
pub fn run_live(
    live: &Live,
    source: &mut dyn Source,
    progress: &dyn Fn(&str, f64),
    watch: &mut dyn FnMut(&Ended),
    stop: &Arc<AtomicBool>,
) -> anyhow::Result<(Duration, Ran)> {
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
        label: None,
    };
    let Site { target, mut farm, .. } = Site::open(&plan, &Which::Own(live.options.clone()), progress, stop)?;
    let mut clients = Clients::connect(&target.client, &plan, stop)?;
    let from = clients.now();
    clients.drive_source(source, live.unit_s, watch, || farm.check())?;
    let length = clients.now() - from;
    Ok((length, clients.take_seen()?.ran))
}

/// More connections than this a live run has not: it is refused if it needed more to tell its clients apart.
const MOST_CONNECTIONS: usize = 1000;

/// One connection for each client of a point, so that policies tell them apart as they do in the lab.
fn connections(point: &Point, folder: &Path) -> anyhow::Result<usize> {
    let named = match point.workload {
        Workload::Trace => point.recorded(folder)?.iter().map(|task| task.client).max(),
        _ => point.kinds.iter().map(|kind| kind.client).max(),
    };
    // Nobody in particular is a client too.
    let count = named.map_or(0, |most| most as usize + 1).max(point.clients as usize);
    if count > MOST_CONNECTIONS {
        bail!("{count} clients: a live run has at most {MOST_CONNECTIONS} connections");
    }
    Ok(count)
}

/// Whether a point can be run live: on this machine engines are alike, links are what they are, and nothing fails on purpose.
///
/// # Errors
/// The first key that asks for what only a simulator has.
pub fn check_live(point: &Point) -> anyhow::Result<()> {
    let default = Point::default();
    let only_simulated = [
        ("speeds", point.speeds != default.speeds),
        ("dispatchers", point.dispatchers != 1),
        ("latency_s", point.latency_s != 0.0),
        ("jitter", point.jitter.is_some()),
        ("loss", point.loss != 0.0),
        ("client_latency_s", point.client_latency_s != 0.0),
        ("lives", point.lives.is_some()),
        ("slow_every", point.slow_every.is_some()),
        ("failing", point.failing != 0.0),
        ("report_every_s", point.report_every_s.is_some()),
        ("bandwidth_bytes_per_s", point.bandwidth_bytes_per_s.is_some()),
    ];
    if let Some((key, _)) = only_simulated.into_iter().find(|(_, asked)| *asked) {
        bail!("live, {key} is what it is: only a simulation can choose it");
    }
    match point.reference() {
        Some(name) => bail!("~{name} is a reference, which nothing live can be"),
        None if point.workload == Workload::Graphs => {
            bail!("live runs are of independent tasks: workload = \"graphs\" is for simulations")
        }
        None => Ok(()),
    }
}

/// Runs a point once on a live cluster of this machine: our own controller as a process, engines that are busy for as long as tasks take. A second
/// of the point takes `unit_s`.
///
/// # Errors
/// As [`run_point`](crate::lab::experiment::run_point); if the point has what only a simulator can have; if the cluster fails; or if it is stopped.
pub fn run_point_live(
    point: &Point,
    registry: &Registry,
    folder: &Path,
    seed: u64,
    unit_s: f64,
    stop: &Arc<AtomicBool>,
) -> anyhow::Result<Outcome> {
    check_live(point)?;
    let resolved = point.policies(registry)?;
    let names =
        [("scheme", Axis::Placement), ("order", Axis::Order), ("admission", Axis::Admission), ("rebalance", Axis::Rebalance)];
    let option = |(name, axis)| Ok(format!("--{name}={}", at_unit(resolved.on(axis), unit_s)?));
    let mut options = names.into_iter().map(option).collect::<anyhow::Result<Vec<String>>>()?;
    options.extend(["--nodb".to_owned(), format!("--seed={}", seed >> 1)]);
    let live = Live { engines: point.engines, clients: connections(point, folder)?, options, unit_s };
    let (mut source, tasks) = match source_of(point, folder, seed)? {
        Work::Tasks(source, tasks) => (source, tasks),
        Work::Graphs(..) => bail!("live runs are of independent tasks"),
    };
    let mut collector = Collector::new((tasks as f64 * point.warmup) as u64);
    let mut totals = Totals { busy_ns: vec![0; point.engines], ..Totals::default() };
    let watch = &mut |ended: &Ended| {
        collector.see(ended);
        totals.ended += 1;
        totals.failed += u64::from(!ended.ok);
        // What its engine was busy for, not what it was to be busy for.
        totals.busy_ns[0] += ended.ended_ns - ended.started_ns;
    };
    let (length, ran) = run_live(&live, &mut source, &|_, _| (), watch, stop)?;
    totals.busy_ns = vec![totals.busy_ns[0] / point.engines as u64; point.engines];
    totals.end_ns = (length.as_nanos() as f64 / unit_s) as u64;
    // Results keep by how much a busy machine has stretched tasks, and whoever prints them says so.
    let stretch = (ran.tasks > 0).then(|| 1.0 + ran.drift());
    Ok(Outcome { measures: Measures { stretch, ..collector.measures(&totals, None) }, totals, gantt: Vec::new() })
}

/// A policy whose spans of time are as long as they are where a second of the experiment takes `unit_s`: parameters say their unit in their names.
fn at_unit(policy: &PolicySpec, unit_s: f64) -> anyhow::Result<PolicySpec> {
    let mut parameters = policy.parameters().clone();
    for (name, value) in &mut parameters {
        let is_time = ["_s", "_ms", "_us"].iter().any(|unit| name.ends_with(unit));
        let Some(number) = value.as_f64().filter(|number| is_time && *number != 0.0 && unit_s != 1.0) else { continue };
        let scaled = number * unit_s;
        *value = match value.is_f64() {
            true => scaled.into(),
            false if (scaled.round() / scaled - 1.0).abs() < 0.01 => (scaled.round() as i64).into(),
            false => bail!("live, {name} of {} would be {scaled}, and must be whole: choose another --unit-s", policy.name()),
        };
    }
    Ok(PolicySpec::with(policy.name(), parameters))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_a_simulator_has_is_refused_by_its_key() {
        assert!(check_live(&Point::default()).is_ok());
        for (point, says) in [
            (Point { loss: 0.1, ..Point::default() }, "loss"),
            (Point { speeds: "two[fast=2,share=0.5]".into(), ..Point::default() }, "speeds"),
            (Point { placement: "~srpt".into(), ..Point::default() }, "~srpt"),
            (Point { workload: Workload::Graphs, ..Point::default() }, "graphs"),
        ] {
            let error = check_live(&point).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn spans_of_policies_are_as_long_as_seconds_are() {
        let scaled = |text: &str| at_unit(&text.parse().unwrap(), 0.05).map(|spec| spec.to_string());
        assert_eq!(scaled("priority[aging_s=3.0]").unwrap(), "priority[aging_s=0.15000000000000002]");
        assert_eq!(scaled("hedge[deviations=3,min_ms=100]").unwrap(), "hedge[deviations=3,min_ms=5]");
        assert!(scaled("hedge[min_ms=3]").unwrap_err().to_string().contains("min_ms of hedge would be 0.15"));
    }
}
