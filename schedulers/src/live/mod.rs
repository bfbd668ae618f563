//! The drivers: each puts one machine on its sockets, in a thread that polls them and a mailbox. They keep the machines' calling order,
//! give every source a bounded turn, and log what machines reject; they decide nothing.

mod broadcast;
mod facts;
mod feed;
mod orders;
mod tasks;
mod watch;

pub use broadcast::{BroadcastInput, BroadcastSockets, run_broadcast};
pub use facts::FactReader;
pub use orders::{LiveChange, SchedulerOrder};
pub use tasks::{LiveScheduler, Request, TaskInput, TaskOptions, TaskSockets, run_tasks};
pub use watch::TaskWatch;

/// Messages taken from one socket before the next has its turn.
const BURST: usize = 64;
