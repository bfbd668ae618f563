//! The threads of a controller: each has a name and a way to be told to stop, and whichever ends first ends the whole.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::JoinHandle;
use std::time::Duration;

use pointsman_core::hub::CLOSE_WITHIN;
use pointsman_core::hub::driver::HubError;
use pointsman_core::net::{Clock, Mailbox, Outbox};

/// What brings a controller to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// A client asked for it, a signal came, or a [`Stopper`] was used.
    Asked,
    /// The same, and not all that happened could be written down; the reason says what and why.
    Incomplete(String),
    /// A part died; the reason names it.
    Died(String),
}

/// One event for the supervisor.
#[derive(Debug)]
pub(super) enum Part {
    /// A thread has ended, with what it said last.
    Ended { name: &'static str, reason: Result<(), Fault> },
    /// Somebody wants the whole to end.
    Stop,
}

/// Why a thread has ended other than well.
#[derive(Debug)]
pub(super) enum Fault {
    /// It did what it was to do, and lost something.
    Incomplete(String),
    /// It did not.
    Died(String),
}

impl Fault {
    fn of(error: &anyhow::Error) -> Fault {
        match error.downcast_ref::<HubError>() {
            Some(HubError::Unwritten { .. }) => Fault::Incomplete(format!("{error:#}")),
            _ => Fault::Died(format!("{error:#}")),
        }
    }
}

/// Stops a controller from another thread, or from a signal handler's.
#[derive(Clone, Debug)]
pub struct Stopper {
    outbox: Outbox<Part>,
}

impl Stopper {
    /// Asks for the end. Returns at once.
    pub fn stop(&self) {
        self.outbox.send_always(Part::Stop);
    }
}

type Stop = Box<dyn Fn() + Send>;

/// The threads.
pub(super) struct Crew {
    outbox: Outbox<Part>,
    mailbox: Mailbox<Part>,
    threads: Vec<(&'static str, JoinHandle<()>, Stop)>,
    main: Option<&'static str>,
    ended: usize,
}

/// How long threads may take to end before the process ends without them.
pub(super) const PATIENCE: Duration = Duration::from_secs(4);
// The hub's thread ends after the records', which may take their time: it must not be called late for that.
const _: () = assert!(PATIENCE.as_millis() >= CLOSE_WITHIN.as_millis() + 1000);

impl Crew {
    pub(super) fn new() -> std::io::Result<Self> {
        let (outbox, mailbox) = Mailbox::new(1024, usize::MAX)?;
        Ok(Crew { outbox, mailbox, threads: Vec::new(), main: None, ended: 0 })
    }

    pub(super) fn stopper(&self) -> Stopper {
        Stopper { outbox: self.outbox.clone() }
    }

    /// Starts a thread that is not meant to end by itself.
    pub(super) fn start(
        &mut self,
        name: &'static str,
        stop: Stop,
        body: impl FnOnce() -> anyhow::Result<()> + Send + 'static,
    ) -> std::io::Result<()> {
        let outbox = self.outbox.clone();
        let thread = std::thread::Builder::new().name(name.into()).spawn(move || {
            let reason = match catch_unwind(AssertUnwindSafe(body)) {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(Fault::of(&error)),
                Err(panic) => Err(Fault::Died(format!(
                    "panicked: {}",
                    panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied()).unwrap_or("?")
                ))),
            };
            outbox.send_always(Part::Ended { name, reason });
        })?;
        self.threads.push((name, thread, stop));
        Ok(())
    }

    /// Starts the thread whose good end is the controller's.
    pub(super) fn start_main(
        &mut self,
        name: &'static str,
        stop: Stop,
        body: impl FnOnce() -> anyhow::Result<()> + Send + 'static,
    ) -> std::io::Result<()> {
        self.main = Some(name);
        self.start(name, stop, body)
    }

