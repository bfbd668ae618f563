//! Unlucky orders of events around changes of policy, second copies and recalls; each was a defect once.

use std::time::Duration;

use pointsman_policies::{
    Cx, Hints, Input, Needs, Pick, PolicySpec, Registry, Request, Scheme, TaskView, Time, schemes::LeastLoad,
};
use pointsman_schedulers::task::{Action, Dependency, Event, Limits, Measured, PolicyChange, ReplyKind, TaskScheduler, TaskSpec};

struct World<S> {
    machine: TaskScheduler<S, String>,
    now: Time,
}

impl<S: Scheme> World<S> {
    fn new(scheme: S, hwm: u32, engines: usize) -> World<S> {
        let machine = TaskScheduler::new(scheme, Limits { hwm, grace: Duration::ZERO, ..Limits::default() }, 1);
        let mut world = World { machine, now: Time::ZERO };
        for n in 0..engines {
            world.event(Event::EngineUp { uuid: &format!("e{n}"), number: n as u64 });
        }
        world
    }

    fn rebalance(&mut self, spec: &str) -> Vec<String> {
        let policy = Registry::builtin().build_rebalance(&spec.parse::<PolicySpec>().unwrap()).unwrap();
        self.machine.set_rebalance(self.now, policy);
        self.done()
    }

    fn event(&mut self, event: Event<'_, String>) -> Vec<String> {
        self.machine.handle(self.now, event);
        self.done()
    }

    fn submit(&mut self, id: &str, spec: TaskSpec) -> Vec<String> {
        self.event(Event::Submit { id, spec: Ok(spec), payload: id.to_owned(), bytes: 1 })
    }

    fn answer(&mut self, id: &str, engine: &str, kind: ReplyKind) -> Vec<String> {
        let measured = Measured { run: Some(Duration::from_millis(10)), bytes: 1 };
        self.event(Event::Result { id, engine, kind, payload: id.to_owned(), measured })
    }

    /// Lets time pass as a driver would, waking it whenever it asks.
    fn pass(&mut self, ms: u64) -> Vec<String> {
        let until = self.now + Duration::from_millis(ms);
        let mut done = vec![];
        while let Some(at) = self.machine.poll_timeout().filter(|&at| at <= until) {
            self.now = self.now.max(at);
            self.machine.handle_timeout(self.now);
            done.extend(self.done());
        }
        self.now = until;
        done
    }

    fn done(&mut self) -> Vec<String> {
        let mut done = vec![];
        while let Some(action) = self.machine.poll_action() {
            done.push(match action {
                Action::Dispatch { engine, payload, .. } => format!("{payload} to {}", self.machine.uuid(engine)),
                Action::Abort { engine, id } => format!("abort {id} at {}", self.machine.uuid(engine)),
                Action::Reply { payload, .. } => format!("reply {payload}"),
                Action::Fail { kind, payload, .. } => format!("fail {payload} {kind:?}"),
                Action::PassOn { .. } => "pass on".to_owned(),
                Action::Reject { reason } => format!("reject {reason:?}"),
            });
        }
        self.machine.check().unwrap();
        done
    }
}

fn on(engine: &str) -> TaskSpec {
    TaskSpec { targets: vec![engine.into()], ..TaskSpec::default() }
}

/// Two engines with room for two; on the first a task that does not end, and one behind it.
fn behind_another(spec: TaskSpec) -> World<LeastLoad> {
    let mut world = World::new(LeastLoad::default(), 2, 2);
    world.rebalance("replace[min_ms=500]");
    world.submit("long", on("e0"));
    world.submit("filler1", on("e1"));
    world.submit("filler2", on("e1"));
    assert_eq!(world.submit("t", spec), ["t to e0"]);
    world
}

#[test]
fn a_task_that_was_taken_back_waits_anew() {
    let mut world = behind_another(TaskSpec { timeout: Some(Duration::from_secs(2)), ..TaskSpec::default() });
    world.pass(3_000);
    world.answer("filler1", "e1", ReplyKind::Ok);
    assert_eq!(world.pass(600), ["abort t at e0"]);
    world.submit("filler3", on("e1"));
    world.event(Event::AbortNoted { id: "t", engine: "e0" });
    assert_eq!(world.pass(1_000), Vec::<String>::new(), "no engine has room, and its time begins anew");
    assert_eq!(world.answer("filler2", "e1", ReplyKind::Ok), ["reply filler2", "t to e1"]);
    assert_eq!(world.answer("t", "e1", ReplyKind::Ok), ["reply t"]);
    assert_eq!(world.answer("t", "e0", ReplyKind::Aborted), Vec::<String>::new());
    assert_eq!(world.answer("long", "e0", ReplyKind::Ok), ["reply long"]);
}

