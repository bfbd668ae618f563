//! Whether a slow engine is worth using: a task may be done earlier by waiting for a fast one. The rule compares what the slow engine
//! takes with the time until the faster ones, all together, get to it. Source: Larsen and Agrawala, IEEE TSE 9(4), 1983; for more than
//! two engines Rykov and Efrosinin, Automation and Remote Control 70(12), 2009.

use crate::{Candidates, Cx, EngineIx, Request, Roster};

/// Speeds are told apart to an eighth of an octave.
const PER_OCTAVE: f64 = 8.0;
const MIDDLE: i32 = 56;
const BUCKETS: usize = 2 * MIDDLE as usize + 1;

/// Engines of about one speed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Bucket {
    speed: f64,
    engines: u32,
    in_flight: u64,
}

/// The engines that take part, by speed: what is faster than a given one costs O(buckets), not O(engines).
#[derive(Clone, Debug)]
pub(super) struct SlowServer {
    buckets: Box<[Bucket]>,
    /// Each engine's share in the buckets.
    counted: Vec<Option<(u8, f64, u32)>>,
}

impl Default for SlowServer {
    fn default() -> Self {
        SlowServer { buckets: vec![Bucket::default(); BUCKETS].into(), counted: Vec::new() }
    }
}

fn bucket(speed: f64) -> usize {
    ((speed.log2() * PER_OCTAVE).round() as i32 + MIDDLE).clamp(0, BUCKETS as i32 - 1) as usize
}

/// Whether an engine takes work, or will when it has room.
fn takes_part(roster: &Roster, engine: EngineIx) -> bool {
    roster.is_live(engine) && !roster.is_barred(engine)
}

impl SlowServer {
    /// Counts an engine as it is now. O(1).
    pub(super) fn refresh(&mut self, roster: &Roster, engine: EngineIx, speed: f64) {
        if self.counted.len() <= engine.slot() {
            self.counted.resize(engine.slot() + 1, None);
        }
        if let Some((old, speed, load)) = self.counted[engine.slot()].take() {
            let row = &mut self.buckets[usize::from(old)];
            *row = match row.engines {
                1 => Bucket::default(), // so that rounding errors do not add up
                _ => Bucket { speed: row.speed - speed, engines: row.engines - 1, in_flight: row.in_flight - u64::from(load) },
            };
        }
        if takes_part(roster, engine) {
            let (at, load) = (bucket(speed), roster.load(engine));
            self.counted[engine.slot()] = Some((at as u8, speed, load));
            let row = &mut self.buckets[at];
            *row = Bucket { speed: row.speed + speed, engines: row.engines + 1, in_flight: row.in_flight + u64::from(load) };
        }
    }

    /// Whether the faster engines, all together, are done with what they have and with all that waits, sooner than this one with its own and
    /// this task.
    pub(super) fn is_too_slow(&self, cx: &Cx<'_>, engine: EngineIx, request: &Request<'_>) -> bool {
        if request.candidates != Candidates::All {
            return false; // the faster ones may be those that it must not use
        }
        let speed = cx.learned.speed(engine);
        let faster = self.buckets[bucket(speed) + 1..].iter();
        let (together, before) = faster.fold((0.0, 0), |sum, row| (sum.0 + row.speed, sum.1 + row.in_flight));
        let own = f64::from(cx.roster.load(engine) + 1) / speed;
        together > 0.0 && (before + request.waiting() as u64) as f64 / together < own
    }
}

/// Whether exactly the engines that take part are counted, with what they have.
pub(super) fn check(slow: &SlowServer, roster: &Roster) -> Result<(), String> {
    let counted = slow.buckets.iter().fold((0, 0), |sum, row| (sum.0 + u64::from(row.engines), sum.1 + row.in_flight));
    let live = roster.live_engines().filter(|&engine| takes_part(roster, engine));
    let expected = live.fold((0, 0), |sum, engine| (sum.0 + 1, sum.1 + u64::from(roster.load(engine))));
    if counted == expected { Ok(()) } else { Err(format!("(engines, in flight) counted {counted:?}, there {expected:?}")) }
}

/// The parameter in words.
pub(super) const SLOW_SERVER: (&str, &str) =
    ("slow_server", "whether a task waits for a fast engine where that ends sooner than a slow one that is free");
