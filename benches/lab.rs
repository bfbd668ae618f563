//! The lab: events a second with boxed policies on few and on many engines, and what a waiting task takes in memory.
//! `cargo bench --bench lab`; an event is a submission or the end of a run. `-- --tasks 100000000` makes the first run that long.
#![allow(missing_docs)]

use std::time::Instant;

use pointsman::lab::experiment::Point;
use pointsman::lab::workload::{Estimate, Kind, Stream};
use pointsman::lab::world::{Setup, World};

fn resident_bytes() -> u64 {
    let process = procfs::process::Process::myself().expect("this process");
    process.stat().expect("its figures").rss * procfs::page_size()
}

/// Events a second, and the most bytes resident beside what was there before, each by tasks.
fn run(engines: usize, placement: &str, hwm: u32, load: f64, tasks: u64) -> (f64, u64) {
    let point = Point { placement: placement.into(), hwm: Some(hwm), ..Point::default() };
    let registry = pointsman::builtin();
    let world = World::new(Setup::identical(engines, 1), [point.build(&registry).expect("policies")]);
    let kinds = vec![Kind::of("exponential".parse().expect("a distribution"))];
    let rate = load * engines as f64;
    let mut source = Stream::new("poisson".parse().expect("arrivals"), rate, kinds, Estimate::None, tasks, 1);
    let before = resident_bytes();
    let (mut most, mut seen, mut sum_s) = (0, 0_u64, 0.0);
    let start = Instant::now();
    let totals = world.run(&mut source, |ended| {
        sum_s += ended.response_s();
        seen += 1;
        if seen.is_multiple_of(1_000_000) {
            most = most.max(resident_bytes().saturating_sub(before));
        }
    });
    let seconds = start.elapsed().as_secs_f64();
    assert_eq!((totals.ended, totals.stuck), (tasks, 0));
    println!(
        "{engines:>6} engines, {placement:<14} hwm {hwm}, load {load}: {tasks:>10} tasks, {:>5.2} M events/s, {:>4.0} ns an event, mean response {:.4}, at most {} MiB more",
        totals.events as f64 / seconds / 1e6,
        seconds * 1e9 / totals.events as f64,
        sum_s / tasks as f64,
        most >> 20
    );
    (totals.events as f64 / seconds, most)
}

fn main() {
    let argument = std::env::args().skip_while(|arg| arg != "--tasks").nth(1);
    let tasks = argument.and_then(|text| text.parse().ok()).unwrap_or(3_000_000);
    let (few, _) = run(100, "leastload", 0, 0.8, tasks);
    let (many, _) = run(10_000, "leastload", 0, 0.8, 3_000_000);
    println!("on a hundred times the engines an event takes {:.2} times as long", few / many);
    for placement in ["plainrandom", "choices[d=2]", "roundrobin"] {
        run(100, placement, 0, 0.8, 3_000_000);
    }
    run(100, "leastload", 1, 0.8, 3_000_000);
    // Everything waits: a million tasks at once.
    let point = Point { hwm: Some(1), ..Point::default() };
    let registry = pointsman::builtin();
    let world = World::new(Setup::identical(1, 1), [point.build(&registry).expect("policies")]);
    let kinds = vec![Kind::of("exponential".parse().expect("a distribution"))];
    let waiting = 1_000_000;
    let mut source = Stream::new("batch".parse().expect("arrivals"), 1.0, kinds, Estimate::None, waiting, 1);
    let before = resident_bytes();
    let mut after = 0;
    world.run(&mut source, |_| {
        if after == 0 {
            after = resident_bytes();
        }
    });
    println!("a waiting task takes {} bytes", (after - before) / waiting);
}
