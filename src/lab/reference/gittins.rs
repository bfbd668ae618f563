//! Gittins' index (Gittins 1979): among policies that know the distribution of sizes but no size, serving the tasks of the highest index gives the least
//! mean response on one engine (Aalto, Ayesta and Righter 2009), and nearly so on several (Scully, Grosof and Harchol-Balter 2021).

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap};

use super::queue::{Present, arrive, divide_work, end};
use crate::lab::world::{Ended, Source, Totals};

/// Between two ages at which the index is looked at, this share of the tasks that have come so far goes on.
const GO_ON: f64 = 0.96;

/// The index by age, for sizes that were seen: the best ratio, over all ends of a quantum, of the chance that a task ends in it to the time it
/// is expected to take of it.
#[derive(Clone, Debug)]
pub struct Index {
    /// Ages in nanoseconds, the first 0, and the index from each to the next, as sortable bits.
    steps: Vec<(u64, u64)>,
}

impl Index {
    /// Of sizes in nanoseconds. O(n log n).
    ///
    /// # Panics
    /// Without any size.
    pub fn of(mut sizes_ns: Vec<u64>) -> Index {
        assert!(!sizes_ns.is_empty(), "an index needs sizes");
        sizes_ns.sort_unstable();
        let count = sizes_ns.len();
        // Ages at which quanta may begin and end: at equal ratios of those who go on, so that long tails have as many as short bodies.
        let mut points: Vec<(u64, f64, f64)> = vec![(0, 0.0, 0.0)]; // age, E[min(size, age)], P(size <= age)
        let (mut ended, mut sum_ns) = (0, 0.0);
        let mut goal = 1.0;
        while ended < count {
            goal *= GO_ON;
            let wanted = (((1.0 - goal) * count as f64).ceil() as usize).clamp(ended + 1, count);
            let age = sizes_ns[wanted - 1];
            while ended < count && sizes_ns[ended] <= age {
                sum_ns += sizes_ns[ended] as f64;
                ended += 1;
            }
            let expected = (sum_ns + (count - ended) as f64 * age as f64) / count as f64;
            points.push((age, expected, ended as f64 / count as f64));
        }
        // The steepest way from each point to a later one is the first edge of the upper hull of it and those.
        let slope = |from: usize, to: usize| {
            let (_, x, y) = points[from];
            (points[to].2 - y) / (points[to].1 - x).max(f64::MIN_POSITIVE)
        };
        let mut hull = vec![points.len() - 1];
        let mut steps = Vec::new();
        for at in (0..points.len() - 1).rev() {
            while let [.., second, top] = hull[..]
                && slope(at, top) <= slope(at, second)
            {
                hull.pop();
            }
            steps.push((points[at].0, slope(at, hull[hull.len() - 1]).to_bits()));
            hull.push(at);
        }
        steps.reverse();
        Index { steps }
    }

    /// The index at an age, and the age at which it may change.
    fn at(&self, age_ns: u64) -> (u64, u64) {
        let next = self.steps.partition_point(|&(from, _)| from <= age_ns);
        (self.steps[next - 1].1, self.steps.get(next).map_or(u64::MAX, |&(from, _)| from))
    }
}

struct Serving {
    present: Present,
    since_ns: u64,
    /// When it ends or its index may change.
    moment_ns: u64,
    index: u64,
}

/// Tasks in service, by what will happen next and by who gives way first.
#[derive(Default)]
struct Served {
    tasks: HashMap<u64, Serving>,
    moments: BTreeSet<(u64, u64)>,
    ranks: BTreeSet<(u64, Reverse<u64>)>,
}

impl Served {
    fn begin(&mut self, mut present: Present, index: &Index, now_ns: u64) {
        present.started_ns = present.started_ns.min(now_ns);
        let age_ns = present.work_ns - present.left as u64;
        let (rank, changes) = index.at(age_ns);
        let moment_ns = now_ns + (present.left as u64).min(changes.saturating_sub(age_ns));
        self.moments.insert((moment_ns, present.number));
        self.ranks.insert((rank, Reverse(present.number)));
        self.tasks.insert(present.number, Serving { present, since_ns: now_ns, moment_ns, index: rank });
    }

