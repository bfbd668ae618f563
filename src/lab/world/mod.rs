//! The world around the shipping task scheduler, in virtual time: clients, links, engines and what befalls them. The same seed and source give the
//! same events to the byte; no clock is read and no thread started here.

mod engine;
mod heap;
mod run;

use std::sync::Arc;

use pointsman_policies::Hints;
use smallvec::SmallVec;

pub use engine::{EngineModel, Failures, Slowdowns};
pub use run::{PolicySet, Totals, World};

use super::draw::Dist;

/// A task as its client knows it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Job {
    /// When it is submitted, in nanoseconds.
    pub at_ns: u64,
    /// How long it takes on an engine of speed 1, in nanoseconds.
    pub work_ns: u64,
    /// Which function it calls; 0 for none.
    pub class: u64,
    /// Which client sends it.
    pub client: u32,
    /// What its label says.
    pub hints: Hints,
    /// The label as its client writes it, apart from the cost, if there is one: what a live cluster is told.
    pub label: Option<Arc<str>>,
    /// Numbers of the jobs that must have ended before, each smaller than its own.
    pub after: SmallVec<[u64; 2]>,
    /// Size of its result.
    pub result_bytes: u64,
}

impl Job {
    /// The label with everything that its hints say, for a cluster on which a second of the job takes `unit_s`: the cost is that of this very job, and
    /// spans of time are as long as they are there. Nothing if there is nothing to say.
    pub fn label_at(&self, unit_s: f64) -> Option<String> {
        let written =
            self.label.iter().flat_map(|label| label.split_ascii_whitespace()).filter(|word| !word.starts_with("#cost="));
        let mut words: Vec<String> = written
            .map(|word| match (word.strip_prefix("#deadline="), self.hints.deadline) {
                (Some(_), Some(deadline)) => format!("#deadline={}", deadline.as_secs_f64() * unit_s),
                _ => word.to_owned(),
            })
            .collect();
        words.extend(self.hints.cost_s.map(|cost_s| format!("#cost={}", cost_s * unit_s)));
        (!words.is_empty()).then(|| words.join(" "))
    }
}

/// Where jobs come from. Their numbers are 0, 1, 2 ... in the order in which they are taken.
pub trait Source {
    /// When the next job comes, in nanoseconds; none for now, or ever, if there is none.
    fn next_at(&mut self) -> Option<u64>;
    /// The next job. Called at its moment, after [`next_at`](Self::next_at) has named one.
    fn take(&mut self) -> Job;
    /// A job has ended; a closed loop answers with another.
    fn ended(&mut self, _ended: &Ended) {}
}

impl Source for Box<dyn Source> {
    fn next_at(&mut self) -> Option<u64> {
        (**self).next_at()
    }

    fn take(&mut self) -> Job {
        (**self).take()
    }

    fn ended(&mut self, ended: &Ended) {
        (**self).ended(ended);
    }
}

/// What became of a job.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ended {
    /// Its number.
    pub number: u64,
    /// As it was submitted.
    pub class: u64,
    /// As it was submitted.
    pub client: u32,
    /// When it was submitted.
    pub at_ns: u64,
    /// When the run that answered it began on its engine.
    pub started_ns: u64,
    /// When its client had the answer.
    pub ended_ns: u64,
    /// Its work.
    pub work_ns: u64,
    /// Where it ran; nowhere if it failed without.
    pub engine: Option<u32>,
    /// Whether it succeeded.
    pub ok: bool,
}

impl Ended {
    /// From submission to answer, in seconds.
    pub fn response_s(&self) -> f64 {
        (self.ended_ns - self.at_ns) as f64 / 1e9
    }

    /// From submission to start, in seconds.
    pub fn wait_s(&self) -> f64 {
        self.started_ns.saturating_sub(self.at_ns) as f64 / 1e9
    }

    /// Response by work.
    pub fn slowdown(&self) -> f64 {
        (self.ended_ns - self.at_ns) as f64 / self.work_ns.max(1) as f64
    }
}

