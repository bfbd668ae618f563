//! `pointsman lab run`: an experiment in virtual time or on live clusters, with what it takes said before and what came of it printed after.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::{Context as _, bail};
use pointsman_policies::Registry;

use super::patience::{Ticker, announce, span};
use super::{RunOptions, read_experiment};
use crate::lab::experiment::{
    Cost, How, Point, Prepared, Program, Progress, Ran, Store, Workload, outstanding, read_results, run_experiment,
    start_up_warnings, warnings,
};
use crate::lab::summary;
use crate::load::{check_live, run_point_live};

/// What a live run takes beside its length: a controller starts, engines join, all end.
const LIVE_START_S: f64 = 2.0;
/// Lines of the table that a terminal shows.
const MOST_ROWS: usize = 60;

/// The program that runs: what its executable holds, as another build may decide otherwise.
fn this_program() -> anyhow::Result<Program> {
    // The link is to what runs, even if another file has its name by now.
    let file = std::fs::File::open("/proc/self/exe").or_else(|_| std::fs::File::open(std::env::current_exe()?));
    let file = file.context("this program's executable, by which its results are known")?;
    Program::of(env!("CARGO_PKG_VERSION"), file).context("this program's executable, by which its results are known")
}

/// Nanoseconds that a task takes on one core of this machine, by short runs of a few points.
fn pilot_ns(prepared: &Prepared<'_>) -> f64 {
    const SHORT: u64 = 2000;
    let experiment = prepared.experiment();
    let own: Vec<usize> =
        (0..experiment.points().len()).filter(|&at| experiment.points()[at].workload != Workload::Graphs).collect();
    let (mut tasks, start) = (0, Instant::now());
    for at in own.iter().step_by(own.len().div_ceil(3).max(1)) {
        let point = &experiment.points()[*at];
        let short = Point { tasks: point.tasks.min(SHORT), ..point.clone() };
        if prepared.run_alone(&short, 1).is_ok() {
            tasks += short.tasks;
        }
    }
    // Graphs are as quick, and shapes are built for each run.
    if tasks == 0 { 2000.0 } else { start.elapsed().as_nanos() as f64 / tasks as f64 }
}

/// How many seconds work takes, simulated or live.
enum Pace {
    Simulated { ns: f64, threads: f64 },
    Live { unit_s: f64 },
}

impl Pace {
    fn seconds(&self, runs: u64, cost: Cost) -> f64 {
        match *self {
            Pace::Simulated { ns, threads } => cost.tasks as f64 * ns / 1e9 / threads,
            Pace::Live { unit_s } => cost.length_s * unit_s + runs as f64 * LIVE_START_S,
        }
    }
}

/// Runs it; returns what is to be printed.
pub(super) fn run(options: &RunOptions, registry: &Registry) -> anyhow::Result<String> {
    let experiment = read_experiment(&options.experiment)?;
    let prepared = Prepared::new(&experiment, registry)?;
    let unit_s = options.live.then_some(options.unit_s);
    if let Some(unit_s) = unit_s {
        if !(unit_s > 0.0 && unit_s < 1e6) {
            bail!("--unit-s must be above 0 and below 1,000,000, not {unit_s}");
        }
        for (at, point) in experiment.points().iter().enumerate().filter(|(_, point)| point.reference().is_none()) {
            check_live(point).with_context(|| format!("point {} ({})", at + 1, experiment.describe(at)))?;
        }
    }
    for warning in warnings(&experiment, registry) {
        eprintln!("warning: {warning}");
    }
    if let Some(threads) = options.threads {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    }
    let folder = options.out.clone().unwrap_or_else(|| Path::new("results").join(&experiment.name));
    let (into, world) = match unit_s {
        Some(unit_s) => (folder.join("live"), format!("-live-{unit_s}")),
        None => (folder.clone(), String::new()),
    };
    let mut store = Store::open(&into, &prepared, &this_program()?, &world)?;
    let stop = Arc::new(AtomicBool::new(false));
    let live = |point: &Point, seed| run_point_live(point, registry, experiment.folder(), seed, options.unit_s, &stop);
    let how = if options.live { How::OneByOne(&live) } else { How::Simulated };
    let (runs, cost) = outstanding(&prepared, &store, how);
    if store.of_other_programs() > 0 {
        eprintln!(
            "note: {} results in {} are of another build of this program: they are kept there, and not used",
            store.of_other_programs(),
            into.join("runs.csv").display()
        );
    }
    let start = Instant::now();
    let ran = if runs == 0 { Ok(None) } else { make(options, &prepared, &mut store, how, (runs, cost), &stop).map(Some) }?;
    let ran = match ran {
        Some(ran) => ran,
        // What was there is written as this experiment asks for it.
        None => run_experiment(&prepared, &mut store, how, &AtomicBool::new(false), &|_| ())?,
    };
    finished(&into, &folder, registry, unit_s.is_some(), ran, start)
}

