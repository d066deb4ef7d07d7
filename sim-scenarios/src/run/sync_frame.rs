//! Frames between nodes, for counting what they say and for keeping some of it from arriving.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_core::cluster::{NodeId, PeerId};
use evenkeel_core::sync::codec::{
    FORMAT_VERSION, Frame, FrameHeader, FrameItem, FrameType, FrameWriter, decode,
};
use evenkeel_core::sync::seal::{Lens, Suite};
use evenkeel_core::sync::{LiveRecord, NodeMessage, SyncBody};
use evenkeel_core::time::Instant;
use evenkeel_io_sim::{Filter, Owner, Place};
use evenkeel_seal::Ring;

use super::cluster;
use crate::mechanism::Kind;
use crate::oracle::{self, Closes};
use crate::plan::net;
use crate::scenario::{Action, Fault, NODE_COUNT_MAX, Scenario, Tampering};

/// What is counted of the traffic between nodes: messages of each [`Kind`], then frames and their bytes, then records
/// that an ACK says were refused for want of room.
pub const SYNC_COUNTERS: [&str; COUNTER_COUNT] = [
    "live",
    "close",
    "heartbeat",
    "ack",
    "nack",
    "skip",
    "hint",
    "pull",
    "slot",
    "digest",
    "watermark",
    "merged",
    "offer",
    "presence",
    "fenced",
    "handover",
    "vrrp",
    "frames",
    "bytes",
    "refused",
];

/// Where nodes listen for each other.
const SYNC_UDP_PORT: u16 = 5679;

pub(crate) const COUNTER_COUNT: usize = Kind::ALL.len() + 3;
const FRAMES: usize = Kind::ALL.len();
const BYTES: usize = FRAMES + 1;
const REFUSED: usize = FRAMES + 2;

fn kind(item: &FrameItem) -> Kind {
    match item {
        FrameItem::Sync(message) => match &message.body {
            SyncBody::Live(section) if section.records.iter().any(|r| matches!(r, LiveRecord::Close(..))) => {
                Kind::Close
            }
            SyncBody::Live(_) => Kind::Live,
            SyncBody::Heartbeat { .. } => Kind::Heartbeat,
            SyncBody::Ack { .. } => Kind::Ack,
            SyncBody::Nack { .. } => Kind::Nack,
            SyncBody::Skip { .. } => Kind::Skip,
            SyncBody::Hint { .. } => Kind::Hint,
            SyncBody::Pull { .. } => Kind::Pull,
            SyncBody::SlotBegin { .. }
            | SyncBody::SlotRecords { .. }
            | SyncBody::SlotEnd { .. }
            | SyncBody::SlotsEmpty { .. } => Kind::Slot,
            SyncBody::Digest { .. } => Kind::Digest,
            SyncBody::Watermark { .. } => Kind::Watermark,
            SyncBody::Merged { .. } => Kind::Merged,
            SyncBody::Offer { .. } | SyncBody::OfferSeen { .. } => Kind::Offer,
        },
        FrameItem::Node(message) => match message {
            NodeMessage::Heartbeat { .. } => Kind::Presence,
            NodeMessage::Fenced { .. } => Kind::Fenced,
            NodeMessage::Handover { .. } => Kind::Handover,
        },
    }
}

/// Where the UDP header of an Ethernet frame is.
fn udp_at(frame: &[u8]) -> Option<usize> {
    match frame.get(12..14)? {
        [0x08, 0x00] if frame.get(23) == Some(&17) => Some(14 + usize::from(frame.get(14)? & 0xf) * 4),
        [0x86, 0xdd] if frame.get(20) == Some(&17) => Some(54),
        _ => None,
    }
}

/// Whether it is an advertisement of a virtual router.
fn is_vrrp(frame: &[u8]) -> bool {
    match frame.get(12..14) {
        Some([0x08, 0x00]) => frame.get(23) == Some(&112),
        Some([0x86, 0xdd]) => frame.get(20) == Some(&112),
        _ => false,
    }
}

