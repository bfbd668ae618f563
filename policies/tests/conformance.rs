//! Every built-in scheme against the conformance suite, and the suite against schemes with planted faults.

use pointsman_policies::{
    Axis, Candidates, Cx, EngineIx, Flight, Move, Needs, Order, OrderCx, Outcome, Pick, PolicySpec, Rank, Rebalance, RebalanceCx,
    Registry, Request, Roster, Scheme, TaskView, Ticket, Time, conformance,
};

/// Each scheme as configured by default, and in its other shapes.
fn specs() -> Vec<PolicySpec> {
    let registry = Registry::builtin();
    let defaults = registry.on(Axis::Placement).map(|entry| PolicySpec::named(entry.name));
    let shapes = [
        "leastload[tie=random]",
        "leastload[tie=first]",
        "leastload[tie=round]",
        "choices[d=1]",
        "choices[d=3,replacement=true]",
        "choices[d=5,memory=true]",
        "choices[d=64,tie=lru]",
        "oneplusbeta[beta=1]",
        "jbt[threshold=1]",
        "swrr[by=hwm]",
        "swrr[by=equal]",
        "sed[slow_server=true]",
        "neverqueue[slow_server=true]",
        "sita[cutoffs=[0.01,1.0]]",
        "sita[strict=true]",
        "c3[d=64]",
        "prequal[quantile=0,reuse=1,pool=2]",
        "boundedhash[points=16,factor=1]",
        "maglev[table=13]",
        "rendezvous[by=speed]",
        "rendezvous[by=hwm]",
        "locality[wait_ms=0]",
        "score[d=64,load=0,delay=1,latency=1,bytes=1,failures=1,random=1]",
    ];
    defaults.chain(shapes.into_iter().map(|text| text.parse().unwrap())).collect()
}

#[test]
fn every_scheme_conforms() {
    let registry = Registry::builtin();
    for spec in specs() {
        let text = spec.to_string();
        // What is declared is held against what is done: one that says that it conserves work must not defer.
        let conserving = registry.build(&spec).unwrap().is_work_conserving();
        let deferring = !conserving.unwrap_or_else(|| panic!("{text} does not say whether it conserves work"));
        for seed in 0..60 {
            let made = || registry.build(&spec).unwrap();
            conformance::run(made, seed, 1 + seed as usize % 20, 400, deferring).unwrap_or_else(|e| panic!("{text}: {e}"));
        }
        let made = || registry.build(&spec).unwrap();
        conformance::run(made, 7, 300, 3_000, deferring).unwrap_or_else(|e| panic!("{text}, many engines: {e}"));
    }
}

#[test]
fn every_policy_of_the_other_axes_conforms() {
    let registry = Registry::builtin();
    let shapes = [
        "fair[by=client,within=priority]",
        "fair[by=session]",
        "priority[aging_s=3]",
        "shortest[size=exact]",
        "longest[size=estimated]",
    ];
    let orders = registry.on(Axis::Order).map(|entry| entry.name).chain(shapes);
    for spec in orders.map(|name| name.parse::<PolicySpec>().unwrap()) {
        let make = || registry.build_order(&spec).unwrap();
        (0..40).try_for_each(|seed| conformance::order(make, seed, 2_000)).unwrap_or_else(|error| panic!("{spec}: {error}"));
    }
    for spec in registry.on(Axis::Admission).map(|entry| PolicySpec::named(entry.name)) {
        let make = || registry.build_admission(&spec).unwrap();
        (0..40).try_for_each(|seed| conformance::admission(make, seed, 2_000)).unwrap_or_else(|error| panic!("{spec}: {error}"));
    }
    for spec in registry.on(Axis::Rebalance).map(|entry| PolicySpec::named(entry.name)) {
        let make = || registry.build_rebalance(&spec).unwrap();
        (0..40).try_for_each(|seed| conformance::rebalance(make, seed, 2_000)).unwrap_or_else(|error| panic!("{spec}: {error}"));
    }
}

/// Keeps a lane for everybody it has ever seen, and lets tags fall in silence.
#[derive(Default)]
struct BadOrder {
    seen: std::collections::BTreeSet<u64>,
    hoards: bool,
    tag: u64,
}

impl Order for BadOrder {
    fn needs(&self) -> Needs {
        Needs::CLIENT
    }
    fn rank(&mut self, _cx: &OrderCx<'_>, task: &TaskView<'_>) -> Rank {
        self.seen.insert(task.client());
        Rank { lane: 1, key: 0 }
    }
    fn tag(&self, _lane: u64) -> u64 {
        if self.hoards { 0 } else { u64::MAX - self.tag }
    }
    fn on_dispatch(&mut self, _cx: &OrderCx<'_>, _lane: u64, _task: &TaskView<'_>) -> Ticket {
        self.tag += 1;
        Ticket::default()
    }
    fn lane_count(&self) -> usize {
        self.seen.len()
    }
}

/// Copies what must not run twice.
struct BadRebalance;

impl Rebalance for BadRebalance {
    fn on_dispatch(&mut self, cx: &RebalanceCx<'_>, _task: &TaskView<'_>, _engine: EngineIx) -> Option<Time> {
        Some(cx.now + std::time::Duration::from_secs(1))
    }
    fn on_overdue(&mut self, _cx: &RebalanceCx<'_>, _task: &TaskView<'_>, _flight: &Flight) -> Move {
        Move::Hedge
    }
}

