//! Recordings of which everything is known, as the lab's own world has made them: replayed under their own policies they come out as they were, and
//! under others as those would really have had it.

use pointsman::lab::experiment::Point;
use pointsman::lab::measure::Measures;
use pointsman::lab::replay::{Kind, RealTask, Recording, Replay, Segment};
use pointsman::lab::workload::{Closed, Estimate, Kind as TaskKind, Stream};
use pointsman::lab::world::{Ended, EngineModel, Job, Link, Setup, Source, World};

const MS: u64 = 1_000_000;

fn registry() -> pointsman::policies::Registry {
    pointsman::builtin()
}

fn point(placement: &str, order: &str, hwm: u32) -> Point {
    Point { placement: placement.into(), order: order.into(), hwm: Some(hwm), ..Point::default() }
}

/// Keeps what each job was when it was taken.
struct Keeping<S>(S, Vec<Job>);

impl<S: Source> Source for Keeping<S> {
    fn next_at(&mut self) -> Option<u64> {
        self.0.next_at()
    }

    fn take(&mut self) -> Job {
        let job = self.0.take();
        self.1.push(job.clone());
        job
    }

    fn ended(&mut self, ended: &Ended) {
        self.0.ended(ended);
    }
}

/// A network as real ones are: 1 ms between scheduler and engines, 3 ms between clients and scheduler.
fn setup(engines: Vec<EngineModel>) -> Setup {
    let mut setup = Setup::identical(engines.len(), 5);
    setup.engines = engines;
    setup.engine_link = Link::of(0.001);
    setup.client_link = Link::of(0.003);
    setup
}

fn record_in(setup: Setup, segments: &[(u64, Point)], source: impl Source) -> Recording {
    let engines = setup.engines.len();
    let mut source = Keeping(source, Vec::new());
    let mut ends = Vec::new();
    let mut world = World::new(setup, [segments[0].1.build(&registry()).unwrap()]);
    for (from_ns, point) in &segments[1..] {
        world.change_at(*from_ns, point.build(&registry()).unwrap());
    }
    world.run(&mut source, |ended| ends.push(*ended));
    ends.sort_by_key(|ended| ended.number);
    let task = |(ended, job): (&Ended, &Job)| RealTask {
        id: format!("t{}", ended.number),
        submitted_ns: job.at_ns,
        started_ns: ended.started_ns,
        completed_ns: ended.started_ns + job.work_ns,
        received_ns: ended.ended_ns,
        engine: ended.engine.unwrap(),
        client: job.client.max(1),
        class: job.class,
        result_bytes: 0,
        hints: job.hints,
        after: job.after.clone(),
    };
    let segment = |(from_ns, point): &(u64, Point)| Segment {
        from_ns: *from_ns,
        policies: point.policies(&registry()).unwrap().to_string(),
    };
    Recording {
        tasks: ends.iter().zip(&source.1).map(task).collect(),
        engines,
        segments: segments.iter().map(segment).collect(),
        ..Recording::default()
    }
}

fn record(engines: usize, point: &Point, source: impl Source) -> Recording {
    record_in(setup(vec![EngineModel::default(); engines]), &[(0, point.clone())], source)
}

fn sizes(text: &str) -> TaskKind {
    TaskKind::of(text.parse().unwrap())
}

/// 400 tasks of about 50 ms at once.
fn batch() -> impl Source {
    Stream::new("batch".parse().unwrap(), 1.0, vec![sizes("exponential[mean=0.05]")], Estimate::Exact, 400, 3)
}

fn window(most: u32) -> impl Source {
    Closed::new(vec![sizes("exponential[mean=0.05]")], 1, most, None, Estimate::Exact, 600, 3)
}

fn poisson(tasks: u64) -> impl Source {
    Stream::new("poisson".parse().unwrap(), 60.0, vec![sizes("exponential[mean=0.05]")], Estimate::Exact, tasks, 3)
}

#[track_caller]
fn near(replayed: &Measures, real: &Measures, within: f64, what: &str) {
    for (is, was, name) in [
        (replayed.response_s.mean, real.response_s.mean, "mean response"),
        (replayed.response_s.p99, real.response_s.p99, "p99"),
        (replayed.makespan_s, real.makespan_s, "makespan"),
    ] {
        assert!((is / was - 1.0).abs() <= within, "{what}: {name} {is}, really {was}");
    }
}

/// What the recording of one system says of another, beside that other system itself.
fn predicts<S: Source>(engines: usize, from: &Point, to: &Point, source: impl Fn() -> S, what: &str) {
    let recording = record(engines, from, source());
    let replay = Replay::of(&recording, from.hwm.unwrap());
    let own = replay.play(&[(0, from.clone())], &registry(), 9).unwrap();
    near(&own, &recording.real(), 0.01, &format!("{what}, itself"));
    let other = replay.play(&[(0, to.clone())], &registry(), 9).unwrap();
    near(&other, &record(engines, to, source()).real(), 0.02, &format!("{what}, the other"));
}