/// The node that sent an advertisement, by its source address.
fn vrrp_sender(frame: &[u8]) -> Option<u16> {
    let source: IpAddr = match frame.get(12..14)? {
        [0x08, 0x00] => <[u8; 4]>::try_from(frame.get(26..30)?).ok()?.into(),
        _ => <[u8; 16]>::try_from(frame.get(22..38)?).ok()?.into(),
    };
    let mut nodes = (1..).take(NODE_COUNT_MAX as usize);
    nodes.find(|&node| {
        let (v4, v6) = net::vrrp_source(node);
        source == v4 || source == v6
    })
}

/// The datagram's payload, if it is between nodes.
pub(crate) fn payload(frame: &[u8]) -> Option<&[u8]> {
    let udp = udp_at(frame)?;
    if frame.get(udp + 2..udp + 4)? != SYNC_UDP_PORT.to_be_bytes() {
        return None;
    }
    let len = usize::from(u16::from_be_bytes(*frame.get(udp + 4..)?.first_chunk()?));
    frame.get(udp + 8..udp + len)
}

/// The node to which a frame goes, by its link-layer address on the sync network.
pub(crate) fn receiver(frame: &[u8]) -> Option<u16> {
    let [0x02, 0x5c, 0, 0, high, low] = *frame.first_chunk()? else {
        return None;
    };
    Some(u16::from_be_bytes([high, low]))
}

/// Reads frames: with the secrets, where they are sealed.
#[derive(Debug, Default)]
pub(crate) struct Reader(Option<Box<Lens>>);

impl Reader {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        let lens = || Lens::new(Arc::new(Ring::with(Suite::AesGcm)), cluster::secrets());
        Reader(cluster::is_sealed(scenario).then(|| Box::new(lens())))
    }

    /// What an Ethernet frame between nodes says; `None`: it is none, says nothing, or nobody can read it.
    pub(crate) fn read(&mut self, frame: &[u8]) -> Option<Frame> {
        let payload = payload(frame)?;
        let open = match &mut self.0 {
            Some(lens) => lens.open(payload, receiver(frame).map(NodeId))?,
            None => payload,
        };
        decode(open).ok()
    }

    /// Learns from a HELLO by what its sender's frames are opened, though nobody wants to read it now.
    fn overhear(&mut self, frame: &[u8]) {
        if let (Some(lens), Some(payload)) = (&mut self.0, payload(frame))
            && FrameHeader::peek(payload).is_ok_and(|(_, kind)| kind == FrameType::Hello)
        {
            lens.open(payload, receiver(frame).map(NodeId));
        }
    }

    /// A frame as its sender would have sealed it for the node that this Ethernet frame goes to.
    fn seal(&mut self, plain: Vec<u8>, frame: &[u8]) -> Option<Vec<u8>> {
        match &mut self.0 {
            Some(lens) => lens.seal(plain, receiver(frame).map(NodeId)),
            None => Some(plain),
        }
    }
}

/// What the last frame said. The same one goes to every other node: it is read once.
#[derive(Debug, Default)]
pub(crate) struct LastFrame {
    reader: Reader,
    payload: Vec<u8>,
    counts: [u64; COUNTER_COUNT],
    slots: bool,
    /// What it says is closed, until that is asked for.
    closes: Vec<Closes>,
    /// What it says of closes, of whatever kind, until that is asked for.
    said: Vec<oracle::Said>,
}

impl LastFrame {
    pub(crate) fn new(reader: Reader) -> Self {
        LastFrame {
            reader,
            ..LastFrame::default()
        }
    }

    /// What the last frame says is closed; nothing if it is the same as the one before.
    pub(crate) fn closes(&mut self) -> Vec<Closes> {
        std::mem::take(&mut self.closes)
    }

    /// What the last frame says of closes; nothing if it is the same as the one before.
    pub(crate) fn said(&mut self) -> Vec<oracle::Said> {
        std::mem::take(&mut self.said)
    }
}

/// Counts what a frame says. Whether slots are in it.
pub(crate) fn count(frame: &[u8], last: &mut LastFrame, counts: &mut [u64; COUNTER_COUNT]) -> bool {
    let Some(payload) = payload(frame) else {
        return false;
    };
    counts[FRAMES] += 1;
    counts[BYTES] += frame.len() as u64;
    if last.payload != payload {
        last.payload.clear();
        last.payload.extend_from_slice(payload);
        last.counts = [0; COUNTER_COUNT];
        last.closes.clear();
        last.said.clear();
        let said = last.reader.read(frame);
        last.slots = said.is_some_and(|said| {
            hear_closes(&said, receiver(frame), &mut last.said);
            look(&said, &mut last.counts, &mut last.closes)
        });
    }
    for (count, said) in counts.iter_mut().zip(last.counts) {
        *count += said;
    }
    last.slots
}

