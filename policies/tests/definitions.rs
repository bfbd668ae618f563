//! Each scheme against its definition, on small systems where the right answer can be said: which engine, in which shares, after what.

use std::collections::BTreeMap;
use std::time::Duration;

use pointsman_policies::{
    Candidates, Chosen, Ending, EngineIx, Hints, Input, Joining, Outcome, Placement, PolicySpec, Registry, Request, Scheme,
    Signal, TaskFacts, TaskView, Ticket, Time,
};

/// A scheme with engines without limit; time in milliseconds.
struct World {
    placement: Placement<Box<dyn Scheme>>,
    engines: Vec<EngineIx>,
    now: Time,
}

impl World {
    fn new(scheme: &str, engines: usize) -> World {
        World::limited(scheme, &vec![0; engines])
    }

    fn limited(scheme: &str, hwm: &[u32]) -> World {
        let scheme = Registry::builtin().build(&scheme.parse::<PolicySpec>().unwrap()).unwrap();
        let mut world = World { placement: Placement::new(scheme, 11), engines: vec![], now: Time::ZERO };
        for (n, &hwm) in hwm.iter().enumerate() {
            world.join(n, hwm);
        }
        world
    }

    fn join(&mut self, n: usize, hwm: u32) {
        let joining = Joining::new(hwm).named(&format!("engine-{n}"), n as u64);
        self.engines.push(self.placement.join_as(self.now, joining));
    }

    fn pick_of(&mut self, facts: &TaskFacts, inputs: &[Input], ready: Time, waiting: usize) -> Chosen {
        let view = TaskView::new(facts).at(ready, ready).with_inputs(inputs);
        self.placement.pick(self.now, &Request::new(Candidates::All).task(view).with_waiting(waiting))
    }

    fn pick(&mut self) -> usize {
        self.pick_key("")
    }

    fn pick_key(&mut self, label: &str) -> usize {
        let mut facts = TaskFacts::default();
        facts.hints = Hints::parse(label).0;
        match self.pick_of(&facts, &[], self.now, 1) {
            Chosen::Engine(engine) => engine.slot(),
            other => panic!("{other:?}"),
        }
    }

    fn send(&mut self, engine: usize) -> Ticket {
        self.send_labelled(engine, "")
    }

    fn send_labelled(&mut self, engine: usize, label: &str) -> Ticket {
        let mut facts = TaskFacts::default();
        facts.hints = Hints::parse(label).0;
        let request = Request::new(Candidates::All).task(TaskView::new(&facts));
        self.placement.dispatch(self.now, self.engines[engine], &request)
    }

    fn end(&mut self, engine: usize, ticket: Ticket, latency_ms: u64, run_ms: u64) {
        let mut outcome = Outcome::new(ticket, Ending::Ok, Duration::from_millis(latency_ms));
        outcome.run = Some(Duration::from_millis(run_ms));
        self.placement.outcome(self.now, self.engines[engine], &outcome);
    }

    /// A task that has run there before.
    fn taught(&mut self, engine: usize, latency_ms: u64, run_ms: u64) {
        let ticket = self.send(engine);
        self.end(engine, ticket, latency_ms, run_ms);
    }

    /// Engines of these speeds, as they are learned.
    fn teach_speeds(&mut self, speeds: &[f64]) {
        for _ in 0..200 {
            for (n, speed) in speeds.iter().enumerate() {
                let run = Duration::from_secs_f64(1.0 / speed);
                self.placement.learned_mut().observe(self.now, 5, self.engines[n], run, 0);
                let ticket = self.send(n);
                self.end(n, ticket, 1, 1);
            }
        }
    }

    /// Sends where it picks, and returns the sequence.
    fn sequence(&mut self, count: usize) -> Vec<usize> {
        (0..count)
            .map(|_| {
                let engine = self.pick();
                self.send(engine);
                engine
            })
            .collect()
    }

