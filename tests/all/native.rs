//! Native client and engines through a whole controller.

use std::collections::HashMap;
use std::time::Duration;

use pointsman::core::net::Clock;
use pointsman::core::peer::{Call, Client, PeerError, Reply, TaskRequest};
use serde_json::json;

use crate::world::{PATIENCE, World};

fn next(client: &mut Client) -> Reply {
    client.next_reply(PATIENCE).unwrap().expect("a reply")
}

#[test]
fn tasks_and_direct_requests_come_back_with_their_results() {
    let world = World::new(2, |_| {});
    let mut client = world.client();
    let mut expected = HashMap::new();
    for n in 0..200u32 {
        let id = client.submit(&TaskRequest::function("echo", n.to_le_bytes().to_vec())).unwrap();
        expected.insert(id, n.to_le_bytes().to_vec());
    }
    let engine = client.engines().unwrap()[&0].clone();
    let id = client.send_to(&engine, Call::Shell("tr a-z A-Z".into()), "shout").unwrap();
    expected.insert(id, b"SHOUT".to_vec());
    let big = vec![7u8; 2 << 20];
    let id = client.submit(&TaskRequest::function("echo", big.clone())).unwrap();
    expected.insert(id, big);
    while !expected.is_empty() {
        let reply = next(&mut client);
        assert_eq!(reply.outcome.unwrap(), expected.remove(&reply.msg_id).unwrap());
    }
    // Answers go to clients before the hub hears of them.
    let clock = Clock::default();
    while client.ask("queue_request", &json!({}), PATIENCE).unwrap()["unassigned"] != 0 {
        assert!(clock.now() < PATIENCE);
    }
}

#[test]
fn failures_are_told_by_name() {
    let world = World::new(1, |_| {});
    let mut client = world.client();
    for (call, ename) in [
        (Call::Function("fail".into()), "RuntimeError"),
        (Call::Function("panic".into()), "RuntimeError"),
        (Call::Function("nobody".into()), "NameError"),
        (Call::Shell("exit 3".into()), "CalledProcessError"),
    ] {
        client.submit(&TaskRequest::new(call.clone(), "")).unwrap();
        assert_eq!(next(&mut client).outcome.unwrap_err().ename, ename, "{call:?}");
    }
    let mut task = TaskRequest::function("echo", "");
    task.after = vec!["unknown_1_1".into()];
    client.submit(&task).unwrap();
    assert_eq!(next(&mut client).outcome.unwrap_err().ename, "InvalidDependency");
    client.submit(&TaskRequest::function("echo", "fine")).unwrap();
    assert_eq!(next(&mut client).outcome.unwrap(), "fine");
}

#[test]
fn dependencies_and_places_are_respected() {
    let world = World::new(3, |config| config.policy.set_hwm(2));
    let mut client = world.client();
    let first = client.submit(&TaskRequest::function("slow", "1")).unwrap();
    let mut second = TaskRequest::function("echo", "2");
    second.after = vec![first.clone()];
    second.follow = vec![first.clone()];
    let second = client.submit(&second).unwrap();
    let (a, b) = (next(&mut client), next(&mut client));
    assert_eq!((&a.msg_id, &b.msg_id, &a.engine), (&first, &second, &b.engine));
    assert!(a.completed <= b.started, "{a:?} {b:?}");
}

#[test]
fn engines_that_stop_are_gone_at_once_and_their_tasks_end() {
    let mut world = World::new(2, |_| {});
    let mut client = world.client();
    let uuid = world.engines[0].uuid().to_owned();
    let mut task = TaskRequest::new(Call::Shell("sleep 5".into()), "");
    task.targets = vec![uuid.clone()];
    let id = client.submit(&task).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    client.shutdown_engines(&[uuid]).unwrap();
    world.engines.remove(0).join().unwrap();
    let reply = next(&mut client);
    assert_eq!((reply.msg_id, reply.outcome.unwrap_err().ename.as_str()), (id, "EngineError"));
    client.submit(&TaskRequest::function("echo", "on")).unwrap();
    assert_eq!(next(&mut client).outcome.unwrap(), "on");
    assert_eq!(client.engines().unwrap().len(), 1);
}

#[test]
fn a_client_may_end_the_controller_and_files_go_with_it() {
    let mut world = World::new(1, |_| {});
    let file = world.controller().client_path().to_owned();
    assert!(file.exists());
    world.client().shutdown_controller(PATIENCE).unwrap();
    let controller = world.controller.take().unwrap();
    assert_eq!(controller.wait(), pointsman::controller::Ending::Asked);
    assert!(!file.exists());
}

#[test]
fn a_wrong_key_is_answered_by_silence_and_a_right_one_at_once() {
    let world = World::new(0, |_| {});
    let mut file = world.controller().client_file().clone();
    file.common.key = "another".into();
    let refused = Client::connect(&world.context, &file, Duration::from_millis(300));
    assert!(matches!(refused, Err(PeerError::Timeout(_))), "{refused:?}");
    world.client();
}

#[test]
fn without_a_key_everything_works_unsigned() {
    let world = World::new(1, |config| config.session.key = Some(String::new()));
    let mut client = world.client();
    client.submit(&TaskRequest::function("echo", "plain")).unwrap();
    assert_eq!(next(&mut client).outcome.unwrap(), "plain");
}

#[test]
fn ipc_works_where_the_reference_never_did() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s").display().to_string();
    let world = World::new(1, |config| {
        config.controller.transport = pointsman::config::Transport::Ipc;
        config.controller.ip = path;
    });
    let mut client = world.client();
    client.submit(&TaskRequest::function("echo", "files")).unwrap();
    assert_eq!(next(&mut client).outcome.unwrap(), "files");
    assert!(world.folder().join("security").exists());
}

#[test]
fn connection_files_are_private_and_agree() {
    use std::os::unix::fs::PermissionsExt as _;
    let world = World::new(0, |config| config.controller.cluster_id = Some("c7".into()));
    for (path, role) in [(world.controller().client_path(), "client"), (world.controller().engine_path(), "engine")] {
        assert!(path.ends_with(format!("security/ipcontroller-c7-{role}.json")));
        assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let client: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(world.controller().client_path()).unwrap()).unwrap();
    let engine: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(world.controller().engine_path()).unwrap()).unwrap();
    assert!(client["registration"] == engine["registration"] && client["mux"] != engine["mux"]);
    assert!(client["broadcast"].is_u64() && engine["broadcast"].as_array().unwrap().len() == 2);
    assert_eq!(std::fs::metadata(world.folder().join("security")).unwrap().permissions().mode() & 0o777, 0o700);
}