/// How often a message counts: one about many slots so many times.
fn slot_count(item: &FrameItem) -> u64 {
    match item {
        FrameItem::Sync(message) => match &message.body {
            SyncBody::Pull { slots, .. } => slots.len() as u64,
            SyncBody::SlotsEmpty { count, .. } => u64::from(*count),
            _ => 1,
        },
        FrameItem::Node(_) => 1,
    }
}

fn look(decoded: &Frame, counts: &mut [u64; COUNTER_COUNT], closes: &mut Vec<Closes>) -> bool {
    let mut slots = false;
    for item in &decoded.items {
        let kind = kind(item);
        slots |= kind == Kind::Slot;
        if let Some(at) = Kind::ALL.iter().position(|k| k.1 == kind) {
            counts[at] += slot_count(item);
        }
        let FrameItem::Sync(message) = item else {
            continue;
        };
        match &message.body {
            SyncBody::Ack { refused, .. } => {
                let records = refused.iter().map(|r| r.last.saturating_sub(r.first) + 1);
                counts[REFUSED] += records.sum::<u64>();
            }
            SyncBody::Live(section) if kind == Kind::Close => {
                let closed = section
                    .records
                    .iter()
                    .filter(|r| matches!(r, LiveRecord::Close(..)));
                closes.push(Closes {
                    sender: decoded.header.from,
                    group: section.group,
                    epoch: section.epoch,
                    count: closed.count() as u64,
                });
            }
            _ => {}
        }
    }
    slots
}

/// What a frame for a node says of sessions that are closed, and of who has heard it.
fn hear_closes(decoded: &Frame, to: Option<u16>, all: &mut Vec<oracle::Said>) {
    let by = decoded.header.from;
    for item in &decoded.items {
        let FrameItem::Sync(message) = item else { continue };
        let bucket = message.bucket;
        match &message.body {
            SyncBody::Live(section) => {
                for (lsn, record) in (section.first..).zip(&section.records) {
                    if let LiveRecord::Close(tuple, _) = record {
                        all.push(oracle::Said::Closed {
                            by,
                            group: section.group,
                            epoch: section.epoch,
                            bucket,
                            lsn,
                            inbound: oracle::key(tuple),
                        });
                    }
                }
            }
            SyncBody::Ack {
                of,
                contiguous,
                applied,
                refused,
                unkept,
            } => all.push(oracle::Said::Acked {
                by,
                of: *of,
                bucket,
                contiguous: *contiguous,
                applied: applied.clone(),
                but: [&refused[..], unkept].concat(),
            }),
            SyncBody::Skip { gap, .. } => {
                if let Some(to) = to {
                    all.push(oracle::Said::Skipped {
                        by,
                        to,
                        bucket,
                        gap: *gap,
                    });
                }
            }
            _ => {}
        }
    }
}

/// Counts an advertisement of a virtual router.
pub(crate) fn count_vrrp(frame: &[u8], counts: &mut [u64; COUNTER_COUNT]) {
    counts[Kind::ALL.len() - 1] += u64::from(is_vrrp(frame));
}

/// What does not arrive.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    /// The fault that made it; `None`: the scenario's mechanism is off.
    pub(crate) fault: Option<usize>,
    /// Of whom; `None`: of any.
    pub(crate) from: Option<u16>,
    /// To whom: index of the load balancer; `None`: to any.
    pub(crate) to: Option<u16>,
    pub(crate) kinds: Vec<Kind>,
    /// Frames that it may still touch.
    pub(crate) frames: Option<u32>,
}

impl Rule {
    /// Whether it is in force for what `from`, the number of a node, sends to the load balancer `to`.
    fn applies(&self, from: Option<u16>, to: u16) -> bool {
        self.frames != Some(0) && self.from.is_none_or(|f| from == Some(f)) && self.to.is_none_or(|t| t == to)
    }

