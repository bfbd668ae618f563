//! Disciplines that only a simulator can have, because they preempt, share, or know what nobody knows: the bracket around policies that run.

mod gittins;
mod queue;

pub use gittins::{Index, run_gittins};
pub use queue::{Discipline, run as run_discipline};
