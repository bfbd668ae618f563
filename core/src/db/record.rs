//! One task's record: a value for each key, as the JSON it came in, so that what nobody asks for is never parsed.

use bytes::{Bytes, BytesMut};
use serde_json::Value;
use serde_json::value::RawValue;

/// The most output kept of one stream of one task, in bytes.
pub(super) const MAX_OUTPUT_BYTES: usize = 4 << 20;

/// The keys of a record (PROTOCOL: task records), in the order in which clients list them. Buffers stand apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[allow(missing_docs, reason = "each is the protocol's key of that name")]
pub enum Key {
    MsgId,
    Header,
    Metadata,
    Content,
    Submitted,
    ClientUuid,
    EngineUuid,
    Started,
    Completed,
    Resubmitted,
    Received,
    ResultHeader,
    ResultMetadata,
    ResultContent,
    Queue,
    ExecuteInput,
    ExecuteResult,
    Error,
    Stdout,
    Stderr,
    Label,
    DisplayData,
}

use Key::{
    ClientUuid, Completed, Content, DisplayData, EngineUuid, Error, ExecuteInput, ExecuteResult, Header, Label, Metadata, MsgId,
    Queue, Received, Resubmitted, ResultContent, ResultHeader, ResultMetadata, Started, Stderr, Stdout, Submitted,
};

impl Key {
    /// Every key.
    pub const ALL: [Key; 22] = [
        MsgId,
        Header,
        Metadata,
        Content,
        Submitted,
        ClientUuid,
        EngineUuid,
        Started,
        Completed,
        Resubmitted,
        Received,
        ResultHeader,
        ResultMetadata,
        ResultContent,
        Queue,
        ExecuteInput,
        ExecuteResult,
        Error,
        Stdout,
        Stderr,
        Label,
        DisplayData,
    ];

    /// The key as it is written.
    pub const fn name(self) -> &'static str {
        match self {
            MsgId => "msg_id",
            Header => "header",
            Metadata => "metadata",
            Content => "content",
            Submitted => "submitted",
            ClientUuid => "client_uuid",
            EngineUuid => "engine_uuid",
            Started => "started",
            Completed => "completed",
            Resubmitted => "resubmitted",
            Received => "received",
            ResultHeader => "result_header",
            ResultMetadata => "result_metadata",
            ResultContent => "result_content",
            Queue => "queue",
            ExecuteInput => "execute_input",
            ExecuteResult => "execute_result",
            Error => "error",
            Stdout => "stdout",
            Stderr => "stderr",
            Label => "label",
            DisplayData => "display_data",
        }
    }

    /// The key of a name.
    pub fn of(name: &str) -> Option<Key> {
        Key::ALL.into_iter().find(|key| key.name() == name)
    }
}

/// A record, or the part of it that was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// The task's id.
    pub id: String,
    fields: [Option<Bytes>; 22],
    /// The request's buffers.
    pub buffers: Vec<Bytes>,
    /// The result's buffers.
    pub result_buffers: Vec<Bytes>,
}

/// What an event adds to a record.
#[derive(Clone, Debug, Default)]
pub struct Patch {
    fields: Vec<(Key, Bytes)>,
    /// The request's buffers, if it brings them.
    pub buffers: Option<Vec<Bytes>>,
    /// The result's buffers, if it brings them.
    pub result_buffers: Option<Vec<Bytes>>,
    pub(super) append: Option<(Key, String)>,
}

impl Patch {
    /// Adds a value as JSON.
    #[must_use]
    pub fn json(mut self, key: Key, json: Bytes) -> Self {
        self.fields.push((key, json));
        self
    }

    /// Adds text.
    #[must_use]
    pub fn text(self, key: Key, text: &str) -> Self {
        self.value(key, &Value::String(text.to_owned()))
    }

    /// Adds a value.
    #[must_use]
    pub fn value(self, key: Key, value: &Value) -> Self {
        self.json(key, value.to_string().into())
    }

    /// Adds text behind what the record has.
    #[must_use]
    pub fn append(mut self, key: Key, text: impl Into<String>) -> Self {
        self.append = Some((key, text.into()));
        self
    }

    /// The values it brings.
    pub fn fields(&self) -> &[(Key, Bytes)] {
        &self.fields
    }

    /// Bytes it holds, about.
    pub fn size_bytes(&self) -> usize {
        let buffers = self.buffers.iter().chain(&self.result_buffers).flatten();
        let appended = self.append.as_ref().map_or(0, |(_, text)| text.len());
        256 + appended + self.fields.iter().map(|(_, json)| json.len()).sum::<usize>() + buffers.map(Bytes::len).sum::<usize>()
    }
}