    /// It touches a frame. The last one that it may touch is its fault's end.
    fn touch(&mut self, now: Instant, spent: &mut BTreeMap<usize, Duration>) {
        let Some(frames) = &mut self.frames else { return };
        *frames -= 1;
        if let Some(fault) = self.fault.filter(|_| *frames == 0) {
            spent.insert(fault, Duration::from_nanos(now.as_nanos()));
        }
    }
}

/// Rules in force, and the frames that they touched.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    pub(crate) rules: Vec<Rule>,
    pub(crate) touched: u64,
    /// Faults that have touched all frames that they may, and when they touched the last one.
    pub(crate) spent: BTreeMap<usize, Duration>,
    /// Frames get new numbers as they arrive: a copy looks like another frame.
    pub(crate) renumber: bool,
    /// The version of frames that each node speaks, by number; all the same if there is none.
    pub(crate) formats: BTreeMap<u16, u8>,
    /// The numbers that were given last, by receiver, sender and stream.
    pub(crate) numbers: BTreeMap<(u16, PeerId, u16), u64>,
    /// Reads what is sealed.
    pub(crate) reader: Reader,
    /// What is done to frames for a node, by fault and index of the load balancer.
    pub(crate) tampered: Vec<(usize, u16, Tampering)>,
    pub(crate) past: Past,
}

/// Earlier frames, as somebody on the way has kept them: the first ones for each node.
#[derive(Debug, Default)]
pub(crate) struct Past {
    /// Whether anybody keeps them.
    kept: bool,
    by_receiver: BTreeMap<u16, Vec<Vec<u8>>>,
    /// Frames that came while they were tampered with.
    seen: u64,
}

/// Frames that are kept for each node.
const PAST_COUNT: usize = 4_096;

impl Past {
    /// Somebody keeps them if the scenario replays any.
    pub(crate) fn new(scenario: &Scenario) -> Self {
        let replays = |f: &Fault| matches!(f.action, Action::Tamper(_, Tampering::Replay));
        Past {
            kept: scenario.faults.iter().any(replays),
            ..Past::default()
        }
    }

    fn keep(&mut self, lb: u16, payload: &[u8]) {
        let of = self.by_receiver.entry(lb).or_default();
        if self.kept && of.len() < PAST_COUNT {
            of.push(payload.to_vec());
        }
    }
}

/// Puts what is not from its sender into every second frame.
fn tamper(rules: &mut Rules, lb: u16, frame: &mut Vec<u8>) {
    let Some(payload) = payload(frame).map(<[u8]>::to_vec) else {
        return;
    };
    let Some((.., how)) = rules.tampered.iter().rfind(|(_, to, _)| *to == lb).copied() else {
        return rules.past.keep(lb, &payload);
    };
    let n = rules.past.seen;
    rules.past.seen += 1;
    if n.is_multiple_of(2) {
        return;
    }
    let other = match how {
        Tampering::Forge => {
            let mut forged = payload;
            // Each time at another place of it, the header's last bytes and the whole body in turn.
            let (at, with) = ((n / 2 * 7) as usize % forged.len(), (n % 255) as u8 + 1);
            if let Some(byte) = forged.get_mut(at) {
                *byte ^= with;
            }
            forged
        }
        Tampering::Replay => {
            let past = rules.past.by_receiver.get(&lb).filter(|past| !past.is_empty());
            let Some(past) = past else { return };
            past[(n / 2) as usize % past.len()].clone()
        }
    };
    rules.touched += 1;
    replace_payload(frame, &other);
}

impl Rules {
    /// The number that a frame arrives with.
    fn number(&mut self, to: u16, header: &FrameHeader) -> u64 {
        if !self.renumber {
            return header.packet_number;
        }
        let next = self
            .numbers
            .entry((to, header.from, header.stream))
            .and_modify(|n| *n += 1);
        *next.or_insert(header.packet_number)
    }
}

