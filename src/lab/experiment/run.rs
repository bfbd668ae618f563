//! Runs of points: one run, and all runs of an experiment on as many threads as there are cores.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, bail};
use pointsman_policies::{Registry, Rng};
use rayon::prelude::*;

use super::file::Experiment;
use super::keys::needless;
use super::point::{Pace, Point, Workload};
use super::store::Store;
use crate::lab::draw::Dist;
use crate::lab::graph::{Costs, Dag, Rule, cpop, heft, list_schedule, peft};
use crate::lab::measure::{Collector, METRICS, Measures};
use crate::lab::reference::{Discipline, Index, run_discipline, run_gittins};
use crate::lab::workload::{ArrivalKind, Arrivals, Closed, Graphs, Playback, Recorded, Stream};
use crate::lab::world::{Ended, Source, Totals, World};

/// The end of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Its figures.
    pub measures: Measures,
    /// What happened.
    pub totals: Totals,
    /// Of one graph that is not too large: engine, start and end in seconds of each task.
    pub gantt: Vec<(u32, f64, f64)>,
}

/// A finished run as it is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Which point of the experiment.
    pub point: usize,
    /// Which replication.
    pub replication: u32,
    /// Figures, in the order of [`METRICS`].
    pub figures: Vec<f64>,
}

/// What a first replication leaves for charts.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Detail {
    /// Which point.
    pub point: usize,
    /// Shares of responses above values.
    pub tail: Vec<(f64, f64)>,
    /// Time at work of each engine, as a share of the run.
    pub busy: Vec<f64>,
    /// Mean slowdowns by client, if there are several.
    #[serde(default)]
    pub clients: Vec<(u64, f64)>,
    /// Of one graph that is not too large: engine, start and end in seconds of each task.
    #[serde(default)]
    pub gantt: Vec<(u32, f64, f64)>,
}

/// Runs a point once. Files are found from `folder`; the same seed gives every policy the same tasks.
///
/// # Errors
/// If something in the point is not as it must be, or tasks are left that nothing would ever end.
pub fn run_point(point: &Point, registry: &Registry, folder: &Path, seed: u64) -> anyhow::Result<Outcome> {
    match source_of(point, folder, seed)? {
        Work::Tasks(source, tasks) => run_tasks(point, registry, folder, source, tasks, seed),
        Work::Graphs(source, dags) => run_graphs(point, registry, &dags, *source, seed),
    }
}

/// Where a point's work comes from.
pub enum Work {
    /// Independent tasks, and how many at most.
    Tasks(Box<dyn Source>, u64),
    /// Graphs, and which.
    Graphs(Box<Graphs>, Vec<Arc<Dag>>),
}

/// The work of a run. Files are found from `folder`; the same seed gives the same work.
///
/// # Errors
/// If something in the point is not as it must be.
pub fn source_of(point: &Point, folder: &Path, seed: u64) -> anyhow::Result<Work> {
    if let Some((key, why)) = needless(point) {
        bail!("{key} has no effect: {why}");
    }
    point.check_stable()?;
    let capacity: f64 = point.engine_speeds(seed)?.iter().sum();
    let estimate = point.estimate()?;
    // Only a trace has another pace.
    let drawn = |pace| if let Pace::Drawn(arrivals) = pace { arrivals } else { ArrivalKind::Poisson };
    let tasks: (Box<dyn Source>, u64) = match point.workload {
        Workload::Stream => {
            let rate = point.load() * capacity / point.mean_size_s()?;
            let source = Stream::new(drawn(point.pace()?), rate, point.kinds()?, estimate, point.tasks, seed);
            (Box::new(source), point.tasks)
        }
        Workload::Closed => {
            let (clients, window) = (point.clients.max(1), point.window.max(1));
            let source = Closed::new(point.kinds()?, clients, window, point.think()?, estimate, point.tasks, seed);
            (Box::new(source), point.tasks)
        }
        Workload::Trace => {
            let recorded = point.recorded(folder)?;
            let tasks = point.tasks.min(recorded.len() as u64);
            (Box::new(playback(point, recorded, capacity, seed)?), tasks)
        }
        Workload::Graphs => {
            let dags = point.dags(folder, seed)?;
            let mean_work_s = dags.iter().map(|dag| dag.total_s()).sum::<f64>() / dags.len() as f64;
            let rate = point.load() * capacity / mean_work_s.max(1e-9);
            let arrivals = if point.graphs == 1 { ArrivalKind::Batch } else { drawn(point.pace()?) };
            let source = Graphs::new(dags.clone(), arrivals, rate, point.clients, estimate, point.graphs, seed);
            return Ok(Work::Graphs(Box::new(source), dags));
        }
    };
    Ok(Work::Tasks(tasks.0, tasks.1))
}

