//! What is checked of a request before the machine sees it: that it is genuine, and that an engine could answer it. Engines drop what they
//! can not read, and a scheduler that sent it would wait for ever; here whoever has signed it is told at once what is wrong.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use pointsman_core::packer::{PARTS, Unreadable};
use pointsman_core::wire::Header;
use pointsman_core::{DELIMITER, Envelope, Malformed, Multipart, Packer, Signer, find_delimiter};
use serde::Deserialize;
use serde_json::Value;

use crate::task::{InvalidSpec, TaskSpec};

/// Why a request is not taken, for its sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The exception's name.
    pub(crate) ename: &'static str,
    /// What is wrong, and what would be right.
    pub(crate) evalue: String,
}

impl Refusal {
    fn unreadable(part: usize, why: &Unreadable) -> Refusal {
        Refusal { ename: "TypeError", evalue: format!("the request's {} can not be read: {why}", PARTS[part]) }
    }
}

/// A request that no machine sees.
#[derive(Debug)]
pub(crate) struct Denied {
    /// What it is counted as.
    pub(crate) kind: &'static str,
    /// What is logged.
    pub(crate) detail: String,
    /// Who can be told, as it is genuine, under which parent header, and what.
    pub(crate) answer: Option<Box<(Bytes, Bytes, Refusal)>>,
}

impl Denied {
    fn silently(kind: &'static str, detail: impl ToString) -> Denied {
        Denied { kind, detail: detail.to_string(), answer: None }
    }

    fn told(kind: &'static str, client: Bytes, header: Bytes, packer: Packer, refusal: Refusal) -> Denied {
        // A parent header that is none would be one more thing that its sender can not read.
        let parent = if packer.check(&header).is_ok() { header } else { Bytes::from_static(b"{}") };
        Denied { kind, detail: refusal.evalue.clone(), answer: Some(Box::new((client, parent, refusal))) }
    }
}

/// Opens a request, `[client] message`. Its signature has yet to be checked. O(identities).
pub(crate) fn open(message: Multipart, signer: &Signer, packer: Packer) -> Result<Envelope, Denied> {
    let message = Arc::new(message);
    match Envelope::open(message.clone()) {
        Ok(envelope) if envelope.identity_count() == 1 => Ok(envelope),
        Ok(_) => Err(Denied::silently("malformed request", "it has other than one identity")),
        Err(Malformed::TooShort(_)) if message.frame(1) == DELIMITER => {
            let missing = PARTS[message.len().saturating_sub(3).min(3)];
            Err(incomplete(&message, signer, packer, format!("the request is incomplete: it has no {missing}")))
        }
        Err(malformed) => Err(Denied::silently("malformed request", malformed)),
    }
}

/// Checks the signature of a request. O(bytes of its parts).
pub(crate) fn verify(envelope: &Envelope, signer: &Signer) -> Result<(), Denied> {
    let checked = signer.verify(envelope.signature(), envelope.parts());
    checked.map(drop).map_err(|refused| Denied::silently("refused request", refused))
}

/// What to say to a request of more frames than are taken, of which these are the first.
pub(crate) fn too_long(beginning: &Multipart, signer: &Signer, packer: Packer, limit: usize) -> Denied {
    if find_delimiter(beginning.frames()) != Some(1) {
        return Denied::silently("malformed request", format_args!("more than {limit} frames, and not those of a message"));
    }
    let evalue = format!(
        "the request has more than {limit} frames: each large array or byte string that a task is given travels in a frame of its own; \
         give it fewer and larger ones, or push them first"
    );
    incomplete(beginning, signer, packer, evalue)
}

/// A message that is not whole, or too long, beginning with an identity and the delimiter: genuine if what is there of its parts is signed.
fn incomplete(message: &Multipart, signer: &Signer, packer: Packer, evalue: String) -> Denied {
    if let Err(refused) = signer.verify(message.frame(2), [3, 4, 5, 6].map(|part| message.frame(part))) {
        return Denied::silently("refused request", refused);
    }
    let (client, header) = (Bytes::copy_from_slice(message.frame(0)), Bytes::copy_from_slice(message.frame(3)));
    Denied::told("malformed request", client, header, packer, Refusal { ename: "ValueError", evalue })
}

/// Reads the header of a genuine request.
pub(crate) fn header(envelope: &Envelope, packer: Packer) -> Result<Header<'_>, Denied> {
    Header::read(packer, envelope.header()).and_then(|header| packer.check_depth(envelope.header()).map(|()| header)).map_err(
        |why| {
            let client = Bytes::copy_from_slice(envelope.identity(0));
            Denied::told("unreadable request", client, envelope.part_bytes(0), packer, Refusal::unreadable(0, &why))
        },
    )
}

