//! What the task scheduler tells the hub: of each task that it was submitted, sent, and answered, in that order. The scheduler has checked and
//! read the messages; they come along only if records are kept.

use std::sync::Arc;

use crate::Envelope;
use crate::wire::Status;

/// Something that happened to a task.
#[derive(Clone, Debug)]
pub enum TaskNews {
    /// A client has submitted it.
    Submitted {
        /// The task.
        id: Box<str>,
        /// `[client] message`.
        request: Option<Envelope>,
    },
    /// It was sent to an engine, perhaps not for the first time.
    Sent {
        /// The task.
        id: Box<str>,
        /// The engine's uuid.
        engine: Arc<str>,
    },
    /// It was answered.
    Ended {
        /// The task.
        id: Box<str>,
        /// How it ended.
        status: Status,
        /// `[uuid][client] message` as the engine sent it, or an error of the scheduler's own, `[] message`.
        reply: Option<Envelope>,
    },
}

impl TaskNews {
    /// Bytes it holds, about.
    pub fn size_bytes(&self) -> usize {
        let message = match self {
            TaskNews::Submitted { request: message, .. } | TaskNews::Ended { reply: message, .. } => message.as_ref(),
            TaskNews::Sent { .. } => None,
        };
        128 + message.map_or(0, |envelope| envelope.message().size_bytes())
    }

    /// Lets go of the buffers that it holds: what is left is small. The record will say that they were not kept.
    pub fn shed(&mut self) {
        if let TaskNews::Submitted { request: Some(message), .. } | TaskNews::Ended { reply: Some(message), .. } = self {
            *message = message.without_buffers();
        }
    }
}
