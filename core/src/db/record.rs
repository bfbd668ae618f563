//! One task's record: a value for each key, as the JSON it came in, so that what nobody asks for is never parsed.

use bytes::{Bytes, BytesMut};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::date::Date;

/// The most output kept of one stream of one task, in bytes.
pub(super) const MAX_OUTPUT_BYTES: usize = 4 << 20;
/// What stands where output was cut off.
pub(super) const CUT_OFF: &str = "\n[output cut off here]";

/// The beginning of a text that takes at most so many bytes as JSON.
fn fitting(text: &str, bytes: usize) -> &str {
    // Most texts are far from it.
    if text.len() <= bytes / 6 {
        return text;
    }
    let mut used = 0;
    let end = text.char_indices().find(|(_, c)| {
        used += match c {
            '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
            c if u32::from(*c) < 0x20 => 6,
            c => c.len_utf8(),
        };
        used > bytes
    });
    &text[..end.map_or(text.len(), |(at, _)| at)]
}

/// The keys of a record, in the order in which clients list them. Buffers stand apart.
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

/// A value on its way to a record, in the form in which it is known: each store writes it in its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    /// As JSON, or what a peer has sent for it.
    Json(Bytes),
    /// A string.
    Text(Box<str>),
    /// A moment.
    Date(Date),
}

impl Field {
    /// The value as JSON.
    pub fn to_json(&self) -> Bytes {
        match self {
            Field::Json(json) => json.clone(),
            Field::Text(text) => Value::from(&**text).to_string().into(),
            Field::Date(date) => format!("\"{date}\"").into(),
        }
    }

    /// Whether it says nothing.
    pub fn is_null(&self) -> bool {
        matches!(self, Field::Json(json) if &json[..] == b"null")
    }

    fn len(&self) -> usize {
        match self {
            Field::Json(json) => json.len(),
            Field::Text(text) => text.len(),
            Field::Date(_) => 30,
        }
    }
}

/// What an event adds to a record.
#[derive(Clone, Debug, Default)]
pub struct Patch {
    fields: Vec<(Key, Field)>,
    /// The request's buffers, if it brings them.
    pub buffers: Option<Vec<Bytes>>,
    /// The result's buffers, if it brings them.
    pub result_buffers: Option<Vec<Bytes>>,
    append: Vec<(Key, String)>,
}

impl Patch {
    /// Adds a value as JSON.
    #[must_use]
    pub fn json(self, key: Key, json: Bytes) -> Self {
        self.field(key, Field::Json(json))
    }

    /// Adds text.
    #[must_use]
    pub fn text(self, key: Key, text: &str) -> Self {
        self.field(key, Field::Text(text.into()))
    }

    /// Adds a moment.
    #[must_use]
    pub fn date(self, key: Key, date: Date) -> Self {
        self.field(key, Field::Date(date))
    }

    fn field(mut self, key: Key, field: Field) -> Self {
        self.fields.push((key, field));
        self
    }

    /// Adds a value.
    #[must_use]
    pub fn value(self, key: Key, value: &Value) -> Self {
        self.json(key, value.to_string().into())
    }

    /// Adds text behind what the record has.
    #[must_use]
    pub fn append(mut self, key: Key, text: impl Into<String>) -> Self {
        self.add_output(key, &text.into());
        self
    }

    fn add_output(&mut self, key: Key, text: &str) {
        match self.append.iter_mut().find(|(of, _)| *of == key) {
            // What is beyond the most that is kept need not be gathered.
            Some((_, before)) if before.len() <= MAX_OUTPUT_BYTES => before.push_str(text),
            Some(_) => {}
            None => self.append.push((key, text.to_owned())),
        }
    }

    /// Output that it brings, by stream.
    pub fn appended(&self) -> impl Iterator<Item = (Key, &str)> {
        self.append.iter().map(|(key, text)| (*key, &**text))
    }

    /// Takes in what comes later: merging the whole does what merging both would, for a record that is there or is made.
    pub fn absorb(&mut self, later: &Patch) {
        for (key, field) in &later.fields {
            match self.fields.iter_mut().find(|(of, _)| of == key) {
                Some((_, before)) if !field.is_null() => before.clone_from(field),
                Some(_) => {}
                None => self.fields.push((*key, field.clone())),
            }
        }
        for (mine, theirs) in [(&mut self.buffers, &later.buffers), (&mut self.result_buffers, &later.result_buffers)] {
            if theirs.is_some() {
                mine.clone_from(theirs);
            }
        }
        for (key, text) in &later.append {
            self.add_output(*key, text);
        }
    }

    /// The values it brings.
    pub fn fields(&self) -> &[(Key, Field)] {
        &self.fields
    }

    /// Bytes it holds, about.
    pub fn size_bytes(&self) -> usize {
        let buffers = self.buffers.iter().chain(&self.result_buffers).flatten();
        let appended = self.append.iter().map(|(_, text)| text.len()).sum::<usize>();
        256 + appended + self.fields.iter().map(|(_, field)| field.len()).sum::<usize>() + buffers.map(Bytes::len).sum::<usize>()
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
        for (key, field) in &patch.fields {
            if !field.is_null() {
                self.set(*key, field.to_json());
            }
        }
        if let Some(buffers) = &patch.buffers {
            self.buffers.clone_from(buffers);
        }
        if let Some(buffers) = &patch.result_buffers {
            self.result_buffers.clone_from(buffers);
        }
        for (key, text) in patch.appended() {
            self.append(key, text);
        }
    }

    /// Adds text behind a JSON string, in place: many small pieces cost no more than their own length. What is beyond [`MAX_OUTPUT_BYTES`] of
    /// JSON is cut off, and only then a mark says so.
    fn append(&mut self, key: Key, text: &str) {
        let before = self.fields[key as usize].take().filter(|json| json.starts_with(b"\"") && json.ends_with(b"\""));
        let mut json =
            before.unwrap_or_else(|| Bytes::from_static(b"\"\"")).try_into_mut().unwrap_or_else(|json| BytesMut::from(&json[..]));
        json.truncate(json.len() - 1);
        let used = json.len() - 1;
        // Only a mark makes it longer than that.
        if used <= MAX_OUTPUT_BYTES && !text.is_empty() {
            let kept = fitting(text, MAX_OUTPUT_BYTES - used);
            let added = Value::String(kept.to_owned()).to_string();
            json.extend_from_slice(&added.as_bytes()[1..added.len() - 1]);
            if kept.len() < text.len() {
                json.extend_from_slice(CUT_OFF.replace('\n', "\\n").as_bytes());
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
