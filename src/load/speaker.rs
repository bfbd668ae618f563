//! Messages of the load's peers, written straight into what goes to the wire: a peer that took longer over a message than the controller
//! would measure itself.

use std::io::Write as _;
use std::time::Duration;

use pointsman_core::net::Clock;
use pointsman_core::zmtp::push_frame;
use pointsman_core::{DELIMITER, Signer};

/// Dates are this exact where nobody asks for more.
const DATE_EVERY: Duration = Duration::from_micros(100);

/// One party, with its memory for composing.
pub(super) struct Speaker {
    signer: Signer,
    session: String,
    /// What the ids of its messages begin with.
    prefix: String,
    date: String,
    date_at: Option<Duration>,
    header: Vec<u8>,
}

impl Speaker {
    pub(super) fn new(signer: Signer, session: String) -> Speaker {
        let prefix = format!("{session}_{}_", std::process::id());
        Speaker { signer, session, prefix, date: String::new(), date_at: None, header: Vec::new() }
    }

    pub(super) fn signer(&self) -> &Signer {
        &self.signer
    }

    /// The id of its message of a number.
    pub(super) fn id(&self, number: u64) -> String {
        format!("{}{number}", self.prefix)
    }

    /// The number of its message of an id.
    pub(super) fn number(&self, id: &str) -> Option<u64> {
        id.strip_prefix(&self.prefix)?.parse().ok()
    }

    /// The date, as of a moment ago; never before one that it has given.
    pub(super) fn date(&mut self, now: Duration) -> &str {
        if self.date_at.is_none_or(|at| now >= at + DATE_EVERY) {
            self.set_date(now);
        }
        &self.date
    }

    /// The date to the microsecond. What is said until the next moment bears it too.
    pub(super) fn exact_date(&mut self, now: Duration) -> &str {
        self.set_date(now);
        &self.date
    }

    fn set_date(&mut self, now: Duration) {
        self.date_at = Some(now);
        self.date.clear();
        let _ = std::fmt::Write::write_fmt(&mut self.date, format_args!("{}", Clock::date())); // memory takes everything
    }

    /// Adds a message behind what may stand before the delimiter: number and type, parent header, metadata, content, buffers.
    pub(super) fn say<'b>(
        &mut self,
        out: &mut Vec<u8>,
        now: Duration,
        (number, msg_type): (u64, &str),
        [parent, metadata, content]: [&[u8]; 3],
        buffers: impl IntoIterator<Item = &'b [u8]>,
    ) {
        self.date(now);
        self.header.clear();
        // Writing to memory does not fail; none of these words has anything to escape.
        let _ = write!(
            self.header,
            r#"{{"msg_id":"{}{number}","msg_type":"{msg_type}","username":"load","session":"{}","date":"{}","version":"5.4"}}"#,
            self.prefix, self.session, self.date
        );
        let signature = self.signer.sign([&self.header, parent, metadata, content]);
        push_frame(out, DELIMITER, true);
        for part in [&signature[..], &self.header, parent, metadata] {
            push_frame(out, part, true);
        }
        let mut buffers = buffers.into_iter().peekable();
        push_frame(out, content, buffers.peek().is_some());
        while let Some(buffer) = buffers.next() {
            push_frame(out, buffer, buffers.peek().is_some());
        }
    }
}