/// A frame arrives in the version that its sender speaks. The engine speaks one version and takes it for the receiver's: a
/// sender of a later one has as much a later one.
fn reformat(rules: &Rules, lb: u16, frame: &mut Vec<u8>) {
    let Some((from, _)) = payload(frame).and_then(|p| FrameHeader::peek(p).ok()) else {
        return;
    };
    let format = |node: u16| rules.formats.get(&node).copied().unwrap_or(FORMAT_VERSION);
    let ahead = format(from.from.node.0).wrapping_sub(format(lb + 1));
    if ahead == 0 {
        return;
    }
    let mut other = payload(frame).map(<[u8]>::to_vec).unwrap_or_default();
    if let Some(version) = other.first_mut() {
        *version = FORMAT_VERSION.wrapping_add(ahead);
        replace_payload(frame, &other);
    }
}

/// Takes out of frames what must not arrive.
pub(crate) struct Suppressor(pub(crate) Rc<RefCell<Rules>>);

impl Filter for Suppressor {
    fn keep(&mut self, now: Instant, at: Place, frame: &mut Vec<u8>) -> bool {
        let mut rules = self.0.borrow_mut();
        let Owner::Lb(lb) = at.owner else { return true };
        // What was damaged on the way is to be found by its checksum: nobody mends that.
        if payload(frame).is_some() && !is_intact(frame) {
            return true;
        }
        if !rules.formats.is_empty() {
            reformat(&rules, lb.0, frame);
        }
        rules.reader.overhear(frame);
        if rules.past.kept || !rules.tampered.is_empty() {
            tamper(&mut rules, lb.0, frame);
        }
        if rules.rules.is_empty() && !rules.renumber {
            return true;
        }
        if is_vrrp(frame) {
            let from = vrrp_sender(frame);
            let Rules {
                rules,
                touched,
                spent,
                ..
            } = &mut *rules;
            let mut met = rules.iter_mut().filter(|r| r.kinds.contains(&Kind::Vrrp));
            let Some(rule) = met.find(|r| r.applies(from, lb.0)) else {
                return true;
            };
            rule.touch(now, spent);
            *touched += 1;
            return false;
        }
        let Some(mut decoded) = rules.reader.read(frame) else {
            return true;
        };
        let NodeId(from) = decoded.header.from.node;
        let number = rules.number(lb.0, &decoded.header);
        let renumbered = std::mem::replace(&mut decoded.header.packet_number, number) != number;
        let Rules {
            rules,
            touched,
            spent,
            reader,
            ..
        } = &mut *rules;
        let mut items = decoded.items;
        let before = items.len();
        for rule in rules.iter_mut().filter(|r| r.applies(Some(from), lb.0)) {
            let had = items.len();
            // A section with a close goes as a whole: its records have consecutive numbers.
            items.retain(|item| !rule.kinds.contains(&kind(item)));
            if items.len() != had {
                rule.touch(now, spent);
            }
        }
        let all = items.len() == before;
        if all && !renumbered {
            return true;
        }
        *touched += u64::from(!all);
        if items.is_empty() {
            return false;
        }
        let mut rest = Vec::new();
        let mut writer = FrameWriter::new(
            &mut rest,
            &decoded.header,
            evenkeel_core::sync::codec::BULK_FRAME_LEN_MAX,
        );
        let pushed = items.iter().try_for_each(|item| match item {
            FrameItem::Sync(message) => writer.push(message.bucket, message.ack_now, &message.body),
            FrameItem::Node(message) => writer.push_node(message),
        });
        // What was decoded can be encoded; if not, all of it is lost.
        let whole = pushed.is_ok() && writer.finish() > 0;
        let sealed = whole.then_some(rest).and_then(|rest| reader.seal(rest, frame));
        sealed.is_some_and(|sealed| replace_payload(frame, &sealed).is_some())
    }
}

/// Whether the checksums of a datagram are right.
fn is_intact(frame: &[u8]) -> bool {
    let Some((udp, datagram)) = udp_at(frame).and_then(|at| Some((at, frame.get(at..)?))) else {
        return false;
    };
    let v4 = frame.get(12..14) == Some(&[0x08, 0x00]);
    let header = !v4 || frame.get(14..udp).is_some_and(|header| checksum(header, 0) == 0);
    let addresses = frame.get(if v4 { 26..34 } else { 22..54 });
    let len = datagram.len() as u64;
    header && addresses.is_some_and(|addresses| checksum(datagram, words(addresses) + 17 + len) == 0)
}

