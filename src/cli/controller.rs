//! `pointsman controller`: takes ipcontroller's place.

use std::io::IsTerminal as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use pointsman_core::net::{Clock, Tally};
use pointsman_policies::Registry;
use rustix::event::{PollFd, PollFlags, poll};
use signal_hook::consts::{SIGABRT, SIGHUP, SIGINT, SIGTERM};

use super::{failed, forward, log_to};
use crate::config::{Arguments, Config, ConfigError, Special, read_arguments};
use crate::controller::{Controller, Ending, PolicyDesk};
use crate::output;

/// The version of ipyparallel whose behaviour this controller follows, which is what launchers ask for.
const FOLLOWS_IPYPARALLEL: &str = "9.2.0";

const HELP: &str = "\
Usage: pointsman controller [OPTIONS]

Runs a controller for IPython Parallel engines and clients. Takes ipcontroller's options; one that nobody knows is refused with the nearest:

  --ip ADDRESS           listen on this address (127.0.0.1)
  --location HOST        this machine's name for peers elsewhere (its host name)
  --transport tcp|ipc    by network or by files; with ipc, --ip is a path
  --ports LIST           ports to use, such as 10101-10120,10200
  --ssh, --enginessh     user@host through which clients, engines reach it
  --ping MS              time between heartbeats (3000)
  --placement PLACEMENT  which engine gets a task (leastload): NAME or NAME[key=value,...], see pointsman schemes;
                         ipcontroller's --scheme is the same
  --hwm N                most tasks in flight on an engine, 0 for no limit (1); or --admission POLICY
  --order ORDER, --rebalance POLICY
                         which task goes next (fifo), and whether it is left where it was sent (none)
  --shadow PLACEMENT     a placement that decides without acting, to be compared; any number of them
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
                         --version says which ipyparallel is followed, and on a terminal this program's own

It reads ipcontroller_config.py (`c.Class.trait = literal` at its top level), ipcontroller_config.json and pointsman.toml of its
profile. Options of this program's own are in pointsman.toml; --init writes one with all defaults.
SIGHUP reads the policies again; SIGINT and SIGTERM end it. One controller serves a profile and cluster id: see pointsman list.
";

/// What `pointsman help controller` shows.
pub(super) const fn help() -> &'static str {
    HELP
}

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
        Special::Version => {
            // Launchers compare all of the output with a version of ipyparallel: more is for eyes only.
            println!("{FOLLOWS_IPYPARALLEL}");
            if std::io::stdout().is_terminal() {
                println!("pointsman {}", super::VERSION);
            }
        }
        Special::ShowConfig => print!("{}", toml::to_string(config)?),
        Special::ShowConfigJson => println!("{:#}", serde_json::to_value(config)?),
        Special::Init => {
            let profile = config.controller.profile_dir.clone().unwrap_or_default();
            let path = profile.join("pointsman.toml");
            if path.exists() {
                anyhow::bail!("{} is there already", path.display());
            }
            std::fs::create_dir_all(&profile).with_context(|| format!("profile folder {}", profile.display()))?;
            let mut plain = Config::default();
            plain.policy.set_hwm(1);
            std::fs::write(&path, toml::to_string(&plain)?).with_context(|| path.display().to_string())?;
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
    let tally = Tally::default();
    output::count_lost_in(tally.counter("log", "line lost"));
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
    let mut terminal = Terminal::of_this_process();
    let controller = Controller::start_counting(config, registry, tally)?;
    let stopper = controller.stopper();
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        let mut byte = [0; 1];
        if std::io::Read::read_exact(&mut &signal_out, &mut byte).is_ok() {
            tracing::info!("stopping on a signal");
            stopper.stop();
        }
    })?;
    let (desk, arguments, started) = (controller.policies(), arguments.to_vec(), config.clone());
    let registry = registry.clone();
    std::thread::Builder::new().name("reload".into()).spawn(move || {
        let mut byte = [0; 1];
        while std::io::Read::read_exact(&mut &reload_out, &mut byte).is_ok() {
            if terminal.has_just_closed() {
                tracing::info!("the terminal was closed: the controller goes on without it");
            } else {
                reload(&desk, &arguments, &started, &registry);
            }
        }
    })?;
    let ending = controller.wait();
    // Threads that did not stop in time must not keep the process.
    match ending {
        Ending::Asked => {
            tracing::info!("stopped");
            forward::finish();
            output::flush();
            std::process::exit(0)
        }
        Ending::Incomplete(reason) => {
            tracing::error!("stopped, but {reason}");
            eprintln!("pointsman: stopped, but {reason}");
            forward::finish();
            output::flush();
            std::process::exit(1)
        }
        Ending::Died(reason) => {
            tracing::error!("a part of the controller died: {reason}");
            eprintln!("pointsman: a part of the controller died: {reason}");
            forward::finish();
            output::flush();
            std::process::exit(1)
        }
    }
}

