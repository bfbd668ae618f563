//! How the tools find a running controller: by the connection file that it has written for clients, which is also what entitles them.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use pointsman_core::connection_file::ClientFile;
use pointsman_core::net::files::read_json;
use pointsman_core::peer::Client;
use serde_json::Value;

use crate::config::{Config, profile_dir};
use crate::controller::file_paths;

/// Which controller is meant.
#[derive(Debug, clap::Args)]
pub(super) struct Connection {
    /// The controller's ipcontroller-client.json.
    #[arg(long, short, global = true)]
    file: Option<PathBuf>,
    /// Its profile.
    #[arg(long, global = true)]
    profile: Option<String>,
    /// Its profile's folder.
    #[arg(long, global = true)]
    profile_dir: Option<PathBuf>,
    /// The name of its cluster.
    #[arg(long, global = true)]
    cluster_id: Option<String>,
    /// How long it may take to answer, in seconds.
    #[arg(long, default_value_t = 10.0, global = true)]
    timeout_s: f64,
}

impl Connection {
    fn path(&self) -> PathBuf {
        if let Some(path) = &self.file {
            return path.clone();
        }
        let mut config = Config::default();
        let controller = &mut config.controller;
        (controller.profile, controller.profile_dir) = (self.profile.clone(), self.profile_dir.clone());
        controller.cluster_id = self.cluster_id.clone();
        let security = profile_dir(&config, &|name| std::env::var_os(name)).join("security");
        file_paths(&config, &security).0
    }

    /// Asks the controller, and returns its answer.
    pub(super) fn ask(&self, content: &Value) -> anyhow::Result<Value> {
        let path = self.path();
        let file: ClientFile = read_json(&path).with_context(|| format!("{}: is the controller running?", path.display()))?;
        let timeout = Duration::try_from_secs_f64(self.timeout_s).context("--timeout-s")?;
        let mut client = Client::connect(&zmq::Context::new(), &file, timeout)?;
        Ok(client.ask("pointsman_request", content, timeout)?)
    }
}