/// Puts another payload into the datagram, lengths and checksums included.
fn replace_payload(frame: &mut Vec<u8>, payload: &[u8]) -> Option<()> {
    let udp = udp_at(frame)?;
    let v4 = frame.get(12..14)? == [0x08, 0x00];
    frame.truncate(udp + 8);
    frame.extend_from_slice(payload);
    let udp_len = u16::try_from(payload.len() + 8).ok()?;
    frame
        .get_mut(udp + 4..udp + 6)?
        .copy_from_slice(&udp_len.to_be_bytes());
    frame.get_mut(udp + 6..udp + 8)?.fill(0);
    let addresses = if v4 {
        let total = u16::try_from(frame.len() - 14).ok()?;
        frame.get_mut(16..18)?.copy_from_slice(&total.to_be_bytes());
        frame.get_mut(24..26)?.fill(0);
        let header = checksum(frame.get(14..udp)?, 0);
        frame.get_mut(24..26)?.copy_from_slice(&header.to_be_bytes());
        26..34
    } else {
        frame.get_mut(18..20)?.copy_from_slice(&udp_len.to_be_bytes());
        22..54
    };
    let pseudo = words(frame.get(addresses)?) + 17 + u64::from(udp_len);
    let sum = checksum(frame.get(udp..)?, pseudo);
    let sum = if sum == 0 { 0xffff } else { sum };
    frame
        .get_mut(udp + 6..udp + 8)?
        .copy_from_slice(&sum.to_be_bytes());
    Some(())
}

fn words(data: &[u8]) -> u64 {
    let pairs = data.chunks(2);
    pairs
        .map(|w| u64::from(w[0]) << 8 | u64::from(w.get(1).copied().unwrap_or(0)))
        .sum()
}

