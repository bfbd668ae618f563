//! A controller assembled: sockets bound, machines on their threads, connection files written last, and everything taken down again.
//! If any part dies the whole process ends with a reason: there is no half-alive controller.

mod address;
mod bind;
mod curve;
mod dask;
mod decide;
mod files;
pub(crate) mod lock;
mod monitor;
mod open_files;
mod outlet;
mod policies;
mod ports;
pub(crate) mod reach;
mod records;
mod supervise;
mod taps;
mod wire;

use std::path::PathBuf;
use std::sync::Arc;

use pointsman_core::connection_file::{ClientFile, EngineFile};
use pointsman_core::hub::Hub;
use pointsman_core::net::files::{RemoveOnDrop, read_json};
use pointsman_core::net::{Tally, fresh_id};
use pointsman_policies::Registry;
use pointsman_schedulers::broadcast::Broadcast;

use crate::config::Config;
use bind::Channels;
use curve::{CurveServer, Gate};
use decide::{Decided, hub_config};
pub(crate) use files::file_paths;
use files::{Identity, engines_path, written_at};
use lock::ProfileLock;
use open_files::OpenFiles;
pub(crate) use policies::PolicyDesk;
use ports::Binder;
use records::open_records;
use supervise::Crew;
pub use supervise::{Ending, Stopper};
pub use taps::HubTap;
use wire::{Parts, Running, launch};

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
        let config = &config.settled()?;
        for note in config.notes() {
            tracing::warn!("{note}");
        }
        let decided = Decided::new(config, registry)?;
        let open_files = OpenFiles::raise(1 << config.broadcast.depth)?;
        let identity = Identity::prepare(config)?;
        let hub_config = hub_config(config, identity.former.as_ref().map(|(_, engine)| engine))?;

        let context = zmq::Context::new();
        let curve_keys = curve::key_file(&identity.security, config.controller.cluster_id.as_deref());
        let curve = CurveServer::new(&config.curve, &curve_keys)?;
        // Encryption is the I/O threads' work, and most of it.
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        context.set_io_threads(if curve.is_some() || cores >= 4 { 2 } else { 1 })?;
        let gate = Gate::new(&context, &config.curve)?;
        let server_key = curve.as_ref().map(CurveServer::public_key);
        let is_other_key = identity.has_other_curve_key(server_key);

        let mut binder = Binder::new(&context, config, identity.former.as_ref(), curve.as_ref())?;
        let tree = Broadcast::new(identity.session(fresh_id()), config.broadcast.depth);
        let channels = Channels::bind(&context, &mut binder, &tree, config)?;
        let placement = decided.policies.placement.name();
        let (client_file, engine_file) = channels.connection_files(&binder, config, &identity, server_key, placement);

        let db = open_records(config)?;
        let mut hub = Hub::new(hub_config, identity.session(config.session.ident.clone().unwrap_or_else(fresh_id)));
        if config.controller.restore && identity.former.is_some() {
            match read_json(&engines_path(config)) {
                Ok(state) => hub.restore(&state),
                Err(error) => {
                    tracing::warn!("no engines to restore: {error}");
                    hub.restore_without_engines(written_at(&identity.client_path));
                }
            }
        }
        let Running { crew, policies, tally } = launch(Parts {
            tally,
            config,
            registry,
            identity: &identity,
            decided,
            tree,
            channels,
            gate,
            engine_ip: &binder.engine_ip(),
            hub,
            db,
            open_files,
        })?;
        let files = identity.write(&client_file, &engine_file, is_other_key)?;
        let Identity { client_path, engine_path, lock, .. } = identity;
        tracing::info!("listening; clients find this controller by {}", client_path.display());
        Ok(Controller { crew, files, client_path, engine_path, client_file, engine_file, context, policies, tally, lock })
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

    /// Waits for the end, whatever brings it, and takes everything down within four seconds (`supervise::PATIENCE`).
    pub fn wait(mut self) -> Ending {
        let ending = self.crew.wait();
        self.lock.say_ending();
        drop(self.files);
        let (all_ended, incomplete) = self.crew.finish();
        if !all_ended {
            // Terminating a context waits for its sockets, and a thread that does not stop keeps its own.
            std::mem::forget(self.context);
        }
        for (part, kind, count) in self.tally.counts() {
            tracing::info!("in all, {part}: {kind}: {count}");
        }
        match (ending, incomplete) {
            (Ending::Asked, Some(reason)) => Ending::Incomplete(reason),
            (ending, _) => ending,
        }
    }
}
