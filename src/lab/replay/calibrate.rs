//! What a run costs beside its tasks' own time, and when its engines were there, as far as records tell. Only tasks of which one knows why they waited
//! are asked: those that met an idle engine for the way, those that stood in line behind another for what a change of tasks takes.

use pointsman_policies::Rng;

use super::recording::{RealTask, Recording};

/// An engine that would have been there counts as away if so many tasks for each engine in use went to others meanwhile.
const TURNS_MISSED: usize = 20;
/// Seed of what is drawn for tasks whose own delay the records do not tell: the same in every replay, so that policies are compared on the same.
const SEED: u64 = 0x7265_706c;

/// What a run costs beside the tasks' own time, in seconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overheads {
    /// One way between scheduler and engine.
    pub link_s: f64,
    /// From a client to the scheduler and back, together.
    pub client_s: f64,
    /// What an engine needs for a task beside running it, as a rule.
    pub engine_s: f64,
    /// From the end of a task to the start of the next that was there already: the median, and the mean.
    pub gap_s: (f64, f64),
    /// What is added to each task's run in nanoseconds: the engine's overhead, and how far its own delay was from the rule; drawn from the others' where
    /// its own is not known.
    pub extra_ns: Vec<i64>,
}

impl Overheads {
    /// Of a recording. `hwm`: how many tasks an engine could have in flight; with one, an engine stands by while its answer and the next task travel,
    /// with more it has the next one already.
    pub fn of(recording: &Recording, hwm: u32) -> Overheads {
        let tasks = &recording.tasks;
        let known = Delays::of(recording);
        let median = |delays: &[(usize, i64)]| {
            let mut values: Vec<i64> = delays.iter().map(|(_, delay)| *delay).collect();
            quantile(&mut values, 0.5).unwrap_or(0)
        };
        let (gap, out) = (median(&known.gaps), median(&known.idle));
        let mut back: Vec<i64> = tasks.iter().map(|task| difference(task.received_ns, task.completed_ns)).collect();
        // Clocks that differ do so in both directions: what one way takes too much of, the other takes too little of.
        let way = (out + quantile(&mut back, 0.5).unwrap_or(0)).max(0);
        let (link, engine) = if hwm == 1 {
            let link = (gap.max(0) / 2).min(way / 2);
            (link, gap.max(0) - 2 * link)
        } else {
            ((way / 4).min(gap.max(100_000)), gap)
        };
        let mut extra_ns = vec![None; tasks.len()];
        for &(at, delay) in &known.idle {
            extra_ns[at] = Some(engine + delay - out);
        }
        let gaps: Vec<i64> = known.gaps.iter().map(|(_, delay)| engine + delay - gap).collect();
        for (&(at, _), &extra) in known.gaps.iter().zip(&gaps) {
            extra_ns[at] = Some(extra);
        }
        let mut rng = Rng::stream(SEED, "delays");
        let drawn = |rng: &mut Rng| if gaps.is_empty() { engine } else { gaps[rng.below(gaps.len())] };
        let mean = known.gaps.iter().map(|(_, delay)| *delay as f64).sum::<f64>() / known.gaps.len().max(1) as f64;
        let seconds = |ns: i64| ns as f64 / 1e9;
        Overheads {
            link_s: seconds(link),
            client_s: seconds((way - 2 * link - engine.max(0)).max(0)),
            engine_s: seconds(engine),
            gap_s: (seconds(gap), mean / 1e9),
            extra_ns: extra_ns.into_iter().map(|extra| extra.unwrap_or_else(|| drawn(&mut rng))).collect(),
        }
    }
}

/// Delays of which the records tell the reason, by the number of the task.
struct Delays {
    /// From its submission to its start, of a task that met an idle engine and waited for no other.
    idle: Vec<(usize, i64)>,
    /// From the end of one task to the start of the next on the same engine, where the next was there already.
    gaps: Vec<(usize, i64)>,
}

impl Delays {
    fn of(recording: &Recording) -> Delays {
        let tasks = &recording.tasks;
        let spans = spans(recording);
        let mut by_engine: Vec<Vec<usize>> = vec![Vec::new(); recording.engines];
        tasks.iter().enumerate().for_each(|(at, task)| by_engine[task.engine as usize].push(at));
        let mut delays = Delays { idle: Vec::new(), gaps: Vec::new() };
        for (engine, numbers) in by_engine.iter_mut().enumerate() {
            numbers.sort_by_key(|&at| tasks[at].started_ns);
            let mut before: Option<&RealTask> = None;
            for &at in &*numbers {
                let task = &tasks[at];
                let inputs = task.after.iter().map(|&input| tasks[input as usize].received_ns).max().unwrap_or(0);
                match before {
                    // It came to an engine of which the scheduler knew that it was idle.
                    None if spans[engine].joins_ns > 0 || inputs > task.submitted_ns => {}
                    Some(before) if before.received_ns > task.submitted_ns => {
                        if task.submitted_ns.max(inputs) < before.started_ns {
                            delays.gaps.push((at, difference(task.started_ns, before.completed_ns)));
                        }
                    }
                    Some(_) if inputs > task.submitted_ns => {}
                    _ => delays.idle.push((at, difference(task.started_ns, task.submitted_ns))),
                }
                before = Some(task);
            }
        }
        delays
    }
}

/// When an engine was there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// From when on, in nanoseconds since the first submission; 0 for the start.
    pub joins_ns: u64,
    /// Until when; none for the end.
    pub leaves_ns: Option<u64>,
}

