//! What both sides of the IPython Parallel wire need: messages and their signatures, ids, connection files, the relay, the hub and
//! its task records, and native peers. The pure half (everything outside feature `net`) never does I/O and builds for wasm.
//!
//! Start from [`Multipart`], a message as it travels, and [`Session`], which signs and checks messages.

pub mod connection_file;
pub mod date;
pub mod db;
pub mod hub;
mod ledger;
mod message;
pub mod packer;
pub mod renew;
mod session;
pub mod wire;
pub mod zmtp;

#[cfg(feature = "net")]
pub mod net;
#[cfg(feature = "net")]
pub mod peer;
#[cfg(feature = "net")]
pub mod relay;

pub use ledger::Ledger;
pub use message::{BUFFERS_AT, DELIMITER, Envelope, LARGE_FRAME_BYTES, Malformed, Multipart, MultipartBuilder, find_delimiter};
pub use packer::Packer;
pub use session::{Parts, Refused, Session, Signature, Signer};
