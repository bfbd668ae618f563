//! Prequal: a pool of probes, each an engine with its tasks in flight and its latency; those above a quantile of tasks in flight are hot. The
//! coldest latency wins among the cold, the fewest tasks among the hot. Source: Wydrowski, Kleinberg, Rumble and Archer, NSDI 2024.

use smallvec::SmallVec;

use super::{check_members, engine_or_defer};
use crate::index::{DenseSet, fresh_row};
use crate::registry::in_range;
use crate::{Cx, Ending, EngineIx, Named, Needs, Outcome, Pick, PolicyError, Request, Roster, Scheme, Ticket, Time};

/// Weight of a new latency.
const NEW_WEIGHT: f64 = 0.2;

#[derive(Clone, Copy, Debug)]
struct Probe {
    engine: EngineIx,
    in_flight: u32,
    latency_s: f64,
    at: Time,
    /// How often it may still be used.
    uses: u32,
}

/// The scheme `prequal`.
#[derive(Clone, Debug, Default)]
pub struct Prequal {
    config: PrequalConfig,
    open: DenseSet,
    /// Mean latency of each engine as its answers report it; 0 for none yet.
    latencies: Vec<f64>,
    pool: SmallVec<[Probe; 16]>,
    /// Whether the next probe to give up is the oldest, or the worst.
    drop_oldest: bool,
}

/// Parameters of [`Prequal`].
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PrequalConfig {
    probes: usize,
    pool: usize,
    quantile: f64,
    max_age_ms: u64,
    reuse: u32,
}

impl Default for PrequalConfig {
    fn default() -> Self {
        PrequalConfig { probes: 3, pool: 16, quantile: 0.84, max_age_ms: 1000, reuse: 2 }
    }
}

impl Prequal {
    fn probe(&self, cx: &Cx<'_>, engine: EngineIx) -> Probe {
        let (in_flight, latency_s) = (cx.roster.load(engine), self.latencies[engine.slot()]);
        Probe { engine, in_flight, latency_s, at: cx.now, uses: self.config.reuse }
    }

    fn is_fresh(&self, probe: &Probe, now: Time) -> bool {
        now.since(probe.at).as_millis() as u64 <= self.config.max_age_ms
    }

    /// The number of tasks in flight from which a probe is hot.
    fn threshold(&self, probes: &[Probe]) -> u32 {
        let mut loads: SmallVec<[u32; 32]> = probes.iter().map(|probe| probe.in_flight).collect();
        loads.sort_unstable();
        let at = (self.config.quantile * (loads.len().max(1) - 1) as f64).ceil() as usize;
        loads.get(at).copied().unwrap_or(0)
    }

    /// Hot ones after cold ones; among the cold by latency, among the hot by tasks in flight.
    fn rank(probe: &Probe, threshold: u32) -> (bool, f64) {
        let hot = probe.in_flight > threshold;
        (hot, if hot { f64::from(probe.in_flight) } else { probe.latency_s })
    }

    fn best(probes: impl Iterator<Item = Probe>, threshold: u32) -> Option<Probe> {
        probes.min_by(|a, b| Self::rank(a, threshold).partial_cmp(&Self::rank(b, threshold)).unwrap_or(std::cmp::Ordering::Equal))
    }
}

impl Scheme for Prequal {
    fn is_work_conserving(&self) -> Option<bool> {
        Some(true)
    }

    fn needs(&self) -> Needs {
        Needs::LATENCY
    }

    fn pick(&mut self, cx: &mut Cx<'_>, request: &Request<'_>) -> Pick {
        let usable = |probe: &Probe| {
            self.is_fresh(probe, cx.now) && cx.roster.is_open(probe.engine) && request.candidates.contains(probe.engine)
        };
        let mut probes: SmallVec<[Probe; 32]> = self.pool.iter().copied().filter(usable).collect();
        if probes.is_empty() {
            let drawn = self.open.eligible(request.candidates).sample(self.config.probes, cx.rng);
            probes = drawn.into_iter().map(|engine| self.probe(cx, engine)).collect();
        }
        let threshold = self.threshold(&probes);
        for probe in &probes {
            cx.consider(probe.engine, |_| Self::rank(probe, threshold).1);
        }
        engine_or_defer(Self::best(probes.into_iter(), threshold).map(|probe| probe.engine))
    }