#[test]
fn the_other_suites_find_planted_faults() {
    let hoards = conformance::order(|| Box::new(BadOrder { hoards: true, ..BadOrder::default() }), 1, 20_000);
    assert!(hoards.as_ref().is_err_and(|error| error.contains("lanes are remembered")), "{hoards:?}");
    let falls = conformance::order(|| Box::new(BadOrder::default()), 1, 2_000);
    assert!(falls.as_ref().is_err_and(|error| error.contains("fell without a word")), "{falls:?}");
    let copies = conformance::rebalance(|| Box::new(BadRebalance), 1, 100);
    assert!(copies.is_err_and(|error| error.contains("may not run twice")));
}

/// A scheme that scans the roster, right but for one planted fault.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    PicksClosed,
    IgnoresOnly,
    IgnoresExcept,
    NeverPicks,
    DefersToThePast,
    ForgetsClosing,
    ForgetsOpening,
    ForgetsLeaving,
    ForgetsOutcomes,
    OwnEntropy,
}

struct Mutant {
    fault: Fault,
    /// Load of each open engine, as the hooks tell it.
    index: Vec<Option<u32>>,
}

impl Mutant {
    fn new(fault: Fault) -> Self {
        Mutant { fault, index: vec![] }
    }

    fn set(&mut self, engine: EngineIx, load: Option<u32>) {
        if self.index.len() <= engine.slot() {
            self.index.resize(engine.slot() + 1, None);
        }
        self.index[engine.slot()] = load;
    }
}

static ENTROPY: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);

impl Scheme for Mutant {
    fn pick(&mut self, cx: &mut Cx<'_>, request: &Request<'_>) -> Pick {
        let admitted = |engine: EngineIx| match request.candidates {
            Candidates::Only(_) if self.fault == Fault::IgnoresOnly => true,
            Candidates::Except(_) if self.fault == Fault::IgnoresExcept => true,
            candidates => candidates.contains(engine),
        };
        let indexed = (0..self.index.len()).filter(|&slot| self.index[slot].is_some());
        let mut all: Vec<EngineIx> = indexed.map(|slot| EngineIx::new(slot as u32)).filter(|&engine| admitted(engine)).collect();
        match self.fault {
            Fault::NeverPicks => return Pick::Defer { until: None },
            Fault::DefersToThePast => return Pick::Defer { until: Some(cx.now) },
            Fault::PicksClosed => all = cx.roster.live_engines().filter(|&engine| request.candidates.contains(engine)).collect(),
            Fault::OwnEntropy if !all.is_empty() => {
                let n = ENTROPY.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                return Pick::Engine(all[n % all.len()]);
            }
            _ => {}
        }
        all.into_iter().min_by_key(|&engine| cx.roster.stamp(engine)).map_or(Pick::Defer { until: None }, Pick::Engine)
    }

    fn on_open(&mut self, cx: &mut Cx<'_>, engine: EngineIx) {
        if self.fault != Fault::ForgetsOpening {
            self.set(engine, Some(cx.roster.load(engine)));
        }
    }

    fn on_close(&mut self, cx: &mut Cx<'_>, engine: EngineIx) {
        if self.fault == Fault::ForgetsClosing || self.fault == Fault::ForgetsLeaving && cx.roster.load(engine) == 0 {
            return;
        }
        self.set(engine, None);
    }

    fn on_dispatch(&mut self, cx: &mut Cx<'_>, engine: EngineIx, _request: &Request<'_>) -> Ticket {
        self.set(engine, Some(cx.roster.load(engine)));
        Ticket(7)
    }

    fn on_outcome(&mut self, cx: &mut Cx<'_>, engine: EngineIx, outcome: &Outcome) {
        assert_eq!(outcome.ticket, Ticket(7), "tickets come back");
        if self.fault != Fault::ForgetsOutcomes && cx.roster.is_open(engine) {
            self.set(engine, Some(cx.roster.load(engine)));
        }
    }

    fn check(&self, roster: &Roster) -> Result<(), String> {
        let expected = |engine: EngineIx| roster.is_open(engine).then(|| roster.load(engine));
        for engine in (0..roster.slots() as u32).map(EngineIx::new) {
            if self.index.get(engine.slot()).copied().flatten() != expected(engine) {
                return Err(format!("{engine:?} is indexed wrongly"));
            }
        }
        Ok(())
    }
}

#[test]
fn the_suite_finds_planted_faults() {
    let verdict = |fault| (0..20).try_for_each(|seed| conformance::run(|| Mutant::new(fault), seed, 8, 400, false));
    assert_eq!(verdict(Fault::None), Ok(()), "the suite has nothing against the mutants' healthy parent");
    for (fault, says) in [
        (Fault::PicksClosed, "closed or not among"),
        (Fault::IgnoresOnly, "closed or not among Only"),
        (Fault::IgnoresExcept, "closed or not among Except"),
        (Fault::NeverPicks, "deferred although"),
        (Fault::ForgetsClosing, "indexed wrongly"),
        (Fault::ForgetsOpening, ""),
        (Fault::ForgetsLeaving, ""),
        (Fault::ForgetsOutcomes, "indexed wrongly"),
        (Fault::OwnEntropy, "picked differently"),
    ] {
        let error = verdict(fault).expect_err(&format!("{fault:?} was not found"));
        assert!(error.contains(says), "{fault:?}: {error}");
    }
    let past = conformance::run(|| Mutant::new(Fault::DefersToThePast), 1, 8, 400, true);
    assert!(past.is_err_and(|error| error.contains("a time that has passed")));
}
