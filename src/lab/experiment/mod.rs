//! Experiments: a file names what is varied and what is measured; each point is run several times, with the same tasks for every policy; what is
//! finished is kept. The same file and seed give the same results to the byte, on one thread or many.

mod file;
mod keys;
mod point;
mod run;
mod store;
mod warn;

pub use file::{Experiment, ExperimentError, POLICY_KEYS};
pub use keys::KEYS;
pub use point::{Pace, Point, Workload};
pub use run::{Detail, How, Outcome, Row, Work, run_experiment, run_point, source_of};
pub use store::{Results, Store, read_results};
pub use warn::warnings;
