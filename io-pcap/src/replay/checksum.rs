//! Checksums of captured packets: verified in software, finished where that is asked for, and recognised
//! where the capture was taken before the sender's NIC wrote them (transmit offload).

use std::collections::BTreeMap;
use std::net::IpAddr;

use evenkeel_core::wire::checksum::{combine, finish, fold, is_valid, sum};
use evenkeel_core::wire::{IpProto, Ipv4View, Pseudo};

use super::look::Packet;

/// What is done with a packet whose checksum is wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BadChecksums {
    /// The engine drops it and counts it.
    #[default]
    Drop,
    /// Dropped, unless it stands as transmit offload leaves it: then it is finished, as the NIC would have done.
    FinishOffload,
    /// The engine takes it as it is: what it writes is as wrong.
    Accept,
    /// It is computed anew before the engine sees it.
    Fix,
}

/// What verification found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Checked {
    /// Right, all of them.
    Right,
    /// Not all of the packet is in the capture; what could be verified is right.
    Partly,
    /// There is none to verify.
    None,
    /// Wrong.
    Wrong(Wrong),
}

/// Which checksums of a packet are wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) network: bool,
    pub(super) transport: bool,
    /// All that are wrong stand as a sender leaves them for its NIC to finish.
    pub(super) looks_like_offload: bool,
}

/// A transport checksum: where it is and what it covers.
struct Transport {
    /// Offset of the field in the frame.
    field: usize,
    /// Offset behind what it covers.
    end: usize,
    /// Partial sum of the pseudo-header; `None`: ICMP over IPv4 has none.
    pseudo: Option<u32>,
}

/// Verifies the IPv4 header's and the transport checksum of the packet in `data`, the captured bytes.
pub(super) fn verify(data: &[u8], packet: &Packet) -> Checked {
    let network = packet
        .src
        .is_ipv4()
        .then(|| header_checksum(data, packet))
        .flatten();
    let transport = transport(data, packet);
    let captured = transport.as_ref().is_none_or(|t| t.end <= data.len());
    let transport_wrong = match &transport {
        Some(t) if captured => !is_valid(covered(data, packet, t)),
        _ => false,
    };
    let network_wrong = network.is_some_and(|(right, _)| !right);
    if network_wrong || transport_wrong {
        let left_to_nic = |t: &Transport| {
            let field = be16(data, t.field);
            // Linux writes the pseudo-header's sum, not inverted, with the length (or, where the NIC cuts
            // segments, without it).
            let len = (t.end - packet.l4) as u32;
            t.pseudo.is_some_and(|pseudo| {
                field == Some(fold(pseudo)) || field == Some(fold(combine(pseudo, !fold(len) as u32)))
            })
        };
        let looks_like_offload = (!network_wrong || network.is_some_and(|(_, field)| field == 0))
            && (!transport_wrong || transport.as_ref().is_some_and(left_to_nic));
        return Checked::Wrong(Wrong {
            network: network_wrong,
            transport: transport_wrong,
            looks_like_offload,
        });
    }
    match (network, transport) {
        (None, None) => Checked::None,
        _ if !captured || packet.end > data.len() => Checked::Partly,
        _ => Checked::Right,
    }
}

/// Computes anew what [`verify`] found wrong.
pub(super) fn fix(data: &mut [u8], packet: &Packet, wrong: Wrong) {
    if wrong.network
        && let Some(header) = data.get_mut(packet.l3..packet.l4)
    {
        Ipv4View::new_unchecked(header).fill_checksum();
    }
    if wrong.transport {
        fill_transport(data, packet);
    }
}

/// Writes the transport checksum over all that `data` holds of the packet.
pub(super) fn fill_transport(data: &mut [u8], packet: &Packet) {
    let Some(t) = transport_at(data, packet) else {
        return;
    };
    let Some(field) = data.get_mut(t.field..t.field + 2) else {
        return;
    };
    field.fill(0);
    let value = match finish(covered(data, packet, &t)) {
        // UDP has another zero for "no checksum"; ICMP's sum of nothing but zeros is written so, too.
        0 if packet.proto != IpProto::TCP => 0xffff,
        value => value,
    };
    if let Some(field) = data.get_mut(t.field..t.field + 2) {
        field.copy_from_slice(&value.to_be_bytes());
    }
}

