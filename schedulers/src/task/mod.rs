//! The task scheduler: dependencies (`after` in time, `follow` in place), targets, retries, timeouts and limits, with the choice of
//! an engine left to a [`Scheme`](pointsman_policies::Scheme). Every accepted task gets exactly one terminal action, whatever events come in whatever order.
//!
//! Start from [`TaskScheduler`] and its calling order; [`Event`] and [`Action`] are its two sides, [`TaskSpec`] is what a task asks for.

mod check;
mod decisions;
mod event;
mod explain;
mod finish;
mod ghosts;
pub mod graph;
mod growth;
mod ids;
mod known;
mod machine;
mod place;
mod queue;
mod rank;
mod rebalance;
mod spec;
mod state;
mod submit;
mod swap;

pub use decisions::Decision;
pub use event::{Action, Counters, Event, FailKind, Limits, Measured, Reason, ReplyKind};
pub use known::EngineId;
pub use machine::TaskScheduler;
pub use spec::{Dependency, InvalidSpec, Label, TaskSpec};
pub use state::TaskKey;
pub use swap::PolicyChange;
