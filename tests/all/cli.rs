//! The program as users and launchers call it.

use std::os::unix::process::ExitStatusExt as _;
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
    // To a pipe ipyparallel's alone, which its tools compare with their own.
    let output = run(folder.path(), &["controller", "--version"]);
    let version = text(&output.stdout);
    assert!(version.trim_end().split('.').all(|part| part.parse::<u32>().is_ok()), "{version}");
    let own = text(&run(folder.path(), &["--version"]).stdout);
    assert!(own.contains(&format!("follows ipyparallel {}", version.trim_end())), "{own}");
    let help = text(&run(folder.path(), &["help", "controller"]).stdout);
    assert!(help.contains("--placement PLACEMENT") && help.contains("--sqlitedb"), "{help}");
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

/// A command line, its exit code, and words of its complaint.
type Mistake<'a> = (&'a [&'a str], i32, &'a [&'a str]);

#[test]
fn what_is_wrong_is_said_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let bad = file("bad.toml", "[policy]\nplacemnet = \"lru\"\n");
    let worse = file("worse.toml", "[policy]\norder = \"fiffo\"\n");
    let never = file("never.toml", "[heartbeat]\nperiod_ms = 0\n");
    let junk = file("junk.json", "hello");
    let engines = file("engines.json", r#"{"hb_ping": 1, "hb_pong": 2, "registration": 3, "broadcast": [4]}"#);
    let clients = file("clients.json", r#"{"notification": 1, "registration": 3, "broadcast": 4}"#);
    let mistakes: &[Mistake<'_>] = &[
        // Options and words that do not exist, with what was meant.
        (&["controler"], 2, &["controller"]),
        (&["controller", "-x"], 2, &["unknown option -x"]),
        (&["controller", "--schem=leastload"], 2, &["unknown option --schem", "did you mean --scheme?", "--help"]),
        (&["controller", "--placment", "sed"], 2, &["did you mean --placement?"]),
        (&["controller", "--no-such-thing"], 2, &["--no-such-thing"]),
        (&["controller", "--policy.placement=sed"], 2, &["it is --placement"]),
        (&["controller", "--TaskScheduler.hwn=3"], 2, &["did you mean TaskScheduler.hwm?"]),
        (&["controller", "extra"], 2, &["'extra' is not an option"]),
        (&["controller", "--init=foo"], 2, &["--init takes no value"]),
        (&["controller", "--sqlitedb", "--mongodb"], 2, &["--sqlitedb and --mongodb contradict"]),
        (&["engine", "--file", "x", "extra"], 2, &["unexpected argument 'extra'"]),
        (&["demo", "--engine=3"], 2, &["--engines"]),
        (&["bench", "--engine=3"], 2, &["--engines"]),
        (&["lab", "verify", "--ful"], 2, &["--full"]),
        (&["policy", "shw"], 2, &["show"]),
        (&["explain"], 2, &["<TASK>"]),
        // Values that nothing could follow.
        (&["controller", "--ping=soon"], 1, &["--ping", "a whole number"]),
        (&["controller", "--profile-dir="], 1, &["--profile-dir", "expected a folder, not nothing"]),
        (&["controller", "--profile="], 1, &["--profile", "expected a name"]),
        (&["controller", "--profile=../x"], 1, &["--profile", "without /"]),
        (&["controller", "--max-message-bytes=5"], 1, &["controller.max_message_bytes: 5 is less"]),
        (&["controller", "--ping=0"], 1, &["heartbeat.period_ms", "10 to 86400000 ms"]),
        (&["controller", "--hwm=-1"], 1, &["--hwm", "from 0 to 4294967295", "-1"]),
        (&["controller", "--IPController.registration_timeout=-1"], 1, &["registration_timeout_s", "0 or more"]),
        (&["controller", "--config", &bad], 1, &["did you mean `placement`?"]),
        (&["controller", "--config", &never], 1, &["heartbeat.period_ms"]),
        (&["controller", "--allow-plaintext", "--ip=no.such.host.invalid"], 1, &["no.such.host.invalid"]),
        (&["controller", "--ip=0.0.0.0"], 1, &["--allow-plaintext"]),
        (&["controller", "--profile-dir=/proc/nowhere"], 1, &["/proc/nowhere"]),
        (&["engine", "-n", "0", "--file", "x"], 2, &["0 is not in 1.."]),
        (&["demo", "--engines", "0"], 2, &["0 is not in 2.."]),
        (&["lab", "run", "schemes", "--threads", "0"], 2, &["--threads", "a number from 1 to 4096"]),
        (&["policy", "show", "--timeout-s=-1"], 2, &["a number of seconds above 0"]),
        (&["policy", "show", "--timeout-s=0"], 2, &["a number of seconds above 0"]),
        // Policies.
        (&["controller", "--scheme=leastlaod"], 1, &["no placement is called", "did you mean 'leastload'?"]),
        (&["controller", "--placement=fair"], 1, &["'fair' decides the order, not the placement: give it as `order`"]),
        (&["controller", "--scheme=lru[d=2]"], 1, &["unknown field `d`"]),
        (&["controller", "--scheme=choices[d=0]"], 1, &["d must be from 1"]),
        (&["controller", "--scheme=choices[d=x]"], 1, &["d: expected a whole number, 0 or more, not \"x\""]),
        (&["controller", "--scheme=choices[d=3"], 1, &["--scheme", "the bracket is not closed"]),
        (&["controller", "--order=fair[weights={a=2}]"], 1, &["weights", "not a JSON list or table", "a table in TOML"]),
        (&["controller", "--order=lru"], 1, &["'lru' decides the placement, not the order"]),
        (&["controller", "--admission=adaptive[target=2]"], 1, &["target must be from 0.5 to 0.999"]),
        (&["policy", "check", &worse], 1, &["policy.order: no order is called 'fiffo' (did you mean 'fifo'?)"]),
        (&["policy", "check", &never], 1, &["heartbeat.period_ms", "never.toml"]),
        (&["policy", "set", "hwm=4"], 2, &["'hwm=4' is a parameter without its policy", "fixed[hwm=4]"]),
        // Files and controllers that are not there.
        (&["policy", "show", "--file", "/nowhere.json"], 1, &["/nowhere.json: no such file", "is the controller running?"]),
        (&["explain", "t", "--file", "/nowhere.json"], 1, &["is the controller running?"]),
        (&["policy", "show"], 1, &["no controller runs in ", "pointsman list"]),
        (&["policy", "show", "--cluster-id=x"], 1, &["no controller runs in "]),
        (&["policy", "show", "--file", &junk], 1, &["junk.json: no connection file"]),
        (&["policy", "show", "--file", &engines], 1, &["engines.json: this is the file for engines", "client.json"]),
        (&["engine", "--file", &clients], 1, &["clients.json: this is the file for clients", "engine.json"]),
        (&["engine", "--file", "/nowhere.json"], 1, &["/nowhere.json: no such file"]),
        (&["lab", "example", "stal"], 1, &["did you mean stale?", "schemes"]),
        (&["lab", "replay", "/nope.db"], 1, &["/nope.db: No such file"]),
    ];
    for (args, code, says) in mistakes {
        let output = run(folder.path(), args);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(*code), "{args:?}: {error}");
        for words in *says {
            assert!(error.contains(words), "{args:?} does not say '{words}': {error}");
        }
        for words in ["usize", "u16", "sequence", "panicked", "ValueError"] {
            assert!(!error.contains(words), "{args:?} says '{words}': {error}");
        }
        // A path is said once, however many steps failed on the way to it.
        for path in ["/nowhere.json", "/nope.db", "junk.json"] {
            assert!(error.matches(path).count() < 2, "{args:?}: {error}");
        }
    }
    let left: Vec<_> = std::fs::read_dir(folder.path().join("security")).map(|d| d.flatten().collect()).unwrap_or_default();
    assert!(left.is_empty(), "{left:?}");
}

/// Each command that prints, and what it needs.
const PRINTING: &[&[&str]] = &[
    &["--help"],
    &["--version"],
    &["help", "controller"],
    &["controller", "--help"],
    &["controller", "--version"],
    &["controller", "--show-config"],
    &["controller", "--show-config-json"],
    &["schemes"],
    &["schemes", "--json"],
    &["schemes", "--markdown"],
    &["policy", "list"],
    &["policy", "check"],
    &["list"],
    &["list", "--json"],
    &["lab", "example"],
    &["lab", "example", "stale"],
];

#[test]
fn a_reader_that_leaves_a_closed_and_a_full_output_end_no_command_with_a_panic() {
    let folder = tempfile::tempdir().unwrap();
    for args in PRINTING {
        let spawn = |stdout: Stdio| {
            let mut command = Command::new(BIN);
            command.args(*args).env("IPP_PROFILE_DIR", folder.path()).env("RUST_BACKTRACE", "1");
            command.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped()).spawn().unwrap()
        };
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = spawn(writer.into()).wait_with_output().unwrap();
        assert_eq!(text(&output.stderr), "", "{args:?} into a closed pipe");
        let is_quiet = output.status.signal() == Some(13) || output.status.success();
        assert!(is_quiet, "{args:?} into a closed pipe: {}", output.status);

        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = spawn(full.into()).wait_with_output().unwrap();
        let error = text(&output.stderr);
        assert!(!error.contains("panicked") && output.status.code().is_some_and(|code| code < 2), "{args:?}: {error}");
        // clap prints its own pages, and says nothing of what it could not.
        let is_ours = !args.contains(&"--help") && args != &["--version"] && args[0] != "help" || args[0] == "controller";
        assert_eq!(error.contains("No space left"), is_ours, "{args:?}: {error}");
    }
    // Both closed: neither a panic nor another's descriptor written to.
    for args in PRINTING {
        let line = format!("exec {BIN} {} >&- 2>&-", args.join(" "));
        let output = Command::new("sh").args(["-c", &line]).env("IPP_PROFILE_DIR", folder.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}");
    }
    for args in
        [&["controller", "--nonsense"][..], &["lab", "example", "stal"], &["policy", "show"], &["engine", "--file", "/no"]]
    {
        for stderr in [
            Stdio::from(std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap()),
            Stdio::from(std::io::pipe().unwrap().1),
        ] {
            let mut command = Command::new(BIN);
            command.args(args).env("IPP_PROFILE_DIR", folder.path()).stdin(Stdio::null()).stderr(stderr);
            assert!(command.status().unwrap().code().is_some_and(|code| code == 1 || code == 2), "{args:?}");
        }
    }
}

#[test]
fn it_starts_warns_and_ends_on_a_signal_with_its_files_removed() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log.txt");
    for signal in ["TERM", "INT", "ABRT"] {
        let mut child = Command::new(BIN)
            .args(["controller", "--placement=lru", "--usethreads", "--log-level=20"])
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
        assert!(lines.contains("--usethreads: means nothing to this controller"), "{lines}");
        assert!(lines.contains("placement lru: with one task per engine at a time (hwm 1)"), "{lines}");
    }
}
