//! Whether a slow engine is worth using: a task may be done earlier by waiting for a fast one. The rule compares what the slow engine
//! takes with the time until the faster ones, all together, get to it. Source: Larsen and Agrawala, IEEE TSE 9(4), 1983; for more than
//! two engines Rykov and Efrosinin, Automation and Remote Control 70(12), 2009.

use crate::{Candidates, Cx, EngineIx, Request, Roster};

/// Speeds are told apart to an eighth of an octave.
const PER_OCTAVE: f64 = 8.0;
const MIDDLE: i32 = 56;
const BUCKETS: usize = 2 * MIDDLE as usize + 1;

/// The engines that take part, by speed: what is faster than a given one costs O(buckets), not O(engines).
#[derive(Clone, Debug)]
pub(super) struct SlowServer {
    speeds: Box<[(f64, u32)]>,
    /// Each engine's share in the buckets.
    counted: Vec<Option<(u8, f64)>>,
}

impl Default for SlowServer {
    fn default() -> Self {
        SlowServer { speeds: vec![(0.0, 0); BUCKETS].into(), counted: Vec::new() }
    }
}

fn bucket(speed: f64) -> usize {
    ((speed.log2() * PER_OCTAVE).round() as i32 + MIDDLE).clamp(0, BUCKETS as i32 - 1) as usize
}

impl SlowServer {
    /// Counts an engine as it is now: if it takes work or still has some. O(1).
    pub(super) fn refresh(&mut self, roster: &Roster, engine: EngineIx, speed: f64) {
        if self.counted.len() <= engine.slot() {
            self.counted.resize(engine.slot() + 1, None);
        }
        if let Some((old, counted)) = self.counted[engine.slot()].take() {
            let row = &mut self.speeds[usize::from(old)];
            *row = if row.1 == 1 { (0.0, 0) } else { (row.0 - counted, row.1 - 1) };
        }
        if roster.is_open(engine) || roster.load(engine) > 0 {
            let at = bucket(speed);
            self.counted[engine.slot()] = Some((at as u8, speed));
            self.speeds[at].0 += speed;
            self.speeds[at].1 += 1;
        }
    }

    /// Whether waiting for a faster engine beats this one, which would take `delay_s`-like time units: its load and one, by its speed.
    pub(super) fn is_too_slow(&self, cx: &Cx<'_>, engine: EngineIx, request: &Request<'_>) -> bool {
        if request.candidates != Candidates::All {
            return false; // the faster ones may be those that it must not use
        }
        let speed = cx.learned.speed(engine);
        let faster = &self.speeds[bucket(speed) + 1..];
        let (together, count) = faster.iter().fold((0.0, 0), |sum, row| (sum.0 + row.0, sum.1 + row.1));
        let own = f64::from(cx.roster.load(engine) + 1) / speed;
        count > 0 && (request.waiting() as f64 + f64::from(count)) / together < own
    }

    /// How many engines are counted, for checks.
    pub(super) fn len(&self) -> usize {
        self.speeds.iter().map(|row| row.1 as usize).sum()
    }
}

/// Whether exactly the engines that take work or have some are counted.
pub(super) fn check(slow: &SlowServer, roster: &Roster) -> Result<(), String> {
    let expected = roster.live_engines().filter(|&engine| roster.is_open(engine) || roster.load(engine) > 0).count();
    if slow.len() == expected { Ok(()) } else { Err(format!("{} speeds counted, {expected} engines take part", slow.len())) }
}

/// The parameter in words.
pub(super) const SLOW_SERVER: (&str, &str) =
    ("slow_server", "whether a task waits for a fast engine where that ends sooner than a slow one that is free");