/// How long messages take one way. Messages between the same two never overtake each other.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Link {
    /// Always, in seconds.
    pub latency_s: f64,
    /// Beside it.
    pub jitter: Option<Dist>,
    /// The share of transmissions that are lost and sent again.
    pub loss: f64,
    /// After how long that is done, in seconds.
    pub resend_s: f64,
}

impl Link {
    /// Of a fixed latency.
    pub fn of(latency_s: f64) -> Link {
        Link { latency_s, ..Link::default() }
    }

    fn is_instant(&self) -> bool {
        self.latency_s == 0.0 && self.jitter.is_none() && self.loss == 0.0
    }

    fn draw_ns(&self, rng: &mut pointsman_policies::Rng) -> u64 {
        let mut delay_s = self.latency_s + self.jitter.as_ref().map_or(0.0, |jitter| jitter.draw(rng));
        if self.loss > 0.0 {
            // Loss is below 1, so this ends; a thousand losses in a row are a broken link, not a slow one.
            for _ in 0..1000 {
                if rng.unit() >= self.loss {
                    break;
                }
                delay_s += self.resend_s;
            }
        }
        (delay_s * 1e9) as u64
    }
}

/// Everything around the policies.
#[derive(Clone, Debug, PartialEq)]
pub struct Setup {
    /// The engines.
    pub engines: Vec<EngineModel>,
    /// How many schedulers share them, each of which knows only what it has sent itself. Clients are dealt out among them.
    pub dispatchers: usize,
    /// Between schedulers and engines.
    pub engine_link: Link,
    /// Between clients and schedulers.
    pub client_link: Link,
    /// How long after an engine's death the scheduler hears of it, in seconds.
    pub detect_s: f64,
    /// How often each engine tells all schedulers its load, in seconds; never without. Reports travel as answers do.
    pub report_every_s: Option<f64>,
    /// Bytes a second at which an engine fetches results that were made elsewhere, before it begins; at once without.
    pub bandwidth_bytes_per_s: Option<f64>,
    /// The share of runs that fail.
    pub failing: f64,
    /// How often a task that failed is tried again.
    pub retries: u32,
    /// Seed of all that is drawn here; jobs have their own.
    pub seed: u64,
}

impl Setup {
    /// So many engines of speed 1, one scheduler, no delay.
    pub fn identical(engines: usize, seed: u64) -> Setup {
        Setup {
            engines: vec![EngineModel::default(); engines],
            dispatchers: 1,
            engine_link: Link::default(),
            client_link: Link::default(),
            detect_s: 0.0,
            report_every_s: None,
            bandwidth_bytes_per_s: None,
            failing: 0.0,
            retries: 0,
            seed,
        }
    }

    /// Work done by all engines in a second, without what befalls them.
    pub fn capacity(&self) -> f64 {
        self.engines.iter().map(|engine| engine.speed).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_live_cluster_is_told_every_hint() {
        let told = |label: &str, cost_s: Option<f64>| {
            let mut hints = Hints::parse(label).0;
            hints.cost_s = cost_s;
            Job { hints, label: Some(label.into()), ..Job::default() }.label_at(0.5)
        };
        let text = told("fit #prio=-2.5 #tenant=a #cost=9 #deadline=60 #key=x #weight=2 #hedge", Some(3.0)).unwrap();
        let (hints, wrong) = Hints::parse(&text);
        let (before, _) = Hints::parse("#tenant=a #key=x");
        assert_eq!(wrong, None);
        assert_eq!((hints.priority, hints.cost_s, hints.weight, hints.hedge), (-2.5, Some(1.5), Some(2.0), true));
        assert_eq!((hints.tenant, hints.key), (before.tenant, before.key));
        assert_eq!(hints.deadline, Some(std::time::Duration::from_secs(30)));
        assert_eq!((told("", None), told("", Some(0.0)).as_deref()), (None, Some("#cost=0")));
    }
}
