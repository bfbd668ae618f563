//! Policies of a running controller: shown, explained, paused, drained, and changed under load without a task lost or doubled.

use std::collections::{HashMap, HashSet};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pointsman::core::peer::{Client, PeerError, TaskRequest};
use pointsman::policies::{Axis, Registry};
use serde_json::{Value, json};

use crate::world::{PATIENCE, World};

fn errand(client: &mut Client, content: Value) -> Result<Value, String> {
    client.ask("pointsman_request", &content, PATIENCE).map_err(|error| match error {
        PeerError::Refused(refused) => refused.evalue,
        other => other.to_string(),
    })
}

fn set(client: &mut Client, policies: &[&str]) -> Result<Value, String> {
    errand(client, json!({"action": "set", "policies": policies}))
}

/// Keeps a few hundred tasks in flight until told to stop, then waits for the rest. Returns the ids in the order of submission; each had
/// exactly one answer, and the right one.
fn keep_busy(mut client: Client, stop: &AtomicBool) -> Vec<String> {
    let (mut order, mut open, mut number) = (Vec::<String>::new(), HashMap::new(), 0_u64);
    let stopping = || stop.load(Ordering::Relaxed);
    while !stopping() || !open.is_empty() {
        while open.len() < 300 && !stopping() {
            number += 1;
            let mut task = TaskRequest::function("echo", number.to_string());
            if number.is_multiple_of(7) {
                task.follow = vec![order[order.len() - 1].clone()];
            }
            let id = client.submit(&task).unwrap();
            order.push(id.clone());
            open.insert(id, number.to_string());
        }
        let reply = client.next_reply(PATIENCE).unwrap().expect("a task was lost");
        let expected = open.remove(&reply.msg_id).expect("a task was answered twice");
        assert_eq!(reply.outcome.unwrap(), expected);
    }
    assert!(client.next_reply(Duration::from_millis(50)).unwrap().is_none(), "a task was answered twice");
    order
}

#[test]
fn policies_change_every_tenth_of_a_second_under_load_and_nothing_is_lost_or_doubled() {
    let lasts = std::env::var("POINTSMAN_SWAP_S").map_or(8.0, |seconds| seconds.parse().expect("seconds"));
    let folder = tempfile::tempdir().unwrap();
    let decisions = folder.path().join("decisions.jsonl");
    let world = World::new(4, |config| {
        config.policy.log_decisions = 50_000;
        config.policy.decision_file = Some(decisions.clone());
        config.policy.set_hwm(2);
    });
    let registry = Registry::builtin();
    let schemes: Vec<&str> = registry.on(Axis::Placement).map(|entry| entry.name).collect();
    // Orders that keep each client's tasks in the order of submission.
    let others = [
        "fair",
        "fixed[hwm=3]",
        "hedge",
        "priority",
        "adaptive",
        "deadline",
        "fixed[hwm=0]",
        "replace",
        "fifo",
        "none",
        "fixed[hwm=1]",
    ];
    let stop = AtomicBool::new(false);
    let (orders, swaps) = std::thread::scope(|scope| {
        let busy: Vec<_> = (0..3).map(|_| world.client()).map(|client| scope.spawn(|| keep_busy(client, &stop))).collect();
        let mut control = world.client();
        let (started, mut swaps) = (Instant::now(), 0);
        while started.elapsed().as_secs_f64() < lasts {
            let other = others[swaps % others.len()];
            set(&mut control, &[schemes[swaps % schemes.len()], other]).unwrap();
            if swaps % 10 == 3 {
                assert!(set(&mut control, &["lru", "fifo[x=1]"]).unwrap_err().contains("unknown field"));
                let shadows = json!({"action": "shadow", "schemes": [schemes[(swaps / 10) % schemes.len()], "lru"]});
                errand(&mut control, shadows).unwrap();
            }
            swaps += 1;
            std::thread::sleep(Duration::from_millis(100));
        }
        stop.store(true, Ordering::Relaxed);
        (busy.into_iter().map(|busy| busy.join().unwrap()).collect::<Vec<_>>(), swaps)
    });
    let total: usize = orders.iter().map(Vec::len).sum();
    println!("{total} tasks under {swaps} changes of policy");
    assert!(swaps > schemes.len() && total > 1000);
    let overview = errand(&mut world.client(), json!({"action": "show"})).unwrap();
    assert_eq!((&overview["state"]["tasks"]["live"], &overview["state"]["scheme_faults"]), (&json!(0), &json!(0)));
    assert!(overview["state"]["shadows"].as_array().unwrap().iter().all(|shadow| shadow["faults"] == 0), "{overview}");

    // Every decision is written down: of the tasks free to go anywhere, each client's were sent in the order of submission.
    drop(world);
    let deadline = Instant::now() + PATIENCE;
    let mut place: HashMap<String, (usize, usize)> = HashMap::new();
    for (client, ids) in orders.iter().enumerate() {
        place.extend(ids.iter().enumerate().map(|(n, id)| (id.clone(), (client, n))));
    }
    loop {
        let text = std::fs::read_to_string(&decisions).unwrap();
        let lines: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        // A task that was taken back from a slow engine is sent again, and not in its order.
        let mut seen = HashSet::new();
        let mut is_first =
            |line: &&Value| line["chosen"].is_u64() && seen.insert(line["task"].as_str().unwrap_or_default().to_owned());
        let sent: Vec<&Value> = lines.iter().filter(&mut is_first).collect();
        if sent.len() < total && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(50));
            continue;
        }
        assert_eq!(sent.len(), total, "each task was sent");
        let mut last = [None; 3];
        for line in sent {
            let (client, n) = place[line["task"].as_str().unwrap()];
            if (n + 1).is_multiple_of(7) {
                continue; // bound to another's place
            }
            assert!(last[client].is_none_or(|last| last < n), "client {client}: {n} after {last:?}");
            last[client] = Some(n);
        }
        break;
    }
}

