//! The command line: one file for each subcommand.

mod bench;
mod connection;
mod controller;
mod demo;
mod engine;
mod forward;
mod lab;
mod policy;
mod replay;
mod running;
mod schemes;

use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};
use pointsman_policies::Registry;

use crate::output;

/// The program's version and the one of ipyparallel that it follows.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (follows ipyparallel 9.2.0)");

/// A pluggable task scheduler, and a controller for IPython Parallel clusters.
#[derive(Debug, Parser)]
#[command(name = "pointsman", version = VERSION, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a controller, with the options of ipcontroller.
    #[command(disable_help_flag = true, disable_version_flag = true, override_help = controller::help())]
    Controller {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Run native engines: shell commands and named functions.
    Engine(engine::Options),
    /// See it work: a controller, engines and a real graph of tasks, under two schemes.
    Demo(demo::Options),
    /// Put load on a controller and see what it takes: throughput, latency, CPU, memory.
    Bench(Box<bench::Options>),
    /// Study policies in virtual time: experiments, reports, theory.
    #[command(subcommand)]
    Lab(lab::Command),
    /// List the policies that can be chosen, with their parameters.
    Schemes(schemes::Options),
    /// Show and change the policies of a running controller.
    Policy(policy::Options),
    /// List the controllers that run, by the connection files of profiles.
    List(running::Options),
    /// Say why a task waits, or where it went and why.
    Explain(policy::ExplainOptions),
}

/// Runs the program with the schemes of a registry, and returns its exit code.
pub fn run(registry: Registry) -> ExitCode {
    output::prepare();
    output::finish(command(&Arc::new(registry)))
}

fn command(registry: &Arc<Registry>) -> ExitCode {
    match Cli::parse().command {
        Command::Controller { arguments } => controller::run(&arguments, registry),
        Command::Engine(options) => engine::run(&options),
        Command::Demo(options) => demo::run(&options, registry),
        Command::Bench(options) => bench::run(&options),
        Command::Lab(command) => lab::run(&command, registry),
        Command::Schemes(options) => schemes::run(&options, registry),
        Command::Policy(options) => policy::run(&options, registry),
        Command::List(options) => running::run(&options),
        Command::Explain(options) => policy::explain(&options),
    }
}

/// Says why a command failed.
fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("pointsman: {error:#}");
    ExitCode::FAILURE
}

/// Log lines to standard error; `RUST_LOG` has the last word.
fn start_plain_log(level: &str) {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    if let Some(lines) = output::stderr() {
        log_to(filter, lines.clone());
    }
}

/// Log lines of this process from now on. None is worth a word about itself where it can not be written.
fn log_to(filter: tracing_subscriber::EnvFilter, lines: output::Lines) {
    use tracing_subscriber::prelude::*;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_target(false).with_ansi(false);
    log.log_internal_errors(false).with_writer(lines).finish().with(forward::Forward).init();
}
