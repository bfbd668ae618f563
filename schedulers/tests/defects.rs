//! Defects of the reference task scheduler that must not be here, each with a test named after it.

use std::time::Duration;

use pointsman_policies::{Time, schemes::LeastLoad};
use pointsman_schedulers::task::{
    Action, Counters, Event, FailKind, Limits, Measured, Reason, ReplyKind, TaskKey, TaskScheduler, TaskSpec,
};

/// A scheduler with engines `e0 ..`, driven by one-line calls. Every call ends by checking the contracts.
struct World {
    machine: TaskScheduler<LeastLoad, String>,
    now: Time,
}

type Done = Vec<Action<String>>;

impl World {
    fn new(engines: usize) -> World {
        World::with(engines, Limits::default())
    }

    fn with(engines: usize, limits: Limits) -> World {
        let mut world = World { machine: TaskScheduler::new(LeastLoad::default(), limits, 1), now: Time::ZERO };
        for n in 0..engines {
            world.event(Event::EngineUp { uuid: &format!("e{n}"), number: 0 });
        }
        world
    }

    fn event(&mut self, event: Event<'_, String>) -> Done {
        self.machine.handle(self.now, event);
        self.done()
    }

    fn done(&mut self) -> Done {
        let done: Done = std::iter::from_fn(|| self.machine.poll_action()).collect();
        self.machine.check().unwrap();
        done
    }

    fn submit(&mut self, id: &str, metadata: &str) -> Done {
        let spec = TaskSpec::parse(metadata.as_bytes());
        self.event(Event::Submit { id, spec, payload: id.to_owned(), bytes: 1 })
    }

    fn answer(&mut self, id: &str, engine: &str, kind: ReplyKind) -> Done {
        self.event(Event::Result { id, engine, kind, payload: format!("{kind:?} from {engine}"), measured: Measured::default() })
    }

    fn pass(&mut self, by: Duration) -> Done {
        self.now = self.now + by;
        self.machine.handle_timeout(self.now);
        self.done()
    }

    /// Where a task was sent by the last actions.
    fn engine(&self, done: &Done, id: &str) -> String {
        let sent = done.iter().find_map(|action| match action {
            Action::Dispatch { engine, payload, .. } if payload == id => Some(self.machine.uuid(*engine).to_owned()),
            _ => None,
        });
        sent.unwrap_or_else(|| panic!("{id} was not sent: {done:?}"))
    }
}

fn reply(text: &str) -> Action<String> {
    Action::Reply { id: "t".into(), payload: text.to_owned() }
}

fn failed(done: &Done, id: &str, kind: FailKind) {
    let found = done.iter().any(|action| matches!(action, Action::Fail { kind: k, payload, .. } if *k == kind && payload == id));
    assert!(found, "{id} did not end as {kind:?}: {done:?}");
}

