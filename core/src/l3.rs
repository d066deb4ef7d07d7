//! What the node itself answers: ARP and neighbour discovery for owned addresses, and their echo requests.

use alloc::boxed::Box;
use core::net::{IpAddr, Ipv6Addr};

use crate::announce::ALL_NODES;
use crate::parse::{IPV6_LEN, L2_LEN_MAX, Parsed};
use crate::port::{Frame, PortId, RxChecksum};
use crate::service::{OwnedAddr, Snapshot, is_group, is_host_mac, is_unicast};
use crate::stats::DropReason;
use crate::sync::Answering;
use crate::tuple::Family;
use crate::wire::{
    ArpOperation, ArpRepr, ArpView, Delta, EthernetView, Icmpv4Class, Icmpv4View, Icmpv6Class, Icmpv6View,
    IpProto, Ipv4View, Ipv6Repr, Ipv6View, MacAddr, NdpRepr, NdpView, NeighbourFlags, Pseudo, icmpv6, ndp,
};

/// Frames that the engine originated and that wait to be sent, at most.
pub(crate) const ORIGINATED_COUNT_MAX: usize = 64;

/// Longest frame that the engine originates: a neighbour advertisement behind the longest link-layer header.
const ORIGINATED_LEN_MAX: usize = L2_LEN_MAX + IPV6_LEN + ndp::HEADER_LEN + 8;

/// Initial time to live of what the engine originates (RFC 1700, "recommended").
const TTL: u8 = 64;

/// A frame that the engine originates.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Originated {
    port: PortId,
    len: u16,
    data: [u8; ORIGINATED_LEN_MAX],
}

impl Originated {
    const NONE: Originated = Originated {
        port: PortId(0),
        len: 0,
        data: [0; ORIGINATED_LEN_MAX],
    };

    /// A frame with the link-layer header of `request`, turned around, and room for `len` bytes behind it.
    /// `None`: it would be too long, or go to a group.
    fn answer_to(request: &[u8], l3: usize, len: usize, port: PortId, mac: MacAddr) -> Option<Self> {
        let mut frame = Originated {
            port,
            len: u16::try_from(l3 + len).ok()?,
            ..Originated::NONE
        };
        frame.data.get(..l3 + len)?;
        frame.data.get_mut(..l3)?.copy_from_slice(request.get(..l3)?);
        let mut ethernet = EthernetView::new_checked(&mut frame.data[..l3]).ok()?;
        let to = ethernet.src();
        if to.is_multicast() {
            return None;
        }
        ethernet.set_dst(to);
        ethernet.set_src(mac);
        Some(frame)
    }
}

/// The bounded queue of what the engine originates.
#[derive(Debug)]
pub(crate) struct Originator {
    ring: Box<[Originated]>,
    first: usize,
    len: usize,
}

impl Originator {
    pub(crate) fn new() -> Self {
        Originator {
            ring: alloc::vec![Originated::NONE; ORIGINATED_COUNT_MAX].into_boxed_slice(),
            first: 0,
            len: 0,
        }
    }

    /// `false`: full.
    pub(crate) fn push(&mut self, frame: Originated) -> bool {
        if self.len == self.ring.len() {
            return false;
        }
        let at = (self.first + self.len) % self.ring.len();
        self.ring[at] = frame;
        self.len += 1;
        true
    }

    pub(crate) fn peek(&self) -> Option<(PortId, &[u8])> {
        if self.len == 0 {
            return None;
        }
        let frame = &self.ring[self.first];
        Some((frame.port, &frame.data[..usize::from(frame.len)]))
    }

    pub(crate) fn pop(&mut self) {
        if self.len > 0 {
            self.first = (self.first + 1) % self.ring.len();
            self.len -= 1;
        }
    }
}

/// For what a node answers.
#[derive(Clone, Copy)]
pub(crate) struct Answers<'a> {
    pub(crate) snapshot: &'a Snapshot,
    /// Those VIPs and LIPs only; `None`: all.
    pub(crate) answering: Option<&'a Answering>,
    /// Whether somebody wants to know where neighbours are.
    pub(crate) learns: bool,
}

/// As whom a node answers.
#[derive(Clone, Copy)]
enum Answerer {
    /// As the interface that was asked.
    Port,
    /// With a link-layer address of the virtual address's own.
    Virtual(MacAddr),
}