/// What a task asks for, if an engine could answer it.
pub(crate) fn spec(envelope: &Envelope, header: &Header<'_>, packer: Packer) -> Result<TaskSpec, Refusal> {
    let read = TaskSpec::read(packer, envelope.metadata());
    let spec =
        read.map_err(|InvalidSpec(why)| Refusal { ename: "InvalidDependency", evalue: format!("task metadata: {why}") })?;
    answerable(envelope, header, packer)?;
    Ok(spec)
}

/// Whether an engine that gets this request answers it. Its metadata have been read. O(bytes of its parts).
pub(crate) fn answerable(envelope: &Envelope, header: &Header<'_>, packer: Packer) -> Result<(), Refusal> {
    let type_of = |evalue: String| Refusal { ename: "TypeError", evalue };
    if header.session.is_empty() {
        let evalue = "the request's header has no `session`: clients that hear of such a request in engines' output fail at it";
        return Err(type_of(evalue.to_owned()));
    }
    if let Some(version) = header.version.as_deref()
        && version.split('.').next().is_none_or(|major| major.trim().parse::<u32>().is_err())
    {
        let version = version.chars().take(20).collect::<String>().escape_debug().to_string();
        return Err(type_of(format!(
            "the request's header has the version '{version}', which should be as '{}'",
            wire_version()
        )));
    }
    packer.check_depth(envelope.metadata()).map_err(|why| Refusal::unreadable(2, &why))?;
    if packer != Packer::Json || envelope.parent() != b"{}" {
        check_any(packer, envelope.parent()).map_err(|why| Refusal::unreadable(1, &why))?;
    }
    if envelope.content() != packer.empty_object() {
        packer.check(envelope.content()).map_err(|why| Refusal::unreadable(3, &why))?;
    }
    if header.msg_type == "apply_request" {
        return Ok(());
    }
    let Some((_, needed)) = ANSWERED.iter().find(|(msg_type, _)| *msg_type == header.msg_type) else {
        let msg_type = header.msg_type.chars().take(100).collect::<String>().escape_debug().to_string();
        let known: Vec<&str> = ANSWERED.iter().map(|(msg_type, _)| *msg_type).collect();
        let evalue = format!(
            "no engine answers a request of the type '{msg_type}': there are apply_request, {}; messages that have no answer go directly to an \
             engine",
            known.join(", ")
        );
        return Err(Refusal { ename: "NotImplementedError", evalue });
    };
    let content: Asked<'_> = packer.read(envelope.content()).map_err(|why| Refusal::unreadable(3, &why))?;
    for field in *needed {
        let is_there = match field {
            Field::Code => content.code.is_some(),
            Field::Cursor => content.cursor_pos.as_ref().is_some_and(Value::is_i64),
            Field::History => [&content.hist_access_type, &content.output, &content.raw].iter().all(|field| field.is_some()),
        };
        if !is_there {
            return Err(type_of(format!("the content of an {} needs {}", header.msg_type, field.needed())));
        }
    }
    Ok(())
}

/// A part that need not be an object, as stock peers do not mind: whether it can be read at all.
fn check_any(packer: Packer, part: &[u8]) -> Result<(), Unreadable> {
    let is_null = match packer {
        Packer::Json => part.trim_ascii() == b"null",
        Packer::Msgpack => part == b"\xc0",
    };
    if is_null { Ok(()) } else { packer.check(part) }
}

fn wire_version() -> &'static str {
    pointsman_core::wire::VERSION
}

/// Something that a content must have for an engine to answer.
#[derive(Clone, Copy)]
enum Field {
    Code,
    Cursor,
    History,
}

impl Field {
    fn needed(self) -> &'static str {
        match self {
            Field::Code => "a text `code`",
            Field::Cursor => "a number `cursor_pos`",
            Field::History => "`hist_access_type`, `output` and `raw`",
        }
    }
}

/// What engines answer besides `apply_request`, and what they need for it.
const ANSWERED: [(&str, &[Field]); 10] = [
    ("execute_request", &[Field::Code]),
    ("complete_request", &[Field::Code, Field::Cursor]),
    ("inspect_request", &[Field::Code, Field::Cursor]),
    ("is_complete_request", &[Field::Code]),
    ("history_request", &[Field::History]),
    ("comm_info_request", &[]),
    ("kernel_info_request", &[]),
    ("connect_request", &[]),
    ("interrupt_request", &[]),
    ("shutdown_request", &[]),
];

#[derive(Deserialize)]
struct Asked<'a> {
    #[serde(borrow, default)]
    code: Option<Cow<'a, str>>,
    #[serde(default)]
    cursor_pos: Option<Value>,
    #[serde(default)]
    hist_access_type: Option<Value>,
    #[serde(default)]
    output: Option<Value>,
    #[serde(default)]
    raw: Option<Value>,
}
