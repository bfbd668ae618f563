//! Whole controllers as processes, with native client and engines: tasks per second, CPU of the controller per task, memory. Where the
//! interop tests have installed ipyparallel, its own controller is measured with the same peers in turns within the same run.
#![allow(missing_docs)]

mod shared;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pointsman::core::connection_file::{ClientFile, EngineFile};
use pointsman::core::peer::Client;
use shared::{Controller, Engines, PATIENCE, run_tasks};

const ENGINES: usize = 8;

/// Process ids of it and its descendants.
fn tree(controller: &Controller) -> Vec<u32> {
    let mut tree = vec![controller.child.id()];
    let parents: Vec<(u32, u32)> = std::fs::read_dir("/proc")
        .expect("/proc")
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            Some((pid, stat(pid)?.get(1)?.parse().ok()?))
        })
        .collect();
    let mut next = 0;
    while next < tree.len() {
        let parent = tree[next];
        tree.extend(parents.iter().filter(|(_, its)| *its == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    tree
}

/// CPU seconds so far and resident bytes now, of the whole tree.
fn usage(controller: &Controller) -> (f64, f64, usize) {
    let tree = tree(controller);
    let field = |pid: u32, index: usize| stat(pid).and_then(|fields| fields.get(index)?.parse::<f64>().ok()).unwrap_or(0.0);
    let ticks: f64 = tree.iter().map(|&pid| field(pid, 11) + field(pid, 12)).sum();
    let pages: f64 = tree.iter().map(|&pid| field(pid, 21)).sum();
    (ticks / 100.0, pages * 4096.0, tree.len())
}

/// The fields of /proc/PID/stat behind the name.
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(text.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect())
}

struct Figures {
    tasks_per_s: f64,
    cpu_us: f64,
    resident_mib: f64,
    processes: usize,
}

/// Runs `count` tasks, at most `window` of them under way at once.
fn measure(command: &[&str], count: usize, window: usize) -> Figures {
    let controller = Controller::start(command, "");
    let context = zmq::Context::new();
    let engine_file: EngineFile = controller.file("engine");
    let client_file: ClientFile = controller.file("client");
    // The stock controller writes its files before its schedulers listen.
    std::thread::sleep(Duration::from_secs(2));
    let _engines = Engines::start(&context, &engine_file, ENGINES);
    let mut client = Client::connect(&context, &client_file, PATIENCE).expect("a client");
    client.wait_for_engines(ENGINES, PATIENCE).expect("engines");
    std::thread::sleep(Duration::from_millis(500));
    run_tasks(&mut client, count / 10, window); // warm
    let (before, _, _) = usage(&controller);
    let start = Instant::now();
    run_tasks(&mut client, count, window);
    let elapsed = start.elapsed().as_secs_f64();
    let (after, resident, processes) = usage(&controller);
    Figures {
        tasks_per_s: count as f64 / elapsed,
        cpu_us: (after - before) / count as f64 * 1e6,
        resident_mib: resident / 1048576.0,
        processes,
    }
}

fn main() {
    let quick = std::env::args().any(|arg| arg == "--test");
    let ours = [env!("CARGO_BIN_EXE_pointsman"), "controller", "--nodb"];
    let python: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/interop-venv/bin/python");
    let python = python.to_string_lossy().into_owned();
    let stock = [python.as_str(), "-m", "ipyparallel.controller", "--nodb"];
    let (count, stock_count, rounds) = if quick { (200, 50, 1) } else { (100_000, 4_000, 3) };
    println!("{ENGINES} native engines, hwm 1, no records; {count} tasks (stock: {stock_count}), 300 bytes of argument");
    println!("{:>10} {:>8} {:>12} {:>14} {:>8} {:>10}", "", "window", "tasks/s", "us CPU/task", "MiB", "processes");
    for window in [64, 2000] {
        for _ in 0..rounds {
            let show = |name: &str, f: &Figures| {
                println!(
                    "{name:>10} {window:>8} {:>12.0} {:>14.1} {:>8.0} {:>10}",
                    f.tasks_per_s, f.cpu_us, f.resident_mib, f.processes
                );
            };
            let own = measure(&ours, count, window);
            show("pointsman", &own);
            if Path::new(&python).exists() {
                let other = measure(&stock, stock_count, window);
                show("stock", &other);
                println!(
                    "{:>10} {window:>8} {:>12.1} {:>14.4}",
                    "ratio",
                    own.tasks_per_s / other.tasks_per_s,
                    own.cpu_us / other.cpu_us
                );
            } else {
                println!("*** SKIPPED: no ipyparallel in target/interop-venv; cargo test installs it ***");
            }
        }
    }
}
