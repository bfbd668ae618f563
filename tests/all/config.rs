//! What a user configures, and what the program makes of it: addresses, files, limits, names that are no text.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use pointsman::core::connection_file::{ClientFile, EngineFile};
use pointsman::core::net::files::read_json;
use pointsman::core::peer::{Client, Engine, Functions};

use crate::world::{PATIENCE, World};

const BIN: &str = env!("CARGO_BIN_EXE_pointsman");

fn run(profile: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(BIN);
    command.arg("controller").args(args).env("IPP_PROFILE_DIR", profile).env_remove("RUST_LOG").env_remove("IPP_CLUSTER_ID");
    command.stdin(Stdio::null()).output().unwrap()
}

/// A controller as a process, with what it has said so far.
struct Running {
    child: Child,
    profile: PathBuf,
    log: PathBuf,
}

impl Running {
    /// Starts one under a limit of open files, with a profile's folder, and waits until it can be found.
    fn start(profile: &Path, limit: Option<u64>, args: &[&str]) -> Result<Running, String> {
        let log = tempfile::NamedTempFile::new().unwrap().into_temp_path().keep().unwrap();
        // Files of this process that other tests have open at the moment are none of the controller's.
        let close = "for fd in /proc/$$/fd/*; do fd=${fd##*/}; [ $fd -le 2 ] || eval \"exec $fd>&-\"; done";
        let set = limit.map_or(String::new(), |limit| format!("ulimit -n {limit}; "));
        let child = Command::new("bash")
            .args(["-c", &format!("{close}; {set}exec \"$0\" controller \"$@\""), BIN])
            .args(args)
            .env("IPP_PROFILE_DIR", profile)
            .env_remove("RUST_LOG")
            .env_remove("IPP_CLUSTER_ID")
            .stdin(Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut running = Running { child, profile: profile.to_owned(), log };
        let deadline = Instant::now() + PATIENCE;
        while !running.file("client").exists() {
            if running.child.try_wait().unwrap().is_some() || Instant::now() > deadline {
                return Err(running.said());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(running)
    }

    fn file(&self, role: &str) -> PathBuf {
        self.profile.join(format!("security/ipcontroller-{role}.json"))
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.log);
    }
}

/// The first number behind some words.
fn number_behind(text: &str, words: &str) -> u64 {
    let behind = text.split_once(words).unwrap_or_else(|| panic!("no '{words}' in: {text}")).1;
    behind.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap()
}

#[test]
fn the_limit_of_open_files_that_is_called_enough_serves_and_less_is_refused_with_it() {
    for args in [&[][..], &["--sqlitedb", "--allow-dask", "--IPController.broadcast_scheduler_depth=3"]] {
        let folder = tempfile::tempdir().unwrap();
        let said = Running::start(folder.path(), Some(90), args).err().expect("started with 90 files");
        assert!(!said.contains("listening") && said.contains("not enough to serve an engine"), "{said}");
        let enough = number_behind(&said, "ulimit -Hn ");
        let less = Running::start(folder.path(), Some(enough - 1), args).err().expect("started with one file too few");
        assert!(less.contains(&format!("ulimit -Hn {enough}")), "{less}");

        let running = Running::start(folder.path(), Some(enough), args).unwrap();
        let said = running.said();
        assert!(said.contains("enough for 1 engines") && said.contains("listening"), "{said}");
        let (own, context) = (running.open_files(), zmq::Context::new());
        let file: EngineFile = read_json(&running.file("engine")).unwrap();
        let engine = Engine::start(&context, &file, Functions::new().into(), None, PATIENCE).unwrap();
        let file: ClientFile = read_json(&running.file("client")).unwrap();
        let mut clients: Vec<_> = (0..9).map(|_| Client::connect(&context, &file, PATIENCE).unwrap()).collect();
        for client in &mut clients {
            client.wait_for_engines(1, PATIENCE).unwrap();
        }
        let each = 8;
        assert!(running.open_files() >= own + each, "an engine has {each} connections");
        assert!(running.open_files() as u64 <= enough, "{} of {enough}", running.open_files());
        drop(engine);
    }
}

#[test]
fn an_address_may_be_a_name_an_interface_or_of_ipv6_and_peers_find_it() {
    let own_name = gethostname::gethostname().to_string_lossy().into_owned();
    for (ip, told) in [
        ("localhost", Some("tcp://127.0.0.1")),
        ("lo", Some("tcp://127.0.0.1")),
        ("127.0.0.2", Some("tcp://127.0.0.2")),
        (own_name.as_str(), None),
        ("0.0.0.0", Some("tcp://0.0.0.0")),
        ("*", Some("tcp://*")),
        ("::1", Some("tcp://[::1]")),
        ("[::1]", Some("tcp://[::1]")),
        ("::", Some("tcp://*")),
    ] {
        let mut world = World::new(0, |config| {
            config.controller.ip = ip.into();
            config.controller.allow_plaintext = true;
        });
        world.add_engine();
        world.client().wait_for_engines(1, PATIENCE).unwrap();
        let files = [&world.controller().client_file().common, &world.controller().engine_file().common];
        for file in files {
            assert!(told.is_none_or(|told| file.interface == told), "{ip}: {}", file.interface);
        }
    }
}

#[test]
fn an_address_of_its_own_for_each_side_binds_though_one_be_everywhere() {
    for (clients, engines) in
        [("127.0.0.1", "0.0.0.0"), ("0.0.0.0", "127.0.0.1"), ("127.0.0.1", "127.0.0.2"), ("::1", "127.0.0.1")]
    {
        let mut world = World::new(0, |config| {
            (config.controller.client_ip, config.controller.engine_ip) = (Some(clients.into()), Some(engines.into()));
            config.controller.allow_plaintext = true;
        });
        world.add_engine();
        world.client().wait_for_engines(1, PATIENCE).unwrap_or_else(|error| panic!("{clients}, {engines}: {error}"));
    }
}

#[test]
fn what_can_not_be_bound_or_followed_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    for (args, says) in [
        (
            vec![format!("--port={port}")],
            format!("port {port} is in use: `ss -ltnp sport = {port}` says by whom; give others (--ports"),
        ),
        (
            vec!["--ip=192.0.2.77".into(), "--allow-plaintext".into()],
            "is no address of this machine; it has * (all), lo (127.0.0.1".into(),
        ),
        (
            vec!["--ip=no-such-name.invalid".into()],
            "controller.ip: 'no-such-name.invalid' is no address, no name of a host".into(),
        ),
        (vec!["--ports=20-10".into()], "controller.ports: '20-10' holds no port".into()),
        (vec!["--ping=0".into()], "heartbeat.period_ms: expected 10 to".into()),
        (vec!["--log-level=verbose".into()], "--log-level: expected trace, debug, info".into()),
        (vec!["--show-config".into(), "--ping=0".into()], "heartbeat.period_ms: expected 10 to".into()),
    ] {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let output = run(folder.path(), &args);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && error.contains(&says), "{args:?}: {error}");
    }
}

