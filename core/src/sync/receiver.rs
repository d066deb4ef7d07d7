//! What comes in from other nodes, before any worker sees it: each frame once, of this cluster, of the
//! sender's present life, or counted and dropped.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use super::codec::{self, FrameError, FrameHeader, FrameItem, STREAM_CONTROL, STREAM_COUNT_MAX};
use super::{NodeMessage, SyncMessage};
use crate::cluster::{Incarnation, NODE_COUNT_MAX, NodeId, PeerId};

/// Packet numbers below the highest one of a stream that may still come.
pub const WINDOW_LEN: u64 = 4096;

/// A message, and for whom it is.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "nearly all are of the large kind")]
pub enum Delivered {
    /// For the worker of its bucket.
    Sync(SyncMessage),
    /// For the node.
    Node(PeerId, NodeMessage),
}

/// Why a frame was dropped: as a whole, and without a trace but its counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It cannot be read, or is of another version.
    Frame(FrameError),
    /// It is of another cluster.
    Cluster,
    /// It says that this node sent it.
    Own,
    /// Its sender is not a member.
    NotMember,
    /// There is no such stream.
    Stream,
    /// Its sender has been started again since.
    OldIncarnation,
    /// It was here before.
    Replayed,
    /// Its number is so far below the highest one that nobody knows whether it was here before.
    TooOld,
}

/// What came in, in frames unless said otherwise. All of `frames` are in `accepted` or in one of those below
/// it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceiverCounters {
    /// All.
    pub frames: u64,
    /// Taken.
    pub accepted: u64,
    /// [`Refused::Frame`]: of another version, type or key, or with something critical that is not known.
    pub unsupported: u64,
    /// [`Refused::Frame`]: all others.
    pub malformed: u64,
    /// [`Refused::Cluster`].
    pub other_cluster: u64,
    /// [`Refused::Own`].
    pub own: u64,
    /// [`Refused::NotMember`].
    pub not_member: u64,
    /// [`Refused::Stream`].
    pub stream: u64,
    /// [`Refused::OldIncarnation`].
    pub old_incarnation: u64,
    /// [`Refused::Replayed`].
    pub replayed: u64,
    /// [`Refused::TooOld`].
    pub too_old: u64,
    /// Messages of accepted frames that were handed on.
    pub messages: u64,
    /// New lives of peers, the first one that was heard of each included.
    pub restarts: u64,
}

/// More members than [`NODE_COUNT_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyMembers;

impl fmt::Display for TooManyMembers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a cluster has at most {NODE_COUNT_MAX} nodes")
    }
}

impl core::error::Error for TooManyMembers {}

/// The receiving end of a node. Memory: at most [`STREAM_COUNT_MAX`] + 1 windows of about 530 bytes for each
/// of at most [`NODE_COUNT_MAX`] peers, each made with the first good frame of its stream.
#[derive(Debug)]
pub struct Receiver {
    cluster: u32,
    me: NodeId,
    /// By node.
    peers: Vec<PeerWindows>,
    counters: ReceiverCounters,
}

impl Receiver {
    /// For node `me` of `cluster`, which has these `members` (`me` may be among them).
    pub fn new(cluster: u32, me: NodeId, members: &[NodeId]) -> Result<Self, TooManyMembers> {
        let mut nodes: Vec<NodeId> = members.iter().copied().filter(|node| *node != me).collect();
        nodes.sort_unstable();
        nodes.dedup();
        if nodes.len() >= NODE_COUNT_MAX {
            return Err(TooManyMembers);
        }
        let peers = nodes.into_iter().map(PeerWindows::new).collect();
        Ok(Receiver {
            cluster,
            me,
            peers,
            counters: ReceiverCounters::default(),
        })
    }

