//! A controller as a process, native engines and work for them: what the drivers share.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pointsman::core::connection_file::EngineFile;
use pointsman::core::net::files::read_json;
use pointsman::core::peer::{Client, Engine, EngineHandle, Functions, TaskRequest};

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

/// Native engines that answer with what they are sent, and stop when this is dropped.
pub(crate) struct Engines(Vec<EngineHandle>);

impl Engines {
    pub(crate) fn start(context: &zmq::Context, file: &EngineFile, count: usize) -> Engines {
        let mut functions = Functions::new();
        functions.register_quick("echo", |argument| Ok(argument.to_vec()));
        let functions = Arc::new(functions);
        let start = |_| Engine::start(context, file, functions.clone(), None, PATIENCE).expect("an engine");
        Engines((0..count).map(start).collect())
    }
}

impl Drop for Engines {
    fn drop(&mut self) {
        self.0.iter().for_each(EngineHandle::stop);
        for engine in self.0.drain(..) {
            let _ = engine.join();
        }
    }
}

/// The task of all drivers: 300 bytes there and back.
pub(crate) fn echo() -> TaskRequest {
    TaskRequest::function("echo", vec![7u8; 300])
}

/// The next result, which has to come.
pub(crate) fn take_result(client: &mut Client) {
    let reply = client.next_reply(PATIENCE).expect("a socket").expect("a reply in time");
    reply.outcome.expect("a result");
}

/// Runs `count` tasks, at most `window` of them under way at once.
pub(crate) fn run_tasks(client: &mut Client, count: usize, window: usize) {
    let task = echo();
    let (mut sent, mut answered) = (0, 0);
    while answered < count {
        while sent < count && sent - answered < window {
            client.submit(&task).expect("a submission");
            sent += 1;
        }
        take_result(client);
        answered += 1;
    }
}
