//! `pointsman demo`: a controller, engines, and a real graph of real work through real sockets, a few times for each of two schemes in turns.
//! The work is a Cholesky factorisation by tiles, whose result is right only if every dependency was respected; it is checked.

mod cholesky;
mod report;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use indicatif::{ProgressBar, ProgressStyle};
use pointsman_core::net::Clock;
use pointsman_core::peer::{Client, Engine, EngineHandle, Reply, TaskRequest};
use pointsman_policies::{PolicySpec, Registry};
use pointsman_schedulers::task::graph::Workflow;
use serde_json::json;

use super::{failed, start_plain_log};
use crate::config::{Config, Store};
use crate::controller::{Controller, Ending};
use crate::scratch::Scratch;
use cholesky::Factorisation;
use report::{Row, Timing};

/// Options of `pointsman demo`.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Engines to start, two or more; one for each core by default.
    #[arg(long, short = 'n', value_parser = clap::value_parser!(u16).range(2..))]
    engines: Option<u16>,
    /// Tiles along one side of the matrix: T makes about T^3/6 tasks.
    #[arg(long, default_value_t = 20)]
    tiles: usize,
    /// Rows of one tile.
    #[arg(long, default_value_t = 160)]
    tile_rows: usize,
    /// Placements to compare.
    #[arg(long = "placements", alias = "schemes", value_delimiter = ';', default_values = ["leastload", "twobin"])]
    schemes: Vec<PolicySpec>,
    /// Most tasks in flight on an engine. At 1 all schemes place alike.
    #[arg(long, default_value_t = 2)]
    hwm: u32,
    /// How often each of them runs, in turns: one run says nothing about the next.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Seed of the matrix and of random schemes.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Write the graph for Graphviz to this file.
    #[arg(long)]
    dot: Option<PathBuf>,
    /// Log lines: error, warn, info, debug.
    #[arg(long, default_value = "warn")]
    log: String,
}

/// What a task costs beside its work, and a run besides, for the guess of how long all takes.
const MESSAGES_S: f64 = 0.000_3;
const START_S: f64 = 0.5;

