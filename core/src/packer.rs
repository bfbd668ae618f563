//! How the parts of messages are written, JSON or msgpack: whatever is read of a message or written into one goes through a [`Packer`].
//! JSON is read where it lies and is never copied here; msgpack is checked before it is read, so that no length in it is believed.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Serialize, Serializer};
use serde_json::{Map, Number, Value};

use crate::Envelope;

/// How deep lists and objects may lie in one another in msgpack that is read.
const MAX_DEPTH: usize = 128;

/// The same for JSON that is checked: Python's own reader gives up at about a thousand, less what its stack holds already.
const MAX_JSON_DEPTH: usize = 512;

/// What the four parts of a message are called, in their order.
pub const PARTS: [&str; 4] = ["header", "parent header", "metadata", "content"];

/// How the parts of messages are written. All parties of a cluster use one; connection files tell which.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Packer {
    /// JSON, as all clients and engines do unless told otherwise.
    #[default]
    Json,
    /// msgpack, with dates as the text that they are in JSON.
    Msgpack,
}

/// A name that stands for no packer which could be used here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnknownPacker {
    /// Python's pickle.
    #[error(
        "pickle would run the code of whoever sends a message, in the controller too: use msgpack for speed, or json. (What tasks take and \
         return is pickled all the same, by clients and engines alone)"
    )]
    Pickle,
    /// A function to import, or a word that is none.
    #[error("'{0}' is not a packer: there are json and msgpack. A Python function can not be called here")]
    Other(String),
}

/// Why a part of a message can not be read.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// It is something else than an object, or nothing at all.
    #[error("not {0}")]
    NotAnObject(&'static str),
    /// It is JSON, and not this.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    /// It is msgpack, and not this.
    #[error("{0}")]
    Msgpack(#[from] rmp_serde::decode::Error),
    /// Lists and objects in one another, beyond what peers read.
    #[error("lists and objects in one another, too deep")]
    TooDeep,
    /// It is not msgpack: where and why.
    #[error("not msgpack: {1} at byte {0}")]
    NotMsgpack(usize, &'static str),
}

impl Packer {
    /// The packer of a name, as in `Session.packer` and in connection files.
    ///
    /// # Errors
    /// If it is pickle, or none that is known; the text says what to use.
    pub fn of_name(name: &str) -> Result<Packer, UnknownPacker> {
        match name.to_ascii_lowercase().as_str() {
            "json" | "orjson" => Ok(Packer::Json),
            "msgpack" => Ok(Packer::Msgpack),
            "pickle" => Err(UnknownPacker::Pickle),
            _ => Err(UnknownPacker::Other(name.chars().take(100).collect())),
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Packer::Json => "json",
            Packer::Msgpack => "msgpack",
        }
    }

    /// Reads an object, borrowing from it what can be. A list is never taken for a struct. O(bytes); msgpack is gone over twice.
    ///
    /// # Errors
    /// If it is not an object, or not the one that `T` is.
    #[inline]
    pub fn read<'a, T: Deserialize<'a>>(self, part: &'a [u8]) -> Result<T, Unreadable> {
        match self {
            Packer::Json if part.trim_ascii_start().first() == Some(&b'{') => Ok(serde_json::from_slice(part)?),
            Packer::Json => Err(Unreadable::NotAnObject("a JSON object")),
            Packer::Msgpack => read_msgpack(part),
        }
    }

    /// Reads an object as JSON values: bytes in msgpack become base64, keys become text. O(bytes).
    ///
    /// # Errors
    /// If it is not an object.
    pub fn read_map(self, part: &[u8]) -> Result<Map<String, Value>, Unreadable> {
        match self {
            Packer::Json => self.read(part),
            Packer::Msgpack => Ok(read_msgpack::<AsJson<Map<String, Value>>>(part)?.0),
        }
    }

    /// A part as JSON: as it is, or translated. O(1) for JSON, which is not looked at, else O(bytes).
    ///
    /// # Errors
    /// If it is not a msgpack object where it should be one.
    pub fn to_json(self, part: Bytes) -> Result<Bytes, Unreadable> {
        match self {
            Packer::Json => Ok(part),
            Packer::Msgpack => Ok(Value::Object(self.read_map(&part)?).to_string().into()),
        }
    }

    /// A message with its parts as JSON: itself, or translated. O(1) for JSON, else O(bytes of the parts) and what
    /// [`Envelope::with_parts`] costs.
    ///
    /// # Errors
    /// The name of the part that is no object.
    pub fn message_as_json(self, message: &Envelope) -> Result<Cow<'_, Envelope>, &'static str> {
        if self == Packer::Json {
            return Ok(Cow::Borrowed(message));
        }
        let part = |index: usize| self.to_json(message.part_bytes(index)).map_err(|_| PARTS[index]);
        // Some write a parent header that is nothing at all for none.
        let is_null = message.parent() == b"\xc0";
        let parent = if is_null { Bytes::from_static(b"{}") } else { part(1)? };
        let (header, metadata, content) = (part(0)?, part(2)?, part(3)?);
        Ok(Cow::Owned(message.with_parts([&header, &parent, &metadata, &content])))
    }

    /// JSON as a part: as it is, or translated. O(1) for JSON, else O(bytes).
    ///
    /// # Errors
    /// If it has to be translated and is not JSON.
    pub fn of_json<'a>(self, json: impl Into<Cow<'a, [u8]>>) -> Result<Vec<u8>, Unreadable> {
        let json = json.into();
        match self {
            Packer::Json => Ok(json.into_owned()),
            Packer::Msgpack => Ok(self.write(&serde_json::from_slice::<Value>(&json)?)),
        }
    }

    /// An object as a part. O(bytes).
    pub fn of_map(self, map: &Map<String, Value>) -> Vec<u8> {
        self.write(map)
    }

    /// Writes a value. Values of this program's own types always can be; what can not is left empty.
    pub(crate) fn write<T: Serialize>(self, value: &T) -> Vec<u8> {
        match self {
            Packer::Json => serde_json::to_vec(value).unwrap_or_default(),
            Packer::Msgpack => rmp_serde::to_vec_named(value).unwrap_or_default(),
        }
    }

    /// An object without anything in it.
    pub fn empty_object(self) -> &'static [u8] {
        match self {
            Packer::Json => b"{}",
            Packer::Msgpack => b"\x80",
        }
    }

    /// Whether engines and clients can read this part: an object, whole, nothing behind it, and not too deep. O(bytes).
    ///
    /// # Errors
    /// If they can not.
    pub fn check(self, part: &[u8]) -> Result<(), Unreadable> {
        match self {
            Packer::Json => {
                self.read::<de::IgnoredAny>(part)?;
                self.check_depth(part)
            }
            Packer::Msgpack => check_msgpack(part),
        }
    }

    /// Whether engines and clients can read a part that was [read](Self::read) here: what was skipped may lie too deep for them. O(1) for
    /// parts of the usual length, else O(bytes).
    ///
    /// # Errors
    /// If they can not.
    pub fn check_depth(self, part: &[u8]) -> Result<(), Unreadable> {
        if self == Packer::Json && part.len() > MAX_JSON_DEPTH && json_depth(part) > MAX_JSON_DEPTH {
            return Err(Unreadable::TooDeep);
        }
        Ok(())
    }
}