    /// A frame has come in. Its messages are handed to `deliver` in the sender's order, so those of one frame
    /// about one bucket keep theirs; or it is refused, and then nothing has changed but a counter. Returns
    /// how many messages there were.
    pub fn handle(&mut self, frame: &[u8], deliver: &mut impl FnMut(Delivered)) -> Result<usize, Refused> {
        self.counters.frames += 1;
        let done = self.check(frame).map(|items| {
            let count = items.len();
            for (from, item) in items {
                deliver(match item {
                    FrameItem::Sync(message) => Delivered::Sync(message),
                    FrameItem::Node(message) => Delivered::Node(from, message),
                });
            }
            count
        });
        let c = &mut self.counters;
        match done {
            Ok(count) => {
                c.accepted += 1;
                c.messages += count as u64;
            }
            Err(Refused::Frame(error)) if is_unsupported(error) => c.unsupported += 1,
            Err(Refused::Frame(_)) => c.malformed += 1,
            Err(Refused::Cluster) => c.other_cluster += 1,
            Err(Refused::Own) => c.own += 1,
            Err(Refused::NotMember) => c.not_member += 1,
            Err(Refused::Stream) => c.stream += 1,
            Err(Refused::OldIncarnation) => c.old_incarnation += 1,
            Err(Refused::Replayed) => c.replayed += 1,
            Err(Refused::TooOld) => c.too_old += 1,
        }
        done
    }

    /// The present life of a node, by the frames that were accepted; `None` if there was none.
    pub fn incarnation(&self, node: NodeId) -> Option<Incarnation> {
        let at = self.peers.binary_search_by_key(&node, |peer| peer.node).ok()?;
        self.peers.get(at)?.incarnation
    }

    /// What came in so far.
    pub fn counters(&self) -> &ReceiverCounters {
        &self.counters
    }

    /// The messages of a frame that is to be taken. Cheap checks come first; the number counts as seen only
    /// once the whole frame was read, so that a damaged copy does not keep the good one out.
    fn check(
        &mut self,
        frame: &[u8],
    ) -> Result<impl ExactSizeIterator<Item = (PeerId, FrameItem)> + use<>, Refused> {
        let header = FrameHeader::read(frame).map_err(Refused::Frame)?;
        let FrameHeader {
            cluster,
            from,
            stream,
            packet_number,
        } = header;
        if cluster != self.cluster {
            return Err(Refused::Cluster);
        }
        if from.node == self.me {
            return Err(Refused::Own);
        }
        let at = self.peers.binary_search_by_key(&from.node, |peer| peer.node);
        let peer = at.ok().and_then(|at| self.peers.get_mut(at));
        let peer = peer.ok_or(Refused::NotMember)?;
        if stream >= STREAM_COUNT_MAX && stream != STREAM_CONTROL {
            return Err(Refused::Stream);
        }
        let restarted = peer.incarnation < Some(from.incarnation);
        if !restarted {
            if peer.incarnation != Some(from.incarnation) {
                return Err(Refused::OldIncarnation);
            }
            peer.check(stream, packet_number)?;
        }
        let frame = codec::decode(frame).map_err(Refused::Frame)?;
        if restarted {
            peer.streams.clear();
            peer.incarnation = Some(from.incarnation);
            self.counters.restarts += 1;
        }
        peer.mark(stream, packet_number);
        Ok(frame.items.into_iter().map(move |item| (from, item)))
    }
}

/// Whether the sender speaks what this node does not.
const fn is_unsupported(error: FrameError) -> bool {
    matches!(
        error,
        FrameError::Version(_)
            | FrameError::Type(_)
            | FrameError::Key(_)
            | FrameError::UnknownMessage(_)
            | FrameError::UnknownRecord(_)
    )
}

/// What was seen of a node.
#[derive(Debug)]
struct PeerWindows {
    node: NodeId,
    incarnation: Option<Incarnation>,
    /// By stream; at most [`STREAM_COUNT_MAX`] + 1.
    streams: Vec<(u16, Box<Window>)>,
}

impl PeerWindows {
    fn new(node: NodeId) -> Self {
        PeerWindows {
            node,
            incarnation: None,
            streams: Vec::new(),
        }
    }

    fn check(&self, stream: u16, number: u64) -> Result<(), Refused> {
        let at = self.streams.binary_search_by_key(&stream, |(stream, _)| *stream);
        match at.ok().and_then(|at| self.streams.get(at)) {
            Some((_, window)) => window.check(number),
            None => Ok(()),
        }
    }

