//! The README's first command, small: it must finish, be right, and print its table.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::world::PATIENCE;

#[test]
fn the_demo_runs_and_its_graph_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let dot = folder.path().join("graph.dot");
    let output = Command::new(env!("CARGO_BIN_EXE_pointsman"))
        .args(["demo", "--tiles=5", "--tile-rows=16", "--engines=3", "--rounds=2", "--schemes=lru;weighted", "--dot"])
        .arg(&dot)
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{shown}\n{}", String::from_utf8_lossy(&output.stderr));
    // 5 + 10 + 10 + 10 tasks of the four kernels, all of them in the records.
    assert!(shown.contains("35 tasks") && shown.matches("35 records").count() == 4, "{shown}");
    // How long it takes is said before anything runs.
    assert!(shown.find("2 runs of each in turns: about").unwrap() < shown.find("factorised in").unwrap(), "{shown}");
    // So little work is not compared, and nothing that took time took none.
    assert!(shown.contains("messages, not work") && !shown.contains(" 0.000 "), "{shown}");
    assert!(shown.contains("makespan") && shown.contains("weighted"), "{shown}");
    assert!(std::fs::read_to_string(dot).unwrap().starts_with("digraph"));
}

/// Everything that a run has made goes, whichever way it ends.
#[test]
fn a_demo_that_is_interrupted_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let mut demo = Command::new(env!("CARGO_BIN_EXE_pointsman"))
        .args(["demo", "--tiles=30", "--tile-rows=200", "--engines=2"])
        .env("TMPDIR", folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let inside = || std::fs::read_dir(folder.path()).unwrap().flatten().map(|entry| entry.path()).collect::<Vec<_>>();
    // Until its controller has written the files by which it is found.
    let started = Instant::now();
    while !inside().iter().any(|path| path.join("security/ipcontroller-client.json").exists()) {
        assert!(started.elapsed() < PATIENCE, "nothing was started");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(Command::new("kill").args(["-INT", &demo.id().to_string()]).status().unwrap().success());
    let status = demo.wait().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(2), "{status}");
    assert_eq!(inside(), Vec::<std::path::PathBuf>::new());
}
