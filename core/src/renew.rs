//! Messages that are sent a second time: the same request under the same id, with a new date in its header and so with another signature,
//! as engines drop a signature that they have seen without a word. All else stays byte for byte, whoever wrote it and whatever it means.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::date::Date;
use crate::session::{Parts, Session};
use crate::{Envelope, Packer};

/// The header with this date in place of its own; one that happens to be the same is moved on by a microsecond, so that the bytes always
/// differ. Nothing if it is no object of this packer's. O(bytes).
pub fn renewed(packer: Packer, header: &[u8], date: Date) -> Option<Vec<u8>> {
    let with = |date: Date| with_texts(packer, header, [("date", &date.to_string())]);
    let renewed = with(date)?;
    if renewed == header { with(Date::from_unix_us(date.as_unix_us() + 1)) } else { Some(renewed) }
}

/// The same under another id, for a request that is to be told from the one it repeats.
pub fn renewed_as(packer: Packer, header: &[u8], msg_id: &str, date: Date) -> Option<Vec<u8>> {
    with_texts(packer, header, [("msg_id", msg_id), ("date", &date.to_string())])
}

/// A request, signed anew under a new date; parent header, metadata and content are the same. Nothing if its header is no object.
/// O(bytes of the four parts): its buffers are not part of what is signed.
pub fn resealed(session: &Session, request: &Envelope, date: Date) -> Option<Parts> {
    let [header, parent, metadata, content] = request.parts();
    let header = renewed(session.packer(), header, date)?;
    Some(session.seal(header, parent.to_vec(), metadata.to_vec(), content.to_vec()))
}

/// An object with these strings under these keys, wherever the keys stand in it, or before all else where they do not.
fn with_texts<const N: usize>(packer: Packer, part: &[u8], texts: [(&str, &str); N]) -> Option<Vec<u8>> {
    let keys = texts.map(|(key, _)| key);
    let (open, found) = match packer {
        Packer::Json => find_in_json(part, keys)?,
        Packer::Msgpack => find_in_msgpack(part, keys)?,
    };
    let absent = || texts.iter().enumerate().filter(|(at, _)| found.iter().all(|(which, _)| which != at)).map(|(_, text)| text);
    let mut whole = Vec::with_capacity(part.len() + 64);
    match packer {
        Packer::Json => {
            whole.extend_from_slice(&part[..open]);
            let absent: Vec<String> = absent().map(|(key, text)| format!("\"{key}\": {}", Value::from(*text))).collect();
            whole.extend_from_slice(absent.join(", ").as_bytes());
            if !absent.is_empty() && part[open..].trim_ascii_start().first() != Some(&b'}') {
                whole.extend_from_slice(b", ");
            }
        }
        Packer::Msgpack => {
            let more = absent().count();
            if more == 0 {
                whole.extend_from_slice(&part[..open]);
            } else {
                whole.push(0xdf);
                whole.extend_from_slice(&(pairs(part)? + more as u32).to_be_bytes());
            }
            absent().for_each(|(key, text)| whole.extend([packer.write(key), packer.write(text)].concat()));
        }
    }
    let mut from = open;
    for (which, range) in found {
        whole.extend_from_slice(&part[from..range.start]);
        whole.extend_from_slice(&packer.write(&texts[which].1));
        from = range.end;
    }
    whole.extend_from_slice(&part[from..]);
    Some(whole)
}

/// Where an object begins to have something in it; and of some keys, which it has and where their values are, in the order in which they
/// stand there.
type Found = (usize, Vec<(usize, Range<usize>)>);

/// How many pairs a msgpack object says to have.
fn pairs(part: &[u8]) -> Option<u32> {
    let number = |bytes: usize| Some(part.get(1..=bytes)?.iter().fold(0, |number, &byte| number << 8 | u32::from(byte)));
    match part.first()? {
        marker @ 0x80..=0x8f => Some(u32::from(marker & 0x0f)),
        0xde => number(2),
        0xdf => number(4),
        _ => None,
    }
}

fn find_in_msgpack<const N: usize>(part: &[u8], keys: [&str; N]) -> Option<Found> {
    Packer::Msgpack.check(part).ok()?;
    let open = match part[0] {
        0xde => 3,
        0xdf => 5,
        _ => 1,
    };
    let (mut at, mut found) = (open, Vec::new());
    for _ in 0..pairs(part)? {
        let value = behind_msgpack(part, at)?;
        let end = behind_msgpack(part, value)?;
        let head = match part[at] {
            0xd9 => 2,
            0xda => 3,
            0xdb => 5,
            _ => 1,
        };
        let is = |key: &&str| part[at + head..value] == *key.as_bytes();
        found.extend(keys.iter().position(is).map(|which| (which, value..end)));
        at = end;
    }
    Some((open, found))
}

