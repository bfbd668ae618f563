//! The suite that every scheme runs, foreign ones too: random joins, leaves, limits, dispatches, outcomes and takeovers, with the promises of
//! [`Scheme`] checked after each step. It prints nothing and draws only from the seed it is given.

use std::time::Duration;

use crate::facts::Hints;
use crate::{
    Candidates, Chosen, Ending, EngineIx, InFlight, Input, Joining, Outcome, Placement, Request, Rng, Scheme, TaskFacts,
    TaskView, Ticket, Time,
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
