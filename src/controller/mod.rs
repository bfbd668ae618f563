//! A controller assembled: sockets bound, machines on their threads, connection files written last, and everything taken down again.
//! If any part dies the whole process ends with a reason: there is no half-alive controller.

mod curve;
mod dask;
pub(crate) mod lock;
mod open_files;
mod policies;
mod ports;
pub(crate) mod reach;
mod supervise;
mod taps;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use pointsman_core::connection_file::{ClientFile, Common, EngineFile, to_text};
use pointsman_core::db::{MemoryDb, NoDb, SqliteDb, TaskDb};
use pointsman_core::hub::driver::{self as hub_driver, HubInput, HubSockets, Outlet, Records};
use pointsman_core::hub::{DaskOrder, EnginesState, Hub, HubConfig};
use pointsman_core::net::files::{RemoveOnDrop, read_json, write_atomically};
use pointsman_core::net::{Mailbox, Outbox, Tally, fresh_id};
use pointsman_core::relay::{Command, NoTap, Pairing, Relay};
use pointsman_core::{Multipart, Session, Signer};
use pointsman_policies::{Axis, Registry, Time};
use pointsman_schedulers::broadcast::Broadcast;
use pointsman_schedulers::live::{
    BroadcastInput, BroadcastSockets, TaskInput, TaskOptions, TaskSockets, run_broadcast, run_tasks,
};
use pointsman_schedulers::task::{Limits, TaskScheduler};

use crate::config::{Config, Store, Transport};
use curve::{CurveServer, Gate};
use dask::{DaskInput, DaskKeeper, Reach};
use lock::{Held, ProfileLock};
pub(crate) use policies::PolicyDesk;
use ports::{Binder, Side};
use reach::Contact;
use supervise::Crew;
pub use supervise::{Ending, Stopper};
pub use taps::HubTap;

/// What may wait for the hub: beyond it, records are lost and counted, and tasks flow on.
const HUB_BACKLOG: (usize, usize) = (4_000_000, 1 << 30);
/// News of engines for the schedulers; bounded by engines that come and go between two turns of a loop.
const NEWS_BACKLOG: (usize, usize) = (1_000_000, 1 << 30);

/// Where the task scheduler finds the control relay.
const CONTROL_INSIDE: &str = "inproc://control";

/// Decisions that may wait to be written.
const DECISION_BACKLOG: usize = 65_536;

/// A running controller.
pub struct Controller {
    crew: Crew,
    files: RemoveOnDrop,
    client_path: PathBuf,
    engine_path: PathBuf,
    client_file: ClientFile,
    engine_file: EngineFile,
    context: zmq::Context,
    policies: Arc<PolicyDesk>,
    tally: Tally,
    lock: ProfileLock,
}

impl Controller {
    /// Binds, starts, and writes the connection files when everything listens.
    ///
    /// # Errors
    /// If the configuration can not be followed, another controller serves the profile, or an address can not be had; nothing is left
    /// behind then.
    pub fn start(config: &Config, registry: &Arc<Registry>) -> anyhow::Result<Controller> {
        Controller::start_counting(config, registry, Tally::default())
    }

    /// The same with counters that are in use already.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_counting(config: &Config, registry: &Arc<Registry>, tally: Tally) -> anyhow::Result<Controller> {
        config.check()?;
        let policies = config.policy.resolve(registry)?;
        let scheme = registry.build(&policies.placement)?;
        let others = [Axis::Order, Axis::Admission, Axis::Rebalance];
        let others = others.map(|axis| policies::build(registry, axis, policies.on(axis)));
        let others = others.into_iter().collect::<Result<Vec<_>, _>>()?;
        let shadows = policies::build_shadows(registry, &config.policy.shadow)?;
        let seed = config.policy.seed.unwrap_or_else(|| u64::from_str_radix(&fresh_id()[..8], 16).unwrap_or(0));
        tracing::info!("policies: {policies}, seed {seed} ({})", pointsman_policies::Rng::NAME);
        for doubt in policies.doubts(registry) {
            tracing::warn!("{doubt}");
        }

