//! What a native engine can be asked to do, and how that is written: the first buffer of a request names it, the second is its argument.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// Something to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Call {
    /// A function that the engine knows by this name; it gets the argument's bytes and returns bytes.
    Function(String),
    /// A command for `sh -c`, with the argument as its standard input; it returns its standard output.
    Shell(String),
}

/// A task for the scheduler, with everything it may ask for.
#[derive(Clone, Debug)]
pub struct TaskRequest {
    /// What to run.
    pub call: Call,
    /// Its argument.
    pub argument: Bytes,
    /// Ids of tasks that must have succeeded.
    pub after: Vec<String>,
    /// Ids of tasks on whose engine it must run.
    pub follow: Vec<String>,
    /// Uuids of engines that it may run on; empty for any.
    pub targets: Vec<String>,
    /// How often it may be tried again.
    pub retries: u32,
    /// How long it may wait, in seconds; 0 for ever.
    pub timeout_s: f64,
    /// Any text to find it by.
    pub label: Option<String>,
}

impl TaskRequest {
    /// A task without conditions.
    pub fn new(call: Call, argument: impl Into<Bytes>) -> Self {
        TaskRequest {
            call,
            argument: argument.into(),
            after: Vec::new(),
            follow: Vec::new(),
            targets: Vec::new(),
            retries: 0,
            timeout_s: 0.0,
            label: None,
        }
    }

    /// A named function.
    pub fn function(name: &str, argument: impl Into<Bytes>) -> Self {
        TaskRequest::new(Call::Function(name.to_owned()), argument)
    }

    pub(super) fn metadata(&self) -> Vec<u8> {
        let mut metadata = Map::new();
        let mut put = |key: &str, value: Value| metadata.insert(key.to_owned(), value);
        put("after", json!(self.after));
        put("follow", json!(self.follow));
        put("targets", json!(self.targets));
        put("retries", json!(self.retries));
        put("timeout", json!(self.timeout_s));
        put("label", json!(self.label));
        // Output of native tasks is in their results: no status messages are needed to tell when it is complete.
        put("quiet", json!(true));
        Value::Object(metadata).to_string().into_bytes()
    }
}