#[test]
fn a_profile_whose_name_is_no_text_is_used_and_shown() {
    let folder = tempfile::tempdir().unwrap();
    let profile = folder.path().join(OsStr::from_bytes(b"profile_\xff\xfe"));
    std::fs::create_dir(&profile).unwrap();
    std::fs::write(profile.join("pointsman.toml"), "[controller]\ncluster_id = \"\"\n[log]\nlevel = \"warning\"\n").unwrap();
    let running = Running::start(&profile, None, &["--no-secure", "--sqlitedb"]).unwrap();
    assert!(running.said().contains("messages are not signed"), "{}", running.said());
    assert!(profile.join("tasks.db").exists() && !running.said().contains("listening"), "{}", running.said());
    let shown = run(&profile, &["--show-config"]);
    let text = String::from_utf8_lossy(&shown.stdout);
    assert!(shown.status.success() && text.contains("level = \"warn\"") && text.contains("profile_\u{fffd}"), "{text}");
    let home = Command::new(BIN)
        .args(["controller", "--show-config"])
        .env("HOME", &profile)
        .env_remove("IPYTHONDIR")
        .env_remove("IPP_PROFILE_DIR")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&home.stdout);
    assert!(home.status.success() && text.contains("profile_\u{fffd}\u{fffd}/.ipython/profile_default"), "{text}");
}

#[test]
fn lines_of_a_python_file_that_would_have_to_be_run_have_no_effect_and_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let text = "c = get_config()\nimport os\nif os.environ.get('X'):\n    c.HeartMonitor.period = 5000\n\nc.DictDB.record_limit = (\n    77  # few\n)\n";
    std::fs::write(folder.path().join("ipcontroller_config.py"), text).unwrap();
    let shown = run(folder.path(), &["--show-config"]);
    let config = String::from_utf8_lossy(&shown.stdout);
    assert!(config.contains("period_ms = 3000") && config.contains("record_limit = 77"), "{config}");
    let running = Running::start(folder.path(), None, &[]).unwrap();
    let said = running.said();
    assert!(said.contains("ipcontroller_config.py:3: `if os.environ.get('X'):` is not run here"), "{said}");
    assert!(said.contains("to line 4, has no effect: c.HeartMonitor.period"), "{said}");
    assert_eq!(said.matches("WARN").count(), 2, "one for the block, one for the import: {said}");
}
