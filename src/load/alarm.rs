//! A timer that polls like a socket, to the microsecond: tasks of less than a millisecond would otherwise all take one.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime};

/// A timer.
pub(super) struct Alarm {
    timer: OwnedFd,
    /// When it rings, by its owner's clock.
    at: Option<Duration>,
}

impl Alarm {
    /// One that is not set, known by this token.
    pub(super) fn new(registry: &Registry, token: Token) -> std::io::Result<Alarm> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        registry.register(&mut SourceFd(&timer.as_raw_fd()), token, Interest::READABLE)?;
        Ok(Alarm { timer, at: None })
    }

    /// Lets it ring at a time, unless it will by then. A time that has come rings at once.
    pub(super) fn set(&mut self, now: Duration, at: Duration) -> std::io::Result<()> {
        if self.at.is_some_and(|set| set > now && set <= at) {
            return Ok(());
        }
        self.at = Some(at);
        let wait = at.saturating_sub(now).max(Duration::from_nanos(1)); // none at all would switch it off
        let value = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) };
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &Itimerspec { it_interval: zero, it_value: value })?;
        Ok(())
    }
}
