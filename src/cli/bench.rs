//! `pointsman bench`: load against a controller, and two results compared.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde::de::DeserializeOwned;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::{failed, start_plain_log};
use crate::load::{After, Arrivals, Durations, Plan, Report, Sweep, Vary, Which, compare, curves, run as run_load};
use crate::plot;

/// Options of `pointsman bench`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Options {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    load: LoadOptions,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Compare two results of --json, with confidence intervals.
    Compare {
        /// The first.
        a: PathBuf,
        /// The second.
        b: PathBuf,
    },
    /// Draw results of --vary into one file of charts.
    Plot {
        /// The file to write.
        svg: PathBuf,
        /// Results of --vary --json, each as NAME=FILE.
        #[arg(required = true, value_parser = named)]
        sweeps: Vec<(String, PathBuf)>,
    },
}

#[derive(Debug, clap::Args)]
struct LoadOptions {
    /// The ipcontroller-client.json of a controller that runs on this machine. Without it one is started.
    #[arg(long, short)]
    file: Option<PathBuf>,
    /// Its ipcontroller-engine.json, if that is not beside it.
    #[arg(long, requires = "file")]
    engine_file: Option<PathBuf>,
    /// A command that starts the controller, such as "python -m ipyparallel.controller".
    #[arg(long, conflicts_with = "file")]
    command: Option<String>,
    /// Engines.
    #[arg(long, short = 'n', default_value_t = 16)]
    engines: usize,
    /// Clients.
    #[arg(long, default_value_t = 1)]
    clients: usize,
    /// Closed loop: so many tasks are under way.
    #[arg(long, default_value_t = 256)]
    window: usize,
    /// Open loop: so many tasks a second, a Poisson stream.
    #[arg(long, conflicts_with_all = ["window", "load"], allow_negative_numbers = true)]
    rate: Option<f64>,
    /// Open loop at this share of what a closed loop reaches, such as 0.5.
    #[arg(long, conflicts_with = "window", allow_negative_numbers = true)]
    load: Option<f64>,
    /// The label of every task, such as "#prio=2 #hedge".
    #[arg(long)]
    label: Option<String>,
    /// Bytes of a task's buffers.
    #[arg(long, default_value_t = 450)]
    payload: usize,
    /// Bytes of a result's buffer.
    #[arg(long, default_value_t = 150)]
    result: usize,
    /// How long tasks run, in ms: 0, 5, exp:MEAN, lognormal:MEAN:CV2, bimodal:SHORT:LONG:SHARE. They call one function; short and long ones two.
    #[arg(long, default_value = "0")]
    duration: Durations,
    /// What tasks wait for: nothing, chains:WIDTH, random:COUNT.
    #[arg(long, default_value = "nothing")]
    after: After,
    /// Tasks that wait for one that never ends.
    #[arg(long, default_value_t = 0)]
    blocked: usize,
    /// Tasks that have ended before.
    #[arg(long, default_value_t = 0)]
    history: u64,
    /// Measured stretches.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Length of each, in seconds.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// What is not measured before, in seconds.
    #[arg(long, default_value_t = 1.0)]
    warmup: f64,
    /// Seed of durations, dependencies and arrivals.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// One load after another with a number of it varied, such as engines=1,10,100; others are clients, window, payload, blocked, history.
    #[arg(long, value_name = "NUMBER=VALUES")]
    vary: Option<Vary>,
    /// Draw what was varied into this file.
    #[arg(long, requires = "vary")]
    svg: Option<PathBuf>,
    /// Write the result to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Options of the controller that is started, behind --.
    #[arg(last = true)]
    controller_options: Vec<String>,
}

impl LoadOptions {
    fn plan(&self) -> anyhow::Result<Plan> {
        let arrivals = match (self.rate, self.load) {
            (Some(rate), _) => Arrivals::Rate(rate),
            (None, Some(load)) => Arrivals::Load(load),
            (None, None) => Arrivals::Window(self.window),
        };
        let plan = Plan {
            engines: self.engines,
            clients: self.clients,
            arrivals,
            payload_bytes: self.payload,
            result_bytes: self.result,
            duration: self.duration,
            after: self.after,
            blocked: self.blocked,
            history: self.history,
            rounds: self.rounds,
            round_s: self.seconds,
            warmup_s: self.warmup,
            seed: self.seed,
            label: self.label.clone(),
        };
        plan.check()?;
        Ok(plan)
    }