    fn mark(&mut self, stream: u16, number: u64) {
        match self.streams.binary_search_by_key(&stream, |(stream, _)| *stream) {
            Ok(at) => self.streams[at].1.mark(number),
            Err(at) => self.streams.insert(at, (stream, Box::new(Window::new(number)))),
        }
    }
}

/// Which of the last [`WINDOW_LEN`] packet numbers of a stream were seen.
#[derive(Debug)]
struct Window {
    highest: u64,
    /// Bit `n % WINDOW_LEN` of number n.
    seen: [u64; (WINDOW_LEN / 64) as usize],
}

impl Window {
    /// One in which `number` is the first that was seen. Lower ones may still come.
    fn new(number: u64) -> Self {
        let mut window = Window {
            highest: number,
            seen: [0; (WINDOW_LEN / 64) as usize],
        };
        window.mark(number);
        window
    }

    fn bit(number: u64) -> (usize, u64) {
        let bit = number % WINDOW_LEN;
        ((bit / 64) as usize, 1 << (bit % 64))
    }

    fn check(&self, number: u64) -> Result<(), Refused> {
        if number > self.highest {
            return Ok(());
        }
        if self.highest - number >= WINDOW_LEN {
            return Err(Refused::TooOld);
        }
        let (word, bit) = Self::bit(number);
        if self.seen[word] & bit != 0 {
            return Err(Refused::Replayed);
        }
        Ok(())
    }

    fn mark(&mut self, number: u64) {
        if number > self.highest {
            // The places of the numbers between belonged to those that leave the window.
            let ahead = (number - self.highest).min(WINDOW_LEN);
            for back in 0..ahead {
                let (word, bit) = Self::bit(number - back);
                self.seen[word] &= !bit;
            }
            self.highest = number;
        }
        let (word, bit) = Self::bit(number);
        self.seen[word] |= bit;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Epoch, GroupId};
    use crate::sync::SyncBody;
    use crate::sync::codec::{FrameWriter, LIVE_FRAME_LEN_MAX};
    use alloc::vec;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const CLUSTER: u32 = 7;
    const PEER: PeerId = PeerId {
        node: NodeId(2),
        incarnation: Incarnation(100),
    };

    fn receiver() -> Receiver {
        Receiver::new(CLUSTER, NodeId(1), &[NodeId(3), NodeId(1), NodeId(2)]).unwrap()
    }

    fn header(packet_number: u64) -> FrameHeader {
        FrameHeader {
            cluster: CLUSTER,
            from: PEER,
            stream: 0,
            packet_number,
        }
    }

    /// A HEARTBEAT of bucket 5 whose LSN is the packet number (modulo 2^48).
    fn frame(header: FrameHeader) -> Vec<u8> {
        let mut buf = Vec::new();
        let mut writer = FrameWriter::new(&mut buf, &header, LIVE_FRAME_LEN_MAX);
        let last = header.packet_number & crate::sync::LSN_MAX;
        writer.push(5, true, &SyncBody::Heartbeat { last }).unwrap();
        assert_eq!(writer.finish(), 1);
        buf
    }

    /// Hands a frame over; what was delivered.
    fn handle(receiver: &mut Receiver, header: FrameHeader) -> Result<Vec<Delivered>, Refused> {
        let mut delivered = Vec::new();
        let done = receiver.handle(&frame(header), &mut |message| delivered.push(message));
        done.map(|count| {
            assert_eq!(count, delivered.len());
            delivered
        })
    }

    /// What came of frames with these packet numbers.
    fn numbers(receiver: &mut Receiver, numbers: &[u64]) -> Vec<Option<Refused>> {
        let each = numbers.iter();
        each.map(|n| handle(receiver, header(*n)).err()).collect()
    }

