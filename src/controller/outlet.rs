//! What the hub says to the rest of the controller: engines that come and go to the schedulers, errands to the policy desk, and the list of
//! engines to its file. Nothing here waits.

use std::path::PathBuf;
use std::sync::Arc;

use pointsman_core::Multipart;
use pointsman_core::hub::driver::{HubInput, Outlet};
use pointsman_core::hub::{DaskOrder, EnginesState};
use pointsman_core::net::Outbox;
use pointsman_core::net::files::write_atomically;
use pointsman_core::relay::KnownPeers;
use pointsman_schedulers::live::{BroadcastInput, TaskInput};

use super::dask::DaskInput;
use super::open_files::OpenFiles;
use super::policies::PolicyDesk;

/// Passes the hub's news to the schedulers.
pub(super) struct Schedulers {
    pub(super) tasks: Outbox<TaskInput>,
    pub(super) tree: Outbox<BroadcastInput>,
    pub(super) dask: Option<Outbox<DaskInput>>,
    pub(super) policies: Arc<PolicyDesk>,
    /// For whom relays keep messages.
    pub(super) known: KnownPeers,
    pub(super) to_hub: Outbox<HubInput>,
    pub(super) state_path: PathBuf,
    pub(super) live: u64,
    pub(super) open_files: OpenFiles,
}

impl Outlet for Schedulers {
    fn engine_up(&mut self, uuid: &str, number: u64) {
        self.known.add(uuid.as_bytes());
        self.tasks.send_always(TaskInput::EngineUp(uuid.into(), number));
        self.tree.send_always(BroadcastInput::EngineUp(uuid.into(), number));
        self.live += 1;
        // Said before it is too late: beyond the limit connections are refused without a word.
        let room = self.open_files.engines();
        if self.live * 10 >= room * 9 && self.live.is_power_of_two() || self.live == room {
            let needed = self.open_files.needed(self.live * 2);
            tracing::warn!("{} engines, and files for {room}: for twice as many set `ulimit -Hn {needed}`", self.live);
        }
    }

    fn engine_down(&mut self, uuid: &str, _number: u64) {
        self.known.remove(uuid.as_bytes());
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
