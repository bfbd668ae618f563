//! The files of a profile: connection files by which peers find a controller, those of a former life, and the list of engines for the next.
//! They are written whole or not at all, and hold the key.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use pointsman_core::connection_file::{ClientFile, Common, EngineFile, to_text};
use pointsman_core::date::Date;
use pointsman_core::net::files::{RemoveOnDrop, read_json, write_atomically};
use pointsman_core::net::fresh_id;
use pointsman_core::{Packer, Session, Signer};

use super::lock::{self, Held, ProfileLock};
use super::reach::{self, Contact};
use crate::config::Config;

/// Who a controller is: where its files are, the key that its messages are signed with, and what it takes over from the one before.
pub(super) struct Identity {
    /// The folder of connection files.
    pub(super) security: PathBuf,
    /// The file for clients.
    pub(super) client_path: PathBuf,
    /// The file for engines.
    pub(super) engine_path: PathBuf,
    /// Held for life: no other controller serves this profile and cluster id.
    pub(super) lock: ProfileLock,
    /// Keep the files at the end.
    pub(super) reuse: bool,
    /// The connection files of a former life, if they are to be used again and are there.
    pub(super) former: Option<(ClientFile, EngineFile)>,
    /// The signing key.
    pub(super) key: String,
    /// How messages are packed.
    pub(super) packer: Packer,
    /// The files of the former life say something else.
    is_repacked: bool,
    signer: Signer,
    username: String,
}

impl Identity {
    /// Makes the profile's folders and reads what the configuration says of a former life.
    ///
    /// # Errors
    /// If a folder can not be made, a file not read, or another controller serves the profile.
    pub(super) fn prepare(config: &Config) -> anyhow::Result<Self> {
        let security = prepare_profile(config)?;
        let (client_path, engine_path) = file_paths(config, &security);
        // Whoever restores, reuses.
        let reuse = config.controller.reuse || config.controller.restore;
        let lock = alone(config, &client_path)?;
        let mut former = if reuse { reusable(&client_path, &engine_path) } else { None };
        let (packer, is_repacked) = packer(config.session.packed_by()?, former.as_mut());
        let asked_for = signing_key(config)?;
        let key = match &former {
            Some((client, engine)) => {
                for note in overruled(config, asked_for.as_deref(), client, engine) {
                    tracing::warn!("{note} (leave out --reuse and --restore, or delete the files)");
                }
                if client.common.key.is_empty() {
                    tracing::warn!("the connection files that are reused have no key: messages are not signed");
                }
                client.common.key.clone()
            }
            None => asked_for.unwrap_or_else(fresh_id),
        };
        let signer = Signer::new(key.as_bytes());
        let username = config.session.username.clone().or_else(|| Some(std::env::var_os("USER")?.to_string_lossy().into_owned()));
        let username = username.unwrap_or_else(|| "username".into());
        Ok(Identity { security, client_path, engine_path, lock, reuse, former, key, packer, is_repacked, signer, username })
    }

    /// A session of this process, under an id.
    pub(super) fn session(&self, id: String) -> Session {
        Session::new(self.signer.clone(), id, self.username.clone(), std::process::id()).packed_by(self.packer)
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
        if self.former.is_none() || is_other_key || self.is_repacked {
            for (path, text) in [(&self.engine_path, to_text(engine)), (&self.client_path, to_text(client))] {
                write_atomically(path, &text).with_context(|| format!("connection file {}", path.display()))?;
                files.add(path.clone(), text);
            }
        }
        if self.reuse {
            files.keep();
        }
        Ok(files)
    }
}

