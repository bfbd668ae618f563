//! No bytes from outside can panic a parser. Arbitrary bytes, and bytes that start out as what the parser expects.

use std::sync::Arc;

use pointsman::config::{parse_toml, read_arguments};
use pointsman::core::date::Date;
use pointsman::core::db::{Keys, Query, Record};
use pointsman::core::wire::{ContentStatus, Header, Parent, ReplyMetadata, object};
use pointsman::core::{Envelope, Ledger, Multipart, Packer, Session, Signer};
use pointsman::policies::{Axis, Hints, PolicySpec, Registry};
use pointsman::schedulers::task::TaskSpec;
use proptest::prelude::*;
use serde_json::Value;

/// Text that is often almost right: pieces of JSON, keys and values of the protocol, and whatever else.
fn near_json() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"",
        "null",
        "true",
        "1",
        "-1",
        "1e999",
        "\"msg_id\"",
        "\"msg_type\"",
        "\"after\"",
        "\"all\"",
        "\"dependencies\"",
        "\"targets\"",
        "\"timeout\"",
        "\"retries\"",
        "\"label\"",
        "\"#prio=1\"",
        "\"$in\"",
        "\"$glob\"",
        "\"[\"",
        "\"\\u0000\"",
        "\"a\"",
        " ",
    ]);
    prop_oneof![
        prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat()),
        prop::collection::vec(any::<u8>(), 0..80).prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
    ]
}