/// The index behind the value that begins there, in msgpack that has been checked.
fn behind_msgpack(part: &[u8], mut at: usize) -> Option<usize> {
    let mut open = 1_u64;
    while open > 0 {
        let marker = *part.get(at)?;
        let length =
            |bytes: usize| Some(part.get(at + 1..=at + bytes)?.iter().fold(0, |length, &byte| length << 8 | u64::from(byte)));
        // Bytes of the length, bytes behind it, and values inside.
        let (head, data, inside) = match marker {
            0x80..=0x8f => (0, 0, u64::from(marker & 0x0f) * 2),
            0x90..=0x9f => (0, 0, u64::from(marker & 0x0f)),
            0xa0..=0xbf => (0, u64::from(marker & 0x1f), 0),
            0xc4 | 0xd9 => (1, length(1)?, 0),
            0xc5 | 0xda => (2, length(2)?, 0),
            0xc6 | 0xdb => (4, length(4)?, 0),
            0xc7 => (1, length(1)? + 1, 0),
            0xc8 => (2, length(2)? + 1, 0),
            0xc9 => (4, length(4)? + 1, 0),
            0xcc | 0xd0 => (0, 1, 0),
            0xcd | 0xd1 => (0, 2, 0),
            0xca | 0xce | 0xd2 => (0, 4, 0),
            0xcb | 0xcf | 0xd3 => (0, 8, 0),
            0xd4..=0xd8 => (0, (1 << (marker - 0xd4)) + 1, 0),
            0xdc => (2, 0, length(2)?),
            0xdd => (4, 0, length(4)?),
            0xde => (2, 0, length(2)? * 2),
            0xdf => (4, 0, length(4)? * 2),
            _ => (0, 0, 0), // a small number, nothing, true or false
        };
        at = at.checked_add(1 + head)?.checked_add(usize::try_from(data).ok()?)?;
        open = open - 1 + inside;
    }
    Some(at)
}

fn find_in_json<const N: usize>(part: &[u8], keys: [&str; N]) -> Option<Found> {
    let open = part.len() - part.trim_ascii_start().len() + 1;
    if part.get(open - 1) != Some(&b'{') {
        return None;
    }
    let mut reader = serde_json::Deserializer::from_slice(part);
    let found = reader.deserialize_map(Values { json: part, keys }).ok()?;
    reader.end().ok()?;
    Some((open, found))
}

/// Looks for the values of some keys of an object and says where in the bytes they are.
struct Values<'j, 'k, const N: usize> {
    json: &'j [u8],
    keys: [&'k str; N],
}

impl<'j, const N: usize> Visitor<'j> for Values<'j, '_, N> {
    type Value = Vec<(usize, Range<usize>)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'j>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = Vec::new();
        while let Some(key) = map.next_key_seed(KeyBytes)? {
            // What is skipped may hold bytes that are no text: only what is replaced is read.
            match self.keys.iter().position(|wanted| wanted.as_bytes() == &key[..]) {
                Some(which) => {
                    let value: &'j RawValue = map.next_value()?;
                    let start = value.get().as_ptr().addr() - self.json.as_ptr().addr(); // it is lent from there
                    found.push((which, start..start + value.get().len()));
                }
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(found)
    }
}

/// A key, whose bytes need not be text.
struct KeyBytes;

impl<'j> DeserializeSeed<'j> for KeyBytes {
    type Value = Cow<'j, [u8]>;

