//! The least of simulators: Poisson arrivals, engines that serve first come first served, a scheme between. For tests that hold a scheme
//! against theory; times are in mean service times.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use pointsman_policies::{
    Candidates, Chosen, Ending, EngineIx, Outcome, Placement, PolicySpec, Registry, Request, Rng, TaskFacts, TaskView, Ticket,
    Time,
};

const UNIT_NS: f64 = 1e9;

/// A queueing system to be simulated.
#[derive(Clone)]
pub(crate) struct System {
    pub(crate) scheme: &'static str,
    pub(crate) engines: usize,
    /// Load of each engine: arrivals times mean size, by speed.
    pub(crate) load: f64,
    pub(crate) hwm: u32,
    pub(crate) jobs: usize,
    pub(crate) seed: u64,
    /// Draws a size, in mean sizes.
    pub(crate) size: fn(&mut Rng) -> f64,
    /// Whether sizes are told to the scheme.
    pub(crate) told: bool,
}

impl System {
    pub(crate) fn new(scheme: &'static str, engines: usize, load: f64) -> System {
        let jobs = if load > 0.75 { 3_000_000 } else { 1_000_000 };
        System { scheme, engines, load, hwm: 0, jobs, seed: 1, size: |rng| -(1.0 - rng.unit()).ln(), told: false }
    }
}

struct Job {
    facts: TaskFacts,
    arrived_ns: u64,
    size_ns: u64,
    ticket: Ticket,
    sent_ns: u64,
}

/// When each job started and ended, in the order of arrival.
pub(crate) fn run(system: &System) -> Vec<(u64, u64, u64)> {
    let spec: PolicySpec = system.scheme.parse().unwrap();
    let mut placement = Placement::new(Registry::builtin().build(&spec).unwrap(), system.seed);
    for _ in 0..system.engines {
        placement.join(Time::ZERO, system.hwm);
    }
    let (mut arrivals, mut sizes) = (Rng::stream(system.seed, "arrivals"), Rng::stream(system.seed, "sizes"));
    let mut jobs: Vec<Job> = Vec::with_capacity(system.jobs);
    let mut done = vec![(0, 0, 0); system.jobs];
    let mut queue: VecDeque<usize> = VecDeque::new();
    let mut engines: Vec<VecDeque<usize>> = vec![VecDeque::new(); system.engines];
    let mut ends: BinaryHeap<Reverse<(u64, usize)>> = BinaryHeap::new();
    let rate = system.load * system.engines as f64;
    let mut next_arrival = 0_u64;
    loop {
        let arrival = (jobs.len() < system.jobs).then_some(next_arrival);
        let end = ends.peek().map(|Reverse(end)| *end);
        let now = match (arrival, end) {
            (None, None) => return done,
            (Some(at), None) => at,
            (None, Some((at, _))) => at,
            (Some(a), Some((b, _))) => a.min(b),
        };
        let time = Time::from_ns(now);
        if let Some((at, slot)) = end.filter(|end| end.0 == now) {
            ends.pop();
            let job = engines[slot].pop_front().unwrap();
            done[job].2 = at;
            let mut outcome = Outcome::new(jobs[job].ticket, Ending::Ok, std::time::Duration::from_nanos(at - jobs[job].sent_ns));
            outcome.run = Some(std::time::Duration::from_nanos(jobs[job].size_ns));
            placement.outcome(time, EngineIx::new(slot as u32), &outcome);
            if let Some(&next) = engines[slot].front() {
                done[next].1 = at;
                ends.push(Reverse((at + jobs[next].size_ns, slot)));
            }
        } else {
            let size_ns = ((system.size)(&mut sizes) * UNIT_NS).max(1.0) as u64;
            let mut facts = TaskFacts::default();
            facts.hints.cost_s = system.told.then_some(size_ns as f64 / 1e9);
            done[jobs.len()].0 = now;
            queue.push_back(jobs.len());
            jobs.push(Job { facts, arrived_ns: now, size_ns, ticket: Ticket(0), sent_ns: 0 });
            next_arrival += (-(1.0 - arrivals.unit()).ln() / rate * UNIT_NS) as u64;
        }
        while let Some(&job) = queue.front() {
            let at = Time::from_ns(jobs[job].arrived_ns);
            let facts = jobs[job].facts;
            let request = Request::new(Candidates::All)
                .task(TaskView::new(&facts).at(at, at).numbered(job as u64, 0))
                .with_waiting(queue.len());
            let Chosen::Engine(engine) = placement.pick(time, &request) else { break };
            jobs[job].ticket = placement.dispatch(time, engine, &request);
            jobs[job].sent_ns = now;
            queue.pop_front();
            let line = &mut engines[engine.slot()];
            line.push_back(job);
            if line.len() == 1 {
                done[job].1 = now;
                ends.push(Reverse((now + jobs[job].size_ns, engine.slot())));
            }
        }
    }
}

/// Mean time from arrival to completion, without the first tenth.
pub(crate) fn mean_response(system: &System) -> f64 {
    let done = run(system);
    let kept = &done[done.len() / 10..];
    kept.iter().map(|(arrived, _, ended)| (ended - arrived) as f64 / UNIT_NS).sum::<f64>() / kept.len() as f64
}