        let room_for_engines = open_files::raise_limit();
        let security = prepare_profile(config)?;
        let (client_path, engine_path) = file_paths(config, &security);
        // Whoever restores, reuses.
        let reuse = config.controller.reuse || config.controller.restore;
        let lock = alone(config, &client_path)?;
        let former = if reuse { reusable(&client_path, &engine_path) } else { None };
        let key = match &former {
            Some((client, _)) => client.common.key.clone(),
            None => signing_key(config)?,
        };
        let signer = Signer::new(key.as_bytes());
        let username =
            config.session.username.clone().or_else(|| std::env::var("USER").ok()).unwrap_or_else(|| "username".into());
        let session = |id: String| Session::new(signer.clone(), id, username.clone(), std::process::id());

        let context = zmq::Context::new();
        let curve_keys = curve::key_file(&security, config.controller.cluster_id.as_deref());
        let curve = CurveServer::new(&config.curve, &curve_keys)?;
        // Encryption is the I/O threads' work, and most of it.
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        context.set_io_threads(if curve.is_some() || cores >= 4 { 2 } else { 1 })?;
        let gate = Gate::new(&context, &config.curve)?;
        // What peers have to know besides addresses and key.
        let server_key = curve.as_ref().map(|curve| curve.public_key().to_owned());
        let is_other_key = former.as_ref().is_some_and(|(client, engine)| {
            client.common.curve_serverkey != server_key || engine.common.curve_serverkey != server_key
        });
        if is_other_key {
            tracing::warn!(
                "the connection files to be reused have another CURVE key, or none: they are written anew, and peers need the new ones"
            );
        }
        let mut binder = Binder::new(&context, config, former.as_ref(), curve.as_ref())?;
        let query_clients = binder.bind(Side::Shared, "registration", zmq::ROUTER)?;
        let query_engines = binder.bind_registration_for_engines(query_clients.1)?;
        let control_out = binder.bind(Side::Engine, "control", zmq::ROUTER)?;
        let mux_out = binder.bind(Side::Engine, "mux", zmq::ROUTER)?;
        let task_out = binder.bind(Side::Engine, "task", zmq::ROUTER)?;
        let iopub_in = binder.bind(Side::Engine, "iopub", zmq::SUB)?;
        let ping = binder.bind(Side::Engine, "hb_ping", zmq::PUB)?;
        let pong = binder.bind(Side::Engine, "hb_pong", zmq::ROUTER)?;
        let tree = Broadcast::new(session(fresh_id()), config.broadcast.depth);
        let leaves =
            (0..tree.leaves()).map(|_| binder.bind(Side::Engine, "broadcast", zmq::ROUTER)).collect::<Result<Vec<_>, _>>()?;
        let control_in = binder.bind(Side::Client, "control", zmq::ROUTER)?;
        let mux_in = binder.bind(Side::Client, "mux", zmq::ROUTER)?;
        let task_in = binder.bind(Side::Client, "task", zmq::ROUTER)?;
        let iopub_out = binder.bind(Side::Client, "iopub", zmq::PUB)?;
        let notifications = binder.bind(Side::Client, "notification", zmq::XPUB)?;
        let broadcast_root = binder.bind(Side::Client, "broadcast", zmq::ROUTER)?;
        binder.say_if_too_few();
        iopub_in.0.set_subscribe(b"")?;
        // The task scheduler speaks to engines' control channel as clients do, from within this process.
        control_in.0.bind(CONTROL_INSIDE)?;
        let control = context.socket(zmq::DEALER)?;
        control.set_linger(0)?;
        control.connect(CONTROL_INSIDE)?;

        let location = match &config.controller.location {
            Some(location) => location.clone(),
            None => gethostname::gethostname().to_string_lossy().into_owned(),
        };
        let common = |interface: String, ssh: &str, ports: [u16; 5]| Common {
            ssh: ssh.to_owned(),
            interface,
            location: location.clone(),
            registration: ports[0],
            control: ports[1],
            mux: ports[2],
            task: ports[3],
            iopub: ports[4],
            key: key.clone(),
            curve_serverkey: server_key.clone(),
            pack: "json".into(),
            unpack: "json".into(),
            signature_scheme: "hmac-sha256".into(),
        };
        let registration = query_clients.1;
        let client_file = ClientFile {
            common: common(
                binder.interface(Side::Client),
                &config.controller.ssh,
                [registration, control_in.1, mux_in.1, task_in.1, iopub_out.1],
            ),
            notification: notifications.1,
            broadcast: broadcast_root.1,
            // At `pure` a client refuses dependencies, which are not refused here.
            task_scheme: match policies.placement.name() {
                "pure" => "lru".into(),
                name => name.to_owned(),
            },
        };
        let engine_ssh = Some(&config.controller.engine_ssh).filter(|ssh| !ssh.is_empty()).unwrap_or(&config.controller.ssh);
        let engine_file = EngineFile {
            common: common(
                binder.interface(Side::Engine),
                engine_ssh,
                [registration, control_out.1, mux_out.1, task_out.1, iopub_in.1],
            ),
            hb_ping: ping.1,
            hb_pong: pong.1,
            broadcast: leaves.iter().map(|leaf| leaf.1).collect(),
        };

