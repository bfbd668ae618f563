//! Log lines for an `iplogger` (`log_url`): published as ipyparallel's controllers and engines publish theirs, topic and text, to whoever listens
//! at that address. Off unless it is started; it never waits for anybody, holds a bounded number of bytes, and no failure of it ends anything.

use std::fmt::Write as _;
use std::os::fd::AsFd as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use anyhow::Context as _;
use pointsman_core::net::{FrameBuf, Mailbox, Outbox, Port, PortError, wait};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::Context;
use tracing_subscriber::{Layer, registry::LookupSpan};

/// Lines that wait for the publishing thread, and their bytes; the rest is left out, with a count.
const MAX_LINES: usize = 4096;
const MAX_BYTES: usize = 1 << 20;
/// Bytes of one line; the rest of it is left out.
const MAX_LINE_BYTES: usize = 16 << 10;
/// Lines that wait in the socket for one listener.
const SOCKET_LINES: i32 = 1000;
/// How long the end of a process may wait for its last lines.
const FAREWELL: Duration = Duration::from_millis(300);

/// Topic and text, or the end.
type Line = Option<(String, String)>;

struct Publisher {
    /// What its lines are about, unless their thread is an engine's.
    root: &'static str,
    lines: Outbox<Line>,
    over: std::sync::Mutex<Receiver<()>>,
}

/// Lines for which there was no room.
static LEFT_OUT: AtomicU64 = AtomicU64::new(0);
static PUBLISHER: OnceLock<Publisher> = OnceLock::new();

/// Starts to publish what is logged from now on, under `controller` or `engine`.
///
/// # Errors
/// If the address is none, or there are no sockets or threads left.
pub(super) fn start(root: &'static str, url: &str) -> anyhow::Result<()> {
    let context = zmq::Context::new();
    // It tells of who listens, where a PUB does not; to listeners they are the same.
    let socket = context.socket(zmq::XPUB)?;
    socket.set_sndhwm(SOCKET_LINES)?;
    socket.set_linger((FAREWELL / 2).as_millis() as i32)?;
    socket.connect(url).with_context(|| format!("log_url '{url}' (a listener's address is such as tcp://127.0.0.1:20202)"))?;
    let (lines, mailbox) = Mailbox::new(MAX_LINES, MAX_BYTES)?;
    let (ending, over) = sync_channel(1);
    std::thread::Builder::new().name("log-url".into()).spawn(move || {
        let port = Port::from(socket);
        let _ = publish(root, &port, &mailbox);
        // Waits for what is on its way, as long as the socket may linger.
        drop((port, context));
        let _ = ending.try_send(());
    })?;
    let _ = PUBLISHER.set(Publisher { root, lines, over: over.into() });
    tracing::info!("Forwarding logging to {url}");
    Ok(())
}

/// Gives the last lines a moment to leave, at the end of a process.
pub(super) fn finish() {
    if let Some(publisher) = PUBLISHER.get()
        && publisher.lines.send_always(None)
        && let Ok(over) = publisher.over.lock()
    {
        let _ = over.recv_timeout(FAREWELL);
    }
}

/// Publishes until the end. Lines of before the first listener wait for it, as far as there is room: how a process started is worth reading.
fn publish(root: &str, port: &Port, lines: &Mailbox<Line>) -> Result<(), PortError> {
    let (mut taken, mut told, mut heard) = (Vec::new(), 0, false);
    let mut subscription = FrameBuf::default();
    loop {
        while port.take(&mut subscription)? {
            heard = true;
        }
        if !heard {
            let [] = wait(&[port], [], None)?;
            continue;
        }
        lines.take(64, &mut taken);
        if taken.is_empty() {
            wait(&[port], [lines.as_fd()], None)?;
        }
        // What its listener does not read in time the socket drops by itself, as every publisher does.
        for line in taken.drain(..) {
            let Some((topic, text)) = line else { return Ok(()) };
            let _ = port.send_parts([topic.as_bytes(), text.as_bytes()]);
        }
        let refused = LEFT_OUT.load(Ordering::Relaxed);
        if refused > told {
            let text = format!("WARNING forward.rs:0 - {} log lines were left out: they came too fast\n", refused - told);
            told = refused;
            let _ = port.send_parts([format!("{root}.WARNING").as_bytes(), text.as_bytes()]);
        }
    }
}

