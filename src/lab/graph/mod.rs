//! Graphs of tasks, and schedules that know everything beforehand: what online policies are held against. Pure: files are read by whoever has them.

mod dag;
mod heft;
mod list;
mod shapes;
mod wfformat;

pub use dag::{Dag, DagError, Edge};
pub use heft::{Costs, Placed, cpop, heft, peft};
pub use list::{Rule, list_schedule, list_schedule_by};
pub use shapes::Shape;