    fn deserialize<D: Deserializer<'j>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_bytes(self)
    }
}

impl<'j> Visitor<'j> for KeyBytes {
    type Value = Cow<'j, [u8]>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_bytes<E>(self, key: &'j [u8]) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(key))
    }

    fn visit_bytes<E>(self, key: &[u8]) -> Result<Self::Value, E> {
        Ok(Cow::Owned(key.to_vec()))
    }

    fn visit_borrowed_str<E>(self, key: &'j str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(key.as_bytes()))
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(key.as_bytes().to_vec()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{Multipart, Signer};

    const DATE: &str = "2026-11-21T03:01:46.239356Z";

    fn date() -> Date {
        Date::parse(DATE).unwrap()
    }

    #[test]
    fn only_the_date_is_another_and_all_else_stays_byte_for_byte() {
        let later = "2026-11-21T03:01:46.239357Z";
        for (before, after) in [
            (
                r#"{"msg_id": "a_1_2",  "date":"1999", "x": [1.0, {"date": 3}]}"#,
                r#"{"msg_id": "a_1_2",  "date":"DATE", "x": [1.0, {"date": 3}]}"#,
            ),
            (r#"{"date" : {"not": ["a", "date"]} }"#, r#"{"date" : "DATE" }"#),
            (r#"{"date": null, "date": 2}"#, r#"{"date": "DATE", "date": "DATE"}"#),
            (r#"{"d\u0061te": 1e400, "\u00e9": "\ud83d\ude00"}"#, r#"{"d\u0061te": "DATE", "\u00e9": "\ud83d\ude00"}"#),
            (" {\"date\": \"2026-11-21T03:01:46.239356Z\"}\n", " {\"date\": \"LATER\"}\n"),
            (r#"{"a": 1}"#, r#"{"date": "DATE", "a": 1}"#),
            ("{ }", r#"{"date": "DATE" }"#),
        ] {
            let after = after.replace("DATE", DATE).replace("LATER", later);
            let renewed = renewed(Packer::Json, before.as_bytes(), date()).unwrap();
            assert_eq!(String::from_utf8(renewed).unwrap(), after, "{before}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_stay_and_what_is_no_object_is_refused() {
        let mut raw = b"{\"x\": \"\xff\xfe\", \"date\": 1}".to_vec();
        let renewed_raw = renewed(Packer::Json, &raw, date()).unwrap();
        assert_eq!(renewed_raw, [&b"{\"x\": \"\xff\xfe\", \"date\": \""[..], DATE.as_bytes(), b"\"}"].concat());
        raw[2] = 0xfe; // in a key
        assert!(renewed(Packer::Json, &raw, date()).unwrap().starts_with(b"{\"\xfe\": \"\xff"));
        for junk in [&b""[..], b"[]", b"7", b"{", b"{\"date\": 1} x", b"{\"date\": }", b"{\"date\"}", b"\xff"] {
            assert_eq!(renewed(Packer::Json, junk, date()), None, "{junk:?}");
        }
    }

    #[test]
    fn another_id_goes_where_the_old_one_was() {
        let renewed = renewed_as(Packer::Json, br#"{"msg_id": "a", "n": {"msg_id": 1}, "date": "d"}"#, "b\"", date()).unwrap();
        assert_eq!(
            String::from_utf8(renewed).unwrap(),
            format!(r#"{{"msg_id": "b\"", "n": {{"msg_id": 1}}, "date": "{DATE}"}}"#)
        );
        let added = renewed_as(Packer::Json, b"{}", "b", date()).unwrap();
        assert_eq!(
            serde_json::from_slice::<serde_json::Value>(&added).unwrap(),
            serde_json::json!({"msg_id": "b", "date": DATE})
        );
    }

    #[test]
    fn a_msgpack_header_is_renewed_in_place_too() {
        let value = serde_json::json!({"msg_id": "a", "x": {"date": [1, -5, 1e300, null, "\u{e9}".repeat(300)]}, "date": {"a": 1}, "z": -1});
        for shown in [value, serde_json::json!({"date": 1}), serde_json::json!({}), serde_json::json!({"n": vec![0; 70_000]})] {
            let packed = Packer::Msgpack.write(&shown);
            let again = renewed(Packer::Msgpack, &packed, date()).unwrap();
            let mut expected = shown.clone();
            expected["date"] = DATE.into();
            assert_eq!(Value::Object(Packer::Msgpack.read_map(&again).unwrap()), expected);
        }
        let raw = b"\x83\xa1b\xc4\x02\xff\xfe\xa4date\xd6\xff\0\0\0\0\xa1d\x93\xcb\0\0\0\0\0\0\0\0\xc0\xd9\x01a";
        let again = renewed(Packer::Msgpack, raw, date()).unwrap();
        assert_eq!(
            (&again[..12], &again[again.len() - 15..]),
            (&raw[..12], &raw[raw.len() - 15..]),
            "the rest is byte for byte the same"
        );
        for junk in [&b""[..], b"{}", b"\x81", b"\x81\xa4date", b"\x80\x80", b"\xdf\xff\xff\xff\xff", b"\x81\x01\x02"] {
            assert_eq!(renewed(Packer::Msgpack, junk, date()), None, "{junk:?}");
        }
    }

    #[test]
    fn a_request_sent_again_has_its_id_another_signature_and_the_same_other_parts() {
        let mut session = Session::new(Signer::new(b"key"), "s", "u", 1);
        let parts = session.compose("apply_request", date(), b"{}", b"{\"m\": 1}", b"{\"c\": 2}".to_vec());
        let request = Envelope::open(Arc::new(Multipart::pack(&parts))).unwrap();
        let again = resealed(&session, &request, Date::from_unix_us(0)).unwrap();
        assert_ne!(again[1], parts[1]);
        assert_eq!(again[3..], parts[3..]);
        let signed = [&again[2][..], &again[3], &again[4], &again[5]];
        assert!(session.signer().verify(&again[1], signed).is_ok());
        let id = |header: &[u8]| crate::wire::Header::parse(header).unwrap().msg_id.into_owned();
        assert_eq!(id(&again[2]), id(&parts[2]));
    }
}