    #[test]
    fn a_message_is_handed_on_with_its_sender() {
        let mut receiver = receiver();
        let message = SyncMessage {
            from: PEER,
            bucket: 5,
            ack_now: true,
            body: SyncBody::Heartbeat { last: 9 },
        };
        assert_eq!(
            handle(&mut receiver, header(9)),
            Ok(vec![Delivered::Sync(message)])
        );
        assert_eq!(receiver.incarnation(PEER.node), Some(PEER.incarnation));
        assert_eq!(receiver.incarnation(NodeId(3)), None);
        let expected = ReceiverCounters {
            frames: 1,
            accepted: 1,
            messages: 1,
            restarts: 1,
            ..ReceiverCounters::default()
        };
        assert_eq!(*receiver.counters(), expected);
    }

    #[test]
    fn order_of_a_frame_is_kept() {
        let mut receiver = receiver();
        let mut buf = Vec::new();
        let mut writer = FrameWriter::new(&mut buf, &header(1), LIVE_FRAME_LEN_MAX);
        let handover = NodeMessage::Handover {
            group: GroupId::default(),
            epoch: Epoch::default(),
        };
        for (bucket, last) in [(5, 1), (6, 1), (5, 2)] {
            writer.push(bucket, false, &SyncBody::Heartbeat { last }).unwrap();
        }
        writer.push_node(&handover).unwrap();
        writer.finish();
        let mut seen = Vec::new();
        let done = receiver.handle(&buf, &mut |message| {
            seen.push(match message {
                Delivered::Sync(SyncMessage {
                    bucket,
                    body: SyncBody::Heartbeat { last },
                    ..
                }) => (bucket, last),
                Delivered::Node(from, message) => {
                    assert_eq!((from, &message), (PEER, &handover));
                    (u16::MAX, 0)
                }
                other => panic!("{other:?}"),
            });
        });
        assert_eq!(done, Ok(4));
        assert_eq!(seen, [(5, 1), (6, 1), (5, 2), (u16::MAX, 0)]);
        assert_eq!(receiver.counters().messages, 4);
    }

    #[test]
    fn replayed_reordered_and_old() {
        let mut receiver = receiver();
        let replayed = Some(Refused::Replayed);
        let seen = numbers(&mut receiver, &[10, 12, 11, 12, 10, 11, 9, 9]);
        assert_eq!(
            seen,
            [None, None, None, replayed, replayed, replayed, None, replayed]
        );
        // The lowest of the window, and the one below it. A number that had the lowest one's place was seen.
        let high = 20_000;
        let edge = high - WINDOW_LEN;
        assert_eq!(numbers(&mut receiver, &[(edge + 1) % WINDOW_LEN]), [None]);
        let seen = numbers(&mut receiver, &[high, edge + 1, edge, 12, edge + 1]);
        assert_eq!(
            seen,
            [None, None, Some(Refused::TooOld), Some(Refused::TooOld), replayed]
        );
        // The last number that there is.
        assert_eq!(
            numbers(&mut receiver, &[u64::MAX, u64::MAX, 0]),
            [None, replayed, Some(Refused::TooOld)]
        );
        let c = receiver.counters();
        assert_eq!((c.replayed, c.too_old, c.accepted), (6, 3, 8));
    }

    #[test]
    fn each_stream_counts_for_itself() {
        let mut receiver = receiver();
        for stream in [0, 1, STREAM_COUNT_MAX - 1, STREAM_CONTROL] {
            let header = FrameHeader { stream, ..header(1) };
            assert!(handle(&mut receiver, header).is_ok());
            assert_eq!(handle(&mut receiver, header), Err(Refused::Replayed));
        }
        let header = FrameHeader {
            stream: STREAM_COUNT_MAX,
            ..header(1)
        };
        assert_eq!(handle(&mut receiver, header), Err(Refused::Stream));
        assert_eq!(receiver.counters().stream, 1);
    }

