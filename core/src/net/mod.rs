//! The edge: frames and sockets of libzmq, mailboxes between threads, the clock, and files. Everything that the pure half must not do
//! happens here; nothing here decides anything.

mod clock;
mod complaints;
pub mod files;
mod frame;
mod mailbox;
mod port;

pub use clock::Clock;
pub use complaints::{Complaints, Tally};
pub use frame::Frame;
pub use mailbox::{Mailbox, Outbox, Taken};
pub use port::{FrameBuf, MAX_FRAMES, Opened, Port, PortError, pack, wait};

/// A session id as peers make them: 8 hexadecimal digits, a dash, 24 more, from the operating system's entropy.
pub fn fresh_id() -> String {
    let id = uuid::Uuid::new_v4().simple().to_string();
    format!("{}-{}", &id[..8], &id[8..])
}
