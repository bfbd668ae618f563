//! `pointsman policy`: which policies there are, which a running controller follows, and others for it; and `pointsman explain`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use pointsman_policies::{Axis, Entry, PolicySpec, Registry, SpecError};
use serde_json::{Value, json};

use super::connection::Connection;
use super::{failed, schemes};
use crate::config::{Config, Resolved, read_arguments, read_toml_over};

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
    /// Check a configuration without a controller: its values, its policies, and whether they can have an effect.
    Check {
        /// The TOML file; all files of the profile by default, as a controller reads them.
        file: Option<PathBuf>,
    },
    /// Change the policies of a running controller: each name has its axis.
    Set {
        /// NAME or NAME[key=value,...]; several for several axes.
        #[arg(required = true, value_parser = spec)]
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
    /// Let placements decide without acting, instead of those that do; none to end it. `show` compares them.
    Shadow {
        /// NAME or NAME[key=value,...].
        #[arg(value_name = "PLACEMENT", value_parser = spec)]
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
        Command::Check { file } => check(file.as_deref(), connection, registry),
        Command::Show { json } => ask(json!({"action": "show"})).map(|answer| show(&answer, *json)),
        Command::Set { policies, parameters } => {
            set(policies, parameters).and_then(ask).map(|answer| say_change(&answer, registry))
        }
        Command::Pause => ask(json!({"action": "pause"})).map(|_| println!("paused")),
        Command::Resume => ask(json!({"action": "resume"})).map(|_| println!("resumed")),
        Command::Drain { engine } => drain(connection, *engine, true),
        Command::Undrain { engine } => drain(connection, *engine, false),
        Command::Shadow { schemes } => shadow(connection, schemes, registry),
    };
    outcome.map_or_else(|error| failed(&error), |()| ExitCode::SUCCESS)
}

/// Says why a task waits, or where it went and why.
pub(super) fn explain(options: &ExplainOptions) -> ExitCode {
    match options.connection.ask(&json!({"action": "explain", "task": options.task})) {
        Ok(answer) if options.json => println!("{answer:#}"),
        Ok(answer) => println!("{}: {}", answer["state"].as_str().unwrap_or("?"), answer["why"].as_str().unwrap_or("?")),
        Err(error) => return failed(&elsewhere(options).unwrap_or(error)),
    }
    ExitCode::SUCCESS
}

/// What the hub's records say of a task that the scheduler has not seen, if it is there.
fn elsewhere(options: &ExplainOptions) -> Option<anyhow::Error> {
    let query = json!({"query": {"msg_id": options.task}, "keys": ["msg_id", "queue", "engine_uuid"]});
    let answer = options.connection.query("db_request", &query).ok()?;
    let record = answer["records"].as_array()?.first()?;
    let queue = record["queue"].as_str().filter(|queue| *queue != "task")?;
    Some(anyhow::anyhow!(
        "{}: it came by the channel {queue}, of a direct or broadcast view, whose client names the engines: it did not go through the task \
         scheduler, and no policy decided about it",
        options.task
    ))
}

/// A policy of the command line; of a parameter without one, the policies that have it.
fn spec(text: &str) -> Result<PolicySpec, String> {
    text.parse().map_err(|error: SpecError| {
        let key = text.split('=').next().unwrap_or_default();
        let having: Vec<String> = match &error {
            SpecError::Bare(_) => {
                let registry = Registry::builtin();
                let has = |entry: &&Entry| entry.parameters.iter().any(|(name, _)| *name == key);
                registry.entries().iter().filter(has).map(|entry| format!("{}[{text}]", entry.name)).collect()
            }
            _ => Vec::new(),
        };
        match having.as_slice() {
            [] => error.to_string(),
            all => format!("{error}, such as {}", all.join(" or ")),
        }
    })
}

fn check(file: Option<&std::path::Path>, connection: &Connection, registry: &Registry) -> anyhow::Result<()> {
    let (config, warnings, place) = match file {
        Some(file) => (read_toml_over(&Config::default(), file)?, Vec::new(), file.display().to_string()),
        None => {
            let profile = connection.profile();
            let arguments = [format!("--profile-dir={}", profile.display())];
            let read = read_arguments(&arguments, &|name| std::env::var_os(name))?;
            (read.config, read.warnings, profile.display().to_string())
        }
    };
    config.check().with_context(|| place.clone())?;
    let resolved = config.policy.resolve(registry).with_context(|| place.clone())?;
    println!("{resolved}");
    for doubt in warnings.iter().chain(&config.notes()).chain(&resolved.doubts(registry)) {
        println!("note: {doubt}");
    }
    println!("ok: {place}");
    Ok(())
}

fn shadow(connection: &Connection, schemes: &[PolicySpec], registry: &Registry) -> anyhow::Result<()> {
    let answer = connection.ask(&json!({"action": "shadow", "schemes": schemes}))?;
    let names: Vec<&str> = answer["shadows"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    println!("deciding without acting: {}", if names.is_empty() { "none".to_owned() } else { names.join(", ") });
    let shown = connection.ask(&json!({"action": "show"}))?;
    let Ok(mut policies) = serde_json::from_value::<Resolved>(shown["policies"].clone()) else { return Ok(()) };
    for spec in schemes {
        policies.set(Axis::Placement, spec.clone());
        policies
            .doubts(registry)
            .iter()
            .filter(|doubt| doubt.starts_with("placement "))
            .for_each(|doubt| println!("note: {doubt}"));
    }
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

fn say_policies(policies: &Value) {
    for axis in Axis::ALL.map(Axis::name) {
        println!("{axis:<10} {}", written(&policies[axis]));
    }
}

fn written(spec: &Value) -> String {
    serde_json::from_value::<PolicySpec>(spec.clone()).map_or_else(|_| "?".to_owned(), |spec| spec.to_string())
}

/// What is in force now, what it took the place of, and how long that lasts.
fn say_change(answer: &Value, registry: &Registry) {
    for axis in Axis::ALL {
        let (now, was) = (&answer["policies"][axis.name()], &answer["was"][axis.name()]);
        let before = if was.is_null() || was == now { String::new() } else { replaced(axis, was, now, registry) };
        println!("{:<10} {}{before}", axis.name(), written(now));
    }
    answer["doubts"].as_array().into_iter().flatten().filter_map(Value::as_str).for_each(|doubt| println!("note: {doubt}"));
    println!("in force until a reload (SIGHUP) or restart: no file has been changed");
}

/// What was there before; of the same policy, the parameters that differ, and which of them went back to their defaults.
fn replaced(axis: Axis, was: &Value, now: &Value, registry: &Registry) -> String {
    let read = |spec: &Value| serde_json::from_value::<PolicySpec>(spec.clone()).ok();
    let (Some(was), Some(now)) = (read(was), read(now)) else { return String::new() };
    let entry = registry.find(now.name()).filter(|entry| entry.axis == axis && was.name() == now.name());
    let Some(entry) = entry else { return format!("   (was {was})") };
    let changed = now.parameters().iter().filter(|(key, value)| was.parameters().get(*key) != Some(value));
    let told = changed.map(|(key, value)| {
        let default = if entry.defaults.get(key) == Some(value) { ", the default" } else { "" };
        let before = was.parameters().get(key).map_or("unset".to_owned(), Value::to_string);
        format!("{key}: {before} -> {value}{default}")
    });
    format!("   ({})", told.collect::<Vec<_>>().join("; "))
}

fn show(answer: &Value, as_json: bool) {
    if as_json {
        println!("{answer:#}");
        return;
    }
    say_policies(&answer["policies"]);
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
