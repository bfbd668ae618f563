//! The program as users and launchers call it.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const BIN: &str = env!("CARGO_BIN_EXE_pointsman");

fn run(profile: &Path, args: &[&str]) -> Output {
    Command::new(BIN).args(args).env("IPP_PROFILE_DIR", profile).env_remove("RUST_LOG").stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn it_says_what_it_can_do() {
    let folder = tempfile::tempdir().unwrap();
    for line in [&["--help"][..], &["controller", "--help"], &["controller", "--help-all"], &["controller", "-h"], &["--version"]]
    {
        let output = run(folder.path(), line);
        assert!(output.status.success() && !output.stdout.is_empty(), "{line:?}");
    }
    let version = text(&run(folder.path(), &["controller", "--version"]).stdout);
    assert!(version.trim().split('.').all(|part| part.parse::<u32>().is_ok()), "{version}");
    let schemes = text(&run(folder.path(), &["schemes"]).stdout);
    assert!(
        ["leastload", "lru", "plainrandom", "pure", "twobin", "weighted"].iter().all(|name| schemes.contains(name)),
        "{schemes}"
    );
    let json: serde_json::Value = serde_json::from_slice(&run(folder.path(), &["schemes", "--json"]).stdout).unwrap();
    assert!(json.as_array().unwrap().len() > 40);
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let table = text(&run(folder.path(), &["schemes", "--markdown"]).stdout);
    assert!(
        readme.contains(&table),
        "README.md has another table of policies: put in what `pointsman schemes --markdown` prints"
    );
    let shown = text(&run(folder.path(), &["controller", "--show-config", "--hwm=3"]).stdout);
    assert!(shown.contains("hwm = 3"), "{shown}");
}

#[test]
fn what_is_wrong_is_said_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("bad.toml"), "[policy]\nplacemnet = \"lru\"\n").unwrap();
    let bad = folder.path().join("bad.toml").display().to_string();
    std::fs::write(folder.path().join("worse.toml"), "[policy]\norder = \"fiffo\"\n").unwrap();
    let worse = folder.path().join("worse.toml").display().to_string();
    for (args, code, says) in [
        (vec!["controller", "--scheme=leastlaod"], 1, "did you mean 'leastload'?"),
        (vec!["controller", "--scheme=lru[d=2]"], 1, "unknown field `d`"),
        (vec!["controller", "--scheme=choices[d=0]"], 1, "d must be from 1"),
        (vec!["controller", "--order=lru"], 1, "no order is called 'lru'"),
        (vec!["controller", "--admission=adaptive[target=2]"], 1, "target must be from 0.5 to 0.999"),
        (vec!["policy", "check", &worse], 1, "policy.order: no order is called 'fiffo' (did you mean 'fifo'?)"),
        (vec!["policy", "show", "--file", "/nowhere.json"], 1, "is the controller running?"),
        (vec!["explain", "t", "--file", "/nowhere.json"], 1, "is the controller running?"),
        (vec!["controller", "--ping=soon"], 1, "--ping"),
        (vec!["controller", "-x"], 2, "-x"),
        (vec!["controller", "--config", &bad], 1, "did you mean `placement`?"),
        (vec!["controller", "--allow-plaintext", "--ip=no.such.host.invalid"], 1, "no.such.host.invalid"),
        (vec!["controller", "--ip=0.0.0.0"], 1, "--allow-plaintext"),
        (vec!["engine", "--file", "/nowhere.json"], 1, "/nowhere.json"),
    ] {
        let output = run(folder.path(), &args);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {error}");
        assert!(error.contains(says), "{args:?}: {error}");
    }
    let left: Vec<_> = std::fs::read_dir(folder.path().join("security")).map(|d| d.flatten().collect()).unwrap_or_default();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn it_starts_warns_and_ends_on_a_signal_with_its_files_removed() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log.txt");
    for signal in ["TERM", "INT", "ABRT"] {
        let mut child = Command::new(BIN)
            .args(["controller", "--shceme=lru", "--no-such-thing", "--log-level=20"])
            .env("IPP_PROFILE_DIR", folder.path())
            .env("IPP_CLUSTER_ID", "x")
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let file = folder.path().join("security/ipcontroller-x-client.json");
        let deadline = Instant::now() + Duration::from_secs(15);
        while !file.exists() {
            assert!(
                Instant::now() < deadline && child.try_wait().unwrap().is_none(),
                "{}",
                std::fs::read_to_string(&log).unwrap()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]).status().unwrap().success());
        let status = child.wait().unwrap();
        let lines = std::fs::read_to_string(&log).unwrap();
        assert_eq!(status.code(), Some(0), "{lines}");
        assert!(!file.exists(), "{signal}");
        assert!(lines.contains("did you mean --scheme?") && lines.contains("--no-such-thing"), "{lines}");
    }
}
