//! What each message costs before any decision: packing, checking, parsing, signing. A task message of the usual size: 64-byte signature,
//! 208-byte header, 75 bytes of metadata, three buffers of 150 bytes.
#![allow(missing_docs)]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use pointsman::core::date::Date;
use pointsman::core::wire::{Header, ReplyMetadata, object};
use pointsman::core::{Envelope, Multipart, Session, Signer};
use pointsman::schedulers::task::TaskSpec;

fn wire(c: &mut Criterion) {
    let mut session =
        Session::new(Signer::new(b"c8a26bde-323a3fc84006137c3c739507"), "16f43436-8457fd95b32b1fb3fb111d03", "user", 13193);
    let metadata = br#"{"after": [], "follow": [], "timeout": 0.0, "targets": [], "retries": 0, "label": null}"#;
    let now = Date::from_unix_us(1_790_000_000_239_356);
    let parts = session.compose("apply_request", now, b"{}", metadata, b"{}".to_vec());
    let buffer = [7u8; 150];
    let frames = || std::iter::once(&b"client"[..]).chain(parts.iter().map(Vec::as_slice)).chain([&buffer[..]; 3]);
    let envelope = Envelope::open(Arc::new(Multipart::pack(frames()))).expect("well formed");
    let signer = session.signer().clone();
    let reply = br#"{"started": "2026-11-21T03:01:46.239356Z", "dependencies_met": true, "engine": "14f511c4-c071177869277c35a8465708", "is_broadcast": false, "is_coalescing": false, "original_msg_id": "", "label": null, "status": "ok"}"#;

    let mut group = c.benchmark_group("wire");
    group.bench_function("pack", |b| b.iter(|| Multipart::pack(frames())));
    group.bench_function("verify", |b| b.iter(|| signer.verify(envelope.signature(), envelope.parts())));
    group.bench_function("sign", |b| b.iter(|| signer.sign(envelope.parts())));
    group.bench_function("parse header", |b| {
        b.iter(|| Header::parse(black_box(envelope.header())).map(|header| header.msg_id.len()));
    });
    group.bench_function("parse task metadata", |b| b.iter(|| TaskSpec::parse(black_box(envelope.metadata()))));
    group.bench_function("parse reply metadata", |b| {
        b.iter(|| object::<ReplyMetadata<'_>>(black_box(reply)).map(|metadata| metadata.dependencies_met));
    });
    group.bench_function("compose", |b| b.iter(|| session.compose("task_destination", now, b"{}", b"{}", b"{}".to_vec())));
    group.finish();
}

criterion_group!(benches, wire);
criterion_main!(benches);