/// How messages are packed: as the settings say, else as peers of the former life know it. True if they have to be told anew; the files are
/// changed then.
fn packer(wanted: Option<Packer>, former: Option<&mut (ClientFile, EngineFile)>) -> (Packer, bool) {
    let Some((client, engine)) = former else { return (wanted.unwrap_or_default(), false) };
    let names = [&client.common.pack, &client.common.unpack, &engine.common.pack, &engine.common.unpack];
    let known = Packer::of_name(names[0]).ok().filter(|known| names.iter().all(|name| Packer::of_name(name) == Ok(*known)));
    match (wanted, known) {
        (None, Some(known)) => (known, false),
        (Some(wanted), Some(known)) if wanted == known => (known, false),
        (wanted, _) => {
            let packer = wanted.unwrap_or_default();
            tracing::warn!(
                "the connection files to be reused say that messages are packed by {}, and it is {} now: they are written anew, and peers need \
                 the new ones",
                names[0].escape_debug(),
                packer.name()
            );
            for common in [&mut client.common, &mut engine.common] {
                (common.pack, common.unpack) = (packer.name().into(), packer.name().into());
            }
            (packer, true)
        }
    }
}

/// When a file was written: a connection file that is reused, by the first of the controllers that have used it.
pub(super) fn written_at(path: &Path) -> Option<Date> {
    let since_epoch = std::fs::metadata(path).ok()?.modified().ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    i64::try_from(since_epoch.as_micros()).ok().map(Date::from_unix_us)
}

/// Where the engines are written down for the next controller.
pub(super) fn engines_path(config: &Config) -> PathBuf {
    let id = config.controller.cluster_id.as_deref().unwrap_or_default();
    config.controller.profile_dir.clone().unwrap_or_default().join("log").join(format!("engines{id}.json"))
}

/// Makes the profile's folders and returns the one for connection files. In a profile of somebody else's what is there is used, with a word
/// about what could not be done.
///
/// # Errors
/// If there is no folder for connection files and none can be made.
fn prepare_profile(config: &Config) -> anyhow::Result<PathBuf> {
    let profile = config.controller.profile_dir.clone().context("no profile folder: give --profile-dir")?;
    for (folder, is_private) in [("security", true), ("log", false), ("pid", true), ("startup", false)] {
        let path = profile.join(folder);
        match std::fs::create_dir_all(&path) {
            Err(error) if folder == "security" => {
                return Err(error).with_context(|| format!("profile folder {} can not be made", path.display()));
            }
            Err(error) => tracing::warn!("profile folder {} can not be made ({error}): going on without it", path.display()),
            Ok(()) if is_private => close_to_others(&path),
            Ok(()) => {}
        }
    }
    Ok(profile.join("security"))
}

/// Makes sure that no other controller serves the profile and cluster id, and that none will.
fn alone(config: &Config, client_path: &Path) -> anyhow::Result<ProfileLock> {
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

/// Takes a folder away from everybody but its owner; refused, it is only told.
fn close_to_others(path: &std::path::Path) {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    let found = std::fs::metadata(path);
    if found.as_ref().is_ok_and(|found| found.mode() & 0o7777 == 0o700) {
        return;
    }
    if let Err(error) = std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)) {
        let state = match found {
            Ok(found) => format!("it belongs to user {} and has mode {:04o}", found.uid(), found.mode() & 0o7777),
            Err(error) => error.to_string(),
        };
        tracing::warn!(
            "profile folder {}: chmod 0700 was refused ({error}); {state}. It is used as it is: whoever may read it may read the key",
            path.display()
        );
    }
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

/// The key that the configuration names, if it names one.
fn signing_key(config: &Config) -> anyhow::Result<Option<String>> {
    let Some(path) = &config.session.keyfile else { return Ok(config.session.key.clone()) };
    let key = std::fs::read_to_string(path).with_context(|| format!("session.keyfile {}", path.display()))?;
    let key = key.trim().to_owned();
    if key.is_empty() {
        tracing::warn!("session.keyfile {} is empty: messages are not signed", path.display());
    }
    Ok(Some(key))
}