/// When each engine was there, by its first and its last task: it counts as away before the first or after the last if others took so many tasks
/// meanwhile that it would have had some.
pub(super) fn spans(recording: &Recording) -> Vec<Span> {
    let tasks = &recording.tasks;
    let mut by_start: Vec<usize> = (0..tasks.len()).collect();
    by_start.sort_by_key(|&at| tasks[at].started_ns);
    let mut spans = vec![Span::default(); recording.engines];
    let mut seen = vec![false; recording.engines];
    let mut others = 0;
    for (place, &at) in by_start.iter().enumerate() {
        let engine = tasks[at].engine as usize;
        if !std::mem::replace(&mut seen[engine], true) {
            if others > 0 && place > TURNS_MISSED * others {
                // What it was given first had been sent to it before.
                spans[engine].joins_ns = tasks[at].started_ns.saturating_sub(1).max(1);
            }
            others += 1;
        }
    }
    seen.fill(false);
    others = 0;
    for (place, &at) in by_start.iter().rev().enumerate() {
        let engine = tasks[at].engine as usize;
        if !std::mem::replace(&mut seen[engine], true) {
            if others > 0 && place > TURNS_MISSED * others {
                spans[engine].leaves_ns = Some(tasks[at].completed_ns);
            }
            others += 1;
        }
    }
    spans
}

fn difference(later: u64, earlier: u64) -> i64 {
    later as i64 - earlier as i64
}

fn quantile(values: &mut [i64], share: f64) -> Option<i64> {
    values.sort_unstable();
    values.get(((values.len() as f64 - 1.0) * share).round().max(0.0) as usize).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn task(engine: u32, moments_ms: [u64; 4]) -> RealTask {
        let [submitted_ns, started_ns, completed_ns, received_ns] = moments_ms.map(|ms| ms * MS);
        RealTask { submitted_ns, started_ns, completed_ns, received_ns, engine, client: 1, ..RealTask::default() }
    }

    fn recording(tasks: Vec<RealTask>) -> Recording {
        let engines = tasks.iter().map(|task| task.engine as usize + 1).max().unwrap_or(0);
        Recording { tasks, engines, ..Recording::default() }
    }

    /// Two engines, six tasks at once: 3 ms to an engine, 2 ms back, 4 ms between two tasks.
    fn batch() -> Recording {
        recording(vec![
            task(0, [0, 3, 103, 105]),
            task(1, [0, 3, 203, 205]),
            task(0, [0, 107, 207, 209]),
            task(1, [0, 207, 307, 309]),
            task(0, [0, 212, 312, 314]), // one gap of 5 ms
            task(1, [0, 311, 411, 413]),
        ])
    }

    #[test]
    fn the_way_is_that_of_tasks_that_met_an_idle_engine() {
        let overheads = Overheads::of(&batch(), 1);
        // 5 ms there and back, of which the gap of 4 ms is the way between scheduler and engine.
        assert_eq!((overheads.link_s, overheads.client_s, overheads.engine_s), (0.002, 0.001, 0.0));
        assert_eq!(overheads.gap_s, (0.004, 0.00425));
        assert_eq!(overheads.extra_ns, [0, 0, 0, 0, 1_000_000, 0]);
        // With several in flight an engine has the next one already: the gap is its own.
        let overheads = Overheads::of(&batch(), 0);
        assert_eq!((overheads.link_s, overheads.engine_s), (0.00125, 0.004));
        assert_eq!(overheads.extra_ns, [4, 4, 4, 4, 5, 4].map(|ms| ms * MS as i64));
    }

    #[test]
    fn tasks_that_waited_for_another_or_for_an_engine_say_nothing_of_the_way() {
        // The third waits for the first, the fourth for an engine of which nobody knows yet that it is idle.
        let mut tasks =
            vec![task(0, [0, 1, 11, 12]), task(1, [0, 1, 41, 42]), task(0, [2, 15, 25, 26]), task(1, [41, 46, 56, 57])];
        tasks[2].after.push(0);
        let overheads = Overheads::of(&recording(tasks), 1);
        assert_eq!((overheads.link_s, overheads.client_s, overheads.gap_s), (0.0, 0.002, (0.0, 0.0)));
    }

    #[test]
    fn clocks_that_differ_do_not_make_the_way_longer() {
        let mut ahead = batch();
        for task in &mut ahead.tasks {
            task.started_ns += 1000 * MS;
            task.completed_ns += 1000 * MS;
        }
        assert_eq!(Overheads::of(&ahead, 1).client_s, 0.001);
    }

    #[test]
    fn engines_are_there_from_their_first_to_their_last_task() {
        // Two for thirty tasks each, then one for fifty; the first task of the third comes 61 places after the start.
        let mut tasks: Vec<RealTask> = (0..60).map(|n| task(n as u32 % 2, [n * 10, n * 10, n * 10 + 9, n * 10 + 9])).collect();
        tasks.extend((0..50).map(|n| task(2, [1000 + n * 10, 1000 + n * 10, 1009 + n * 10, 1009 + n * 10])));
        let spans = spans(&recording(tasks));
        assert_eq!(spans[2], Span { joins_ns: 1000 * MS - 1, leaves_ns: None });
        assert_eq!(spans[0], Span { joins_ns: 0, leaves_ns: Some(589 * MS) });
        assert_eq!(spans[1], Span { joins_ns: 0, leaves_ns: Some(599 * MS) });
        // One that did the first and the last was there all the time.
        assert_eq!(super::spans(&batch()), [Span::default(); 2]);
    }
}
