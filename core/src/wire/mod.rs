//! Wire formats: one file a protocol, each with a view over bytes and, where we originate packets, a Repr.
//!
//! * An `XxxView` wraps any buffer. `new_checked` reads the length fields once and refuses what does not
//!   fit; after it no accessor panics. `new_unchecked` is for a buffer that was just sized by
//!   `buffer_len()`. On a mutable buffer the view has setters: forwarding edits packets through these.
//!   Setters write what they are given: they neither validate nor touch a checksum.
//! * An `XxxRepr` is the meaning of a header in host terms. `parse` reads it from a checked view and
//!   refuses what it cannot express, `emit` writes it. `emit` panics on a buffer shorter than `buffer_len()`.
//! * Checksums are apart from parsing, as a driver may have verified them already: `parse` never looks at
//!   one. `emit` fills a checksum where the Repr holds all that it covers (IPv4, ICMPv4) and else leaves
//!   zero for `fill_checksum`.
//!
//! Two constructors take different notions of the end of a packet. `new_checked` wants everything that the
//! length field promises. `new_header_checked`, where it exists, wants the header only: for the head of a
//! frame in several segments, and for the packet quoted in an ICMP error, which is cut on purpose.
//!
//! Values are in host order in the API and big-endian on the wire. Nothing here allocates.

use core::fmt;
use core::net::Ipv6Addr;
use core::str::FromStr;

pub mod arp;
mod bytes;
pub mod checksum;
pub mod ethernet;
pub mod icmpv4;
pub mod icmpv6;
pub mod ipv4;
pub mod ipv6;
pub mod ipv6ext;
pub mod ndp;
pub mod tcp;
pub mod udp;
pub mod vlan;
pub mod vrrp;

#[cfg(test)]
mod tests;

pub use arp::{ArpOperation, ArpRepr, ArpView};
pub use checksum::{Delta, Pseudo};
pub use ethernet::{EthernetRepr, EthernetView};
pub use icmpv4::{Icmpv4Class, Icmpv4Repr, Icmpv4View};
pub use icmpv6::{Icmpv6Class, Icmpv6Repr, Icmpv6View};
pub use ipv4::{Ipv4Repr, Ipv4View};
pub use ipv6::{Ipv6Repr, Ipv6View};
pub use ipv6ext::{Ipv6FragmentRepr, Ipv6FragmentView, UpperLayer};
pub use ndp::{NdpRepr, NdpView, NeighbourFlags};
pub use tcp::{TcpFlags, TcpOption, TcpOptions, TcpRepr, TcpView};
pub use udp::{UdpRepr, UdpView};
pub use vlan::{VlanRepr, VlanTags, VlanView};
pub use vrrp::{VrrpAddrs, VrrpRepr, VrrpView};

/// Why bytes were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WireError {
    /// The buffer ends before the header, or before what a length field promises.
    Truncated,
    /// A length field contradicts its own header: smaller than the smallest header, or zero where each
    /// element must take space.
    BadLength,
    /// The version nibble is not that of the protocol that the layer below announced.
    BadVersion,
    /// A field holds a value that the protocol forbids here, or that the Repr cannot express.
    BadValue,
    /// More stacked headers than we follow: IPv6 extension headers or VLAN tags.
    TooManyHeaders,
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            WireError::Truncated => "the packet is cut short",
            WireError::BadLength => "a length field contradicts its header",
            WireError::BadVersion => "wrong IP version",
            WireError::BadValue => "a field holds a value that is not allowed here",
            WireError::TooManyHeaders => "too many stacked headers",
        })
    }
}

impl core::error::Error for WireError {}

/// An EtherType (IEEE 802.3 clause 3.2.6). Values up to 1500 are the length of an 802.3 frame instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EtherType(pub u16);

impl EtherType {
    /// IPv4.
    pub const IPV4: Self = EtherType(0x0800);
    /// ARP.
    pub const ARP: Self = EtherType(0x0806);
    /// A customer tag of IEEE 802.1Q.
    pub const VLAN: Self = EtherType(0x8100);
    /// IPv6.
    pub const IPV6: Self = EtherType(0x86dd);
    /// A service tag of IEEE 802.1ad (QinQ).
    pub const QINQ: Self = EtherType(0x88a8);
    /// The service tag of switches older than 802.1ad.
    pub const QINQ_OLD: Self = EtherType(0x9100);

