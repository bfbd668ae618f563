//! A controller in this process with native engines: two lines set one up, dropping it takes it down.

use std::sync::Arc;
use std::time::Duration;

use pointsman::config::Config;
use pointsman::controller::{Controller, Ending, Stopper};
use pointsman::core::peer::{Client, Engine, EngineHandle, Functions};

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct World {
    pub(crate) controller: Option<Controller>,
    pub(crate) engines: Vec<EngineHandle>,
    pub(crate) context: zmq::Context,
    stopper: Stopper,
    folder: tempfile::TempDir,
}

/// What test engines can do.
fn functions() -> Arc<Functions> {
    let mut functions = Functions::new();
    functions.register_quick("echo", |argument| Ok(argument.to_vec()));
    functions.register("slow", |argument| {
        std::thread::sleep(Duration::from_millis(200));
        Ok(argument.to_vec())
    });
    functions.register("fail", |_| Err("on purpose".into()));
    functions.register("panic", |_| panic!("a user's mistake"));
    Arc::new(functions)
}

impl World {
    pub(crate) fn new(engines: usize, change: impl FnOnce(&mut Config)) -> World {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.controller.profile_dir = Some(folder.path().to_owned());
        config.heartbeat.period_ms = 200;
        config.scheduler.grace_ms = 200;
        change(&mut config);
        let controller = Controller::start(&config, &Arc::new(pointsman::builtin())).unwrap();
        let stopper = controller.stopper();
        let mut world = World { controller: Some(controller), engines: vec![], context: zmq::Context::new(), stopper, folder };
        for _ in 0..engines {
            world.add_engine();
        }
        if engines > 0 {
            world.client().wait_for_engines(engines, PATIENCE).unwrap();
        }
        world
    }

    pub(crate) fn controller(&self) -> &Controller {
        self.controller.as_ref().unwrap()
    }

    pub(crate) fn add_engine(&mut self) {
        let file = self.controller().engine_file();
        self.engines.push(Engine::start(&self.context, file, functions(), None, PATIENCE).unwrap());
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(&self.context, self.controller().client_file(), PATIENCE).unwrap()
    }

    pub(crate) fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.engines.iter().for_each(EngineHandle::stop);
        for engine in self.engines.drain(..) {
            let _ = engine.join();
        }
        if let Some(controller) = self.controller.take() {
            self.stopper.stop();
            let ending = controller.wait();
            if !std::thread::panicking() {
                assert_eq!(ending, Ending::Asked);
            }
        }
    }
}
