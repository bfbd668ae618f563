//! The monitored queue: passes messages between two sockets as fast as libzmq allows and shows a copy of each to a [`Tap`].
//! It never looks inside a message, and nothing that a tap does can stall the traffic.

mod hold;
mod run;
mod tap;

pub use run::{Command, Counters, Pairing, Relay};
pub use tap::{Direction, NoTap, PublishTap, Tap};
