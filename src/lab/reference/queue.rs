//! One queue before engines of speed 1 each, preemptive and without loss: who is served follows from sizes, from service had so far, or from
//! nothing. Cost per event is O(log tasks) for SRPT and first come first served, O(tasks) for sharing.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use crate::lab::world::{Ended, Source, Totals};

/// Who is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discipline {
    /// First come first served, which no scheme beats that must not know sizes, for exponential sizes.
    Fcfs,
    /// Shortest remaining processing time first (Schrage 1968: least mean response on one engine).
    Srpt,
    /// All share the engines, none has more than one.
    Sharing,
    /// Least attained service first; equals share (foreground-background).
    LeastAttained,
}

impl Discipline {
    /// All of them.
    pub const ALL: [Discipline; 4] = [Discipline::Fcfs, Discipline::Srpt, Discipline::Sharing, Discipline::LeastAttained];

    /// As experiments and tables name it.
    pub fn name(self) -> &'static str {
        match self {
            Discipline::Fcfs => "one-queue",
            Discipline::Srpt => "srpt",
            Discipline::Sharing => "ps",
            Discipline::LeastAttained => "las",
        }
    }
}

/// A task in the system.
#[derive(Clone, Copy, Debug)]
pub(super) struct Present {
    pub(super) number: u64,
    client: u32,
    class: u64,
    at_ns: u64,
    pub(super) work_ns: u64,
    pub(super) started_ns: u64,
    /// Work left, in nanoseconds.
    pub(super) left: f64,
}

/// Runs a source under a discipline on so many engines; `watch` sees each end.
pub fn run(discipline: Discipline, engines: usize, source: &mut impl Source, mut watch: impl FnMut(&Ended)) -> Totals {
    let mut totals = match discipline {
        Discipline::Fcfs | Discipline::Srpt => served_one_each(discipline, engines, source, &mut watch),
        Discipline::Sharing | Discipline::LeastAttained => shared(discipline, engines, source, &mut watch),
    };
    divide_work(&mut totals, engines);
    totals
}

/// Engines are alike here: each has its share of what was done.
pub(super) fn divide_work(totals: &mut Totals, engines: usize) {
    let each_ns = totals.busy_ns.iter().sum::<u64>() / engines as u64;
    totals.busy_ns = vec![each_ns; engines];
}

pub(super) fn arrive(source: &mut impl Source, number: u64) -> Present {
    let job = source.take();
    let work_ns = job.work_ns.max(1);
    Present {
        number,
        client: job.client,
        class: job.class,
        at_ns: job.at_ns,
        work_ns,
        started_ns: u64::MAX,
        left: work_ns as f64,
    }
}

pub(super) fn end(present: &Present, now_ns: u64, totals: &mut Totals, source: &mut impl Source, watch: &mut impl FnMut(&Ended)) {
    totals.ended += 1;
    totals.end_ns = now_ns;
    totals.busy_ns[0] += present.work_ns;
    let ended = Ended {
        number: present.number,
        class: present.class,
        client: present.client,
        at_ns: present.at_ns,
        started_ns: present.started_ns.min(now_ns),
        ended_ns: now_ns,
        work_ns: present.work_ns,
        engine: None,
        ok: true,
    };
    source.ended(&ended);
    watch(&ended);
}

/// Each engine serves one task; the best ones are served, by the discipline's key.
fn served_one_each(discipline: Discipline, engines: usize, source: &mut impl Source, watch: &mut impl FnMut(&Ended)) -> Totals {
    let mut totals = Totals { busy_ns: vec![0], ..Totals::default() };
    // Tasks in service by when they end; the others by key. In service every task loses work at the same speed, so its order among the others
    // in service never changes, and the one to be displaced is the one that ends last.
    let mut serving: std::collections::BTreeMap<(u64, u64), Present> = std::collections::BTreeMap::new();
    let mut waiting: BinaryHeap<Reverse<(u64, u64)>> = BinaryHeap::new();
    let mut parked: std::collections::HashMap<u64, Present> = std::collections::HashMap::new();
    let mut number = 0;
    let key = |present: &Present| if discipline == Discipline::Srpt { present.left as u64 } else { present.number };
    loop {
        let next_end = serving.first_key_value().map(|(&(at, _), _)| at);
        let arrives = source.next_at().filter(|&at| next_end.is_none_or(|end| at < end));
        totals.events += 1;
        let now_ns = match (arrives, next_end) {
            (Some(at_ns), _) => {
                let mut fresh = arrive(source, number);
                number += 1;
                if serving.len() < engines {
                    fresh.started_ns = at_ns;
                    serving.insert((at_ns + fresh.work_ns, fresh.number), fresh);
                } else if let Some((&(last, _), _)) = serving.last_key_value().filter(|_| discipline == Discipline::Srpt)
                    && last - at_ns > fresh.work_ns
                {
                    if let Some(((ends, _), mut displaced)) = serving.pop_last() {
                        displaced.left = (ends - at_ns) as f64;
                        waiting.push(Reverse((key(&displaced), displaced.number)));
                        parked.insert(displaced.number, displaced);
                    }
                    fresh.started_ns = at_ns;
                    serving.insert((at_ns + fresh.work_ns, fresh.number), fresh);
                } else {
                    waiting.push(Reverse((key(&fresh), fresh.number)));
                    parked.insert(fresh.number, fresh);
                }
                at_ns
            }
            (None, Some(at_ns)) => {
                if let Some((_, done)) = serving.pop_first() {
                    end(&done, at_ns, &mut totals, source, watch);
                }
                at_ns
            }
            (None, None) => return totals,
        };
        while serving.len() < engines
            && let Some(Reverse((_, which))) = waiting.pop()
        {
            if let Some(mut next) = parked.remove(&which) {
                next.started_ns = next.started_ns.min(now_ns);
                serving.insert((now_ns + next.left as u64, next.number), next);
            }
        }
        totals.most_live = totals.most_live.max(serving.len() + parked.len());
    }
}