        let hub_config = HubConfig {
            heartbeat: Duration::from_millis(config.heartbeat.period_ms.max(10)),
            max_misses: config.heartbeat.max_misses,
            registration_timeout: Duration::try_from_secs_f64(config.controller.registration_timeout_s)
                .context("controller.registration_timeout_s")?,
            grace: Duration::from_millis(config.scheduler.grace_ms),
            connection_info: match &former {
                Some((_, engine)) => serde_json::to_value(engine)?,
                None => serde_json::json!({}),
            },
            allows_dask: config.dask.allow,
            keeps_records: config.records.store != Store::None,
        };
        let limits = Limits {
            grace: Duration::from_millis(config.scheduler.grace_ms),
            queued_tasks: config.scheduler.max_queued_tasks,
            queued_bytes: config.scheduler.max_queued_bytes,
            ..Limits::default()
        };
        let records = Records { db: open_records(config)?, retention: config.records.retention.clone() };

        let keeps_records = config.records.store != Store::None;
        let mut crew = Crew::new()?;
        let (hub_outbox, hub_mailbox) = Mailbox::<HubInput>::new(HUB_BACKLOG.0, HUB_BACKLOG.1)?;
        let (tasks_outbox, tasks_mailbox) = Mailbox::<TaskInput>::new(NEWS_BACKLOG.0, NEWS_BACKLOG.1)?;
        let (tree_outbox, tree_mailbox) = Mailbox::<BroadcastInput>::new(NEWS_BACKLOG.0, NEWS_BACKLOG.1)?;

        for (name, front, back, pairing) in [
            ("mux", mux_in.0, mux_out.0, Pairing::Swap),
            ("control", control_in.0, control_out.0, Pairing::Swap),
            ("iopub", iopub_in.0, iopub_out.0, Pairing::OneWay),
        ] {
            let (outbox, commands) = Mailbox::new(64, usize::MAX)?;
            let stop = Box::new(move || {
                outbox.send_always(Command::Terminate);
            });
            if name == "control" {
                let relay = Relay::new(front, back, pairing, NoTap)?;
                crew.start(name, stop, move || Ok(relay.run(&commands)?))?;
            } else {
                let relay = Relay::new(front, back, pairing, HubTap::new(name, hub_outbox.clone(), keeps_records))?;
                crew.start(name, stop, move || Ok(relay.run(&commands)?))?;
            }
        }
        let mut scheduler = TaskScheduler::new(scheme, limits, seed);
        scheduler.change(Time::ZERO, others);
        let mut options = TaskOptions {
            tally: tally.clone(),
            log_decisions: config.policy.log_decisions,
            decisions: None,
            shadows,
            keeps_records,
        };
        if let Some(path) = config.policy.decision_file.as_ref().filter(|_| options.log_decisions > 0) {
            options.decisions = Some(decision_file(path)?);
        }
        let text = format!("{policies}, seed {seed}");
        hub_outbox.send_always(HubInput::Policies(text.into()));
        let desk = PolicyDesk::new(
            registry.clone(),
            policies,
            config.policy.admission.is_none(),
            tasks_outbox.clone(),
            hub_outbox.clone(),
            tally.clone(),
        );
        let desk = Arc::new(desk);
        let sockets = TaskSockets { clients: task_in.0, engines: task_out.0, control };
        let (to_hub, task_session, stop) = (hub_outbox.clone(), session(fresh_id()), tasks_outbox.clone());
        let stop = Box::new(move || {
            stop.send_always(TaskInput::Stop);
        });
        crew.start("tasks", stop, move || Ok(run_tasks(scheduler, sockets, &tasks_mailbox, to_hub, task_session, options)?))?;

        let sockets = BroadcastSockets { root: broadcast_root.0, leaves: leaves.into_iter().map(|leaf| leaf.0).collect() };
        let stop = tree_outbox.clone();
        let stop = Box::new(move || {
            stop.send_always(BroadcastInput::Stop);
        });
        let counts = tally.clone();
        crew.start("broadcast", stop, move || Ok(run_broadcast(tree, sockets, &tree_mailbox, &counts)?))?;