    #[test]
    fn a_new_life_begins_anew_and_the_old_one_is_over() {
        let mut receiver = receiver();
        let life = |incarnation, packet_number| FrameHeader {
            from: PeerId {
                incarnation: Incarnation(incarnation),
                ..PEER
            },
            ..header(packet_number)
        };
        assert!(handle(&mut receiver, life(100, 50_000)).is_ok());
        assert!(handle(&mut receiver, life(101, 1)).is_ok());
        assert_eq!(
            handle(&mut receiver, life(100, 50_001)),
            Err(Refused::OldIncarnation)
        );
        assert_eq!(handle(&mut receiver, life(101, 1)), Err(Refused::Replayed));
        assert!(handle(&mut receiver, life(101, 2)).is_ok());
        // Another node is not touched by it.
        let mut other = life(1, 1);
        other.from.node = NodeId(3);
        assert!(handle(&mut receiver, other).is_ok());
        assert_eq!(receiver.incarnation(PEER.node), Some(Incarnation(101)));
        assert_eq!(receiver.counters().restarts, 3);
        assert_eq!(receiver.counters().old_incarnation, 1);
    }

    #[test]
    fn strangers_are_counted_and_change_nothing() {
        let mut receiver = receiver();
        let cluster = FrameHeader {
            cluster: 8,
            ..header(1)
        };
        let node = |node| FrameHeader {
            from: PeerId {
                node: NodeId(node),
                ..PEER
            },
            ..header(1)
        };
        assert_eq!(handle(&mut receiver, cluster), Err(Refused::Cluster));
        assert_eq!(handle(&mut receiver, node(1)), Err(Refused::Own));
        assert_eq!(handle(&mut receiver, node(4)), Err(Refused::NotMember));
        assert_eq!(handle(&mut receiver, node(0)), Err(Refused::NotMember));
        let mut version = frame(header(1));
        version[0] = 1;
        let refused = Refused::Frame(FrameError::Version(1));
        assert_eq!(receiver.handle(&version, &mut |_| panic!()), Err(refused));
        let expected = ReceiverCounters {
            frames: 5,
            other_cluster: 1,
            own: 1,
            not_member: 2,
            unsupported: 1,
            ..ReceiverCounters::default()
        };
        assert_eq!(*receiver.counters(), expected);
        assert!(handle(&mut receiver, header(1)).is_ok(), "number 1 was not spent");
    }

    #[test]
    fn a_damaged_frame_spends_neither_number_nor_life() {
        let mut receiver = receiver();
        assert!(handle(&mut receiver, header(1)).is_ok());
        let mut bytes = frame(FrameHeader {
            from: PeerId {
                incarnation: Incarnation(200),
                ..PEER
            },
            ..header(2)
        });
        // The bucket's high byte.
        bytes[codec::HEADER_LEN + 3] = 0xff;
        let refused = Refused::Frame(FrameError::Bad(codec::Field::Bucket));
        assert_eq!(receiver.handle(&bytes, &mut |_| panic!()), Err(refused));
        assert_eq!(receiver.incarnation(PEER.node), Some(PEER.incarnation));
        assert!(handle(&mut receiver, header(2)).is_ok());
        let c = receiver.counters();
        assert_eq!((c.frames, c.accepted, c.malformed), (3, 2, 1));
    }

    #[test]
    fn members_are_bounded() {
        let nodes: Vec<NodeId> = (1..=NODE_COUNT_MAX as u16).map(NodeId).collect();
        assert!(Receiver::new(1, NodeId(1), &nodes).is_ok());
        assert_eq!(Receiver::new(1, NodeId(99), &nodes).err(), Some(TooManyMembers));
    }

    proptest! {
        /// Against a set of all numbers that were ever seen.
        #[test]
        fn a_window_is_a_set(steps in prop::collection::vec((0u64..6000, any::<bool>()), 1..400)) {
            let mut receiver = receiver();
            let mut seen = BTreeSet::new();
            let mut highest: u64 = 10_000;
            for (step, ahead) in steps {
                let number = if ahead { highest + step } else { highest.saturating_sub(step) };
                let expected = match seen.last() {
                    Some(last) if number + WINDOW_LEN <= *last => Some(Refused::TooOld),
                    _ if seen.contains(&number) => Some(Refused::Replayed),
                    _ => None,
                };
                prop_assert_eq!(handle(&mut receiver, header(number)).err(), expected);
                if expected.is_none() {
                    seen.insert(number);
                    highest = highest.max(number);
                }
            }
            prop_assert_eq!(receiver.counters().accepted, seen.len() as u64);
        }
    }
}