#[test]
fn what_waits_is_explained_and_what_is_wrong_is_refused() {
    let world = World::new(1, |config| {
        config.policy.log_decisions = 100;
        config.policy.shadow = vec!["lru".parse().unwrap()];
    });
    let (mut client, mut control) = (world.client(), world.client());
    let why = |control: &mut Client, task: &str| {
        let answer = errand(control, json!({"action": "explain", "task": task})).unwrap();
        (
            answer["state"].as_str().unwrap().to_owned(),
            answer["reason"].as_str().unwrap_or("").to_owned(),
            answer["why"].to_string(),
        )
    };
    let first = client.submit(&TaskRequest::function("slow", "1")).unwrap();
    let second = client.submit(&TaskRequest::function("echo", "2")).unwrap();
    let mut third = TaskRequest::function("echo", "3");
    third.after = vec![second.clone()];
    let third = client.submit(&third).unwrap();
    // The hub answers on a connection of its own.
    let deadline = Instant::now() + PATIENCE;
    while errand(&mut control, json!({"action": "explain", "task": third})).is_err() {
        assert!(Instant::now() < deadline);
    }
    let (state, _, told) = why(&mut control, &first);
    assert!(state == "running" && told.contains("chose engine 0"), "{told}");
    let (_, reason, told) = why(&mut control, &second);
    assert!(reason == "hwm" && told.contains("1 full"), "{told}");
    let (state, reason, told) = why(&mut control, &third);
    assert!(state == "blocked" && reason == "dependency" && told.contains(&second), "{told}");
    errand(&mut control, json!({"action": "pause"})).unwrap();
    assert_eq!(why(&mut control, &second).1, "paused");
    assert_eq!(client.next_reply(PATIENCE).unwrap().unwrap().msg_id, first);
    assert!(client.next_reply(Duration::from_millis(100)).unwrap().is_none());
    errand(&mut control, json!({"action": "drain", "engine": 0, "draining": true})).unwrap();
    errand(&mut control, json!({"action": "resume"})).unwrap();
    let (_, _, told) = why(&mut control, &second);
    assert!(told.contains("1 draining"), "{told}");
    errand(&mut control, json!({"action": "drain", "engine": 0, "draining": false})).unwrap();
    assert_eq!(client.next_reply(PATIENCE).unwrap().unwrap().msg_id, second);
    assert_eq!(client.next_reply(PATIENCE).unwrap().unwrap().msg_id, third);
    let (state, _, told) = why(&mut control, &third);
    assert!(state == "ended" && told.contains("succeeded") && told.contains("chose engine 0"), "{told}");

    for (content, says) in [
        (json!({"action": "explain", "task": "nobody"}), "no task of the id 'nobody'"),
        (json!({"action": "drain", "engine": 7, "draining": true}), "no engine 7"),
        (json!({"action": "set", "policies": ["leastlaod"]}), "did you mean 'leastload'?"),
        (json!({"action": "set", "policies": ["lru", "twobin"]}), "both decide the placement"),
        (json!({"action": "set", "policies": ["fair", "choices[d=0]"]}), "d must be from 1"),
        (json!({"action": "set", "policies": []}), "no policy is named"),
        (json!({"action": "dance"}), "unknown variant `dance`"),
        (json!({"action": "set", "policies": ["lru"], "more": 1}), "unknown field `more`"),
        (json!({}), "missing field `action`"),
    ] {
        let error = errand(&mut control, content.clone()).unwrap_err();
        assert!(error.contains(says), "{content}: {error}");
    }
    let shown = errand(&mut control, json!({"action": "show"})).unwrap();
    let shadow = &shown["state"]["shadows"][0];
    assert!(shadow["scheme"] == "lru" && shadow["decisions"] == 3 && shadow["agreement"] == 1.0, "{shadow}");
    assert!(shadow["cost_ns"].as_f64().unwrap() > 0.0, "{shadow}");
    assert_eq!((&shown["policies"]["placement"]["name"], &shown["policies"]["order"]), (&json!("leastload"), &json!("fifo")));
}

