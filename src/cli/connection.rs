//! How the tools find a running controller: by the connection file that it has written for clients, which is also what entitles them. Whatever
//! stands in the way is told with its cause: no file, a file of another kind, nobody there, somebody who does not answer.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use pointsman_core::connection_file::{ClientFile, EngineFile};
use pointsman_core::net::files::read_json;
use pointsman_core::peer::{Client, PeerError};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::running::{self, Found};
use crate::config::{Config, profile_dir};
use crate::controller::file_paths;
use crate::controller::lock::{Held, held};
use crate::controller::reach::{Contact, address, contact};

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
    /// The name of its cluster; without, the only one that runs is meant.
    #[arg(long, global = true)]
    cluster_id: Option<String>,
    /// How long it may take to answer, in seconds.
    #[arg(long, default_value_t = 10.0, global = true, value_parser = seconds)]
    timeout_s: f64,
}

/// A number of seconds that can be waited.
pub(super) fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| *seconds > 0.0 && Duration::try_from_secs_f64(*seconds).is_ok());
    seconds.ok_or_else(|| "expected a number of seconds above 0".to_owned())
}

impl Connection {
    /// The profile's folder.
    pub(super) fn profile(&self) -> PathBuf {
        let mut config = Config::default();
        (config.controller.profile, config.controller.profile_dir) = (self.profile.clone(), self.profile_dir.clone());
        profile_dir(&config, &|name| std::env::var_os(name))
    }

    /// The file of the controller that is meant: the one named, or the only one that runs.
    fn path(&self) -> anyhow::Result<PathBuf> {
        if let Some(path) = &self.file {
            return Ok(path.clone());
        }
        let profile = self.profile();
        let mut config = Config::default();
        config.controller.cluster_id = self.cluster_id.clone().filter(|id| !id.is_empty());
        let path = file_paths(&config, &profile.join("security")).0;
        if path.exists() {
            return Ok(path);
        }
        let found = running::in_profile(&profile);
        let mut living = found.iter().filter(|found| found.may_answer());
        match (living.next(), living.next()) {
            (Some(only), None) if self.cluster_id.is_none() => {
                eprintln!("pointsman: the only controller of this profile: {}", only.describe());
                Ok(only.path.clone())
            }
            (None, _) => bail!(
                "no controller runs in {}: start one with `pointsman controller`, name another with --profile, --profile-dir or --file, or see \
                 `pointsman list`{}",
                profile.display(),
                listed(&found)
            ),
            _ => bail!(
                "{}: no such controller in {}; choose one with --cluster-id:{}",
                self.cluster_id.as_deref().unwrap_or("without a cluster id"),
                profile.display(),
                listed(&found)
            ),
        }
    }

    /// Asks the controller to do or say something that only this program's have, and returns its answer.
    pub(super) fn ask(&self, content: &Value) -> anyhow::Result<Value> {
        self.query("pointsman_request", content)
    }

    /// Sends the hub a question, and returns its answer.
    pub(super) fn query(&self, question: &str, content: &Value) -> anyhow::Result<Value> {
        let path = self.path()?;
        let file = read_client_file(&path)?;
        let timeout = Duration::try_from_secs_f64(self.timeout_s).context("--timeout-s")?;
        let context = zmq::Context::new();
        let asked = Client::connect(&context, &file, timeout).and_then(|mut client| client.ask(question, content, timeout));
        asked.map_err(|error| explained(error, &path, &file))
    }
}

fn listed(found: &[Found]) -> String {
    found.iter().map(|found| format!("\n  {}", found.describe())).collect()
}

/// Reads a connection file for clients.
///
/// # Errors
/// If it can not be read, or is another file: with which.
pub(super) fn read_client_file(path: &Path) -> anyhow::Result<ClientFile> {
    read_file(path, "hb_ping", "engine", "client")
}

/// Reads a connection file for engines.
///
/// # Errors
/// As [`read_client_file`].
pub(super) fn read_engine_file(path: &Path) -> anyhow::Result<EngineFile> {
    read_file(path, "notification", "client", "engine")
}

