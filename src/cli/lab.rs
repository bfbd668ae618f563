//! `pointsman lab`: experiments in virtual time, their reports, and the lab held against theory.

mod patience;
mod run;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, bail};
use pointsman_policies::Registry;

use super::{failed, start_plain_log};
use crate::lab::experiment::{Experiment, read_results};
use crate::lab::{report, verify};

/// The experiments that come with the program: name and file.
const EXAMPLES: [(&str, &str); 6] = [
    ("schemes", include_str!("../lab/examples/schemes.toml")),
    ("stale", include_str!("../lab/examples/stale.toml")),
    ("tails", include_str!("../lab/examples/tails.toml")),
    ("speeds", include_str!("../lab/examples/speeds.toml")),
    ("fair", include_str!("../lab/examples/fair.toml")),
    ("graphs", include_str!("../lab/examples/graphs.toml")),
];

/// What is run, and how.
#[derive(Debug, clap::Args)]
pub(super) struct RunOptions {
    /// The experiment, a TOML file; or the name of one that comes with the program (see `example`).
    experiment: String,
    /// Folder of the results; `results/NAME` by default.
    #[arg(long, short)]
    out: Option<PathBuf>,
    /// Threads; all cores by default. Results do not depend on it.
    #[arg(long, value_parser = at_least_one)]
    threads: Option<usize>,
    /// Run it on a live cluster of this machine instead, into `live` in the folder of the results; `lab report` lays both side by side.
    #[arg(long)]
    live: bool,
    /// What a second of the experiment takes live, in seconds.
    #[arg(long, default_value_t = 0.05, requires = "live")]
    unit_s: f64,
    /// Agree to what takes more than an hour: without this it is refused, or asked on a terminal.
    #[arg(long, short)]
    yes: bool,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse::<usize>().ok().filter(|count| (1..=4096).contains(count)).ok_or_else(|| "give a number from 1 to 4096".into())
}

/// What `pointsman lab` can do.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Run an experiment. What is finished is kept: the same command goes on where it was interrupted.
    Run(RunOptions),
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
        /// Agree to what takes more than an hour: without this it is refused, or asked on a terminal.
        #[arg(long, short)]
        yes: bool,
    },
    /// Play a live run again from its records, under its own policies and under others.
    Replay(super::replay::Options),
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
        Command::Run(options) => run::run(options, registry),
        Command::Report { folder } => make_report(folder, registry),
        Command::Verify { full, seed, markdown, yes } => run_verify(*full, *seed, *markdown, *yes, registry),
        Command::Replay(options) => return super::replay::run(options, registry),
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

fn make_report(folder: &Path, registry: &Registry) -> anyhow::Result<String> {
    let live = folder.join("live");
    let live = if live.exists() { Some(read_results(&live)?) } else { None };
    let page = report::page(&read_results(folder)?, live.as_ref(), registry)?;
    let path = report::write(&page, folder)?;
    Ok(format!("{}, with {} charts beside it in charts/", path.display(), page.charts.len()))
}

fn run_verify(full: bool, seed: u64, markdown: bool, yes: bool, registry: &Registry) -> anyhow::Result<String> {
    let tasks = verify::tasks(registry, full);
    let start = Instant::now();
    let tried = verify::try_out(registry)?;
    let task_s = start.elapsed().as_secs_f64() / tried as f64 / rayon::current_num_threads() as f64;
    let all_s = tasks as f64 * task_s;
    patience::announce(&format!("{:.0} M tasks", tasks as f64 / 1e6), all_s, "without --full it is shorter", yes)?;
    let ticker = patience::Ticker::new(all_s)?;
    let watch = |step: verify::Step<'_>| match step {
        verify::Step::Run { done, all } => {
            let text = format!("{:.0} of {:.0} M tasks", done as f64 / 1e6, all as f64 / 1e6);
            ticker.tell(text, done as f64 * task_s, all as f64 * task_s, 0.0);
        }
        verify::Step::Case(verdict) => ticker.line(&verdict.to_string()),
    };
    let verdicts = ticker.during(|| verify::verify(registry, full, seed, &watch))?;
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
            found.map(|(_, text)| text.trim_end().to_owned()).with_context(|| {
                let known = EXAMPLES.map(|(name, _)| name);
                let meant = pointsman_policies::nearest(name, known).map(|known| format!(" (did you mean {known}?)"));
                format!("no example is called {name}{}; there are {}", meant.unwrap_or_default(), known.join(", "))
            })
        }
    }
}
