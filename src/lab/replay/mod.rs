//! A live run played again from its records, under the policies that it had and under others. What the replay says of the policies that really ran is
//! held against what really happened, so that one knows how far to trust what it says of the others.

mod calibrate;
mod loops;
mod play;
mod recording;

use anyhow::Context as _;

pub use calibrate::{Overheads, Span};
pub use loops::{Kind, Loops};
pub use play::Replay;
pub use recording::{RealTask, Recording, Segment};

use super::experiment::Point;
use crate::config::Resolved;

/// Policies as records name them: `placement leastload[tie=lru], order fifo, admission fixed[hwm=1], rebalance none`.
///
/// # Errors
/// If they are named otherwise.
pub fn point_of(policies: &str) -> anyhow::Result<Point> {
    let wrong = || format!("'{policies}' names no policies");
    let rest = policies.strip_prefix("placement ").with_context(wrong)?;
    let (placement, rest) = rest.split_once(", order ").with_context(wrong)?;
    let (order, rest) = rest.split_once(", admission ").with_context(wrong)?;
    let (admission, rebalance) = rest.split_once(", rebalance ").with_context(wrong)?;
    // The seed that records name besides is not theirs.
    let rebalance = rebalance.split_once(", seed ").map_or(rebalance, |(name, _)| name);
    Ok(Point {
        placement: placement.into(),
        order: order.into(),
        admission: Some(admission.into()),
        rebalance: rebalance.into(),
        ..Point::default()
    })
}

/// The limit of tasks in flight that policies come to: 0 where there is none, or none that is fixed.
pub fn hwm_of(resolved: &Resolved) -> u32 {
    let admission = resolved.on(pointsman_policies::Axis::Admission);
    admission.parameters().get("hwm").and_then(serde_json::Value::as_u64).map_or(0, |hwm| hwm as u32)
}

#[cfg(test)]
mod tests {
    use pointsman_policies::Registry;

    use super::*;

    #[test]
    fn policies_of_records_are_those_that_ran() {
        let registry = Registry::builtin();
        let resolved = point_of("placement choices[d=3, tie=lru], order fifo, admission fixed[hwm=4], rebalance none")
            .unwrap()
            .policies(&registry)
            .unwrap();
        assert_eq!(hwm_of(&resolved), 4);
        // What a controller writes is read again as it was.
        let again = point_of(&format!("{resolved}, seed 7")).unwrap().policies(&registry).unwrap();
        assert_eq!(again, resolved);
        assert!(point_of("leastload").is_err());
    }
}