/// Pieces of msgpack: keys and values of the protocol, lengths that are true or not, and whatever else.
fn near_msgpack() -> impl Strategy<Value = Vec<u8>> {
    let text = |text: &str| [&[0xa0 | text.len() as u8][..], text.as_bytes()].concat();
    let words = ["msg_id", "msg_type", "date", "status", "after", "targets", "timeout", "retries", "label", "#prio=1", "a", "ok"];
    let mut pieces: Vec<Vec<u8>> = words.into_iter().map(text).collect();
    pieces.extend(
        [&[0xc0][..], &[0xc3], &[5], &[0xff], &[0x90], &[0x81], &[0x92], &[0xcb, 0x7f, 0xf8, 0, 0, 0, 0, 0, 0]]
            .map(<[u8]>::to_vec),
    );
    pieces.extend(
        [&[0xc4, 2, 0xff, 0], &[0xd4, 5, 1, 0xc0], &[0xdd, 0xff, 0xff, 0xff], &[0xdb, 0xff, 0xff, 0xff]]
            .map(|b: &[u8; 4]| b.to_vec()),
    );
    prop_oneof![prop::sample::select(pieces), prop::collection::vec(any::<u8>(), 0..6)]
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[$a-z*?\\[\\]]{0,8}".prop_map(Value::from),
        Just(Value::from("2026-11-21T03:01:46Z")),
    ];
    let key = prop::sample::select(vec![
        "msg_id",
        "queue",
        "submitted",
        "label",
        "$in",
        "$nin",
        "$mod",
        "$glob",
        "$all",
        "$exists",
        "$gt",
        "$eq",
        "x",
    ]);
    leaf.prop_recursive(4, 32, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key.clone(), inner), 0..4)
                .prop_map(|pairs| Value::Object(pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn messages_of_any_frames(frames in prop::collection::vec(prop_oneof![
        prop::collection::vec(any::<u8>(), 0..70),
        Just(b"<IDS|MSG>".to_vec()),
        Just(b"{}".to_vec()),
    ], 0..20)) {
        let message = Arc::new(Multipart::pack(&frames));
        if let Ok(envelope) = Envelope::open(message) {
            let mut session = Session::new(Signer::new(b"key"), "s", "u", 1);
            prop_assert!(session.admit(&envelope).is_err(), "nobody signed this");
            let _ = envelope.buffers().map(|buffer| buffer.len()).sum::<usize>();
        }
    }

    #[test]
    fn connections_of_any_bytes(pieces in prop::collection::vec(prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        Just(pointsman::core::zmtp::hello("DEALER", b"id")),
        Just(vec![1, 3, 7, 7, 7, 0, 1, 9]),
        Just(b"\x04\x06\x05READY".to_vec()),
    ], 0..12)) {
        let mut decoder = pointsman::core::zmtp::Decoder::new(100_000);
        let mut bytes = 0;
        for piece in &pieces {
            decoder.room(piece.len())[..piece.len()].copy_from_slice(piece);
            decoder.filled(piece.len());
            bytes += piece.len();
            loop {
                match decoder.next_message() {
                    Ok(Some(message)) => prop_assert!(message.frames().map(<[u8]>::len).sum::<usize>() <= bytes),
                    Ok(None) => break,
                    Err(_) => return Ok(()),
                }
            }
        }
    }

    #[test]
    fn json_of_any_kind(text in near_json()) {
        let bytes = text.as_bytes();
        let _ = Header::parse(bytes).map(|header| header.date());
        let _ = object::<Parent<'_>>(bytes);
        let _ = object::<ReplyMetadata<'_>>(bytes);
        let _ = object::<ContentStatus<'_>>(bytes);
        let _ = TaskSpec::parse(bytes);
        let _ = Date::parse(&text);
        let _ = text.parse::<PolicySpec>();
        let _ = parse_toml(&text);
        let mut ledger = Ledger::default();
        ledger.set(&text, 1);
        prop_assert_eq!(ledger.get(&text), 1);
    }

    /// Whatever it says of its lengths, it is read without panic, within its own size, and by the same rule as it is checked.
    #[test]
    fn msgpack_of_any_kind(pieces in prop::collection::vec(near_msgpack(), 0..24), begin in prop::option::of(0x80_u8..0x90)) {
        let bytes: Vec<u8> = begin.into_iter().chain(pieces.concat()).collect();
        let is_whole = Packer::Msgpack.check(&bytes).is_ok();
        let _ = Header::read(Packer::Msgpack, &bytes).map(|header| header.date());
        let _ = Packer::Msgpack.read::<Parent<'_>>(&bytes);
        let _ = Packer::Msgpack.read::<ReplyMetadata<'_>>(&bytes);
        let spec = TaskSpec::read(Packer::Msgpack, &bytes);
        prop_assert!(is_whole || spec.is_err());
        let json = Packer::Msgpack.to_json(bytes.clone().into());
        prop_assert_eq!(json.is_ok(), is_whole, "{:?}", json);
        if let Ok(json) = json {
            prop_assert!(json.len() <= bytes.len() * 8 + 16);
            let again = Packer::Msgpack.of_json(&json[..]).unwrap();
            prop_assert_eq!(Packer::Msgpack.to_json(again.into()).unwrap(), json);
        }
    }

    #[test]
    fn values_are_the_same_in_json_and_msgpack(value in json_value()) {
        let object = serde_json::json!({"x": value});
        let packed = Packer::Msgpack.of_json(object.to_string().into_bytes()).unwrap();
        prop_assert!(Packer::Msgpack.check(&packed).is_ok());
        prop_assert_eq!(Value::Object(Packer::Msgpack.read_map(&packed).unwrap()), object);
    }

    #[test]
    fn labels_of_any_words(words in prop::collection::vec(prop_oneof![
        "#?(prio|cost|tenant|key|weight|hedge|deadline|x)=?[-0-9a-zé.#=]{0,6}",
        any::<String>(),
    ], 0..8)) {
        let (hints, wrong) = Hints::parse(&words.join(" "));
        prop_assert!(hints.priority.is_finite() && hints.cost_s.is_none_or(|cost| cost >= 0.0 && cost.is_finite()));
        prop_assert!(hints.weight.is_none_or(|weight| weight > 0.0 && weight.is_finite()));
        prop_assert!(wrong.is_none_or(|wrong| wrong.hint.chars().count() <= 40));
    }

    #[test]
    fn policies_of_any_spelling(text in "[a-z]{0,5}\\[?[-a-z0-9=,\\[\\]{}\"\\\\. ]{0,20}\\]?") {
        if let Ok(spec) = text.parse::<PolicySpec>() {
            let registry = Registry::builtin();
            for axis in Axis::ALL {
                let _ = registry.resolved(axis, &spec);
            }
            prop_assert_eq!(&spec.to_string().parse::<PolicySpec>().unwrap(), &spec);
        }
    }

    #[test]
    fn queries_of_any_shape(value in json_value()) {
        if let Value::Object(query) = &value
            && let Ok(query) = Query::parse(query) {
                let _ = query.matches(&Record::new("a_1_2"));
                let _ = query.only_ids();
            }
        let _ = Keys::parse(&[value.to_string()]);
        let _ = TaskSpec::parse(value.to_string().as_bytes());
    }

    #[test]
    fn command_lines_of_any_words(words in prop::collection::vec("(--)?[a-zA-Z.=-]{0,12}", 0..6)) {
        let _ = read_arguments(&words, &|name| (name == "IPP_PROFILE_DIR").then(|| "/nonexistent".into()));
    }

    #[test]
    fn specs_read_back_as_written(name in "[a-z][a-z0-9_-]{0,8}", keys in prop::collection::btree_map("[a-z]{1,4}", -100i64..100, 0..4)) {
        let inside: Vec<String> = keys.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let spec: PolicySpec = format!("{name}[{}]", inside.join(", ")).parse().unwrap();
        prop_assert_eq!(&spec.to_string().parse::<PolicySpec>().unwrap(), &spec);
        prop_assert_eq!(&serde_json::from_str::<PolicySpec>(&serde_json::to_string(&spec).unwrap()).unwrap(), &spec);
    }
}
