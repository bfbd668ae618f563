//! What a scheme holds is bounded by engines and tasks in flight. Alone in its binary: it counts what the process has allocated.

use pointsman_policies::{Axis, Cx, EngineIx, Pick, PolicySpec, Registry, Request, Scheme, Ticket, conformance};

#[global_allocator]
static ALLOCATED: cap::Cap<std::alloc::System> = cap::Cap::new(std::alloc::System, usize::MAX);

/// Remembers every task it has ever sent.
#[derive(Default)]
struct Hoarder(Vec<u64>);

impl Scheme for Hoarder {
    fn pick(&mut self, cx: &mut Cx<'_>, _request: &Request<'_>) -> Pick {
        cx.roster.open_engines().next().map_or(Pick::Defer { until: None }, Pick::Engine)
    }

    fn on_dispatch(&mut self, _cx: &mut Cx<'_>, _engine: EngineIx, _request: &Request<'_>) -> Ticket {
        self.0.push(1);
        Ticket::default()
    }
}

#[test]
fn schemes_do_not_grow_with_the_number_of_tasks() {
    let registry = Registry::builtin();
    let allocated = || ALLOCATED.allocated();
    for entry in registry.on(Axis::Placement) {
        let spec = PolicySpec::named(entry.name);
        let made = || registry.build(&spec).unwrap();
        conformance::memory(made, 50, allocated).unwrap_or_else(|error| panic!("{}: {error}", entry.name));
    }
    let error = conformance::memory(Hoarder::default, 50, allocated).expect_err("a scheme that hoards was not found");
    assert!(error.contains("after 20000"), "{error}");
}