impl Answers<'_> {
    /// As whom this node answers for `addr`, if it does: for an interface's address always, for VIPs and LIPs
    /// as it was told.
    fn answerer(self, addr: IpAddr) -> Option<Answerer> {
        let owned = self.snapshot.owned(addr)?;
        match (owned, self.answering) {
            (OwnedAddr::Port(_), _) | (_, None) => Some(Answerer::Port),
            (OwnedAddr::Virtual | OwnedAddr::Local, Some(answering)) => {
                let at = answering.addrs.binary_search_by_key(&addr, |(a, _)| *a).ok()?;
                let (_, mac) = answering.addrs.get(at)?;
                Some(mac.map_or(Answerer::Port, Answerer::Virtual))
            }
        }
    }

    /// As whom it answers neighbours that ask on `port`: an interface's address is known there only.
    fn neighbour_answerer(self, addr: IpAddr, port: PortId) -> Result<Answerer, DropReason> {
        match self.snapshot.owned(addr) {
            Some(OwnedAddr::Port(p)) if p != port => None,
            _ => self.answerer(addr),
        }
        .ok_or(DropReason::NeighbourNotOurs)
    }

    /// Whether a message says that a neighbour that is known is elsewhere than is known.
    fn is_news(self, port: PortId, addr: IpAddr, mac: MacAddr) -> bool {
        let known = || self.snapshot.neighbour(addr, port);
        self.learns && is_host_mac(mac) && known().is_some_and(|hop| hop.mac != mac)
    }

    /// What becomes of a message of which nobody waits for an answer from here: its news are the control side's,
    /// and the kernel's.
    fn unanswered(self, is_news: bool) -> Result<Reaction, DropReason> {
        if is_news {
            Ok(Reaction::Punt)
        } else {
            Err(DropReason::NeighbourNotOurs)
        }
    }

    /// The link-layer address that it answers with on `port`, which must be configured.
    fn mac(self, answerer: Answerer, port: PortId) -> Result<MacAddr, DropReason> {
        let port = port_mac(self.snapshot, port)?;
        Ok(match answerer {
            Answerer::Port => port,
            Answerer::Virtual(mac) => mac,
        })
    }
}

fn port_mac(snapshot: &Snapshot, port: PortId) -> Result<MacAddr, DropReason> {
    snapshot
        .ports()
        .get(usize::from(port.0))
        .map(|p| p.mac)
        .ok_or(DropReason::NeighbourNotOurs)
}

/// The answer to an ARP request (RFC 826). Replies to the kernel's own requests are the kernel's.
pub(crate) fn arp(
    data: &[u8],
    l3: usize,
    answers: Answers<'_>,
    ingress: PortId,
) -> Result<Reaction, DropReason> {
    let snapshot = answers.snapshot;
    let bad = |_| DropReason::BadNeighbourMessage;
    let packet = data.get(l3..).ok_or(DropReason::Truncated)?;
    let request = ArpRepr::parse(&ArpView::new_checked(packet).map_err(bad)?).map_err(bad)?;
    let kernels = snapshot.owned(request.target_ip.into()) == Some(OwnedAddr::Port(ingress));
    if request.operation == ArpOperation::Reply && kernels {
        return Ok(Reaction::Punt);
    }
    let sender = IpAddr::V4(request.sender_ip);
    let is_news = answers.is_news(ingress, sender, request.sender_mac);
    if request.operation != ArpOperation::Request {
        return answers.unanswered(is_news && request.operation == ArpOperation::Reply);
    }
    let answerer = match answers.neighbour_answerer(request.target_ip.into(), ingress) {
        Ok(answerer) => answerer,
        // Such as one that tells all others where it is (RFC 5227, section 3).
        Err(_) => return answers.unanswered(is_news),
    };
    // A probe (RFC 5227) has no sender address yet; one of ours as the sender is somebody's mistake.
    if !(request.sender_ip.is_unspecified() || is_unicast(sender)) || snapshot.owned(sender).is_some() {
        return Err(DropReason::BadNeighbourMessage);
    }
    let mac = answers.mac(answerer, ingress)?;
    let reply = request.reply_from(mac);
    let mut frame = Originated::answer_to(data, l3, reply.buffer_len(), ingress, mac)
        .ok_or(DropReason::BadNeighbourMessage)?;
    reply.emit(&mut ArpView::new_unchecked(&mut frame.data[l3..]));
    let news = is_news.then_some((sender, request.sender_mac));
    Ok(Reaction::Answer(frame, news))
}

/// What becomes of a message to the node itself.
pub(crate) enum Reaction {
    /// The frame became the echo reply; it goes out where it came in.
    EchoReply,
    /// An ARP reply or a neighbour advertisement is to be sent; and where the neighbour that asked is, if that
    /// is news.
    Answer(Originated, Option<(IpAddr, MacAddr)>),
    /// For the kernel.
    Punt,
}

