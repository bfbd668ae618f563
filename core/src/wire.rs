//! The objects of the protocol as types, parsed once at the edge. Fields that a controller does not act on are not parsed at all.

use std::borrow::Cow;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use crate::Packer;
use crate::date::Date;
use crate::packer::Unreadable;

/// The message protocol version that headers carry.
pub const VERSION: &str = "5.4";

/// The longest message id that is taken, in bytes.
pub const MAX_ID_BYTES: usize = 1024;

/// Parses a JSON object. Unlike plain `serde_json`, a list is never taken for a struct.
///
/// # Errors
/// If it is not an object, or not the one that `T` is.
pub fn object<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, Unreadable> {
    Packer::Json.read(json)
}

/// Text that may be missing, borrowed: serde does so for a plain [`Cow`] alone.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Cow<'de, str>>, D::Error> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    Ok(Option::<Text<'_>>::deserialize(deserializer)?.map(|text| text.0))
}

/// What a controller reads of a header. Borrows from the JSON unless it has escapes.
#[derive(Clone, Debug, Deserialize)]
pub struct Header<'a> {
    /// The message's id, opaque.
    #[serde(borrow)]
    pub msg_id: Cow<'a, str>,
    /// What kind of message it is.
    #[serde(borrow)]
    pub msg_type: Cow<'a, str>,
    /// The sender's session.
    #[serde(borrow, default)]
    pub session: Cow<'a, str>,
    /// When it was sent, as the sender wrote it.
    #[serde(borrow, default, deserialize_with = "text")]
    pub date: Option<Cow<'a, str>>,
    /// Of the protocol, as the sender wrote it.
    #[serde(borrow, default, deserialize_with = "text")]
    pub version: Option<Cow<'a, str>>,
}

impl<'a> Header<'a> {
    /// Parses a header.
    ///
    /// # Errors
    /// If it is not a JSON object with a `msg_id` and a `msg_type`.
    pub fn parse(json: &'a [u8]) -> Result<Header<'a>, Unreadable> {
        Header::read(Packer::Json, json)
    }

    /// Reads a header that a cluster's packer has written.
    ///
    /// # Errors
    /// If it is not an object with a `msg_id` and a `msg_type`.
    #[inline]
    pub fn read(packer: Packer, part: &'a [u8]) -> Result<Header<'a>, Unreadable> {
        let header: Header<'a> = packer.read(part)?;
        if header.msg_id.len() > MAX_ID_BYTES {
            return Err(serde_json::Error::custom("msg_id is too long").into());
        }
        Ok(header)
    }

    /// The date, if it is one.
    pub fn date(&self) -> Option<Date> {
        self.date.as_deref().and_then(Date::parse)
    }
}

/// What a controller reads of a parent header: `{}` has no id.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Parent<'a> {
    /// The id of the request.
    #[serde(borrow, default, deserialize_with = "text")]
    pub msg_id: Option<Cow<'a, str>>,
}

/// How a reply says it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It succeeded.
    Ok,
    /// It was dropped on request before it ran.
    Aborted,
    /// It failed; also every status that is not known.
    Error,
}

impl Status {
    /// Of the wire's word.
    pub fn of(word: &str) -> Status {
        match word {
            "ok" => Status::Ok,
            "aborted" => Status::Aborted,
            _ => Status::Error,
        }
    }
}

/// What a controller reads of a reply's metadata.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ReplyMetadata<'a> {
    /// `ok`, `error` or `aborted`; falls back to the content's.
    #[serde(borrow, default, deserialize_with = "text")]
    pub status: Option<Cow<'a, str>>,
    /// False if the engine refused the task because a dependency that it checks itself was not met.
    #[serde(default)]
    pub dependencies_met: Option<bool>,
    /// When the engine began, ISO 8601.
    #[serde(borrow, default, deserialize_with = "text")]
    pub started: Option<Cow<'a, str>>,
    /// The engine's uuid.
    #[serde(borrow, default, deserialize_with = "text")]
    pub engine: Option<Cow<'a, str>>,
    /// The broadcast request that a reply belongs to; empty if none.
    #[serde(borrow, default, deserialize_with = "text")]
    pub original_msg_id: Option<Cow<'a, str>>,
    /// Whether the replies of this broadcast are gathered into one.
    #[serde(default)]
    pub is_coalescing: Option<bool>,
}

/// The `status` field of any content.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ContentStatus<'a> {
    /// `ok`, `error` or `aborted`.
    #[serde(borrow, default, deserialize_with = "text")]
    pub status: Option<Cow<'a, str>>,
}

/// The status of a reply, from its metadata or else its content. What can not be read counts as an error status.
pub fn reply_status(packer: Packer, metadata: &ReplyMetadata<'_>, content: &[u8]) -> Status {
    if let Some(status) = &metadata.status {
        return Status::of(status);
    }
    let content: ContentStatus<'_> = packer.read(content).unwrap_or_default();
    content.status.as_deref().map_or(Status::Error, Status::of)
}

/// Error content that every client can display (PROTOCOL: error content). `engine_info` is empty in errors made by a controller:
/// a client would wait for output of an engine named there.
#[derive(Clone, Debug, Serialize)]
pub struct ErrorContent {
    status: &'static str,
    /// The exception's name, compared by clients.
    pub ename: String,
    /// Its message.
    pub evalue: String,
    traceback: Vec<String>,
    engine_info: serde_json::Map<String, serde_json::Value>,
}

impl ErrorContent {
    /// An error of a name and a message, which also stand in its traceback.
    pub fn new(ename: impl Into<String>, evalue: impl Into<String>) -> Self {
        let (ename, evalue) = (ename.into(), evalue.into());
        let traceback = vec![if evalue.is_empty() { ename.clone() } else { format!("{ename}: {evalue}") }];
        ErrorContent { status: "error", ename, evalue, traceback, engine_info: serde_json::Map::new() }
    }

    /// As JSON.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default() // strings and vectors of them always serialise
    }
}
