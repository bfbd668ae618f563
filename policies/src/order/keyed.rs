//! Orders by one number that a task has when it becomes ready: its age, priority, size, or deadline.
//! Sources: Conway, Maxwell and Miller, Theory of Scheduling, 1967, for all of them; Jackson 1955 for the earliest due date.

use super::{Order, OrderCx, Rank};
use crate::registry::in_range;
use crate::schemes::NoParameters;
use crate::{Named, Needs, PolicyError, TaskView};

/// The order `fifo`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fifo;

impl Order for Fifo {
    fn rank(&mut self, _cx: &OrderCx<'_>, _task: &TaskView<'_>) -> Rank {
        Rank::key(0) // equal ranks go by submission
    }
}

impl Named for Fifo {
    const NAME: &'static str = "fifo";
    const SUMMARY: &'static str = "the task submitted first";
    const SOURCE: &'static str = "ipyparallel";
    type Config = NoParameters;
    fn build(_: NoParameters) -> Result<Self, PolicyError> {
        Ok(Fifo)
    }
}

/// The order `lifo`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lifo;

impl Order for Lifo {
    fn rank(&mut self, _cx: &OrderCx<'_>, task: &TaskView<'_>) -> Rank {
        Rank::key(!task.seq())
    }
}

impl Named for Lifo {
    const NAME: &'static str = "lifo";
    const SUMMARY: &'static str = "the task submitted last";
    const SOURCE: &'static str = "Conway, Maxwell, Miller 1967";
    type Config = NoParameters;
    fn build(_: NoParameters) -> Result<Self, PolicyError> {
        Ok(Lifo)
    }
}

/// The order `priority`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Priority {
    aging_s: f64,
}

/// Parameters of [`Priority`].
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PriorityConfig {
    aging_s: f64,
}

impl Order for Priority {
    fn needs(&self) -> Needs {
        Needs::HINTS
    }

    fn rank(&mut self, _cx: &OrderCx<'_>, task: &TaskView<'_>) -> Rank {
        let priority = task.hints().priority;
        if self.aging_s == 0.0 {
            return Rank::greatest(priority);
        }
        // Everybody gains a point in the same time, so who is ahead never changes while two wait: the rank is static.
        Rank::least(task.ready().as_ns() as f64 / 1e9 / self.aging_s - priority)
    }
}

impl Named for Priority {
    const NAME: &'static str = "priority";
    const SUMMARY: &'static str = "the highest #prio in the label (0 without), then the oldest";
    const SOURCE: &'static str = "Conway, Maxwell, Miller 1967; aging: Kleinrock 1964";
    const LABELS: &'static [&'static str] = &["#prio="];
    const PARAMETERS: &'static [(&'static str, &'static str)] =
        &[("aging_s", "seconds of waiting that are worth one point of priority, so that nobody starves; 0 for never")];
    type Config = PriorityConfig;
    fn build(config: PriorityConfig) -> Result<Self, PolicyError> {
        Ok(Priority { aging_s: in_range(Self::NAME, "aging_s", config.aging_s, 0.0..=1e9)? })
    }
}

/// Where a size comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Size {
    /// The label's `#cost` if it has one, else what was learned of the class.
    #[default]
    Auto,
    /// The label's `#cost` alone.
    Exact,
    /// What was learned of the class alone.
    Estimated,
}

/// Parameters of [`Shortest`] and [`Longest`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SizeConfig {
    size: Size,
}

const SIZE_PARAMETERS: &[(&str, &str)] =
    &[("size", "exact: the label's #cost; estimated: the mean of the task's class; auto: the first that is there")];

impl Size {
    fn needs(self) -> Needs {
        match self {
            Size::Auto => Needs::COST | Needs::ESTIMATE,
            Size::Exact => Needs::COST,
            Size::Estimated => Needs::ESTIMATE,
        }
    }

    /// In seconds; nothing for a task of which nothing is known, while a mean of others is known.
    fn of(self, cx: &OrderCx<'_>, task: &TaskView<'_>) -> Option<f64> {
        match self {
            Size::Exact => task.hints().cost_s,
            Size::Auto | Size::Estimated => cx.learned.expected_s(task),
        }
    }
}

/// The order `shortest`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shortest(Size);

impl Order for Shortest {
    fn needs(&self) -> Needs {
        self.0.needs()
    }

    fn rank(&mut self, cx: &OrderCx<'_>, task: &TaskView<'_>) -> Rank {
        Rank::least(self.0.of(cx, task).unwrap_or(f64::MAX)) // of those without a size, none goes before one with
    }

    fn is_revised(&self) -> bool {
        self.0 != Size::Exact
    }
}

impl Named for Shortest {
    const NAME: &'static str = "shortest";
    const SUMMARY: &'static str = "the task that takes least time, by its label or its class";
    const SOURCE: &'static str = "Smith 1956; Schrage and Miller 1966";
    const PARAMETERS: &'static [(&'static str, &'static str)] = SIZE_PARAMETERS;
    type Config = SizeConfig;
    fn build(config: SizeConfig) -> Result<Self, PolicyError> {
        Ok(Shortest(config.size))
    }
}

/// The order `longest`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Longest(Size);

impl Order for Longest {
    fn needs(&self) -> Needs {
        self.0.needs()
    }

    fn rank(&mut self, cx: &OrderCx<'_>, task: &TaskView<'_>) -> Rank {
        Rank::greatest(self.0.of(cx, task).unwrap_or(0.0))
    }

    fn is_revised(&self) -> bool {
        self.0 != Size::Exact
    }
}

impl Named for Longest {
    const NAME: &'static str = "longest";
    const SUMMARY: &'static str = "the task that takes most time: evens out the end of a batch";
    const SOURCE: &'static str = "Graham 1969 (LPT)";
    const PARAMETERS: &'static [(&'static str, &'static str)] = SIZE_PARAMETERS;
    type Config = SizeConfig;
    fn build(config: SizeConfig) -> Result<Self, PolicyError> {
        Ok(Longest(config.size))
    }
}

/// The order `deadline`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Deadline;

impl Order for Deadline {
    fn needs(&self) -> Needs {
        Needs::HINTS
    }

    fn rank(&mut self, _cx: &OrderCx<'_>, task: &TaskView<'_>) -> Rank {
        Rank::key(task.hints().deadline.map_or(u64::MAX, |after| (task.submitted() + after).as_ns()))
    }
}

impl Named for Deadline {
    const NAME: &'static str = "deadline";
    const SUMMARY: &'static str = "the earliest #deadline in the label, then those without one";
    const SOURCE: &'static str = "Jackson 1955; Liu and Layland 1973";
    const ALIASES: &'static [&'static str] = &["edf"];
    const LABELS: &'static [&'static str] = &["#deadline="];
    type Config = NoParameters;
    fn build(_: NoParameters) -> Result<Self, PolicyError> {
        Ok(Deadline)
    }
}