/// How deep the lists and objects of well-formed JSON lie in one another.
fn json_depth(json: &[u8]) -> usize {
    let (mut depth, mut deepest, mut bytes) = (0_usize, 0, json.iter());
    while let Some(byte) = bytes.next() {
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            // To the end of the text; what follows a backslash does not end it.
            b'"' => while bytes.next().is_some_and(|&byte| byte != b'"' && (byte != b'\\' || bytes.next().is_some())) {},
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

/// Written by its name; of configuration files and the like.
impl Serialize for Packer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Packer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = Cow::<'de, str>::deserialize(deserializer)?;
        Packer::of_name(&name).map_err(de::Error::custom)
    }
}

fn read_msgpack<'a, T: Deserialize<'a>>(part: &'a [u8]) -> Result<T, Unreadable> {
    check_msgpack(part)?;
    let mut deserializer = rmp_serde::Deserializer::from_read_ref(part).with_human_readable();
    deserializer.set_max_depth(MAX_DEPTH + 2);
    Ok(T::deserialize(&mut deserializer)?)
}

/// Goes over msgpack without reading it: one object, with text for keys, text that is UTF-8, no length beyond the end, no depth beyond
/// [`MAX_DEPTH`], nothing behind. As strict as Python's `msgpack.unpackb`, so that what passes can be read by every peer.
fn check_msgpack(part: &[u8]) -> Result<(), Unreadable> {
    if !matches!(part.first(), Some(0x80..=0x8f | 0xde | 0xdf)) {
        return Err(Unreadable::NotAnObject("a msgpack object"));
    }
    let mut at = 0;
    let wrong = |at: usize, why| Err(Unreadable::NotMsgpack(at, why));
    // For each list and object that is open: values that are still to come, and whether every second one is a key.
    let mut open: Vec<(u64, bool)> = Vec::new();
    loop {
        let is_key = open.last().is_some_and(|&(left, is_map)| is_map && left % 2 == 0);
        let Some(&marker) = part.get(at) else { return wrong(at, "it ends too early") };
        let start = at;
        at += 1;
        // The length that is written in so many bytes.
        let length = |bytes: usize| -> Option<u64> {
            Some(part.get(at..at + bytes)?.iter().fold(0, |length, &byte| length << 8 | u64::from(byte)))
        };
        // How many bytes of length, how many of data behind them, and for what holds others: how many, and whether they are pairs.
        let (head, data, inside) = match marker {
            0x00..=0x7f | 0xe0..=0xff | 0xc0 | 0xc2 | 0xc3 => (0, Some(0), None),
            0x80..=0x8f => (0, Some(0), Some((u64::from(marker & 0x0f) * 2, true))),
            0x90..=0x9f => (0, Some(0), Some((u64::from(marker & 0x0f), false))),
            0xa0..=0xbf => (0, Some(u64::from(marker & 0x1f)), None),
            0xc1 => return wrong(start, "a byte that is never used"),
            0xc4 | 0xd9 => (1, length(1), None),
            0xc5 | 0xda => (2, length(2), None),
            0xc6 | 0xdb => (4, length(4), None),
            0xc7 => (1, length(1).map(|n| n + 1), None),
            0xc8 => (2, length(2).map(|n| n + 1), None),
            0xc9 => (4, length(4).map(|n| n + 1), None),
            0xcc | 0xd0 => (0, Some(1), None),
            0xcd | 0xd1 => (0, Some(2), None),
            0xca | 0xce | 0xd2 => (0, Some(4), None),
            0xcb | 0xcf | 0xd3 => (0, Some(8), None),
            0xd4..=0xd8 => (0, Some((1 << (marker - 0xd4)) + 1), None),
            0xdc => (2, Some(0), length(2).map(|n| (n, false))),
            0xdd => (4, Some(0), length(4).map(|n| (n, false))),
            0xde => (2, Some(0), length(2).map(|n| (n * 2, true))),
            0xdf => (4, Some(0), length(4).map(|n| (n * 2, true))),
        };
        let is_text = matches!(marker, 0xa0..=0xbf | 0xd9..=0xdb);
        if is_key && !is_text {
            return wrong(start, "a key that is not text");
        }
        at += head;
        let end = data.and_then(|data| at.checked_add(usize::try_from(data).ok()?)).filter(|&end| end <= part.len());
        let Some(end) = end else { return wrong(start, "it ends too early") };
        if is_text && std::str::from_utf8(&part[at..end]).is_err() {
            return wrong(start, "text that is not UTF-8");
        }
        at = end;
        if matches!(marker, 0xdc..=0xdf) && inside.is_none() {
            return wrong(start, "it ends too early");
        }
        if let Some((left, _)) = open.last_mut() {
            *left -= 1;
        }
        if inside.is_some() && open.len() >= MAX_DEPTH {
            return wrong(start, "objects and lists in one another, too deep");
        }
        open.extend(inside);
        while open.last().is_some_and(|&(left, _)| left == 0) {
            open.pop();
        }
        if open.is_empty() {
            return if at == part.len() { Ok(()) } else { wrong(at, "something behind its end") };
        }
    }
}

