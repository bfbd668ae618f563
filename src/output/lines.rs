//! Lines on their way to a file, pipe or terminal, behind a bounded queue and a thread of their own: whoever logs never waits. A line for which
//! there is no room, and one that can not be written, is dropped and counted; when lines arrive again, one says how many are missing.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use pointsman_core::net::{Mailbox, Outbox};
use tracing_subscriber::fmt::MakeWriter;

/// What may wait to be written.
const BACKLOG: (usize, usize) = (8192, 1 << 20);
/// The longest line; the rest of a longer one is cut.
const MAX_LINE_BYTES: usize = 16 << 10;
/// How long the end may wait for what is on its way.
const PATIENCE: Duration = Duration::from_millis(1000);

enum Order {
    Line(Vec<u8>),
    Tell(SyncSender<()>),
}

/// The way to one file. Clones lead to the same.
#[derive(Clone)]
pub(crate) struct Lines {
    outbox: Outbox<Order>,
    lost: Arc<AtomicU64>,
    /// Somebody has waited in vain: nobody waits again.
    is_stuck: Arc<AtomicBool>,
}

impl Lines {
    /// Starts a thread that writes there; what is lost is counted in `lost`.
    ///
    /// # Errors
    /// If the process may have no thread or file descriptor more.
    pub(super) fn new(to: impl Write + Send + 'static, lost: Arc<AtomicU64>) -> io::Result<Lines> {
        let (outbox, mailbox) = Mailbox::new(BACKLOG.0, BACKLOG.1)?;
        let counter = lost.clone();
        std::thread::Builder::new().name("log".into()).spawn(move || write_all(to, &mailbox, &counter))?;
        Ok(Lines { outbox, lost, is_stuck: Arc::default() })
    }

    /// Sends a line on its way. Never waits; one allocation.
    pub(super) fn send(&self, line: &[u8]) {
        let mut line = line.to_vec();
        if line.len() > MAX_LINE_BYTES {
            line.truncate(MAX_LINE_BYTES - 1);
            line.push(b'\n');
        }
        let bytes = line.len();
        if !self.outbox.send(Order::Line(line), bytes) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until what was sent is written, for a second at most.
    pub(crate) fn flush(&self) {
        let (done, is_done) = sync_channel(1);
        if self.is_stuck.load(Ordering::Relaxed) || !self.outbox.send_always(Order::Tell(done)) {
            return;
        }
        if is_done.recv_timeout(PATIENCE).is_err() {
            self.is_stuck.store(true, Ordering::Relaxed);
        }
    }
}

fn write_all(mut to: impl Write, mailbox: &Mailbox<Order>, lost: &AtomicU64) {
    let (mut orders, mut told) = (Vec::new(), 0);
    loop {
        let _ = zmq::poll(&mut [zmq::PollItem::from_fd(mailbox.fd(), zmq::POLLIN)], -1);
        mailbox.take(64, &mut orders);
        for order in orders.drain(..) {
            let line = match order {
                Order::Line(line) => line,
                Order::Tell(done) => {
                    let _ = done.send(()); // whoever asked may have left
                    continue;
                }
            };
            let missing = lost.load(Ordering::Relaxed);
            if missing > told && writeln!(to, "({} log lines were lost here)", missing - told).is_ok() {
                told = missing;
            }
            if to.write_all(&line).and_then(|()| to.flush()).is_err() {
                lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// One line being written: what the formatter hands over at once.
pub(crate) struct OneLine<'l>(&'l Lines);

impl Write for OneLine<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.send(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'l> MakeWriter<'l> for Lines {
    type Writer = OneLine<'l>;

    fn make_writer(&'l self) -> OneLine<'l> {
        OneLine(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// A disk that is full while the flag says so.
    struct Disk(Arc<AtomicBool>, Arc<Mutex<Vec<u8>>>);

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.0.load(Ordering::SeqCst) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.1.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_that_can_not_be_written_are_counted_and_the_next_one_says_so() {
        let (is_full, text, lost) = (Arc::new(AtomicBool::new(false)), Arc::default(), Arc::default());
        let lines = Lines::new(Disk(is_full.clone(), Arc::clone(&text)), Arc::clone(&lost)).unwrap();
        for (full, line) in [(false, "a\n"), (true, "b\n"), (true, "c\n"), (false, "d\n"), (false, "e\n")] {
            is_full.store(full, Ordering::SeqCst);
            lines.send(line.as_bytes());
            lines.flush();
        }
        assert_eq!(String::from_utf8(text.lock().unwrap().clone()).unwrap(), "a\n(2 log lines were lost here)\nd\ne\n");
        assert_eq!(lost.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_reader_that_does_not_read_keeps_nobody_waiting_and_the_queue_within_its_bound() {
        let (unread, end) = std::os::unix::net::UnixStream::pair().unwrap();
        let lost = Arc::default();
        let lines = Lines::new(end, Arc::clone(&lost)).unwrap();
        for _ in 0..1000 {
            lines.send(&[b'x'; 64 << 10]);
        }
        // What is neither written nor waiting is lost: the socket's buffer, a batch in the writer's hands, and the queue hold the rest.
        let held = 1000 - lost.load(Ordering::Relaxed);
        assert!(held < 600, "{held} lines of 16 KiB are held");
        drop(unread);
    }
}
