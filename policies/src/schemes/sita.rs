//! Size interval task assignment: each engine serves tasks of its own range of sizes, so that short ones never wait behind long ones.
//! Source: Harchol-Balter, Crovella and Murta, JPDC 59(2), 1999. Ranges carry equal work (SITA-E) as measured, or are configured.

use super::roundrobin::check_slots;
use crate::facts::mix;
use crate::index::SlotSet;
use crate::registry::in_range;
use crate::{Candidates, Cx, EngineIx, Named, Needs, Pick, PolicyError, Request, Roster, Scheme, Ticket};

/// Sizes are told apart to a quarter of an octave, from a nanosecond to ages.
const PER_OCTAVE: f64 = 4.0;
const BUCKETS: usize = 256;
/// Sizes are halved in weight after so many tasks, so that the ranges follow the load.
const HALF_LIFE: u32 = 4096;

/// The scheme `sita`.
#[derive(Clone, Debug)]
pub struct Sita {
    config: SitaConfig,
    live: SlotSet,
    open: SlotSet,
    /// Work sent, in seconds, by size.
    work: Box<[f64]>,
    total: f64,
    seen: u32,
}

/// Parameters of [`Sita`].
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SitaConfig {
    cutoffs: Vec<f64>,
    strict: bool,
}

fn bucket(size_s: f64) -> usize {
    (((size_s * 1e9).max(1.0)).log2() * PER_OCTAVE).clamp(0.0, (BUCKETS - 1) as f64) as usize
}

impl Sita {
    /// The place among live engines, from 0 to below 1, that serves tasks of this size.
    fn position(&self, seq: u64, size_s: f64) -> f64 {
        // The same at each time of asking, and uniform over tasks.
        let unit = (mix(seq) >> 11) as f64 / (1_u64 << 53) as f64;
        if !self.config.cutoffs.is_empty() {
            // Engines in as many groups as there are ranges; any within the group.
            let group = self.config.cutoffs.partition_point(|&cutoff| cutoff < size_s);
            return (group as f64 + unit) / (self.config.cutoffs.len() + 1) as f64;
        }
        if self.total <= 0.0 {
            return unit;
        }
        let at = bucket(size_s);
        let below: f64 = self.work[..at].iter().sum();
        // Equal sizes are spread over the share of work that they are.
        ((below + self.work[at] * unit) / self.total).clamp(0.0, 1.0 - 1e-12)
    }

    /// The open candidate nearest to a slot, in the order of places; the lower one of two.
    fn nearest(&self, slot: usize, candidates: &Candidates<'_>) -> Option<EngineIx> {
        let distance = |engine: &EngineIx| (engine.slot().abs_diff(slot), engine.slot());
        if let Candidates::Only(list) = candidates {
            return list.iter().copied().min_by_key(distance);
        }
        let above = self.open.next_where(slot, |engine| candidates.contains(engine));
        let mut rank = self.open.rank(slot);
        let mut below = None;
        while rank > 0 {
            rank -= 1;
            below = self.open.select(rank).filter(|&engine| candidates.contains(engine));
            if below.is_some() {
                break;
            }
        }
        [below, above].into_iter().flatten().min_by_key(distance)
    }
}

impl Scheme for Sita {
    fn is_work_conserving(&self) -> Option<bool> {
        Some(!self.config.strict)
    }

    fn needs(&self) -> Needs {
        Needs::COST | Needs::ESTIMATE
    }

    fn pick(&mut self, cx: &mut Cx<'_>, request: &Request<'_>) -> Pick {
        let size_s = cx.learned.expected_s(&request.task).unwrap_or(1.0);
        let position = self.position(request.task.seq(), size_s);
        let Some(home) = self.live.select((position * self.live.len() as f64) as usize) else {
            return Pick::Defer { until: None };
        };
        cx.consider(home, |_| size_s);
        if self.config.strict && request.candidates == Candidates::All {
            return if cx.roster.is_open(home) { Pick::Engine(home) } else { Pick::Defer { until: None } };
        }
        super::engine_or_defer(self.nearest(home.slot(), &request.candidates))
    }

    fn on_join(&mut self, _cx: &mut Cx<'_>, engine: EngineIx) {
        self.live.insert(engine);
    }

    fn on_leave(&mut self, _cx: &mut Cx<'_>, engine: EngineIx) {
        self.live.remove(engine);
    }

    fn on_open(&mut self, _cx: &mut Cx<'_>, engine: EngineIx) {
        self.open.insert(engine);
    }

    fn on_close(&mut self, _cx: &mut Cx<'_>, engine: EngineIx) {
        self.open.remove(engine);
    }

    fn on_dispatch(&mut self, cx: &mut Cx<'_>, _engine: EngineIx, request: &Request<'_>) -> Ticket {
        if let Some(size_s) = cx.learned.expected_s(&request.task) {
            self.work[bucket(size_s)] += size_s;
            self.total += size_s;
            self.seen += 1;
            if self.seen == HALF_LIFE {
                self.seen /= 2;
                self.work.iter_mut().for_each(|work| *work /= 2.0);
                self.total = self.work.iter().sum();
            }
        }
        Ticket::default()
    }

    fn check(&self, roster: &Roster) -> Result<(), String> {
        if self.live.len() != roster.live_count() {
            return Err(format!("{} live engines indexed, {} there", self.live.len(), roster.live_count()));
        }
        check_slots(&self.open, roster)
    }
}

impl Named for Sita {
    const NAME: &'static str = "sita";
    const SUMMARY: &'static str =
        "an engine for each range of sizes: short tasks never wait behind long ones; wants no limit (hwm 0)";
    const SOURCE: &'static str = "Harchol-Balter, Crovella and Murta 1999";
    const PARAMETERS: &'static [(&'static str, &'static str)] = &[
        ("cutoffs", "seconds, ascending, between the ranges; empty for ranges of equal work as measured (SITA-E)"),
        (
            "strict",
            "whether a task waits for its own engine when that is full, instead of going to the nearest; 16 that do hold up the rest",
        ),
    ];
    const ROOM: crate::Room = crate::Room::Unlimited;
    type Config = SitaConfig;
    fn build(config: SitaConfig) -> Result<Self, PolicyError> {
        in_range(Self::NAME, "the number of cutoffs", config.cutoffs.len(), 0..=1000)?;
        for &cutoff in &config.cutoffs {
            in_range(Self::NAME, "cutoffs", cutoff, 1e-9..=1e9)?;
        }
        if !config.cutoffs.is_sorted() {
            return Err(PolicyError::Parameters { name: Self::NAME, reason: "cutoffs must ascend".into() });
        }
        let (live, open) = (SlotSet::default(), SlotSet::default());
        Ok(Sita { config, live, open, work: vec![0.0; BUCKETS].into(), total: 0.0, seen: 0 })
    }
}
