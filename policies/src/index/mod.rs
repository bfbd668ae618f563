//! The structures that schemes share: sets with uniform draws or in the order of slots, tournaments for minima, a tree of sums for
//! weighted draws. Each is exact under any order of changes and never allocates after it has grown to the number of engines.

mod dense;
mod eligible;
mod mintree;
mod slots;
mod sum;
mod winner;

pub use dense::DenseSet;
pub use eligible::Eligible;
pub use mintree::MinTree;
pub use slots::SlotSet;
pub use sum::SumTree;
pub use winner::WinnerTree;

/// An engine's row in an array by slots as if it had just joined; the array grows as it has to.
pub fn fresh_row<T: Clone + Default>(rows: &mut Vec<T>, engine: crate::EngineIx) {
    if rows.len() <= engine.slot() {
        rows.resize(engine.slot() + 1, T::default());
    }
    rows[engine.slot()] = T::default();
}

/// A finite number as an integer that sorts the same way.
pub fn sortable(number: f64) -> u64 {
    let bits = number.to_bits();
    bits ^ if bits >> 63 == 1 { u64::MAX } else { 1 << 63 }
}
