//! One controller for a profile and cluster id: a lock on a file of the profile, held for life and given back by the kernel whatever ends the
//! process. Its text says who holds it; whether it is held says whether that one lives, so a number that is used again deceives nobody.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use pointsman_core::net::Clock;
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

/// Who holds a lock.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Holder {
    /// Its process.
    pub(crate) pid: u32,
    /// When it started, in UTC.
    pub(crate) since: String,
    /// The file by which clients find it; bytes of its name that are no text are replaced.
    #[serde(serialize_with = "as_text")]
    pub(crate) client_file: PathBuf,
    /// It is coming to its end.
    #[serde(default)]
    pub(crate) is_ending: bool,
}

#[expect(clippy::ptr_arg, reason = "serde hands a reference to the field")]
fn as_text<S: serde::Serializer>(path: &PathBuf, to: S) -> Result<S::Ok, S::Error> {
    path.to_string_lossy().serialize(to)
}

/// The lock, held until this is dropped.
#[derive(Debug)]
pub(super) struct ProfileLock {
    /// None where the file system has no locks.
    file: Option<File>,
    path: PathBuf,
    holder: Holder,
}

/// How long a controller that has been told to end may take: it gives its parts four seconds.
const ENDING: Duration = Duration::from_secs(6);
/// How long it may take to hear of it.
const HEARING: Duration = Duration::from_millis(300);

/// The file that is locked for the controller of a cluster id.
pub(crate) fn path(profile: &Path, cluster_id: Option<&str>) -> PathBuf {
    let id = cluster_id.map(|id| format!("-{id}")).unwrap_or_default();
    profile.join("pid").join(format!("pointsman{id}.lock"))
}

impl ProfileLock {
    /// Takes the lock of a profile and cluster id. Waits for a holder that is about to end, and for nobody else.
    ///
    /// # Errors
    /// If another controller holds it; with its process and what to do.
    pub(super) fn take(profile: &Path, cluster_id: Option<&str>, client_file: &Path) -> anyhow::Result<ProfileLock> {
        let path = path(profile, cluster_id);
        let clock = Clock::default();
        let file = loop {
            let file = open(&path).with_context(|| format!("lock file {}", path.display()))?;
            match file.try_lock() {
                // Whoever ended took its name away; a file without a name locks out nobody.
                Ok(()) if is_named(&file, &path) => break Some(file),
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    let holder = read(&file).unwrap_or_default();
                    if clock.now() > if holder.is_ending { ENDING } else { HEARING } {
                        bail!(
                            "a controller (pid {}, since {}) already serves this profile{}: use --cluster-id NAME, --profile NAME, or stop it \
                             ({})",
                            holder.pid,
                            holder.since,
                            cluster_id.map(|id| format!(" and cluster id {id}")).unwrap_or_default(),
                            path.display()
                        );
                    }
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(TryLockError::Error(error)) => {
                    tracing::warn!("{}: no lock can be had, so a second controller would go unnoticed: {error}", path.display());
                    break None;
                }
            }
        };
        // To the second.
        let since = format!("{}Z", Clock::date().to_string().chars().take(19).collect::<String>());
        let holder = Holder { pid: std::process::id(), since, client_file: client_file.to_owned(), is_ending: false };
        let lock = ProfileLock { file, path, holder };
        lock.write();
        Ok(lock)
    }

    /// Says that the end has begun: whoever wants to be next may wait.
    pub(super) fn say_ending(&mut self) {
        self.holder.is_ending = true;
        self.write();
    }

    fn write(&self) {
        let Some(mut file) = self.file.as_ref() else { return };
        let text = serde_json::to_string(&self.holder).unwrap_or_default();
        let written = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(text.as_bytes()));
        if let Err(error) = written {
            tracing::warn!("{}: {error}", self.path.display());
        }
    }
}

impl Drop for ProfileLock {
    fn drop(&mut self) {
        // While it is held nobody else's file has this name.
        if self.file.is_some() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Opens the file, and nothing else that may bear its name: what a link points to would be overwritten, and a pipe would be waited for.
fn open(path: &Path) -> std::io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(flags.bits().cast_signed());
    let file = options.open(path)?;
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("it is no plain file: remove it"));
    }
    Ok(file)
}

fn is_named(file: &File, path: &Path) -> bool {
    let ids = |metadata: &std::fs::Metadata| (metadata.dev(), metadata.ino());
    matches!((file.metadata(), std::fs::metadata(path)), (Ok(held), Ok(named)) if ids(&held) == ids(&named))
}

fn read(mut file: &File) -> Option<Holder> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(1 << 16).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

/// Whether a lock is held, and by whom as far as its text says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    /// By a process that lives.
    By(Holder),
    /// By nobody: whoever had it died without an end.
    ByNobody,
    /// There is no such lock: nobody of ours serves there, or it ended in order.
    NoLock,
}

/// Who holds the lock of a profile and cluster id.
pub(crate) fn held(profile: &Path, cluster_id: Option<&str>) -> Held {
    let Ok(file) = OpenOptions::new().read(true).open(path(profile, cluster_id)) else { return Held::NoLock };
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => Held::By(read(&file).unwrap_or_default()),
        _ => Held::ByNobody,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_refused_with_the_first_and_the_lock_is_free_when_that_has_gone() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("pid")).unwrap();
        let take = |id: Option<&str>| ProfileLock::take(folder.path(), id, Path::new("c.json"));
        assert_eq!(held(folder.path(), None), Held::NoLock);
        let mut first = take(None).unwrap();
        let error = take(None).unwrap_err().to_string();
        let (pid, since) = (std::process::id(), first.holder.since.clone());
        assert!(error.contains(&format!("(pid {pid}, since {since})")) && error.contains("--cluster-id NAME"), "{error}");
        let other = take(Some("x")).unwrap();
        assert_eq!(held(folder.path(), Some("x")), Held::By(other.holder.clone()));
        first.say_ending();
        std::thread::scope(|scope| {
            let next = scope.spawn(|| take(None).map(drop));
            drop(first);
            assert!(next.join().unwrap().is_ok(), "who waits for one that ends gets its lock");
        });
        // As a process leaves it that is killed.
        std::fs::write(path(folder.path(), None), "{}").unwrap();
        assert_eq!(held(folder.path(), None), Held::ByNobody);
        drop(take(None).unwrap());
        drop(other);
        assert_eq!(std::fs::read_dir(folder.path().join("pid")).unwrap().count(), 0);
    }

    #[test]
    fn what_is_no_plain_file_is_neither_overwritten_nor_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("pid")).unwrap();
        let precious = folder.path().join("precious");
        std::fs::write(&precious, "precious").unwrap();
        let lock = path(folder.path(), None);
        std::os::unix::fs::symlink(&precious, &lock).unwrap();
        assert!(ProfileLock::take(folder.path(), None, Path::new("c.json")).is_err());
        assert_eq!(std::fs::read_to_string(&precious).unwrap(), "precious");
        std::fs::remove_file(&lock).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &lock, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
        let error = format!("{:#}", ProfileLock::take(folder.path(), None, Path::new("c.json")).unwrap_err());
        assert!(error.contains("no plain file"), "{error}");
    }
}
