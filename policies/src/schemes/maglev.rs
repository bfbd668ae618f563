//! Maglev hashing: a table in which each engine has an equal share of places, and keeps most of them when others come and go.
//! Source: Eisenbud et al., Maglev: a fast and reliable software network load balancer, NSDI 2016.

use super::{check_members, engine_or_defer, hash_key};
use crate::facts::mix;
use crate::index::DenseSet;
use crate::registry::in_range;
use crate::{Cx, EngineIx, Named, Needs, Pick, PolicyError, Request, Roster, Scheme};

/// Places tried for a task whose engine is closed, before any open one is taken.
const TRIES: u64 = 8;

/// The scheme `maglev`. Joins and leaves make the next decision cost O(table): it is filled anew.
#[derive(Clone, Debug, Default)]
pub struct Maglev {
    size: usize,
    table: Vec<EngineIx>,
    open: DenseSet,
    stale: bool,
}

/// Parameters of [`Maglev`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MaglevConfig {
    table: usize,
}

impl Default for MaglevConfig {
    fn default() -> Self {
        MaglevConfig { table: 65_537 }
    }
}

fn is_prime(n: usize) -> bool {
    n >= 2 && (2..).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d))
}

impl Maglev {
    /// Engines take turns at claiming the next free place of their own permutation of the table.
    fn fill(&mut self, roster: &Roster) {
        self.stale = false;
        // By identity, so that the table does not depend on the order in which engines joined.
        let mut engines: Vec<(u64, EngineIx)> = roster.live_engines().map(|engine| (roster.identity(engine), engine)).collect();
        engines.sort_unstable();
        engines.truncate(self.size);
        let nobody = EngineIx::new(u32::MAX);
        self.table.clear();
        self.table.resize(self.size, nobody);
        if engines.is_empty() {
            return;
        }
        let mut claims: Vec<(usize, usize)> = engines
            .iter()
            .map(|&(identity, _)| {
                ((mix(identity) % self.size as u64) as usize, (mix(!identity) % (self.size as u64 - 1)) as usize + 1)
            })
            .collect();
        let mut free = self.size;
        for turn in (0..engines.len()).cycle() {
            let (place, step) = &mut claims[turn];
            while self.table[*place] != nobody {
                *place = (*place + *step) % self.size;
            }
            self.table[*place] = engines[turn].1;
            free -= 1;
            if free == 0 {
                break;
            }
        }
    }
}

impl Scheme for Maglev {
    fn is_work_conserving(&self) -> Option<bool> {
        Some(true)
    }

    fn needs(&self) -> Needs {
        Needs::HINTS | Needs::CLASS | Needs::CLIENT
    }

    fn pick(&mut self, cx: &mut Cx<'_>, request: &Request<'_>) -> Pick {
        if self.stale {
            self.fill(cx.roster);
        }
        let key = hash_key(cx, &request.task);
        for attempt in 0..TRIES {
            let engine = self.table[(mix(key.wrapping_add(attempt)) % self.size as u64) as usize];
            cx.consider(engine, |roster| f64::from(roster.load(engine)));
            if cx.roster.is_open(engine) && request.candidates.contains(engine) {
                return Pick::Engine(engine);
            }
        }
        let eligible = self.open.eligible(request.candidates);
        engine_or_defer((!eligible.is_empty()).then(|| eligible.get((mix(key) % eligible.len() as u64) as usize)))
    }

    fn on_join(&mut self, _cx: &mut Cx<'_>, _engine: EngineIx) {
        self.stale = true;
    }

    fn on_leave(&mut self, _cx: &mut Cx<'_>, _engine: EngineIx) {
        self.stale = true;
    }

    fn on_open(&mut self, _cx: &mut Cx<'_>, engine: EngineIx) {
        self.open.insert(engine);
    }

    fn on_close(&mut self, _cx: &mut Cx<'_>, engine: EngineIx) {
        self.open.remove(engine);
    }

    fn check(&self, roster: &Roster) -> Result<(), String> {
        if !self.stale && self.table.iter().any(|&engine| engine.slot() < roster.slots() && !roster.is_live(engine)) {
            return Err("the table names an engine that has gone".into());
        }
        check_members(&self.open, roster)
    }
}

impl Named for Maglev {
    const NAME: &'static str = "maglev";
    const SUMMARY: &'static str = "tasks of one #key (or class) to one engine by a table with equal shares";
    const SOURCE: &'static str = "Eisenbud et al. 2016 (Maglev)";
    const PARAMETERS: &'static [(&'static str, &'static str)] =
        &[("table", "places in the table: a prime from 3 to 1000003, a hundred times the number of engines")];
    type Config = MaglevConfig;
    fn build(config: MaglevConfig) -> Result<Self, PolicyError> {
        let size = in_range(Self::NAME, "table", config.table, 3..=1_000_003)?;
        if !is_prime(size) {
            return Err(PolicyError::Parameters {
                name: Self::NAME,
                reason: format!("table must be a prime, which {size} is not"),
            });
        }
        Ok(Maglev { size, stale: true, ..Maglev::default() })
    }
}
