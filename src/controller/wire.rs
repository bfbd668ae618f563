//! Threads and what runs between them: each part gets its sockets, the mailboxes of those it speaks to, and a way to be told to stop.

use std::sync::Arc;

use pointsman_core::Session;
use pointsman_core::db::TaskDb;
use pointsman_core::hub::Hub;
use pointsman_core::hub::driver::{self as hub_driver, HubInput, HubSockets, Records};
use pointsman_core::net::{Mailbox, Outbox, Tally, fresh_id};
use pointsman_core::relay::{Command, KnownPeers, Pairing, PublishTap, Relay, Tap};
use pointsman_policies::{Registry, Time};
use pointsman_schedulers::broadcast::Broadcast;
use pointsman_schedulers::live::{
    BroadcastInput, BroadcastSockets, TaskInput, TaskOptions, TaskSockets, TaskWatch, run_broadcast, run_tasks,
};
use pointsman_schedulers::task::TaskScheduler;

use super::address::is_loopback;
use super::bind::Channels;
use super::curve::Gate;
use super::dask::{DaskInput, DaskKeeper, Reach};
use super::decide::{Decided, limits};
use super::files::{Identity, engines_path};
use super::open_files::OpenFiles;
use super::outlet::Schedulers;
use super::policies::PolicyDesk;
use super::records::decision_file;
use super::supervise::Crew;
use super::taps::HubTap;
use crate::config::{Config, Store};

/// What may wait for the hub: beyond it, records are lost and counted, and tasks flow on.
const HUB_BACKLOG: (usize, usize) = (4_000_000, 1 << 30);
/// News of engines for the schedulers; bounded by engines that come and go between two turns of a loop.
const NEWS_BACKLOG: (usize, usize) = (1_000_000, 1 << 30);

/// What the threads are made of: decided, bound and opened.
pub(super) struct Parts<'a> {
    pub(super) config: &'a Config,
    pub(super) registry: &'a Arc<Registry>,
    pub(super) identity: &'a Identity,
    pub(super) decided: Decided,
    pub(super) tree: Broadcast,
    pub(super) channels: Channels,
    pub(super) gate: Option<Gate>,
    /// Where engines connect, which is where a Dask scheduler listens too.
    pub(super) engine_ip: &'a str,
    pub(super) hub: Hub,
    pub(super) db: Box<dyn TaskDb>,
    pub(super) open_files: OpenFiles,
    pub(super) tally: Tally,
}

/// The threads, started, and what others share with them.
pub(super) struct Running {
    pub(super) crew: Crew,
    pub(super) policies: Arc<PolicyDesk>,
    pub(super) tally: Tally,
}

/// A way to stop a part: the input that it ends with.
fn stop<T: Send + 'static>(outbox: &Outbox<T>, last: fn() -> T) -> Box<dyn Fn() + Send> {
    let outbox = outbox.clone();
    Box::new(move || {
        outbox.send_always(last());
    })
}

/// Starts every thread, the hub's last: it is the one whose good end is the controller's.
///
/// # Errors
/// If a thread or a mailbox can not be had, or the file of decisions not be written.
pub(super) fn launch(parts: Parts<'_>) -> anyhow::Result<Running> {
    let mut crew = Crew::new()?;
    match start_all(&mut crew, parts) {
        Ok((policies, tally)) => Ok(Running { crew, policies, tally }),
        Err(error) => {
            // Those that run already end too: their sockets would keep the addresses.
            crew.finish();
            Err(error)
        }
    }
}