    fn shares(&mut self, draws: usize) -> Vec<f64> {
        let mut counts = vec![0.0; self.engines.len()];
        (0..draws).for_each(|_| counts[self.pick()] += 1.0 / draws as f64);
        counts
    }
}

fn close(got: &[f64], want: &[f64], by: f64) {
    assert!(got.iter().zip(want).all(|(g, w)| (g - w).abs() < by), "got {got:?}, want {want:?}");
}

#[test]
fn turns_are_taken_in_order() {
    assert_eq!(World::new("roundrobin", 3).sequence(7), [0, 1, 2, 0, 1, 2, 0]);
    assert_eq!(World::new("leastload[tie=round]", 3).sequence(7), [0, 1, 2, 0, 1, 2, 0]);
    assert_eq!(World::new("leastload[tie=first]", 3).sequence(6), [0, 1, 2, 0, 1, 2]);
    assert_eq!(World::limited("fillfirst", &[2, 3, 1]).sequence(6), [0, 0, 1, 1, 1, 2]);
}

#[test]
fn weighted_turns_are_even_and_smooth() {
    // Weights 5, 1, 1: as many of each among any seven in a row, and never more than five of the heavy one together.
    let mut world = World::limited("swrr[by=hwm]", &[5000, 1000, 1000]);
    let sequence = world.sequence(700);
    for window in sequence.windows(7) {
        let heavy = window.iter().filter(|&&engine| engine == 0).count();
        assert!((4..=6).contains(&heavy), "{window:?}");
    }
    let heavy = sequence.iter().filter(|&&engine| engine == 0).count();
    assert!((499..=501).contains(&heavy), "{heavy}");
    let mut world = World::new("swrr", 2);
    world.teach_speeds(&[3.0, 1.0]);
    // The slow one has had more than its share meanwhile; when that is made up for, three of four go to the fast one.
    let fast = world.sequence(2_000)[1_600..].iter().filter(|&&engine| engine == 0).count();
    assert!((285..=315).contains(&fast), "{fast}");
}

#[test]
fn choices_have_the_shares_that_their_definition_implies() {
    let loaded = |scheme: &str| {
        let mut world = World::new(scheme, 4);
        for load in 0..4 {
            (0..load).for_each(|_| _ = world.send(load));
        }
        world.shares(60_000)
    };
    // Two with replacement: the least loaded of four wins unless it is in neither draw.
    close(&loaded("choices[replacement=true]"), &[7.0 / 16.0, 5.0 / 16.0, 3.0 / 16.0, 1.0 / 16.0], 0.01);
    // Without: pairs of four.
    close(&loaded("choices"), &[3.0 / 6.0, 2.0 / 6.0, 1.0 / 6.0, 0.0], 0.01);
    close(&loaded("choices[d=3]"), &[3.0 / 4.0, 1.0 / 4.0, 0.0, 0.0], 0.01);
    close(&loaded("choices[d=4]"), &[1.0, 0.0, 0.0, 0.0], 0.001);
    // With probability one half one draw, else two with replacement.
    let half = |two: f64| 0.5 * 0.25 + 0.5 * two / 16.0;
    close(&loaded("oneplusbeta"), &[half(7.0), half(5.0), half(3.0), half(1.0)], 0.01);
    close(&loaded("jbt[threshold=2]"), &[0.5, 0.5, 0.0, 0.0], 0.01);
    close(&loaded("jiq"), &[1.0, 0.0, 0.0, 0.0], 0.001);
    close(&loaded("leastload[tie=random]"), &[1.0, 0.0, 0.0, 0.0], 0.001);
    close(&World::new("leastload[tie=random]", 4).shares(60_000), &[0.25; 4], 0.01);
    close(&loaded("score[d=2]"), &[3.0 / 6.0, 2.0 / 6.0, 1.0 / 6.0, 0.0], 0.01);
}

