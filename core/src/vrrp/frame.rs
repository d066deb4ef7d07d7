//! Advertisements as whole frames: written, and read with every check of RFC 9568, section 7.1.

use alloc::vec::Vec;
use core::net::IpAddr;

use crate::announce::framed;
use crate::service::is_unicast;
use crate::wire::vrrp::{self, GROUP_MAC_V4, GROUP_MAC_V6, GROUP_V4, GROUP_V6, TTL};
use crate::wire::{
    EtherType, EthernetView, IpProto, Ipv4Repr, Ipv4View, Ipv6Repr, Ipv6View, MacAddr, Pseudo, VrrpAddrs,
    VrrpRepr, VrrpView, ethernet, ipv4, ipv6,
};

macro_rules! drops {
    ($($(#[doc = $doc:literal])+ $name:ident => $text:literal,)+) => {
        /// Why a frame told an instance nothing.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum VrrpDrop {
            $($(#[doc = $doc])+ $name,)+
        }

        impl VrrpDrop {
            /// Every reason, in the order of their numbers.
            pub const ALL: &'static [VrrpDrop] = &[$(VrrpDrop::$name,)+];

            /// Name in counters.
            pub const fn name(self) -> &'static str {
                match self {
                    $(VrrpDrop::$name => $text,)+
                }
            }
        }
    };
}

drops! {
    /// Not VRRP in an untagged Ethernet frame.
    NotVrrp => "not-vrrp",
    /// VRRP over the other IP.
    OtherFamily => "other-family",
    /// The IP header contradicts itself or the frame, its checksum is wrong, or it is a fragment's.
    BadIp => "bad-ip",
    /// Not sent to the group of all virtual routers.
    OtherDestination => "other-destination",
    /// A source that no host can have.
    BadSource => "bad-source",
    /// Sent by this node itself.
    OwnSource => "own-source",
    /// Time to live, or hop limit, other than 255: it is not from this link.
    BadTtl => "bad-ttl",
    /// Shorter than a message, or not as long as its addresses want.
    BadLength => "bad-length",
    /// Another version than 3.
    BadVersion => "bad-version",
    /// Not an advertisement.
    BadType => "bad-type",
    /// The checksum is wrong.
    BadChecksum => "bad-checksum",
    /// Of another virtual router.
    OtherVrid => "other-vrid",
    /// It names no address.
    NoAddress => "no-address",
    /// An interval of 0.
    BadInterval => "bad-interval",
    /// This node is the master and owns the addresses: it gives way to nobody.
    AddressOwner => "address-owner",
    /// The instance does not run.
    Stopped => "stopped",
}

impl VrrpDrop {
    /// How many reasons there are.
    pub const COUNT: usize = Self::ALL.len();
}

/// What an advertisement said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Heard {
    pub(super) source: IpAddr,
    pub(super) priority: u8,
    pub(super) interval_cs: u16,
    /// Whether its addresses are the ones expected, in whatever order.
    pub(super) same_addrs: bool,
}

/// The virtual addresses as they lie on the wire.
#[derive(Clone, Debug)]
pub(super) enum Octets {
    V4(Vec<[u8; 4]>),
    V6(Vec<[u8; 16]>),
}

impl Octets {
    pub(super) fn new(v6: bool, addrs: &[IpAddr]) -> Self {
        let v4s = addrs.iter().filter_map(|a| match a {
            IpAddr::V4(a) => Some(a.octets()),
            IpAddr::V6(_) => None,
        });
        let v6s = addrs.iter().filter_map(|a| match a {
            IpAddr::V4(_) => None,
            IpAddr::V6(a) => Some(a.octets()),
        });
        if v6 {
            Octets::V6(v6s.collect())
        } else {
            Octets::V4(v4s.collect())
        }
    }

    fn as_wire(&self) -> VrrpAddrs<'_> {
        match self {
            Octets::V4(addrs) => VrrpAddrs::V4(addrs),
            Octets::V6(addrs) => VrrpAddrs::V6(addrs),
        }
    }
}

/// All of an instance that its advertisements carry or are held against.
#[derive(Clone, Debug)]
pub(super) struct Framing {
    pub(super) vrid: u8,
    pub(super) primary: IpAddr,
    pub(super) interval_cs: u16,
    pub(super) ipv4_pseudo_header: bool,
    pub(super) mac: MacAddr,
    pub(super) addrs: Octets,
}

/// DSCP CS6: network control (RFC 4594, section 3.1).
const TRAFFIC_CLASS: u8 = 0xc0;

