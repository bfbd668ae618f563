//! One decision and its bookkeeping (pick, dispatch, outcome) of every built-in scheme, boxed as configuration gives it, by number of
//! engines; and the pick alone. Half of the engines carry load, and the hwm never closes one, so that each scheme chooses among all.
#![allow(missing_docs)]

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use pointsman::policies::{
    Axis, Candidates, Chosen, Ending, EngineIx, Hints, Input, Outcome, Placement, PolicySpec, Registry, Request, TaskFacts,
    TaskView, Time,
};
use std::hint::black_box;
use std::time::Duration;

fn pick(c: &mut Criterion) {
    let registry = Registry::builtin();
    let (hints, _) = Hints::parse("#key=k #cost=0.5");
    let mut facts = TaskFacts::default();
    (facts.class, facts.hints) = (7, hints);
    let inputs = [Input { engine: EngineIx::new(3), bytes: 1000 }];
    for entry in registry.on(Axis::Placement) {
        let mut group = c.benchmark_group(format!("pick/{}", entry.name));
        group.warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_millis(500)).sample_size(20);
        for engines in [10, 1_000, 10_000] {
            let mut placement = Placement::new(registry.build(&PolicySpec::named(entry.name)).expect("built in"), 1);
            let view = TaskView::new(&facts).with_inputs(&inputs);
            let request = Request::new(Candidates::All).task(view);
            for n in 0..engines {
                let engine = placement.join(Time::ZERO, 0);
                for _ in 0..n % 2 {
                    placement.dispatch(Time::ZERO, engine, &request);
                }
            }
            let outcome = |ticket| Outcome::new(ticket, Ending::Ok, Duration::from_millis(1));
            group.bench_function(BenchmarkId::new("alone", engines), |b| {
                b.iter(|| black_box(placement.pick(Time::ZERO, &request)));
            });
            group.bench_function(BenchmarkId::new("with dispatch and outcome", engines), |b| {
                b.iter(|| {
                    let Chosen::Engine(engine) = placement.pick(Time::ZERO, &request) else { return };
                    let ticket = placement.dispatch(Time::ZERO, engine, &request);
                    placement.outcome(Time::ZERO, engine, &outcome(ticket));
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, pick);
criterion_main!(benches);