#[test]
fn memory_looks_at_the_best_engine_of_last_time() {
    // One draw and memory: after a dispatch to the drawn engine the other of the two is remembered if it has less.
    let spread = |scheme: &str| {
        let mut world = World::new(scheme, 50);
        let mut counts = BTreeMap::new();
        world.sequence(5_000).into_iter().for_each(|engine| *counts.entry(engine).or_insert(0) += 1);
        counts.values().max().unwrap() - counts.values().min().unwrap()
    };
    let (without, with) = (spread("choices[d=1]"), spread("choices[d=1,memory=true]"));
    assert!(with * 3 < without, "{with} with memory, {without} without");
}

#[test]
fn idle_engines_are_taken_in_the_order_of_becoming_idle() {
    let mut world = World::new("jiq", 3);
    let tickets: Vec<(usize, Ticket)> = world.sequence(3).into_iter().map(|engine| (engine, Ticket::default())).collect();
    for &(engine, ticket) in &[tickets[2], tickets[0], tickets[1]] {
        world.end(engine, ticket, 1, 1);
    }
    assert_eq!(world.sequence(3), [tickets[2].0, tickets[0].0, tickets[1].0]);
}

#[test]
fn least_work_counts_time_and_not_tasks() {
    let mut world = World::new("leastwork", 2);
    world.send_labelled(0, "#cost=10");
    (0..3).for_each(|_| _ = world.send_labelled(1, "#cost=1"));
    assert_eq!(world.pick(), 1);
    world.now = world.now + Duration::from_secs(8); // 2 s are left there, and nothing on the other, by what they cost
    world.send_labelled(1, "#cost=5");
    assert_eq!(world.pick(), 0);
}

#[test]
fn what_engines_report_of_others_counts_until_they_report_again() {
    let mut world = World::new("lsq", 3);
    let say = |world: &mut World, engine: usize, load| {
        let signal = Signal { load, at: world.now };
        world.placement.signal(world.now, world.engines[engine], signal);
    };
    say(&mut world, 0, 2);
    say(&mut world, 1, 5);
    say(&mut world, 2, 4);
    assert_eq!(world.sequence(2), [0, 0], "2 and 3 are less than 4");
    // Of five tasks there two are ours: three are others', also when ours have ended.
    say(&mut world, 0, 5);
    assert_eq!(world.pick(), 2);
    world.end(0, Ticket::default(), 1, 1);
    world.end(0, Ticket::default(), 1, 1);
    assert_eq!(world.pick(), 0, "3, 5 and 4");
    // A report that has not seen what we sent since says nothing against it.
    world.send(0);
    say(&mut world, 0, 0);
    assert_eq!(world.placement.roster().load(world.engines[0]), 1);
    assert_eq!(world.sequence(4), [0, 0, 0, 2], "1, 5 and 4: until it is no longer less");

    // A report that was a second on its way: what was sent within a second before it was made had not come yet.
    let mut world = World::new("lsq", 2);
    for at_ms in [0, 1000, 2000] {
        world.now = Time::ZERO + Duration::from_millis(at_ms);
        world.send(0);
    }
    world.now = Time::ZERO + Duration::from_millis(2500);
    let signal = Signal { load: 3, at: Time::ZERO + Duration::from_millis(1500) };
    world.placement.signal(world.now, world.engines[0], signal);
    // One of the three was ours, so two are others', and with our three there are five: as many go to the other.
    assert_eq!(world.sequence(6), [1, 1, 1, 1, 1, 0]);
}

#[test]
fn expected_delays_weigh_load_by_speed() {
    for scheme in ["sed", "neverqueue"] {
        let mut world = World::new(scheme, 2);
        world.teach_speeds(&[4.0, 1.0]);
        // Delays with one task more: 1/4, 2/4, 3/4 on the fast one against 1 on the slow.
        let expected = if scheme == "sed" { [0, 0, 0] } else { [0, 1, 0] };
        assert_eq!(world.sequence(3), expected, "{scheme}");
    }
}