/// Tasks of the same attained service, which are served alike.
struct Level {
    attained: f64,
    /// By work left, least first.
    tasks: VecDeque<Present>,
    rate: f64,
}

/// Engines are divided among levels: the lowest first (least attained), or all as one (sharing).
fn shared(discipline: Discipline, engines: usize, source: &mut impl Source, watch: &mut impl FnMut(&Ended)) -> Totals {
    let mut totals = Totals { busy_ns: vec![0], ..Totals::default() };
    let mut levels: Vec<Level> = Vec::new(); // the lowest last
    let mut number = 0;
    let mut now = 0.0_f64;
    loop {
        let mut room = engines as f64;
        for level in levels.iter_mut().rev() {
            let count = level.tasks.len() as f64;
            level.rate = (room / count).min(1.0);
            room = (room - level.rate * count).max(0.0);
        }
        // Next: an arrival, an end, or two levels that meet.
        let arrives = source.next_at().map(|at| at as f64);
        let mut next = arrives.unwrap_or(f64::INFINITY);
        for (at, level) in levels.iter().enumerate() {
            if level.rate > 0.0 {
                if let Some(first) = level.tasks.front() {
                    next = next.min(now + first.left / level.rate);
                }
                if let Some(above) = at.checked_sub(1).map(|above| &levels[above])
                    && level.rate > above.rate
                {
                    next = next.min(now + (above.attained - level.attained) / (level.rate - above.rate));
                }
            }
        }
        if next.is_infinite() {
            return totals;
        }
        totals.events += 1;
        let passed = (next - now).max(0.0);
        now = next;
        for level in &mut levels {
            let had = passed * level.rate;
            level.attained += had;
            for task in &mut level.tasks {
                task.left -= had;
                if level.rate > 0.0 {
                    task.started_ns = task.started_ns.min((now - passed) as u64);
                }
            }
        }
        for level in &mut levels {
            // A nanosecond is what times are kept to.
            while level.rate > 0.0 && level.tasks.front().is_some_and(|task| task.left < 0.5) {
                if let Some(done) = level.tasks.pop_front() {
                    end(&done, now as u64, &mut totals, source, watch);
                }
            }
        }
        levels.retain(|level| !level.tasks.is_empty());
        let mut at = levels.len();
        while at > 1 {
            at -= 1;
            if levels[at - 1].attained - levels[at].attained < 0.5 {
                let lower = levels.remove(at);
                let above = &mut levels[at - 1];
                above.tasks.extend(lower.tasks);
                above.tasks.make_contiguous().sort_by(|a, b| a.left.total_cmp(&b.left));
            }
        }
        if arrives.is_some_and(|at| at <= now) {
            let mut fresh = arrive(source, number);
            number += 1;
            fresh.at_ns = fresh.at_ns.min(now as u64);
            let one_level = discipline == Discipline::Sharing;
            match levels.last_mut().filter(|level| one_level || level.attained < 0.5) {
                Some(level) => {
                    let place = level.tasks.partition_point(|task| task.left <= fresh.left);
                    level.tasks.insert(place, fresh);
                }
                None => levels.push(Level { attained: 0.0, tasks: VecDeque::from([fresh]), rate: 0.0 }),
            }
        }
        totals.most_live = totals.most_live.max(levels.iter().map(|level| level.tasks.len()).sum());
    }
}
