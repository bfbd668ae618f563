//! Disciplines that only a simulator can have, because they preempt, share, or know what nobody knows: the bracket around policies that run.

mod queue;

pub use queue::{Discipline, run as run_discipline};