    /// Takes a task out of service, with what is left of it.
    fn stop(&mut self, number: u64, now_ns: u64) -> Option<Present> {
        let Serving { mut present, since_ns, moment_ns, index } = self.tasks.remove(&number)?;
        self.moments.remove(&(moment_ns, number));
        self.ranks.remove(&(index, Reverse(number)));
        present.left -= (now_ns - since_ns) as f64;
        Some(present)
    }
}

/// As [`run_discipline`](super::run_discipline), by index. O(log tasks) for each step of a task's index.
pub fn run_gittins(index: &Index, engines: usize, source: &mut impl Source, mut watch: impl FnMut(&Ended)) -> Totals {
    let mut totals = Totals { busy_ns: vec![0], ..Totals::default() };
    let mut served = Served::default();
    let mut waiting: BinaryHeap<(u64, Reverse<u64>)> = BinaryHeap::new();
    let mut parked: HashMap<u64, Present> = HashMap::new();
    let mut number = 0;
    loop {
        let next = served.moments.first().copied();
        let arrives = source.next_at().filter(|&at| next.is_none_or(|(moment, _)| at < moment));
        totals.events += 1;
        let (now_ns, candidate) = match (arrives, next) {
            (Some(at_ns), _) => {
                let fresh = arrive(source, number);
                number += 1;
                (at_ns, Some(fresh))
            }
            (None, Some((at_ns, which))) => {
                let candidate = served.stop(which, at_ns).filter(|present| {
                    let is_done = present.left < 0.5;
                    if is_done {
                        end(present, at_ns, &mut totals, source, &mut watch);
                    }
                    !is_done
                });
                (at_ns, candidate)
            }
            (None, None) => break,
        };
        // What has come, or has come to another index, waits with the others; the best of them are served.
        if let Some(present) = candidate {
            let (rank, _) = index.at(present.work_ns - present.left as u64);
            waiting.push((rank, Reverse(present.number)));
            parked.insert(present.number, present);
        }
        while let Some(&(rank, Reverse(first))) = waiting.peek() {
            if served.tasks.len() >= engines {
                let Some(&(least, Reverse(last))) = served.ranks.first().filter(|(least, _)| *least < rank) else { break };
                if let Some(displaced) = served.stop(last, now_ns) {
                    waiting.push((least, Reverse(last)));
                    parked.insert(last, displaced);
                }
            }
            // Whoever has been displaced ranks below, so the first is the first still.
            waiting.pop();
            if let Some(best) = parked.remove(&first) {
                served.begin(best, index, now_ns);
            }
        }
        totals.most_live = totals.most_live.max(served.tasks.len() + parked.len());
    }
    divide_work(&mut totals, engines);
    totals
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn index(sizes: &[u64]) -> Vec<(u64, f64)> {
        Index::of(sizes.to_vec()).steps.into_iter().map(|(age, bits)| (age, f64::from_bits(bits))).collect()
    }

    #[test]
    fn small_cases_by_hand() {
        // Always 4: whatever has begun is nearer to its end.
        assert_eq!(index(&[4, 4]), [(0, 0.25)]);
        // 1 or 9: at first, the chance of one half in one unit; later, the rest.
        assert_eq!(index(&[1, 9]), [(0, 0.5), (1, 0.125)]);
        // 8 or 9: the quantum that ends both.
        assert_eq!(index(&[8, 9]), [(0, 1.0 / 8.5), (8, 1.0)]);
    }

    proptest! {
        /// Against the definition, at every pair of ages, for samples so small that every size is an age.
        #[test]
        fn it_is_the_best_ratio_over_all_quanta(sizes in proptest::collection::vec(1_u64..50, 1..20)) {
            let share = |age: u64| sizes.iter().filter(|&&size| size <= age).count() as f64 / sizes.len() as f64;
            let expected = |age: u64| sizes.iter().map(|&size| size.min(age) as f64).sum::<f64>() / sizes.len() as f64;
            for (age, told) in index(&sizes) {
                let best = (age + 1..=50)
                    .filter(|&until| expected(until) > expected(age))
                    .map(|until| (share(until) - share(age)) / (expected(until) - expected(age)))
                    .fold(0.0, f64::max);
                prop_assert!((told / best - 1.0).abs() < 1e-9, "age {age}: {told}, not {best}");
            }
        }
    }
}
