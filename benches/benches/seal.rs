//! What it costs to seal frames and to open them, by both suites, beside copying as many bytes; and to derive a key.
//!
//!     cargo bench -p evenkeel-benches --bench seal

#![allow(missing_docs, reason = "the macros make public functions")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use evenkeel_core::sync::codec::{BULK_FRAME_LEN_MAX, HEADER_LEN, LIVE_FRAME_LEN_MAX, TAG_LEN};
use evenkeel_core::sync::seal::{Crypto, Secret, Suite};
use evenkeel_seal::Ring;

/// An ACK, a full live frame, a full bulk frame.
const LENGTHS: [usize; 3] = [200, LIVE_FRAME_LEN_MAX, BULK_FRAME_LEN_MAX];

fn seal(c: &mut Criterion) {
    let secret = Secret([7; 32]);
    for (name, suite) in [
        ("aes-256-gcm", Suite::AesGcm),
        ("chacha20-poly1305", Suite::ChaCha),
    ] {
        let key = Ring::detect().key(suite, &secret, &[1; 16], b"bench");
        let mut group = c.benchmark_group(name);
        for len in LENGTHS {
            group.throughput(Throughput::Bytes(len as u64));
            let plain = vec![0x5a; len - HEADER_LEN - TAG_LEN];
            let header = [3; HEADER_LEN];
            let mut nonce = [0; 12];
            let mut next = || {
                nonce[0] = u8::wrapping_add(nonce[0], 1);
                nonce
            };
            let mut body = plain.clone();
            group.bench_function(BenchmarkId::new("copied", len), |b| {
                b.iter(|| body.copy_from_slice(black_box(&plain)));
            });
            group.bench_function(BenchmarkId::new("sealed", len), |b| {
                b.iter(|| black_box(key.seal(next(), &header, &mut body)));
            });
            let mut sealed = plain.clone();
            let tag = key.seal([0; 12], &header, &mut sealed);
            sealed.extend(tag);
            // As a receiver does it: what came is copied first.
            let mut open = sealed.clone();
            group.bench_function(BenchmarkId::new("opened", len), |b| {
                b.iter(|| {
                    open.copy_from_slice(&sealed);
                    assert!(key.open([0; 12], &header, &mut open));
                });
            });
        }
        group.finish();
        c.bench_function(&format!("{name}/key"), |b| {
            b.iter(|| Ring::detect().key(suite, black_box(&secret), &[1; 16], b"bench"));
        });
    }
}

criterion_group!(benches, seal);
criterion_main!(benches);