fn checksum(data: &[u8], more: u64) -> u16 {
    let mut sum = words(data) + more;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_core::cluster::Incarnation;
    use evenkeel_core::sync::LsnRange;
    use evenkeel_io_sim::LbId;

    fn peer(node: u16) -> PeerId {
        PeerId {
            node: NodeId(node),
            incarnation: Incarnation(1),
        }
    }

    /// Node 2 acknowledges what it has applied, and what it had no room for.
    fn ack(packet_number: u64) -> Vec<u8> {
        let mut frame = vec![0; 42];
        frame[12..14].copy_from_slice(&[0x08, 0x00]);
        frame[14] = 0x45;
        frame[23] = 17;
        frame[36..38].copy_from_slice(&SYNC_UDP_PORT.to_be_bytes());
        let header = FrameHeader {
            cluster: 1,
            from: peer(2),
            stream: 0,
            packet_number,
        };
        let body = SyncBody::Ack {
            of: peer(1),
            contiguous: 9,
            applied: Vec::new(),
            refused: vec![LsnRange { first: 3, last: 5 }, LsnRange { first: 8, last: 8 }],
            unkept: Vec::new(),
        };
        let mut payload = Vec::new();
        let mut writer = FrameWriter::new(&mut payload, &header, 1400);
        writer.push(0, false, &body).expect("it fits");
        writer.finish();
        replace_payload(&mut frame, &payload).expect("a datagram");
        frame
    }

    fn arrives(filter: &mut Suppressor, frame: &[u8]) -> Option<u64> {
        let at = Place {
            owner: Owner::Lb(LbId(0)),
            port: 2,
        };
        let mut frame = frame.to_vec();
        let kept = filter.keep(Instant::ZERO, at, &mut frame);
        let decoded = decode(payload(&frame)?).expect("it stays a frame");
        assert_eq!(decoded.items.len(), 1);
        kept.then_some(decoded.header.packet_number)
    }

    #[test]
    fn what_was_damaged_on_the_way_stays_so() {
        let rules = Rules {
            renumber: true,
            ..Rules::default()
        };
        let mut filter = Suppressor(Rc::new(RefCell::new(rules)));
        let at = Place {
            owner: Owner::Lb(LbId(0)),
            port: 2,
        };
        let good = ack(7);
        assert!(is_intact(&good));
        let mut keep = |frame: &mut Vec<u8>| filter.keep(Instant::ZERO, at, frame);
        // A copy gets another number, and right checksums.
        assert!(keep(&mut good.clone()));
        let mut copy = good.clone();
        assert!(keep(&mut copy) && copy != good && is_intact(&copy));
        for byte in [20, 30, 40, 44, 60, good.len() - 1] {
            let mut damaged = good.clone();
            damaged[byte] ^= 4;
            let before = damaged.clone();
            assert!(!is_intact(&damaged), "byte {byte}");
            assert!(keep(&mut damaged));
            assert_eq!(damaged, before, "byte {byte}");
        }
    }

    #[test]
    fn records_that_an_ack_refuses_are_counted_one_by_one() {
        let (mut last, mut counts) = (LastFrame::default(), [0; COUNTER_COUNT]);
        // To two peers, and then another one.
        for (number, times) in [(7, 1), (7, 2), (8, 3)] {
            assert!(!count(&ack(number), &mut last, &mut counts));
            let named = |name: &str| {
                let at = SYNC_COUNTERS.iter().position(|c| *c == name);
                counts[at.expect(name)]
            };
            let found = (named("ack"), named("frames"), named("refused"));
            assert_eq!(found, (times, times, 4 * times));
            assert_eq!(named("bytes"), times * ack(7).len() as u64);
            assert_eq!(counts.iter().filter(|n| **n > 0).count(), 4);
        }
    }

    #[test]
    fn a_copy_keeps_its_number_unless_the_window_is_taken_away() {
        let numbers = [7, 7, 7, 8, 8];
        for (renumber, seen) in [(false, [7, 7, 7, 8, 8]), (true, [7, 8, 9, 10, 11])] {
            let rules = Rules {
                renumber,
                ..Rules::default()
            };
            let mut filter = Suppressor(Rc::new(RefCell::new(rules)));
            let arrived = numbers.map(|n| arrives(&mut filter, &ack(n)).expect("it arrives"));
            assert_eq!(arrived, seen);
            assert_eq!(filter.0.borrow().touched, 0, "nothing was kept back");
        }
    }

    #[test]
    fn suppressed_kinds_do_not_arrive_and_others_do() {
        let rule = |kind| Rule {
            fault: None,
            from: Some(2),
            to: None,
            kinds: vec![kind],
            frames: Some(1),
        };
        let rules = Rules {
            rules: vec![rule(Kind::Nack), rule(Kind::Ack)],
            ..Rules::default()
        };
        let mut filter = Suppressor(Rc::new(RefCell::new(rules)));
        assert_eq!(arrives(&mut filter, &ack(7)), None);
        assert_eq!(filter.0.borrow().touched, 1);
        assert_eq!(
            arrives(&mut filter, &ack(8)),
            Some(8),
            "one frame was to be kept back"
        );
    }

    fn advertisement(node: u16, v4: bool) -> Vec<u8> {
        let (v4_source, v6_source) = net::vrrp_source(node);
        let mut frame = vec![0; 60];
        if v4 {
            frame[12] = 0x08;
            frame[23] = 112;
            frame[26..30].copy_from_slice(&v4_source.octets());
        } else {
            frame[12..14].copy_from_slice(&[0x86, 0xdd]);
            frame[20] = 112;
            frame[22..38].copy_from_slice(&v6_source.octets());
        }
        frame
    }

    #[test]
    fn advertisements_of_one_node_are_kept_back_so_many_of_them() {
        let rule = Rule {
            fault: Some(3),
            from: Some(1),
            to: Some(1),
            kinds: vec![Kind::Vrrp],
            frames: Some(2),
        };
        let rules = Rc::new(RefCell::new(Rules {
            rules: vec![rule],
            ..Rules::default()
        }));
        let mut filter = Suppressor(rules.clone());
        let mut arrives = |ms, node, v4, to| {
            let at = Place {
                owner: Owner::Lb(LbId(to)),
                port: 0,
            };
            filter.keep(Instant::from_millis(ms), at, &mut advertisement(node, v4))
        };
        assert!(arrives(1, 2, true, 1), "of another node");
        assert!(arrives(1, 1, true, 2), "to another node");
        assert!(!arrives(2, 1, true, 1));
        assert!(!arrives(3, 1, false, 1));
        assert!(arrives(4, 1, true, 1), "two frames, no more");
        let rules = rules.borrow();
        assert_eq!(rules.touched, 2);
        assert_eq!(rules.spent, BTreeMap::from([(3, Duration::from_millis(3))]));
    }
}