    fn which(&self) -> Which {
        match (&self.file, &self.command) {
            (Some(client_file), _) => Which::Running { client_file: client_file.clone(), engine_file: self.engine_file.clone() },
            (None, Some(command)) => {
                let words = command.split_whitespace().map(str::to_owned);
                Which::Command(words.chain(self.controller_options.iter().cloned()).collect())
            }
            (None, None) => Which::Own(self.controller_options.clone()),
        }
    }
}

/// Runs a load, or compares two results.
pub(super) fn run(options: &Options) -> ExitCode {
    start_plain_log("warn");
    let outcome = match &options.command {
        Some(Command::Compare { a, b }) => read::<Report>(a).and_then(|a| Ok(compare(&a, &read(b)?))),
        Some(Command::Plot { svg, sweeps }) => draw_files(svg, sweeps),
        None => measure(&options.load),
    };
    match outcome {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => failed(&error),
    }
}

fn measure(options: &LoadOptions) -> anyhow::Result<String> {
    let bar = ProgressBar::new(1000);
    bar.set_style(ProgressStyle::with_template("{msg:>24} [{bar:40}] {elapsed}")?);
    let progress = |what: &str, done: f64| {
        bar.set_message(what.to_owned());
        bar.set_position((done * 1000.0) as u64);
    };
    let (plan, which) = (options.plan()?, options.which());
    let stop = Arc::new(AtomicBool::new(false));
    // A terminal that is closed takes everything that was started in it along, but not what has a group of its own.
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // Who asks twice does not want to wait.
        signal_hook::flag::register_conditional_default(signal, stop.clone())?;
        signal_hook::flag::register(signal, stop.clone())?;
    }
    let outcome = drive(options, &plan, &which, &progress, &stop);
    bar.finish_and_clear();
    outcome
}

fn drive(
    options: &LoadOptions,
    plan: &Plan,
    which: &Which,
    progress: &dyn Fn(&str, f64),
    stop: &Arc<AtomicBool>,
) -> anyhow::Result<String> {
    if let Some(vary) = &options.vary {
        // What is finished is kept whatever comes after it.
        let keep = |sweep: &Sweep| options.json.as_deref().map_or(Ok(()), |path| write_json(path, sweep));
        let sweep = Sweep::run(plan, vary, which, progress, stop, keep)?;
        let text = sweep.to_text();
        if let Some(path) = &options.svg
            && let Err(error) = draw(path, &[(String::new(), sweep)])
        {
            // What has been measured is told whatever becomes of its picture.
            println!("{text}");
            return Err(error);
        }
        return Ok(text);
    }
    let report = run_load(plan, which, progress, stop)?;
    if let Some(path) = &options.json
        && let Err(error) = write_json(path, &report)
    {
        println!("{}", report.to_text());
        return Err(error);
    }
    Ok(report.to_text())
}

fn named(text: &str) -> Result<(String, PathBuf), String> {
    text.split_once('=').map(|(name, path)| (name.to_owned(), path.into())).ok_or_else(|| "give NAME=FILE".to_owned())
}

fn draw_files(svg: &Path, sweeps: &[(String, PathBuf)]) -> anyhow::Result<String> {
    let sweeps = sweeps.iter().map(|(name, path)| Ok((name.clone(), read(path)?)));
    draw(svg, &sweeps.collect::<anyhow::Result<Vec<(String, Sweep)>>>()?)?;
    Ok(format!("{} is written", svg.display()))
}

fn draw(path: &Path, sweeps: &[(String, Sweep)]) -> anyhow::Result<()> {
    std::fs::write(path, plot::svg(&curves(sweeps)?, 2)?).with_context(|| path.display().to_string())
}

fn write_json(path: &Path, result: &impl Serialize) -> anyhow::Result<()> {
    std::fs::write(path, serde_json::to_string_pretty(result)?).with_context(|| path.display().to_string())
}

fn read<T: DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    serde_json::from_str(&text).with_context(|| format!("{} is not such a result of `pointsman bench --json`", path.display()))
}