        if let Some(gate) = gate {
            let (outbox, mailbox) = Mailbox::new(1, usize::MAX)?;
            let stop = Box::new(move || {
                outbox.send_always(());
            });
            let counts = tally.clone();
            crew.start("gate", stop, move || gate.serve(&mailbox, &counts))?;
        }
        let dask = if config.dask.allow {
            let (outbox, mailbox) = Mailbox::new(64, usize::MAX)?;
            let stop = outbox.clone();
            let stop = Box::new(move || {
                stop.send_always(DaskInput::Stop);
            });
            let host = Some(binder.engine_ip()).filter(|ip| is_loopback(ip)).map(str::to_owned);
            let reach = Reach { host, may_be_remote: config.controller.allow_plaintext };
            let mut keeper = DaskKeeper::new(config.dask.clone(), reach, hub_outbox.clone());
            crew.start("dask", stop, move || {
                keeper.serve(&mailbox);
                Ok(())
            })?;
            Some(outbox)
        } else {
            None
        };

        let mut hub = Hub::new(hub_config, session(config.session.ident.clone().unwrap_or_else(fresh_id)));
        let queries = std::iter::once(query_clients.0).chain(query_engines).collect();
        let sockets = HubSockets { queries, notifications: notifications.0, ping: ping.0, pong: pong.0 };
        let (stop, to_self) = (hub_outbox.clone(), hub_outbox.clone());
        let stop = Box::new(move || {
            stop.send_always(HubInput::Stop);
        });
        let state_path = engines_path(config);
        if config.controller.restore && former.is_some() {
            match read_json(&state_path) {
                Ok(state) => hub.restore(&state),
                Err(error) => tracing::warn!("no engines to restore: {error}"),
            }
        }
        let mut outlet = Schedulers {
            tasks: tasks_outbox,
            tree: tree_outbox,
            dask,
            policies: desk.clone(),
            to_hub: hub_outbox,
            state_path,
            live: 0,
            room_for_engines,
        };
        let counts = tally.clone();
        crew.start_main("hub", stop, move || {
            Ok(hub_driver::run(hub, sockets, &hub_mailbox, to_self, records, &mut outlet, &counts)?)
        })?;

        let mut files = RemoveOnDrop::default();
        if former.is_none() || is_other_key {
            for (path, text) in [(&engine_path, to_text(&engine_file)), (&client_path, to_text(&client_file))] {
                write_atomically(path, &text).with_context(|| format!("connection file {}", path.display()))?;
                files.add(path.clone(), text);
            }
        }
        if reuse {
            files.keep();
        }
        tracing::info!("listening; clients find this controller by {}", client_path.display());
        Ok(Controller { crew, files, client_path, engine_path, client_file, engine_file, context, policies: desk, tally, lock })
    }

    /// The file for clients.
    pub fn client_path(&self) -> &std::path::Path {
        &self.client_path
    }

    /// The file for engines.
    pub fn engine_path(&self) -> &std::path::Path {
        &self.engine_path
    }

    /// What clients are told.
    pub fn client_file(&self) -> &ClientFile {
        &self.client_file
    }

    /// What engines are told.
    pub fn engine_file(&self) -> &EngineFile {
        &self.engine_file
    }

    /// The policies in force, for whoever reads the files again.
    pub(crate) fn policies(&self) -> Arc<PolicyDesk> {
        self.policies.clone()
    }

    /// What was refused, given up or lost so far, by kind.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// A handle by which another thread can stop this controller.
    pub fn stopper(&self) -> Stopper {
        self.crew.stopper()
    }

    /// Waits for the end, whatever brings it, and takes everything down within four seconds.
    pub fn wait(mut self) -> Ending {
        let ending = self.crew.wait();
        self.lock.say_ending();
        drop(self.files);
        if !self.crew.finish() {
            // Terminating a context waits for its sockets, and a thread that does not stop keeps its own.
            std::mem::forget(self.context);
        }
        for (part, kind, count) in self.tally.counts() {
            tracing::info!("in all, {part}: {kind}: {count}");
        }
        ending
    }
}

