//! The command line: one file for each subcommand.

mod controller;
mod schemes;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use pointsman_policies::Registry;

/// A pluggable task scheduler, and a controller for IPython Parallel clusters.
#[derive(Debug, Parser)]
#[command(name = "pointsman", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a controller, with the options of ipcontroller.
    #[command(disable_help_flag = true, disable_version_flag = true)]
    Controller {
        /// Options as ipcontroller takes them; --help lists them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// List the schemes that can be chosen, with their parameters.
    Schemes(schemes::Options),
}

/// Runs the program with the schemes of a registry, and returns its exit code.
pub fn run(registry: Registry) -> ExitCode {
    match Cli::parse().command {
        Command::Controller { arguments } => controller::run(&arguments, &registry),
        Command::Schemes(options) => schemes::run(&options, &registry),
    }
}

/// Says why a command failed.
fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("pointsman: {error:#}");
    ExitCode::FAILURE
}