/// Whether the IPv4 header's checksum is right, and the field.
fn header_checksum(data: &[u8], packet: &Packet) -> Option<(bool, u16)> {
    let header_len = usize::from(data.get(packet.l3)? & 0x0f) * 4;
    let header = data.get(packet.l3..packet.l3 + header_len)?;
    Some((is_valid(sum(header)), be16(header, 10)?))
}

/// The packet's transport checksum, if it has one.
fn transport(data: &[u8], packet: &Packet) -> Option<Transport> {
    let t = transport_at(data, packet)?;
    // UDP without checksum. Over IPv6 that is an error, which the engine names itself.
    let none = packet.proto == IpProto::UDP && be16(data, t.field) == Some(0);
    (!none).then_some(t)
}

fn transport_at(data: &[u8], packet: &Packet) -> Option<Transport> {
    if packet.fragment || !packet.at_last_hop || !packet.transport_header {
        return None;
    }
    let (offset, end) = match (packet.proto, packet.src) {
        (IpProto::TCP, _) => (16, packet.end),
        (IpProto::UDP, _) => (6, packet.l4 + usize::from(be16(data, packet.l4 + 4)?)),
        (IpProto::ICMP, IpAddr::V4(_)) | (IpProto::ICMPV6, IpAddr::V6(_)) => (2, packet.end),
        _ => return None,
    };
    let len = (end - packet.l4) as u32;
    let pseudo = match (packet.src, packet.dst) {
        (IpAddr::V4(_), IpAddr::V4(_)) if packet.proto == IpProto::ICMP => None,
        (IpAddr::V4(src), IpAddr::V4(dst)) => Some(Pseudo::v4(src, dst).sum(packet.proto, len)),
        (IpAddr::V6(src), IpAddr::V6(dst)) => Some(Pseudo::v6(src, dst).sum(packet.proto, len)),
        _ => return None,
    };
    Some(Transport {
        field: packet.l4 + offset,
        end,
        pseudo,
    })
}

/// Partial sum of what the checksum covers, itself included.
fn covered(data: &[u8], packet: &Packet, t: &Transport) -> u32 {
    let bytes = data.get(packet.l4..t.end.min(data.len())).unwrap_or_default();
    combine(t.pseudo.unwrap_or(0), sum(bytes))
}

fn be16(data: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*data.get(at..)?.first_chunk()?))
}

/// Senders that are told apart, at most: captures with offload have few.
const SENDER_COUNT_MAX: usize = 1024;
/// Senders of wrong checksums up to which offload is taken for their reason.
const OFFLOAD_SENDER_COUNT_MAX: usize = 8;

/// Counts of verified packets.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    pub(super) right: u64,
    pub(super) partly: u64,
    pub(super) none: u64,
    pub(super) wrong: u64,
    /// Of these: finished before the engine saw them.
    pub(super) fixed: u64,
    /// Wrong ones by sender: all, and those that look like offload.
    senders: BTreeMap<IpAddr, (u64, u64)>,
    others: bool,
}

impl Tally {
    pub(super) fn count(&mut self, checked: Checked, src: IpAddr) {
        let wrong = match checked {
            Checked::Right => return self.right += 1,
            Checked::Partly => return self.partly += 1,
            Checked::None => return self.none += 1,
            Checked::Wrong(wrong) => wrong,
        };
        self.wrong += 1;
        if self.senders.len() == SENDER_COUNT_MAX && !self.senders.contains_key(&src) {
            self.others = true;
            return;
        }
        let (all, offload) = self.senders.entry(src).or_default();
        *all += 1;
        *offload += u64::from(wrong.looks_like_offload);
    }

    /// Senders whose wrong checksums look like transmit offload, most packets first: none unless nine tenths
    /// of all wrong ones do and they come from few.
    pub(super) fn offload(&self) -> Vec<(IpAddr, u64)> {
        let offload: u64 = self.senders.values().map(|&(_, n)| n).sum();
        let mut senders: Vec<_> = self
            .senders
            .iter()
            .filter(|&(_, &(_, n))| n > 0)
            .map(|(&addr, &(_, n))| (addr, n))
            .collect();
        if self.others
            || senders.len() > OFFLOAD_SENDER_COUNT_MAX
            || offload.saturating_mul(10) < self.wrong.saturating_mul(9)
        {
            return Vec::new();
        }
        senders.sort_by_key(|&(addr, n)| (std::cmp::Reverse(n), addr));
        senders
    }
}