/// Handles an ICMP message of either family.
pub(crate) fn icmp<F: Frame>(
    frame: &mut F,
    parsed: &Parsed,
    answers: Answers<'_>,
) -> Result<Reaction, DropReason> {
    let snapshot = answers.snapshot;
    let (l4, end) = (usize::from(parsed.l4), parsed.end as usize);
    let dst = parsed.key.dst_addr();
    let whole = frame.data().len() >= end;
    let message = frame
        .data()
        .get(l4..end.min(frame.data().len()))
        .ok_or(DropReason::Truncated)?;
    let unverified = whole && frame.rx_checksum() == RxChecksum::Unknown;
    let (right, echo, error) = match (parsed.key.src_addr(), dst) {
        (IpAddr::V4(_), IpAddr::V4(_)) => {
            let view = Icmpv4View::new_checked(message).map_err(|_| DropReason::BadLength)?;
            let class = view.class();
            (
                !unverified || view.verify_checksum(),
                class == Icmpv4Class::EchoRequest,
                class == Icmpv4Class::Error,
            )
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let view = Icmpv6View::new_checked(message).map_err(|_| DropReason::BadLength)?;
            let class = view.class();
            let right = !unverified || view.verify_checksum(&Pseudo::v6(src, dst));
            (
                right,
                class == Icmpv6Class::EchoRequest,
                class == Icmpv6Class::Error,
            )
        }
        _ => return Err(DropReason::BadVersion),
    };
    if !right {
        return Err(DropReason::BadChecksum);
    }
    let kernels = matches!(snapshot.owned(dst), Some(OwnedAddr::Port(_)));
    if kernels
        && !echo
        && !matches!(
            parsed.flags,
            icmpv6::msg::NEIGHBOUR_SOLICITATION | icmpv6::msg::NEIGHBOUR_ADVERTISEMENT
        )
    {
        // Errors about the kernel's own connections, answers to its own echo requests.
        return Ok(Reaction::Punt);
    }
    if error {
        return Err(DropReason::IcmpError);
    }
    if let IpAddr::V6(dst) = dst
        && matches!(
            parsed.flags,
            icmpv6::msg::NEIGHBOUR_SOLICITATION | icmpv6::msg::NEIGHBOUR_ADVERTISEMENT
        )
    {
        return neighbour_discovery(frame.data(), parsed, dst, answers, frame.ingress());
    }
    if is_group(dst) {
        return Ok(Reaction::Punt);
    }
    if snapshot.owned(dst).is_none() {
        return Err(DropReason::NotOurs);
    }
    if !echo {
        return Err(DropReason::IcmpOther);
    }
    // Another node's at the moment, and it answers.
    let answerer = answers.answerer(dst).ok_or(DropReason::NotOurs)?;
    echo_reply(frame, parsed, answers, answerer)?;
    Ok(Reaction::EchoReply)
}

/// Turns an echo request into its reply, in place (RFC 792; RFC 4443, 4.2).
fn echo_reply<F: Frame>(
    frame: &mut F,
    parsed: &Parsed,
    answers: Answers<'_>,
    answerer: Answerer,
) -> Result<(), DropReason> {
    let src = parsed.key.src_addr();
    if !is_unicast(src) || answers.snapshot.owned(src).is_some() {
        return Err(DropReason::BadSource);
    }
    let mac = answers
        .mac(answerer, frame.ingress())
        .map_err(|_| DropReason::NotOurs)?;
    let (l3, l4) = (usize::from(parsed.l3), usize::from(parsed.l4));
    let data = frame.data_mut();
    if data.len() < l4 + icmpv6::HEADER_LEN {
        return Err(DropReason::Truncated);
    }
    let mut ethernet = EthernetView::new_unchecked(&mut data[..l3]);
    let to = ethernet.src();
    if to.is_multicast() {
        // No host sends as a group (IEEE 802.3, 3.2.5); the reply would go to all of it.
        return Err(DropReason::BadSource);
    }
    ethernet.set_dst(to);
    ethernet.set_src(mac);
    let (network, message) = data[l3..].split_at_mut(l4 - l3);
    // Swapped addresses leave every checksum as it was.
    match parsed.key.family {
        Family::V4 => {
            let mut ip = Ipv4View::new_unchecked(network);
            let (src, dst, proto) = (ip.src(), ip.dst(), u16::from(parsed.key.proto));
            ip.set_src(dst);
            ip.set_dst(src);
            ip.set_ttl(TTL);
            let delta =
                Delta::ZERO.replace_u16(u16::from(parsed.ttl) << 8 | proto, u16::from(TTL) << 8 | proto);
            let sum = delta.apply(ip.checksum());
            ip.set_checksum(sum);
            let mut icmp = Icmpv4View::new_unchecked(message);
            let code = u16::from(icmp.code());
            let delta = Delta::ZERO.replace_u16(u16::from(parsed.flags) << 8 | code, code);
            let sum = delta.apply_icmpv4(icmp.checksum());
            icmp.set_type_and_code(0, code as u8);
            icmp.set_checksum(sum);
        }
        Family::V6 => {
            let mut ip = Ipv6View::new_unchecked(network);
            let (src, dst) = (ip.src(), ip.dst());
            ip.set_src(dst);
            ip.set_dst(src);
            ip.set_hop_limit(TTL);
            let mut icmp = Icmpv6View::new_unchecked(message);
            let code = u16::from(icmp.code());
            let reply = icmpv6::msg::ECHO_REPLY;
            let delta =
                Delta::ZERO.replace_u16(u16::from(parsed.flags) << 8 | code, u16::from(reply) << 8 | code);
            let sum = delta.apply(icmp.checksum());
            icmp.set_type_and_code(reply, code as u8);
            icmp.set_checksum(sum);
        }
    }
    Ok(())
}

