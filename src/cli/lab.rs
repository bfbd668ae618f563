//! `pointsman lab`: experiments in virtual time, their reports, and the lab held against theory.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::{Context as _, bail};
use comfy_table::{CellAlignment, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use pointsman_policies::Registry;

use super::{failed, start_plain_log};
use crate::lab::experiment::{Experiment, How, Point, Store, read_results, run_experiment, warnings};
use crate::lab::measure::Measures;
use crate::lab::replay::{self, Recording};
use crate::lab::{report, verify};
use crate::load::run_point_live;

/// The experiments that come with the program: name and file.
const EXAMPLES: [(&str, &str); 6] = [
    ("schemes", include_str!("../lab/examples/schemes.toml")),
    ("stale", include_str!("../lab/examples/stale.toml")),
    ("tails", include_str!("../lab/examples/tails.toml")),
    ("speeds", include_str!("../lab/examples/speeds.toml")),
    ("fair", include_str!("../lab/examples/fair.toml")),
    ("graphs", include_str!("../lab/examples/graphs.toml")),
];

/// What `pointsman lab` can do.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Run an experiment. What is finished is kept: the same command goes on where it was interrupted.
    Run {
        /// The experiment, a TOML file; or the name of one that comes with the program (see `example`).
        experiment: String,
        /// Folder of the results; `results/NAME` by default.
        #[arg(long, short)]
        out: Option<PathBuf>,
        /// Threads; all cores by default. Results do not depend on it.
        #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
        threads: Option<u16>,
        /// Run it on a live cluster of this machine instead, into `live` in the folder of the results; `lab report` lays both side by side.
        #[arg(long)]
        live: bool,
        /// What a second of the experiment takes live, in seconds.
        #[arg(long, default_value_t = 0.05, requires = "live")]
        unit_s: f64,
    },
    /// Make a page of tables and charts from results.
    Report {
        /// The folder of the results.
        folder: PathBuf,
    },
    /// Hold the lab against theory: formulas and simulation side by side.
    Verify {
        /// More systems, and longer.
        #[arg(long)]
        full: bool,
        /// Seed of the simulations.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Print the table as Markdown.
        #[arg(long)]
        markdown: bool,
    },
    /// Play a live run again from its records, under its own policies and under others.
    Replay {
        /// The SQLite file of a controller's task records (--sqlitedb).
        records: PathBuf,
        /// Another placement to try; any number of them.
        #[arg(long, alias = "scheme")]
        placement: Vec<String>,
        /// The order for those; as it was unless given.
        #[arg(long)]
        order: Option<String>,
        /// The limit of tasks in flight for those; as it was unless given.
        #[arg(long)]
        hwm: Option<u32>,
        /// Rebalance policy for those; as it was unless given.
        #[arg(long)]
        rebalance: Option<String>,
        /// Seed of what policies draw.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Write the run as a workflow, in WfFormat.
        #[arg(long)]
        wfformat: Option<PathBuf>,
    },
    /// Print an experiment that comes with the program, to start from; without a name, list them.
    Example {
        /// Which.
        name: Option<String>,
    },
}

/// Does it.
pub(super) fn run(command: &Command, registry: &Registry) -> ExitCode {
    start_plain_log("warn");
    let outcome = match command {
        Command::Run { experiment, out, threads, live, unit_s } => {
            run_file(experiment, out.as_deref(), threads.map(usize::from), live.then_some(*unit_s), registry)
        }
        Command::Report { folder } => make_report(folder, registry),
        Command::Verify { full, seed, markdown } => run_verify(*full, *seed, *markdown, registry),
        Command::Replay { records, placement, order, hwm, rebalance, seed, wfformat } => {
            let others = Others { placement, order: order.as_ref(), hwm: *hwm, rebalance: rebalance.as_ref() };
            run_replay(records, &others, *seed, wfformat.as_deref(), registry)
        }
        Command::Example { name } => example(name.as_deref()),
    };
    match outcome {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => failed(&error),
    }
}