/// The terminal that a process was started from. Its end sends SIGHUP, which must not be taken for a wish to reload.
struct Terminal {
    stream: Option<OwnedFd>,
    closed_at: Option<std::time::Duration>,
    clock: Clock,
}

/// How long after its end a terminal's signals may come: the kernel sends one, and so may the shell.
const HANGUPS: std::time::Duration = std::time::Duration::from_secs(5);

impl Terminal {
    fn of_this_process() -> Self {
        let (input, output, errors) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
        let streams = [
            (input.is_terminal(), input.as_fd()),
            (output.is_terminal(), output.as_fd()),
            (errors.is_terminal(), errors.as_fd()),
        ];
        let stream = streams.into_iter().find(|(is_terminal, _)| *is_terminal).and_then(|(_, fd)| fd.try_clone_to_owned().ok());
        Terminal { stream, closed_at: None, clock: Clock::default() }
    }

    /// Whether the terminal has closed, as far as a signal of this moment tells of it.
    fn has_just_closed(&mut self) -> bool {
        let Some(stream) = &self.stream else { return false };
        let mut asked = [PollFd::new(stream, PollFlags::empty())];
        let zero = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        let is_closed = poll(&mut asked, Some(&zero)).is_ok() && asked[0].revents().intersects(PollFlags::HUP | PollFlags::ERR);
        is_closed && self.clock.now() < *self.closed_at.get_or_insert(self.clock.now()) + HANGUPS
    }
}

/// SIGHUP: the four policies of the files as they are now. Everything else is read at the start alone.
fn reload(desk: &PolicyDesk, arguments: &[String], started: &Config, registry: &Registry) {
    let env = |name: &str| std::env::var_os(name);
    let outcome = read_arguments(arguments, &env).map_err(anyhow::Error::from).and_then(|read| {
        read.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        let mut rest = read.config.clone();
        let four = started.policy.clone();
        rest.policy.placement = four.placement;
        (rest.policy.order, rest.policy.admission, rest.policy.rebalance) = (four.order, four.admission, four.rebalance);
        // Without a key of its own each reading makes another.
        rest.session.key = started.session.key.clone();
        let others = started.differences(&rest);
        if !others.is_empty() {
            let names = others.join(", ");
            tracing::warn!(
                "settings other than the four policies have changed, and take effect when the controller is started again: {names}"
            );
        }
        let is_changed = desk.reload(&read.config.policy)?;
        for doubt in read.config.policy.resolve(registry)?.doubts(registry).iter().filter(|_| is_changed) {
            tracing::warn!("{doubt}");
        }
        Ok(is_changed)
    });
    match outcome {
        Ok(true) => {}
        Ok(false) => tracing::info!("reloaded: the policies are as they were"),
        Err(error) => tracing::error!("not reloaded, the policies stay: {error:#}"),
    }
}

/// Log lines to standard error or the profile's folder. `RUST_LOG` has the last word, for those who debug.
fn start_log(config: &Config) -> anyhow::Result<()> {
    use tracing_subscriber::EnvFilter;
    let filter = match std::env::var("RUST_LOG") {
        Ok(filter) if !filter.is_empty() => EnvFilter::try_new(filter).context("RUST_LOG")?,
        _ => EnvFilter::try_new(&config.log.level).context("log.level")?,
    };
    if !config.log.to_file {
        log_to(filter, output::stderr().context("no thread can be had for log lines")?.clone());
        return Ok(());
    }
    let folder = config.controller.profile_dir.clone().unwrap_or_default().join("log");
    std::fs::create_dir_all(&folder).with_context(|| format!("log folder {}", folder.display()))?;
    let id = config.controller.cluster_id.as_deref().unwrap_or_default();
    let path = folder.join(format!("ipcontroller-{id}-{}.log", std::process::id()));
    let file = std::fs::File::create(&path).with_context(|| path.display().to_string())?;
    log_to(filter, output::to_file(file)?);
    Ok(())
}
