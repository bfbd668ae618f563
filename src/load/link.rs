//! One connection of a peer that does without libzmq: a TCP stream, what has been read of it, and what it has yet to take.
//! Nothing here waits; whoever drives it polls.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, ToSocketAddrs as _};

use anyhow::{Context as _, bail};
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use pointsman_core::Packer;
use pointsman_core::connection_file::Common;
use pointsman_core::zmtp::{Decoder, Message, hello, push_message};

/// Bytes read at once.
const READ_BYTES: usize = 64 << 10;
/// No message may be longer.
const MAX_MESSAGE_BYTES: usize = 2 << 30;

/// A connection.
pub(super) struct Link {
    stream: TcpStream,
    /// What has been read.
    pub(super) inbox: Decoder,
    /// What has yet to be written of the handshake.
    greeting: Vec<u8>,
    /// What is to be written behind it, messages one after the other.
    pub(super) outbox: Vec<u8>,
    written: usize,
}

impl Link {
    /// Begins to connect, as a socket of this type with this identity.
    pub(super) fn connect(to: SocketAddr, kind: &str, identity: &str, registry: &Registry, token: Token) -> io::Result<Link> {
        let mut stream = TcpStream::connect(to)?;
        stream.set_nodelay(true)?;
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Link {
            stream,
            inbox: Decoder::new(MAX_MESSAGE_BYTES),
            greeting: hello(kind, identity.as_bytes()),
            outbox: Vec::new(),
            written: 0,
        })
    }

    /// Adds a message to what is to be written.
    pub(super) fn push<'f>(&mut self, frames: impl IntoIterator<Item = &'f [u8]>) {
        push_message(&mut self.outbox, frames);
    }

    /// Reads what is there, a bounded piece of it; whether there may be more. A piece that does not fill the room was the last: what comes
    /// after it makes the stream readable anew.
    fn read(&mut self) -> io::Result<bool> {
        loop {
            let room = self.inbox.room(READ_BYTES);
            let len = room.len();
            match self.stream.read(room) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(bytes) => {
                    self.inbox.filled(bytes);
                    return Ok(bytes == len);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if is_not_yet(&error) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }

    /// Hands over each message that is there, with what is to be written, then writes as much as the stream takes.
    ///
    /// # Errors
    /// If the connection has ended, the peer does not speak ZMTP, or `see` fails.
    pub(super) fn each(&mut self, mut see: impl FnMut(&Message<'_>, &mut Vec<u8>) -> anyhow::Result<()>) -> anyhow::Result<()> {
        loop {
            let more = self.read()?;
            while let Some(message) = self.inbox.next_message()? {
                see(&message, &mut self.outbox)?;
            }
            if !more {
                return Ok(self.flush()?);
            }
        }
    }

    /// Writes as much as the stream takes. What is left goes when it becomes writable.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        while !self.greeting.is_empty() {
            match write(&mut self.stream, &self.greeting)? {
                Some(bytes) => drop(self.greeting.drain(..bytes)),
                None => return Ok(()),
            }
        }
        if !self.inbox.is_ready() {
            return Ok(());
        }
        while self.written < self.outbox.len() {
            match write(&mut self.stream, &self.outbox[self.written..])? {
                Some(bytes) => self.written += bytes,
                None => {
                    // What has gone is forgotten now and then, so that a long backlog is not moved for each piece.
                    if self.written > self.outbox.len() / 2 {
                        self.outbox.drain(..std::mem::take(&mut self.written));
                    }
                    return Ok(());
                }
            }
        }
        self.outbox.clear();
        self.written = 0;
        Ok(())
    }

    /// Bytes that the stream has yet to take.
    pub(super) fn backlog_bytes(&self) -> usize {
        self.outbox.len() - self.written
    }
}

/// Writes a piece; nothing if the stream takes none now.
fn write(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<Option<usize>> {
    loop {
        match stream.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => return Ok(Some(written)),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if is_not_yet(&error) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
}

fn is_not_yet(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected)
}

/// The address of one of a controller's ports.
pub(super) fn address(file: &Common, port: u16) -> anyhow::Result<SocketAddr> {
    if file.curve_serverkey.is_some() {
        bail!("the controller encrypts with CURVE, which the load's own peers do not speak: measure one without");
    }
    if !matches!(Packer::of_name(&file.pack), Ok(Packer::Json)) {
        bail!(
            "the controller's messages are packed as {}, and the load's own peers speak JSON only: measure one without",
            file.pack
        );
    }
    let url = file.url(port);
    let Some(host) = url.strip_prefix("tcp://") else { bail!("{url}: the load's own peers speak TCP only") };
    host.to_socket_addrs().with_context(|| url.clone())?.next().with_context(|| format!("{url} has no address"))
}