#[test]
fn answers_under_way_are_waited_for_whatever_policy_takes_over() {
    for policy in ["replace[min_ms=1]", "hedge[min_ms=1]", "none"] {
        let mut world = behind_another(TaskSpec::default());
        world.answer("filler1", "e1", ReplyKind::Ok);
        world.pass(510);
        world.event(Event::AbortNoted { id: "t", engine: "e0" });
        let mut done = world.pass(1);
        done.extend(world.rebalance(policy));
        done.extend(world.pass(240));
        assert_eq!(done, Vec::<String>::new(), "{policy}: a quarter of a second has not passed");
        assert_eq!(world.pass(20), ["t to e1"], "{policy}");
    }
}

#[test]
fn a_task_that_can_go_nowhere_else_stays_where_it_is() {
    let mut world = behind_another(on("e0"));
    world.answer("filler1", "e1", ReplyKind::Ok);
    assert_eq!(world.pass(5_000), Vec::<String>::new());
}

#[test]
fn a_pause_does_not_make_copies_forgotten() {
    let mut world = World::new(LeastLoad::default(), 1, 2);
    world.rebalance("hedge[min_ms=100]");
    let mut spec = TaskSpec::default();
    spec.facts.hints = Hints::parse("#hedge").0;
    let first = world.submit("t", spec);
    world.machine.set_paused(world.now, true);
    assert_eq!(world.pass(1_000), Vec::<String>::new());
    world.machine.set_paused(world.now, false);
    let copy = world.pass(100);
    assert!(copy.len() == 1 && copy != first && copy[0].starts_with("t to "), "{first:?} {copy:?}");
}

#[test]
fn a_copy_that_was_never_sent_gives_its_place_back() {
    let mut world = World::new(LeastLoad::default(), 1, 2);
    world.rebalance("hedge[min_ms=100]");
    let mut spec = TaskSpec::default();
    spec.facts.hints = Hints::parse("#hedge").0;
    world.submit("t", spec);
    let (key, home) = (world.machine.task("t").unwrap(), "e0");
    let home = if world.machine.roster().load(pointsman_policies::EngineIx::new(0)) == 1 { home } else { "e1" };
    world.now = world.now + Duration::from_millis(100);
    world.machine.handle_timeout(world.now); // sends the copy, and nobody has looked yet
    let measured = Measured::default();
    world.machine.handle(world.now, Event::Result { id: "t", engine: home, kind: ReplyKind::Ok, payload: "t".into(), measured });
    world.machine.handle(world.now, Event::SendFailed { task: key, attempt: 2 });
    world.done();
    let roster = world.machine.roster();
    assert_eq!(roster.live_engines().map(|engine| roster.load(engine)).sum::<u32>(), 0);
}

/// Puts off whatever has been tried before.
struct Hesitant;

impl Scheme for Hesitant {
    fn pick(&mut self, cx: &mut Cx<'_>, request: &Request<'_>) -> Pick {
        let first = cx.roster.open_engines().find(|&engine| request.candidates.contains(engine));
        if request.attempt > 1 { Pick::Defer { until: None } } else { first.map_or(Pick::Defer { until: None }, Pick::Engine) }
    }
}

#[test]
fn a_task_that_was_put_off_ends_when_its_last_engine_has_gone() {
    let mut world = World::new(Hesitant, 1, 2);
    assert_eq!(world.submit("t", TaskSpec { retries: 3, ..TaskSpec::default() }), ["t to e0"]);
    assert_eq!(world.answer("t", "e0", ReplyKind::Failed), Vec::<String>::new());
    assert_eq!(world.event(Event::EngineDown { uuid: "e1" }), ["reply t"], "with the error it had");
}

