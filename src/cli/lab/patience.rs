//! How long something takes: said before it begins, asked about when it is long, and ticking while it runs.

use std::io::{IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::bail;
use indicatif::{ProgressBar, ProgressStyle};

/// Above this nobody starts something by mistake.
const LONG_S: f64 = 3600.0;
/// Who has no terminal sees a line that often.
const LINE_EVERY: Duration = Duration::from_secs(60);

/// A length of time as people say it.
pub(super) fn span(seconds: f64) -> String {
    match seconds {
        s if s < 1.0 => "less than a second".into(),
        s if s < 100.0 => format!("about {s:.0} s"),
        s if s < 100.0 * 60.0 => format!("about {:.0} min", s / 60.0),
        s if s < 100.0 * 3600.0 => format!("about {:.0} h", s / 3600.0),
        s => format!("about {:.0} days", s / 86_400.0),
    }
}

/// Says what is about to be done and how long it takes, and asks if that is long. `shorter` is what makes it shorter.
///
/// # Errors
/// If it is long, and nobody agrees.
pub(super) fn announce(what: &str, seconds: f64, shorter: &str, yes: bool) -> anyhow::Result<()> {
    eprintln!("{what}: {}", span(seconds));
    if seconds <= LONG_S || yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        bail!("it would take {}: {shorter}; or agree to it with --yes", span(seconds));
    }
    eprint!("{shorter}. Begin all the same? [y/N] ");
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    if matches!(answer.trim(), "y" | "Y" | "yes") { Ok(()) } else { bail!("not begun") }
}

/// How far something is.
#[derive(Clone, Debug)]
struct Far {
    text: String,
    /// In seconds as they were expected before.
    done_s: f64,
    all_s: f64,
    /// When the last piece was done, and how many of them are under way at once.
    at: Instant,
    piece_s: f64,
}

/// Shows how far something is, steadily: a bar on a terminal, a line a minute elsewhere.
pub(super) struct Ticker {
    bar: ProgressBar,
    far: Mutex<Far>,
    began: Instant,
    over: AtomicBool,
}

impl Ticker {
    /// For something that should take so long.
    pub(super) fn new(all_s: f64) -> anyhow::Result<Ticker> {
        let bar = ProgressBar::new(1000);
        bar.set_style(ProgressStyle::with_template("{msg} [{bar:40}] {elapsed}")?);
        let began = Instant::now();
        let far = Far { text: String::new(), done_s: 0.0, all_s, at: began, piece_s: 0.0 };
        Ok(Ticker { bar, far: Mutex::new(far), began, over: AtomicBool::new(false) })
    }

    /// What is done now, and what there is in all, in seconds as expected before. What is under way is expected to take `piece_s`, if that can be told.
    pub(super) fn tell(&self, text: String, done_s: f64, all_s: f64, piece_s: f64) {
        let mut far = self.far.lock().unwrap_or_else(PoisonError::into_inner);
        *far = Far { text, done_s, all_s, at: Instant::now(), piece_s };
    }

    /// Prints a line above the bar.
    pub(super) fn line(&self, text: &str) {
        if self.bar.is_hidden() { eprintln!("{text}") } else { self.bar.println(text) }
    }

    /// Does something and ticks meanwhile.
    pub(super) fn during<T>(&self, work: impl FnOnce() -> T) -> T {
        /// Even a panic ends the ticking: the scope would wait for it for ever.
        struct Over<'t>(&'t AtomicBool);
        impl Drop for Over<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        std::thread::scope(|scope| {
            scope.spawn(|| self.tick());
            let over = Over(&self.over);
            let outcome = work();
            drop(over);
            outcome
        })
    }

    fn tick(&self) {
        let mut said = self.began;
        while !self.over.load(Ordering::Relaxed) {
            let far = self.far.lock().unwrap_or_else(PoisonError::into_inner).clone();
            // What is under way is known to be over only when it is.
            let done_s = far.done_s + far.at.elapsed().as_secs_f64().min(far.piece_s * 0.95);
            let share = if far.all_s > 0.0 { (done_s / far.all_s).clamp(0.0, 1.0) } else { 0.0 };
            self.bar.set_position((share * 1000.0) as u64);
            let elapsed_s = self.began.elapsed().as_secs_f64();
            // As it was expected, until enough is done to tell better.
            let left_s = if share > 0.05 { elapsed_s * (1.0 - share) / share } else { far.all_s - done_s };
            let text = format!("{}, {} left", far.text, span(left_s.max(0.0)));
            if self.bar.is_hidden() {
                if said.elapsed() > LINE_EVERY {
                    said = Instant::now();
                    eprintln!("{text}");
                }
            } else {
                self.bar.set_message(text);
                self.bar.tick();
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_said_as_people_say_them() {
        let said = [0.3, 12.0, 720.0, 108_720.0, 1e7].map(span);
        assert_eq!(said, ["less than a second", "about 12 s", "about 12 min", "about 30 h", "about 116 days"]);
    }

    #[test]
    fn what_is_long_is_not_begun_without_an_answer() {
        // Tests have no terminal.
        assert!(announce("x", 3000.0, "make it shorter", false).is_ok() && announce("x", 1e6, "", true).is_ok());
        if !std::io::stdin().is_terminal() {
            let error = announce("300 runs", 108_720.0, "--unit-s 0.001 makes it 36 min", false).unwrap_err().to_string();
            assert_eq!(error, "it would take about 30 h: --unit-s 0.001 makes it 36 min; or agree to it with --yes");
        }
    }
}
