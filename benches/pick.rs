//! One decision and its bookkeeping (pick, dispatch, outcome) of every built-in scheme, boxed as configuration gives it, by number of
//! engines. Half of the engines carry load, and the hwm never closes one, so that each scheme chooses among all.
#![allow(missing_docs)]

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use pointsman::policies::{Candidates, Chosen, Ending, Outcome, Placement, Registry, Request, SchemeSpec, Time};
use std::time::Duration;

fn pick(c: &mut Criterion) {
    let registry = Registry::builtin();
    for entry in registry.entries() {
        let mut group = c.benchmark_group(format!("pick/{}", entry.name));
        group.warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_millis(700)).sample_size(20);
        for engines in [10, 100, 1_000, 10_000, 100_000] {
            let mut placement = Placement::new(registry.build(&SchemeSpec::named(entry.name)).expect("built in"), 1);
            let request = Request::new(Candidates::All);
            for n in 0..engines {
                let engine = placement.join(Time::ZERO, 0);
                for _ in 0..n % 2 {
                    placement.dispatch(Time::ZERO, engine, &request);
                }
            }
            let outcome = |ticket| Outcome { ticket, ending: Ending::Ok, latency: Duration::from_millis(1) };
            group.bench_function(BenchmarkId::from_parameter(engines), |b| {
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
