//! What an engine does with a request: functions by name, shell commands, code. It runs on a thread of its own, so that a long task stops
//! neither heartbeat nor control, and nothing that a task does ends that thread.

use std::io::Write as _;
use std::process::{Command, Stdio};

use bytes::Bytes;
use hashbrown::HashMap;
use serde_json::Value;

use super::RemoteError;
use super::engine::News;
use super::task::Call;
use crate::Envelope;
use crate::date::Date;
use crate::net::{Clock, Outbox};
use crate::wire;

type Function = Box<dyn Fn(&[u8]) -> Result<Vec<u8>, String> + Send + Sync>;

/// The functions that an engine runs by name.
#[derive(Default)]
pub struct Functions {
    by_name: HashMap<String, (Function, bool), foldhash::fast::FixedState>,
}

impl std::fmt::Debug for Functions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.by_name.keys()).finish()
    }
}

impl Functions {
    /// None; shell commands can be run all the same.
    pub fn new() -> Self {
        Functions::default()
    }

    /// Adds a function from bytes to bytes, or to the message of an error. It runs on the engine's working thread.
    pub fn register(&mut self, name: &str, function: impl Fn(&[u8]) -> Result<Vec<u8>, String> + Send + Sync + 'static) {
        self.by_name.insert(name.to_owned(), (Box::new(function), false));
    }

    /// Adds a function that takes microseconds: it runs between two looks at the sockets, without a change of threads.
    pub fn register_quick(&mut self, name: &str, function: impl Fn(&[u8]) -> Result<Vec<u8>, String> + Send + Sync + 'static) {
        self.by_name.insert(name.to_owned(), (Box::new(function), true));
    }

    pub(super) fn is_quick(&self, name: &str) -> bool {
        self.by_name.get(name).is_some_and(|(_, quick)| *quick)
    }

    /// The names, sorted.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.by_name.keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }
}

/// A request for the working thread.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) request: Envelope,
    pub(super) work: Work,
}

/// What is to be done.
#[derive(Debug)]
pub(super) enum Work {
    Call(Call, Bytes),
    Execute(String),
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) request: Envelope,
    pub(super) started: Date,
    pub(super) outcome: Result<Bytes, RemoteError>,
    /// Name and text of its output, for requests that publish it.
    pub(super) output: Vec<(&'static str, String)>,
}

pub(super) fn failure(ename: &str, evalue: impl Into<String>) -> RemoteError {
    RemoteError { ename: ename.to_owned(), evalue: evalue.into() }
}

pub(super) fn read_call(request: &Envelope) -> Result<Work, RemoteError> {
    let mut buffers = request.buffers();
    let call = buffers.next().and_then(|call| serde_json::from_slice::<Call>(&call).ok());
    let call = call.ok_or_else(|| {
        failure("NotImplementedError", "a native engine runs named functions and shell commands, not pickled Python")
    })?;
    Ok(Work::Call(call, buffers.next().unwrap_or_default()))
}

pub(super) fn read_code(request: &Envelope) -> Result<Work, RemoteError> {
    let content: Value = wire::object(request.content()).unwrap_or_default();
    let code = content["code"].as_str().ok_or_else(|| failure("TypeError", "execute_request without code"))?;
    Ok(Work::Execute(code.to_owned()))
}

pub(super) fn call(functions: &Functions, name: &str, argument: &[u8]) -> Result<Bytes, RemoteError> {
    let Some((function, _)) = functions.by_name.get(name) else {
        let known = functions.names().join(", ");
        return Err(failure("NameError", format!("no function is called '{name}' here; known: {known}")));
    };
    // A function of the user's may panic; that is its task's failure, not the engine's.
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| function(argument))) {
        Ok(Ok(result)) => Ok(result.into()),
        Ok(Err(message)) => Err(failure("RuntimeError", message)),
        Err(_) => Err(failure("RuntimeError", format!("'{name}' panicked"))),
    }
}

/// The working thread.
pub(super) fn work(functions: &Functions, jobs: &std::sync::mpsc::Receiver<Job>, news: &Outbox<News>) {
    while let Ok(Job { request, work }) = jobs.recv() {
        let started = Clock::date();
        let mut output = Vec::new();
        let outcome = match work {
            Work::Call(Call::Function(name), argument) => call(functions, &name, &argument),
            Work::Call(Call::Shell(command), input) => shell(&command, &input).and_then(|out| {
                if out.status.success() {
                    Ok(out.stdout.into())
                } else {
                    Err(failure("CalledProcessError", format!("{}: {}", out.status, String::from_utf8_lossy(&out.stderr).trim())))
                }
            }),
            Work::Execute(code) => shell(&code, b"").and_then(|out| {
                output.push(("stdout", String::from_utf8_lossy(&out.stdout).into_owned()));
                output.push(("stderr", String::from_utf8_lossy(&out.stderr).into_owned()));
                if out.status.success() { Ok(Bytes::new()) } else { Err(failure("CalledProcessError", out.status.to_string())) }
            }),
        };
        news.send_always(News::Done(Done { request, started, outcome, output }));
    }
}

fn shell(command: &str, input: &[u8]) -> Result<std::process::Output, RemoteError> {
    let os = |error: std::io::Error| failure("OSError", error.to_string());
    let mut child = Command::new("sh")
        .args(["-c", command])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(os)?;
    let stdin = child.stdin.take();
    std::thread::scope(|scope| {
        // Written beside the reading of its output: neither pipe can fill up and block the other.
        scope.spawn(move || stdin.map(|mut stdin| stdin.write_all(input)));
        child.wait_with_output().map_err(os)
    })
}
