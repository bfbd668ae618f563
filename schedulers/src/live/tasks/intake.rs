//! Requests as they come in: handed to the machine, or refused with the reason. Nobody who is genuine is left without an answer, and nobody
//! who is not gets one.

use std::sync::Arc;

use pointsman_core::net::{Clock, Frame, MAX_FRAMES, Opened, PortError, pack};
use pointsman_core::wire::{ErrorContent, Status};
use pointsman_core::{Envelope, Multipart};
use serde_json::json;

use super::{Driver, Request, read_reply, watched};
use crate::admit::{self, Denied, Refusal};
use crate::task::{Event, InvalidSpec, Measured, ReplyKind};

impl Driver {
    /// Takes in the request that has just been received.
    pub(super) fn request(&mut self) -> Result<(), PortError> {
        if let Some(beginning) = self.buffer.beginning_of_too_long() {
            let beginning = Multipart::pack(beginning);
            return self.deny(admit::too_long(&beginning, self.session.signer(), self.session.packer(), MAX_FRAMES));
        }
        let message = pack(self.buffer.frames_mut());
        self.submit(message, false)
    }

    pub(super) fn submit(&mut self, message: Multipart, from_hub: bool) -> Result<(), PortError> {
        let packer = self.session.packer();
        let signer = self.session.signer();
        let opened = admit::open(message, signer, packer)
            .and_then(|envelope| if from_hub { Ok(envelope) } else { admit::verify(&envelope, signer).map(|()| envelope) });
        let envelope = match opened {
            Ok(envelope) => envelope,
            Err(denied) => return self.deny(denied),
        };
        let header = match admit::header(&envelope, packer) {
            Ok(header) => header,
            Err(denied) => return self.deny(denied),
        };
        let bytes = envelope.message().size_bytes();
        let spec = match admit::spec(&envelope, &header, packer) {
            Ok(mut spec) => {
                spec.inherited = from_hub;
                spec.facts = self.facts.of_request(&envelope, &header, spec.label.hints);
                if let Some(wrong) = &spec.label.wrong {
                    let (task, client) = (header.msg_id.escape_debug(), header.session.escape_debug());
                    // Kinds of their own, so that one does not keep the other out of the log.
                    let kind = if wrong.is_unknown { "label hint unknown" } else { "label hint ignored" };
                    self.complain(kind, format_args!("{wrong} (task {task}, client session {client})"));
                }
                Ok(spec)
            }
            Err(refusal) => {
                let (task, client) = (header.msg_id.escape_debug(), header.session.escape_debug());
                self.complain("refused task", format_args!("{} (task {task}, client session {client})", refusal.evalue));
                let why = InvalidSpec(refusal.evalue.clone());
                self.refused = Some(refusal);
                Err(why)
            }
        };
        let serial = if from_hub { 0 } else { self.received };
        let payload = Request { kept: Some(envelope.clone()), serial, status: Status::Ok };
        let (now, rejected) = (self.now(), self.machine.counters().rejected);
        self.machine.handle(now, Event::Submit { id: &header.msg_id, spec, payload, bytes });
        // A repeated id was rejected; the hub must not take it for a new request.
        if self.machine.counters().rejected == rejected {
            self.hub.submitted(&header.msg_id, &envelope);
            match watched(&mut self.watch) {
                Some(watch) if from_hub => watch.request_again(&envelope),
                Some(watch) => watch.request(self.buffer.frames_mut()),
                None => {}
            }
        } else {
            self.refused = None;
        }
        Ok(())
    }

    /// Says that a request is not taken: in the log, and to its sender if that is known to be genuine.
    fn deny(&mut self, denied: Denied) -> Result<(), PortError> {
        let Denied { kind, detail, answer } = denied;
        self.complain(kind, detail);
        let Some((client, parent, Refusal { ename, evalue })) = answer.map(|answer| *answer) else { return Ok(()) };
        let content = ErrorContent::new(ename, evalue).to_json();
        let parts = self.session.compose("apply_reply", Clock::date(), &parent, br#"{"status":"error"}"#, content);
        let sent = self.clients.send_parts(std::iter::once(&client[..]).chain(parts.iter().map(Vec::as_slice)));
        self.unless_gone(sent)
    }

    /// A result of more frames than are taken: its task has failed, as its engine has nothing else to say.
    pub(super) fn result_too_long(&mut self, beginning: &Multipart) -> Result<(), PortError> {
        let frames: Vec<Frame> = beginning.frames().map(Frame::copy_of).collect();
        let read = match Opened::new(&frames) {
            Ok(reply) if reply.identity_count() == 2 => read_reply(&reply, &self.session),
            _ => Err(("malformed reply", format!("more than {MAX_FRAMES} frames, and not those of a reply"))),
        };
        let (id, engine) = match read {
            Ok(read) => (read.id.into_owned(), read.engine.to_owned()),
            Err((kind, detail)) => {
                self.complain(kind, detail);
                return Ok(());
            }
        };
        let evalue = format!(
            "the result has more than {MAX_FRAMES} frames: each large array or byte string in it travels in a frame of its own; return fewer \
             and larger ones"
        );
        self.complain("malformed reply", format_args!("{evalue} (task {})", id.escape_debug()));
        let content = ErrorContent::new("ValueError", evalue).to_json();
        let metadata = json!({"status": "error", "engine": engine}).to_string();
        let parts = self.session.compose("apply_reply", Clock::date(), beginning.frame(5), metadata.as_bytes(), content);
        let identities = [beginning.frame(0), beginning.frame(1)];
        let message = Arc::new(Multipart::pack(identities.into_iter().chain(parts.iter().map(Vec::as_slice))));
        let payload = Request { kept: Envelope::open(message).ok(), serial: 0, status: Status::Error };
        let (now, kind) = (self.now(), ReplyKind::Failed);
        self.machine.handle(now, Event::Result { id: &id, engine: &engine, kind, payload, measured: Measured::default() });
        self.act()
    }
}
