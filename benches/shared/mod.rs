//! A controller as a process, for the drivers.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use pointsman::core::net::files::read_json;

/// How long anything may take before a driver gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A controller and everything it has started.
pub(crate) struct Controller {
    pub(crate) child: Child,
    pub(crate) folder: tempfile::TempDir,
}

impl Controller {
    /// Starts one with this `pointsman.toml` in its profile.
    pub(crate) fn start(command: &[&str], config: &str) -> Controller {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("pointsman.toml"), config).expect("a config file");
        let child = Command::new(command[0])
            .args(&command[1..])
            .args(["--ping=500", "--log-level=40"])
            .env("IPP_PROFILE_DIR", folder.path())
            .env("IPYTHONDIR", folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a controller");
        Controller { child, folder }
    }

    /// A connection file, once it is there.
    pub(crate) fn file<T: serde::de::DeserializeOwned>(&self, role: &str) -> T {
        let path = self.folder.path().join(format!("security/ipcontroller-{role}.json"));
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Ok(file) = read_json(&path) {
                return file;
            }
            assert!(Instant::now() < deadline, "no {}", path.display());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}
