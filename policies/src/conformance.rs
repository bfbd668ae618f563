//! The suites that every policy of an axis runs, foreign ones too. For schemes: random joins, leaves, limits, dispatches, outcomes and takeovers, with the promises of
//! [`Scheme`] checked after each step. It prints nothing and draws only from the seed it is given.

use std::time::Duration;

use crate::facts::Hints;
use crate::{
    Admission, AdmissionCx, Candidates, Chosen, Ending, EngineIx, Flight, InFlight, Input, Joining, Learned, Move, Order,
    OrderCx, Outcome, Placement, Rank, Rebalance, RebalanceCx, Request, Rng, Roster, Scheme, Signal, TaskFacts, TaskView, Ticket,
    Time,
};

/// Drives a fresh scheme from `make` through `steps` random changes of up to `engines` engines and checks after each that
/// the scheme's index agrees with the roster; that a pick, also one asked for twice, is an open candidate; that a scheme which never
/// defers (`deferring` false) picks whenever it can, and one that does asks for a time to come; that another instance can take over at any
/// moment; and, at the end, that the same seed gives the same picks.
///
/// ```
/// use pointsman_policies::{conformance, schemes::Lru};
/// conformance::run(Lru::default, 1, 8, 200, false).unwrap();
/// ```
///
/// # Errors
/// Says at which step which promise was broken.
pub fn run<S: Scheme>(make: impl Fn() -> S, seed: u64, engines: usize, steps: usize, deferring: bool) -> Result<(), String> {
    let first = play(&make, seed, engines, steps, deferring)?;
    let second = play(&make, seed, engines, steps, deferring)?;
    if first == second { Ok(()) } else { Err(format!("seed {seed}: two runs of the same seed picked differently")) }
}

/// Runs tasks through a scheme on a steady cluster for ever longer, and checks that what it holds in memory does not grow with the number
/// of tasks that have ended. `allocated` tells how many bytes the process holds; nothing else may allocate meanwhile.
///
/// # Errors
/// Says from how many bytes to how many it has grown.
pub fn memory<S: Scheme>(make: impl Fn() -> S, engines: usize, allocated: impl Fn() -> usize) -> Result<(), String> {
    let mut placement = Placement::new(make(), 1);
    let mut world = Rng::stream(1, "memory");
    for n in 0..engines {
        placement.join_as(Time::ZERO, Joining::new(0).named(&format!("engine-{n}"), n as u64));
    }
    let mut running = std::collections::VecDeque::with_capacity(2 * engines + 1);
    let mut held = 0;
    for step in 0..20_000_u64 {
        let now = Time::from_ns(step * 1_000_000);
        let facts = some_facts(&mut world);
        let request = Request::new(Candidates::All).task(TaskView::new(&facts).at(now, now));
        placement.wake(now);
        if let Chosen::Engine(engine) = placement.pick(now, &request) {
            let ticket = placement.dispatch(now, engine, &request);
            running.push_back(Sent { engine, ticket, facts, since: now });
        }
        if running.len() > 2 * engines
            && let Some(task) = running.pop_front()
        {
            end(&mut placement, now, &task, Ending::Ok);
        }
        if step == 5_000 {
            held = allocated();
        }
    }
    let grown = allocated();
    if grown <= held + 1024 { Ok(()) } else { Err(format!("held {held} bytes after 5000 tasks, {grown} after 20000")) }
}

struct Sent {
    engine: EngineIx,
    ticket: Ticket,
    facts: TaskFacts,
    since: Time,
}

fn some_facts(world: &mut Rng) -> TaskFacts {
    let mut facts = TaskFacts { class: world.below(4) as u64, client: world.below(3) as u64, bytes: 100, ..TaskFacts::default() };
    facts.hints = Hints { key: world.below(5) as u64, priority: world.unit(), ..Hints::default() };
    if world.below(3) == 0 {
        facts.hints.cost_s = Some(10_f64.powi(world.below(6) as i32 - 3));
    }
    facts
}

