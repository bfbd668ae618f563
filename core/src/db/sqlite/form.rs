//! How a record's values are written in their columns, and read from them, as ipyparallel's own store does.

use bytes::Bytes;
use rusqlite::types::{Null, ToSqlOutput, Value as Sql};
use serde_bytes::ByteBuf;
use serde_json::Value;
use serde_json::value::RawValue;

use super::super::{Field, Key};
use crate::date::Date;

/// How a value is written in its column. ipyparallel checks names, types and order of the columns, so they are all there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// A string as it is.
    Text,
    /// A moment as Python's `isoformat` writes it.
    Date,
    /// An object as JSON.
    Json,
    /// A string as it is, an object or list as JSON.
    Mixed,
    /// Byte strings as a pickled list.
    Buffers,
}

pub(super) const COLUMNS: [(&str, Form); 23] = [
    ("msg_id", Form::Text),
    ("header", Form::Json),
    ("metadata", Form::Json),
    ("content", Form::Json),
    ("buffers", Form::Buffers),
    ("submitted", Form::Date),
    ("client_uuid", Form::Text),
    ("engine_uuid", Form::Text),
    ("started", Form::Date),
    ("completed", Form::Date),
    ("resubmitted", Form::Text),
    ("received", Form::Date),
    ("result_header", Form::Json),
    ("result_metadata", Form::Json),
    ("result_content", Form::Json),
    ("result_buffers", Form::Buffers),
    ("queue", Form::Text),
    ("execute_input", Form::Text),
    ("execute_result", Form::Mixed),
    ("error", Form::Mixed),
    ("stdout", Form::Text),
    ("stderr", Form::Text),
    ("label", Form::Mixed),
];

impl Form {
    pub(super) fn column_type(self) -> &'static str {
        match self {
            Form::Text | Form::Mixed => "text",
            Form::Date => "timestamp",
            Form::Json => "dict text",
            Form::Buffers => "bufs blob",
        }
    }
}

pub(super) fn form(key: Key) -> Form {
    COLUMNS.iter().find(|(name, _)| *name == key.name()).map_or(Form::Json, |(_, form)| *form)
}

/// A moment as Python's isoformat writes it, so that both writers' dates sort as text.
pub(super) fn isoformat(date: Date) -> String {
    date.to_string().replace('Z', "+00:00")
}

/// A value as its column has it, lent as far as it is the same.
pub(super) fn to_sql(form: Form, field: &Field) -> ToSqlOutput<'_> {
    match (form, field) {
        // What a peer sent as JSON and is not would spoil the whole file for a reader that expects it.
        (Form::Json | Form::Buffers, Field::Json(json)) => match serde_json::from_slice::<&RawValue>(json) {
            Ok(raw) => ToSqlOutput::from(raw.get()),
            Err(_) => ToSqlOutput::from(Null),
        },
        (Form::Json | Form::Buffers, other) => ToSqlOutput::from(String::from_utf8_lossy(&other.to_json()).into_owned()),
        (Form::Date, Field::Text(text)) => {
            Date::parse(text).map_or_else(|| ToSqlOutput::from(&**text), |date| ToSqlOutput::from(isoformat(date)))
        }
        (_, Field::Text(text)) => ToSqlOutput::from(&**text),
        (_, Field::Date(date)) => ToSqlOutput::from(isoformat(*date)),
        (_, Field::Json(json)) => match serde_json::from_slice(json) {
            Ok(Value::String(text)) if form == Form::Date => ToSqlOutput::from(Date::parse(&text).map_or(text, isoformat)),
            Ok(Value::String(text)) => ToSqlOutput::from(text),
            Ok(Value::Null) | Err(_) => ToSqlOutput::from(Null),
            Ok(other) => ToSqlOutput::from(other.to_string()),
        },
    }
}

pub(super) fn looks_like_json(text: &str) -> bool {
    text.starts_with(['{', '[']) && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

/// A column's value to JSON. Text in a JSON column that is none, as other programs write it, becomes a string.
pub(super) fn to_json(form: Form, value: Sql) -> Option<Bytes> {
    match value {
        Sql::Text(text) => Some(match form {
            Form::Date => Value::String(Date::parse(&text).map_or(text, |date| date.to_string())).to_string().into(),
            Form::Mixed if looks_like_json(&text) => text.into(),
            Form::Json if serde_json::from_str::<&RawValue>(&text).is_ok() => text.into(),
            _ => Value::String(text).to_string().into(),
        }),
        Sql::Integer(number) => Some(number.to_string().into()),
        Sql::Real(number) => Some(number.to_string().into()),
        Sql::Null | Sql::Blob(_) => None,
    }
}

/// Buffers as Python would pickle a list of bytes; nothing for none, as there.
pub(super) fn pickle(buffers: &[Bytes]) -> rusqlite::Result<ToSqlOutput<'static>> {
    if buffers.is_empty() {
        return Ok(ToSqlOutput::from(Null));
    }
    let list: Vec<&serde_bytes::Bytes> = buffers.iter().map(|buffer| serde_bytes::Bytes::new(buffer)).collect();
    let pickled = serde_pickle::to_vec(&list, serde_pickle::SerOptions::new());
    pickled.map(ToSqlOutput::from).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

/// Buffers from what Python pickles a list of bytes to; none if it is something else.
pub fn unpickle(blob: &[u8]) -> Vec<Bytes> {
    match serde_pickle::from_slice::<Vec<ByteBuf>>(blob, serde_pickle::DeOptions::new()) {
        Ok(list) => list.into_iter().map(|buffer| buffer.into_vec().into()).collect(),
        Err(error) => {
            tracing::warn!("a task record in SQLite has buffers that are not a pickled list of bytes ({error}); left out");
            Vec::new()
        }
    }
}

/// Whether a label would come back from its column as something else.
pub(super) fn is_ambiguous(label: &Field) -> bool {
    match serde_json::from_slice(&label.to_json()) {
        Ok(Value::String(text)) => looks_like_json(&text),
        Ok(Value::Bool(_) | Value::Number(_)) => true,
        _ => false,
    }
}