    /// Waits until something brings the end.
    pub(super) fn wait(&mut self) -> Ending {
        let mut parts = Vec::new();
        loop {
            let _ = zmq::poll(&mut [zmq::PollItem::from_fd(self.mailbox.fd(), zmq::POLLIN)], -1);
            self.mailbox.take(1, &mut parts);
            match parts.pop() {
                None => {}
                Some(Part::Stop) => return Ending::Asked,
                Some(Part::Ended { name, reason }) => {
                    self.ended += 1;
                    return match reason {
                        Ok(()) if self.main == Some(name) => Ending::Asked,
                        Ok(()) => Ending::Died(format!("{name} ended without being asked to")),
                        Err(Fault::Incomplete(reason)) => Ending::Incomplete(reason),
                        Err(Fault::Died(reason)) => Ending::Died(format!("{name}: {reason}")),
                    };
                }
            }
        }
    }

    /// Tells every thread to stop and gives them a moment to; whether all did, and what could not be written down.
    pub(super) fn finish(&mut self) -> (bool, Option<String>) {
        let mut incomplete = None;
        for (_, _, stop) in &self.threads {
            stop();
        }
        let clock = Clock::default();
        let mut parts = Vec::new();
        while self.ended < self.threads.len() && clock.now() < PATIENCE {
            let left = (PATIENCE.saturating_sub(clock.now())).as_millis() as i64;
            let _ = zmq::poll(&mut [zmq::PollItem::from_fd(self.mailbox.fd(), zmq::POLLIN)], left + 1);
            self.mailbox.take(usize::MAX, &mut parts);
            for part in parts.drain(..) {
                if let Part::Ended { name, reason } = part {
                    self.ended += 1;
                    match reason {
                        Ok(()) => {}
                        Err(Fault::Incomplete(reason)) => incomplete = Some(reason),
                        Err(Fault::Died(reason)) => tracing::warn!("{name} while stopping: {reason}"),
                    }
                }
            }
        }
        if self.ended < self.threads.len() {
            let late: Vec<_> = self.threads.iter().filter(|thread| !thread.1.is_finished()).map(|thread| thread.0).collect();
            tracing::warn!("did not stop in time: {}", late.join(", "));
            if self.main.is_some_and(|main| late.contains(&main)) {
                incomplete.get_or_insert(
                    "it is not known what of the last task records is written: the store did not return".to_owned(),
                );
            }
        }
        (self.ended >= self.threads.len(), incomplete)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crew_of(name: &'static str, body: fn() -> anyhow::Result<()>) -> Ending {
        let mut crew = Crew::new().unwrap();
        crew.start(name, Box::new(|| {}), body).unwrap();
        let ending = crew.wait();
        assert_eq!(crew.finish(), (true, None));
        ending
    }

    #[test]
    fn a_dead_thread_is_the_end_with_a_reason() {
        assert_eq!(crew_of("mux", || panic!("no way")), Ending::Died("mux: panicked: no way".into()));
        assert_eq!(crew_of("mux", || anyhow::bail!("socket gone")), Ending::Died("mux: socket gone".into()));
        assert_eq!(crew_of("mux", || Ok(())), Ending::Died("mux ended without being asked to".into()));
    }

    #[test]
    fn what_could_not_be_written_down_is_known_whoever_asked_for_the_end() {
        let unwritten = || HubError::Unwritten { records: 7, why: ": disk full".into() };
        let text = "up to 7 task records are not written, or not in full: disk full".to_owned();
        let mut crew = Crew::new().unwrap();
        crew.start_main("hub", Box::new(|| {}), move || Err(unwritten().into())).unwrap();
        assert_eq!((crew.wait(), crew.finish()), (Ending::Incomplete(text.clone()), (true, None)), "a client");
        let mut crew = Crew::new().unwrap();
        let (stop, stopped) = std::sync::mpsc::channel();
        let end = move || {
            stopped.recv()?;
            Err(unwritten().into())
        };
        crew.start_main(
            "hub",
            Box::new(move || {
                let _ = stop.send(());
            }),
            end,
        )
        .unwrap();
        crew.stopper().stop();
        assert_eq!((crew.wait(), crew.finish()), (Ending::Asked, (true, Some(text))), "a signal");
    }

    #[test]
    fn a_good_end_of_the_main_thread_and_a_stop_are_asked_for() {
        let mut crew = Crew::new().unwrap();
        crew.start_main("hub", Box::new(|| {}), || Ok(())).unwrap();
        assert_eq!(crew.wait(), Ending::Asked);
        let mut crew = Crew::new().unwrap();
        crew.stopper().stop();
        assert_eq!(crew.wait(), Ending::Asked);
    }
}
