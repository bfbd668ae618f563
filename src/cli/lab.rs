//! `pointsman lab`: experiments in virtual time, their reports, and the lab held against theory.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context as _, bail};
use indicatif::{ProgressBar, ProgressStyle};
use pointsman_policies::Registry;

use super::{failed, start_plain_log};
use crate::lab::experiment::{Experiment, Store, read_results, run_experiment, warnings};
use crate::lab::{report, verify};

/// The experiments that come with the program: name and file.
const EXAMPLES: [(&str, &str); 1] = [("schemes", include_str!("../lab/examples/schemes.toml"))];

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
        #[arg(long)]
        threads: Option<usize>,
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
        Command::Run { experiment, out, threads } => run_file(experiment, out.as_deref(), *threads, registry),
        Command::Report { folder } => make_report(folder, registry),
        Command::Verify { full, seed, markdown } => run_verify(*full, *seed, *markdown, registry),
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

fn run_file(name: &str, out: Option<&Path>, threads: Option<usize>, registry: &Registry) -> anyhow::Result<String> {
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
    let mut store = Store::open(&folder, &experiment)?;
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
    run_experiment(&experiment, registry, &mut store, &stop, &progress)?;
    bar.finish_and_clear();
    Ok(format!("{}: results.csv and all runs; `pointsman lab report {0}` makes a page of them", folder.display()))
}

fn make_report(folder: &Path, registry: &Registry) -> anyhow::Result<String> {
    let page = report::page(&read_results(folder)?, registry)?;
    let path = report::write(&page, folder)?;
    Ok(format!("{}, with {} charts beside it in charts/", path.display(), page.charts.len()))
}

fn run_verify(full: bool, seed: u64, markdown: bool, registry: &Registry) -> anyhow::Result<String> {
    let bar = ProgressBar::new(1);
    bar.set_style(ProgressStyle::with_template("{pos}/{len} systems [{bar:40}] {elapsed}")?);
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

fn example(name: Option<&str>) -> anyhow::Result<String> {
    match name {
        None => Ok(EXAMPLES
            .map(|(name, text)| format!("{name:<12}{}", text.lines().next().unwrap_or_default().trim_start_matches("# ")))
            .join("\n")),
        Some(name) => {
            let found = EXAMPLES.iter().find(|(known, _)| *known == name);
            found.map(|(_, text)| text.trim_end().to_owned()).with_context(|| format!("no example is called {name}"))
        }
    }
}