/// Settings that say otherwise than the connection files that are reused, which count.
fn overruled(config: &Config, key: Option<&str>, client: &ClientFile, engine: &EngineFile) -> Vec<String> {
    let controller = &config.controller;
    let ports = [&controller.ports, &controller.client_ports, &controller.engine_ports];
    let address = |file: &Common| file.interface.split_once("://").map_or("", |(_, address)| address).to_owned();
    let differs = |given: Option<&String>, file: String| given.is_some_and(|given| *given != file);
    let (clients, engines) = (address(&client.common), address(&engine.common));
    let is_default = controller.ip == Config::default().controller.ip;
    let ip = Some(&controller.ip).filter(|_| !is_default);
    let engine_ssh = Some(&controller.engine_ssh).filter(|ssh| !ssh.is_empty()).or(Some(&controller.ssh));
    [
        (key.is_some_and(|key| key != client.common.key), "session.key", "the key"),
        (differs(controller.client_ip.as_ref().or(ip), clients), "controller.ip (client_ip)", "the clients' address"),
        (differs(controller.engine_ip.as_ref().or(ip), engines), "controller.ip (engine_ip)", "the engines' address"),
        (ports.iter().any(|ports| !ports.is_empty()), "controller.ports (client_ports, engine_ports)", "every port"),
        (
            controller.registration_port.is_some_and(|port| port != 0 && port != client.common.registration),
            "controller.registration_port",
            "the port",
        ),
        (differs(controller.location.as_ref(), client.common.location.clone()), "controller.location", "the location"),
        (
            differs(Some(&controller.ssh).filter(|ssh| !ssh.is_empty()), client.common.ssh.clone())
                || differs(engine_ssh.filter(|ssh| !ssh.is_empty()), engine.common.ssh.clone()),
            "controller.ssh (engine_ssh)",
            "the way by ssh",
        ),
    ]
    .into_iter()
    .filter(|(applies, _, _)| *applies)
    .map(|(_, setting, what)| format!("{setting} has no effect: {what} comes from the connection files that are reused"))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse_toml;

    fn files() -> (ClientFile, EngineFile) {
        let common = serde_json::json!({
            "interface": "tcp://127.0.0.1", "location": "here", "registration": 1, "control": 2, "mux": 3, "task": 4, "iopub": 5,
            "key": "k", "pack": "json", "unpack": "json", "signature_scheme": "hmac-sha256", "notification": 6, "broadcast": 7,
            "task_scheme": "leastload", "hb_ping": 8, "hb_pong": 9,
        });
        let client = serde_json::from_value(common.clone()).unwrap();
        let mut engine = common;
        engine["broadcast"] = serde_json::json!([10]);
        (client, serde_json::from_value(engine).unwrap())
    }

    #[test]
    fn settings_that_reused_files_overrule_are_told() {
        let (client, engine) = files();
        for (text, key, says) in [
            ("", Some("other"), "session.key has no effect"),
            ("controller.ip = \"*\"\ncontroller.engine_ip = \"127.0.0.1\"", None, "controller.ip (client_ip) has no effect"),
            ("controller.ports = \"10-12\"", None, "controller.ports"),
            ("controller.registration_port = 5", None, "controller.registration_port"),
            ("controller.location = \"there\"", None, "controller.location"),
            ("controller.ssh = \"me@there\"", None, "controller.ssh"),
        ] {
            let notes = overruled(&parse_toml(text).unwrap(), key, &client, &engine);
            assert!(notes.len() == 1 && notes[0].starts_with(says), "{text}: {notes:?}");
        }
        let same = "controller.location = \"here\"\ncontroller.registration_port = 1\n";
        assert_eq!(overruled(&parse_toml(same).unwrap(), Some("k"), &client, &engine), Vec::<String>::new());
    }

    #[test]
    fn a_folder_that_can_not_be_closed_to_others_is_used() {
        // Of another user's, or on a file system that refuses: `/proc` is both.
        close_to_others(std::path::Path::new("/proc/sys"));
        let folder = tempfile::tempdir().unwrap();
        close_to_others(folder.path());
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(std::fs::metadata(folder.path()).unwrap().permissions().mode() & 0o7777, 0o700);
    }
}
