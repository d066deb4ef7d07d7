//! Frames between nodes, for counting what they say and for keeping some of it from arriving.

use std::cell::RefCell;
use std::rc::Rc;

use evenkeel_core::cluster::NodeId;
use evenkeel_core::sync::codec::{FrameItem, FrameWriter, decode};
use evenkeel_core::sync::{LiveRecord, NodeMessage, SyncBody};
use evenkeel_core::time::Instant;
use evenkeel_io_sim::{Filter, Owner, Place};

use crate::mechanism::Kind;

/// What is counted of the traffic between nodes: messages of each [`Kind`], then frames and their bytes.
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
    "watermark",
    "merged",
    "offer",
    "presence",
    "fenced",
    "handover",
    "vrrp",
    "frames",
    "bytes",
];

/// Where nodes listen for each other.
const SYNC_UDP_PORT: u16 = 5679;

pub(crate) const COUNTER_COUNT: usize = Kind::ALL.len() + 2;

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
            SyncBody::SlotBegin { .. } | SyncBody::SlotRecords { .. } | SyncBody::SlotEnd { .. } => {
                Kind::Slot
            }
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

/// The datagram's payload, if it is between nodes.
fn payload(frame: &[u8]) -> Option<&[u8]> {
    let udp = udp_at(frame)?;
    if frame.get(udp + 2..udp + 4)? != SYNC_UDP_PORT.to_be_bytes() {
        return None;
    }
    let len = usize::from(u16::from_be_bytes(*frame.get(udp + 4..)?.first_chunk()?));
    frame.get(udp + 8..udp + len)
}

/// Counts what a frame says.
pub(crate) fn count(frame: &[u8], counts: &mut [u64; COUNTER_COUNT]) {
    let Some(payload) = payload(frame) else { return };
    counts[COUNTER_COUNT - 2] += 1;
    counts[COUNTER_COUNT - 1] += frame.len() as u64;
    let Ok(decoded) = decode(payload) else { return };
    for item in &decoded.items {
        let kind = kind(item);
        if let Some(at) = Kind::ALL.iter().position(|k| k.1 == kind) {
            counts[at] += 1;
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

/// Rules in force, and the frames that they touched.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    pub(crate) rules: Vec<Rule>,
    pub(crate) touched: u64,
}

/// Takes out of frames what must not arrive.
pub(crate) struct Suppressor(pub(crate) Rc<RefCell<Rules>>);

impl Filter for Suppressor {
    fn keep(&mut self, _now: Instant, at: Place, frame: &mut Vec<u8>) -> bool {
        let mut rules = self.0.borrow_mut();
        let Owner::Lb(lb) = at.owner else { return true };
        if rules.rules.is_empty() {
            return true;
        }
        if is_vrrp(frame) {
            let kept = rules
                .rules
                .iter()
                .any(|r| r.kinds.contains(&Kind::Vrrp) && r.from.is_none() && r.to.is_none_or(|t| t == lb.0));
            rules.touched += u64::from(kept);
            return !kept;
        }
        let Some(decoded) = payload(frame).and_then(|p| decode(p).ok()) else {
            return true;
        };
        let NodeId(from) = decoded.header.from.node;
        let Rules { rules, touched } = &mut *rules;
        let mut items = decoded.items;
        let before = items.len();
        for rule in rules.iter_mut() {
            let applies = rule.from.is_none_or(|f| f == from)
                && rule.to.is_none_or(|t| t == lb.0)
                && rule.frames != Some(0);
            if !applies {
                continue;
            }
            let had = items.len();
            // A section with a close goes as a whole: its records have consecutive numbers.
            items.retain(|item| !rule.kinds.contains(&kind(item)));
            if items.len() != had
                && let Some(frames) = &mut rule.frames
            {
                *frames -= 1;
            }
        }
        if items.len() == before {
            return true;
        }
        *touched += 1;
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
        pushed.is_ok() && writer.finish() > 0 && replace_payload(frame, &rest).is_some()
    }
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
