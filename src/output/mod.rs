//! What the program prints and logs. Nothing that is printed can end a command by a panic, and nothing that is logged can make a thread wait:
//! a reader that leaves, a full disk and a closed terminal lose lines, which are counted.
//!
//! `print!`, `println!` and `eprintln!` mean the macros of this file throughout the crate: the standard library's panic when they fail.

mod lines;

use std::io::{ErrorKind, Write as _};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

pub(crate) use lines::Lines;

macro_rules! print {
    ($($text:tt)*) => { $crate::output::print(::std::format_args!($($text)*)) };
}
macro_rules! println {
    ($($text:tt)*) => { $crate::output::print(::std::format_args!("{}\n", ::std::format_args!($($text)*))) };
}
macro_rules! eprintln {
    ($($text:tt)*) => { $crate::output::complain(::std::format_args!($($text)*)) };
}

/// Why standard output takes no more: the first failure.
static FAILED: Mutex<Option<std::io::Error>> = Mutex::new(None);

/// Prints to standard output. After a failure the rest is dropped, and [`finish`] says so: what was begun ends in order, with its files removed.
pub(crate) fn print(text: std::fmt::Arguments<'_>) {
    let mut failed = FAILED.lock().unwrap_or_else(PoisonError::into_inner);
    if failed.is_none() {
        let mut out = std::io::stdout().lock();
        *failed = out.write_fmt(text).and_then(|()| out.flush()).err();
    }
}

/// Prints a line to standard error, behind the log lines there.
pub(crate) fn complain(text: std::fmt::Arguments<'_>) {
    if let Some(lines) = stderr() {
        lines.send(format!("{text}\n").as_bytes());
        lines.flush();
    }
}

/// Log lines that nobody got, of this process.
static LOST: OnceLock<Arc<AtomicU64>> = OnceLock::new();

/// Counts lost lines there; what is said first holds.
pub(crate) fn count_lost_in(counter: Arc<AtomicU64>) {
    let _ = LOST.set(counter);
}

fn lost() -> Arc<AtomicU64> {
    LOST.get_or_init(Arc::default).clone()
}

/// The one way to standard error, made when it is first needed. None if the process may have no thread more.
pub(crate) fn stderr() -> Option<&'static Lines> {
    static STDERR: OnceLock<Option<Lines>> = OnceLock::new();
    STDERR.get_or_init(|| Lines::new(std::io::stderr(), lost()).ok()).as_ref()
}

/// The way to the log file, if there is one.
static FILE: OnceLock<Lines> = OnceLock::new();

/// A way to a log file.
///
/// # Errors
/// If the process may have no thread or file descriptor more.
pub(crate) fn to_file(file: std::fs::File) -> std::io::Result<Lines> {
    let lines = Lines::new(file, lost())?;
    let _ = FILE.set(lines.clone());
    Ok(lines)
}

/// Waits until what was logged is written, for a second at most.
pub(crate) fn flush() {
    FILE.get().into_iter().chain(stderr()).for_each(Lines::flush);
}

/// Prepares a process for outputs that fail: beyond a limit of file sizes a write shall fail, not kill.
pub(crate) fn prepare() {
    let _ = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, Arc::new(AtomicBool::new(false)));
}

/// What a command's end is for whoever started it: its own, or that its output could not be had. A reader that left is no error, and told as
/// the shell expects it, by the signal.
pub(crate) fn finish(code: ExitCode) -> ExitCode {
    let failed = FAILED.lock().unwrap_or_else(PoisonError::into_inner).take();
    match failed {
        None => {}
        Some(error) if error.kind() == ErrorKind::BrokenPipe => {
            flush();
            let _ = signal_hook::low_level::emulate_default_handler(signal_hook::consts::SIGPIPE);
        }
        Some(error) => {
            complain(format_args!("pointsman: standard output: {error}"));
            return ExitCode::FAILURE;
        }
    }
    flush();
    code
}
