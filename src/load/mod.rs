//! Load against a running controller: engines and clients that speak the wire themselves, so that what is measured is the controller.
//! Works with Pointsman's own and with ipyparallel's, on this machine; it never reads the controller's mind, only its sockets and `/proc`.

mod alarm;
mod clients;
mod compare;
mod farm;
mod link;
mod live;
mod plan;
mod report;
mod speaker;
mod sweep;
mod target;
mod task;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use pointsman_core::net::Clock;
use pointsman_core::peer::Client;
use procfs::CurrentSI as _;

pub use compare::compare;
pub use live::{Live, check_live, run_live, run_point_live};
pub use plan::{After, Arrivals, Durations, Plan};
pub use report::{Latency, LeftBehind, MOST_DRIFT, Machine, Ran, Report, Round};
pub use sweep::{Factor, Sweep, Vary, curves};

use clients::{Clients, Pace};
use farm::Farm;
use target::{Target, Usage};

/// Which controller.
#[derive(Clone, Debug)]
pub enum Which {
    /// One that runs, by its connection files.
    Running {
        /// The one for clients.
        client_file: PathBuf,
        /// The one for engines; beside it unless given.
        engine_file: Option<PathBuf>,
    },
    /// This program's own, with these options.
    Own(Vec<String>),
    /// Whatever this command starts. It finds its profile in `IPP_PROFILE_DIR`.
    Command(Vec<String>),
}

/// How long engines may take to be known.
const JOIN_WITHIN: Duration = Duration::from_secs(300);
/// Beyond so many engines their connections for heartbeats are closed, as the files that a process may open are few.
const HEARTS_UP_TO: usize = 2000;
/// Tasks under way while a closed loop finds out what the most is, and while a history is made.
const SATURATING: Pace = Pace::Closed { window: 256 };

/// Runs a load. `progress` hears what is being done and how far it is, from 0 to 1. Once `stop` is set it ends soon, and leaves as little behind as
/// if it had come to its end.
///
/// # Errors
/// If the plan can not be; if the controller does not start, has other engines than the load's, stops answering, or does not keep up with an open
/// loop; if it is stopped.
pub fn run(plan: &Plan, which: &Which, progress: &dyn Fn(&str, f64), stop: &Arc<AtomicBool>) -> anyhow::Result<Report> {
    plan.check()?;
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    progress("starting", 0.0);
    let Site { target, mut farm, first_engine } = Site::open(plan, which, progress, stop)?;
    // The stock controller's schedulers hear of engines a little later than its hub.
    std::thread::sleep(Duration::from_millis(500));
    let before = target.usage()?;
    std::thread::sleep(Duration::from_secs(1));
    let idle = target.usage()?;

    let mut clients = Clients::connect(&target.client, plan, stop)?;
    if plan.blocked > 0 {
        let uuid = farm.uuids().first().context("an engine")?.clone();
        clients.block(&uuid, &|n| progress("submitting blocked tasks", n as f64 / plan.blocked as f64))?;
    }
    let forever = Duration::from_secs(100_000_000);
    if plan.history > 0 {
        let mut left = plan.history;
        while left > 0 {
            let piece = left.min(20_000);
            clients.drive(SATURATING, forever, piece, || farm.check())?;
            left -= piece;
            progress("making history", 1.0 - left as f64 / plan.history as f64);
        }
        clients.drain()?;
    }
    let loaded = target.usage()?;

    progress("warming up", 0.0);
    let mut saturation_per_s = None;
    let warm = |clients: &mut Clients, farm: &mut Farm, pace, seconds: f64| {
        let until = clients.now() + Duration::from_secs_f64(seconds);
        clients.drive(pace, until, u64::MAX, || farm.check())
    };
    let pace = match plan.arrivals {
        Arrivals::Load(share) => {
            warm(&mut clients, &mut farm, SATURATING, plan.warmup_s)?;
            clients.take_seen()?;
            let from = clients.now();
            warm(&mut clients, &mut farm, SATURATING, plan.round_s)?;
            let rate = clients.take_seen()?.done as f64 / (clients.now() - from).as_secs_f64();
            clients.drain()?;
            saturation_per_s = Some(rate);
            Pace::Open { rate: rate * share }
        }
        Arrivals::Window(window) => Pace::Closed { window },
        Arrivals::Rate(rate) => Pace::Open { rate },
    };
    warm(&mut clients, &mut farm, pace, plan.warmup_s)?;
    clients.take_seen()?;
    let mut rounds = Vec::new();
    let mut used = target.usage()?;
    let mut stolen_before = stolen_s();
    let mut from = clients.now();
    for n in 0..plan.rounds {
        progress("measuring", n as f64 / plan.rounds as f64);
        clients.drive(pace, from + Duration::from_secs_f64(plan.round_s), u64::MAX, || farm.check())?;
        let (now, usage, seen) = (clients.now(), target.usage()?, clients.take_seen()?);
        let (seconds, stolen) = ((now - from).as_secs_f64(), stolen_s());
        let mut round = round(&used, &usage, &seen, seconds);
        round.stolen = (stolen - stolen_before) / (seconds * std::thread::available_parallelism().map_or(1, usize::from) as f64);
        stolen_before = stolen;
        rounds.push(round);
        (used, from) = (usage, now);
    }
    progress("ending", 1.0);
    clients.drain()?;
    let mut ran = Ran::default();
    rounds.iter().for_each(|round: &Round| ran.and(round.ran));
    Ok(Report {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        date: Clock::date().to_string(),
        machine: Machine::this(),
        controller: target.name.clone(),
        start_s: target.start_s,
        plan: plan.clone(),
        saturation_per_s,
        idle_rss_bytes: idle.rss_bytes,
        idle_cores: idle.cpu_s - before.cpu_s,
        loaded_rss_bytes: loaded.rss_bytes,
        is_marked: ran.drift().abs() > MOST_DRIFT,
        left_behind: (!target.is_own()).then(|| LeftBehind {
            tasks: clients.submitted(),
            first_engine,
            engines: farm.uuids().len(),
        }),
        rounds,
    })
}

