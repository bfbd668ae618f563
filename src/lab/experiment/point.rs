//! One point of an experiment: every number and name that a run depends on, except its seed.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use pointsman_policies::{Axis, Hints, PolicySpec, Registry, Rng, Scheme};
use serde::{Deserialize, Serialize};

use crate::config::{Policies, fixed};
use crate::lab::draw::Dist;
use crate::lab::graph::{Dag, Shape};
use crate::lab::workload::{ArrivalKind, Columns, Estimate, Kind, Recorded, Stream, read_csv, read_swf};
use crate::lab::world::{EngineModel, Failures, Link, PolicySet, Setup, Slowdowns};

/// Where work comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Workload {
    /// Independent tasks, whatever becomes of them.
    #[default]
    Stream,
    /// Each client keeps some tasks under way.
    Closed,
    /// Whole graphs.
    Graphs,
    /// A recording.
    Trace,
}

/// One kind of task of a stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KindSpec {
    /// Its part of the stream, beside the others' parts.
    #[serde(default = "one")]
    pub weight: f64,
    /// Distribution of its sizes, in seconds.
    pub size: String,
    /// Which function it calls.
    #[serde(default)]
    pub class: u64,
    /// Who sends it, from 1.
    #[serde(default)]
    pub client: u32,
    /// Its label.
    #[serde(default)]
    pub label: String,
}

/// What is known of clients is kept in tables by their numbers.
const MOST_CLIENTS: u32 = 1_000_000;

fn one() -> f64 {
    1.0
}

/// Everything that a run depends on but its seed. Keys of experiment files; times are in seconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Point {
    /// Which engine gets a task; `~one-queue`, `~srpt`, `~gittins`, `~ps`, `~las`, `~list` and `~heft` are references that nothing live can be.
    pub placement: String,
    /// Which task goes next.
    pub order: String,
    /// How many tasks an engine may have in flight; `fixed` with `hwm` if not set.
    pub admission: Option<String>,
    /// Whether a task is left where it was sent.
    pub rebalance: String,
    /// The limit of `fixed`; the scheme's own, or 1, if not set.
    pub hwm: Option<u32>,
    /// Where work comes from: stream, closed, graphs, trace.
    pub workload: Workload,
    /// Engines.
    pub engines: usize,
    /// Their speeds: `equal`, `two[fast=4,share=0.25]`, `spread[scv=0.5]`, or numbers with commas, used in turn.
    pub speeds: String,
    /// Schedulers that share the engines.
    pub dispatchers: usize,
    /// Arriving work by what engines of these speeds can do; 0.8 if not set, and of recorded arrivals whatever it was.
    pub load: Option<f64>,
    /// How arrivals are spread; `recorded` for a trace if not set, `poisson` for all else.
    pub arrivals: Option<String>,
    /// Sizes of tasks; for graphs of known shapes, times of their tasks.
    pub size: String,
    /// What labels say of sizes: `none`, `exact`, `noisy[0.5]`.
    pub estimate: String,
    /// Kinds of tasks, instead of `size`.
    pub kinds: Vec<KindSpec>,
    /// Clients: of a closed loop, of graphs in turn.
    pub clients: u32,
    /// Tasks of each client that are under way in a closed loop.
    pub window: u32,
    /// How long a client thinks in between.
    pub think: Option<String>,
    /// Graphs in turn: shapes, or WfFormat files.
    pub graph: Vec<String>,
    /// Bytes on each edge of a graph of known shape.
    pub edge_bytes: f64,
    /// How many graphs.
    pub graphs: u64,
    /// A recording: SWF, or CSV with `columns`.
    pub trace: Option<String>,
    /// Which columns say what.
    pub columns: Option<Columns>,
    /// One way between scheduler and engine.
    pub latency_s: f64,
    /// Beside it.
    pub jitter: Option<String>,
    /// Share of transmissions that are lost.
    pub loss: f64,
    /// After how long those are sent again.
    pub resend_s: f64,
    /// One way between client and scheduler.
    pub client_latency_s: f64,
    /// How long engines live.
    pub lives: Option<String>,
    /// How long until another is there.
    pub repair: String,
    /// How long until a death is noticed.
    pub detect_s: f64,
    /// How long an engine runs at its speed before it is slowed down.
    pub slow_every: Option<String>,
    /// How long that lasts.
    pub slow_lasts: String,
    /// Its speed meanwhile, as a share.
    pub slow_factor: String,
    /// Share of runs that fail.
    pub failing: f64,
    /// How often those are tried again.
    pub retries: u32,
    /// How often engines tell every scheduler their load; never without.
    pub report_every_s: Option<f64>,
    /// How fast engines fetch results from each other.
    pub bandwidth_bytes_per_s: Option<f64>,
    /// Tasks of a run.
    pub tasks: u64,
    /// Share of them that is not measured.
    pub warmup: f64,
    /// More work may come than can be done.
    pub allow_unstable: bool,
}

