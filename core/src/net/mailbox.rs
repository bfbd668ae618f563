//! A bounded queue from many threads to one that polls sockets: the receiver gets a file descriptor to poll beside them.
//! A full mailbox gives back or drops and says so to the sender, which counts it where it can be read; a sender never waits.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[derive(Debug)]
struct Shared<T> {
    state: Mutex<State<T>>,
    doorbell: UnixStream,
    max_items: usize,
    max_bytes: usize,
    /// Something is in it, and a byte in the doorbell. Changed under the lock only; read without it, to spare the receiver that while nothing is.
    rung: AtomicBool,
}

#[derive(Debug)]
struct State<T> {
    items: VecDeque<(T, usize)>,
    bytes: usize,
    closed: bool,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // Every critical section leaves the state whole, so a poisoned lock is still good.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an item fits into so many times the limits. One larger than the whole mailbox still fits into an empty one.
    fn admits(&self, state: &State<T>, bytes: usize, times: usize) -> bool {
        let is_full = state.items.len() >= self.max_items.saturating_mul(times)
            || state.bytes.saturating_add(bytes) > self.max_bytes.saturating_mul(times);
        !state.closed && (!is_full || state.items.is_empty())
    }

    fn push(&self, state: &mut State<T>, item: T, bytes: usize) {
        state.items.push_back((item, bytes));
        state.bytes += bytes;
        if !self.rung.swap(true, Ordering::AcqRel) {
            let _ = (&self.doorbell).write(&[1]); // one byte always fits: it is only written when none is there
        }
    }
}

/// The receiving end.
#[derive(Debug)]
pub struct Mailbox<T> {
    shared: Arc<Shared<T>>,
    bell: UnixStream,
}

/// What became of an item that may be shortened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It was sent as it is.
    Whole,
    /// What could be spared was left out.
    Shed,
    /// It was dropped; whoever sent it counts it.
    Lost,
}

/// A sending end; clones send to the same mailbox.
#[derive(Debug)]
pub struct Outbox<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Clone for Outbox<T> {
    fn clone(&self) -> Self {
        Outbox { shared: self.shared.clone() }
    }
}

impl<T> Mailbox<T> {
    /// A mailbox that holds at most `max_items` of together at most `max_bytes`, as the senders state them.
    ///
    /// # Errors
    /// If the process has no file descriptors left.
    pub fn new(max_items: usize, max_bytes: usize) -> io::Result<(Outbox<T>, Mailbox<T>)> {
        let (doorbell, bell) = UnixStream::pair()?;
        doorbell.set_nonblocking(true)?;
        bell.set_nonblocking(true)?;
        let state = Mutex::new(State { items: VecDeque::new(), bytes: 0, closed: false });
        let shared = Arc::new(Shared { state, doorbell, max_items, max_bytes, rung: AtomicBool::new(false) });
        Ok((Outbox { shared: shared.clone() }, Mailbox { shared, bell }))
    }

    /// Readable while there is something to take; for those who poll by libzmq. It is closed with the mailbox.
    pub fn fd(&self) -> RawFd {
        self.bell.as_raw_fd()
    }

    /// Moves at most `max` items to `into`, oldest first.
    pub fn take(&self, max: usize, into: &mut Vec<T>) {
        if !self.shared.rung.load(Ordering::Acquire) {
            return;
        }
        let mut state = self.shared.lock();
        let count = max.min(state.items.len());
        for _ in 0..count {
            if let Some((item, bytes)) = state.items.pop_front() {
                state.bytes -= bytes;
                into.push(item);
            }
        }
        if state.items.is_empty() && self.shared.rung.swap(false, Ordering::AcqRel) {
            let _ = (&self.bell).read(&mut [0; 8]); // nothing to read is as good
        }
    }

    /// Items waiting.
    pub fn len(&self) -> usize {
        self.shared.lock().items.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T> AsFd for Mailbox<T> {
    /// Readable while there is something to take.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

impl<T> Drop for Mailbox<T> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.closed = true;
        state.items.clear();
    }
}

impl<T> Outbox<T> {
    /// Sends an item that stands for `bytes`. False if the mailbox is full or its owner gone: the item is dropped, which is for the caller to
    /// say.
    pub fn send(&self, item: T, bytes: usize) -> bool {
        self.try_send(item, bytes, 1).is_ok()
    }

    /// Sends an item whole, or, if the mailbox is full, what `shed` leaves of it and for how many bytes that stands, within twice the limits.
    #[must_use = "what was dropped is to be counted"]
    pub fn send_or_shed(&self, item: T, bytes: usize, shed: impl FnOnce(T) -> (T, usize)) -> Taken {
        let Err(item) = self.try_send(item, bytes, 1) else { return Taken::Whole };
        let (item, bytes) = shed(item);
        if self.try_send(item, bytes, 2).is_ok() { Taken::Shed } else { Taken::Lost }
    }

    /// Sends an item within so many times the limits, or gives it back.
    fn try_send(&self, item: T, bytes: usize, times: usize) -> Result<(), T> {
        let mut state = self.shared.lock();
        if !self.shared.admits(&state, bytes, times) {
            return Err(item);
        }
        self.shared.push(&mut state, item, bytes);
        Ok(())
    }

    /// Sends an item that must not be lost whatever else waits: orders, and news that come one by one. No limit applies.
    pub fn send_always(&self, item: T) -> bool {
        let mut state = self.shared.lock();
        if state.closed {
            return false;
        }
        self.shared.push(&mut state, item, 0);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_mailbox_refuses_and_says_so() {
        let (outbox, mailbox) = Mailbox::new(2, 10).unwrap();
        assert!(outbox.send(1, 100)); // larger than all, but the mailbox is empty
        assert!(!outbox.send(2, 1));
        let mut got = Vec::new();
        mailbox.take(9, &mut got);
        assert!(outbox.send(3, 5) && outbox.send(4, 5) && !outbox.send(5, 0));
        mailbox.take(1, &mut got);
        assert_eq!((got.as_slice(), mailbox.len()), (&[1, 3][..], 1));
        drop(mailbox);
        assert!(!outbox.send(6, 0));
    }

    #[test]
    fn the_bell_rings_exactly_while_something_waits() {
        let (outbox, mailbox) = Mailbox::new(10, 10).unwrap();
        let readable = || zmq::poll(&mut [zmq::PollItem::from_fd(mailbox.fd(), zmq::POLLIN)], 0).unwrap() == 1;
        assert!(!readable());
        outbox.send((), 0);
        outbox.send((), 0);
        assert!(readable());
        mailbox.take(1, &mut Vec::new());
        assert!(readable());
        mailbox.take(1, &mut Vec::new());
        assert!(!readable());
    }
}