fn read_experiment(name: &str) -> anyhow::Result<Experiment> {
    if let Some((_, text)) = EXAMPLES.iter().find(|(known, _)| *known == name) {
        return Ok(Experiment::parse(text, Path::new("."))?);
    }
    let path = Path::new(name);
    let text = std::fs::read_to_string(path).with_context(|| {
        let known: Vec<&str> = EXAMPLES.iter().map(|(name, _)| *name).collect();
        format!("{name}: neither a file nor an example ({})", known.join(", "))
    })?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Experiment::parse(&text, folder).with_context(|| name.to_owned())
}

fn run_file(
    name: &str,
    out: Option<&Path>,
    threads: Option<usize>,
    live_unit_s: Option<f64>,
    registry: &Registry,
) -> anyhow::Result<String> {
    let experiment = read_experiment(name)?;
    for (at, point) in experiment.points().iter().enumerate() {
        let check = || -> anyhow::Result<()> {
            point.check_stable()?;
            point.setup(1)?;
            point.kinds()?;
            point.estimate()?;
            if point.reference().is_none() {
                point.build(registry)?;
            }
            Ok(())
        };
        check().with_context(|| format!("point {} ({})", at + 1, experiment.describe(at)))?;
    }
    for warning in warnings(&experiment) {
        eprintln!("warning: {warning}");
    }
    let folder = out.map_or_else(|| Path::new("results").join(&experiment.name), Path::to_owned);
    if live_unit_s.is_some_and(|unit_s| !(unit_s > 0.0 && unit_s < 1e6)) {
        bail!("--unit-s must be above 0");
    }
    let into = if live_unit_s.is_some() { folder.join("live") } else { folder.clone() };
    let mut store = Store::open(&into, &experiment)?;
    if let Some(threads) = threads {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    }
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, stop.clone())?;
    }
    let bar = ProgressBar::new(1);
    bar.set_style(ProgressStyle::with_template("{pos}/{len} runs [{bar:40}] {elapsed}, {eta} left")?);
    let progress = |done: u64, needed: u64| {
        bar.set_length(needed);
        bar.set_position(done);
    };
    let start = Instant::now();
    let live = |point: &Point, seed| run_point_live(point, registry, experiment.folder(), seed, live_unit_s.unwrap_or(1.0));
    let how = if live_unit_s.is_some() { How::OneByOne(&live) } else { How::Simulated };
    let decisions = run_experiment(&experiment, registry, &mut store, how, &stop, &progress)?;
    bar.finish_and_clear();
    let speed = match live_unit_s {
        None if decisions > 0 => {
            let millions = decisions as f64 / 1e6;
            format!(" {millions:.1} M decisions, {:.2} M in a second.", millions / start.elapsed().as_secs_f64())
        }
        _ => String::new(),
    };
    Ok(format!(
        "{}: results.csv and all runs.{speed} `pointsman lab report {}` makes a page of them",
        into.display(),
        folder.display()
    ))
}

fn make_report(folder: &Path, registry: &Registry) -> anyhow::Result<String> {
    let live = folder.join("live");
    let live = if live.exists() { Some(read_results(&live)?) } else { None };
    let page = report::page(&read_results(folder)?, live.as_ref(), registry)?;
    let path = report::write(&page, folder)?;
    Ok(format!("{}, with {} charts beside it in charts/", path.display(), page.charts.len()))
}

fn run_verify(full: bool, seed: u64, markdown: bool, registry: &Registry) -> anyhow::Result<String> {
    let bar = ProgressBar::new(1);
    bar.set_style(ProgressStyle::with_template("{pos}/{len} runs [{bar:40}] {elapsed}, {eta} left")?);
    let verdicts = verify::verify(registry, full, seed, &|done, all| {
        bar.set_length(all as u64);
        bar.set_position(done as u64);
    })?;
    bar.finish_and_clear();
    let table = verify::table(&verdicts, markdown);
    let deviating = verdicts.iter().filter(|verdict| !verdict.holds()).count();
    if deviating > 0 {
        bail!("{table}\n{deviating} of {} systems deviate from theory", verdicts.len());
    }
    Ok(format!("{table}\nall {} within one per cent or three standard errors", verdicts.len()))
}

/// Policies to try on a recording.
struct Others<'o> {
    placement: &'o [String],
    order: Option<&'o String>,
    hwm: Option<u32>,
    rebalance: Option<&'o String>,
}

