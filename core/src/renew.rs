//! Messages that are sent a second time: the same request under the same id, with a new date in its header and so with another signature,
//! as engines drop a signature that they have seen without a word. All else stays byte for byte, whoever wrote it and whatever it means.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::Envelope;
use crate::date::Date;
use crate::session::{Parts, Session};

/// The header with this date in place of its own; one that happens to be the same is moved on by a microsecond, so that the bytes always
/// differ. Nothing if it is no JSON object. O(bytes).
pub fn renewed(header: &[u8], date: Date) -> Option<Vec<u8>> {
    let with = |date: Date| with_texts(header, [("date", &date.to_string())]);
    let renewed = with(date)?;
    if renewed == header { with(Date::from_unix_us(date.as_unix_us() + 1)) } else { Some(renewed) }
}

/// The same under another id, for a request that is to be told from the one it repeats.
pub fn renewed_as(header: &[u8], msg_id: &str, date: Date) -> Option<Vec<u8>> {
    with_texts(header, [("msg_id", msg_id), ("date", &date.to_string())])
}

/// A request, signed anew under a new date; parent header, metadata and content are the same. Nothing if its header is no JSON object.
/// O(bytes of the four parts): its buffers are not part of what is signed.
pub fn resealed(session: &Session, request: &Envelope, date: Date) -> Option<Parts> {
    let [header, parent, metadata, content] = request.parts();
    Some(session.seal(renewed(header, date)?, parent.to_vec(), metadata.to_vec(), content.to_vec()))
}

/// A JSON object with these strings under these keys, wherever the keys stand in it, or before all else where they do not.
fn with_texts<const N: usize>(json: &[u8], texts: [(&str, &str); N]) -> Option<Vec<u8>> {
    let open = json.len() - json.trim_ascii_start().len();
    if json.get(open) != Some(&b'{') {
        return None;
    }
    let found = Values { json, keys: texts.map(|(key, _)| key) }.find()?;
    let quoted = texts.map(|(_, text)| serde_json::Value::from(text).to_string());
    let mut whole = Vec::with_capacity(json.len() + 64);
    whole.extend_from_slice(&json[..=open]);
    let absent = texts.iter().zip(&quoted).enumerate().filter(|(at, _)| found.iter().all(|(which, _)| which != at));
    let absent: Vec<String> = absent.map(|(_, ((key, _), text))| format!("\"{key}\": {text}")).collect();
    whole.extend_from_slice(absent.join(", ").as_bytes());
    if !absent.is_empty() && json[open + 1..].trim_ascii_start().first() != Some(&b'}') {
        whole.extend_from_slice(b", ");
    }
    let mut from = open + 1;
    for (which, range) in found {
        whole.extend_from_slice(&json[from..range.start]);
        whole.extend_from_slice(quoted[which].as_bytes());
        from = range.end;
    }
    whole.extend_from_slice(&json[from..]);
    Some(whole)
}

/// Looks for the values of some keys of an object and says where in the bytes they are.
struct Values<'j, const N: usize> {
    json: &'j [u8],
    keys: [&'j str; N],
}

impl<'j, const N: usize> Values<'j, N> {
    /// Which of the keys, and where its value is, in the order in which they stand there.
    fn find(self) -> Option<Vec<(usize, Range<usize>)>> {
        let mut reader = serde_json::Deserializer::from_slice(self.json);
        let found = reader.deserialize_map(self).ok()?;
        reader.end().ok()?;
        Some(found)
    }
}

impl<'j, const N: usize> Visitor<'j> for Values<'j, N> {
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
            (r#"{"msg_id": "a_1_2",  "date":"1999", "x": [1.0, {"date": 3}]}"#, r#"{"msg_id": "a_1_2",  "date":"DATE", "x": [1.0, {"date": 3}]}"#),
            (r#"{"date" : {"not": ["a", "date"]} }"#, r#"{"date" : "DATE" }"#),
            (r#"{"date": null, "date": 2}"#, r#"{"date": "DATE", "date": "DATE"}"#),
            (r#"{"d\u0061te": 1e400, "\u00e9": "\ud83d\ude00"}"#, r#"{"d\u0061te": "DATE", "\u00e9": "\ud83d\ude00"}"#),
            (" {\"date\": \"2026-11-21T03:01:46.239356Z\"}\n", " {\"date\": \"LATER\"}\n"),
            (r#"{"a": 1}"#, r#"{"date": "DATE", "a": 1}"#),
            ("{ }", r#"{"date": "DATE" }"#),
        ] {
            let after = after.replace("DATE", DATE).replace("LATER", later);
            let renewed = renewed(before.as_bytes(), date()).unwrap();
            assert_eq!(String::from_utf8(renewed).unwrap(), after, "{before}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_stay_and_what_is_no_object_is_refused() {
        let mut raw = b"{\"x\": \"\xff\xfe\", \"date\": 1}".to_vec();
        let renewed_raw = renewed(&raw, date()).unwrap();
        assert_eq!(renewed_raw, [&b"{\"x\": \"\xff\xfe\", \"date\": \""[..], DATE.as_bytes(), b"\"}"].concat());
        raw[2] = 0xfe; // in a key
        assert!(renewed(&raw, date()).unwrap().starts_with(b"{\"\xfe\": \"\xff"));
        for junk in [&b""[..], b"[]", b"7", b"{", b"{\"date\": 1} x", b"{\"date\": }", b"{\"date\"}", b"\xff"] {
            assert_eq!(renewed(junk, date()), None, "{junk:?}");
        }
    }

    #[test]
    fn another_id_goes_where_the_old_one_was() {
        let renewed = renewed_as(br#"{"msg_id": "a", "n": {"msg_id": 1}, "date": "d"}"#, "b\"", date()).unwrap();
        assert_eq!(String::from_utf8(renewed).unwrap(), format!(r#"{{"msg_id": "b\"", "n": {{"msg_id": 1}}, "date": "{DATE}"}}"#));
        let added = renewed_as(b"{}", "b", date()).unwrap();
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&added).unwrap(), serde_json::json!({"msg_id": "b", "date": DATE}));
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