#[test]
fn the_command_line_shows_and_changes_them_and_a_file_is_read_again() {
    let world = World::new(2, |_| {});
    let file = world.controller().client_path().display().to_string();
    let run = |args: &[&str]| {
        let bin = env!("CARGO_BIN_EXE_pointsman");
        let output = Command::new(bin).args(args).args(["--file", &file]).stdin(Stdio::null()).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let (ok, text) = run(&["policy", "show"]);
    assert!(ok && text.contains("placement  leastload[tie=lru]") && text.contains("open"), "{text}");
    let (ok, text) = run(&["policy", "set", "choices", "--param", "d=3", "--param", "memory=true"]);
    assert!(ok && text.contains("d=3") && text.contains("memory=true"), "{text}");
    let (ok, text) = run(&["policy", "set", "pure"]);
    assert!(ok && text.contains("fixed[hwm=0]"), "a scheme brings its limit: {text}");
    let (ok, text) = run(&["policy", "set", "choices[d=3,memory=true]"]);
    assert!(ok && text.contains("fixed[hwm=1]"), "{text}");
    let (ok, text) = run(&["policy", "set", "fair", "adaptive[max=8]"]);
    assert!(ok && text.contains("order      fair") && text.contains("choices") && text.contains("max=8"), "{text}");
    let (ok, text) = run(&["policy", "set", "fairr"]);
    assert!(!ok && text.contains("did you mean 'fair'?"), "{text}");
    for (args, says) in [
        (&["policy", "shadow", "lru", "twobin"][..], "lru"),
        (&["policy", "pause"], "paused"),
        (&["policy", "show"], "; paused"),
        (&["policy", "resume"], "resumed"),
        (&["policy", "drain", "1"], "takes no more tasks"),
        (&["policy", "show"], "draining"),
        (&["policy", "undrain", "1"], "takes tasks"),
    ] {
        let (ok, text) = run(args);
        assert!(ok && text.contains(says), "{args:?}: {text}");
    }
    let mut client = world.client();
    let id = client.submit(&TaskRequest::function("echo", "x")).unwrap();
    client.next_reply(PATIENCE).unwrap().unwrap();
    let (ok, text) = run(&["explain", &id]);
    assert!(ok && text.starts_with("ended: it succeeded on engine"), "{text}");
    let (_, text) = run(&["policy", "show"]);
    assert!(text.contains("100.0 %") || text.contains("0.0 %"), "shadows are compared: {text}");
    let record = client.ask("db_request", &json!({"query": {"msg_id": id}, "keys": ["result_metadata"]}), PATIENCE).unwrap();
    let policies = record["records"][0]["result_metadata"]["policies"].as_str().unwrap().to_owned();
    assert!(policies.contains("placement choices[d=3,") && policies.contains("order fair["), "{policies}");
}

#[test]
fn a_signal_makes_a_controller_read_its_policies_again() {
    let folder = tempfile::tempdir().unwrap();
    let (toml, log) = (folder.path().join("pointsman.toml"), folder.path().join("log.txt"));
    std::fs::write(&toml, "[policy]\nplacement = \"lru\"\n").unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_pointsman"))
        .args(["controller"])
        .env("IPP_PROFILE_DIR", folder.path())
        .env_remove("RUST_LOG")
        .stderr(std::fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let saw = |text: &str| {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let lines = std::fs::read_to_string(&log).unwrap();
            if lines.contains(text) {
                return;
            }
            assert!(Instant::now() < deadline, "no '{text}' in {lines}");
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    let hup = || assert!(Command::new("kill").args(["-HUP", &child.id().to_string()]).status().unwrap().success());
    saw("policies: placement lru, order fifo, admission fixed[hwm=1], rebalance none, seed ");
    saw("listening");
    hup();
    saw("the policies are as they were");
    std::fs::write(&toml, "[policy]\nplacement = \"twobin\"\norder = \"lifo\"\n").unwrap();
    hup();
    saw("policies: placement twobin, order lifo");
    std::fs::write(&toml, "[policy]\nplacement = \"twobim\"\n").unwrap();
    hup();
    saw("did you mean 'twobin'?");
    std::fs::write(&toml, "[policy]\nplacement = \"twobin\"\norder = \"lifo\"\n[heartbeat]\nperiod_ms = 77\n").unwrap();
    hup();
    saw("settings other than the four policies have changed");
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
