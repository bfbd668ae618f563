//! A recorded run in virtual time: the same tasks on as many engines, submitted when they were, or after as many answers as their client had then. No
//! clock is read; the same recording, policies and seed give the same figures.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use anyhow::bail;
use pointsman_policies::Registry;

use super::calibrate::{Overheads, Span, spans};
use super::loops::{Answers, Kind, Loops};
use super::recording::{RealTask, Recording};
use crate::lab::experiment::Point;
use crate::lab::measure::{Collector, Measures};
use crate::lab::world::{Ended, EngineModel, Job, Link, Setup, Source, World};

/// Seeds after which policies that made the same of each count as drawing nothing.
const ALIKE: usize = 3;

/// Stamps are this exact.
const CLOCK_NS: u64 = 100_000;

/// A recording with all that a replay needs to know of it.
#[derive(Clone, Debug)]
pub struct Replay<'r> {
    /// What is replayed.
    pub recording: &'r Recording,
    /// What its tasks cost beside their runs.
    pub overheads: Overheads,
    /// How its clients submit.
    pub loops: Loops,
    /// When its engines were there.
    pub spans: Vec<Span>,
    waits: Vec<Wait>,
}

/// When a task is submitted.
#[derive(Clone, Copy, Debug)]
enum Wait {
    /// When it was.
    Open,
    /// So long after so many answers of its loop.
    Answers { of: u32, count: u32, think_ns: u64 },
}

impl<'r> Replay<'r> {
    /// Of a recording, of which the engines could have so many tasks in flight; 0 for no limit.
    pub fn of(recording: &'r Recording, hwm: u32) -> Replay<'r> {
        let loops = Loops::of(recording);
        let mut waits = vec![Wait::Open; recording.tasks.len()];
        for ((of, members), kind) in (0..).zip(&loops.members).zip(&loops.kinds) {
            // A window lets no more go, whatever stamps say.
            let most = if let Kind::Window(most) = kind { *most } else { usize::MAX };
            let answers = Answers::of(&recording.tasks, members);
            for (n, &at) in members.iter().enumerate() {
                let submitted_ns = recording.tasks[at].submitted_ns;
                let count = answers.by(submitted_ns, n).max((n + 1).saturating_sub(most));
                let answered_ns = count.checked_sub(1).map_or(0, |last| answers.received_ns[last]);
                waits[at] = Wait::Answers { of, count: count as u32, think_ns: submitted_ns.saturating_sub(answered_ns) };
            }
        }
        Replay { recording, overheads: Overheads::of(recording, hwm), spans: spans(recording), loops, waits }
    }

    /// Tasks that began on an engine before the one before had ended, by more than clocks are exact: replayed engines do one thing at a time.
    pub fn overlaps(&self) -> usize {
        let mut by_start: Vec<&RealTask> = self.recording.tasks.iter().collect();
        by_start.sort_by_key(|task| task.started_ns);
        let mut done_ns = vec![0; self.recording.engines];
        let mut is_over = |task: &RealTask| {
            let done_ns = &mut done_ns[task.engine as usize];
            let overlaps = task.started_ns + CLOCK_NS < *done_ns;
            *done_ns = task.completed_ns.max(*done_ns);
            overlaps
        };
        by_start.into_iter().filter(|task| is_over(task)).count()
    }

    /// Runs it again under policies, the first from the start and each further one from its moment on.
    ///
    /// # Errors
    /// If a policy is unknown, tasks are left that nothing would ever end, or fail.
    pub fn play(&self, segments: &[(u64, Point)], registry: &Registry, seed: u64) -> anyhow::Result<Measures> {
        let Some(((_, first), later)) = segments.split_first() else { bail!("a replay needs policies") };
        let mut setup = Setup::identical(self.recording.engines, seed);
        let engine = |&Span { joins_ns, leaves_ns }: &Span| EngineModel { joins_ns, leaves_ns, ..EngineModel::default() };
        setup.engines = self.spans.iter().map(engine).collect();
        setup.engine_link = Link::of(self.overheads.link_s);
        setup.client_link = Link::of(self.overheads.client_s / 2.0);
        let mut world = World::new(setup, [first.build(registry)?]);
        for (from_ns, point) in later {
            world.change_at(*from_ns, point.build(registry)?);
        }
        let mut source = Again::new(self);
        let totals = world.run(&mut source, |_| ());
        let missing = self.recording.tasks.len() as u64 - totals.ended;
        if missing > 0 || totals.failed > 0 {
            bail!("{missing} tasks would never have ended, and {} would have failed", totals.failed);
        }
        Ok(source.collector.measures(&totals, None))
    }

    /// The same under several seeds; once, if the first few make no difference.
    ///
    /// # Errors
    /// As [`play`](Self::play).
    pub fn play_seeds(
        &self,
        segments: &[(u64, Point)],
        registry: &Registry,
        seeds: impl IntoIterator<Item = u64>,
    ) -> anyhow::Result<Vec<Measures>> {
        let mut runs: Vec<Measures> = Vec::new();
        for seed in seeds {
            runs.push(self.play(segments, registry, seed)?);
            let is_same = |run: &Measures| run.response_s == runs[0].response_s && run.makespan_s == runs[0].makespan_s;
            if runs.len() == ALIKE && runs.iter().all(is_same) {
                runs.truncate(1);
                break;
            }
        }
        Ok(runs)
    }
}

/// A loop as far as it has come.
#[derive(Clone, Debug, Default)]
struct Progress {
    /// The next of its tasks, by its place in the loop.
    next: usize,
    /// When each answer came.
    answered_ns: Vec<u64>,
    /// When its last task was due.
    last_ns: u64,
}

/// The same tasks at the same moments, or after the same number of answers.
struct Again<'t> {
    replay: &'t Replay<'t>,
    progress: Vec<Progress>,
    /// Tasks of which the moment is known.
    due: BinaryHeap<Reverse<(u64, usize)>>,
    /// The number that the world gave each task.
    number_of: HashMap<usize, u64>,
    /// The task of each number, and when it was due.
    taken: Vec<usize>,
    collector: Collector,
}