/// The layer that publishes; it costs a look at a flag for each line while nothing was started.
#[derive(Debug, Default)]
pub(super) struct Forward;

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Forward {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let Some(publisher) = PUBLISHER.get() else { return };
        let metadata = event.metadata();
        let mut message = Text::default();
        event.record(&mut message);
        let thread = std::thread::current();
        let topic = topic(publisher.root, thread.name(), *metadata.level());
        let line = line(*metadata.level(), metadata.file(), metadata.line(), &message.0);
        let bytes = topic.len() + line.len();
        if !publisher.lines.send(Some((topic, line)), bytes) {
            LEFT_OUT.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The message of an event, and its fields behind it.
#[derive(Default)]
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        // Writing to a string does not fail.
        let _ = match (field.name(), self.0.is_empty()) {
            ("message", true) => write!(self.0, "{value:?}"),
            ("message", false) => write!(self.0, " {value:?}"),
            (name, true) => write!(self.0, "{name}={value:?}"),
            (name, false) => write!(self.0, " {name}={value:?}"),
        };
    }
}

/// Python's word for a level.
fn word(level: Level) -> &'static str {
    match level {
        Level::ERROR => "ERROR",
        Level::WARN => "WARNING",
        Level::INFO => "INFO",
        Level::DEBUG | Level::TRACE => "DEBUG",
    }
}

/// `controller.INFO`, `engine.3.WARNING`: an engine's threads bear its number.
fn topic(root: &str, thread: Option<&str>, level: Level) -> String {
    let number = thread.and_then(|name| name.strip_prefix("engine-")).and_then(|rest| rest.split('-').next());
    match number.filter(|_| root == "engine") {
        Some(number) => format!("{root}.{number}.{}", word(level)),
        None => format!("{root}.{}", word(level)),
    }
}

/// What pyzmq's `PUBHandler` makes of a record: the message, behind level and place unless it is for information.
fn line(level: Level, file: Option<&str>, number: Option<u32>, message: &str) -> String {
    let mut line = String::new();
    if level != Level::INFO {
        let file = file.and_then(|path| path.rsplit('/').next()).unwrap_or("?");
        line = format!("{} {file}:{} - ", word(level), number.unwrap_or(0));
    }
    let room = MAX_LINE_BYTES.saturating_sub(line.len());
    let end = (0..=room.min(message.len())).rev().find(|&at| message.is_char_boundary(at));
    line.push_str(&message[..end.unwrap_or(0)]);
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_and_lines_are_those_of_pyzmqs_handler() {
        assert_eq!(topic("controller", Some("hub"), Level::INFO), "controller.INFO");
        assert_eq!(topic("controller", Some("engine-3"), Level::WARN), "controller.WARNING");
        assert_eq!(topic("engine", Some("engine-3"), Level::WARN), "engine.3.WARNING");
        assert_eq!(topic("engine", Some("engine-12-work"), Level::ERROR), "engine.12.ERROR");
        assert_eq!(topic("engine", Some("main"), Level::TRACE), "engine.DEBUG");
        assert_eq!(line(Level::INFO, Some("a/b.rs"), Some(7), "it works"), "it works\n");
        assert_eq!(line(Level::WARN, Some("a/b.rs"), Some(7), "it hurts"), "WARNING b.rs:7 - it hurts\n");
        assert_eq!(line(Level::DEBUG, None, None, "it is"), "DEBUG ?:0 - it is\n");
        let long = line(Level::ERROR, None, None, &"ä".repeat(MAX_LINE_BYTES));
        assert!(long.len() <= MAX_LINE_BYTES + 1 && long.ends_with("ä\n"));
    }
}
