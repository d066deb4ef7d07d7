//! Arbitrary bytes as a sync frame, as they are and with a header that is mended, so that the messages are
//! reached. What decodes can be encoded, into no more bytes, and decodes as itself; a receiver takes it once.
#![no_main]

use std::sync::Arc;

use evenkeel_core::cluster::NodeId;
use evenkeel_core::sync::codec::{
    self, BULK_FRAME_LEN_MAX, FORMAT_VERSION, FrameItem, FrameWriter, HEADER_LEN,
};
use evenkeel_core::sync::seal::{Sealing, Secret, Secrets};
use evenkeel_core::sync::{Receiver, Refused};
use evenkeel_seal::Ring;
use libfuzzer_sys::fuzz_target;

const CLUSTER: u32 = 1;
const SENDER: u8 = 2;

/// How many messages the body has, by their lengths.
fn message_count(mut body: &[u8]) -> u16 {
    let mut count = 0;
    while let [_, _, _, _, low, high, rest @ ..] = body {
        let len = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
        body = &rest[len..];
        count += 1;
    }
    count
}

/// The bytes as the body of a frame of the cluster, from a member, on its first stream.
fn mended(body: &[u8]) -> Vec<u8> {
    let body = &body[..body.len().min(BULK_FRAME_LEN_MAX - HEADER_LEN)];
    let mut frame = vec![0; HEADER_LEN];
    frame[0] = FORMAT_VERSION;
    frame[1] = 1;
    frame[4..8].copy_from_slice(&CLUSTER.to_le_bytes());
    frame[8] = SENDER;
    frame[12..14].copy_from_slice(&message_count(body).to_le_bytes());
    frame[14..16].copy_from_slice(&((HEADER_LEN + body.len()) as u16).to_le_bytes());
    frame[16] = 1;
    frame.extend(body);
    frame
}

fn check(bytes: &[u8]) {
    let members = [NodeId(1), NodeId(u16::from(SENDER))];
    let mut receiver = Receiver::new(CLUSTER, NodeId(1), &members, None).expect("two members");
    let mut delivered = 0;
    let first = receiver.handle(bytes, &mut |_| delivered += 1);
    let again = receiver.handle(bytes, &mut |_| panic!("taken twice"));
    match first {
        Ok(count) => {
            assert_eq!(count, delivered);
            assert_eq!(again, Err(Refused::Replayed));
        }
        Err(refused) => {
            assert_eq!(delivered, 0);
            assert_eq!(again, Err(refused), "a refused frame leaves nothing behind");
        }
    }
    // Who seals takes nothing of anybody who has not the secret.
    let sealing = Sealing {
        crypto: Arc::new(Ring::detect()),
        secrets: Secrets::new(vec![(1, Secret([7; 32]))]).expect("one with a number"),
        salt: [1; 16],
    };
    let mut receiver = Receiver::new(CLUSTER, NodeId(1), &members, Some(&sealing)).expect("two members");
    let refused = receiver.handle(bytes, &mut |_| panic!("forged"));
    assert!(refused.is_err());
    assert_eq!(receiver.incarnation(NodeId(u16::from(SENDER))), None);
    let Ok(frame) = codec::decode(bytes) else {
        return;
    };
    let mut buf = Vec::new();
    let mut writer = FrameWriter::new(&mut buf, &frame.header, BULK_FRAME_LEN_MAX);
    for item in &frame.items {
        let pushed = match item {
            FrameItem::Sync(m) => writer.push(m.bucket, m.ack_now, &m.body),
            FrameItem::Node(m) => writer.push_node(m),
        };
        assert_eq!(pushed, Ok(()), "{item:?}");
    }
    if writer.finish() > 0 {
        assert!(buf.len() <= bytes.len());
        assert_eq!(codec::decode(&buf), Ok(frame));
    }
}

fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    check(&mended(bytes));
});