impl Default for Point {
    fn default() -> Self {
        Point {
            placement: "leastload".into(),
            order: "fifo".into(),
            admission: None,
            rebalance: "none".into(),
            hwm: None,
            workload: Workload::Stream,
            engines: 8,
            speeds: "equal".into(),
            dispatchers: 1,
            load: None,
            arrivals: None,
            size: "exponential".into(),
            estimate: "none".into(),
            kinds: Vec::new(),
            clients: 1,
            window: 1,
            think: None,
            graph: Vec::new(),
            edge_bytes: 0.0,
            graphs: 1,
            trace: None,
            columns: None,
            latency_s: 0.0,
            jitter: None,
            loss: 0.0,
            resend_s: 0.2,
            client_latency_s: 0.0,
            lives: None,
            repair: "exponential".into(),
            detect_s: 0.0,
            slow_every: None,
            slow_lasts: "exponential".into(),
            slow_factor: "deterministic[mean=0.5]".into(),
            failing: 0.0,
            retries: 0,
            report_every_s: None,
            bandwidth_bytes_per_s: None,
            tasks: 100_000,
            warmup: 0.1,
            allow_unstable: false,
        }
    }
}

/// How work comes.
#[derive(Clone, Debug, PartialEq)]
pub enum Pace {
    /// As a trace was recorded, or sped up to a load.
    Recorded,
    /// At moments that are drawn.
    Drawn(ArrivalKind),
}

/// The load of work that comes at drawn moments, unless it is said.
const LOAD: f64 = 0.8;

fn dist(key: &str, text: &str) -> anyhow::Result<Dist> {
    text.parse().map_err(|error: String| anyhow::anyhow!("{key}: {error}"))
}

fn maybe(key: &str, text: Option<&String>) -> anyhow::Result<Option<Dist>> {
    text.map(|text| dist(key, text)).transpose()
}

impl Point {
    /// Whether its placement is a reference.
    pub fn reference(&self) -> Option<&str> {
        self.placement.strip_prefix('~')
    }

    /// The policies, by proper names.
    ///
    /// # Errors
    /// If one is unknown or has a wrong parameter.
    pub fn policies(&self, registry: &Registry) -> anyhow::Result<crate::config::Resolved> {
        let spec = |key: &str, text: &str| text.parse::<PolicySpec>().with_context(|| format!("{key} = \"{text}\""));
        let admission = match (&self.admission, self.hwm) {
            (Some(_), Some(_)) => bail!("admission and hwm: hwm is the limit of fixed, give one of them"),
            (Some(text), None) => Some(spec("admission", text)?),
            (None, Some(hwm)) => Some(fixed(hwm)),
            (None, None) => None,
        };
        let policies = Policies {
            placement: spec("placement", &self.placement)?,
            order: spec("order", &self.order)?,
            admission,
            rebalance: spec("rebalance", &self.rebalance)?,
            ..Policies::default()
        };
        policies.resolve(registry)
    }

    /// Policies for one scheduler.
    ///
    /// # Errors
    /// As [`policies`](Self::policies).
    pub fn build(&self, registry: &Registry) -> anyhow::Result<PolicySet<Box<dyn Scheme>>> {
        let resolved = self.policies(registry)?;
        Ok(PolicySet {
            scheme: registry.build(resolved.on(Axis::Placement))?,
            order: registry.build_order(resolved.on(Axis::Order))?,
            admission: registry.build_admission(resolved.on(Axis::Admission))?,
            rebalance: registry.build_rebalance(resolved.on(Axis::Rebalance))?,
        })
    }

