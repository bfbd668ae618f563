//! The suite that every scheme runs, foreign ones too: random joins, leaves, limits, dispatches and outcomes, with the promises of
//! [`Scheme`] checked after each step. It prints nothing and draws only from the seed it is given.

use std::time::Duration;

use crate::{Candidates, Chosen, Ending, EngineIx, Outcome, Placement, Request, Rng, Scheme, Ticket, Time};

/// Drives a fresh scheme from `make` through `steps` random changes of up to `engines` engines and checks after each that
/// the scheme's index agrees with the roster; that a pick is an open candidate; that a scheme which never defers (`deferring`
/// false) picks whenever it can; and, at the end, that the same seed gives the same picks.
///
/// ```
/// use pointsman_policies::{conformance, schemes::Lru};
/// conformance::run(Lru::default, 1, 8, 200, false).unwrap();
/// ```
///
/// # Errors
/// Says at which step which promise was broken.
pub fn run<S: Scheme>(make: impl Fn() -> S, seed: u64, engines: usize, steps: usize, deferring: bool) -> Result<(), String> {
    let first = play(make(), seed, engines, steps, deferring)?;
    let second = play(make(), seed, engines, steps, deferring)?;
    if first == second { Ok(()) } else { Err(format!("seed {seed}: two runs of the same seed picked differently")) }
}

struct InFlight {
    engine: EngineIx,
    ticket: Ticket,
    since: Time,
}

fn play<S: Scheme>(scheme: S, seed: u64, engines: usize, steps: usize, deferring: bool) -> Result<Vec<EngineIx>, String> {
    let mut world = Rng::stream(seed, "world");
    let mut placement = Placement::new(scheme, seed);
    let mut live: Vec<EngineIx> = Vec::new();
    let mut running: Vec<InFlight> = Vec::new();
    let mut picks = Vec::new();
    for step in 0..steps {
        let now = Time::from_ns(step as u64 * 1_000_000);
        let at = |what: &str| format!("seed {seed}, step {step}: {what}");
        match world.below(10) {
            0 if live.len() < engines => live.push(placement.join(now, world.below(4) as u32)),
            1 if !live.is_empty() && world.below(4) == 0 => {
                let gone = live.swap_remove(world.below(live.len()));
                placement.set_barred(now, gone, true);
                let lost: Vec<InFlight> = running.extract_if(.., |task| task.engine == gone).collect();
                for task in lost {
                    end(&mut placement, now, &task, Ending::Lost);
                }
                placement.leave(now, gone);
            }
            2 if !live.is_empty() => {
                let engine = live[world.below(live.len())];
                placement.set_hwm(now, engine, world.below(5) as u32);
            }
            3 if !live.is_empty() => {
                let engine = live[world.below(live.len())];
                placement.set_barred(now, engine, world.below(2) == 0);
            }
            4..=6 if !running.is_empty() => {
                let task = running.swap_remove(world.below(running.len()));
                let ending = [Ending::Ok, Ending::Failed, Ending::Unmet, Ending::Cancelled][world.below(4)];
                end(&mut placement, now, &task, ending);
            }
            _ => {
                let chosen: Vec<EngineIx> = live.iter().copied().filter(|_| world.below(3) == 0).collect();
                let open: Vec<EngineIx> = chosen.iter().copied().filter(|&e| placement.roster().is_open(e)).collect();
                let candidates = match world.below(3) {
                    0 => Candidates::Only(&open),
                    1 => Candidates::Except(&chosen),
                    _ => Candidates::All,
                };
                let request = Request::new(candidates);
                placement.wake(now);
                let faults = placement.faults();
                let choice = placement.pick(now, &request);
                if placement.faults() > faults {
                    return Err(at(&format!("picked an engine that is closed or not among {candidates:?}")));
                }
                match choice {
                    Chosen::Engine(engine) => {
                        picks.push(engine);
                        let ticket = placement.dispatch(now, engine, &request);
                        running.push(InFlight { engine, ticket, since: now });
                    }
                    Chosen::Defer { .. } if !deferring => return Err(at("deferred although an engine was open")),
                    Chosen::Defer { .. } | Chosen::NoneOpen => {}
                }
            }
        }
        placement.check().map_err(|reason| at(&reason))?;
    }
    Ok(picks)
}

fn end<S: Scheme>(placement: &mut Placement<S>, now: Time, task: &InFlight, ending: Ending) {
    let latency: Duration = now.since(task.since);
    placement.outcome(now, task.engine, &Outcome { ticket: task.ticket, ending, latency });
}