impl<'t> Again<'t> {
    fn new(replay: &'t Replay<'t>) -> Again<'t> {
        let tasks = &replay.recording.tasks;
        let is_open = |at: &usize| matches!(replay.waits[*at], Wait::Open);
        let mut again = Again {
            replay,
            progress: vec![Progress::default(); replay.loops.members.len()],
            due: (0..tasks.len()).filter(is_open).map(|at| Reverse((tasks[at].submitted_ns, at))).collect(),
            number_of: HashMap::with_capacity(tasks.len()),
            taken: Vec::with_capacity(tasks.len()),
            collector: Collector::new(0),
        };
        (0..again.progress.len()).for_each(|of| again.advance(of));
        again
    }

    /// Lets tasks of a loop go that have their answers.
    fn advance(&mut self, of: usize) {
        let progress = &mut self.progress[of];
        while let Some(&at) = self.replay.loops.members[of].get(progress.next) {
            let Wait::Answers { count, think_ns, .. } = self.replay.waits[at] else { return };
            let Some(answered_ns) =
                (count as usize).checked_sub(1).map_or(Some(0), |last| progress.answered_ns.get(last).copied())
            else {
                return;
            };
            progress.last_ns = progress.last_ns.max(answered_ns + think_ns);
            progress.next += 1;
            self.due.push(Reverse((progress.last_ns, at)));
        }
    }

    fn task(&self, at: usize) -> &'t RealTask {
        &self.replay.recording.tasks[at]
    }
}

impl Source for Again<'_> {
    fn next_at(&mut self) -> Option<u64> {
        self.due.peek().map(|Reverse((at_ns, _))| *at_ns)
    }

    fn take(&mut self) -> Job {
        let Some(Reverse((at_ns, at))) = self.due.pop() else { return Job::default() };
        let task = self.task(at);
        self.number_of.insert(at, self.taken.len() as u64);
        self.taken.push(at);
        Job {
            at_ns,
            work_ns: task.run_ns().saturating_add_signed(self.replay.overheads.extra_ns[at]),
            class: task.class,
            client: task.client,
            hints: task.hints,
            label: None,
            after: task.after.iter().filter_map(|&input| self.number_of.get(&(input as usize)).copied()).collect(),
            result_bytes: task.result_bytes,
        }
    }

    fn ended(&mut self, ended: &Ended) {
        let Some(&at) = self.taken.get(ended.number as usize) else { return };
        let run_ns = self.task(at).run_ns();
        // What an engine needs beside running a task comes before it, and is none of its run.
        let started_ns = ended.started_ns.saturating_add(ended.work_ns.saturating_sub(run_ns));
        self.collector.see(&Ended { started_ns, work_ns: run_ns, ..*ended });
        if let Wait::Answers { of, .. } = self.replay.waits[at] {
            self.progress[of as usize].answered_ns.push(ended.ended_ns);
            self.advance(of as usize);
        }
    }
}