impl Record {
    /// An empty record: no outputs, everything else null.
    pub fn new(id: impl Into<String>) -> Record {
        let mut record = Record { id: id.into(), ..Record::default() };
        record.set(Key::Stdout, Bytes::from_static(b"\"\""));
        record.set(Key::Stderr, Bytes::from_static(b"\"\""));
        record
    }

    /// A value as JSON; `None` is null.
    pub fn json(&self, key: Key) -> Option<&Bytes> {
        self.fields[key as usize].as_ref()
    }

    /// A value.
    pub fn value(&self, key: Key) -> Value {
        match key {
            Key::MsgId => Value::String(self.id.clone()),
            _ => self.json(key).and_then(|json| serde_json::from_slice(json).ok()).unwrap_or(Value::Null),
        }
    }

    /// Sets a value; JSON null clears it.
    pub fn set(&mut self, key: Key, json: Bytes) {
        self.fields[key as usize] = (&json[..] != b"null").then_some(json);
    }

    /// Takes in what an event adds. A null does not overwrite.
    pub fn merge(&mut self, patch: &Patch) {
        for (key, json) in &patch.fields {
            if &json[..] != b"null" {
                self.set(*key, json.clone());
            }
        }
        if let Some(buffers) = &patch.buffers {
            self.buffers.clone_from(buffers);
        }
        if let Some(buffers) = &patch.result_buffers {
            self.result_buffers.clone_from(buffers);
        }
        if let Some((key, text)) = &patch.append {
            self.append(*key, text);
        }
    }

    /// Adds text behind a JSON string, in place: many small pieces cost no more than their own length. Beyond [`MAX_OUTPUT_BYTES`] it is
    /// cut off with a mark.
    fn append(&mut self, key: Key, text: &str) {
        let before = self.fields[key as usize].take().filter(|json| json.starts_with(b"\"") && json.ends_with(b"\""));
        let mut json =
            before.unwrap_or_else(|| Bytes::from_static(b"\"\"")).try_into_mut().unwrap_or_else(|json| BytesMut::from(&json[..]));
        json.truncate(json.len() - 1);
        if json.len() < MAX_OUTPUT_BYTES {
            let added = Value::String(text.to_owned()).to_string();
            json.extend_from_slice(&added.as_bytes()[1..added.len() - 1]);
            if json.len() >= MAX_OUTPUT_BYTES {
                json.extend_from_slice(b"\\n[output cut off here]");
            }
        }
        json.extend_from_slice(b"\"");
        self.fields[key as usize] = Some(json.freeze());
    }

    /// Bytes of its buffers and values.
    pub fn size_bytes(&self) -> usize {
        self.buffers.iter().chain(&self.result_buffers).chain(self.fields.iter().flatten()).map(Bytes::len).sum()
    }

    /// How its task ended.
    pub fn status(&self) -> super::Status {
        #[derive(serde::Deserialize)]
        struct Content<'a> {
            #[serde(borrow)]
            status: Option<std::borrow::Cow<'a, str>>,
        }
        let content = self.json(Key::ResultContent).and_then(|json| serde_json::from_slice::<Content<'_>>(json).ok());
        super::Status::of(content.and_then(|content| content.status).as_deref())
    }

    /// Whether a request made it, rather than only some output.
    pub fn is_submitted(&self) -> bool {
        self.json(Key::Submitted).is_some()
    }

    /// The record as a JSON object of the wanted keys, written without parsing what is in it. `display_data` is left out while null.
    pub fn write_json(&self, keys: &[Key], out: &mut Vec<u8>) {
        let wanted = if keys.is_empty() { &Key::ALL[..] } else { keys };
        out.push(b'{');
        let id = std::iter::once(&Key::MsgId).filter(|_| !wanted.contains(&Key::MsgId));
        let mut first = true;
        for &key in id.chain(wanted) {
            if key == Key::DisplayData && self.json(key).is_none() && keys.is_empty() {
                continue;
            }
            if !std::mem::take(&mut first) {
                out.push(b',');
            }
            out.push(b'"');
            out.extend_from_slice(key.name().as_bytes());
            out.extend_from_slice(b"\":");
            match (key, self.json(key)) {
                (Key::MsgId, _) => out.extend_from_slice(Value::String(self.id.clone()).to_string().as_bytes()),
                // What a peer sent as JSON and is not must not spoil the answer for everyone.
                (_, Some(json)) if serde_json::from_slice::<&RawValue>(json).is_ok() => out.extend_from_slice(json),
                (_, _) => out.extend_from_slice(b"null"),
            }
        }
        out.push(b'}');
    }
}
