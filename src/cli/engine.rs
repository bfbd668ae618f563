//! `pointsman engine`: native engines that run shell commands and a few functions.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use pointsman_core::peer::{Engine, EngineHandle, EngineOptions, EngineStopper, Functions};
use signal_hook::consts::{SIGINT, SIGTERM};

use super::connection::read_engine_file;
use super::{failed, forward, start_plain_log};

/// Engines of one libzmq context, which has room for 1023 sockets and one thread for their traffic.
const ENGINES_EACH: u64 = 128;
/// Open files of an engine, and of a process besides.
const FILES_EACH: u64 = 23;
const FILES_BASE: u64 = 64;

/// Options of `pointsman engine`.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// The controller's ipcontroller-engine.json.
    #[arg(long, short)]
    file: PathBuf,
    /// How many engines to run in this process.
    #[arg(long, short = 'n', default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,
    /// The number to ask for (the first of several).
    #[arg(long)]
    id: Option<u64>,
    /// How long the controller may take to answer.
    #[arg(long, default_value_t = 10.0, value_parser = super::connection::seconds)]
    timeout_s: f64,
    /// How many pings in a row of the controller's may be missing before an engine ends; 0 for any number.
    #[arg(long, default_value_t = EngineOptions::default().max_heartbeat_misses)]
    max_heartbeat_misses: u32,
    /// Publish log lines to who listens at this address: an iplogger, or any SUB socket that is bound.
    #[arg(long, alias = "IPEngine.log_url")]
    log_url: Option<String>,
}

/// The functions of engines that are started from the command line.
pub(crate) fn functions() -> Functions {
    let mut functions = Functions::new();
    functions.register_quick("echo", |argument| Ok(argument.to_vec()));
    functions.register("sleep_ms", |argument| {
        let text = std::str::from_utf8(argument).map_err(|error| error.to_string())?;
        let ms = text.trim().parse().map_err(|_| format!("'{text}' is not a number of milliseconds"))?;
        std::thread::sleep(Duration::from_millis(ms));
        Ok(Vec::new())
    });
    functions
}

/// Runs engines until they are told to end, by the controller or a signal.
pub(super) fn run(options: &Options) -> ExitCode {
    let code = serve(options).unwrap_or_else(|error| failed(&error));
    forward::finish();
    code
}

fn serve(options: &Options) -> anyhow::Result<ExitCode> {
    start_plain_log("info");
    if let Some(url) = &options.log_url {
        forward::start("engine", url)?;
    }
    // Before anything starts: a signal at any time leads to an orderly end.
    let (signal_in, signal_out) = UnixStream::pair()?;
    for signal in [SIGINT, SIGTERM] {
        signal_hook::low_level::pipe::register(signal, signal_in.try_clone()?)?;
    }
    let file = read_engine_file(&options.file)?;
    let timeout = Duration::try_from_secs_f64(options.timeout_s).context("--timeout-s")?;
    let functions = Arc::new(functions());
    let limit = rlimit::increase_nofile_limit(u64::MAX)?;
    let mut context = zmq::Context::new();
    let mut engines = Vec::new();
    for n in 0..options.count {
        if n > 0 && n % ENGINES_EACH == 0 {
            context = zmq::Context::new();
        }
        let asked = EngineOptions {
            number: options.id.map(|first| first + n),
            timeout,
            max_heartbeat_misses: options.max_heartbeat_misses,
        };
        let engine = Engine::start_with(&context, &file, functions.clone(), &asked).with_context(|| {
            format!(
                "engine {} of {} (files: {limit} may be open here, and so many engines need {})",
                n + 1,
                options.count,
                FILES_BASE + options.count * FILES_EACH
            )
        })?;
        tracing::info!("engine {} ({}) works", engine.number(), engine.uuid());
        engines.push(engine);
    }
    let stoppers: Vec<EngineStopper> = engines.iter().map(EngineHandle::stopper).collect();
    // Sleeps until a signal or the end of the process.
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        if std::io::Read::read_exact(&mut &signal_out, &mut [0]).is_ok() {
            stoppers.iter().for_each(EngineStopper::stop);
        }
    })?;
    // All of them, whatever became of the first.
    let ends: Vec<_> = engines.into_iter().map(EngineHandle::join).collect();
    ends.into_iter().collect::<Result<(), _>>()?;
    Ok(ExitCode::SUCCESS)
}
