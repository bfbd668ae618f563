//! What an engine writes: replies to requests, and what it publishes beside them, in the form of ipykernel's.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::engine::{Channel, Engine};
use super::work::Done;
use super::{PeerError, RemoteError};
use crate::Envelope;
use crate::date::Date;
use crate::net::{Clock, Frame};
use crate::wire::{self, ErrorContent, Header};

impl Engine {
    /// Replies with what came of a request, behind its output.
    pub(super) fn answer(&mut self, done: Done) -> Result<(), PeerError> {
        let Done { request, started, outcome, output } = done;
        for (name, text) in output.into_iter().filter(|(_, text)| !text.is_empty()) {
            self.publish(&request, name, "stream", &json!({"name": name, "text": text}))?;
        }
        let header = Header::parse(request.header());
        let msg_type = header.as_ref().map_or("apply_request", |header| &*header.msg_type);
        let reply_type = reply_type(msg_type);
        let status = if outcome.is_ok() { "ok" } else { "error" };
        let mut metadata = self.metadata(&request, started, status);
        let (content, result) = match outcome {
            Ok(result) if msg_type == "execute_request" => {
                drop(result);
                (json!({"status": "ok", "execution_count": 0, "user_expressions": {}, "payload": []}).to_string(), None)
            }
            Ok(result) => (json!({"status": "ok"}).to_string(), Some(result)),
            Err(error) => {
                metadata.insert("engine_info".into(), self.engine_info(msg_type));
                (self.error_content(error, msg_type).to_string(), None)
            }
        };
        self.send_reply(&request, &reply_type, metadata, content.into_bytes(), result)?;
        self.publish_status(&request, "idle")
    }

    fn metadata(&self, request: &Envelope, started: Date, status: &str) -> Map<String, Value> {
        let asked: Value = wire::object(request.metadata()).unwrap_or_default();
        let mut metadata = Map::new();
        metadata.insert("started".into(), json!(started));
        metadata.insert("dependencies_met".into(), json!(true));
        metadata.insert("engine".into(), json!(self.uuid));
        metadata.insert("is_broadcast".into(), json!(asked["is_broadcast"] == true));
        metadata.insert("is_coalescing".into(), json!(asked["is_coalescing"] == true));
        metadata.insert("original_msg_id".into(), json!(asked["original_msg_id"].as_str().unwrap_or_default()));
        metadata.insert("label".into(), asked["label"].clone());
        metadata.insert("status".into(), json!(status));
        metadata
    }

    fn send_reply(
        &mut self,
        request: &Envelope,
        reply_type: &str,
        metadata: Map<String, Value>,
        content: Vec<u8>,
        result: Option<Bytes>,
    ) -> Result<(), PeerError> {
        let metadata = Value::Object(metadata).to_string().into_bytes();
        let parts = self.session.compose(reply_type, Clock::date(), request.header(), &metadata, content);
        let identities = (0..request.identity_count()).map(|index| request.identity(index));
        let mut frames: Vec<Frame> = identities.chain(parts.iter().map(Vec::as_slice)).map(Frame::copy_of).collect();
        frames.extend(result.map(Frame::of_bytes));
        Ok(self.shell.send(&mut frames)?)
    }

    /// Says that a request was dropped before it began.
    pub(super) fn reply_aborted(&mut self, request: &Envelope, msg_type: &str) -> Result<(), PeerError> {
        self.publish_status(request, "busy")?;
        let metadata = self.metadata(request, Clock::date(), "aborted");
        let content = json!({"status": "aborted"}).to_string().into_bytes();
        self.send_reply(request, &reply_type(msg_type), metadata, content, None)?;
        self.publish_status(request, "idle")
    }