    fn on_join(&mut self, _cx: &mut Cx<'_>, engine: EngineIx) {
        fresh_row(&mut self.latencies, engine);
    }

    fn on_leave(&mut self, _cx: &mut Cx<'_>, engine: EngineIx) {
        self.pool.retain(|probe| probe.engine != engine);
    }

    fn on_open(&mut self, _cx: &mut Cx<'_>, engine: EngineIx) {
        self.open.insert(engine);
    }

    fn on_close(&mut self, _cx: &mut Cx<'_>, engine: EngineIx) {
        self.open.remove(engine);
    }

    /// What was sent is added to the probes of that engine; one probe is given up, alternately the oldest and the worst; and new ones are
    /// sent out for the decisions to come.
    fn on_dispatch(&mut self, cx: &mut Cx<'_>, engine: EngineIx, _request: &Request<'_>) -> Ticket {
        let (now, max_age) = (cx.now, self.config.max_age_ms);
        for probe in self.pool.iter_mut().filter(|probe| probe.engine == engine) {
            probe.in_flight += 1;
            probe.uses = probe.uses.saturating_sub(1);
        }
        self.pool.retain(|probe| probe.uses > 0 && now.since(probe.at).as_millis() as u64 <= max_age);
        if self.pool.len() > 1 {
            let threshold = self.threshold(&self.pool);
            let numbered = self.pool.iter().enumerate();
            let given_up = if self.drop_oldest {
                numbered.min_by_key(|(_, probe)| probe.at)
            } else {
                numbered.max_by(|(_, a), (_, b)| {
                    Self::rank(a, threshold).partial_cmp(&Self::rank(b, threshold)).unwrap_or(std::cmp::Ordering::Equal)
                })
            };
            if let Some(index) = given_up.map(|(index, _)| index) {
                self.pool.remove(index);
            }
            self.drop_oldest = !self.drop_oldest;
        }
        let drawn = self.open.eligible(crate::Candidates::All).sample(self.config.probes, cx.rng);
        for engine in drawn {
            if self.pool.len() >= self.config.pool {
                self.pool.remove(0);
            }
            self.pool.push(self.probe(cx, engine));
        }
        Ticket::default()
    }

    fn on_outcome(&mut self, _cx: &mut Cx<'_>, engine: EngineIx, outcome: &Outcome) {
        if matches!(outcome.ending, Ending::Ok | Ending::Failed) {
            let latency_s = outcome.latency.as_secs_f64();
            let mean = &mut self.latencies[engine.slot()];
            *mean = if *mean == 0.0 { latency_s } else { *mean + NEW_WEIGHT * (latency_s - *mean) };
        }
    }

    fn check(&self, roster: &Roster) -> Result<(), String> {
        if self.pool.len() > self.config.pool || self.pool.iter().any(|probe| !roster.is_live(probe.engine)) {
            return Err("the pool is too large, or holds an engine that has gone".into());
        }
        check_members(&self.open, roster)
    }
}

impl Named for Prequal {
    const NAME: &'static str = "prequal";
    const SUMMARY: &'static str = "a pool of probes: least latency among engines that are not hot, else fewest tasks";
    const SOURCE: &'static str = "Wydrowski et al. 2024 (Prequal)";
    const PARAMETERS: &'static [(&'static str, &'static str)] = &[
        ("probes", "engines probed for each task, 1 to 16"),
        ("pool", "probes kept, 1 to 32"),
        ("quantile", "of tasks in flight among probes, above which an engine is hot, 0 to 1"),
        ("max_age_ms", "age at which a probe is dropped, milliseconds, 1 to 1e6"),
        ("reuse", "tasks that a probe may be used for, 1 to 100"),
    ];
    type Config = PrequalConfig;
    fn build(config: PrequalConfig) -> Result<Self, PolicyError> {
        in_range(Self::NAME, "probes", config.probes, 1..=16)?;
        in_range(Self::NAME, "pool", config.pool, 1..=32)?;
        in_range(Self::NAME, "quantile", config.quantile, 0.0..=1.0)?;
        in_range(Self::NAME, "max_age_ms", config.max_age_ms, 1..=1_000_000)?;
        in_range(Self::NAME, "reuse", config.reuse, 1..=100)?;
        Ok(Prequal { config, ..Prequal::default() })
    }
}
