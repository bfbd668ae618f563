//! The schedulers of Pointsman as state machines, and the drivers that put them on sockets. Outside feature `net` nothing here does
//! I/O, reads a clock or draws entropy, so the simulator, the tests and the live controller run the same code.
//!
//! Start from [`task::TaskScheduler`], which holds tasks back until their dependencies are met and places them by a policy.

#[cfg_attr(not(feature = "net"), allow(dead_code, reason = "messages are opened by the drivers alone"))]
mod admit;
pub mod broadcast;
#[cfg(feature = "net")]
pub mod live;
pub mod task;