fn read_file<T: DeserializeOwned>(path: &Path, mark: &str, other_role: &str, role: &str) -> anyhow::Result<T> {
    read_json(path).or_else(|error| {
        let other = std::fs::read_to_string(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => anyhow::anyhow!("{}: no such file: is the controller running?", path.display()),
            _ => anyhow::anyhow!("{}: {error}", path.display()),
        })?;
        bail!("{}: {}", path.display(), kind_of(&other, mark, other_role, role).unwrap_or_else(|| plain(&error, path)))
    })
}

/// An error without the path that is told before it.
fn plain(error: &std::io::Error, path: &Path) -> String {
    let text = error.to_string();
    text.strip_prefix(&format!("{}: ", path.display())).unwrap_or(&text).to_owned()
}

/// What a file is that is not the one wanted.
fn kind_of(text: &str, mark: &str, is: &str, wanted: &str) -> Option<String> {
    let nothing =
        || format!("no connection file: a controller writes ipcontroller-{wanted}.json into its profile's folder security");
    let Ok(Value::Object(fields)) = serde_json::from_str::<Value>(text) else {
        return Some(nothing());
    };
    if fields.contains_key(mark) {
        return Some(format!("this is the file for {is}s: give the ipcontroller-{wanted}.json beside it"));
    }
    (!fields.contains_key("registration")).then(nothing)
}

/// What stood in the way, as far as it can be told.
fn explained(error: PeerError, path: &Path, file: &ClientFile) -> anyhow::Error {
    match error {
        PeerError::Refused(refused) if refused.evalue.contains("pointsman_request") => anyhow::anyhow!(
            "the controller of {} is ipyparallel's own: it has no policies to show, change or explain. `pointsman controller` has",
            path.display()
        ),
        // A Python exception's name helps nobody here.
        PeerError::Refused(refused) => anyhow::anyhow!("{}", refused.evalue),
        PeerError::Timeout(_) => silent(path, file),
        other => anyhow::Error::from(other),
    }
}

/// Why nobody answered.
fn silent(path: &Path, file: &ClientFile) -> anyhow::Error {
    let (place, file_name) = (address(&file.common), path.display());
    let folder = path.parent().and_then(Path::parent).unwrap_or(Path::new("."));
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let id = name.strip_prefix("ipcontroller-").and_then(|rest| rest.strip_suffix("-client.json"));
    let holder = match held(folder, id) {
        Held::By(holder) => Some(holder),
        Held::ByNobody | Held::NoLock => None,
    };
    match (holder, contact(&file.common)) {
        (Some(holder), Contact::Nobody) => anyhow::anyhow!(
            "{file_name}: nobody listens at {place}, but a controller (pid {}, since {}) serves this profile: its file is {}",
            holder.pid,
            holder.since,
            holder.client_file.display()
        ),
        (None, Contact::Nobody) => anyhow::anyhow!(
            "{file_name}: nobody listens at {place}: the controller has ended without removing its file, or the port in it is wrong; see \
             `pointsman list`"
        ),
        (None, Contact::Unclear) => anyhow::anyhow!(
            "{file_name}: what is at {place} does not speak as a controller does: the controller has ended, and something else has its port, or \
             its host can not be reached; see `pointsman list`"
        ),
        (holder, _) => anyhow::anyhow!(
            "{file_name}: no answer in time; {} at {place}: the file's key may not be its own, or it is busy (--timeout-s)",
            match holder {
                Some(holder) => format!("a controller (pid {}, since {}) listens", holder.pid, holder.since),
                None => "something listens".to_owned(),
            }
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_file_is_called_what_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f.json");
        for (text, says) in [
            (r#"{"hb_ping": 1, "registration": 2}"#, "this is the file for engines: give the ipcontroller-client.json beside it"),
            ("junk", "no connection file"),
            ("[1]", "no connection file"),
            ("{}", "no connection file"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = format!("{:#}", read_client_file(&path).unwrap_err());
            assert!(error.contains(says) && error.matches("f.json").count() == 1, "{error}");
        }
    }
}