#[test]
fn a_slow_engine_is_left_idle_while_waiting_for_a_fast_one_is_quicker() {
    let mut world = World::limited("sed[slow_server=true]", &[1, 1]);
    world.teach_speeds(&[10.0, 1.0]);
    assert_eq!(world.pick(), 0);
    world.send(0);
    let facts = TaskFacts::default();
    // The fast one is ten times as fast: with up to nine before it, a task is served sooner by it than the slow one would take.
    for waiting in 1..=12 {
        let chosen = world.pick_of(&facts, &[], Time::ZERO, waiting);
        assert_eq!(matches!(chosen, Chosen::Defer { .. }), waiting < 9, "{waiting} waiting: {chosen:?}");
    }
    // One that is drained is not waited for, whatever it still has.
    world.placement.set_barred(world.now, world.engines[0], true);
    assert_eq!(world.pick(), 1);
}

#[test]
fn slow_answers_count_at_once_and_fade() {
    let mut world = World::new("peakewma[decay_s=10]", 2);
    world.taught(0, 100, 100);
    world.taught(1, 100, 100);
    world.taught(1, 2_000, 2_000);
    assert_eq!(world.pick(), 0);
    for _ in 0..3 {
        world.taught(1, 10, 10); // fast ones do not make up for it while it is fresh
    }
    assert_eq!(world.pick(), 0);
    (0..30).for_each(|_| _ = world.send(0));
    assert_eq!(world.pick(), 1, "thirty in line are worse");
}

#[test]
fn long_queues_weigh_by_their_cube() {
    let mut world = World::new("c3[d=2]", 2);
    world.taught(0, 20, 20);
    world.taught(1, 100, 100);
    // Scores are run * (queue^3) with equal response and run: 20 * 1 against 100; 20 * 8 against 100.
    assert_eq!(world.pick(), 0);
    world.send(0);
    assert_eq!(world.pick(), 1);
}

#[test]
fn hot_engines_are_avoided_and_among_cold_ones_latency_decides() {
    let mut world = World::new("prequal[probes=16,pool=16,quantile=0.5,reuse=100]", 4);
    for (engine, latency) in [(0, 50), (1, 10), (2, 30), (3, 40)] {
        world.taught(engine, latency, latency);
    }
    // Loads 0, 5, 0, 0: engine 1 has the least latency and is hot.
    (0..5).for_each(|_| _ = world.send(1));
    world.now = world.now + Duration::from_secs(10); // probes of before are too old
    assert_eq!(world.pick(), 2);
}

#[test]
fn one_key_goes_to_one_engine_in_equal_shares_and_few_move() {
    let homes = |world: &mut World| (0..3_000).map(|key| world.pick_key(&format!("#key=k{key}"))).collect::<Vec<_>>();
    for (scheme, uneven, moved_at_most) in
        [("maglev[table=65537]", 1.25, 0.2), ("rendezvous", 1.25, 0.16), ("boundedhash[points=100,factor=100]", 1.6, 0.18)]
    {
        let mut world = World::new(scheme, 10);
        let before = homes(&mut world);
        assert_eq!(before, homes(&mut world), "{scheme}: the same key, the same engine");
        let mut counts = [0; 10];
        before.iter().for_each(|&engine| counts[engine] += 1);
        let most = *counts.iter().max().unwrap() as f64 / 300.0;
        assert!(most < uneven, "{scheme}: {counts:?}");
        world.join(10, 0);
        let after = homes(&mut world);
        let moved = before.iter().zip(&after).filter(|(a, b)| a != b).count() as f64 / 3_000.0;
        assert!(moved < moved_at_most, "{scheme}: {moved} of the keys moved to make room for one engine of eleven");
        let astray = before.iter().zip(&after).filter(|&(a, b)| a != b && *b != 10).count() as f64 / 3_000.0;
        assert!(astray < 0.08, "{scheme}: {astray} of the keys moved between engines that were there");
    }
}