/// Passes the hub's news to the schedulers.
struct Schedulers {
    tasks: Outbox<TaskInput>,
    tree: Outbox<BroadcastInput>,
    dask: Option<Outbox<DaskInput>>,
    policies: Arc<PolicyDesk>,
    to_hub: Outbox<HubInput>,
    state_path: PathBuf,
    live: u64,
    room_for_engines: u64,
}

impl Outlet for Schedulers {
    fn engine_up(&mut self, uuid: &str, number: u64) {
        self.tasks.send_always(TaskInput::EngineUp(uuid.into(), number));
        self.tree.send_always(BroadcastInput::EngineUp(uuid.into(), number));
        self.live += 1;
        // Said before it is too late: beyond the limit connections are refused without a word.
        if self.live * 10 >= self.room_for_engines * 9 && self.live.is_power_of_two() || self.live == self.room_for_engines {
            let needed = open_files::needed(self.live * 2);
            tracing::warn!(
                "{} engines, and files for {}: for twice as many set `ulimit -Hn {needed}`",
                self.live,
                self.room_for_engines
            );
        }
    }

    fn engine_down(&mut self, uuid: &str, _number: u64) {
        self.live = self.live.saturating_sub(1);
        self.tasks.send_always(TaskInput::EngineDown(uuid.into()));
        self.tree.send_always(BroadcastInput::EngineDown(uuid.into()));
    }

    fn resubmit(&mut self, request: Arc<Multipart>) {
        self.tasks.send_always(TaskInput::Resubmit(request));
    }

    fn errand(&mut self, number: u64, content: serde_json::Value) {
        self.policies.run(number, content);
    }

    fn dask(&mut self, number: u64, order: DaskOrder) {
        let sent = self.dask.as_ref().is_some_and(|dask| dask.send(DaskInput::Order(number, order), 0));
        if !sent {
            self.to_hub.send_always(HubInput::Dask(number, Err("too many such requests are waiting".into())));
        }
    }

    fn engines_changed(&mut self, state: &EnginesState) {
        let text = serde_json::to_string(state).unwrap_or_default();
        if let Err(error) = write_atomically(&self.state_path, &text) {
            tracing::warn!("{}: engines could not be restored from it: {error}", self.state_path.display());
        }
    }
}

/// A thread that writes decisions to a file, a line each, behind a queue of bounded length.
fn decision_file(path: &std::path::Path) -> anyhow::Result<std::sync::mpsc::SyncSender<serde_json::Value>> {
    use std::io::Write as _;
    let open = std::fs::OpenOptions::new().create(true).append(true).open(path);
    let mut file = std::io::BufWriter::new(open.with_context(|| format!("policy.decision_file {}", path.display()))?);
    let (sender, receiver) = std::sync::mpsc::sync_channel::<serde_json::Value>(DECISION_BACKLOG);
    let path = path.to_owned();
    std::thread::Builder::new().name("decisions".into()).spawn(move || {
        while let Ok(first) = receiver.recv() {
            // Whatever else has come is written before the file is brought up to date.
            let mut lines = std::iter::once(first).chain(std::iter::from_fn(|| receiver.try_recv().ok()));
            let written = lines.try_for_each(|line| writeln!(file, "{line}")).and_then(|()| file.flush());
            if let Err(error) = written {
                return tracing::error!("{}: no more decisions are written: {error}", path.display());
            }
        }
    })?;
    Ok(sender)
}

/// Where the engines are written down for the next controller (PROTOCOL: connection files, `--restore`).
fn engines_path(config: &Config) -> PathBuf {
    let id = config.controller.cluster_id.as_deref().unwrap_or_default();
    config.controller.profile_dir.clone().unwrap_or_default().join("log").join(format!("engines{id}.json"))
}

/// Makes sure that no other controller serves the profile and cluster id, and that none will.
fn alone(config: &Config, client_path: &std::path::Path) -> anyhow::Result<ProfileLock> {
    let profile = config.controller.profile_dir.as_deref().context("no profile folder: give --profile-dir")?;
    let id = config.controller.cluster_id.as_deref();
    // Who has no lock of ours and left a file is no controller of ours, or has ended.
    let may_be_stock = lock::held(profile, id) == Held::NoLock && !config.controller.reuse && !config.controller.restore;
    let lock = ProfileLock::take(profile, id, client_path)?;
    if may_be_stock
        && let Ok(file) = read_json::<ClientFile>(client_path)
        && reach::contact(&file.common) == Contact::Speaks
    {
        bail!(
            "another controller, of another program, already serves this profile at {}, and {} is its file: use --cluster-id NAME, --profile \
             NAME, or stop it",
            reach::address(&file.common),
            client_path.display()
        );
    }
    Ok(lock)
}