    /// The engines' speeds. `seed` draws those that are drawn.
    ///
    /// # Errors
    /// If they are not written as they must be.
    pub fn engine_speeds(&self, seed: u64) -> anyhow::Result<Vec<f64>> {
        if self.engines == 0 || self.engines > 1_000_000 {
            bail!("engines must be from 1 to 1000000, not {}", self.engines);
        }
        let count = self.engines;
        if self.speeds == "equal" {
            return Ok(vec![1.0; count]);
        }
        if let Ok(numbers) = self.speeds.split(',').map(|word| word.trim().parse::<f64>()).collect::<Result<Vec<f64>, _>>() {
            if numbers.iter().any(|speed| !(*speed > 0.0 && speed.is_finite())) {
                bail!("speeds must be above 0: {}", self.speeds);
            }
            return Ok(numbers.into_iter().cycle().take(count).collect());
        }
        let spec: PolicySpec = self.speeds.parse().with_context(|| format!("speeds = \"{}\"", self.speeds))?;
        let only = |known: &[&str]| match spec.parameters().keys().find(|key| !known.contains(&key.as_str())) {
            Some(key) => bail!("speeds = \"{}\": {key} is none of {}", self.speeds, known.join(", ")),
            None => Ok(()),
        };
        let number = |key: &str| {
            let value = spec.parameters().get(key).and_then(serde_json::Value::as_f64).filter(|value| *value > 0.0);
            value.with_context(|| format!("speeds = \"{}\" needs {key} above 0", self.speeds))
        };
        match spec.name() {
            "two" => {
                only(&["fast", "share"])?;
                let (fast, share) = (number("fast")?, number("share")?);
                let many = ((count as f64 * share).round() as usize).min(count);
                Ok((0..count).map(|at| if at < many { fast } else { 1.0 }).collect())
            }
            "spread" => {
                only(&["scv"])?;
                let law = Dist::Lognormal { scv: number("scv")?, mean: 1.0 };
                let mut rng = Rng::stream(seed, "speeds");
                Ok((0..count).map(|_| law.draw(&mut rng)).collect())
            }
            other => bail!("speeds = \"{other}\": give equal, two[fast=,share=], spread[scv=] or numbers"),
        }
    }

    /// The world of a run.
    ///
    /// # Errors
    /// If something in it is not as it must be, naming its key.
    pub fn setup(&self, seed: u64) -> anyhow::Result<Setup> {
        for (key, value) in [
            ("latency_s", self.latency_s),
            ("resend_s", self.resend_s),
            ("client_latency_s", self.client_latency_s),
            ("detect_s", self.detect_s),
        ] {
            if !(0.0..1e9).contains(&value) {
                bail!("{key} must be 0 or more, not {value}");
            }
        }
        for (key, share) in [("loss", self.loss), ("failing", self.failing), ("warmup", self.warmup)] {
            if !(0.0..1.0).contains(&share) {
                bail!("{key} must be from 0 to below 1, not {share}");
            }
        }
        if self.dispatchers == 0 || self.dispatchers > 1000 {
            bail!("dispatchers must be from 1 to 1000, not {}", self.dispatchers);
        }
        if self.bandwidth_bytes_per_s.is_some_and(|bandwidth| bandwidth.is_nan() || bandwidth <= 0.0) {
            bail!("bandwidth_bytes_per_s must be above 0");
        }
        if self.clients > MOST_CLIENTS {
            bail!("clients must be at most {MOST_CLIENTS}, not {}", self.clients);
        }
        if self.report_every_s.is_some_and(|every_s| !(1e-6..1e9).contains(&every_s)) {
            bail!("report_every_s must be at least 1e-6");
        }
        let failures = match maybe("lives", self.lives.as_ref())? {
            Some(lives) => Some(Failures { lives, repair: dist("repair", &self.repair)? }),
            None => None,
        };
        let slowdowns = match maybe("slow_every", self.slow_every.as_ref())? {
            Some(every) => Some(Slowdowns {
                every,
                lasts: dist("slow_lasts", &self.slow_lasts)?,
                factor: dist("slow_factor", &self.slow_factor)?,
            }),
            None => None,
        };
        let engine =
            |speed| EngineModel { speed, slowdowns: slowdowns.clone(), failures: failures.clone(), ..EngineModel::default() };
        Ok(Setup {
            engines: self.engine_speeds(seed)?.into_iter().map(engine).collect(),
            dispatchers: self.dispatchers,
            engine_link: Link {
                latency_s: self.latency_s,
                jitter: maybe("jitter", self.jitter.as_ref())?,
                loss: self.loss,
                resend_s: self.resend_s,
            },
            client_link: Link::of(self.client_latency_s),
            detect_s: self.detect_s,
            report_every_s: self.report_every_s,
            bandwidth_bytes_per_s: self.bandwidth_bytes_per_s,
            failing: self.failing,
            retries: self.retries,
            seed,
        })
    }

