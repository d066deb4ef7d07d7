//! What comes in from other nodes, before any worker sees it: each frame once, of this cluster, of the
//! sender's present life, or counted and dropped.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use super::codec::{
    self, FrameError, FrameHeader, FrameItem, FrameType, HEADER_LEN, Hello, STREAM_BULK, STREAM_CONTROL,
    STREAM_COUNT_MAX,
};
use super::seal::{Life, NotOpened, OpenKey, Opener, Salt, Sealing, Secrets, StreamKeys, generation};
use super::window::Window;
use super::{NodeMessage, SyncMessage};
use crate::cluster::{Incarnation, NODE_COUNT_MAX, NodeId, PeerId};

/// A message, and for whom it is.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "nearly all are of the large kind")]
pub enum Delivered {
    /// For the worker of its bucket.
    Sync(SyncMessage),
    /// For the node.
    Node(PeerId, NodeMessage),
    /// A node of this life greets, by this salt, and is to be answered.
    Hello(PeerId, Salt),
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
    /// It is not sealed, and frames of this cluster are.
    Unsealed,
    /// It is sealed by a secret that this node does not have.
    NoSecret,
    /// It was not made by who it says, or not as it is.
    Forged,
    /// Its sender has begun a life of which this node knows no salt yet, and no numbers.
    Ungreeted,
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
    /// [`Refused::Unsealed`].
    pub unsealed: u64,
    /// [`Refused::NoSecret`].
    pub no_secret: u64,
    /// [`Refused::Forged`].
    pub forged: u64,
    /// [`Refused::Ungreeted`].
    pub ungreeted: u64,
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

/// The receiving end of a node. Memory: at most [`STREAM_COUNT_MAX`] + 1 windows of about 530 bytes, and as many pairs of keys,
/// for each of at most [`NODE_COUNT_MAX`] peers, each made with the first good frame of its stream.
#[derive(Debug)]
pub struct Receiver {
    cluster: u32,
    me: NodeId,
    /// By node.
    peers: Vec<PeerWindows>,
    /// Of a cluster whose frames are sealed: this life's salt, and how they are opened.
    sealed: Option<(Salt, Opener)>,
    counters: ReceiverCounters,
}

impl Receiver {
    /// For node `me` of `cluster`, which has these `members` (`me` may be among them).
    /// Without `sealing` frames are taken as they are, from whomever.
    pub fn new(
        cluster: u32,
        me: NodeId,
        members: &[NodeId],
        sealing: Option<&Sealing>,
    ) -> Result<Self, TooManyMembers> {
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
            sealed: sealing.map(|s| (s.salt, Opener::new(s))),
            counters: ReceiverCounters::default(),
        })
    }

    /// What is accepted from now on.
    pub fn set_secrets(&mut self, secrets: &Secrets) {
        if let Some((_, opener)) = &mut self.sealed {
            opener.secrets = secrets.clone();
        }
    }

    /// Nodes whose present life this node can hear only once it has greeted it: none where frames are not sealed.
    pub fn ungreeted(&self) -> impl Iterator<Item = NodeId> + '_ {
        let all = self
            .peers
            .iter()
            .filter(|p| self.sealed.is_some() && p.is_ungreeted());
        all.map(|p| p.node)
    }

    /// A frame has come in. Its messages are handed to `deliver` in the sender's order, so those of one frame
    /// about one bucket keep theirs; or it is refused, and then nothing has changed but a counter. Returns
    /// how many messages there were.
    pub fn handle(&mut self, frame: &[u8], deliver: &mut impl FnMut(Delivered)) -> Result<usize, Refused> {
        self.counters.frames += 1;
        let done = self.check(frame).map(|taken| {
            let (from, items) = match taken {
                Taken::Messages(from, items) => (from, items),
                Taken::Answer => return 0,
                Taken::Hello(from, salt) => {
                    deliver(Delivered::Hello(from, salt));
                    return 1;
                }
            };
            let count = items.len();
            for item in items {
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
            Err(Refused::Unsealed) => c.unsealed += 1,
            Err(Refused::NoSecret) => c.no_secret += 1,
            Err(Refused::Forged) => c.forged += 1,
            Err(Refused::Ungreeted) => c.ungreeted += 1,
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

    /// What a frame says that is to be taken. Cheap checks come first; the number counts as seen only once the whole frame was read,
    /// so that a damaged copy does not keep the good one out.
    fn check(&mut self, frame: &[u8]) -> Result<Taken, Refused> {
        let (header, frame_type) = FrameHeader::peek(frame).map_err(Refused::Frame)?;
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
        if let Some((salt, opener)) = &mut self.sealed {
            if codec::key_of(frame) == 0 {
                return Err(Refused::Unsealed);
            }
            if frame_type == FrameType::Hello {
                let (hello, greeted) = peer.hello(frame, &header, salt, opener, self.me)?;
                self.counters.restarts += u64::from(greeted);
                // Who has greeted may wait to be greeted; an answer that greets nobody any more ends it.
                let asks = greeted || hello.echo == Salt::default();
                return Ok(if asks {
                    Taken::Hello(from, hello.salt)
                } else {
                    Taken::Answer
                });
            }
        } else if frame_type == FrameType::Hello {
            return Err(Refused::Ungreeted);
        }
        let restarted = peer.incarnation < Some(from.incarnation);
        if !restarted {
            if peer.incarnation != Some(from.incarnation) {
                return Err(Refused::OldIncarnation);
            }
            peer.check(stream, packet_number)?;
        }
        let (items, key) = match &mut self.sealed {
            None => (codec::decode(frame).map_err(Refused::Frame)?.items, None),
            Some((_, opener)) => {
                let life = peer.life.filter(|_| !restarted).ok_or(Refused::Ungreeted)?;
                // Numbers grow one by one: what is two keys ahead is not worth making its key.
                if generation(packet_number) > generation(peer.highest(stream)) + 1 {
                    return Err(Refused::Forged);
                }
                let keys = peer.keys(stream);
                let opened = opener.open(frame, &header, HEADER_LEN, life, keys, Some(self.me));
                let (plain, key) = opened.map_err(Refused::from)?;
                (codec::decode(plain).map_err(Refused::Frame)?.items, key)
            }
        };
        if restarted {
            peer.streams.clear();
            peer.incarnation = Some(from.incarnation);
            self.counters.restarts += 1;
        }
        peer.mark(stream, packet_number, key);
        Ok(Taken::Messages(from, items))
    }
}

/// What a frame said.
enum Taken {
    Messages(PeerId, Vec<FrameItem>),
    /// A HELLO that is to be answered, and one that is not.
    Hello(PeerId, Salt),
    Answer,
}

impl From<NotOpened> for Refused {
    fn from(why: NotOpened) -> Self {
        match why {
            NotOpened::NoSecret => Refused::NoSecret,
            NotOpened::Forged => Refused::Forged,
        }
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
    /// Of the same life, if frames are sealed.
    life: Option<Life>,
    /// A life after it has said HELLO.
    wanted: bool,
    /// By number; at most [`STREAM_COUNT_MAX`] + 1.
    streams: Vec<Stream>,
}

/// What was seen of a stream.
#[derive(Debug)]
struct Stream {
    number: u16,
    window: Box<Window>,
    keys: StreamKeys,
}

impl PeerWindows {
    fn new(node: NodeId) -> Self {
        PeerWindows {
            node,
            incarnation: None,
            life: None,
            wanted: false,
            streams: Vec::new(),
        }
    }

    fn is_ungreeted(&self) -> bool {
        self.life.is_none() || self.wanted
    }

    fn stream(&self, number: u16) -> Option<&Stream> {
        let at = self.streams.binary_search_by_key(&number, |s| s.number).ok()?;
        self.streams.get(at)
    }

    fn keys(&self, stream: u16) -> Option<&StreamKeys> {
        self.stream(stream).map(|s| &s.keys)
    }

    /// The highest number that was seen of a stream.
    fn highest(&self, stream: u16) -> u64 {
        self.stream(stream).map_or(0, |s| s.window.highest())
    }

    fn check(&self, stream: u16, number: u64) -> Result<(), Refused> {
        self.stream(stream).map_or(Ok(()), |s| s.window.check(number))
    }

    fn mark(&mut self, stream: u16, number: u64, key: Option<OpenKey>) {
        let at = match self.streams.binary_search_by_key(&stream, |s| s.number) {
            Ok(at) => {
                self.streams[at].window.mark(number);
                at
            }
            Err(at) => {
                self.begin(at, stream, Window::new(number));
                at
            }
        };
        if let Some(key) = key {
            self.streams[at].keys.insert(key);
        }
    }

    fn begin(&mut self, at: usize, number: u16, window: Window) {
        let stream = Stream {
            number,
            window: Box::new(window),
            keys: StreamKeys::default(),
        };
        self.streams.insert(at, stream);
    }

    /// A greeting, and whether a life begins with it: if it repeats this node's salt it was made after this node had begun, and what it
    /// says of its streams holds. Its own number is not looked at: greeting again changes nothing.
    fn hello(
        &mut self,
        frame: &[u8],
        header: &FrameHeader,
        salt: &Salt,
        opener: &mut Opener,
        me: NodeId,
    ) -> Result<(Hello, bool), Refused> {
        let short = Refused::Frame(FrameError::Truncated);
        let (life, clear) = codec::hello_life(frame).ok_or(short)?;
        if header.stream != STREAM_CONTROL {
            return Err(Refused::Stream);
        }
        let (plain, _) = opener.open(frame, header, clear, life, None, Some(me))?;
        let hello = codec::read_hello(plain).map_err(Refused::Frame)?;
        let incarnation = Some(header.from.incarnation);
        if self.incarnation == incarnation && self.life == Some(life) {
            return Ok((hello, false));
        }
        if self.incarnation >= incarnation {
            // A life that is over, or a second one of the same incarnation: it hears from the answer that others are there, and what it
            // says itself is not heard before it takes a later incarnation.
            let asks = hello.echo == Salt::default();
            return if asks {
                Ok((hello, false))
            } else {
                Err(Refused::OldIncarnation)
            };
        }
        if hello.echo != *salt {
            self.wanted = true;
            return Ok((hello, false));
        }
        self.incarnation = incarnation;
        self.life = Some(life);
        self.wanted = false;
        self.streams.clear();
        let mut next: Vec<(u16, u64)> = Vec::with_capacity(2 * hello.numbers.len() + 1);
        for (worker, n) in (0u16..).zip(&hello.numbers) {
            next.extend([(worker, n.live), (STREAM_BULK + worker, n.bulk)]);
        }
        next.push((STREAM_CONTROL, header.packet_number.saturating_add(1)));
        next.sort_unstable();
        for (stream, next) in next.into_iter().filter(|(_, next)| *next > 0) {
            self.begin(self.streams.len(), stream, Window::from(next));
        }
        Ok((hello, true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Epoch, GroupId};
    use crate::sync::SyncBody;
    use crate::sync::WINDOW_LEN;
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
        Receiver::new(CLUSTER, NodeId(1), &[NodeId(3), NodeId(1), NodeId(2)], None).unwrap()
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
        assert!(Receiver::new(1, NodeId(1), &nodes, None).is_ok());
        assert_eq!(
            Receiver::new(1, NodeId(99), &nodes, None).err(),
            Some(TooManyMembers)
        );
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
