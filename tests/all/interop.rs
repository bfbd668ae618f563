//! Real ipyparallel clients and engines against this controller: the scripts of `tests/interop`, in a virtual environment under
//! `target/` with pinned versions. Skipped, loudly, where there is no Python 3.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn python() -> Option<PathBuf> {
    let asked = std::env::var_os("PYTHON").map(PathBuf::from);
    let candidates = asked.into_iter().chain(["python3".into(), "python".into()]);
    candidates.into_iter().find(|python| {
        let check = "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 9))";
        Command::new(python).args(["-c", check]).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    })
}

/// The environment with the pinned packages, made anew when the pins change.
fn environment(root: &Path, python: &Path) -> PathBuf {
    let pins = root.join("tests/interop/requirements.txt");
    let venv = root.join("target/interop-venv");
    let stamp = venv.join("installed.txt");
    let wanted = std::fs::read_to_string(&pins).unwrap();
    if std::fs::read_to_string(&stamp).ok().as_deref() != Some(&wanted) {
        eprintln!("interop: installing ipyparallel into {}", venv.display());
        run(Command::new(python).args(["-m", "venv", "--clear"]).arg(&venv));
        run(Command::new(venv.join("bin/python"))
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"])
            .arg(&pins));
        std::fs::write(&stamp, wanted).unwrap();
    }
    venv.join("bin/python")
}

fn run(command: &mut Command) {
    let status = command.status().unwrap();
    assert!(status.success(), "{command:?}: {status}");
}

#[test]
fn stock_ipyparallel_peers_compute_on_this_controller() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let Some(python) = python() else {
        eprintln!(
            "\n*** SKIPPED: no Python 3 with venv and pip was found, so nothing was tried against real ipyparallel peers ***\n"
        );
        return;
    };
    let python = environment(root, &python);
    // To a file, not a pipe: an engine that outlives a failed test would keep a pipe open and the test waiting.
    let log = root.join("target/interop.log");
    let file = std::fs::File::create(&log).unwrap();
    let status = Command::new(python)
        .args(["-m", "pytest", "-q", "--tb=short", "-rs", "--timeout=90", "-p", "no:cacheprovider", "tests/interop"])
        .current_dir(root)
        .env("POINTSMAN_BIN", env!("CARGO_BIN_EXE_pointsman"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .stderr(file.try_clone().unwrap())
        .stdout(file)
        .status()
        .unwrap();
    let report = std::fs::read_to_string(&log).unwrap();
    println!("{report}");
    assert!(status.success(), "{report}");
    assert!(report.contains(" passed"), "no test ran: {report}");
}