    /// Whether a VLAN tag follows: 0x8100, 0x88a8 or 0x9100.
    pub const fn is_vlan(self) -> bool {
        matches!(self, Self::VLAN | Self::QINQ | Self::QINQ_OLD)
    }

    /// Whether this is not a type but the length of an 802.3 frame with an LLC header.
    pub const fn is_length(self) -> bool {
        self.0 <= 1500
    }
}

impl fmt::Display for EtherType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            EtherType::IPV4 => f.write_str("IPv4"),
            EtherType::ARP => f.write_str("ARP"),
            EtherType::VLAN => f.write_str("802.1Q"),
            EtherType::IPV6 => f.write_str("IPv6"),
            EtherType::QINQ => f.write_str("802.1ad"),
            EtherType(n) => write!(f, "{n:#06x}"),
        }
    }
}

/// A protocol number of IPv4's protocol field and IPv6's next header (IANA "Assigned Internet Protocol
/// Numbers").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IpProto(pub u8);

impl IpProto {
    /// IPv6 hop-by-hop options (RFC 8200, section 4.3).
    pub const HOP_BY_HOP: Self = IpProto(0);
    /// ICMP of IPv4 (RFC 792).
    pub const ICMP: Self = IpProto(1);
    /// IPv4 in IP (RFC 2003).
    pub const IPIP: Self = IpProto(4);
    /// TCP (RFC 9293).
    pub const TCP: Self = IpProto(6);
    /// UDP (RFC 768).
    pub const UDP: Self = IpProto(17);
    /// IPv6 in IP (RFC 2473).
    pub const IPV6: Self = IpProto(41);
    /// IPv6 routing header (RFC 8200, section 4.4).
    pub const IPV6_ROUTING: Self = IpProto(43);
    /// IPv6 fragment header (RFC 8200, section 4.5).
    pub const IPV6_FRAGMENT: Self = IpProto(44);
    /// GRE (RFC 2784).
    pub const GRE: Self = IpProto(47);
    /// IPsec encapsulating security payload (RFC 4303): what follows is not readable.
    pub const ESP: Self = IpProto(50);
    /// IPsec authentication header (RFC 4302).
    pub const AH: Self = IpProto(51);
    /// ICMPv6 (RFC 4443).
    pub const ICMPV6: Self = IpProto(58);
    /// No next header (RFC 8200, section 4.7).
    pub const IPV6_NO_NEXT: Self = IpProto(59);
    /// IPv6 destination options (RFC 8200, section 4.6).
    pub const IPV6_DEST_OPTIONS: Self = IpProto(60);
    /// VRRP (RFC 9568).
    pub const VRRP: Self = IpProto(112);
    /// SCTP (RFC 9260).
    pub const SCTP: Self = IpProto(132);

    /// Whether [`ipv6ext::walk`] steps over this header.
    pub const fn is_ipv6_extension(self) -> bool {
        matches!(
            self,
            Self::HOP_BY_HOP | Self::IPV6_ROUTING | Self::IPV6_FRAGMENT | Self::AH | Self::IPV6_DEST_OPTIONS
        )
    }
}

impl fmt::Display for IpProto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            IpProto::ICMP => f.write_str("icmp"),
            IpProto::TCP => f.write_str("tcp"),
            IpProto::UDP => f.write_str("udp"),
            IpProto::GRE => f.write_str("gre"),
            IpProto::ESP => f.write_str("esp"),
            IpProto::ICMPV6 => f.write_str("icmpv6"),
            IpProto::VRRP => f.write_str("vrrp"),
            IpProto::SCTP => f.write_str("sctp"),
            IpProto(n) => write!(f, "ip protocol {n}"),
        }
    }
}