/// The part of a trace that is played, as it was recorded or at drawn moments.
fn playback(point: &Point, recorded: Arc<Vec<Recorded>>, capacity: f64, seed: u64) -> anyhow::Result<Playback> {
    let played = &recorded[..recorded.len().min(usize::try_from(point.tasks).unwrap_or(usize::MAX))];
    let (work_s, span_s) = (played.iter().map(|task| task.run_s).sum::<f64>(), played.last().map_or(0.0, |task| task.at_s));
    let estimate = point.estimate()?;
    let speed = match (point.pace()?, point.load) {
        (Pace::Drawn(arrivals), _) => {
            let rate = point.load() * capacity * played.len() as f64 / work_s.max(1e-9);
            let arrivals = Arrivals::new(arrivals, rate, Rng::stream(seed, "arrivals"));
            return Ok(Playback::drawn(recorded, point.tasks, arrivals, estimate, seed));
        }
        (Pace::Recorded, None) => 1.0,
        (Pace::Recorded, Some(_)) if span_s == 0.0 || work_s == 0.0 => {
            bail!(
                "load: tasks that all come at once, or take nothing, can not be sped up to a load; arrivals = \"poisson\" has one"
            )
        }
        (Pace::Recorded, Some(load)) => load * span_s * capacity / work_s,
    };
    Ok(Playback::new(recorded, point.tasks, speed, estimate, seed))
}

fn finished(outcome: Outcome) -> anyhow::Result<Outcome> {
    if outcome.totals.stuck > 0 {
        bail!("{} tasks are left that nothing would ever end: is there an engine that takes them?", outcome.totals.stuck);
    }
    Ok(outcome)
}

fn run_tasks(
    point: &Point,
    registry: &Registry,
    folder: &Path,
    mut source: impl Source,
    tasks: u64,
    seed: u64,
) -> anyhow::Result<Outcome> {
    let mut collector = Collector::new((tasks as f64 * point.warmup) as u64);
    let watch = |ended: &Ended| collector.see(ended);
    let totals = match point.reference() {
        Some(name) => {
            if point.engine_speeds(seed)?.iter().any(|speed| *speed != 1.0) {
                bail!("~{name} is for engines of equal speed");
            }
            match Discipline::ALL.into_iter().find(|discipline| discipline.name() == name) {
                Some(discipline) => run_discipline(discipline, point.engines, &mut source, watch),
                None if name == "gittins" => {
                    run_gittins(&Index::of(sizes_ns(point, folder, seed)?), point.engines, &mut source, watch)
                }
                None => {
                    let known = Discipline::ALL.map(|discipline| format!("~{}", discipline.name()));
                    bail!("~{name} is no reference for tasks: there are {}, ~gittins", known.join(", "))
                }
            }
        }
        None => world(point, registry, seed)?.run(&mut source, watch),
    };
    finished(Outcome { measures: collector.measures(&totals, None), totals, gantt: Vec::new() })
}

/// Sizes of the kind that a point's tasks have, but not of those tasks: what is known of them before they come. Of a trace they are its own.
fn sizes_ns(point: &Point, folder: &Path, seed: u64) -> anyhow::Result<Vec<u64>> {
    const ENOUGH: u64 = 200_000;
    let others = Point { tasks: ENOUGH, ..point.clone() };
    let Work::Tasks(mut source, _) = source_of(&others, folder, Rng::stream(seed, "sizes known").next_u64())? else {
        bail!("~gittins is for independent tasks")
    };
    if point.workload == Workload::Closed {
        bail!("~gittins is for open arrivals");
    }
    Ok(std::iter::from_fn(|| source.next_at().map(|_| source.take().work_ns.max(1))).collect())
}

fn world(point: &Point, registry: &Registry, seed: u64) -> anyhow::Result<World<Box<dyn pointsman_policies::Scheme>>> {
    let sets = (0..point.dispatchers).map(|_| point.build(registry)).collect::<anyhow::Result<Vec<_>>>()?;
    Ok(World::new(point.setup(seed)?, sets))
}

