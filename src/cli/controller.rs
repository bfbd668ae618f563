//! `pointsman controller`: takes ipcontroller's place.

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use pointsman_policies::Registry;
use signal_hook::consts::{SIGABRT, SIGHUP, SIGINT, SIGTERM};

use super::{failed, forward};
use crate::config::{Arguments, Config, ConfigError, Special, read_arguments};
use crate::controller::{Controller, Ending, PolicyDesk};

/// The version of ipyparallel whose behaviour this controller follows, which is what launchers ask for.
const FOLLOWS_IPYPARALLEL: &str = "9.2.0";

const HELP: &str = "\
Usage: pointsman controller [OPTIONS]

Runs a controller for IPython Parallel engines and clients. Takes ipcontroller's options:

  --ip ADDRESS           listen on this address (127.0.0.1)
  --location HOST        this machine's name for peers elsewhere (its host name)
  --transport tcp|ipc    by network or by files; with ipc, --ip is a path
  --ports LIST           ports to use, such as 10101-10120,10200
  --ssh, --enginessh     user@host through which clients, engines reach it
  --ping MS              time between heartbeats (3000)
  --scheme SCHEME        which engine gets a task: NAME or NAME[key=value,...]; see pointsman schemes
  --hwm N                most tasks in flight on an engine, 0 for no limit (1); or --admission POLICY
  --order ORDER, --rebalance POLICY
                         which task goes next (fifo), and whether it is left where it was sent (none)
  --shadow SCHEME        a scheme that decides without acting, to be compared; any number of them
  --log-decisions N      keep the last N decisions with their reasons, for pointsman explain
  --seed N               of all random choices
  --profile NAME, --profile-dir DIR, --ipython-dir DIR, --cluster-id ID
                         where connection files go and what they are called
  --dictdb, --sqlitedb, --mongodb, --nodb
                         task records in memory, in SQLite, in MongoDB (builds with that feature), nowhere
  --reuse                keep the connection files, and take addresses and key from them
  --restore              --reuse, and take over the engines and unfinished tasks of the controller before
  --enable-curve         encrypt everything (builds with libsodium)
  --allow-plaintext      listen for other machines without that: signed, but readable on the way
  --allow-dask           let clients start a Dask scheduler (Client.become_dask)
  --monitor-url URL      where copies of all traffic can be watched, such as tcp://127.0.0.1:10555 (nowhere)
  --max-message-bytes N  largest frame that a peer may send (2 GiB)
  --no-secure, --secure  without a key, with a new one
  --ident, --user, --keyfile
                         session id, user name, file with the key
  --config FILE          a config file more: .toml, .py or .json
  --log-level LEVEL, --debug, --quiet, --log-to-file
  --log-url URL          publish log lines to who listens there: an iplogger, or any SUB socket that is bound (off)
  --work-dir DIR         change to this folder first
  --Class.trait=VALUE    any of ipcontroller's traits
  --show-config, --show-config-json, --init, --version, --help

It reads ipcontroller_config.py (plain `c.Class.trait = literal` lines), ipcontroller_config.json and pointsman.toml of its
profile. Options of this program's own are in pointsman.toml; --init writes one with all defaults.
";

/// Runs a controller until it is asked to stop.
pub(super) fn run(arguments: &[String], registry: &Arc<Registry>) -> ExitCode {
    let read = match read_arguments(arguments, &|name| std::env::var_os(name)) {
        Ok(read) => read,
        Err(error @ ConfigError::Option(_)) => {
            eprintln!("pointsman: {error}");
            return ExitCode::from(2);
        }
        Err(error) => return failed(&error.into()),
    };
    let outcome = match read.special {
        Some(special) => show(special, &read.config),
        None => serve(&read, arguments, registry),
    };
    outcome.unwrap_or_else(|error| failed(&error))
}