fn play<S: Scheme>(
    make: &impl Fn() -> S,
    seed: u64,
    engines: usize,
    steps: usize,
    deferring: bool,
) -> Result<Vec<EngineIx>, String> {
    let mut world = Rng::stream(seed, "world");
    let mut placement = Placement::new(make(), seed);
    let mut live: Vec<EngineIx> = Vec::new();
    let mut running: Vec<Sent> = Vec::new();
    let mut picks = Vec::new();
    let mut now = Time::ZERO;
    for step in 0..steps {
        now = now + Duration::from_micros(world.below(20_000) as u64);
        let at = |what: &str| format!("seed {seed}, step {step}: {what}");
        match world.below(21) {
            0 | 1 if live.len() < engines => {
                let joining = Joining::new(world.below(4) as u32).named(&format!("engine-{}", world.below(100)), step as u64);
                live.push(placement.join_as(now, joining));
            }
            2 if !live.is_empty() && world.below(3) == 0 => {
                let gone = live.swap_remove(world.below(live.len()));
                placement.set_barred(now, gone, true);
                let lost: Vec<Sent> = running.extract_if(.., |task| task.engine == gone).collect();
                for task in lost {
                    end(&mut placement, now, &task, Ending::Lost);
                }
                placement.leave(now, gone);
            }
            3 | 4 if !live.is_empty() => {
                let engine = live[world.below(live.len())];
                placement.set_hwm(now, engine, world.below(5) as u32);
            }
            5 | 6 if !live.is_empty() => {
                let engine = live[world.below(live.len())];
                placement.set_barred(now, engine, world.below(2) == 0);
            }
            7..=12 if !running.is_empty() => {
                let task = running.swap_remove(world.below(running.len()));
                let ending = [Ending::Ok, Ending::Failed, Ending::Unmet, Ending::Cancelled][world.below(4)];
                if ending == Ending::Ok {
                    let run = now.since(task.since) / 2;
                    placement.learned_mut().observe(now, task.facts.class, task.engine, run, 100);
                }
                end(&mut placement, now, &task, ending);
            }
            13 if world.below(4) == 0 => {
                let sent: Vec<InFlight<'_>> = running.iter().map(in_flight).collect();
                let mut tickets = vec![None; running.len()];
                placement.replace(now, make(), &sent, |index, ticket| tickets[index] = Some(ticket));
                for (task, ticket) in running.iter_mut().zip(tickets) {
                    task.ticket = ticket.ok_or_else(|| at("a task in flight got no ticket at a takeover"))?;
                }
            }
            14 if !live.is_empty() => {
                let engine = live[world.below(live.len())];
                placement.signal(now, engine, Signal { load: world.below(6) as u32, at: now });
            }
            _ => {
                let roster = placement.roster();
                let mut open: Vec<EngineIx> = live.iter().copied().filter(|&engine| roster.is_open(engine)).collect();
                let mut marked: Vec<EngineIx> = live.iter().copied().filter(|_| world.below(3) == 0).collect();
                let candidates = match world.below(8) {
                    0 => {
                        open.retain(|_| world.below(3) == 0);
                        Candidates::Only(&open)
                    }
                    1 => {
                        open.truncate(1);
                        Candidates::Only(&open)
                    }
                    2 => Candidates::Only(&open),
                    3 => Candidates::Except(&marked),
                    4 => {
                        // All but one that is open.
                        let spared = open.first().copied();
                        marked = live.iter().copied().filter(|&engine| Some(engine) != spared).collect();
                        Candidates::Except(&marked)
                    }
                    5 => Candidates::Except(&[]),
                    _ => Candidates::All,
                };
                let facts = some_facts(&mut world);
                let inputs: Vec<Input> = (0..world.below(3))
                    .filter_map(|_| {
                        Some(Input { engine: *live.get(world.below(live.len().max(1)))?, bytes: world.below(9) as u64 })
                    })
                    .collect();
                let ready = Time::from_ns(now.as_ns().saturating_sub(world.below(200_000_000) as u64));
                let view = TaskView::new(&facts).at(ready, ready).with_inputs(&inputs);
                let request = Request::new(candidates).task(view).with_waiting(1 + world.below(4));
                placement.wake(now);
                let faults = placement.faults();
                placement.pick(now, &request); // one may ask, and ask again
                let choice = placement.pick(now, &request);
                if placement.faults() > faults {
                    return Err(at(&format!("picked an engine that is closed or not among {candidates:?}")));
                }
                match choice {
                    Chosen::Engine(engine) => {
                        picks.push(engine);
                        let ticket = placement.dispatch(now, engine, &request);
                        running.push(Sent { engine, ticket, facts, since: now });
                    }
                    Chosen::Defer { .. } if !deferring => return Err(at("deferred although an engine was open")),
                    Chosen::Defer { until } if until.is_some_and(|until| until <= now) => {
                        return Err(at("deferred to a time that has passed"));
                    }
                    Chosen::Defer { .. } | Chosen::NoneOpen => {}
                }
            }
        }
        placement.check().map_err(|reason| at(&reason))?;
    }
    Ok(picks)
}