#[test]
fn d01_retries_beyond_the_number_of_engines_end_with_the_last_error() {
    let mut world = World::new(2);
    let done = world.submit("t", r#"{"retries": 9}"#);
    let first = world.engine(&done, "t");
    let done = world.answer("t", &first, ReplyKind::Failed);
    let second = world.engine(&done, "t");
    assert_ne!(first, second);
    assert_eq!(world.answer("t", &second, ReplyKind::Failed), [reply(&format!("Failed from {second}"))]);
}

#[test]
fn d01_exhausted_targets_end_with_the_last_error_not_as_impossible() {
    let mut world = World::new(3);
    world.submit("t", r#"{"retries": 5, "targets": ["e1"]}"#);
    assert_eq!(world.answer("t", "e1", ReplyKind::Failed), [reply("Failed from e1")]);
}

#[test]
fn d01_exhausted_retries_with_a_timeout_end_by_it() {
    let mut world = World::new(1);
    world.submit("t", r#"{"retries": 1, "timeout": 0.1}"#);
    assert_eq!(world.answer("t", "e0", ReplyKind::Failed), []);
    failed(&world.pass(Duration::from_millis(100)), "t", FailKind::TaskTimeout);
}

#[test]
fn d01_the_last_error_is_kept_until_the_last_eligible_engine_is_gone() {
    let mut world = World::new(2);
    world.submit("busy", "{}");
    let done = world.submit("t", r#"{"retries": 3}"#);
    let engine = world.engine(&done, "t");
    let other = if engine == "e0" { "e1" } else { "e0" };
    assert_eq!(world.answer("t", &engine, ReplyKind::Failed), []);
    let done = world.event(Event::EngineDown { uuid: other });
    assert!(done.contains(&reply(&format!("Failed from {engine}"))), "{done:?}");
}

#[test]
fn d02_refused_by_every_engine_it_waits_for_another() {
    let mut world = World::new(1);
    world.submit("t", "{}");
    assert_eq!(world.answer("t", "e0", ReplyKind::Unmet), []);
    let done = world.event(Event::EngineUp { uuid: "e1", number: 0 });
    assert_eq!(world.engine(&done, "t"), "e1");
}

#[test]
fn d03_follow_onto_a_dead_engines_task_ends_as_impossible() {
    let mut world = World::new(2);
    let done = world.submit("a", "{}");
    let home = world.engine(&done, "a");
    world.answer("a", &home, ReplyKind::Ok);
    world.submit("blocker", &format!(r#"{{"targets": ["{home}"]}}"#));
    assert_eq!(world.submit("waiting", r#"{"follow": "a"}"#), []);
    failed(&world.event(Event::EngineDown { uuid: &home }), "waiting", FailKind::ImpossibleDependency);
    failed(&world.submit("late", r#"{"follow": ["a"]}"#), "late", FailKind::ImpossibleDependency);
}

#[test]
fn d04_impossible_targets_are_noticed_at_once() {
    let mut world = World::new(2);
    world.submit("b0", "{}");
    world.submit("b1", "{}");
    failed(&world.submit("ghost", r#"{"targets": ["nobody"]}"#), "ghost", FailKind::ImpossibleDependency);
    // Waiting for a dependency, with a target that dies meanwhile.
    assert_eq!(world.submit("t", r#"{"after": "b0", "targets": ["e1"]}"#), []);
    failed(&world.event(Event::EngineDown { uuid: "e1" }), "t", FailKind::ImpossibleDependency);
}

#[test]
fn d05_follow_on_the_failure_of_a_task_that_never_ran_is_impossible() {
    let mut world = World::new(1);
    failed(&world.submit("never", r#"{"after": "unknown"}"#), "never", FailKind::InvalidDependency);
    let follow = r#"{"follow": {"dependencies": ["never"], "all": true, "success": false, "failure": true}}"#;
    failed(&world.submit("t", follow), "t", FailKind::ImpossibleDependency);
}

#[test]
fn d06_an_impossible_task_beside_a_waiting_one_is_answered() {
    let mut world = World::new(1);
    world.submit("a", "{}");
    assert_eq!(world.submit("waits", r#"{"after": ["a"]}"#), []);
    failed(&world.submit("invalid", r#"{"after": ["a", "unknown"]}"#), "invalid", FailKind::InvalidDependency);
    failed(&world.submit("impossible", r#"{"after": ["a", "invalid"]}"#), "impossible", FailKind::ImpossibleDependency);
    let done = world.answer("a", "e0", ReplyKind::Ok);
    assert_eq!(world.engine(&done, "waits"), "e0");
}

#[test]
fn d07_metadata_of_wrong_types_gets_an_error_reply() {
    let mut world = World::new(1);
    for (n, metadata) in
        ["[]", "{", r#"{"after": 7}"#, r#"{"targets": 3}"#, r#"{"after": {"dependencies": [1]}}"#].iter().enumerate()
    {
        let id = format!("t{n}");
        failed(&world.submit(&id, metadata), &id, FailKind::InvalidDependency);
    }
    let done = world.submit("fine", r#"{"targets": null, "timeout": null, "after": null}"#);
    assert_eq!(world.engine(&done, "fine"), "e0");
}

#[test]
fn d08_waiting_tasks_keep_their_order() {
    let mut world = World::new(1);
    world.submit("t0", "{}");
    for n in 1..6 {
        world.submit(&format!("t{n}"), "{}");
    }
    for n in 0..5 {
        let done = world.answer(&format!("t{n}"), "e0", ReplyKind::Ok);
        assert_eq!(world.engine(&done, &format!("t{}", n + 1)), "e0");
    }
}

#[test]
fn d09_without_an_hwm_nothing_runs_twice() {
    let mut world = World::with(1, Limits { hwm: 0, ..Limits::default() });
    world.submit("a", "{}");
    world.submit("b", r#"{"after": "a"}"#);
    let done = world.answer("a", "e0", ReplyKind::Ok);
    assert_eq!(world.engine(&done, "b"), "e0");
    assert_eq!(world.event(Event::EngineUp { uuid: "e1", number: 0 }), []);
}

#[test]
fn d10_a_late_reply_is_counted_not_fatal_and_an_unknown_one_passed_on() {
    let mut world = World::new(1);
    world.submit("t", "{}");
    world.answer("t", "e0", ReplyKind::Ok);
    assert_eq!(world.answer("t", "e0", ReplyKind::Ok), [Action::Reject { reason: Reason::AlreadyAnswered }]);
    assert_eq!(world.machine.counters().late, 1);
    let done = world.answer("of_a_former_life_1", "e0", ReplyKind::Ok);
    assert_eq!(done, [Action::PassOn { payload: "Ok from e0".into() }]);
    let done = world.submit("next", "{}");
    assert_eq!(world.engine(&done, "next"), "e0");
}

#[test]
fn d12_aborted_is_final_and_consumes_no_retries() {
    let mut world = World::new(2);
    let done = world.submit("t", r#"{"retries": 3}"#);
    let engine = world.engine(&done, "t");
    assert_eq!(world.answer("t", &engine, ReplyKind::Aborted), [reply(&format!("Aborted from {engine}"))]);
}

#[test]
fn d13_a_lost_engines_task_ends_after_its_grace_and_a_reply_within_it_counts() {
    let mut world = World::new(1);
    world.submit("t", "{}");
    assert_eq!(world.event(Event::EngineDown { uuid: "e0" }), []);
    assert_eq!(world.answer("t", "e0", ReplyKind::Ok), [reply("Ok from e0")]);
    world.event(Event::EngineUp { uuid: "e1", number: 0 });
    world.submit("u", "{}");
    world.event(Event::EngineDown { uuid: "e1" });
    assert_eq!(world.machine.poll_timeout(), Some(world.now + Limits::default().grace));
    failed(&world.pass(Limits::default().grace), "u", FailKind::EngineError);
    assert_eq!(world.answer("u", "e1", ReplyKind::Ok), [Action::Reject { reason: Reason::AlreadyAnswered }]);
}

#[test]
fn a_lost_engines_task_with_retries_goes_elsewhere() {
    let mut world = World::new(2);
    let done = world.submit("t", r#"{"retries": 1}"#);
    let first = world.engine(&done, "t");
    world.event(Event::EngineDown { uuid: &first });
    let done = world.pass(Limits::default().grace);
    assert_ne!(world.engine(&done, "t"), first);
}

#[test]
fn an_engine_that_answers_what_it_was_not_given_changes_nothing() {
    let mut world = World::new(2);
    let done = world.submit("t", "{}");
    let engine = world.engine(&done, "t");
    let other = if engine == "e0" { "e1" } else { "e0" };
    assert_eq!(world.answer("t", other, ReplyKind::Ok), [Action::Reject { reason: Reason::NotRunningThere }]);
    assert_eq!(world.answer("t", "stranger", ReplyKind::Ok), [Action::Reject { reason: Reason::NotRunningThere }]);
    assert_eq!(world.answer("t", &engine, ReplyKind::Ok), [reply(&format!("Ok from {engine}"))]);
}

#[test]
fn a_repeated_id_is_rejected_while_live_and_after() {
    let mut world = World::new(1);
    world.submit("t", "{}");
    let duplicate = [Action::Reject { reason: Reason::DuplicateTask }];
    assert_eq!(world.submit("t", "{}"), duplicate);
    world.answer("t", "e0", ReplyKind::Ok);
    assert_eq!(world.submit("t", "{}"), duplicate);
}

#[test]
fn a_cycle_can_not_be_submitted() {
    let mut world = World::new(1);
    failed(&world.submit("own", r#"{"after": "own"}"#), "own", FailKind::InvalidDependency);
    failed(&world.submit("x", r#"{"after": "y"}"#), "x", FailKind::InvalidDependency);
    failed(&world.submit("y", r#"{"after": "x"}"#), "y", FailKind::ImpossibleDependency);
}

#[test]
fn a_full_queue_refuses_with_a_reply_and_recovers() {
    let mut world = World::with(1, Limits { queued_tasks: 2, ..Limits::default() });
    world.submit("a", "{}");
    world.submit("b", "{}");
    failed(&world.submit("c", "{}"), "c", FailKind::QueueFull);
    world.answer("a", "e0", ReplyKind::Ok);
    assert_eq!(world.submit("c", "{}"), [], "the same task may be tried again");
}

#[test]
fn an_unreachable_engine_is_tried_again_and_loses_nothing() {
    let mut world = World::new(1);
    let done = world.submit("t", "{}");
    let Action::Dispatch { task, attempt, .. } = done[0] else { panic!("{done:?}") };
    assert_eq!(world.event(Event::SendFailed { task, attempt }), []);
    let again = world.pass(Limits::default().reconnect);
    assert_eq!(world.engine(&again, "t"), "e0");
    assert_eq!(world.event(Event::SendFailed { task: TaskKey::default(), attempt: 1 }).len(), 1);
}

#[test]
fn blocked_tasks_do_not_slow_an_unrelated_one() {
    // Counted, not timed: with 5,000 blocked tasks in the queue, an unrelated one is sent by its own submission, and its end
    // touches nobody else.
    let mut world = World::new(2);
    world.submit("gate", "{}");
    for n in 0..5_000 {
        world.machine.handle(
            world.now,
            Event::Submit {
                id: &format!("b_{n}"),
                spec: TaskSpec::parse(br#"{"after": "gate"}"#),
                payload: "blocked".into(),
                bytes: 1,
            },
        );
    }
    assert_eq!(world.done(), []);
    for n in 0..100 {
        let id = format!("free_{n}");
        let done = world.submit(&id, "{}");
        assert_eq!(done.len(), 1);
        assert_eq!(world.answer(&id, &world.engine(&done, &id), ReplyKind::Ok).len(), 1);
    }
    let Counters { dispatched, replied, .. } = world.machine.counters();
    assert_eq!((dispatched, replied), (101, 100));
}

#[test]
fn a_finished_task_leaves_at_most_32_bytes() {
    let mut world = World::new(1);
    for n in 0..50_000 {
        let id = format!("16f43436-8457fd95b32b1fb3fb111d03_13193_{n}");
        world
            .machine
            .handle(world.now, Event::Submit { id: &id, spec: Ok(TaskSpec::default()), payload: String::new(), bytes: 0 });
        world.machine.handle(
            world.now,
            Event::Result { id: &id, engine: "e0", kind: ReplyKind::Ok, payload: String::new(), measured: Measured::default() },
        );
        while world.machine.poll_action().is_some() {}
    }
    world.machine.check().unwrap();
    assert_eq!((world.machine.live_tasks(), world.machine.ledger().len()), (0, 50_000));
    assert!(world.machine.ledger().heap_bytes() <= 32 * 50_000, "{} bytes", world.machine.ledger().heap_bytes());
}

#[test]
fn a_task_that_was_taken_over_is_answered_by_the_engine_that_had_it_before() {
    let inherited = || Ok(TaskSpec { inherited: true, ..TaskSpec::default() });
    let submit =
        |world: &mut World, id: &str| world.event(Event::Submit { id, spec: inherited(), payload: id.to_owned(), bytes: 1 });
    let mut world = World::new(2);
    let done = submit(&mut world, "t");
    let engine = world.engine(&done, "t");
    let other = if engine == "e0" { "e1" } else { "e0" };
    for (from, kind) in [("stranger", ReplyKind::Ok), (other, ReplyKind::Failed), (other, ReplyKind::Aborted)] {
        let rejected = [Action::Reject { reason: Reason::NotRunningThere }];
        assert_eq!(world.answer("t", from, kind), rejected, "nobody known, or nothing good: it may yet succeed where it is");
    }
    let done = world.answer("t", other, ReplyKind::Ok);
    assert_eq!(done[1], reply(&format!("Ok from {other}")));
    assert!(matches!(&done[0], Action::Abort { id, .. } if &**id == "t"), "{done:?}");
    assert_eq!(world.answer("t", &engine, ReplyKind::Aborted), [], "the copy has gone as asked");

    // The same while it waits: for an engine, and for a task that it depends on.
    submit(&mut world, "a");
    submit(&mut world, "b");
    submit(&mut world, "waits");
    let answered = |id: &str, text: &str| Action::Reply { id: id.into(), payload: text.to_owned() };
    assert_eq!(world.answer("waits", "e0", ReplyKind::Ok), [answered("waits", "Ok from e0")]);
    let after = pointsman_schedulers::task::Dependency::on(["a"]);
    let spec = Ok(TaskSpec { inherited: true, after, ..TaskSpec::default() });
    world.event(Event::Submit { id: "child", spec, payload: "child".to_owned(), bytes: 1 });
    assert_eq!(world.answer("child", "e1", ReplyKind::Ok), [answered("child", "Ok from e1")]);
}
