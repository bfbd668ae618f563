//! The example's policies against the suite for schemes, and its program at the head of a cluster.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pointsman::core::connection_file::{ClientFile, EngineFile};
use pointsman::core::net::files::read_json;
use pointsman::core::peer::{Client, Engine, EngineHandle, Functions, TaskRequest};
use pointsman_policies::{Registry, conformance};

const BIN: &str = env!("CARGO_BIN_EXE_example-pointsman");
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn the_scheme_conforms() {
    let mut registry = Registry::builtin();
    pointsman_example::register(&mut registry).unwrap();
    for spec in ["bestfit", "bestfit[room=1]", "bestfit[room=1000]"] {
        for seed in 0..40 {
            let made = || registry.build(&spec.parse().unwrap()).unwrap();
            conformance::run(made, seed, 1 + seed as usize % 12, 400, true).unwrap_or_else(|error| panic!("{spec}: {error}"));
        }
    }
    let error = registry.build(&"bestfit[room=0]".parse().unwrap()).err().unwrap().to_string();
    assert_eq!(error, "bestfit: room must be from 1 to 1000, not 0");
    assert!(pointsman_example::register(&mut registry).is_err(), "a name is taken once");
}

struct Controller(Child);

impl Drop for Controller {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_program_runs_a_cluster_with_them() {
    let listed = Command::new(BIN).args(["schemes", "--markdown"]).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.contains("| `bestfit` |") && listed.contains("| `smallfirst` |") && listed.contains("| `leastload`"));

    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(BIN);
    command
        .args(["controller", "--scheme=bestfit[room=3]", "--order=smallfirst", "--hwm=0"])
        .env("IPP_PROFILE_DIR", folder.path());
    let _controller = Controller(command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let path = |role: &str| folder.path().join(format!("security/ipcontroller-{role}.json"));
    let deadline = Instant::now() + PATIENCE;
    while !path("client").exists() {
        assert!(Instant::now() < deadline, "the controller did not start");
        std::thread::sleep(Duration::from_millis(10));
    }
    let (engine_file, client_file): (EngineFile, ClientFile) =
        (read_json(&path("engine")).unwrap(), read_json(&path("client")).unwrap());

    let mut functions = Functions::new();
    functions.register("nap", |argument| {
        std::thread::sleep(Duration::from_millis(100));
        Ok(argument.to_vec())
    });
    let (context, functions) = (zmq::Context::new(), Arc::new(functions));
    let start = |n| Engine::start(&context, &engine_file, functions.clone(), Some(n), PATIENCE).unwrap();
    let engines: Vec<EngineHandle> = (0..3).map(start).collect();
    let mut client = Client::connect(&context, &client_file, PATIENCE).unwrap();
    client.wait_for_engines(3, PATIENCE).unwrap();

    let ids: Vec<String> = (0..5).map(|n| client.submit(&TaskRequest::function("nap", n.to_string())).unwrap()).collect();
    let mut places = std::collections::BTreeMap::<String, usize>::new();
    for _ in &ids {
        let reply = client.next_reply(PATIENCE).unwrap().expect("a reply");
        assert!(ids.contains(&reply.msg_id) && reply.outcome.is_ok());
        *places.entry(reply.engine).or_default() += 1;
    }
    let mut counts: Vec<usize> = places.into_values().collect();
    counts.sort_unstable();
    assert_eq!(counts, [2, 3], "one engine is filled before the next is used, and the third stays free");
    let shown = client.ask("pointsman_request", &serde_json::json!({"action": "show"}), PATIENCE).unwrap();
    assert_eq!(shown["policies"]["order"], "smallfirst");
    engines.iter().for_each(EngineHandle::stop);
    for engine in engines {
        let _ = engine.join();
    }
}
