//! The controller under load: found by its connection files or started for the occasion, and what its processes use.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use pointsman_core::Packer;
use pointsman_core::connection_file::{ClientFile, EngineFile};
use pointsman_core::net::Clock;
use pointsman_core::net::files::read_json;
use procfs::process::{FDTarget, Process};

/// How long a controller may take to start.
const START_WITHIN: Duration = Duration::from_secs(60);

/// A controller.
pub(super) struct Target {
    /// What clients are told.
    pub(super) client: ClientFile,
    /// What engines are told.
    pub(super) engine: EngineFile,
    /// What it was started with, or where it was found.
    pub(super) name: String,
    /// Seconds from its start to its connection files, if it was started here.
    pub(super) start_s: Option<f64>,
    root: i32,
    own: Option<Own>,
}

/// Ends with us.
struct Own {
    child: Child,
    _folder: tempfile::TempDir,
}

impl Drop for Own {
    fn drop(&mut self) {
        // Asked politely first: the stock controller leaves its children behind otherwise.
        if let Ok(pid) = rustix::process::Pid::from_raw(self.child.id() as i32).ok_or(()) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let clock = Clock::default();
        while clock.now() < Duration::from_secs(5) {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A load writes and reads JSON, as nothing else is compared.
fn check_packer(client: &ClientFile) -> anyhow::Result<()> {
    match Packer::of_name(&client.common.pack) {
        Ok(Packer::Json) => Ok(()),
        _ => bail!(
            "the controller's messages are packed by {}: measure one that uses json, without Session.packer",
            client.common.pack
        ),
    }
}

impl Target {
    /// A controller that runs on this machine already.
    pub(super) fn find(client_path: &Path, engine_path: Option<&Path>) -> anyhow::Result<Target> {
        let beside = client_path.with_file_name(
            client_path.file_name().and_then(|name| name.to_str()).unwrap_or_default().replace("-client", "-engine"),
        );
        let client: ClientFile = read_json(client_path).with_context(|| client_path.display().to_string())?;
        let engine_path = engine_path.unwrap_or(&beside);
        let engine: EngineFile =
            read_json(engine_path).with_context(|| format!("{}: name it with --engine-file", engine_path.display()))?;
        check_packer(&client)?;
        let root = listener(client.common.registration)?;
        Ok(Target { client, engine, name: client_path.display().to_string(), start_s: None, root, own: None })
    }

    /// Starts one in a profile of its own, which goes with it.
    pub(super) fn start(command: &[String], stop: &AtomicBool) -> anyhow::Result<Target> {
        let folder = tempfile::tempdir()?;
        let [program, arguments @ ..] = command else { bail!("an empty command starts nothing") };
        let clock = Clock::default();
        let child = Command::new(program)
            .args(arguments)
            .env("IPP_PROFILE_DIR", folder.path())
            .env("IPYTHONDIR", folder.path())
            // A Ctrl-C is ours alone, and we end it in our turn.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(folder.path().join("stderr"))?)
            .spawn()
            .with_context(|| program.clone())?;
        let mut own = Own { child, _folder: folder };
        let security = own._folder.path().join("security");
        let paths = ["client", "engine"].map(|role| security.join(format!("ipcontroller-{role}.json")));
        // The client's file is the last that either controller writes.
        let files = loop {
            if let (Ok(client), Ok(engine)) = (read_json::<ClientFile>(&paths[0]), read_json::<EngineFile>(&paths[1])) {
                break (client, engine);
            }
            if let Some(status) = own.child.try_wait()? {
                bail!("the controller ended ({status}): {}", last_words(own._folder.path()));
            }
            if stop.load(Ordering::Relaxed) {
                bail!("interrupted");
            }
            if clock.now() > START_WITHIN {
                bail!("the controller has written no connection files: {}", last_words(own._folder.path()));
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        let start_s = Some(clock.now().as_secs_f64());
        check_packer(&files.0)?;
        // The stock controller writes its files before all its processes listen.
        let (client, engine) = &files;
        let ports = [client.common.task, client.common.registration, engine.common.task, engine.hb_ping, engine.hb_pong];
        for port in ports {
            let to = super::link::address(&engine.common, port)?;
            while let Err(error) = std::net::TcpStream::connect(to) {
                if clock.now() > START_WITHIN || stop.load(Ordering::Relaxed) {
                    return Err(error).with_context(|| format!("nobody listens on port {port}"));
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        let (client, engine) = files;
        Ok(Target { client, engine, name: command.join(" "), start_s, root: own.child.id() as i32, own: Some(own) })
    }

    /// Whether it was started here, so that nobody else uses it.
    pub(super) fn is_own(&self) -> bool {
        self.own.is_some()
    }

    /// What its processes have used so far.
    pub(super) fn usage(&self) -> anyhow::Result<Usage> {
        let mut usage = Usage::default();
        let ticks = procfs::ticks_per_second() as f64;
        let mut parents: Vec<(i32, i32)> = Vec::new();
        for process in procfs::process::all_processes()?.flatten() {
            // A process may end between two looks at it.
            if let Ok(stat) = process.stat() {
                parents.push((stat.pid, stat.ppid));
            }
        }
        let mut tree = vec![self.root];
        let mut at = 0;
        while at < tree.len() {
            let parent = tree[at];
            tree.extend(parents.iter().filter(|(_, its)| *its == parent).map(|(pid, _)| *pid));
            at += 1;
        }
        for pid in tree {
            let Ok(process) = Process::new(pid) else { continue };
            let Ok(stat) = process.stat() else { continue };
            usage.processes += 1;
            let cpu_s = (stat.utime + stat.stime) as f64 / ticks;
            usage.cpu_s += cpu_s;
            usage.by_process.insert(pid, cpu_s);
            usage.rss_bytes += stat.rss * procfs::page_size();
            for task in process.tasks().into_iter().flatten().flatten() {
                let Ok(stat) = task.stat() else { continue };
                *usage.threads.entry(stat.comm).or_default() += (stat.utime + stat.stime) as f64 / ticks;
            }
        }
        if usage.processes == 0 {
            bail!("the controller has ended");
        }
        Ok(usage)
    }
}

fn last_words(folder: &Path) -> String {
    let text = std::fs::read_to_string(folder.join("stderr")).unwrap_or_default();
    text.lines().rev().take(5).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n")
}

/// The process that listens on a port of this machine.
fn listener(port: u16) -> anyhow::Result<i32> {
    let is_it =
        |entry: &procfs::net::TcpNetEntry| entry.local_address.port() == port && entry.state == procfs::net::TcpState::Listen;
    let sockets = procfs::net::tcp()?.into_iter().chain(procfs::net::tcp6().unwrap_or_default());
    let Some(inode) = sockets.filter(is_it).map(|entry| entry.inode).next() else {
        bail!("nobody listens on port {port} of this machine: the load has to run beside the controller, to see what it uses");
    };
    let holders = procfs::process::all_processes()?
        .flatten()
        .filter(|process| process.fd().into_iter().flatten().flatten().any(|fd| fd.target == FDTarget::Socket(inode)));
    // The stock controller's children inherit nothing; the lowest number is the one that was first.
    holders.map(|process| process.pid).min().context("the controller belongs to another user")
}

/// What processes have used.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Usage {
    /// How many there are.
    pub processes: usize,
    /// CPU seconds since they began.
    pub cpu_s: f64,
    /// Resident bytes.
    pub rss_bytes: u64,
    /// The same of each, by its number.
    pub by_process: BTreeMap<i32, f64>,
    /// CPU seconds of threads of the same name.
    pub threads: BTreeMap<String, f64>,
}

/// The path of this program.
pub(super) fn this_program() -> anyhow::Result<String> {
    let path: PathBuf = std::env::current_exe()?;
    path.into_os_string().into_string().ok().context("this program's path is not text")
}