/// How long any one step may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs the demo.
pub(super) fn run(options: &Options, registry: &Arc<Registry>) -> ExitCode {
    start_plain_log(&options.log);
    match show(options, registry) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

fn show(options: &Options, registry: &Arc<Registry>) -> anyhow::Result<()> {
    if !(2..=60).contains(&options.tiles) || !(4..=1024).contains(&options.tile_rows) {
        bail!("--tiles must be from 2 to 60 and --tile-rows from 4 to 1024");
    }
    let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let engines = options.engines.map_or(cores.max(2), usize::from);
    let plan = cholesky::plan(options.tiles);
    let dependencies: Vec<Vec<&str>> = plan.iter().map(|step| step.after.iter().map(String::as_str).collect()).collect();
    let graph = Workflow::new(plan.iter().zip(&dependencies).map(|(step, after)| (step.name.as_str(), after.as_slice())))?;
    if let Some(path) = &options.dot {
        std::fs::write(path, graph.to_dot()).with_context(|| path.display().to_string())?;
    }
    let rows = options.tiles * options.tile_rows;
    println!(
        "Cholesky factorisation of a {rows} x {rows} matrix in {0} x {0} tiles: {1} tasks, {2} dependencies, {engines} engines, hwm {3}.",
        options.tiles,
        graph.len(),
        graph.edge_count(),
        options.hwm
    );
    let runs = options.schemes.len() as u64 * u64::from(options.rounds);
    let sixths: u64 = plan.iter().map(cholesky::Step::sixths).sum();
    let work_s = sixths as f64 / 6.0 * cholesky::product_s(options.tile_rows) / engines.min(cores) as f64;
    let seconds = runs as f64 * (work_s + plan.len() as f64 * MESSAGES_S + START_S);
    println!("{} schemes, {} runs of each in turns: about {seconds:.0} s.", options.schemes.len(), options.rounds);
    let bar = ProgressBar::new(runs * sixths);
    bar.set_style(ProgressStyle::with_template("{prefix:>12} [{bar:40}] {percent} % of the work, {eta} left")?);
    let mut results: Vec<Vec<Row>> = options.schemes.iter().map(|_| Vec::new()).collect();
    for round in 1..=options.rounds {
        for (scheme, rows) in options.schemes.iter().zip(&mut results) {
            bar.set_prefix(format!("{scheme}, {round}"));
            let row = run_once(options, registry, scheme, engines, &plan, &graph, &bar)?;
            bar.suspend(|| {
                println!(
                    "{scheme}, run {round}: factorised in {} s, largest error {:.1e}, {} records in SQLite",
                    report::seconds(row.makespan_s),
                    row.error,
                    row.records
                );
            });
            rows.push(row);
        }
    }
    bar.finish_and_clear();
    println!("{}", report::table(&results));
    println!("{}", report::conclusion(&results));
    Ok(())
}

/// One factorisation under one scheme, on a controller and engines of its own.
fn run_once(
    options: &Options,
    registry: &Arc<Registry>,
    scheme: &PolicySpec,
    engines: usize,
    plan: &[cholesky::Step],
    graph: &Workflow,
    bar: &ProgressBar,
) -> anyhow::Result<Row> {
    let folder = Scratch::new()?;
    let mut config = Config::default();
    config.controller.profile_dir = Some(folder.path().to_owned());
    config.policy.placement = scheme.clone();
    config.policy.set_hwm(options.hwm);
    config.policy.seed = Some(options.seed);
    config.heartbeat.period_ms = 500;
    config.records.store = Store::Sqlite;
    let controller = Controller::start(&config, registry)?;
    let stopper = controller.stopper();

    let factorisation = Arc::new(Factorisation::new(options.tiles, options.tile_rows, options.seed));
    let functions = Arc::new(factorisation.functions());
    let context = zmq::Context::new();
    let started: Vec<EngineHandle> = (0..engines as u64)
        .map(|n| Engine::start(&context, controller.engine_file(), functions.clone(), Some(n), PATIENCE))
        .collect::<Result<_, _>>()?;
    let mut client = Client::connect(&context, controller.client_file(), PATIENCE)?;
    client.wait_for_engines(engines, PATIENCE)?;

    let timing = drive(&mut client, plan, graph, bar)?;
    let error = factorisation.largest_error(options.seed);
    // Not a number is no small one.
    if error.is_nan() || error > 1e-9 {
        bail!("the factor is wrong by {error:e}: a dependency was not respected");
    }
    let records = client.ask("db_request", &json!({"query": {"completed": {"$exists": true}}, "keys": ["msg_id"]}), PATIENCE)?;
    let numbers = started.iter().map(|engine| (engine.uuid().to_owned(), engine.number())).collect();
    let row = Row::new(scheme.to_string(), &timing, graph, &numbers, error, records["records"].as_array().map_or(0, Vec::len))?;

    drop(client);
    started.iter().for_each(EngineHandle::stop);
    for engine in started {
        engine.join()?;
    }
    stopper.stop();
    match controller.wait() {
        Ending::Asked => Ok(row),
        Ending::Incomplete(reason) | Ending::Died(reason) => bail!("the controller did not end well: {reason}"),
    }
}

/// Submits every task at once, dependencies and all, and collects the replies.
fn drive(client: &mut Client, plan: &[cholesky::Step], graph: &Workflow, bar: &ProgressBar) -> anyhow::Result<Timing> {
    let clock = Clock::default();
    let steps: std::collections::HashMap<&str, &cholesky::Step> = plan.iter().map(|step| (step.name.as_str(), step)).collect();
    let mut timing = Timing::default();
    let mut ids: std::collections::HashMap<&str, String> = std::collections::HashMap::new();
    for name in graph.submission_order() {
        let step = steps[name];
        let mut task = TaskRequest::function(step.kind, step.argument.clone());
        task.after = step.after.iter().map(|name| ids[name.as_str()].clone()).collect();
        task.label = Some(name.to_owned());
        let submitted = Clock::date();
        let id = client.submit(&task)?;
        timing.submitted(name, &id, submitted, &step.after);
        ids.insert(name, id);
    }
    for _ in 0..graph.len() {
        let reply: Reply = client.next_reply(PATIENCE)?.context("the cluster has stopped answering")?;
        let name = timing.replied(&reply)?;
        bar.inc(steps.get(name).map_or(0, |step| step.sixths()));
    }
    timing.makespan_s = clock.now().as_secs_f64();
    Ok(timing)
}
