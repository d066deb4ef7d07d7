//! What a frame looks like on its way between two nodes: the frame as the engine made it, and a check behind it. That is a
//! datagram; over TCP its length comes before it (`transport`).
//!
//! | bytes | |
//! |---|---|
//! | 0 to n | frame |
//! | n to n + 8 | xxh3-64 of the frame, little-endian; its seed is made of cluster, sender and receiver |
//!
//! A frame of format 1 has nothing by which damage shows: one flipped bit makes another incarnation of its sender, after
//! which all true frames are refused. The checksums of UDP and TCP are 16 bits long, and UDP's may be left out. So whatever is
//! damaged, cut or meant for another node is dropped by the check before the engine sees it. The check has no secret: it
//! keeps out garbage, and no one who wants to be taken for a node.

use evenkeel_core::cluster::{Incarnation, NodeId, PeerId};
use evenkeel_core::sync::SyncBody;
use evenkeel_core::sync::codec::{FrameHeader, FrameWriter, LIVE_FRAME_LEN_MAX};
use socket2::SockFilter;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Bytes behind the frame.
pub(crate) const CHECK_LEN: usize = 8;

/// One direction between two nodes of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Way {
    pub(crate) cluster: u32,
    pub(crate) from: NodeId,
    pub(crate) to: NodeId,
}

impl Way {
    /// What goes behind a frame.
    pub(crate) fn check(self, frame: &[u8]) -> [u8; CHECK_LEN] {
        let seed = u64::from(self.cluster) << 32 | u64::from(self.from.0) << 16 | u64::from(self.to.0);
        xxh3_64_with_seed(frame, seed).to_le_bytes()
    }

    /// The frame of a datagram, if it came as it was sent on this way.
    pub(crate) fn open(self, datagram: &[u8]) -> Option<&[u8]> {
        let (frame, check) = datagram.split_last_chunk()?;
        (self.check(frame) == *check).then_some(frame)
    }

    /// Whether the frame's header says that it is from who sends on this way.
    pub(crate) fn is_of_sender(self, frame: &[u8]) -> bool {
        FrameHeader::peek(frame).is_ok_and(|(header, _)| header.from.node == self.from)
    }

    /// Has the kernel drop what comes to a UDP socket and cannot be a frame on this way, before it takes room: by
    /// version, cluster, sender and length of the frame's header. What passes may still be damaged.
    pub(crate) fn filter(self) -> Vec<SockFilter> {
        let head = self.head();
        let word = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        // The version; type, flags and key behind it are the frame's own.
        let told = 0xff00_0000;
        let checks = [
            load(WORD, 0),
            (op::AND, 0, told),
            (op::JEQ, ELSE_DROP, word(0) & told),
            load(WORD, 4),
            (op::JEQ, ELSE_DROP, word(4)),
            load(HALF, 8),
            (op::JEQ, ELSE_DROP, word(8) >> 16),
            // The length that the header says, little-endian, and what is around the frame: the datagram's own.
            load(BYTE, 14),
            (op::TAX, 0, 0),
            load(BYTE, 15),
            (op::SHL, 0, 8),
            (op::ADD_X, 0, 0),
            (op::ADD, 0, UDP_HEADER_LEN + CHECK_LEN as u32),
            (op::TAX, 0, 0),
            (op::LEN, 0, 0),
            (op::JEQ_X, ELSE_DROP, 0),
            (op::RETURN, 0, u32::MAX),
        ];
        let end = checks.len();
        let checks = checks.into_iter().enumerate().map(|(at, (code, jump, k))| {
            let over = if jump == ELSE_DROP { end - at - 1 } else { 0 };
            SockFilter::new(code, 0, u8::try_from(over).unwrap_or(u8::MAX), k)
        });
        checks.chain(drop_all()).collect()
    }

    /// A header's beginning, as core writes it.
    fn head(self) -> Vec<u8> {
        let header = FrameHeader {
            cluster: self.cluster,
            from: PeerId {
                node: self.from,
                incarnation: Incarnation(0),
            },
            stream: 0,
            packet_number: 0,
        };
        let mut frame = Vec::new();
        let mut writer = FrameWriter::new(&mut frame, &header, LIVE_FRAME_LEN_MAX);
        let _ = writer.push(0, false, &SyncBody::Heartbeat { last: 0 });
        writer.finish();
        frame.resize(frame.len().max(16), 0);
        frame
    }
}

/// Has the kernel drop, and count, all that comes to a socket.
pub(crate) fn drop_all() -> [SockFilter; 1] {
    [SockFilter::new(op::RETURN, 0, 0, 0)]
}

/// A filter sees a datagram with its header.
const UDP_HEADER_LEN: u32 = 8;