#[test]
fn homes_depend_on_names_and_not_on_the_order_of_joining() {
    for scheme in ["maglev[table=65537]", "rendezvous", "boundedhash[points=50,factor=100]"] {
        let names = |numbers: &mut dyn Iterator<Item = usize>| {
            let mut world = World::new(scheme, 0);
            let order: Vec<usize> = numbers.collect();
            order.iter().for_each(|&n| world.join(n, 0));
            (0..500).map(|key| order[world.pick_key(&format!("#key=k{key}"))]).collect::<Vec<usize>>()
        };
        assert_eq!(names(&mut (0..20)), names(&mut (0..20).rev()), "{scheme}");
    }
}

#[test]
fn a_closed_home_moves_only_its_own_keys() {
    for scheme in ["maglev[table=65537]", "rendezvous", "boundedhash[points=50,factor=100]"] {
        let mut world = World::new(scheme, 20);
        let homes = |world: &mut World| (0..1_000).map(|key| world.pick_key(&format!("#key=k{key}"))).collect::<Vec<_>>();
        let before = homes(&mut world);
        world.placement.set_barred(world.now, world.engines[7], true);
        let after = homes(&mut world);
        assert!(before.iter().zip(&after).all(|(a, b)| a == b || *a == 7) && !after.contains(&7), "{scheme}");
        let third = [EngineIx::new(3)];
        let request = Request::new(Candidates::Except(&third));
        assert!(!matches!(world.placement.pick(world.now, &request), Chosen::Engine(engine) if engine.slot() == 3));
        world.placement.set_barred(world.now, world.engines[7], false);
        assert_eq!(homes(&mut world), before, "{scheme}");
    }
}

#[test]
fn limits_do_not_change_homes_that_they_admit() {
    for scheme in ["rendezvous", "boundedhash[points=50,factor=100]"] {
        let mut world = World::new(scheme, 20);
        for key in 0..300 {
            let home = world.pick_key(&format!("#key=k{key}"));
            let mut facts = TaskFacts::default();
            facts.hints = Hints::parse(&format!("#key=k{key}")).0;
            let others = [world.engines[(home + 3) % 20], world.engines[home], world.engines[(home + 11) % 20]];
            let view = TaskView::new(&facts);
            for candidates in [Candidates::Only(&others), Candidates::Except(&[others[0], others[2]])] {
                let chosen = world.placement.pick(world.now, &Request::new(candidates).task(view));
                assert_eq!(chosen, Chosen::Engine(world.engines[home]), "{scheme} {candidates:?}");
            }
        }
    }
}

#[test]
fn a_task_bound_far_ahead_tells_nothing_of_the_time() {
    let mut world = World::new("swrr[by=equal]", 3);
    (0..1_000).for_each(|_| _ = world.send(0));
    world.join(3, 0);
    let next = world.sequence(30);
    assert!((8..=12).contains(&next.iter().filter(|&&engine| engine == 3).count()), "{next:?}");
}

#[test]
fn a_scheme_that_takes_over_sees_the_limits() {
    let mut world = World::limited("lru", &[100, 10, 10, 10]);
    for scheme in ["swrr[by=hwm]", "rendezvous[by=hwm]"] {
        let new = Registry::builtin().build(&scheme.parse().unwrap()).unwrap();
        world.placement.replace(world.now, new, &[], |_, _| {});
        let counts = if scheme.starts_with("swrr") {
            let sequence = world.sequence(26);
            sequence.iter().filter(|&&engine| engine == 0).count()
        } else {
            (0..26).filter(|key| world.pick_key(&format!("#key={key}")) == 0).count()
        };
        assert!(counts >= 15, "{scheme}: 10 of 13 should go to the engine with 10 times the room: {counts} of 26");
    }
}

#[test]
fn unknown_engines_are_found_out_by_one_task_each() {
    for scheme in ["c3[d=2]", "peakewma"] {
        let mut world = World::new(scheme, 2);
        world.taught(0, 100_000, 100_000);
        assert_eq!(world.sequence(3), [1, 0, 0], "{scheme}");
    }
}

