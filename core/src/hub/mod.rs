//! The hub: which engines there are and whether they live, what clients ask, and the records of what tasks did. A state machine, told
//! of everything and asked for actions; it never touches a socket, a clock or a store, and no task waits for it.
//!
//! Start from [`Hub`]; with feature `net`, [`driver`] puts it on sockets.

mod answers;
mod engines;
mod hearts;
mod machine;
mod news;
mod queries;
mod restore;
mod traffic;

#[cfg(feature = "net")]
pub mod driver;
#[cfg(feature = "net")]
mod store;

pub use engines::{EngineNumber, EnginesState};
pub use hearts::Hearts;
pub use machine::{Action, Copied, DaskAddress, DaskOrder, DbCall, DbReply, Event, Hub, HubConfig, Now, Reason, Topic};
pub use news::TaskNews;
#[cfg(feature = "net")]
pub use store::CLOSE_WITHIN;
