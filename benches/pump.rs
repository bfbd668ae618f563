//! The task machine without I/O: a submission, its dispatch, its result, its reply. With nothing else in the queue and with thousands of
//! blocked tasks, which must not matter; saturated; and along a chain of dependencies.
#![allow(missing_docs)]

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use pointsman::policies::{Time, schemes::LeastLoad};
use pointsman::schedulers::task::{Action, Dependency, Event, Limits, Measured, ReplyKind, TaskScheduler, TaskSpec};

type Machine = TaskScheduler<LeastLoad, ()>;

fn machine(engines: usize) -> Machine {
    let mut machine = Machine::new(LeastLoad::default(), Limits { queued_tasks: usize::MAX, ..Limits::default() }, 1);
    for n in 0..engines {
        machine.handle(Time::ZERO, Event::EngineUp { uuid: &format!("14f511c4-c071177869277c35a84657{n:04}"), number: 0 });
    }
    machine
}

fn submit(machine: &mut Machine, id: &str, after: Dependency) {
    let spec = Ok(TaskSpec { after, ..TaskSpec::default() });
    machine.handle(Time::ZERO, Event::Submit { id, spec, payload: (), bytes: 1000 });
}

/// Words that are used again, so that no allocation of this driver is measured.
#[derive(Default)]
struct Words {
    id: String,
    uuid: String,
}

impl Words {
    /// Answers what an action has sent.
    fn answer(&mut self, machine: &mut Machine, action: &Action<()>) {
        if let Action::Dispatch { task, engine, .. } = action {
            self.id.clear();
            self.id.push_str(machine.task_id(*task).unwrap_or_default());
            self.uuid.clear();
            self.uuid.push_str(machine.uuid(*engine));
            let (id, engine) = (&*self.id, &*self.uuid);
            let measured = Measured::default();
            machine.handle(Time::ZERO, Event::Result { id, engine, kind: ReplyKind::Ok, payload: (), measured });
        }
    }

    /// Answers whatever is dispatched until nothing is; returns how many.
    fn drain(&mut self, machine: &mut Machine) -> u64 {
        let mut answered = 0;
        while let Some(action) = machine.poll_action() {
            answered += u64::from(matches!(action, Action::Dispatch { .. }));
            self.answer(machine, &action);
        }
        answered
    }
}

/// Ids as clients make them, made before anything is measured.
fn ids(count: u64, round: &mut u64) -> Vec<String> {
    *round += 1;
    (0..count).map(|n| format!("16f43436-8457fd95b32b1fb3fb{:06}_13193_{n}", *round)).collect()
}

/// What the tasks of a batch wait for.
#[derive(Clone, Copy, Debug)]
enum Graph {
    Nothing,
    Chain,
    /// Two of the last hundred.
    Random,
}

fn dependencies(graph: Graph, ids: &[String]) -> Vec<Dependency> {
    let mut draw = 1_u64;
    let mut earlier = |n: usize| {
        draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ids[n - 1 - (draw >> 33) as usize % n.min(100)].clone()
    };
    let of = |(n, _): (usize, &String)| match graph {
        _ if n == 0 => Dependency::default(),
        Graph::Nothing => Dependency::default(),
        Graph::Chain => Dependency::on([ids[n - 1].clone()]),
        Graph::Random => Dependency::on([earlier(n), earlier(n)]),
    };
    ids.iter().enumerate().map(of).collect()
}

fn pump(c: &mut Criterion) {
    let mut words = Words::default();
    let mut round = 0;
    let mut group = c.benchmark_group("pump");
    group.throughput(Throughput::Elements(1));
    for engines in [8, 10_000] {
        for blocked in [0, 100_000] {
            let mut machine = machine(engines);
            submit(&mut machine, "gate_1_0", Dependency::default());
            while machine.poll_action().is_some() {} // the gate runs and never ends
            for n in 0..blocked {
                submit(&mut machine, &format!("blocked_1_{n}"), Dependency::on(["gate_1_0"]));
            }
            group.bench_function(format!("one at a time, {engines} engines, {blocked} blocked"), |b| {
                b.iter_custom(|count| {
                    let ids = ids(count, &mut round);
                    let start = Instant::now();
                    for id in &ids {
                        submit(&mut machine, id, Dependency::default());
                        assert_eq!(words.drain(&mut machine), 1);
                    }
                    start.elapsed()
                });
            });
        }
    }
    const BATCH: u64 = 50_000;
    group.sample_size(10);
    for graph in [Graph::Nothing, Graph::Chain, Graph::Random] {
        // All are submitted, then as many run at once as there are engines, and each answer lets another begin.
        let mut machine = machine(10_000);
        group.bench_function(format!("50000 at once on 10000 engines, waiting for {graph:?}"), |b| {
            b.iter_custom(|count| {
                let mut elapsed = Duration::ZERO;
                for _ in 0..count.div_ceil(BATCH) {
                    let ids = ids(BATCH, &mut round);
                    let after = dependencies(graph, &ids);
                    let mut dispatched = VecDeque::new();
                    let mut answered = 0;
                    let start = Instant::now();
                    for (id, after) in ids.iter().zip(after) {
                        submit(&mut machine, id, after);
                    }
                    while answered < BATCH {
                        while let Some(action) = machine.poll_action() {
                            if let Action::Dispatch { .. } = action {
                                dispatched.push_back(action);
                            }
                        }
                        let Some(action) = dispatched.pop_front() else { panic!("nothing runs, and {answered} have") };
                        words.answer(&mut machine, &action);
                        answered += 1;
                    }
                    elapsed += start.elapsed();
                }
                elapsed * count as u32 / (count.div_ceil(BATCH) * BATCH) as u32
            });
        });
    }
    group.finish();
}

criterion_group!(benches, pump);
criterion_main!(benches);
