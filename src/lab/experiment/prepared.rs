//! An experiment of which every value of every point has been read and checked, so that no run fails hours later of a typing error; with what each
//! point costs and the digest by which its results are known.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use pointsman_policies::Registry;

use super::file::Experiment;
use super::keys::needless;
use super::point::{Pace, Point, Workload};
use super::program::digest;
use super::run::Reference;
use crate::lab::workload::{ArrivalKind, Recorded};

/// What a run of a point comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// Tasks: what a simulation takes grows with them.
    pub tasks: u64,
    /// About how long it is, in seconds of the experiment: what a live run takes grows with that.
    pub length_s: f64,
}

/// An experiment that is ready to be run.
#[derive(Debug)]
pub struct Prepared<'e> {
    pub(super) experiment: &'e Experiment,
    pub(super) registry: &'e Registry,
    costs: Vec<Cost>,
    digests: Vec<String>,
}

impl<'e> Prepared<'e> {
    /// Reads and checks every value of every point, and the files that they name.
    ///
    /// # Errors
    /// The first that is not as it must be, with its point.
    pub fn new(experiment: &'e Experiment, registry: &'e Registry) -> anyhow::Result<Prepared<'e>> {
        let mut files = Files::default();
        let (mut costs, mut digests) = (Vec::new(), Vec::new());
        for (at, point) in experiment.points().iter().enumerate() {
            let checked = check(point, registry, experiment.folder(), &mut files)
                .and_then(|cost| Ok((cost, digest_of(experiment, point, &mut files)?)));
            let (cost, digest) = checked.with_context(|| format!("point {} ({})", at + 1, experiment.describe(at)))?;
            costs.push(cost);
            digests.push(digest);
        }
        Ok(Prepared { experiment, registry, costs, digests })
    }

    /// The experiment.
    pub fn experiment(&self) -> &'e Experiment {
        self.experiment
    }

    /// What a run of a point comes to.
    pub fn cost(&self, point: usize) -> Cost {
        self.costs[point]
    }

    /// What the results of a point are known by: all that a run depends on but the program and the replication.
    pub fn digest(&self, point: usize) -> &str {
        &self.digests[point]
    }

    /// Runs a point that is not one of the experiment's, as those would be run.
    ///
    /// # Errors
    /// As [`run_point`](super::run_point).
    pub fn run_alone(&self, point: &Point, seed: u64) -> anyhow::Result<super::Outcome> {
        super::run_point(point, self.registry, self.experiment.folder(), seed)
    }

    /// The policies that run, each once, with where their rules come from.
    pub(super) fn sources(&self) -> BTreeMap<String, String> {
        let mut sources = BTreeMap::new();
        for point in self.experiment.points().iter().filter(|point| point.reference().is_none()) {
            let Ok(resolved) = point.policies(self.registry) else { continue };
            for axis in pointsman_policies::Axis::ALL {
                let spec = resolved.on(axis);
                if let Ok(entry) = self.registry.resolve(Some(axis), spec) {
                    sources.insert(spec.to_string(), entry.source.to_owned());
                }
            }
        }
        sources
    }
}

/// What has been read of files and made of shapes: points share them.
#[derive(Default)]
struct Files {
    recorded: BTreeMap<String, Arc<Vec<Recorded>>>,
    /// Tasks and work of each graph.
    graphs: BTreeMap<String, Vec<(u64, f64)>>,
    digests: BTreeMap<String, String>,
}

fn check(point: &Point, registry: &Registry, folder: &Path, files: &mut Files) -> anyhow::Result<Cost> {
    if let Some((key, why)) = needless(point) {
        bail!("{key} has no effect: {why}");
    }
    point.check_stable()?;
    point.setup(1)?;
    point.estimate()?;
    let pace = point.pace()?;
    let think = point.think()?;
    match point.reference() {
        Some(_) => drop(Reference::of(point)?),
        None => drop(point.build(registry)?),
    }
    let capacity: f64 = point.engine_speeds(1)?.iter().sum();
    let at_once = pace == Pace::Drawn(ArrivalKind::Batch);
    let by_load = |work_s: f64| work_s / if at_once { capacity } else { capacity * point.load().min(1.0) };
    let many = point.tasks as f64;
    Ok(match point.workload {
        Workload::Stream => Cost { tasks: point.tasks, length_s: by_load(many * point.mean_size_s()?) },
        Workload::Closed => {
            let mean_s = point.mean_size_s()?;
            let under_way = f64::from(point.clients.max(1)) * f64::from(point.window.max(1));
            let rate = (capacity / mean_s).min(under_way / (mean_s + think.map_or(0.0, |think| think.mean())));
            Cost { tasks: point.tasks, length_s: many / rate }
        }
        Workload::Trace => {
            let key = serde_json::to_string(&(&point.trace, &point.columns))?;
            let recorded = match files.recorded.get(&key) {
                Some(known) => known.clone(),
                None => files.recorded.entry(key).or_insert(point.recorded(folder)?).clone(),
            };
            super::run::playback(point, recorded.clone(), capacity, 1)?;
            let tasks = recorded.len().min(usize::try_from(point.tasks).unwrap_or(usize::MAX));
            let work_s = recorded[..tasks].iter().map(|task| task.run_s).sum::<f64>();
            let span_s = recorded[..tasks].last().map_or(0.0, |task| task.at_s);
            let is_own = pace == Pace::Recorded && point.load.is_none();
            let length_s = if is_own { span_s.max(work_s / capacity) } else { by_load(work_s) };
            Cost { tasks: tasks as u64, length_s }
        }
        Workload::Graphs => {
            let key = serde_json::to_string(&(&point.graph, &point.size, point.edge_bytes))?;
            if !files.graphs.contains_key(&key) {
                let dags = point.dags(folder, 1)?;
                files.graphs.insert(key.clone(), dags.iter().map(|dag| (dag.len() as u64, dag.total_s())).collect());
            }
            let dags = &files.graphs[&key];
            let (rounds, count) = (point.graphs as f64 / dags.len() as f64, dags.iter().map(|dag| dag.0).sum::<u64>() as f64);
            let work_s = dags.iter().map(|dag| dag.1).sum::<f64>() * rounds;
            Cost {
                tasks: (count * rounds).ceil() as u64,
                length_s: if point.graphs == 1 { work_s / capacity } else { by_load(work_s) },
            }
        }
    })
}

/// All that a run of a point depends on but the program and the replication: the point, the seed, and what is in the files that it names.
fn digest_of(experiment: &Experiment, point: &Point, files: &mut Files) -> anyhow::Result<String> {
    let of_graphs = point.graph.iter().filter(|name| name.ends_with(".json"));
    let mut named = Vec::new();
    for name in of_graphs.chain(&point.trace) {
        let path = experiment.folder().join(name);
        let known = match files.digests.get(name) {
            Some(known) => known.clone(),
            None => {
                let file = std::fs::File::open(&path).with_context(|| path.display().to_string())?;
                digest(file).with_context(|| path.display().to_string())?
            }
        };
        files.digests.insert(name.clone(), known.clone());
        named.push(known);
    }
    let all = serde_json::to_vec(&(point, experiment.seed, named))?;
    let mut text = digest(&all[..])?;
    text.truncate(32);
    Ok(text)
}

impl std::ops::Add for Cost {
    type Output = Cost;

    fn add(self, other: Cost) -> Cost {
        Cost { tasks: self.tasks.saturating_add(other.tasks), length_s: self.length_s + other.length_s }
    }
}
