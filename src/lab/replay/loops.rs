//! Whether clients wait for answers before they submit more. Then the moments at which they did belong to the policies that ran, and a replay under
//! others must let them wait again. What is found is a rule, or that there is none; never a guess that is not said.

use std::collections::HashMap;

use super::recording::{RealTask, Recording};

/// One in a hundred: where independent arrivals would look like this more seldom, they are not independent.
const SURE: f64 = 4.605;
/// A submission that follows an answer this closely may be because of it.
const AT_ONCE_NS: u64 = 5_000_000;
/// An answer that passed the controller at most this long after a submission may have been with its client before: records are stamped by two processes.
const MOST_SLACK_NS: u64 = 1_000_000;
/// Fewer tasks than this are no pattern.
const FEWEST: usize = 20;

/// Which tasks wait for answers of their client.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Loops {
    /// Tasks of each loop by submission.
    pub members: Vec<Vec<usize>>,
    /// The most tasks under way at once of each, in a word what it is.
    pub kinds: Vec<Kind>,
    /// Clients that wait for answers in a way that no rule says.
    pub unclear: Option<String>,
}

/// How clients submit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// So many tasks are under way, and each answer lets another go.
    Window(usize),
    /// One task after the other, or one lot after the other.
    Turns,
}

impl Loops {
    /// Of a recording: client by client, and of all clients together where they share a window.
    pub fn of(recording: &Recording) -> Loops {
        let mut by_client: HashMap<u32, Vec<usize>> = HashMap::new();
        recording.tasks.iter().enumerate().for_each(|(at, task)| by_client.entry(task.client).or_default().push(at));
        let mut clients: Vec<Vec<usize>> = by_client.into_values().collect();
        clients.sort_unstable_by_key(|members| members.first().copied());
        let mut loops = Loops::default();
        let found: Vec<Found> = clients.iter().map(|members| find(&recording.tasks, members)).collect();
        let all_wait = found.iter().all(|found| matches!(found, Found::Loop(_)));
        if !all_wait && clients.len() > 1 {
            let all: Vec<usize> = (0..recording.tasks.len()).collect();
            if let Found::Loop(kind) = find(&recording.tasks, &all) {
                return Loops { members: vec![all], kinds: vec![kind], unclear: None };
            }
        }
        for (members, found) in clients.into_iter().zip(found) {
            match found {
                Found::Loop(kind) => {
                    loops.members.push(members);
                    loops.kinds.push(kind);
                }
                Found::Unclear(why) => loops.unclear = loops.unclear.or(Some(why)),
                Found::Open => {}
            }
        }
        loops
    }