/// A 48-bit hardware address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// `ff:ff:ff:ff:ff:ff`.
    pub const BROADCAST: Self = MacAddr([0xff; 6]);
    /// All zero: "not known" in ARP requests.
    pub const ZERO: Self = MacAddr([0; 6]);

    /// Whether the group bit is set; true of the broadcast address too.
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 == 1
    }

    /// Whether this is the broadcast address.
    pub const fn is_broadcast(self) -> bool {
        matches!(self.0, [0xff, 0xff, 0xff, 0xff, 0xff, 0xff])
    }

    /// The group address that carries packets for an IPv6 multicast address (RFC 2464, section 7):
    /// `33:33` and the last four bytes. Meaningful only for multicast addresses; not checked.
    pub const fn from_ipv6_multicast(addr: Ipv6Addr) -> Self {
        let [.., a, b, c, d] = addr.octets();
        MacAddr([0x33, 0x33, a, b, c, d])
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// Text that is not a hardware address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MacAddrParseError {
    /// Not 17 characters long.
    Length {
        /// The length found, in bytes.
        len: usize,
    },
    /// Something other than a hexadecimal digit where one is wanted.
    Digit {
        /// Byte position in the text.
        at: usize,
    },
    /// The pairs are not all separated by `:`, or all by `-`.
    Separator {
        /// Byte position in the text.
        at: usize,
    },
}

impl fmt::Display for MacAddrParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MacAddrParseError::Length { len } => {
                write!(
                    f,
                    "a hardware address has 17 characters, as 02:00:00:00:00:01; this has {len}"
                )
            }
            MacAddrParseError::Digit { at } => write!(f, "no hexadecimal digit at position {at}"),
            MacAddrParseError::Separator { at } => {
                write!(
                    f,
                    "expected the same separator, `:` or `-`, between all pairs; differs at position {at}"
                )
            }
        }
    }
}

impl core::error::Error for MacAddrParseError {}

impl FromStr for MacAddr {
    type Err = MacAddrParseError;

    /// Six pairs of hexadecimal digits, separated by `:` or by `-` throughout.
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let text: &[u8; 17] = s
            .as_bytes()
            .try_into()
            .map_err(|_| MacAddrParseError::Length { len: s.len() })?;
        let digit = |at: usize| match char::from(text[at]).to_digit(16) {
            Some(d) => Ok(d as u8),
            None => Err(MacAddrParseError::Digit { at }),
        };
        let mut mac = [0; 6];
        for (i, byte) in mac.iter_mut().enumerate() {
            let at = i * 3;
            *byte = digit(at)? << 4 | digit(at + 1)?;
            if let Some(&separator) = text.get(at + 2)
                && (!matches!(separator, b':' | b'-') || separator != text[2])
            {
                return Err(MacAddrParseError::Separator { at: at + 2 });
            }
        }
        Ok(MacAddr(mac))
    }
}

#[cfg(test)]
mod mac_tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn text_both_ways() {
        let mac = MacAddr([0x02, 0xab, 0, 0, 0xcd, 0x0f]);
        assert_eq!(mac.to_string(), "02:ab:00:00:cd:0f");
        assert_eq!("02:ab:00:00:cd:0f".parse(), Ok(mac));
        assert_eq!("02-AB-00-00-CD-0F".parse(), Ok(mac));
    }

    #[test]
    fn bad_text_is_refused_with_its_place() {
        for (text, want) in [
            ("", MacAddrParseError::Length { len: 0 }),
            ("02:ab:00:00:cd:0", MacAddrParseError::Length { len: 16 }),
            ("02:ab:00:00:cd:0f:", MacAddrParseError::Length { len: 18 }),
            ("02:ab:00:00:cd:0g", MacAddrParseError::Digit { at: 16 }),
            ("0 :ab:00:00:cd:0f", MacAddrParseError::Digit { at: 1 }),
            ("+2:ab:00:00:cd:0f", MacAddrParseError::Digit { at: 0 }),
            ("02:ab:00-00:cd:0f", MacAddrParseError::Separator { at: 8 }),
            ("02.ab.00.00.cd.0f", MacAddrParseError::Separator { at: 2 }),
            ("02:ab:00:00:cd:\u{e9}", MacAddrParseError::Digit { at: 15 }),
        ] {
            assert_eq!(text.parse::<MacAddr>(), Err(want), "{text:?}");
        }
    }

    #[test]
    fn groups() {
        assert!(MacAddr::BROADCAST.is_broadcast() && MacAddr::BROADCAST.is_multicast());
        let group = MacAddr::from_ipv6_multicast("ff02::1:ff12:3456".parse().expect("address"));
        assert_eq!(group.to_string(), "33:33:ff:12:34:56");
        assert!(group.is_multicast() && !group.is_broadcast());
        assert!(!MacAddr([2, 0, 0, 0, 0, 1]).is_multicast());
    }
}