fn start_all(crew: &mut Crew, parts: Parts<'_>) -> anyhow::Result<(Arc<PolicyDesk>, Tally)> {
    let Parts { config, registry, identity, decided, tree, channels, gate, engine_ip, hub, db, open_files, tally } = parts;
    let keeps_records = config.records.store != Store::None;
    let (to_hub, hub_mailbox) = Mailbox::<HubInput>::new(HUB_BACKLOG.0, HUB_BACKLOG.1)?;
    let (to_tasks, tasks_mailbox) = Mailbox::<TaskInput>::new(NEWS_BACKLOG.0, NEWS_BACKLOG.1)?;
    let (to_tree, tree_mailbox) = Mailbox::<BroadcastInput>::new(NEWS_BACKLOG.0, NEWS_BACKLOG.1)?;
    to_hub.send_always(HubInput::Policies(decided.text().into()));
    let desk = Arc::new(PolicyDesk::new(
        registry.clone(),
        decided.policies.clone(),
        config.policy.admission.is_none(),
        to_tasks.clone(),
        to_hub.clone(),
        tally.clone(),
    ));

    let known = KnownPeers::default();
    let direct = HubTap::new("mux", to_hub.clone(), keeps_records).counted_in(&tally);
    let output = HubTap::new("iopub", to_hub.clone(), keeps_records).counted_in(&tally);
    let monitor = channels.monitor;
    let copies = |into: &str, out: &str| -> anyhow::Result<Option<PublishTap>> {
        monitor.as_ref().map(|monitor| monitor.tap(into, out, &tally)).transpose()
    };
    let tap = (direct, copies("in", "out")?);
    let relay = Relay::new(channels.mux_in.0, channels.mux_out.0, Pairing::Swap, tap)?.knowing(known.clone());
    start_relay(crew, "mux", relay, &tally)?;
    let tap = copies("incontrol", "outcontrol")?;
    let relay = Relay::new(channels.control_in.0, channels.control_out.0, Pairing::Swap, tap)?.knowing(known.clone());
    start_relay(crew, "control", relay, &tally)?;
    let tap = (output, copies("iopub", "iopub")?);
    let relay = Relay::new(channels.iopub_in.0, channels.iopub_out.0, Pairing::OneWay, tap)?;
    start_relay(crew, "iopub", relay, &tally)?;
    let task_copies = monitor.as_ref().map(|monitor| monitor.of_tasks(&tally)).transpose()?;
    if let Some(monitor) = monitor {
        start_relay(crew, "monitor", monitor.relay()?, &tally)?;
    }

    let sockets = TaskSockets { clients: channels.task_in.0, engines: channels.task_out.0, control: channels.control_within };
    let session = identity.session(fresh_id());
    start_tasks(crew, config, decided, sockets, (&to_tasks, tasks_mailbox), to_hub.clone(), session, task_copies, &tally)?;

    let leaves = channels.broadcast_leaves.into_iter().map(|leaf| leaf.0).collect();
    let sockets = BroadcastSockets { root: channels.broadcast_root.0, leaves };
    let counts = tally.clone();
    crew.start("broadcast", stop(&to_tree, || BroadcastInput::Stop), move || {
        Ok(run_broadcast(tree, sockets, &tree_mailbox, &counts)?)
    })?;
    if let Some(gate) = gate {
        start_gate(crew, gate, &tally)?;
    }
    let dask = if config.dask.allow { Some(start_dask(crew, config, engine_ip, &to_hub)?) } else { None };

    let queries = std::iter::once(channels.queries.0).chain(channels.queries_of_engines).collect();
    let sockets = HubSockets { queries, notifications: channels.notifications.0, ping: channels.ping.0, pong: channels.pong.0 };
    let outlet = Schedulers {
        tasks: to_tasks,
        tree: to_tree,
        dask,
        policies: desk.clone(),
        known,
        to_hub: to_hub.clone(),
        state_path: engines_path(config),
        live: 0,
        open_files,
    };
    let records = Records { db, retention: config.records.retention.clone() };
    start_hub(crew, hub, sockets, (to_hub, hub_mailbox), records, outlet, &tally)?;
    Ok((desk, tally))
}

fn start_relay(
    crew: &mut Crew,
    name: &'static str,
    relay: Relay<impl Tap + Send + 'static>,
    tally: &Tally,
) -> anyhow::Result<()> {
    let (outbox, commands) = Mailbox::new(64, usize::MAX)?;
    let relay = relay.counted_as(name, tally);
    crew.start(name, stop(&outbox, || Command::Terminate), move || Ok(relay.run(&commands)?))?;
    Ok(())
}

#[expect(clippy::too_many_arguments, reason = "each is another part of the controller")]
fn start_tasks(
    crew: &mut Crew,
    config: &Config,
    decided: Decided,
    sockets: TaskSockets,
    (to_self, inputs): (&Outbox<TaskInput>, Mailbox<TaskInput>),
    to_hub: Outbox<HubInput>,
    session: Session,
    watch: Option<TaskWatch>,
    tally: &Tally,
) -> anyhow::Result<()> {
    let mut scheduler = TaskScheduler::new(decided.scheme, limits(config), decided.seed);
    scheduler.change(Time::ZERO, decided.others);
    let log_decisions = config.policy.log_decisions;
    let decisions = config.policy.decision_file.as_ref().filter(|_| log_decisions > 0);
    let options = TaskOptions {
        tally: tally.clone(),
        log_decisions,
        decisions: decisions.map(|path| decision_file(path)).transpose()?,
        shadows: decided.shadows,
        watch,
        keeps_records: config.records.store != Store::None,
    };
    crew.start("tasks", stop(to_self, || TaskInput::Stop), move || {
        Ok(run_tasks(scheduler, sockets, &inputs, to_hub, session, options)?)
    })?;
    Ok(())
}

fn start_gate(crew: &mut Crew, gate: Gate, tally: &Tally) -> anyhow::Result<()> {
    let (outbox, mailbox) = Mailbox::new(1, usize::MAX)?;
    let counts = tally.clone();
    crew.start("gate", stop(&outbox, || ()), move || gate.serve(&mailbox, &counts))?;
    Ok(())
}

fn start_dask(crew: &mut Crew, config: &Config, engine_ip: &str, to_hub: &Outbox<HubInput>) -> anyhow::Result<Outbox<DaskInput>> {
    let (outbox, mailbox) = Mailbox::new(64, usize::MAX)?;
    let host = Some(engine_ip).filter(|ip| is_loopback(ip)).map(str::to_owned);
    let reach = Reach { host, may_be_remote: config.controller.allow_plaintext };
    let mut keeper = DaskKeeper::new(config.dask.clone(), reach, to_hub.clone());
    crew.start("dask", stop(&outbox, || DaskInput::Stop), move || {
        keeper.serve(&mailbox);
        Ok(())
    })?;
    Ok(outbox)
}

fn start_hub(
    crew: &mut Crew,
    hub: Hub,
    sockets: HubSockets,
    (to_self, inputs): (Outbox<HubInput>, Mailbox<HubInput>),
    records: Records,
    mut outlet: Schedulers,
    tally: &Tally,
) -> anyhow::Result<()> {
    let counts = tally.clone();
    crew.start_main("hub", stop(&to_self, || HubInput::Stop), move || {
        Ok(hub_driver::run(hub, sockets, &inputs, to_self, records, &mut outlet, &counts)?)
    })?;
    Ok(())
}