    /// What was found, for people.
    pub fn describe(&self) -> String {
        let windows: Vec<usize> =
            self.kinds.iter().filter_map(|kind| if let Kind::Window(most) = kind { Some(*most) } else { None }).collect();
        match (self.kinds.len(), windows.iter().min(), windows.iter().max()) {
            (0, ..) => "submitted when they were, whatever becomes of earlier ones".into(),
            (_, Some(least), Some(most)) if windows.len() == self.kinds.len() && least == most => {
                format!("a closed loop: {most} under way, and each answer lets another go; replayed so")
            }
            (1, ..) => "one lot after the other: a client waits for its answers; replayed so".into(),
            (count, ..) => format!("{count} clients wait for answers before they submit more; replayed so"),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Found {
    Open,
    Loop(Kind),
    Unclear(String),
}

/// A group of tasks with what its client knew at each submission.
struct History {
    submitted_ns: Vec<u64>,
    /// Answers by time.
    received_ns: Vec<u64>,
    /// Answers that were there at each submission.
    answered: Vec<usize>,
    slack_ns: u64,
}

/// Answers of some tasks by time.
pub(super) struct Answers {
    pub(super) received_ns: Vec<u64>,
    /// As far as stamps may be wrong: little beside what an answer takes.
    slack_ns: u64,
}

impl Answers {
    pub(super) fn of(tasks: &[RealTask], members: &[usize]) -> Answers {
        let mut received_ns: Vec<u64> = members.iter().map(|&at| tasks[at].received_ns).collect();
        received_ns.sort_unstable();
        let mut responses_ns: Vec<u64> =
            members.iter().map(|&at| tasks[at].received_ns.saturating_sub(tasks[at].submitted_ns)).collect();
        responses_ns.sort_unstable();
        let median_ns = responses_ns.get(responses_ns.len() / 2).copied().unwrap_or(0);
        Answers { received_ns, slack_ns: MOST_SLACK_NS.min(median_ns / 10) }
    }

    /// How many there were when the task of a place was submitted, as far as stamps can say; not more than tasks before it.
    pub(super) fn by(&self, submitted_ns: u64, place: usize) -> usize {
        self.received_ns.partition_point(|received| *received <= submitted_ns + self.slack_ns).min(place)
    }
}

impl History {
    fn of(tasks: &[RealTask], members: &[usize]) -> History {
        let submitted_ns: Vec<u64> = members.iter().map(|&at| tasks[at].submitted_ns).collect();
        let answers = Answers::of(tasks, members);
        let answered = submitted_ns.iter().enumerate().map(|(n, &at)| answers.by(at, n)).collect();
        History { submitted_ns, received_ns: answers.received_ns, answered, slack_ns: answers.slack_ns }
    }

    /// Tasks under way when one is submitted, itself included.
    fn under_way(&self, n: usize) -> usize {
        n + 1 - self.answered[n]
    }

    /// Whether nothing was under way for a while before a submission, which is more than that all answers happened to come at once.
    fn was_idle(&self, n: usize) -> bool {
        self.answered[n] == n && self.submitted_ns[n] > self.received_ns[n - 1] + self.slack_ns
    }

    /// Share of the time from the first submission to the last in which tasks were under way.
    fn busy(&self) -> f64 {
        let (first, last) = (self.submitted_ns[0], self.submitted_ns[self.submitted_ns.len() - 1]);
        let idle_ns: u64 = (1..self.submitted_ns.len())
            .filter(|&n| self.answered[n] == n)
            .map(|n| self.submitted_ns[n].saturating_sub(self.received_ns[n - 1].max(self.submitted_ns[n - 1])))
            .sum();
        1.0 - idle_ns as f64 / (last - first).max(1) as f64
    }
}

fn find(tasks: &[RealTask], members: &[usize]) -> Found {
    let history = History::of(tasks, members);
    if history.submitted_ns.len() < 3 {
        return Found::Open;
    }
    match window(&history) {
        (share, most) if share >= 0.9 => return Found::Loop(Kind::Window(most)),
        (share, _) if share >= 0.05 && share * members.len() as f64 >= FEWEST as f64 => {
            return Found::Unclear(format!(
                "for {:.0} % of the tasks a fixed number was under way, and each answer let another go; for the rest not",
                share * 100.0
            ));
        }
        _ => {}
    }
    let starts = lots(&history);
    if takes_turns(&history, &starts) { Found::Loop(Kind::Turns) } else { follows(&history, &starts) }
}

/// The share of tasks in stretches in which the number under way came back to its most again and again, and the number of the longest: its median, since
/// stamps are not exact. Stretches end where nothing is under way for a while. What counts is how many there are when the next answer comes: a client that was busy
/// meanwhile fills up several places at once. Numbers that only grow or shrink pass through a band that narrow too quickly to be half of a stretch.
fn window(history: &History) -> (f64, usize) {
    let count = history.submitted_ns.len();
    let (mut inside, mut longest, mut of_longest, mut from) = (0, 0, 0, 0);
    while from < count {
        let until = (from + 1..count).find(|&n| history.was_idle(n)).unwrap_or(count);
        let is_last = |n: &usize| *n + 1 == until || history.answered[*n + 1] > history.answered[*n];
        let filled: Vec<usize> = (from..until).filter(is_last).collect();
        let most = filled.iter().map(|&n| history.under_way(n)).max().unwrap_or(0);
        let band = most - (most / 8).min(2 * most.isqrt());
        let is_inside = |n: &usize| history.under_way(*n) >= band;
        let later: Vec<usize> = filled.iter().copied().skip_while(|n| !is_inside(n)).collect();
        let (all, kept) = (later.len(), later.iter().filter(|n| is_inside(n)).count());
        if most >= 2 && all >= FEWEST && 2 * all >= filled.len() && 10 * kept >= 9 * all {
            inside += until - from;
            if until - from > longest {
                // By the stamps as they are: what they are wrong by lies on both sides.
                let stamped = |n: usize| n + 1 - history.received_ns.partition_point(|at| *at <= history.submitted_ns[n]).min(n);
                let mut counts: Vec<usize> = later.into_iter().map(stamped).collect();
                counts.sort_unstable();
                (longest, of_longest) = (until - from, counts[all / 2]);
            }
        }
        from = until;
    }
    (inside as f64 / count as f64, of_longest)
}

/// Where lots begin: tasks that follow each other much faster than usual, and faster than any is done, are one lot.
fn lots(history: &History) -> Vec<usize> {
    let count = history.submitted_ns.len();
    let mean_gap_ns = (history.submitted_ns[count - 1] - history.submitted_ns[0]) / count as u64;
    let sum = |moments: &[u64]| moments.iter().map(|&ns| u128::from(ns)).sum::<u128>();
    let response_ns = sum(&history.received_ns).saturating_sub(sum(&history.submitted_ns)) / count as u128;
    let least_ns = (u128::from(mean_gap_ns).min(response_ns) / 5) as u64;
    let begins =
        |n: usize| n == 0 || history.answered[n] == n || history.submitted_ns[n] - history.submitted_ns[n - 1] > least_ns;
    (0..count).filter(|&n| begins(n)).collect()
}

/// Whether lots begin when nothing is under way, more often than those that do not care would.
fn takes_turns(history: &History, starts: &[usize]) -> bool {
    let later = starts.iter().skip(1);
    let (all, cut_in) = later.fold((0, 0), |(all, cut_in), &n| (all + 1, cut_in + u32::from(history.answered[n] < n)));
    // Whoever does not care meets something under way as often as there is something (PASTA, Wolff 1982).
    let busy = history.busy().min(1.0 - 1e-9);
    let expected = f64::from(all) * busy;
    if cut_in == 0 { -(1.0 - busy).ln() * f64::from(all) >= SURE } else { f64::from(cut_in) <= 0.05 * expected }
}

/// Whether many lots follow an answer at once, more than by chance.
fn follows(history: &History, starts: &[usize]) -> Found {
    let (first, last) = (history.submitted_ns[0], history.submitted_ns[history.submitted_ns.len() - 1]);
    let mut covered_ns = 0;
    let mut end = first;
    for &received in history.received_ns.iter().filter(|received| (first..last).contains(*received)) {
        let until = (received + AT_ONCE_NS).min(last);
        covered_ns += until.saturating_sub(received.max(end));
        end = end.max(until);
    }
    let chance = covered_ns as f64 / (last - first).max(1) as f64;
    let is_after = |&&n: &&usize| {
        let answers = history.answered[n];
        answers > 0 && history.submitted_ns[n] - history.received_ns[answers - 1].min(history.submitted_ns[n]) <= AT_ONCE_NS
    };
    let later = &starts[1..];
    let share = later.iter().filter(is_after).count() as f64 / later.len().max(1) as f64;
    if later.len() >= FEWEST && share >= chance + 0.25 {
        return Found::Unclear(format!(
            "{:.0} % of its submissions follow an answer within {} ms ({:.0} % would by chance): a client waits for answers, by no rule that a replay could keep",
            share * 100.0,
            AT_ONCE_NS / 1_000_000,
            chance * 100.0
        ));
    }
    Found::Open
}

#[cfg(test)]
mod tests {
    use pointsman_policies::Rng;

    use super::*;

    const MS: u64 = 1_000_000;

    fn of(moments_ms: impl IntoIterator<Item = (f64, f64)>) -> Loops {
        let mut moments: Vec<(f64, f64)> = moments_ms.into_iter().collect();
        moments.sort_by(|a, b| a.0.total_cmp(&b.0));
        let task = |(from, to): (f64, f64)| RealTask {
            submitted_ns: (from * MS as f64) as u64,
            received_ns: (to * MS as f64) as u64,
            client: 1,
            ..RealTask::default()
        };
        Loops::of(&Recording { tasks: moments.into_iter().map(task).collect(), engines: 1, ..Recording::default() })
    }

    fn exponential(rng: &mut Rng, mean: f64) -> f64 {
        -(1.0 - rng.unit()).ln() * mean
    }

    /// Independent arrivals, each answered after a time of its own.
    fn open(seed: u64, count: usize, gap_ms: f64, response_ms: f64) -> Loops {
        let mut rng = Rng::new(seed);
        let mut at = 0.0;
        of((0..count).map(|_| {
            at += exponential(&mut rng, gap_ms);
            (at, at + exponential(&mut rng, response_ms))
        }))
    }

    /// So many under way; each answer lets another go after some thought.
    fn window(most: usize, count: usize, think_ms: f64) -> Loops {
        let mut rng = Rng::new(7);
        let mut free: Vec<f64> = vec![0.0; most];
        of((0..count).map(|_| {
            let next = free.iter_mut().min_by(|a, b| a.total_cmp(b)).unwrap();
            let from = *next + exponential(&mut rng, think_ms);
            *next = from + exponential(&mut rng, 50.0);
            (from, *next)
        }))
    }

    #[test]
    fn open_streams_are_open_whatever_their_load() {
        for seed in 0..20 {
            for (gap_ms, response_ms) in
                [(0.2, 1.0), (0.5, 0.4), (1.0, 5.0), (30.0, 200.0), (10.0, 640.0), (100.0, 50.0), (1000.0, 100.0), (1000.0, 1.0)]
            {
                assert_eq!(open(seed, 600, gap_ms, response_ms), Loops::default(), "{seed}, {gap_ms}, {response_ms}");
            }
        }
    }

    #[test]
    fn batches_and_queues_that_grow_are_open() {
        assert_eq!(of((0..400).map(|n| (0.01 * f64::from(n), 12.5 * f64::from(n)))), Loops::default());
        // Twice as many come as are done.
        let (mut rng, mut at, mut done) = (Rng::new(1), 0.0, 0.0_f64);
        let overload = (0..400).map(|_| {
            at += exponential(&mut rng, 10.0);
            done = done.max(at) + exponential(&mut rng, 20.0);
            (at, done)
        });
        assert_eq!(of(overload), Loops::default());
    }

    #[test]
    fn closed_loops_are_seen() {
        for most in [2, 5, 64] {
            let kinds = window(most, 600, 0.001).kinds;
            assert!(matches!(kinds[..], [Kind::Window(found)] if found.abs_diff(most) <= most / 32), "{most}: {kinds:?}");
        }
        // A client that looks after its answers every 40 ms only, of which some twenty come meanwhile.
        let mut rng = Rng::new(7);
        let (mut under_way, mut tasks, mut now) = (Vec::new(), Vec::new(), 0.0_f64);
        while tasks.len() < 900 {
            under_way.retain(|end: &f64| *end > now);
            while under_way.len() < 64 {
                let end = now + exponential(&mut rng, 150.0);
                under_way.push(end);
                tasks.push((now, end));
            }
            now += 40.0;
        }
        let kinds = of(tasks).kinds;
        assert!(matches!(kinds[..], [Kind::Window(62..=66)]), "{kinds:?}");
        // One after the other; lots of twenty, three of them.
        assert_eq!(window(1, 100, 5.0).kinds, [Kind::Turns]);
        let lots = (0..60).map(|n| {
            let lot = f64::from(n / 20) * 1010.0;
            (lot + 0.1 * f64::from(n % 20), lot + 50.0 + 50.0 * f64::from(n % 20))
        });
        assert_eq!(of(lots).kinds, [Kind::Turns]);
        // Eight under way that think as long as they wait: no number is constant, but most submissions follow an answer.
        let half_open = window(8, 600, 2.0);
        assert!(half_open.unclear.is_some() || half_open.kinds == [Kind::Window(8)], "{half_open:?}");
    }

    #[test]
    fn a_loop_of_several_clients_is_one() {
        let mut rng = Rng::new(3);
        let mut free: Vec<f64> = vec![0.0; 16];
        let tasks = (0..400).map(|n| {
            let next = free.iter_mut().min_by(|a, b| a.total_cmp(b)).unwrap();
            let from = *next;
            *next += exponential(&mut rng, 50.0);
            let (submitted_ns, received_ns) = ((from * MS as f64) as u64, (*next * MS as f64) as u64);
            RealTask { submitted_ns, received_ns, client: 1 + n % 3, ..RealTask::default() }
        });
        let loops = Loops::of(&Recording { tasks: tasks.collect(), engines: 1, ..Recording::default() });
        assert_eq!((loops.kinds, loops.members[0].len()), (vec![Kind::Window(16)], 400));
    }
}
