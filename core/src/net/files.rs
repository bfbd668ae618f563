//! Connection files on disk: written whole or not at all, readable by their owner only, and removed together.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

/// Replaces `path` by `text` atomically, mode 0600: a reader sees the old file or the new one, never a part.
///
/// # Errors
/// If the folder does not exist or can not be written.
pub fn write_atomically(path: &Path, text: &str) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".pointsman-").tempfile_in(folder)?;
    file.as_file().set_permissions(fs::Permissions::from_mode(0o600))?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

/// Reads a JSON file.
///
/// # Errors
/// If it is not there, or not the JSON of `T`; the message names the file.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    let named = |error: String| io::Error::other(format!("{}: {error}", path.display()));
    let text = fs::read_to_string(path).map_err(|error| named(error.to_string()))?;
    serde_json::from_str(&text).map_err(|error| named(error.to_string()))
}

/// Files that are removed when this is dropped, unless told to stay. One that somebody has replaced meanwhile stays: it is theirs.
#[derive(Debug, Default)]
pub struct RemoveOnDrop {
    files: Vec<(PathBuf, String)>,
}

impl RemoveOnDrop {
    /// Adds a file with the text that was written to it.
    pub fn add(&mut self, path: PathBuf, text: String) {
        self.files.push((path, text));
    }

    /// Lets them all stay.
    pub fn keep(&mut self) {
        self.files.clear();
    }
}

impl Drop for RemoveOnDrop {
    fn drop(&mut self) {
        for (path, text) in &self.files {
            let removed = match fs::read_to_string(path) {
                Ok(found) if found == *text => fs::remove_file(path),
                Ok(_) => {
                    tracing::warn!("{} is another controller's now, and stays", path.display());
                    continue;
                }
                Err(error) => Err(error),
            };
            if let Err(error) = removed
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!("could not remove {}: {error}", path.display());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_somebody_has_replaced_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (own, theirs) = (folder.path().join("own"), folder.path().join("theirs"));
        let mut files = RemoveOnDrop::default();
        for path in [&own, &theirs] {
            write_atomically(path, "mine").unwrap();
            files.add(path.clone(), "mine".into());
        }
        write_atomically(&theirs, "yours").unwrap();
        drop(files);
        assert!(!own.exists() && theirs.exists());
    }
}
