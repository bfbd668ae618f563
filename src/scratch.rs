//! Folders for the time of a run. They go when they are dropped, and also when a signal ends the process: nothing of a run that was
//! interrupted stays behind, and the process still ends as the signal says.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, Once, PoisonError};
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

/// Those that are there now.
static FOLDERS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
static WATCH: Once = Once::new();

/// How often, and after which pause, a folder is removed in which somebody was still writing.
const ATTEMPTS: usize = 50;
const PAUSE: Duration = Duration::from_millis(20);

/// A fresh folder that goes with its owner, or with the process.
#[derive(Debug)]
pub(crate) struct Scratch {
    folder: tempfile::TempDir,
}

impl Scratch {
    /// Makes one, below the system's folder for temporary files. The first of a process starts a thread that sleeps until SIGINT or SIGTERM.
    ///
    /// # Errors
    /// If the folder or the thread can not be made.
    pub(crate) fn new() -> io::Result<Scratch> {
        let mut outcome = Ok(());
        WATCH.call_once(|| outcome = watch());
        outcome?;
        let folder = tempfile::Builder::new().prefix("pointsman-").tempdir()?;
        folders(|folders| folders.push(folder.path().to_owned()));
        Ok(Scratch { folder })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        folders(|folders| folders.retain(|path| path != self.folder.path()));
    }
}

/// A panic elsewhere leaves the list whole.
fn folders(change: impl FnOnce(&mut Vec<PathBuf>)) {
    change(&mut FOLDERS.lock().unwrap_or_else(PoisonError::into_inner));
}

fn watch() -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    std::thread::Builder::new().name("scratch".into()).spawn(move || {
        for signal in signals.forever() {
            folders(|folders| folders.drain(..).for_each(|folder| remove(&folder)));
            let _ = emulate_default_handler(signal);
        }
    })?;
    Ok(())
}

/// Removes a folder in which threads of this process, or its children, may still be writing.
fn remove(folder: &Path) {
    for _ in 0..ATTEMPTS {
        match std::fs::remove_dir_all(folder) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}