#[test]
fn batches_come_out_as_they_were_and_as_they_would_have_been() {
    predicts(4, &point("leastload", "fifo", 1), &point("leastload", "shortest", 1), batch, "a batch first come first served");
    predicts(4, &point("leastload", "shortest", 1), &point("leastload", "fifo", 1), batch, "a batch, shortest first");
    predicts(4, &point("leastload", "fifo", 2), &point("roundrobin", "fifo", 0), batch, "a batch with two in flight");
}

#[test]
fn closed_loops_wait_for_their_answers_again() {
    for most in [1, 3, 16, 64] {
        let recording = record(4, &point("leastload", "fifo", 1), window(most));
        let loops = Replay::of(&recording, 1).loops;
        assert_eq!(loops.kinds, [if most == 1 { Kind::Turns } else { Kind::Window(most as usize) }]);
    }
    // Under the recorded moments of the first the second would be far off.
    predicts(4, &point("leastload", "fifo", 1), &point("leastload", "lifo", 1), || window(64), "a loop of 64");
    predicts(4, &point("leastload", "fifo", 1), &point("roundrobin", "fifo", 0), || window(16), "a loop of 16");
}

#[test]
fn open_streams_keep_their_moments() {
    let recording = record(4, &point("leastload", "fifo", 1), poisson(2000));
    assert_eq!(Replay::of(&recording, 1).loops.kinds, []);
    predicts(4, &point("leastload", "fifo", 1), &point("roundrobin", "fifo", 0), || poisson(2000), "a stream");
}

#[test]
fn a_change_of_policies_is_replayed_as_a_change() {
    let segments = [(0, point("plainrandom", "fifo", 0)), (20_000 * MS, point("leastload", "fifo", 1))];
    let recording = record_in(setup(vec![EngineModel::default(); 4]), &segments, poisson(2400));
    let replay = Replay::of(&recording, 0);
    let play = |segments: &[(u64, Point)]| replay.play_seeds(segments, &registry(), 1..=20).unwrap();
    let mean = |runs: &[Measures]| runs.iter().map(|run| run.response_s.mean).sum::<f64>() / runs.len() as f64;
    let real = recording.real().response_s.mean;
    let (own, only_last) = (mean(&play(&segments)), mean(&play(&segments[1..])));
    assert!((own / real - 1.0).abs() < 0.15, "{own}, really {real}");
    assert!(only_last < 0.8 * real, "under the last policies alone {only_last}, really {real}");
}

#[test]
fn engines_are_there_when_they_were() {
    // Eight for ten seconds, then two others.
    let early = EngineModel { leaves_ns: Some(10_000 * MS), ..EngineModel::default() };
    let late = EngineModel { joins_ns: 10_000 * MS, ..EngineModel::default() };
    let engines = [vec![early; 8], vec![late; 2]].concat();
    let from = point("leastload", "fifo", 1);
    let source = || Stream::new("poisson".parse().unwrap(), 30.0, vec![sizes("exponential[mean=0.05]")], Estimate::None, 900, 3);
    let recording = record_in(setup(engines), &[(0, from.clone())], source());
    let replay = Replay::of(&recording, 1);
    assert_eq!(replay.spans.iter().filter(|span| span.joins_ns > 0).count(), 2);
    assert!(replay.spans.iter().filter(|span| span.leaves_ns.is_some()).count() >= 6, "{:?}", replay.spans);
    near(&replay.play(&[(0, from.clone())], &registry(), 1).unwrap(), &recording.real(), 0.05, "eight, then two");
    let all_at_once = record(10, &from, source()).real();
    assert!(all_at_once.response_s.mean < 0.8 * recording.real().response_s.mean);
}

#[test]
fn only_what_draws_is_replayed_under_several_seeds() {
    let recording = record(4, &point("leastload", "fifo", 1), poisson(500));
    let replay = Replay::of(&recording, 1);
    let runs = |placement: &str| replay.play_seeds(&[(0, point(placement, "fifo", 0))], &registry(), 1..=20).unwrap();
    assert_eq!(runs("leastload").len(), 1);
    let random = runs("plainrandom");
    assert!(random.len() == 20 && random[0].response_s != random[1].response_s);
}

#[test]
fn delays_that_are_seldom_and_long_are_replayed_too() {
    // Each hundredth task finds its engine busy with something else for half a second.
    struct Stolen<S>(S, u64);
    impl<S: Source> Source for Stolen<S> {
        fn next_at(&mut self) -> Option<u64> {
            self.0.next_at()
        }
        fn take(&mut self) -> Job {
            self.1 += 1;
            let mut job = self.0.take();
            job.work_ns += u64::from(self.1.is_multiple_of(100)) * 500 * MS;
            job
        }
    }
    let from = point("leastload", "fifo", 1);
    let mut recording = record(4, &from, Stolen(batch(), 0));
    for (n, task) in recording.tasks.iter_mut().enumerate() {
        task.started_ns += u64::from((n + 1).is_multiple_of(100)) * 500 * MS;
    }
    let replay = Replay::of(&recording, 1);
    let (median, mean) = replay.overheads.gap_s;
    assert!(mean > 2.0 * median, "{mean} on average, {median} as a rule");
    near(&replay.play(&[(0, from)], &registry(), 1).unwrap(), &recording.real(), 0.02, "a busy machine");
}
