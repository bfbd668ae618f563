//! `pointsman policy`: which policies there are, which a running controller follows, and others for it; and `pointsman explain`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use pointsman_policies::{PolicySpec, Registry};
use serde_json::{Value, json};

use super::connection::Connection;
use super::{failed, schemes};
use crate::config::{Config, read_toml_over};

/// Options of `pointsman policy`.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List all policies there are.
    List(schemes::Options),
    /// Show what a running controller follows, and how its engines are.
    Show {
        /// As JSON, for programs.
        #[arg(long)]
        json: bool,
    },
    /// Check the policies in a TOML file without a controller.
    Check {
        /// The file.
        file: PathBuf,
    },
    /// Change the policies of a running controller: each name has its axis.
    Set {
        /// NAME or NAME[key=value,...]; several for several axes.
        #[arg(required = true)]
        policies: Vec<PolicySpec>,
        /// A parameter of the only policy named, KEY=VALUE.
        #[arg(long = "param", value_name = "KEY=VALUE")]
        parameters: Vec<String>,
    },
    /// Send no more tasks; what runs is answered.
    Pause,
    /// Send tasks again.
    Resume,
    /// Send no more tasks to an engine.
    Drain {
        /// Its number.
        engine: u64,
    },
    /// Send tasks to an engine again.
    Undrain {
        /// Its number.
        engine: u64,
    },
    /// Let schemes decide without acting, instead of those that do; none to end it. `show` compares them.
    Shadow {
        /// NAME or NAME[key=value,...].
        schemes: Vec<PolicySpec>,
    },
}

/// Options of `pointsman explain`.
#[derive(Debug, clap::Args)]
pub(super) struct ExplainOptions {
    /// The task's id (msg_id).
    task: String,
    /// As JSON, for programs.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Does what is asked.
pub(super) fn run(options: &Options, registry: &Registry) -> ExitCode {
    let connection = &options.connection;
    let ask = |content: Value| connection.ask(&content);
    let outcome = match &options.command {
        Command::List(options) => return schemes::run(options, registry),
        Command::Check { file } => check(file, registry),
        Command::Show { json } => ask(json!({"action": "show"})).map(|answer| show(&answer, *json)),
        Command::Set { policies, parameters } => set(policies, parameters).and_then(ask).map(|answer| say_policies(&answer)),
        Command::Pause => ask(json!({"action": "pause"})).map(|_| println!("paused")),
        Command::Resume => ask(json!({"action": "resume"})).map(|_| println!("resumed")),
        Command::Drain { engine } => drain(connection, *engine, true),
        Command::Undrain { engine } => drain(connection, *engine, false),
        Command::Shadow { schemes } => ask(json!({"action": "shadow", "schemes": schemes})).map(|answer| {
            println!(
                "deciding without acting: {}",
                if schemes.is_empty() { "none".to_owned() } else { answer["shadows"].to_string() }
            );
        }),
    };
    outcome.map_or_else(|error| failed(&error), |()| ExitCode::SUCCESS)
}

/// Says why a task waits, or where it went and why.
pub(super) fn explain(options: &ExplainOptions) -> ExitCode {
    match options.connection.ask(&json!({"action": "explain", "task": options.task})) {
        Ok(answer) if options.json => println!("{answer:#}"),
        Ok(answer) => println!("{}: {}", answer["state"].as_str().unwrap_or("?"), answer["why"].as_str().unwrap_or("?")),
        Err(error) => return failed(&error),
    }
    ExitCode::SUCCESS
}

fn check(file: &std::path::Path, registry: &Registry) -> anyhow::Result<()> {
    let config = read_toml_over(&Config::default(), file)?;
    let resolved = config.policy.resolve(registry).with_context(|| file.display().to_string())?;
    println!("{resolved}");
    Ok(())
}

fn set(policies: &[PolicySpec], parameters: &[String]) -> anyhow::Result<Value> {
    let mut policies = policies.to_vec();
    if !parameters.is_empty() {
        let [policy] = policies.as_mut_slice() else {
            bail!("--param belongs to one policy: write NAME[key=value] for several");
        };
        let more: PolicySpec = format!("{}[{}]", policy.name(), parameters.join(",")).parse()?;
        let mut all = policy.parameters().clone();
        all.extend(more.parameters().clone());
        *policy = PolicySpec::with(policy.name(), all);
    }
    Ok(json!({"action": "set", "policies": policies}))
}

fn drain(connection: &Connection, engine: u64, draining: bool) -> anyhow::Result<()> {
    let answer = connection.ask(&json!({"action": "drain", "engine": engine, "draining": draining}))?;
    match draining {
        true => println!("engine {engine} takes no more tasks; {} in flight there", answer["in_flight"]),
        false => println!("engine {engine} takes tasks"),
    }
    Ok(())
}

fn say_policies(answer: &Value) {
    for axis in ["placement", "order", "admission", "rebalance"] {
        let spec = serde_json::from_value::<PolicySpec>(answer["policies"][axis].clone());
        println!("{axis:<10} {}", spec.map_or_else(|_| "?".to_owned(), |spec| spec.to_string()));
    }
}

fn show(answer: &Value, as_json: bool) {
    if as_json {
        println!("{answer:#}");
        return;
    }
    say_policies(answer);
    let state = &answer["state"];
    let (tasks, engines) = (&state["tasks"], state["engines"].as_array().map(Vec::as_slice).unwrap_or_default());
    let paused = if state["paused"] == true { "; paused" } else { "" };
    println!(
        "{} tasks, {} of them waiting for an engine; {} sent so far{paused}",
        tasks["live"], tasks["waiting"], state["dispatched"]
    );
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::UTF8_HORIZONTAL_ONLY).set_header(["engine", "state", "in flight", "hwm", "speed"]);
    for engine in engines {
        let speed = format!("{:.2}", engine["speed"].as_f64().unwrap_or(1.0));
        let state = engine["state"].as_str().unwrap_or("?").to_owned();
        table.add_row([engine["id"].to_string(), state, engine["in_flight"].to_string(), engine["hwm"].to_string(), speed]);
    }
    println!("{table}");
    for kind in answer["given_up"].as_array().map(Vec::as_slice).unwrap_or_default() {
        let text = |key: &str| kind[key].as_str().unwrap_or("?").to_owned();
        println!("refused or given up, {}: {}: {}", text("part"), text("kind"), kind["count"]);
    }
    let shadows = state["shadows"].as_array().map(Vec::as_slice).unwrap_or_default();
    if !shadows.is_empty() {
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::UTF8_HORIZONTAL_ONLY);
        table.set_header(["shadow", "decisions", "agrees", "would have put off", "task done sooner by", "cost"]);
        for shadow in shadows {
            table.add_row([
                shadow["scheme"].as_str().unwrap_or("?").to_owned(),
                shadow["decisions"].to_string(),
                format!("{:.1} %", 100.0 * shadow["agreement"].as_f64().unwrap_or(0.0)),
                shadow["deferred"].to_string(),
                format!("{:.4} s", shadow["regret_s"].as_f64().unwrap_or(0.0)),
                format!("{:.0} ns", shadow["cost_ns"].as_f64().unwrap_or(0.0)),
            ]);
        }
        println!("{table}");
    }
}