/// A value that is read as JSON has it: bytes as base64, what is no finite number as null, keys as text.
struct AsJson<T>(T);

impl<'de> Deserialize<'de> for AsJson<Map<String, Value>> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match AsJson::<Value>::deserialize(deserializer)?.0 {
            Value::Object(map) => Ok(AsJson(map)),
            _ => Err(de::Error::custom("not an object")),
        }
    }
}

impl<'de> Deserialize<'de> for AsJson<Value> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor).map(AsJson)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_bytes<E: de::Error>(self, value: &[u8]) -> Result<Value, E> {
        Ok(BASE64_STANDARD.encode(value).into())
    }

    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    /// An extension of msgpack: its number and its bytes.
    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(AsJson(value)) = seq.next_element::<AsJson<Value>>()? {
            list.push(value);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(AsJson(key)) = map.next_key::<AsJson<Value>>()? {
            let key = if let Value::String(key) = key { key } else { key.to_string() };
            object.insert(key, map.next_value::<AsJson<Value>>()?.0);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::wire::{Header, ReplyMetadata};

    fn hex(text: &str) -> Vec<u8> {
        const_hex::decode(text).unwrap()
    }

    /// Written by Python's `msgpack.packb` (1.2.4), as by `jupyter_client` for `packer = "msgpack"`.
    const HEADER: &str = "86a66d73675f6964a5615f315f30a86d73675f74797065ad6170706c795f72657175657374a8757365726e616d65a175a773657373696f6ea173a464617465bb323032362d31312d32315430333a30313a34362e3030303030315aa776657273696f6ea3352e34";
    const ALL_KINDS: &str = "82a1619c01ffcd012cce00011170cf0000010000000000d3ffffff0000000000cb3ff8000000000000c0c381a162c40200ffd928c3a9c3a9c3a9c3a9c3a9c3a9c3a9c3a9c3a9c3a9c3a9c3a9c3a9c3a9c3a9c3a9c3a9c3a9c3a9c3a9d5057879a16ecb7ff8000000000000";

    #[test]
    fn what_python_writes_is_read_where_it_lies() {
        let bytes = hex(HEADER);
        let header = Header::read(Packer::Msgpack, &bytes).unwrap();
        assert_eq!((&*header.msg_id, &*header.msg_type, &*header.session), ("a_1_0", "apply_request", "s"));
        assert!(matches!(header.msg_id, Cow::Borrowed(_)));
        assert_eq!(header.date().unwrap().to_string(), "2026-11-21T03:01:46.000001Z");
        assert!(Packer::Msgpack.read::<ReplyMetadata<'_>>(&bytes).unwrap().status.is_none());
    }

    #[test]
    fn every_kind_of_value_has_its_json() {
        let json = Packer::Msgpack.to_json(hex(ALL_KINDS).into()).unwrap();
        let value: Value = serde_json::from_slice(&json).unwrap();
        let list =
            json!([1, -1, 300, 70000, 1u64 << 40, -(1i64 << 40), 1.5, null, true, {"b": "AP8="}, "é".repeat(20), [5, "eHk="]]);
        assert_eq!(value, json!({"a": list, "n": null}));
        let back = Packer::Msgpack.of_json(&json[..]).unwrap();
        assert_eq!(Packer::Msgpack.to_json(back.into()).unwrap(), json);
        assert_eq!(Packer::Json.to_json(Bytes::from_static(b"{ }")).unwrap(), "{ }", "JSON is not touched");
    }

    #[test]
    fn what_is_cut_off_lengthened_or_of_another_kind_is_refused() {
        for whole in [hex(HEADER), hex(ALL_KINDS)] {
            assert!(Packer::Msgpack.check(&whole).is_ok());
            for len in 0..whole.len() {
                assert!(Packer::Msgpack.check(&whole[..len]).is_err(), "{len}");
            }
            assert!(Packer::Msgpack.check(&[&whole[..], b"\x80"].concat()).is_err());
        }
        for (hex_text, why) in [
            ("93010203", "not a msgpack object"),
            ("7b7d", "not a msgpack object"),
            ("", "not a msgpack object"),
            ("810102", "a key that is not text"),
            ("81c4016101", "a key that is not text"),
            ("81a1ff01", "text that is not UTF-8"),
            ("81a161c1", "a byte that is never used"),
            ("dfffffffff", "it ends too early"),
            ("81a161ddffffffff", "it ends too early"),
            ("81a161dbffffffff", "it ends too early"),
            ("81a161c9ffffffff05", "it ends too early"),
        ] {
            let bytes = hex(hex_text);
            let error = Packer::Msgpack.check(&bytes).unwrap_err().to_string();
            assert!(error.contains(why), "{hex_text}: {error}");
            assert!(Packer::Msgpack.read::<de::IgnoredAny>(&bytes).is_err() && Packer::Msgpack.read_map(&bytes).is_err());
        }
        let nested = |depth: usize| [&b"\x81\xa1a"[..], &vec![0x91; depth], b"\xc0"].concat();
        assert!(Packer::Msgpack.read_map(&nested(MAX_DEPTH - 1)).is_ok());
        assert!(Packer::Msgpack.read_map(&nested(MAX_DEPTH)).is_err());
        assert!(Packer::Msgpack.check(&nested(10_000_000)).is_err());
    }

    #[test]
    fn json_that_python_can_not_read_for_its_depth_is_told_from_what_only_looks_deep() {
        let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert!(Packer::Json.check(nested(MAX_JSON_DEPTH - 1).as_bytes()).is_ok());
        assert!(matches!(Packer::Json.check(nested(MAX_JSON_DEPTH).as_bytes()), Err(Unreadable::TooDeep)));
        assert!(Packer::Json.check(nested(1_000_000).as_bytes()).is_err());
        for flat in ["[".repeat(2000), "\\\\\\\"{".repeat(2000), "],[".repeat(2000)] {
            let json = format!("{{\"a\": \"{flat}\"}}");
            Packer::Json.check(json.as_bytes()).unwrap();
        }
        Packer::Json.check(format!("{{\"a\": [{}]}}", vec!["[]"; 2000].join(",")).as_bytes()).unwrap();
    }

    #[test]
    fn packers_have_the_names_that_they_have_in_python() {
        for (name, packer) in
            [("json", Packer::Json), ("orjson", Packer::Json), ("JSON", Packer::Json), ("msgpack", Packer::Msgpack)]
        {
            assert_eq!(Packer::of_name(name), Ok(packer), "{name}");
        }
        let refused = |name: &str| Packer::of_name(name).unwrap_err().to_string();
        assert!(refused("pickle").contains("run the code of whoever sends"));
        assert!(refused("pickle").contains("msgpack"));
        assert!(refused("msgpack.packb").contains("json and msgpack"));
    }
}