/// Seconds of all cores that the host has given to others since it started.
fn stolen_s() -> f64 {
    let stat = procfs::KernelStats::current().ok();
    stat.and_then(|stat| stat.total.steal).map_or(0.0, |ticks| ticks as f64 / procfs::ticks_per_second() as f64)
}

/// A controller with the load's engines.
struct Site {
    /// Goes before the controller does.
    farm: Farm,
    target: Target,
    /// The lowest number of the load's engines.
    first_engine: u64,
}

impl Site {
    /// Starts or finds the controller, brings the engines, and waits until they are known.
    fn open(plan: &Plan, which: &Which, progress: &dyn Fn(&str, f64), stop: &Arc<AtomicBool>) -> anyhow::Result<Site> {
        let target = match which {
            Which::Running { client_file, engine_file } => Target::find(client_file, engine_file.as_deref())?,
            Which::Command(command) => Target::start(command, stop)?,
            Which::Own(options) => {
                let mut command = vec![target::this_program()?, "controller".into(), "--log-level=40".into()];
                // Engines are known at the first ping; and beyond a number they answer no second one.
                if !options.iter().any(|option| option.starts_with("--ping")) {
                    command.push(format!("--ping={}", if plan.engines > HEARTS_UP_TO { 60_000 } else { 500 }));
                }
                command.extend(options.iter().cloned());
                Target::start(&command, stop)?
            }
        };
        if !target.is_own() && plan.engines > HEARTS_UP_TO {
            bail!("more than {HEARTS_UP_TO} engines do not answer pings: only for a controller that the load starts itself");
        }
        let context = zmq::Context::new();
        let mut asking = Client::connect(&context, &target.client, Duration::from_secs(60))?;
        let others = asking.engines()?.len();
        if others > 0 {
            bail!(
                "the controller has {others} engine(s), which would not understand the load's tasks: stop them, or name a controller without any, such as one that `pointsman controller --profile-dir=FOLDER` starts"
            );
        }
        // One engine more has a place taken by the task for which the blocked ones wait.
        let engines = plan.engines + usize::from(plan.blocked > 0);
        let mut farm = Farm::start(&target.engine, engines, plan.result_bytes, plan.engines <= HEARTS_UP_TO)?;
        let clock = Clock::default();
        loop {
            farm.check()?;
            if stop.load(Ordering::Relaxed) {
                bail!("interrupted");
            }
            let known = match asking.wait_for_engines(engines, Duration::from_millis(500)) {
                Ok(()) => break,
                Err(_) => asking.engines()?.len(),
            };
            progress("engines join", known as f64 / engines as f64);
            if clock.now() > JOIN_WITHIN {
                bail!("only {known} of {engines} engines are known after {JOIN_WITHIN:?}");
            }
        }
        let first_engine = asking.engines()?.keys().min().copied().unwrap_or(0);
        Ok(Site { farm, target, first_engine })
    }
}

fn round(before: &Usage, after: &Usage, seen: &clients::Seen, seconds: f64) -> Round {
    let answered = (seen.done + seen.failed).max(1) as f64;
    let us_per_task = |cpu_s: f64| cpu_s * 1e6 / answered;
    let threads = after.threads.iter().map(|(name, cpu_s)| (name, us_per_task(cpu_s - before.threads.get(name).unwrap_or(&0.0))));
    let of_process = |(pid, cpu_s): (&i32, &f64)| us_per_task(cpu_s - before.by_process.get(pid).unwrap_or(&0.0));
    let mut processes: Vec<f64> = after.by_process.iter().map(of_process).collect();
    processes.sort_by(|a, b| b.total_cmp(a));
    Round {
        seconds,
        done: seen.done,
        failed: seen.failed,
        tasks_per_s: (seen.done + seen.failed) as f64 / seconds,
        cpu_us_per_task: us_per_task(after.cpu_s - before.cpu_s),
        threads_us_per_task: threads.filter(|(_, us)| *us > 0.05).map(|(name, us)| (name.clone(), us)).collect(),
        processes_us_per_task: processes,
        rss_bytes: after.rss_bytes,
        stolen: 0.0,
        processes: after.processes,
        latency_us: Latency::from(&seen.latency_us),
        ran: seen.ran,
    }
}