impl Framing {
    /// An advertisement of this node.
    pub(super) fn advertisement(&self, priority: u8) -> Vec<u8> {
        let message = VrrpRepr {
            vrid: self.vrid,
            priority,
            interval_cs: self.interval_cs,
            addrs: self.addrs.as_wire(),
        };
        let len = message.buffer_len();
        match self.primary {
            IpAddr::V4(src) => {
                let ip = Ipv4Repr {
                    src,
                    dst: GROUP_V4,
                    proto: IpProto::VRRP,
                    payload_len: len as u16,
                    ttl: TTL,
                    tos: TRAFFIC_CLASS,
                    ident: 0,
                    dont_fragment: true,
                    more_fragments: false,
                    fragment_offset: 0,
                };
                let mut frame = framed(GROUP_MAC_V4, self.mac, EtherType::IPV4, ipv4::HEADER_LEN + len);
                let (header, rest) = frame[ethernet::HEADER_LEN..].split_at_mut(ipv4::HEADER_LEN);
                ip.emit(&mut Ipv4View::new_unchecked(header));
                let mut view = VrrpView::new_unchecked(rest);
                message.emit(&mut view);
                if self.ipv4_pseudo_header {
                    view.fill_checksum(&Pseudo::v4(src, GROUP_V4));
                } else {
                    view.fill_checksum_of_message();
                }
                frame
            }
            IpAddr::V6(src) => {
                let ip = Ipv6Repr {
                    src,
                    dst: GROUP_V6,
                    next_header: IpProto::VRRP,
                    payload_len: len as u16,
                    hop_limit: TTL,
                    traffic_class: TRAFFIC_CLASS,
                    flow_label: 0,
                };
                let mut frame = framed(GROUP_MAC_V6, self.mac, EtherType::IPV6, ipv6::HEADER_LEN + len);
                let (header, rest) = frame[ethernet::HEADER_LEN..].split_at_mut(ipv6::HEADER_LEN);
                ip.emit(&mut Ipv6View::new_unchecked(header));
                let mut view = VrrpView::new_unchecked(rest);
                message.emit(&mut view);
                view.fill_checksum(&Pseudo::v6(src, GROUP_V6));
                frame
            }
        }
    }

    /// Reads a frame: everything of RFC 9568, section 7.1, that does not depend on the state.
    pub(super) fn read(&self, frame: &[u8]) -> Result<Heard, VrrpDrop> {
        let ethernet = EthernetView::new_checked(frame).map_err(|_| VrrpDrop::NotVrrp)?;
        match ethernet.ethertype() {
            EtherType::IPV4 => self.read_v4(ethernet.payload()),
            EtherType::IPV6 => self.read_v6(ethernet.payload()),
            _ => Err(VrrpDrop::NotVrrp),
        }
    }

    fn read_v4(&self, packet: &[u8]) -> Result<Heard, VrrpDrop> {
        let ip = Ipv4View::new_checked(packet).map_err(|_| VrrpDrop::BadIp)?;
        if ip.proto() != IpProto::VRRP {
            return Err(VrrpDrop::NotVrrp);
        }
        if self.primary.is_ipv6() {
            return Err(VrrpDrop::OtherFamily);
        }
        if !ip.verify_checksum() || ip.is_fragment() {
            return Err(VrrpDrop::BadIp);
        }
        if ip.dst() != GROUP_V4 {
            return Err(VrrpDrop::OtherDestination);
        }
        let pseudo = Pseudo::v4(ip.src(), ip.dst());
        self.read_message(ip.src().into(), ip.ttl(), ip.payload(), &pseudo)
    }

    fn read_v6(&self, packet: &[u8]) -> Result<Heard, VrrpDrop> {
        let ip = Ipv6View::new_checked(packet).map_err(|_| VrrpDrop::BadIp)?;
        // No sender of VRRP puts extension headers in front of it.
        if ip.next_header() != IpProto::VRRP {
            return Err(VrrpDrop::NotVrrp);
        }
        if self.primary.is_ipv4() {
            return Err(VrrpDrop::OtherFamily);
        }
        if ip.dst() != GROUP_V6 {
            return Err(VrrpDrop::OtherDestination);
        }
        let pseudo = Pseudo::v6(ip.src(), ip.dst());
        self.read_message(ip.src().into(), ip.hop_limit(), ip.payload(), &pseudo)
    }

    fn read_message(
        &self,
        source: IpAddr,
        ttl: u8,
        message: &[u8],
        pseudo: &Pseudo,
    ) -> Result<Heard, VrrpDrop> {
        if source == self.primary {
            return Err(VrrpDrop::OwnSource);
        }
        if !is_unicast(source) {
            return Err(VrrpDrop::BadSource);
        }
        if ttl != TTL {
            return Err(VrrpDrop::BadTtl);
        }
        let view = VrrpView::new_checked(message).map_err(|_| VrrpDrop::BadLength)?;
        if view.version() != vrrp::VERSION {
            return Err(VrrpDrop::BadVersion);
        }
        if view.msg_type() != vrrp::ADVERTISEMENT {
            return Err(VrrpDrop::BadType);
        }
        let right = view.verify_checksum(pseudo) || source.is_ipv4() && view.verify_checksum_of_message();
        if !right {
            return Err(VrrpDrop::BadChecksum);
        }
        if view.vrid() != self.vrid {
            return Err(VrrpDrop::OtherVrid);
        }
        if view.addr_count() == 0 {
            return Err(VrrpDrop::NoAddress);
        }
        if view.interval_cs() == 0 {
            return Err(VrrpDrop::BadInterval);
        }
        let said = VrrpRepr::parse(&view, source.is_ipv6()).map_err(|_| VrrpDrop::BadLength)?;
        Ok(Heard {
            source,
            priority: said.priority,
            interval_cs: said.interval_cs,
            same_addrs: is_permutation(said.addrs, self.addrs.as_wire()),
        })
    }
}

/// Whether both hold the same addresses. Mostly in the same order, which is found out first; else at most 255
/// times 255 are compared.
fn is_permutation(a: VrrpAddrs<'_>, b: VrrpAddrs<'_>) -> bool {
    let all_in = |a: VrrpAddrs<'_>, b: VrrpAddrs<'_>| a.iter().all(|a| b.iter().any(|b| a == b));
    a == b || a.len() == b.len() && all_in(a, b) && all_in(b, a)
}
