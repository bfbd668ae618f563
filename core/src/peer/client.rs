//! A client: asks the hub, submits tasks, receives their replies. One thread, no callbacks: replies are taken when wanted.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use super::task::{Call, TaskRequest};
use super::{PeerError, RemoteError, connect, language};
use crate::connection_file::ClientFile;
use crate::net::{Clock, Frame, FrameBuf, Port, PortError, fresh_id};
use crate::wire::{self, Header, Parent, ReplyMetadata, Status};
use crate::{Envelope, Session, Signer};

/// A reply to a task or a direct request.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The id that submitting returned.
    pub msg_id: String,
    /// Uuid of the engine that ran it; empty if none did.
    pub engine: String,
    /// When it began there, ISO 8601; empty if it did not.
    pub started: String,
    /// When the reply was written, ISO 8601.
    pub completed: String,
    /// What it returned, or why it did not.
    pub outcome: Result<Bytes, RemoteError>,
}

/// A connection to a controller.
#[derive(Debug)]
pub struct Client {
    query: Port,
    task: Port,
    mux: Port,
    control: Port,
    notifications: Port,
    session: Session,
    engines: BTreeMap<u64, String>,
    replies: VecDeque<Reply>,
    buffer: FrameBuf,
    clock: Clock,
}

impl Client {
    /// Connects, and waits for the hub's first answer.
    ///
    /// # Errors
    /// If nobody answers within `timeout`, or the file says another packer or signature scheme than JSON and HMAC-SHA256.
    pub fn connect(context: &zmq::Context, file: &ClientFile, timeout: Duration) -> Result<Client, PeerError> {
        let session = Session::new(Signer::new(file.common.key.as_bytes()), fresh_id(), "pointsman", std::process::id())
            .packed_by(language(&file.common)?);
        let dealer = |port: u16| connect(context, zmq::DEALER, b"", &file.common, port).map(Port::from);
        let notifications = connect(context, zmq::SUB, b"", &file.common, file.notification)?;
        notifications.set_subscribe(b"")?;
        let mut client = Client {
            query: dealer(file.common.registration)?,
            task: dealer(file.common.task)?,
            mux: dealer(file.common.mux)?,
            control: dealer(file.common.control)?,
            notifications: notifications.into(),
            session,
            engines: BTreeMap::new(),
            replies: VecDeque::new(),
            buffer: FrameBuf::default(),
            clock: Clock::default(),
        };
        let reply = client.ask("connection_request", &json!({}), timeout)?;
        client.load_engines(&reply);
        Ok(client)
    }

    fn load_engines(&mut self, reply: &Value) {
        let engines = reply["engines"].as_object().into_iter().flatten();
        let pairs = engines.filter_map(|(number, uuid)| Some((number.parse().ok()?, uuid.as_str()?.to_owned())));
        self.engines = pairs.collect();
    }

    /// Engines by number, with their uuids, as far as notifications have told.
    pub fn engines(&mut self) -> Result<&BTreeMap<u64, String>, PeerError> {
        self.read_notifications()?;
        Ok(&self.engines)
    }

    /// Waits until at least `count` engines are there.
    ///
    /// # Errors
    /// If they are not within `timeout`.
    pub fn wait_for_engines(&mut self, count: usize, timeout: Duration) -> Result<(), PeerError> {
        let deadline = self.clock.now() + timeout;
        loop {
            self.read_notifications()?;
            if self.engines.len() >= count {
                return Ok(());
            }
            let left = deadline.saturating_sub(self.clock.now());
            if left.is_zero() {
                return Err(PeerError::Timeout(format!("waiting for {count} engines ({} there)", self.engines.len())));
            }
            poll(&self.notifications, left.min(Duration::from_millis(500)))?;
            let reply = self.ask("connection_request", &json!({}), left)?;
            self.load_engines(&reply);
        }
    }

