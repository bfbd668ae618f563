//! Experiments: a file names what is varied and what is measured; each point is run several times, with the same tasks for every policy; what is
//! finished is kept. The same file and seed give the same results to the byte, on one thread or many.

mod execute;
mod file;
mod keys;
mod point;
mod prepared;
mod program;
mod run;
mod store;
mod warn;

pub use execute::{How, Progress, Ran, outstanding, run_experiment};
pub use file::{Experiment, ExperimentError, POLICY_KEYS};
pub use keys::KEYS;
pub use point::{Pace, Point, Workload};
pub use prepared::{Cost, Prepared};
pub use program::Program;
pub use run::{Outcome, Work, run_point, source_of};
pub use store::{Detail, Maker, Results, Row, Store, read_results};
pub use warn::{start_up_warnings, warnings};
