//! The files of a profile: connection files by which peers find a controller, those of a former life, and the list of engines for the next.
//! They are written whole or not at all, and hold the key.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use pointsman_core::connection_file::{ClientFile, EngineFile, to_text};
use pointsman_core::date::Date;
use pointsman_core::net::files::{RemoveOnDrop, read_json, write_atomically};
use pointsman_core::net::fresh_id;
use pointsman_core::{Session, Signer};

use crate::config::Config;

/// Who a controller is: where its files are, the key that its messages are signed with, and what it takes over from the one before.
pub(super) struct Identity {
    /// The folder of connection files.
    pub(super) security: PathBuf,
    /// The file for clients.
    pub(super) client_path: PathBuf,
    /// The file for engines.
    pub(super) engine_path: PathBuf,
    /// Keep the files at the end.
    pub(super) reuse: bool,
    /// The connection files of a former life, if they are to be used again and are there.
    pub(super) former: Option<(ClientFile, EngineFile)>,
    /// The signing key.
    pub(super) key: String,
    signer: Signer,
    username: String,
}

impl Identity {
    /// Makes the profile's folders and reads what the configuration says of a former life.
    ///
    /// # Errors
    /// If a folder can not be made or a file not read.
    pub(super) fn prepare(config: &Config) -> anyhow::Result<Self> {
        let security = prepare_profile(config)?;
        let (client_path, engine_path) = file_paths(config, &security);
        // Whoever restores, reuses.
        let reuse = config.controller.reuse || config.controller.restore;
        let former = if reuse { reusable(&client_path, &engine_path) } else { None };
        let key = match &former {
            Some((client, _)) => client.common.key.clone(),
            None => signing_key(config)?,
        };
        let signer = Signer::new(key.as_bytes());
        let username =
            config.session.username.clone().or_else(|| std::env::var("USER").ok()).unwrap_or_else(|| "username".into());
        Ok(Identity { security, client_path, engine_path, reuse, former, key, signer, username })
    }

    /// A session of this process, under an id.
    pub(super) fn session(&self, id: String) -> Session {
        Session::new(self.signer.clone(), id, self.username.clone(), std::process::id())
    }

    /// Whether the files of a former life name another CURVE key than the one that will be used; said, because peers have to know.
    pub(super) fn has_other_curve_key(&self, server_key: Option<&str>) -> bool {
        let is_other = self.former.as_ref().is_some_and(|(client, engine)| {
            [&client.common, &engine.common].iter().any(|common| common.curve_serverkey.as_deref() != server_key)
        });
        if is_other {
            tracing::warn!(
                "the connection files to be reused have another CURVE key, or none: they are written anew, and peers need the new ones"
            );
        }
        is_other
    }

    /// Writes the connection files, the engines' first: whoever sees the clients' finds the other there. The files are removed when the
    /// returned value is dropped, unless the next controller shall have them.
    ///
    /// # Errors
    /// If one can not be written.
    pub(super) fn write(&self, client: &ClientFile, engine: &EngineFile, is_other_key: bool) -> anyhow::Result<RemoveOnDrop> {
        let mut files = RemoveOnDrop::default();
        if self.former.is_none() || is_other_key {
            for (path, text) in [(&self.engine_path, to_text(engine)), (&self.client_path, to_text(client))] {
                write_atomically(path, &text).with_context(|| format!("connection file {}", path.display()))?;
                files.add(path.clone());
            }
        }
        if self.reuse {
            files.keep();
        }
        Ok(files)
    }
}

/// When a file was written: a connection file that is reused, by the first of the controllers that have used it.
pub(super) fn written_at(path: &Path) -> Option<Date> {
    let since_epoch = std::fs::metadata(path).ok()?.modified().ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    i64::try_from(since_epoch.as_micros()).ok().map(Date::from_unix_us)
}

/// Where the engines are written down for the next controller (PROTOCOL: connection files, `--restore`).
pub(super) fn engines_path(config: &Config) -> PathBuf {
    let id = config.controller.cluster_id.as_deref().unwrap_or_default();
    config.controller.profile_dir.clone().unwrap_or_default().join("log").join(format!("engines{id}.json"))
}

/// Makes the profile's folders and returns the one for connection files.
fn prepare_profile(config: &Config) -> anyhow::Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let profile = config.controller.profile_dir.clone().context("no profile folder: give --profile-dir")?;
    for (folder, private) in [("security", true), ("log", false), ("pid", true), ("startup", false)] {
        let path = profile.join(folder);
        std::fs::create_dir_all(&path).with_context(|| format!("profile folder {}", path.display()))?;
        if private {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700))?;
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