impl Others<'_> {
    /// The points: with each placement, or with the recorded one if only something else is changed.
    fn points(&self, ran: &Point) -> Vec<Point> {
        let changed = |placement: String| Point {
            placement,
            order: self.order.unwrap_or(&ran.order).clone(),
            admission: if self.hwm.is_some() { None } else { ran.admission.clone() },
            hwm: self.hwm,
            rebalance: self.rebalance.unwrap_or(&ran.rebalance).clone(),
            ..Point::default()
        };
        let others = self.order.is_some() || self.hwm.is_some() || self.rebalance.is_some();
        match (self.placement, others) {
            ([], true) => vec![changed(ran.placement.clone())],
            (placements, _) => placements.iter().cloned().map(changed).collect(),
        }
    }
}

fn run_replay(
    path: &Path,
    others: &Others<'_>,
    seed: u64,
    wfformat: Option<&Path>,
    registry: &Registry,
) -> anyhow::Result<String> {
    std::fs::metadata(path).with_context(|| path.display().to_string())?;
    let recording = Recording::read(path)?;
    if let Some(to) = wfformat {
        let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or("run");
        let text = serde_json::to_string_pretty(&recording.to_dag()?.to_wfformat(name))?;
        std::fs::write(to, text).with_context(|| to.display().to_string())?;
    }
    let ran = match &recording.policies {
        Some(text) => replay::point_of(text)?,
        None => Point::default(),
    };
    let resolved = ran.policies(registry)?;
    let overheads = recording.overheads(replay::hwm_of(&resolved));
    let real = recording.real();
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(["", "mean response, s", "p50", "p99", "longest", "mean wait, s", "makespan, s"]);
    let figures = |measures: &Measures| {
        let response = measures.response_s;
        [response.mean, response.p50, response.p99, response.max, measures.wait_s.mean, measures.makespan_s]
    };
    let row = |name: &str, values: [f64; 6], unit: &str| {
        let digits = if unit.is_empty() { 4 } else { 1 };
        std::iter::once(name.to_owned()).chain(values.map(|value| format!("{value:.digits$}{unit}"))).collect::<Vec<String>>()
    };
    let own = recording.replay(&ran, registry, overheads, seed)?;
    table.add_row(row("as it was", figures(&real), ""));
    table.add_row(row(&format!("replayed: {resolved}"), figures(&own), ""));
    let (was, is) = (figures(&real), figures(&own));
    table.add_row(row("error of the replay", std::array::from_fn(|at| (is[at] / was[at].max(1e-12) - 1.0) * 100.0), " %"));
    for point in others.points(&ran) {
        let measures = recording.replay(&point, registry, overheads, seed)?;
        table.add_row(row(&format!("would have been: {}", point.policies(registry)?), figures(&measures), ""));
    }
    table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    Ok(format!(
        "{} tasks of {} clients, calling {} functions, on {} engines, {} left out; beside their own time {:.2} ms one way to an engine, {:.2} ms to the client and back, {:.2} ms of an engine a task\n{table}",
        recording.tasks.len(),
        recording.tasks.iter().map(|task| task.client).max().unwrap_or(0),
        recording.tasks.iter().map(|task| task.class).collect::<BTreeSet<u64>>().len(),
        recording.engines,
        recording.left_out,
        overheads.link_s * 1e3,
        overheads.client_s * 1e3,
        overheads.engine_s * 1e3,
    ))
}

fn example(name: Option<&str>) -> anyhow::Result<String> {
    match name {
        None => Ok(EXAMPLES
            .map(|(name, text)| format!("{name:<12}{}", text.lines().next().unwrap_or_default().trim_start_matches("# ")))
            .join("\n")),
        Some(name) => {
            let found = EXAMPLES.iter().find(|(known, _)| *known == name);
            found.map(|(_, text)| text.trim_end().to_owned()).with_context(|| {
                let known = EXAMPLES.map(|(name, _)| name);
                let meant = pointsman_policies::nearest(name, known).map(|known| format!(" (did you mean {known}?)"));
                format!("no example is called {name}{}; there are {}", meant.unwrap_or_default(), known.join(", "))
            })
        }
    }
}