    /// What labels say of sizes.
    ///
    /// # Errors
    /// If it is not written as it must be.
    pub fn estimate(&self) -> anyhow::Result<Estimate> {
        match self.estimate.as_str() {
            "none" => Ok(Estimate::None),
            "exact" => Ok(Estimate::Exact),
            other => {
                let deviation = other.strip_prefix("noisy[").and_then(|rest| rest.strip_suffix(']'));
                let deviation = deviation.and_then(|text| text.parse::<f64>().ok()).filter(|value| (0.0..100.0).contains(value));
                deviation.map(Estimate::Noisy).with_context(|| format!("estimate = \"{other}\": give none, exact or noisy[0.5]"))
            }
        }
    }

    /// The kinds of a stream.
    ///
    /// # Errors
    /// If a size or label is not as it must be.
    pub fn kinds(&self) -> anyhow::Result<Vec<Kind>> {
        if self.kinds.is_empty() {
            return Ok(vec![Kind::of(dist("size", &self.size)?)]);
        }
        let estimate = self.estimate()?;
        let kind = |(at, spec): (usize, &KindSpec)| {
            let (hints, wrong) = Hints::parse(&spec.label);
            if let Some(wrong) = wrong {
                bail!("kinds[{at}]: {wrong}");
            }
            if hints.cost_s.is_some() && estimate != Estimate::None {
                bail!("kinds[{at}].label: #cost says one thing and estimate = \"{}\" another: give one of them", self.estimate);
            }
            // Live, the label goes as it is into JSON that is written by hand.
            if spec.label.chars().any(|c| c.is_control() || matches!(c, '"' | '\\')) {
                bail!("kinds[{at}].label must be without quotes, backslashes and control characters");
            }
            if !(spec.weight > 0.0 && spec.weight.is_finite()) {
                bail!("kinds[{at}].weight must be above 0");
            }
            if spec.client > MOST_CLIENTS {
                bail!("kinds[{at}].client must be at most {MOST_CLIENTS}, not {}", spec.client);
            }
            if spec.client > 0 && self.workload == Workload::Closed {
                bail!("kinds[{at}].client has no effect: clients of a closed loop each send all kinds, and are numbered from 1");
            }
            let size = dist(&format!("kinds[{at}].size"), &spec.size)?;
            let label = (!spec.label.trim().is_empty()).then(|| spec.label.as_str().into());
            Ok(Kind { weight: spec.weight, size, class: spec.class, client: spec.client, hints, label })
        };
        self.kinds.iter().enumerate().map(kind).collect()
    }

    /// How arrivals are spread.
    ///
    /// # Errors
    /// If it is not written as it must be, or recorded where nothing was.
    pub fn pace(&self) -> anyhow::Result<Pace> {
        match (self.arrivals.as_deref(), self.workload) {
            (None | Some("recorded"), Workload::Trace) => Ok(Pace::Recorded),
            (Some("recorded"), _) => bail!("arrivals = \"recorded\" is for workload = \"trace\""),
            (None, _) => Ok(Pace::Drawn(ArrivalKind::Poisson)),
            (Some(text), _) => text.parse().map(Pace::Drawn).map_err(|error: String| anyhow::anyhow!("arrivals: {error}")),
        }
    }

    /// Arriving work by what engines can do, of work that comes at drawn moments.
    pub fn load(&self) -> f64 {
        self.load.unwrap_or(LOAD)
    }

    /// How long a client of a closed loop thinks.
    ///
    /// # Errors
    /// If it is not written as it must be.
    pub fn think(&self) -> anyhow::Result<Option<Dist>> {
        maybe("think", self.think.as_ref())
    }