    /// Says what this engine is, as kernels do (jupyter_client: messaging).
    pub(super) fn reply_kernel_info(&mut self, request: &Envelope, channel: Channel) -> Result<(), PeerError> {
        let version = env!("CARGO_PKG_VERSION");
        let content = json!({
            "status": "ok",
            "protocol_version": wire::VERSION,
            "implementation": "pointsman",
            "implementation_version": version,
            "language_info": {
                "name": "sh",
                "version": "",
                "mimetype": "text/x-sh",
                "file_extension": ".sh",
                "pygments_lexer": "bash",
                "codemirror_mode": "shell",
                "nbconvert_exporter": "script",
            },
            "banner": format!("Pointsman {version}: a native engine, which runs shell commands and named functions"),
            "help_links": [],
            "supported_features": [],
        });
        self.reply_plainly(request, channel, "kernel_info_request", &content)
    }

    pub(super) fn reply_control(&mut self, request: &Envelope, msg_type: &str, content: &Value) -> Result<(), PeerError> {
        self.reply_plainly(request, Channel::Control, msg_type, content)
    }

    /// A reply to something that is not work: its metadata is who answers.
    fn reply_plainly(&mut self, request: &Envelope, channel: Channel, msg_type: &str, content: &Value) -> Result<(), PeerError> {
        let metadata = json!({"engine": self.uuid}).to_string().into_bytes();
        let content = content.to_string().into_bytes();
        let parts = self.session.compose(&reply_type(msg_type), Clock::date(), request.header(), &metadata, content);
        let identities = (0..request.identity_count()).map(|index| request.identity(index));
        let port = match channel {
            Channel::Shell => &self.shell,
            Channel::Control => &self.control,
        };
        Ok(port.send_parts(identities.chain(parts.iter().map(Vec::as_slice)))?)
    }

    /// The content of a reply that says why not, and which engine says so.
    pub(super) fn error_content(&self, error: RemoteError, msg_type: &str) -> Value {
        let content = ErrorContent::new(error.ename, error.evalue).to_json();
        let mut content: Value = serde_json::from_slice(&content).unwrap_or_default();
        content["engine_info"] = self.engine_info(msg_type);
        content
    }

    fn engine_info(&self, msg_type: &str) -> Value {
        let method = msg_type.strip_suffix("_request").unwrap_or(msg_type);
        json!({"engine_uuid": self.uuid, "engine_id": self.number, "method": method})
    }

    /// Tells whoever has subscribed to its output that they will get it (as ipykernel does).
    pub(super) fn welcome(&mut self) -> Result<(), PeerError> {
        let content = json!({"subscription": ""}).to_string().into_bytes();
        let parts = self.session.compose("iopub_welcome", Clock::date(), b"{}", b"{}", content);
        Ok(self.iopub.send_parts(parts.iter().map(Vec::as_slice))?)
    }

    /// Publishes the state of a request, unless its client said that it does not care.
    pub(super) fn publish_status(&mut self, request: &Envelope, state: &str) -> Result<(), PeerError> {
        self.publish(request, "status", "status", &json!({"execution_state": state}))
    }

    /// Publishes something about a request under a topic of this engine's.
    pub(super) fn publish(&mut self, request: &Envelope, topic: &str, msg_type: &str, content: &Value) -> Result<(), PeerError> {
        #[derive(Default, Deserialize)]
        struct Asked {
            #[serde(default)]
            quiet: bool,
        }
        if msg_type == "status" && wire::object::<Asked>(request.metadata()).unwrap_or_default().quiet {
            return Ok(());
        }
        let metadata = json!({"engine": self.uuid}).to_string().into_bytes();
        let content = content.to_string().into_bytes();
        let parts = self.session.compose(msg_type, Clock::date(), request.header(), &metadata, content);
        let topic = format!("engine.{}.{topic}", self.number);
        let parts = std::iter::once(topic.as_bytes()).chain(parts.iter().map(Vec::as_slice));
        Ok(self.iopub.send_parts(parts)?)
    }
}

fn reply_type(request_type: &str) -> String {
    let stem = request_type.rsplit_once('_').map_or(request_type, |(stem, _)| stem);
    format!("{stem}_reply")
}
