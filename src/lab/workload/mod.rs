//! Where a simulated cluster's work comes from: streams, closed loops, traces and graphs. A workload knows nothing of policies, and with the same
//! seed brings the same jobs whatever becomes of them (a closed loop: the same for each client).

mod arrivals;
mod closed;
mod graphs;
mod stream;
mod trace;

pub use arrivals::{ArrivalKind, Arrivals};
pub use closed::Closed;
pub use graphs::{GraphEnd, Graphs};
pub use stream::{Estimate, Kind, Stream};
pub(super) use trace::numbered;
pub use trace::{Columns, Playback, Recorded, TraceError, read_csv, read_swf};