fn in_flight(task: &Sent) -> InFlight<'_> {
    let request = Request::new(Candidates::All).task(TaskView::new(&task.facts).at(task.since, task.since));
    InFlight { engine: task.engine, ticket: task.ticket, request }
}

fn end<S: Scheme>(placement: &mut Placement<S>, now: Time, task: &Sent, ending: Ending) {
    let latency = now.since(task.since);
    let mut outcome = Outcome::new(task.ticket, ending, latency);
    outcome.run = Some(latency / 2);
    placement.outcome(now, task.engine, &outcome);
}

/// Drives a fresh order from `make` through `steps` random lives of tasks, and checks that the same seed gives the same ranks; that
/// the tag of a lane falls only with an outcome that says so; and that lanes without tasks are forgotten.
///
/// # Errors
/// Says at which step which promise was broken.
pub fn order(make: impl Fn() -> Box<dyn Order>, seed: u64, steps: usize) -> Result<(), String> {
    let first = play_order(make(), seed, steps)?;
    if first == play_order(make(), seed, steps)? {
        Ok(())
    } else {
        Err(format!("seed {seed}: two runs of the same seed ranked differently"))
    }
}

fn play_order(mut order: Box<dyn Order>, seed: u64, steps: usize) -> Result<Vec<Rank>, String> {
    let (mut world, mut learned, needs) = (Rng::stream(seed, "order"), Learned::default(), order.needs());
    let mut waiting: Vec<(TaskFacts, u64)> = Vec::new();
    let mut running: Vec<(u64, Ticket)> = Vec::new();
    let (mut ranks, mut tags) = (Vec::new(), std::collections::BTreeMap::<u64, u64>::new());
    for step in 0..steps {
        let now = Time::from_ns(step as u64 * 1_000_000);
        let at = |what: String| Err(format!("seed {seed}, step {step}: {what}"));
        // Clients come and go: later ones have not been seen before.
        let mut facts = some_facts(&mut world);
        facts.client += step as u64 / 50 * 3;
        let cx = OrderCx::new(now, &learned);
        match world.below(8) {
            0..=2 => {
                let view = TaskView::new(&facts)
                    .shown(needs)
                    .at(now, now)
                    .numbered(step as u64, step as u64)
                    .in_graph(world.unit(), world.unit());
                let rank = order.rank(&cx, &view);
                order.on_wait(&cx, rank.lane);
                waiting.push((facts, rank.lane));
                ranks.push(rank);
            }
            3 if !waiting.is_empty() => {
                let (_, lane) = waiting.swap_remove(world.below(waiting.len()));
                order.on_withdraw(&cx, lane);
            }
            4 | 5 if !waiting.is_empty() => {
                let (facts, lane) = waiting.swap_remove(world.below(waiting.len()));
                let ticket = order.on_dispatch(&cx, lane, &TaskView::new(&facts).shown(needs));
                running.push((lane, ticket));
            }
            _ if !running.is_empty() => {
                let (lane, ticket) = running.swap_remove(world.below(running.len()));
                let run_s = world.unit() * 10.0;
                order.on_outcome(&cx, lane, ticket, Ending::Ok, (world.below(4) > 0).then_some(run_s));
                if let Some(fallen) = order.take_fallen() {
                    tags.remove(&fallen);
                }
                learned.observe(now, 1 + world.below(3) as u64, EngineIx::new(0), Duration::from_secs_f64(run_s), 10);
            }
            _ => {}
        }
        for (_, lane) in &waiting {
            let tag = order.tag(*lane);
            if tags.insert(*lane, tag).is_some_and(|before| tag < before) {
                return at(format!("the tag of lane {lane} fell without a word"));
            }
        }
        tags.retain(|lane, _| waiting.iter().any(|(_, other)| other == lane));
        let parties = waiting.len() + running.len();
        if order.lane_count() > 2 * parties + 256 {
            return at(format!("{} lanes are remembered of {parties} tasks", order.lane_count()));
        }
    }
    Ok(ranks)
}