fn make(
    options: &RunOptions,
    prepared: &Prepared<'_>,
    store: &mut Store,
    how: How<'_>,
    (runs, cost): (u64, Cost),
    stop: &Arc<AtomicBool>,
) -> anyhow::Result<Ran> {
    let pace = if options.live {
        Pace::Live { unit_s: options.unit_s }
    } else {
        Pace::Simulated { ns: pilot_ns(prepared), threads: (rayon::current_num_threads() as u64).min(runs) as f64 }
    };
    let all_s = pace.seconds(runs, cost);
    let (what, shorter) = if options.live {
        let shorter = |hours: f64| (options.unit_s * hours * 3600.0 / all_s * 1e4).floor() / 1e4;
        let quick = shorter(0.5);
        let unit = if quick >= 0.002 { format!(", --unit-s {quick} makes it about half an hour") } else { String::new() };
        (format!("{runs} live runs, one after the other"), format!("fewer tasks, points or replications make it shorter{unit}"))
    } else {
        (
            format!("{runs} runs of {:.1} M tasks", cost.tasks as f64 / 1e6),
            "fewer tasks, points or replications make it shorter".into(),
        )
    };
    announce(&what, all_s, &shorter, options.yes)?;
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, stop.clone())?;
    }
    let ticker = Ticker::new(all_s)?;
    let progress = |far: Progress| {
        let text = format!("{}/{} runs", far.finished, far.needed);
        let runs_made = far.finished.saturating_sub(far.needed.saturating_sub(runs));
        let (done_s, all_s) = (pace.seconds(runs_made, far.done), pace.seconds(runs.max(runs_made), far.all));
        // Live, one is under way at a time, and its length is known.
        let piece_s = if options.live { (all_s - done_s) / (far.needed - far.finished).max(1) as f64 } else { 0.0 };
        ticker.tell(text, done_s, all_s, piece_s);
    };
    ticker.during(|| run_experiment(prepared, store, how, stop, &progress))
}

/// What is printed at the end: the figures, what is doubtful about them, and where the rest is.
fn finished(into: &Path, folder: &Path, registry: &Registry, live: bool, ran: Ran, start: Instant) -> anyhow::Result<String> {
    let results = read_results(into)?;
    let mut text = summary::table(&results, registry, MOST_ROWS);
    for warning in start_up_warnings(&results.experiment, &results.details).into_iter().chain(summary::stretched(&results)) {
        text.push_str(&format!("\nwarning: {warning}"));
    }
    let speed = match ran.decisions as f64 / 1e6 {
        millions if !live && millions > 0.0 => {
            let seconds = start.elapsed().as_secs_f64();
            format!(" in {}; {millions:.1} M decisions, {:.2} M in a second", span(seconds), millions / seconds)
        }
        _ => String::new(),
    };
    Ok(format!(
        "{text}\n{} of {} runs made, {} were there{speed}.\n{}: results.csv and all runs. `pointsman lab report {}` makes a page of them",
        ran.made,
        ran.made + ran.found,
        ran.found,
        into.display(),
        folder.display()
    ))
}
