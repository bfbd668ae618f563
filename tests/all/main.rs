//! Integration tests, in one binary: real controllers with native peers, the command line, and real Python peers.

mod bench;
mod cli;
mod config;
mod demo;
mod docs;
mod front;
mod hostile;
mod interop;
mod lab_answers;
mod lab_files;
mod loss;
mod native;
mod parsers;
mod policy;
mod refused;
mod world;