/// Drives a fresh admission policy through `steps` random outcomes and checks that it sets no limit but by its own word, that the same
/// seed sets the same limits, and that engines may come and go.
///
/// # Errors
/// Says what differed.
pub fn admission(make: impl Fn() -> Box<dyn Admission>, seed: u64, steps: usize) -> Result<(), String> {
    let play = |mut policy: Box<dyn Admission>| {
        let (mut world, mut roster, mut set) = (Rng::stream(seed, "admission"), Roster::default(), Vec::new());
        let mut live: Vec<EngineIx> = Vec::new();
        for step in 0..steps {
            let now = Time::from_ns(step as u64 * 100_000_000);
            match world.below(12) {
                0 if live.len() < 5 => {
                    let engine = roster.join(Joining::new(0));
                    set.push(policy.on_join(&AdmissionCx::new(now, &roster), engine));
                    live.push(engine);
                }
                1 if live.len() > 1 => {
                    let gone = live.swap_remove(world.below(live.len()));
                    roster.leave(gone);
                    policy.on_leave(&AdmissionCx::new(now, &roster), gone);
                }
                _ if !live.is_empty() => {
                    let latency = Duration::from_secs_f64(world.unit() * 2.0);
                    let ending = [Ending::Ok, Ending::Failed, Ending::Unmet, Ending::Lost, Ending::Cancelled][world.below(5)];
                    let mut outcome = Outcome::new(Ticket(0), ending, latency);
                    outcome.run = (world.below(3) > 0).then(|| latency.mul_f64(world.unit()));
                    set.extend(policy.on_outcome(&AdmissionCx::new(now, &roster), live[world.below(live.len())], &outcome));
                }
                _ => {}
            }
        }
        set
    };
    if play(make()) == play(make()) {
        Ok(())
    } else {
        Err(format!("seed {seed}: two runs of the same seed set different limits"))
    }
}

/// Drives a fresh rebalance policy through `steps` random dispatches and checks that it looks at nothing in the past, gives copies only to
/// tasks that may have them, takes nothing back that has begun, and does the same again for the same seed.
///
/// # Errors
/// Says at which step which promise was broken.
pub fn rebalance(make: impl Fn() -> Box<dyn Rebalance>, seed: u64, steps: usize) -> Result<(), String> {
    let play = |mut policy: Box<dyn Rebalance>| {
        let (mut world, mut roster, mut learned) = (Rng::stream(seed, "rebalance"), Roster::default(), Learned::default());
        let engines: Vec<EngineIx> = (0..4).map(|_| roster.join(Joining::new(3))).collect();
        let (needs, mut done) = (policy.needs(), Vec::new());
        for step in 0..steps {
            let now = Time::from_ns(step as u64 * 10_000_000);
            let at = |what: &str| format!("seed {seed}, step {step}: {what}");
            let mut facts = some_facts(&mut world);
            facts.hints.hedge = world.below(2) == 0;
            let engine = engines[world.below(4)];
            if roster.is_open(engine) {
                roster.dispatched(engine);
            } else {
                roster.released(engine);
            }
            learned.observe(now, facts.class, engine, Duration::from_secs_f64(world.unit()), 10);
            let cx = RebalanceCx::new(now, &roster, &learned);
            let view = TaskView::new(&facts).shown(needs);
            let Some(look_at) = policy.on_dispatch(&cx, &view, engine) else { continue };
            if look_at <= now {
                return Err(at("wants to look at a task before it was sent"));
            }
            let is_queued = world.below(3) > 0;
            let chosen =
                policy.on_overdue(&RebalanceCx::new(look_at, &roster, &learned), &view, &Flight::new(engine, now, is_queued));
            match chosen {
                Move::Again(again) if again <= look_at => return Err(at("wants to look again at once, for ever")),
                Move::Hedge if !facts.hints.hedge => return Err(at("a copy of a task that may not run twice")),
                Move::Recall if !is_queued => return Err(at("takes back what has begun")),
                _ => {}
            }
            done.push((look_at, chosen));
        }
        Ok(done)
    };
    if play(make())? == play(make())? {
        Ok(())
    } else {
        Err(format!("seed {seed}: two runs of the same seed did different things"))
    }
}