/// Makes the profile's folders and returns the one for connection files.
fn prepare_profile(config: &Config) -> anyhow::Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let profile = config.controller.profile_dir.clone().context("no profile folder: give --profile-dir")?;
    for (folder, private) in [("security", true), ("log", false), ("pid", true), ("startup", false)] {
        let path = profile.join(folder);
        std::fs::create_dir_all(&path).with_context(|| format!("profile folder {}", path.display()))?;
        if private {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).with_context(|| {
                format!("profile folder {}: it can not be made readable by you alone (mode 0700)", path.display())
            })?;
        }
    }
    Ok(profile.join("security"))
}

/// The connection files for clients and for engines.
pub(crate) fn file_paths(config: &Config, security: &std::path::Path) -> (PathBuf, PathBuf) {
    let controller = &config.controller;
    let name = |given: &Option<String>, role: &str| match (given, &controller.cluster_id) {
        (Some(name), _) => name.clone(),
        (None, Some(id)) => format!("ipcontroller-{id}-{role}.json"),
        (None, None) => format!("ipcontroller-{role}.json"),
    };
    (security.join(name(&controller.client_file, "client")), security.join(name(&controller.engine_file, "engine")))
}

/// Connection files of a former life, if both are there and agree.
fn reusable(client: &std::path::Path, engine: &std::path::Path) -> Option<(ClientFile, EngineFile)> {
    let files: std::io::Result<(ClientFile, EngineFile)> = read_json(client).and_then(|c| Ok((c, read_json(engine)?)));
    match files {
        Ok((c, e)) if (&c.common.key, c.common.registration) == (&e.common.key, e.common.registration) => Some((c, e)),
        Ok(_) => {
            tracing::warn!("the connection files to be reused do not belong together; starting afresh");
            None
        }
        Err(error) => {
            tracing::info!("no connection files to reuse ({error}); starting afresh");
            None
        }
    }
}

fn signing_key(config: &Config) -> anyhow::Result<String> {
    if let Some(path) = &config.session.keyfile {
        let key = std::fs::read_to_string(path).with_context(|| format!("session.keyfile {}", path.display()))?;
        return Ok(key.trim().to_owned());
    }
    Ok(config.session.key.clone().unwrap_or_else(fresh_id))
}

fn open_records(config: &Config) -> anyhow::Result<Box<dyn TaskDb>> {
    let records = &config.records;
    Ok(match records.store {
        Store::Memory => Box::new(MemoryDb::new(records.memory)),
        Store::None => Box::new(NoDb),
        #[cfg(feature = "mongodb")]
        Store::Mongodb => Box::new(pointsman_core::db::MongoDb::open(&records.mongodb.uri, &records.mongodb.database)?),
        #[cfg(not(feature = "mongodb"))]
        Store::Mongodb => bail!(
            "records.store: this program was built without MongoDB: build it with `--features mongodb`, or use sqlite or memory"
        ),
        Store::Sqlite => {
            let folder = records.sqlite.location.clone().or_else(|| config.controller.profile_dir.clone()).unwrap_or_default();
            Box::new(SqliteDb::open(&folder.join(&records.sqlite.filename), &records.sqlite.table)?)
        }
    })
}

/// Whether only this machine can reach an address.
fn is_loopback(ip: &str) -> bool {
    ip == "localhost" || ip.trim_matches(['[', ']']).parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}

/// Refuses what would listen to strangers by mistake, before anything is bound.
fn check_interface(transport: Transport, ip: &str, may_be_remote: bool) -> anyhow::Result<()> {
    if ip.is_empty() || ip.contains("://") {
        bail!("controller.ip: '{ip}' is not an address: give a host or IP for tcp, a path for ipc");
    }
    if transport == Transport::Ipc && ip == "127.0.0.1" {
        bail!("controller.ip: with transport ipc this is the path of the sockets, such as /tmp/cluster");
    }
    if transport == Transport::Tcp && !is_loopback(ip) && !may_be_remote {
        bail!(
            "controller.ip: on {ip} other machines could read all traffic on its way: encrypt it with --enable-curve, or say that your \
             network is trusted with --allow-plaintext (controller.allow_plaintext in pointsman.toml, POINTSMAN_ALLOW_PLAINTEXT=1)"
        );
    }
    Ok(())
}
