//! The task machine without I/O: a submission, its dispatch, its result, its reply. With nothing else in the queue and with thousands of
//! blocked tasks, which must not matter; saturated; and along a chain of dependencies.
#![allow(missing_docs)]

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

/// Answers whatever is dispatched until nothing is; returns how many.
fn drain(machine: &mut Machine) -> u64 {
    let mut answered = 0;
    while let Some(action) = machine.poll_action() {
        if let Action::Dispatch { task, engine, .. } = action {
            let id = machine.task_id(task).unwrap_or_default().to_owned();
            let uuid = machine.uuid(engine).to_owned();
            machine.handle(
                Time::ZERO,
                Event::Result { id: &id, engine: &uuid, kind: ReplyKind::Ok, payload: (), measured: Measured::default() },
            );
            answered += 1;
        }
    }
    answered
}

fn pump(c: &mut Criterion) {
    let mut group = c.benchmark_group("pump");
    group.throughput(Throughput::Elements(1));
    for blocked in [0, 5_000, 100_000] {
        let mut machine = machine(8);
        submit(&mut machine, "gate_1_0", Dependency::default());
        while machine.poll_action().is_some() {} // the gate runs and never ends
        for n in 0..blocked {
            submit(&mut machine, &format!("blocked_1_{n}"), Dependency::on(["gate_1_0"]));
        }
        let mut n = 0_u64;
        group.bench_function(format!("one task beside {blocked} blocked"), |b| {
            b.iter(|| {
                n += 1;
                submit(&mut machine, &format!("16f43436-8457fd95b32b1fb3fb111d03_13193_{n}"), Dependency::default());
                assert_eq!(drain(&mut machine), 1);
            });
        });
    }
    group.throughput(Throughput::Elements(10_000));
    group.sample_size(20);
    let mut round = 0;
    group.bench_function("10000 tasks queued, then run", |b| {
        let mut machine = machine(8);
        b.iter(|| {
            round += 1;
            for n in 0..10_000 {
                submit(&mut machine, &format!("queued{round}_1_{n}"), Dependency::default());
            }
            assert_eq!(drain(&mut machine), 10_000);
        });
    });
    group.bench_function("a chain of 10000", |b| {
        let mut machine = machine(8);
        b.iter(|| {
            round += 1;
            submit(&mut machine, &format!("chain{round}_1_0"), Dependency::default());
            for n in 1..10_000 {
                submit(&mut machine, &format!("chain{round}_1_{n}"), Dependency::on([format!("chain{round}_1_{}", n - 1)]));
            }
            assert_eq!(drain(&mut machine), 10_000);
        });
    });
    group.finish();
}

criterion_group!(benches, pump);
criterion_main!(benches);