/// Larger graphs have no Gantt chart: nobody could tell their tasks apart.
const MOST_BARS: usize = 1500;

/// A response is that of a whole graph here, and its size the bound below which no schedule comes.
fn run_graphs(point: &Point, registry: &Registry, dags: &[Arc<Dag>], mut source: Graphs, seed: u64) -> anyhow::Result<Outcome> {
    let speeds = point.engine_speeds(seed)?;
    let bounds_s: Vec<f64> = dags.iter().map(|dag| dag.lower_bound_s(&speeds)).collect();
    let mut tasks = Collector::new(0);
    let is_shown = point.graphs == 1 && dags[0].len() <= MOST_BARS;
    let mut gantt = Vec::new();
    let totals = match point.reference() {
        Some(name) => return reference_schedule(name, point, dags, &speeds),
        None => world(point, registry, seed)?.run(&mut source, |ended| {
            tasks.see(ended);
            if let (true, Some(engine)) = (is_shown, ended.engine) {
                gantt.push((engine, ended.started_ns as f64 / 1e9, ended.ended_ns as f64 / 1e9));
            }
        }),
    };
    let mut graphs = Collector::new((point.graphs as f64 * point.warmup) as u64);
    for (number, end) in source.ends().iter().enumerate() {
        graphs.see(&Ended {
            number: number as u64,
            class: 0,
            client: 0,
            at_ns: end.at_ns,
            started_ns: end.at_ns,
            ended_ns: end.ended_ns,
            work_ns: (bounds_s[end.graph] * 1e9) as u64,
            engine: None,
            ok: end.ok,
        });
    }
    let bound_s = if point.graphs == 1 { bounds_s[0] } else { f64::NAN };
    let mut measures = graphs.measures(&totals, Some(bound_s));
    measures.wait_s = tasks.measures(&totals, None).wait_s;
    finished(Outcome { measures, totals, gantt })
}

/// A schedule made with everything known, of one graph.
fn reference_schedule(name: &str, point: &Point, dags: &[Arc<Dag>], speeds: &[f64]) -> anyhow::Result<Outcome> {
    let (1, [dag, ..]) = (point.graphs, dags) else { bail!("~{name} is a schedule of one graph: graphs = 1") };
    let makespan_s = match name {
        "list" => {
            if speeds.iter().any(|speed| *speed != 1.0) {
                bail!("~list is for engines of equal speed; ~heft for others");
            }
            list_schedule(dag, point.engines, Rule::CriticalPath)
        }
        "heft" | "cpop" | "peft" => {
            let bandwidth = point.bandwidth_bytes_per_s.unwrap_or(f64::INFINITY);
            let costs = Costs::of_speeds(dag, speeds, bandwidth);
            let placed = match name {
                "heft" => heft(dag, &costs),
                "cpop" => cpop(dag, &costs),
                _ => peft(dag, &costs),
            };
            placed.iter().map(|placed| placed.end_s).fold(0.0, f64::max)
        }
        other => bail!("~{other} is no reference for graphs: there are ~list, ~heft, ~cpop and ~peft"),
    };
    let mut collector = Collector::new(0);
    let bound_s = dag.lower_bound_s(speeds);
    let ended_ns = (makespan_s * 1e9) as u64;
    collector.see(&Ended {
        number: 0,
        class: 0,
        client: 0,
        at_ns: 0,
        started_ns: 0,
        ended_ns,
        work_ns: (bound_s * 1e9) as u64,
        engine: None,
        ok: true,
    });
    let busy_ns = vec![(dag.total_s() * 1e9 / speeds.iter().sum::<f64>()) as u64; speeds.len()];
    let totals = Totals { ended: dag.len() as u64, end_ns: ended_ns, busy_ns, ..Totals::default() };
    Ok(Outcome { measures: collector.measures(&totals, Some(bound_s)), totals, gantt: Vec::new() })
}

/// The seed of a replication: the same for all points, so that they are compared on the same tasks.
fn seed_of(seed: u64, replication: u32) -> u64 {
    Rng::stream(seed, &format!("replication {replication}")).next_u64()
}