#[test]
fn several_policies_take_over_as_one() {
    let registry = Registry::builtin();
    let scheme = |text: &str| registry.build(&text.parse::<PolicySpec>().unwrap()).unwrap();
    let mut world = World::new(scheme("sed[slow_server=true]"), 1, 2);
    // The second engine is known to be slow: tasks wait for the first.
    for n in 0..20 {
        let id = format!("taught{n}");
        let engine = if n % 2 == 0 { "e0" } else { "e1" };
        let mut spec = on(engine);
        spec.facts.class = 7;
        world.submit(&id, spec);
        let run = Duration::from_secs(if n % 2 == 0 { 1 } else { 50 });
        world.event(Event::Result {
            id: &id,
            engine,
            kind: ReplyKind::Ok,
            payload: id.clone(),
            measured: Measured { run: Some(run), bytes: 1 },
        });
    }
    world.submit("busy", on("e0"));
    assert_eq!(
        [world.submit("old", TaskSpec::default()), world.submit("new", TaskSpec::default())].concat(),
        Vec::<String>::new()
    );
    let lifo = registry.build_order(&"lifo".parse().unwrap()).unwrap();
    world.machine.change(world.now, [PolicyChange::Placement(scheme("lru")), PolicyChange::Order(lifo)]);
    assert_eq!(world.done(), ["new to e1"], "the new scheme never sees the old order");
}

#[test]
fn a_graph_with_many_edges_is_heard_of_in_bounded_steps() {
    for order in ["mostdescendants", "criticalpath"] {
        let mut world = World::new(LeastLoad::default(), 1, 0);
        world.machine.set_order(world.now, Registry::builtin().build_order(&order.parse().unwrap()).unwrap());
        let (layers, width) = (8, 60);
        let mut turns = 0;
        for layer in 0..layers {
            for n in 0..width {
                let ids = (0..if layer == 0 { 0 } else { width }).map(|m| format!("t{}_{m}", layer - 1));
                let spec = TaskSpec { after: Dependency::on(ids), ..TaskSpec::default() };
                world.machine.handle(
                    world.now,
                    Event::Submit { id: &format!("t{layer}_{n}"), spec: Ok(spec), payload: String::new(), bytes: 1 },
                );
            }
        }
        while world.machine.poll_timeout().is_some() {
            world.machine.handle_timeout(world.now);
            turns += 1;
        }
        let edges = (layers - 1) * width * width;
        assert!(turns < edges, "{order}: {turns} turns for {edges} edges");
        world.done();
    }
}

/// Looks at what its needs do not name.
struct Nosy;

impl Scheme for Nosy {
    fn needs(&self) -> Needs {
        Needs::LATENCY
    }
    fn pick(&mut self, cx: &mut Cx<'_>, request: &Request<'_>) -> Pick {
        let facts: (&TaskView<'_>, &[Input]) = (&request.task, request.task.inputs());
        assert!(facts.1.is_empty() && facts.0.class() == 0 && facts.0.hints() == Hints::default() && request.waiting() == 1);
        assert!(cx.learned.class(7).is_none() && cx.learned.speed(pointsman_policies::EngineIx::new(0)) == 1.0);
        cx.roster
            .open_engines()
            .find(|&engine| request.candidates.contains(engine))
            .map_or(Pick::Defer { until: None }, Pick::Engine)
    }
    fn on_outcome(&mut self, _cx: &mut Cx<'_>, _engine: pointsman_policies::EngineIx, outcome: &pointsman_policies::Outcome) {
        assert!(outcome.run.is_none() && outcome.latency > Duration::ZERO);
    }
}

#[test]
fn a_scheme_sees_what_it_declares_whatever_others_need() {
    let mut world = World::new(Nosy, 1, 1);
    world.machine.set_order(world.now, Registry::builtin().build_order(&"fair".parse().unwrap()).unwrap());
    for n in 0..20 {
        let mut spec = TaskSpec::default();
        (spec.facts.class, spec.facts.hints) = (7, Hints::parse("#key=a #cost=3 #prio=2").0);
        let id = format!("t{n}");
        world.submit(&id, spec);
        world.pass(50);
        world.answer(&id, "e0", ReplyKind::Ok);
    }
    assert!(world.machine.learned().class(7).is_some(), "the order needs it");
}
