//! The README's first command, small: it must finish, be right, and print its table.

use std::process::Command;

#[test]
fn the_demo_runs_and_its_graph_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let dot = folder.path().join("graph.dot");
    let output = Command::new(env!("CARGO_BIN_EXE_pointsman"))
        .args(["demo", "--tiles=5", "--tile-rows=16", "--engines=3", "--schemes=lru;weighted", "--dot"])
        .arg(&dot)
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{shown}\n{}", String::from_utf8_lossy(&output.stderr));
    // 5 + 10 + 10 + 10 tasks of the four kernels, all of them in the records.
    assert!(shown.contains("35 tasks") && shown.matches("35 records").count() == 2, "{shown}");
    assert!(shown.contains("makespan") && shown.contains("weighted"), "{shown}");
    assert!(std::fs::read_to_string(dot).unwrap().starts_with("digraph"));
}