fn show(special: Special, config: &Config) -> anyhow::Result<ExitCode> {
    match special {
        Special::Help => print!("{HELP}"),
        Special::Version => println!("{FOLLOWS_IPYPARALLEL}"),
        Special::ShowConfig => print!("{}", toml::to_string(config)?),
        Special::ShowConfigJson => println!("{:#}", serde_json::to_value(config)?),
        Special::Init => {
            let profile = config.controller.profile_dir.clone().unwrap_or_default();
            let path = profile.join("pointsman.toml");
            if path.exists() {
                anyhow::bail!("{} is there already", path.display());
            }
            std::fs::create_dir_all(&profile)?;
            let mut plain = Config::default();
            plain.policy.set_hwm(1);
            std::fs::write(&path, toml::to_string(&plain)?)?;
            println!("wrote {}", path.display());
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn serve(read: &Arguments, arguments: &[String], registry: &Arc<Registry>) -> anyhow::Result<ExitCode> {
    let config = &read.config;
    if let Some(folder) = &config.controller.work_dir {
        std::env::set_current_dir(folder).with_context(|| format!("--work-dir {}", folder.display()))?;
    }
    start_log(config)?;
    if let Some(url) = &config.log.url {
        forward::start("controller", url)?;
    }
    for warning in &read.warnings {
        tracing::warn!("{warning}");
    }
    // Before anything starts, so that a signal at any time leads to an orderly end.
    let (signal_in, signal_out) = UnixStream::pair()?;
    for signal in [SIGINT, SIGTERM, SIGABRT] {
        signal_hook::low_level::pipe::register(signal, signal_in.try_clone()?)?;
    }
    let (reload_in, reload_out) = UnixStream::pair()?;
    signal_hook::low_level::pipe::register(SIGHUP, reload_in)?;
    let controller = Controller::start(config, registry)?;
    let stopper = controller.stopper();
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        let mut byte = [0; 1];
        if std::io::Read::read_exact(&mut &signal_out, &mut byte).is_ok() {
            tracing::info!("stopping on a signal");
            stopper.stop();
        }
    })?;
    let (desk, arguments, started) = (controller.policies(), arguments.to_vec(), config.clone());
    std::thread::Builder::new().name("reload".into()).spawn(move || {
        let mut byte = [0; 1];
        while std::io::Read::read_exact(&mut &reload_out, &mut byte).is_ok() {
            reload(&desk, &arguments, &started);
        }
    })?;
    let ending = controller.wait();
    let _ = std::io::stderr().flush();
    // Threads that did not stop in time must not keep the process.
    match ending {
        Ending::Asked => {
            tracing::info!("stopped");
            forward::finish();
            std::process::exit(0)
        }
        Ending::Incomplete(reason) => {
            tracing::error!("stopped, but {reason}");
            eprintln!("pointsman: stopped, but {reason}");
            std::process::exit(1)
        }
        Ending::Died(reason) => {
            tracing::error!("a part of the controller died: {reason}");
            eprintln!("pointsman: a part of the controller died: {reason}");
            forward::finish();
            std::process::exit(1)
        }
    }
}

/// SIGHUP: the four policies of the files as they are now. Everything else is read at the start alone.
fn reload(desk: &PolicyDesk, arguments: &[String], started: &Config) {
    let env = |name: &str| std::env::var_os(name);
    let outcome = read_arguments(arguments, &env).map_err(anyhow::Error::from).and_then(|read| {
        let mut rest = read.config.clone();
        let four = started.policy.clone();
        rest.policy.placement = four.placement;
        (rest.policy.order, rest.policy.admission, rest.policy.rebalance) = (four.order, four.admission, four.rebalance);
        // Without a key of its own each reading makes another.
        rest.session.key = started.session.key.clone();
        if rest != *started {
            tracing::warn!(
                "settings other than the four policies have changed: they take effect when the controller is started again"
            );
        }
        desk.reload(&read.config.policy)
    });
    match outcome {
        Ok(true) => {}
        Ok(false) => tracing::info!("reloaded: the policies are as they were"),
        Err(error) => tracing::error!("not reloaded, the policies stay: {error:#}"),
    }
}

/// Log lines to standard error or the profile's folder. `RUST_LOG` has the last word, for those who debug.
fn start_log(config: &Config) -> anyhow::Result<()> {
    use tracing_subscriber::{EnvFilter, prelude::*};
    let filter = match std::env::var("RUST_LOG") {
        Ok(filter) if !filter.is_empty() => EnvFilter::try_new(filter).context("RUST_LOG")?,
        _ => EnvFilter::try_new(&config.log.level).context("log.level")?,
    };
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_target(false).with_ansi(false);
    if !config.log.to_file {
        lines.with_writer(std::io::stderr).finish().with(forward::Forward).init();
        return Ok(());
    }
    let folder = config.controller.profile_dir.clone().unwrap_or_default().join("log");
    std::fs::create_dir_all(&folder)?;
    let id = config.controller.cluster_id.as_deref().unwrap_or_default();
    let path = folder.join(format!("ipcontroller-{id}-{}.log", std::process::id()));
    let file = std::fs::File::create(&path).with_context(|| path.display().to_string())?;
    lines.with_writer(std::sync::Mutex::new(file)).finish().with(forward::Forward).init();
    Ok(())
}