/// The answer to a neighbour solicitation (RFC 4861, 7.2.4). Advertisements to an address of the kernel are
/// the kernel's.
fn neighbour_discovery(
    data: &[u8],
    parsed: &Parsed,
    dst: Ipv6Addr,
    answers: Answers<'_>,
    ingress: PortId,
) -> Result<Reaction, DropReason> {
    let snapshot = answers.snapshot;
    let bad = |_| DropReason::BadNeighbourMessage;
    let l3 = usize::from(parsed.l3);
    let message = data
        .get(usize::from(parsed.l4)..parsed.end as usize)
        .ok_or(DropReason::BadNeighbourMessage)?;
    let IpAddr::V6(src) = parsed.key.src_addr() else {
        return Err(DropReason::BadVersion);
    };
    let header = Ipv6Repr {
        src,
        dst,
        next_header: IpProto::ICMPV6,
        payload_len: 0,
        hop_limit: parsed.ttl,
        traffic_class: 0,
        flow_label: 0,
    };
    let ndp = NdpRepr::parse(&NdpView::new_checked(message).map_err(bad)?, &header).map_err(bad)?;
    let is_news =
        |addr: Ipv6Addr, mac: Option<MacAddr>| mac.is_some_and(|m| answers.is_news(ingress, addr.into(), m));
    let (target, source_mac) = match ndp {
        NdpRepr::Solicitation { target, source_mac } => (target, source_mac),
        NdpRepr::Advertisement { .. } if snapshot.owned(dst.into()) == Some(OwnedAddr::Port(ingress)) => {
            return Ok(Reaction::Punt);
        }
        NdpRepr::Advertisement {
            target, target_mac, ..
        } => return answers.unanswered(dst.is_multicast() && is_news(target, target_mac)),
    };
    let is_news = is_news(src, source_mac);
    let answerer = match answers.neighbour_answerer(target.into(), ingress) {
        Ok(answerer) => answerer,
        Err(_) => return answers.unanswered(is_news),
    };
    if !(src.is_unspecified() || is_unicast(src.into())) || snapshot.owned(src.into()).is_some() {
        return Err(DropReason::BadNeighbourMessage);
    }
    let mac = answers.mac(answerer, ingress)?;
    // Who asks without an address (duplicate address detection) is answered at all nodes.
    let probe = src.is_unspecified();
    let to = if probe { ALL_NODES } else { src };
    let answer = NdpRepr::Advertisement {
        flags: NeighbourFlags {
            router: false,
            solicited: !probe,
            override_cached: true,
        },
        target,
        target_mac: Some(mac),
    };
    let len = answer.buffer_len();
    let mut frame = Originated::answer_to(data, l3, IPV6_LEN + len, ingress, mac)
        .ok_or(DropReason::BadNeighbourMessage)?;
    let to_mac = if probe {
        Some(MacAddr::from_ipv6_multicast(to))
    } else {
        source_mac
    };
    if let Some(to_mac) = to_mac {
        EthernetView::new_unchecked(&mut frame.data[..l3]).set_dst(to_mac);
    }
    let ip = Ipv6Repr {
        src: target,
        dst: to,
        next_header: IpProto::ICMPV6,
        payload_len: len as u16,
        hop_limit: ndp::HOP_LIMIT,
        traffic_class: 0,
        flow_label: 0,
    };
    ip.emit(&mut Ipv6View::new_unchecked(&mut frame.data[l3..l3 + IPV6_LEN]));
    let mut view = NdpView::new_unchecked(&mut frame.data[l3 + IPV6_LEN..l3 + IPV6_LEN + len]);
    answer.emit(&mut view);
    view.fill_checksum(&Pseudo::v6(target, to));
    let news = source_mac.filter(|_| is_news).map(|mac| (src.into(), mac));
    Ok(Reaction::Answer(frame, news))
}