/// Instructions of the classic BPF (Linux: Documentation/networking/filter.rst). One that reads past the end drops.
mod op {
    pub(super) const LOAD: u16 = 0x20;
    pub(super) const LEN: u16 = 0x80;
    pub(super) const AND: u16 = 0x54;
    pub(super) const ADD: u16 = 0x04;
    pub(super) const ADD_X: u16 = 0x0c;
    pub(super) const SHL: u16 = 0x64;
    pub(super) const TAX: u16 = 0x07;
    pub(super) const JEQ: u16 = 0x15;
    pub(super) const JEQ_X: u16 = 0x1d;
    pub(super) const RETURN: u16 = 0x06;
}
const WORD: u16 = 0x00;
const HALF: u16 = 0x08;
const BYTE: u16 = 0x10;
const ELSE_DROP: u8 = 1;

/// Loads something of the frame.
const fn load(size: u16, at: u32) -> (u16, u8, u32) {
    (op::LOAD | size, 0, UDP_HEADER_LEN + at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WAY: Way = Way {
        cluster: 0x0102_0304,
        from: NodeId(0x0506),
        to: NodeId(7),
    };

    fn datagram(frame: &[u8]) -> Vec<u8> {
        [frame, &WAY.check(frame)].concat()
    }

    #[test]
    fn what_is_damaged_cut_or_for_another_is_no_frame() {
        let frame = WAY.head();
        let good = datagram(&frame);
        assert_eq!(WAY.open(&good), Some(&frame[..]));
        for bit in 0..good.len() * 8 {
            let mut flipped = good.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(WAY.open(&flipped), None, "bit {bit}");
        }
        for len in 0..good.len() {
            assert_eq!(WAY.open(&good[..len]), None, "{len} bytes");
        }
        for way in [
            Way { cluster: 8, ..WAY },
            Way {
                from: NodeId(8),
                ..WAY
            },
            Way { to: NodeId(8), ..WAY },
            Way {
                from: WAY.to,
                to: WAY.from,
                ..WAY
            },
        ] {
            assert_eq!(way.open(&good), None, "{way:?}");
        }
    }

    proptest! {
        #[test]
        fn frames_come_as_they_were_sent(frame in prop::collection::vec(any::<u8>(), 0..3000)) {
            let sent = datagram(&frame);
            prop_assert_eq!(WAY.open(&sent), Some(&frame[..]));
        }
    }

    /// A socket with the filter, and one that sends to it.
    fn ends() -> (std::net::UdpSocket, std::net::UdpSocket) {
        let bind = || std::net::UdpSocket::bind("127.0.0.1:0").expect("loopback has room");
        let (to, from) = (bind(), bind());
        socket2::SockRef::from(&to)
            .attach_filter(&WAY.filter())
            .expect("the kernel takes the filter");
        from.connect(to.local_addr().expect("it has one"))
            .expect("loopback");
        (to, from)
    }

    fn next(socket: &std::net::UdpSocket) -> Vec<u8> {
        let mut buffer = [0; 4096];
        let len = socket.recv(&mut buffer).expect("something comes");
        buffer[..len].to_vec()
    }

    #[test]
    fn the_kernel_drops_what_cannot_be_a_frame() {
        let mut frame = WAY.head();
        let mut good = Vec::new();
        for len in [frame.len(), 255, 256, 257, 1400, 2304] {
            frame.resize(len, 0);
            frame[14..16].copy_from_slice(&(len as u16).to_le_bytes());
            // Type, flags, key, stream, number of messages and all that follows are for others to check: what is sealed passes, too.
            for at in (1..4).chain(10..14).chain(16..len) {
                frame[at] = frame[at].wrapping_add(len as u8);
            }
            good.push(datagram(&frame));
        }
        let (to, from) = ends();
        for good in &good {
            from.send(good).expect("sent");
            assert_eq!(&next(&to), good);
        }
        let mut bad = Vec::new();
        for good in &good {
            for at in [0, 4, 5, 6, 7, 8, 9, 14, 15] {
                for bit in 0..8 {
                    let mut other = good.clone();
                    other[at] ^= 1 << bit;
                    bad.push(other);
                }
            }
            for len in [0, 1, 8, 15, 16, good.len() - CHECK_LEN, good.len() - 1] {
                bad.push(good[..len].to_vec());
            }
            bad.push([&good[..], &[0]].concat());
        }
        assert!(bad.len() > 400);
        for bad in &bad {
            from.send(bad).expect("sent");
        }
        from.send(&good[0]).expect("sent");
        assert_eq!(next(&to), good[0], "none of the others came before");
    }
}