/// How runs of an experiment are made.
#[derive(Clone, Copy)]
pub enum How<'h> {
    /// In virtual time, on as many threads as there are.
    Simulated,
    /// By somebody else who takes a point and a seed, one after the other, as they would disturb each other; references, which are no programs that
    /// could run, are left out.
    OneByOne(&'h (dyn Fn(&Point, u64) -> anyhow::Result<Outcome> + Sync)),
}

/// Runs what is not yet in the store: every point as often as the experiment says, and more often where the precision asked for is not reached. `stop`
/// ends it after the runs under way; what is finished is kept. `progress` hears how many runs are done, and how many are known to be needed.
///
///
/// Returns how many decisions policies made: tasks sent to engines, each attempt counted.
///
/// # Errors
/// If a point is not as it must be, naming it, or the store can not be written.
pub fn run_experiment(
    experiment: &Experiment,
    registry: &Registry,
    store: &mut Store,
    how: How<'_>,
    stop: &AtomicBool,
    progress: &(impl Fn(u64, u64) + Sync),
) -> anyhow::Result<u64> {
    let decisions = AtomicU64::new(0);
    let points = experiment.points();
    let folder = experiment.folder();
    let mut done = store.rows().len() as u64;
    loop {
        let missing: Vec<(usize, u32)> = (0..points.len())
            .flat_map(|at| {
                let left_out = matches!(how, How::OneByOne(_)) && points[at].reference().is_some();
                let needed = if left_out { 0 } else { needed(experiment, store, at) };
                (0..needed).map(move |replication| (at, replication))
            })
            .filter(|&(at, replication)| !store.has(at, replication))
            .collect();
        if missing.is_empty() {
            store.finish()?;
            return Ok(decisions.into_inner());
        }
        let needed = done + missing.len() as u64;
        progress(done, needed);
        let kept = Mutex::new((&mut *store, &mut done));
        let run = |&(at, replication): &(usize, u32)| {
            if stop.load(Ordering::Relaxed) {
                bail!("interrupted; what is finished is kept, and the same command goes on");
            }
            let seed = seed_of(experiment.seed, replication);
            let outcome = match how {
                How::OneByOne(run) => run(&points[at], seed),
                How::Simulated => run_point(&points[at], registry, folder, seed),
            };
            let outcome = outcome.with_context(|| format!("point {} ({})", at + 1, experiment.describe(at)))?;
            decisions.fetch_add(outcome.totals.counters.dispatched, Ordering::Relaxed);
            let figures = METRICS.iter().map(|metric| (metric.of)(&outcome.measures)).collect();
            let length_s = outcome.totals.end_ns as f64 / 1e9;
            let busy = outcome.measures.busy_s.iter().map(|busy_s| busy_s / length_s).collect();
            let detail = (replication == 0).then(|| Detail {
                point: at,
                tail: outcome.measures.tail.clone(),
                busy,
                clients: several(&outcome.measures.by_client),
                gantt: outcome.gantt.clone(),
            });
            // A thread that died has left whole rows.
            let mut kept = kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            kept.0.keep(Row { point: at, replication, figures }, detail)?;
            *kept.1 += 1;
            progress(*kept.1, needed);
            Ok(())
        };
        match how {
            How::OneByOne(_) => missing.iter().try_for_each(run)?,
            How::Simulated => missing.par_iter().try_for_each(run)?,
        }
    }
}

/// What is worth a chart: more than one, and no more than can be told apart.
fn several(means: &[(u64, f64)]) -> Vec<(u64, f64)> {
    if (2..=200).contains(&means.len()) { means.to_vec() } else { Vec::new() }
}

/// How many replications of a point are needed, as far as is known.
fn needed(experiment: &Experiment, store: &Store, at: usize) -> u32 {
    let (least, most) = (experiment.replications, experiment.replications_max.max(experiment.replications));
    let Some(precision) = experiment.precision else { return least };
    let values = store.values(at, &experiment.precision_of);
    if (values.len() as u32) < least {
        return least;
    }
    let estimate = crate::stats::Estimate::of(&values);
    let reached = estimate.half_width.is_some_and(|half| half <= precision * estimate.mean.abs());
    if reached { values.len() as u32 } else { (values.len() as u32 + 2).min(most) }
}

/// A distribution of a point, for those who reason about it.
pub(crate) fn only_size(point: &Point) -> Option<Dist> {
    let mut kinds = point.kinds().ok()?;
    (kinds.len() == 1).then(|| kinds.remove(0).size)
}