#[test]
fn shares_by_lot_follow_weights() {
    let mut world = World::new("rendezvous[by=speed]", 4);
    world.teach_speeds(&[4.0, 2.0, 1.0, 1.0]);
    let mut counts = [0.0; 4];
    (0..20_000).for_each(|key| counts[world.pick_key(&format!("#key=k{key}"))] += 1.0 / 20_000.0);
    close(&counts, &[0.5, 0.25, 0.125, 0.125], 0.02);
}

#[test]
fn no_engine_gets_more_than_its_share_of_one_popular_key() {
    let mut world = World::new("boundedhash[factor=1.25]", 8);
    for _ in 0..80 {
        let engine = world.pick_key("#key=popular");
        world.send(engine);
    }
    let loads: Vec<u32> = world.engines.iter().map(|&engine| world.placement.roster().load(engine)).collect();
    assert!(loads.iter().all(|&load| load <= 13), "at most 1.25 times the mean of 10, rounded up: {loads:?}");
}

#[test]
fn inputs_draw_a_task_and_a_busy_engine_is_waited_for_a_while() {
    let mut world = World::limited("locality[wait_ms=100]", &[1, 1, 1]);
    let at = |engine: usize, bytes: u64| Input { engine: EngineIx::new(engine as u32), bytes };
    let facts = TaskFacts::default();
    let inputs = [at(0, 100), at(2, 60), at(2, 60)];
    assert_eq!(world.pick_of(&facts, &inputs, world.now, 1), Chosen::Engine(world.engines[2]));
    world.send(2);
    assert_eq!(world.pick_of(&facts, &inputs, world.now, 1), Chosen::Engine(world.engines[0]), "the next best place");
    world.send(0);
    let until = Some(Time::ZERO + Duration::from_millis(100));
    assert_eq!(world.pick_of(&facts, &inputs, Time::ZERO, 1), Chosen::Defer { until });
    world.now = world.now + Duration::from_millis(100);
    assert_eq!(world.pick_of(&facts, &inputs, Time::ZERO, 1), Chosen::Engine(world.engines[1]));
    assert_eq!(world.pick(), 1, "without inputs it waits for nobody");
}

#[test]
fn scores_add_up() {
    let mut world = World::new("score[d=64,load=0,latency=1]", 3);
    for (engine, latency) in [(0, 300), (1, 100), (2, 200)] {
        world.taught(engine, latency, latency);
    }
    (0..9).for_each(|_| _ = world.send(1));
    assert_eq!(world.pick(), 1, "load has no weight");
    let mut world = World::new("score[d=1,load=0,bytes=1]", 20);
    let inputs = [Input { engine: world.engines[7], bytes: 1 << 20 }];
    for _ in 0..50 {
        let facts = TaskFacts::default();
        assert_eq!(
            world.pick_of(&facts, &inputs, world.now, 1),
            Chosen::Engine(world.engines[7]),
            "those that hold inputs are looked at"
        );
    }
    let mut world = World::new("score[d=64,load=0,failures=1]", 2);
    let ticket = world.send(0);
    let failed = Outcome::new(ticket, Ending::Failed, Duration::ZERO);
    world.placement.outcome(world.now, world.engines[0], &failed);
    assert_eq!(world.pick(), 1);
}

#[test]
fn sizes_have_their_engines() {
    let mut world = World::new("sita[cutoffs=[1.0, 10.0]]", 3);
    for (label, engine) in [("#cost=0.5", 0), ("#cost=5", 1), ("#cost=50", 2)] {
        assert_eq!(world.pick_key(label), engine, "{label}");
    }
    let mut world = World::limited("sita[cutoffs=[1.0]]", &[1, 1]);
    world.send_labelled(0, "#cost=0.5");
    assert_eq!(world.pick_key("#cost=0.5"), 1, "its own is full: the nearest");
    let mut world = World::limited("sita[cutoffs=[1.0], strict=true]", &[1, 1]);
    world.send_labelled(0, "#cost=0.5");
    let mut facts = TaskFacts::default();
    facts.hints = Hints::parse("#cost=0.5").0;
    assert_eq!(world.pick_of(&facts, &[], world.now, 1), Chosen::Defer { until: None });
}
