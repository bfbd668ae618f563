//! One run of a point: its work, the world or the reference that does it, and its figures.

use std::path::Path;
use std::sync::Arc;

use anyhow::bail;
use pointsman_policies::{Registry, Rng};

use super::keys::needless;
use super::point::{Pace, Point, Workload};
use crate::lab::draw::Dist;
use crate::lab::graph::{Costs, Dag, Rule, cpop, heft, list_schedule, peft};
use crate::lab::measure::{Collector, Measures};
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
            let source = Closed::new(point.kinds()?, point.clients, point.window, point.think()?, estimate, point.tasks, seed);
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
pub(super) fn playback(point: &Point, recorded: Arc<Vec<Recorded>>, capacity: f64, seed: u64) -> anyhow::Result<Playback> {
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
    let totals = match Reference::of(point)? {
        Some(Reference::Discipline(discipline)) => run_discipline(discipline, point.engines, &mut source, watch),
        Some(Reference::Gittins) => run_gittins(&Index::of(sizes_ns(point, folder, seed)?), point.engines, &mut source, watch),
        Some(Reference::Schedule(_)) => bail!("{} is for graphs", point.placement),
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
    let totals = match Reference::of(point)? {
        Some(Reference::Schedule(schedule)) => return reference_schedule(schedule, point, dags, &speeds),
        Some(_) => bail!("{} is for tasks", point.placement),
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

/// What nothing live can be, in place of policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reference {
    /// A queueing discipline for independent tasks.
    Discipline(Discipline),
    /// That by Gittins' index, which knows the distribution of sizes.
    Gittins,
    /// A schedule of one graph, made with everything known.
    Schedule(Schedule),
}

/// A schedule of a graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Schedule {
    List,
    Heft,
    Cpop,
    Peft,
}

impl Reference {
    /// The one that a point asks for, if it does.
    ///
    /// # Errors
    /// If there is none of its name, or it is not for such a point.
    pub(super) fn of(point: &Point) -> anyhow::Result<Option<Reference>> {
        let Some(name) = point.reference() else { return Ok(None) };
        if point.lives.is_some() || point.slow_every.is_some() || point.failing > 0.0 {
            bail!("~{name} is for engines that live on at their speed, and runs that do not fail");
        }
        let is_equal = || point.engine_speeds(1).is_ok_and(|speeds| speeds.iter().all(|speed| *speed == 1.0));
        if point.workload == Workload::Graphs {
            let schedule = match name {
                "list" if !is_equal() => bail!("~list is for engines of equal speed; ~heft for others"),
                "list" => Schedule::List,
                "heft" => Schedule::Heft,
                "cpop" => Schedule::Cpop,
                "peft" => Schedule::Peft,
                other => bail!("~{other} is no reference for graphs: there are ~list, ~heft, ~cpop and ~peft"),
            };
            if point.graphs != 1 || point.graph.len() != 1 {
                bail!("~{name} is a schedule of one graph: graphs = 1, and one in graph = [...]");
            }
            return Ok(Some(Reference::Schedule(schedule)));
        }
        let discipline = Discipline::ALL.into_iter().find(|discipline| discipline.name() == name);
        let known = || Discipline::ALL.map(|discipline| format!("~{}", discipline.name())).join(", ");
        match (discipline, name) {
            (None, "gittins") if point.workload == Workload::Closed => bail!("~gittins is for open arrivals"),
            (None, other) if other != "gittins" => bail!("~{other} is no reference for tasks: there are {}, ~gittins", known()),
            _ if !is_equal() => bail!("~{name} is for engines of equal speed"),
            (Some(discipline), _) => Ok(Some(Reference::Discipline(discipline))),
            (None, _) => Ok(Some(Reference::Gittins)),
        }
    }
}

/// A schedule made with everything known, of one graph.
fn reference_schedule(schedule: Schedule, point: &Point, dags: &[Arc<Dag>], speeds: &[f64]) -> anyhow::Result<Outcome> {
    let [dag] = dags else { bail!("{} is a schedule of one graph", point.placement) };
    let costs = || Costs::of_speeds(dag, speeds, point.bandwidth_bytes_per_s.unwrap_or(f64::INFINITY));
    let placed = match schedule {
        Schedule::List => None,
        Schedule::Heft => Some(heft(dag, &costs())),
        Schedule::Cpop => Some(cpop(dag, &costs())),
        Schedule::Peft => Some(peft(dag, &costs())),
    };
    let makespan_s = match placed {
        None => list_schedule(dag, point.engines, Rule::CriticalPath),
        Some(placed) => placed.iter().map(|placed| placed.end_s).fold(0.0, f64::max),
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

/// A distribution of a point, for those who reason about it.
pub(crate) fn only_size(point: &Point) -> Option<Dist> {
    let mut kinds = point.kinds().ok()?;
    (kinds.len() == 1).then(|| kinds.remove(0).size)
}
