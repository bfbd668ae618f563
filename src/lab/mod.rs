//! The lab: the shipping scheduler and the shipping policies in virtual time. An experiment says what is varied and measured; results are tables
//! and charts, held against theory. Nothing here knows a socket, and nothing depends on the machine but how long it takes.

pub mod draw;
pub mod experiment;
pub mod graph;
pub mod measure;
pub mod oracle;
pub mod reference;
pub mod replay;
pub mod report;
mod start_up;
pub mod summary;
pub mod theory;
pub mod verify;
pub mod workload;
pub mod world;
