//! The monitored queue: passes messages between two sockets as fast as libzmq allows and shows a copy of each to a [`Tap`].
//! It never looks inside a message, nothing that a tap does can stall the traffic, and what it gives up is counted and logged.

mod hold;
mod run;
mod tap;
mod watch;

pub use hold::KnownPeers;
pub use run::{Command, Counters, Pairing, Relay};
pub use tap::{Direction, NoTap, PublishTap, Tap};
pub use watch::Watch;