    fn read_notifications(&mut self) -> Result<(), PeerError> {
        while let Some(envelope) = self.receive(Channel::Notifications)? {
            let Ok(header) = Header::parse(envelope.header()) else { continue };
            let content: Value = wire::object(envelope.content()).unwrap_or_default();
            let (Some(number), Some(uuid)) = (content["id"].as_u64(), content["uuid"].as_str()) else { continue };
            match &*header.msg_type {
                "registration_notification" => {
                    self.engines.insert(number, uuid.to_owned());
                }
                "unregistration_notification" => {
                    self.engines.remove(&number);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Asks the hub and returns the content of its answer.
    ///
    /// # Errors
    /// If it does not answer in time, or with an error.
    pub fn ask(&mut self, msg_type: &str, content: &Value, timeout: Duration) -> Result<Value, PeerError> {
        let (id, header) = self.session.header(msg_type, Clock::date());
        let parts = self.session.compose_under(header, b"{}", b"{}", content.to_string().into_bytes());
        self.query.send_parts(parts.iter().map(Vec::as_slice))?;
        let deadline = self.clock.now() + timeout;
        loop {
            while let Some(envelope) = self.receive(Channel::Query)? {
                let parent: Parent<'_> = wire::object(envelope.parent()).unwrap_or_default();
                if parent.msg_id.as_deref() != Some(&id) {
                    continue; // a late answer to an earlier question
                }
                let content: Value =
                    wire::object(envelope.content()).map_err(|error| PeerError::Unreadable(format!("{msg_type}: {error}")))?;
                if content["status"] != "ok" {
                    return Err(PeerError::Refused(serde_json::from_value(content).unwrap_or_default()));
                }
                return Ok(content);
            }
            let left = deadline.saturating_sub(self.clock.now());
            if left.is_zero() {
                return Err(PeerError::Timeout(msg_type.to_owned()));
            }
            poll(&self.query, left)?;
        }
    }

    /// Submits a task and returns its id. Its reply comes from [`next_reply`](Self::next_reply), in whatever order tasks end.
    ///
    /// # Errors
    /// If the socket fails.
    pub fn submit(&mut self, task: &TaskRequest) -> Result<String, PeerError> {
        self.send_apply(None, task)
    }

    /// Sends a request directly to an engine, past the task scheduler.
    ///
    /// # Errors
    /// If the socket fails.
    pub fn send_to(&mut self, engine_uuid: &str, call: Call, argument: impl Into<Bytes>) -> Result<String, PeerError> {
        self.send_apply(Some(engine_uuid), &TaskRequest::new(call, argument))
    }

    fn send_apply(&mut self, engine: Option<&str>, task: &TaskRequest) -> Result<String, PeerError> {
        let (id, header) = self.session.header("apply_request", Clock::date());
        let parts = self.session.compose_under(header, b"{}", &task.metadata(), b"{}".to_vec());
        let call = serde_json::to_vec(&task.call).unwrap_or_default();
        let identity = engine.map(str::as_bytes);
        let mut frames: smallvec::SmallVec<[Frame; 12]> =
            identity.into_iter().chain(parts.iter().map(Vec::as_slice)).map(Frame::copy_of).collect();
        frames.push(Frame::copy_of(&call));
        frames.push(Frame::of_bytes(task.argument.clone()));
        let port = if engine.is_some() { &self.mux } else { &self.task };
        port.send(&mut frames)?;
        Ok(id)
    }

    /// The next reply to a task or direct request, if one comes within `timeout`.
    ///
    /// # Errors
    /// If the socket fails.
    pub fn next_reply(&mut self, timeout: Duration) -> Result<Option<Reply>, PeerError> {
        if let Some(reply) = self.replies.pop_front() {
            return Ok(Some(reply));
        }
        for channel in [Channel::Task, Channel::Mux] {
            // A bounded batch: whoever wants one reply does not wait for a thousand.
            for _ in 0..64 {
                let Some(envelope) = self.receive(channel)? else { break };
                self.replies.extend(read_reply(&envelope));
            }
        }
        if self.replies.is_empty() && !timeout.is_zero() {
            let mut items = [self.task.socket().as_poll_item(zmq::POLLIN), self.mux.socket().as_poll_item(zmq::POLLIN)];
            match zmq::poll(&mut items, timeout.as_millis() as i64 + 1) {
                Ok(0) => return Ok(None),
                Ok(_) | Err(zmq::Error::EINTR) => return self.next_reply(Duration::ZERO),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(self.replies.pop_front())
    }

    /// Asks engines to end, by uuid, over the control channel. They say goodbye to the hub themselves.
    ///
    /// # Errors
    /// If the socket fails.
    pub fn shutdown_engines(&mut self, uuids: &[String]) -> Result<(), PeerError> {
        for uuid in uuids {
            let content = json!({"restart": false}).to_string().into_bytes();
            let parts = self.session.compose("shutdown_request", Clock::date(), b"{}", b"{}", content);
            self.control.send_parts(std::iter::once(uuid.as_bytes()).chain(parts.iter().map(Vec::as_slice)))?;
        }
        Ok(())
    }

    /// Asks the controller to end.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn shutdown_controller(&mut self, timeout: Duration) -> Result<(), PeerError> {
        self.ask("shutdown_request", &json!({}), timeout).map(drop)
    }

    fn receive(&mut self, channel: Channel) -> Result<Option<Envelope>, PeerError> {
        let port = match channel {
            Channel::Query => &self.query,
            Channel::Task => &self.task,
            Channel::Mux => &self.mux,
            Channel::Notifications => &self.notifications,
        };
        loop {
            match port.receive(&mut self.buffer) {
                Ok(()) => {}
                Err(PortError::NotNow) => return Ok(None),
                Err(PortError::TooManyFrames) => continue,
                Err(error) => return Err(error.into()),
            }
            // Whatever is not genuine is nobody's answer.
            let Ok(envelope) = Envelope::open(Arc::new(self.buffer.pack())) else { continue };
            if self.session.signer().verify(envelope.signature(), envelope.parts()).is_ok()
                && let Ok(envelope) = self.session.packer().message_as_json(&envelope)
            {
                return Ok(Some(envelope.into_owned()));
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Channel {
    Query,
    Task,
    Mux,
    Notifications,
}

fn poll(port: &Port, timeout: Duration) -> Result<(), PeerError> {
    match port.socket().poll(zmq::POLLIN, timeout.as_millis() as i64 + 1) {
        Ok(_) | Err(zmq::Error::EINTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn read_reply(envelope: &Envelope) -> Option<Reply> {
    let header = Header::parse(envelope.header()).ok()?;
    let parent: Parent<'_> = wire::object(envelope.parent()).ok()?;
    let metadata: ReplyMetadata<'_> = wire::object(envelope.metadata()).unwrap_or_default();
    let outcome = match wire::reply_status(crate::Packer::Json, &metadata, envelope.content()) {
        Status::Ok => Ok(envelope.buffers().next().unwrap_or_default()),
        Status::Aborted => Err(RemoteError { ename: "TaskAborted".into(), evalue: String::new() }),
        Status::Error => Err(wire::object(envelope.content()).unwrap_or_default()),
    };
    Some(Reply {
        msg_id: parent.msg_id?.into_owned(),
        engine: metadata.engine.unwrap_or_default().into_owned(),
        started: metadata.started.unwrap_or_default().into_owned(),
        completed: header.date.unwrap_or_default().into_owned(),
        outcome,
    })
}
