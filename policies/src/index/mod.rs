//! The structures that schemes share: a set with uniform draws, a tournament for minima, a tree of sums for weighted draws.
//! Each is exact under any order of changes and never allocates after it has grown to the number of engines.

mod dense;
mod sum;
mod winner;

pub use dense::DenseSet;
pub use sum::SumTree;
pub use winner::WinnerTree;