    /// Mean work of an independent task, in seconds.
    ///
    /// # Errors
    /// As [`kinds`](Self::kinds).
    pub fn mean_size_s(&self) -> anyhow::Result<f64> {
        Ok(Stream::mean_size_s(&self.kinds()?))
    }

    /// The graphs. Files are found from `folder`.
    ///
    /// # Errors
    /// If there is none, or one is no graph.
    pub fn dags(&self, folder: &std::path::Path, seed: u64) -> anyhow::Result<Vec<Arc<Dag>>> {
        if self.graph.is_empty() {
            bail!("workload = \"graphs\" needs graph = [...]: shapes such as \"lu[tiles=8]\", or WfFormat files");
        }
        let size = dist("size", &self.size)?;
        let build = |(at, name): (usize, &String)| {
            if name.ends_with(".json") {
                let path = folder.join(name);
                let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
                return Ok(Arc::new(Dag::from_wfformat(&text).with_context(|| path.display().to_string())?));
            }
            let shape: Shape = name.parse().map_err(|error: String| anyhow::anyhow!("graph: {error}"))?;
            let mut sizes = Rng::stream(seed, &format!("graph {at} sizes"));
            let mut edges = Rng::stream(seed, &format!("graph {at} edges"));
            Ok(Arc::new(shape.build(|| size.draw(&mut sizes), self.edge_bytes, &mut edges).context("graph")?))
        };
        let dags = self.graph.iter().enumerate().map(build).collect::<anyhow::Result<Vec<Arc<Dag>>>>()?;
        if let Some(empty) = dags.iter().position(|dag| dag.is_empty()) {
            bail!("graph: '{}' has no task", self.graph[empty]);
        }
        Ok(dags)
    }

    /// The recording. The file is found from `folder`.
    ///
    /// # Errors
    /// If there is none, or a line of it is wrong.
    pub fn recorded(&self, folder: &std::path::Path) -> anyhow::Result<Arc<Vec<Recorded>>> {
        let name = self.trace.as_ref().context("workload = \"trace\" needs trace = FILE")?;
        let unit_s = self.columns.as_ref().and_then(|columns| columns.unit_s).unwrap_or(1.0);
        if !(unit_s > 0.0 && unit_s < 1e9) {
            bail!("columns.unit_s must be above 0, not {unit_s}");
        }
        let path = folder.join(name);
        let file = std::fs::File::open(&path).with_context(|| path.display().to_string())?;
        let plain: Box<dyn std::io::Read> =
            if name.ends_with(".gz") { Box::new(flate2::read::GzDecoder::new(file)) } else { Box::new(file) };
        let read = match &self.columns {
            Some(columns) => read_csv(plain, columns),
            None if name.contains(".swf") => read_swf(std::io::BufReader::new(plain)),
            None => bail!("{name}: is it CSV? Then columns = {{ at = ..., run = ... }} must say which columns are which"),
        };
        let read = read.with_context(|| path.display().to_string())?;
        if read.is_empty() {
            bail!("{}: no task in it", path.display());
        }
        Ok(Arc::new(read))
    }

    /// Refuses work of nothing, and more work than can be done, unless that is wanted.
    ///
    /// # Errors
    /// If it is none, or too much.
    pub fn check_stable(&self) -> anyhow::Result<()> {
        let counts = [
            ("tasks", self.tasks),
            ("graphs", self.graphs),
            ("clients", u64::from(self.clients)),
            ("window", u64::from(self.window)),
        ];
        if let Some((key, _)) = counts.into_iter().find(|(_, count)| *count == 0) {
            bail!("{key} must be at least 1");
        }
        let is_open = match self.workload {
            Workload::Closed => false,
            Workload::Graphs => self.graphs > 1,
            Workload::Stream | Workload::Trace => true,
        };
        let load = self.load();
        if !(load > 0.0 && load.is_finite()) {
            bail!("load must be above 0, not {load}");
        }
        if is_open && self.pace()? != Pace::Drawn(ArrivalKind::Batch) && load >= 1.0 && !self.allow_unstable {
            bail!("load = {load}: queues would grow for ever; allow_unstable = true if that is the question");
        }
        Ok(())
    }
}
