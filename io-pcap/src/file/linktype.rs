//! Link types, and how a packet of each becomes an Ethernet frame.

use std::fmt;

use super::CapturedPacket;

/// Destination of a frame that is made for a packet without Ethernet header: locally administered.
pub const SYNTHETIC_DST_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x02];
/// Source of such a frame.
pub const SYNTHETIC_SRC_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
/// Ethernet header without tags.
const ETHERNET_HEADER_LEN: usize = 14;
/// Values below are lengths or Linux's own protocol numbers, not EtherTypes (IEEE 802.3, 3.2.6).
const ETHERTYPE_MIN: u16 = 0x0600;
/// Linux's ARPHRD_NETLINK: the protocol field of a cooked header is then a netlink family.
const ARPHRD_NETLINK: u16 = 824;

/// The link type of a capture: what its packets begin with. Numbers of the registry "LINKTYPE_" that
/// draft-ietf-opsawg-pcaplinktype describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkType(pub u16);

impl LinkType {
    /// BSD loopback: the address family, in the byte order of the machine that captured.
    pub const NULL: LinkType = LinkType(0);
    /// Ethernet.
    pub const ETHERNET: LinkType = LinkType(1);
    /// Raw IP as some systems wrote it (DLT_RAW).
    pub const RAW_12: LinkType = LinkType(12);
    /// Raw IP as OpenBSD wrote it.
    pub const RAW_14: LinkType = LinkType(14);
    /// Raw IP, either version.
    pub const RAW: LinkType = LinkType(101);
    /// OpenBSD loopback: the address family in network byte order.
    pub const LOOP: LinkType = LinkType(108);
    /// Linux "cooked" capture, version 1.
    pub const LINUX_SLL: LinkType = LinkType(113);
    /// Raw IPv4.
    pub const IPV4: LinkType = LinkType(228);
    /// Raw IPv6.
    pub const IPV6: LinkType = LinkType(229);
    /// Linux "cooked" capture, version 2.
    pub const LINUX_SLL2: LinkType = LinkType(276);

    /// Whether [`append_ethernet`] takes packets of this type.
    pub fn is_supported(self) -> bool {
        matches!(
            self,
            LinkType::NULL
                | LinkType::ETHERNET
                | LinkType::RAW_12
                | LinkType::RAW_14
                | LinkType::RAW
                | LinkType::LOOP
                | LinkType::LINUX_SLL
                | LinkType::IPV4
                | LinkType::IPV6
                | LinkType::LINUX_SLL2
        )
    }

    /// Its name in the registry, without the prefix, of the types that one meets.
    pub fn name(self) -> Option<&'static str> {
        Some(match self.0 {
            0 => "NULL",
            1 => "ETHERNET",
            6 => "IEEE802_5",
            7 => "ARCNET_BSD",
            8 => "SLIP",
            9 => "PPP",
            10 => "FDDI",
            12 | 14 | 101 => "RAW",
            50 => "PPP_HDLC",
            51 => "PPP_ETHER",
            100 => "ATM_RFC1483",
            104 => "C_HDLC",
            105 => "IEEE802_11",
            107 => "FRELAY",
            108 => "LOOP",
            113 => "LINUX_SLL",
            117 => "PFLOG",
            119 => "IEEE802_11_PRISM",
            122 => "IP_OVER_FC",
            127 => "IEEE802_11_RADIOTAP",
            138 => "APPLE_IP_OVER_IEEE1394",
            143 => "DOCSIS",
            147..=162 => "USER0 to USER15",
            163 => "IEEE802_11_AVS",
            187 => "BLUETOOTH_HCI_H4",
            189 => "USB_LINUX",
            192 => "PPI",
            195 => "IEEE802_15_4_WITHFCS",
            201 => "BLUETOOTH_HCI_H4_WITH_PHDR",
            220 => "USB_LINUX_MMAPPED",
            227 => "CAN_SOCKETCAN",
            228 => "IPV4",
            229 => "IPV6",
            239 => "NFLOG",
            247 => "INFINIBAND",
            249 => "USBPCAP",
            251 => "BLUETOOTH_LE_LL",
            252 => "WIRESHARK_UPPER_PDU",
            253 => "NETLINK",
            274 => "ETHERNET_MPACKET",
            276 => "LINUX_SLL2",
            _ => return None,
        })
    }
}

impl fmt::Display for LinkType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{name} ({})", self.0),
            None => write!(f, "{}", self.0),
        }
    }
}

/// Why a packet could not be made into an Ethernet frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The link type as a whole is not supported.
    #[error("unsupported link type {0}")]
    UnsupportedLink(LinkType),
    /// The link layer is supported, but what it carries has no EtherType here.
    #[error("link type {link}: protocol {protocol:#x} has no EtherType")]
    UnsupportedProtocol {
        /// The link type.
        link: LinkType,
        /// Address family, IP version or protocol number, as the link type has it.
        protocol: u32,
    },
    /// The captured bytes end within the link-layer header.
    #[error("link type {link}: {len} captured bytes are less than its header")]
    TooShort {
        /// The link type.
        link: LinkType,
        /// Captured bytes.
        len: usize,
    },
}

/// Appends the packet to `out` as an Ethernet frame: as it is if it was captured on Ethernet, else behind a
/// header with [`SYNTHETIC_DST_MAC`], [`SYNTHETIC_SRC_MAC`] and the EtherType that its link layer implies.
/// Appends at most `data.len() + 14` bytes, and nothing on error.
///
/// # Errors
///
/// [`FrameError`].
pub fn append_ethernet(link: LinkType, data: &[u8], out: &mut Vec<u8>) -> Result<(), FrameError> {
    if link == LinkType::ETHERNET {
        out.extend_from_slice(data);
        return Ok(());
    }
    let (ethertype, payload) = network_layer(link, data)?;
    out.reserve(ETHERNET_HEADER_LEN + payload.len());
    out.extend_from_slice(&SYNTHETIC_DST_MAC);
    out.extend_from_slice(&SYNTHETIC_SRC_MAC);
    out.extend_from_slice(&ethertype.to_be_bytes());
    out.extend_from_slice(payload);
    Ok(())
}

/// EtherType and contents of a packet that was not captured on Ethernet.
fn network_layer(link: LinkType, data: &[u8]) -> Result<(u16, &[u8]), FrameError> {
    let too_short = FrameError::TooShort {
        link,
        len: data.len(),
    };
    match link {
        LinkType::IPV4 => Ok((ETHERTYPE_IPV4, data)),
        LinkType::IPV6 => Ok((ETHERTYPE_IPV6, data)),
        LinkType::RAW | LinkType::RAW_12 | LinkType::RAW_14 => match data.first().map(|byte| byte >> 4) {
            Some(4) => Ok((ETHERTYPE_IPV4, data)),
            Some(6) => Ok((ETHERTYPE_IPV6, data)),
            Some(version) => Err(FrameError::UnsupportedProtocol {
                link,
                protocol: u32::from(version),
            }),
            None => Err(too_short),
        },
        LinkType::NULL | LinkType::LOOP => {
            let (family, payload) = data.split_first_chunk::<4>().ok_or(too_short)?;
            // NULL does not say in which byte order; no family is another one with its bytes swapped.
            let family = u32::from_be_bytes(*family);
            match ethertype_of_family(family).or_else(|| ethertype_of_family(family.swap_bytes())) {
                Some(ethertype) => Ok((ethertype, payload)),
                None => Err(FrameError::UnsupportedProtocol {
                    link,
                    protocol: family,
                }),
            }
        }
        LinkType::LINUX_SLL => {
            // Packet type (2), ARPHRD (2), address length (2), address (8), protocol (2).
            let (header, payload) = data.split_first_chunk::<16>().ok_or(too_short)?;
            let [_, _, a0, a1, _, _, _, _, _, _, _, _, _, _, p0, p1] = *header;
            cooked(
                link,
                u16::from_be_bytes([a0, a1]),
                u16::from_be_bytes([p0, p1]),
                payload,
            )
        }
        LinkType::LINUX_SLL2 => {
            // Protocol (2), reserved (2), interface (4), ARPHRD (2), packet type (1), address length (1),
            // address (8).
            let (header, payload) = data.split_first_chunk::<20>().ok_or(too_short)?;
            let [p0, p1, _, _, _, _, _, _, a0, a1, ..] = *header;
            cooked(
                link,
                u16::from_be_bytes([a0, a1]),
                u16::from_be_bytes([p0, p1]),
                payload,
            )
        }
        _ => Err(FrameError::UnsupportedLink(link)),
    }
}

fn cooked(link: LinkType, arphrd: u16, protocol: u16, payload: &[u8]) -> Result<(u16, &[u8]), FrameError> {
    if arphrd == ARPHRD_NETLINK || protocol < ETHERTYPE_MIN {
        return Err(FrameError::UnsupportedProtocol {
            link,
            protocol: u32::from(protocol),
        });
    }
    Ok((protocol, payload))
}

/// AF_INET is 2 everywhere; AF_INET6 is 10 on Linux, 24 on NetBSD and OpenBSD, 28 on FreeBSD, 30 on Darwin.
fn ethertype_of_family(family: u32) -> Option<u16> {
    match family {
        2 => Some(ETHERTYPE_IPV4),
        10 | 24 | 28 | 30 => Some(ETHERTYPE_IPV6),
        _ => None,
    }
}

/// What [`Framer::frame`] did with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Framed {
    /// The frame is only the beginning of what was on the wire.
    pub snapped: bool,
    /// Its Ethernet header was made up.
    pub synthetic: bool,
}

/// Counters of a [`Framer`], in packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameStats {
    /// Captured as Ethernet frames.
    pub ethernet: u64,
    /// Given an Ethernet header.
    pub synthetic: u64,
    /// Of these two, captured only in part.
    pub snapped: u64,
    /// Left out: unsupported link type.
    pub unsupported_link: u64,
    /// Left out: a protocol without EtherType.
    pub unsupported_protocol: u64,
    /// Left out: cut within the link-layer header.
    pub too_short: u64,
}

/// Makes Ethernet frames of captured packets, and counts.
#[derive(Clone, Debug, Default)]
pub struct Framer {
    stats: FrameStats,
}

impl Framer {
    /// As [`append_ethernet`], counted.
    ///
    /// # Errors
    ///
    /// [`FrameError`]: the packet is to be left out; it is counted.
    pub fn frame(&mut self, packet: &CapturedPacket<'_>, out: &mut Vec<u8>) -> Result<Framed, FrameError> {
        let synthetic = packet.link != LinkType::ETHERNET;
        let result = append_ethernet(packet.link, packet.data, out);
        *match result {
            Ok(()) if synthetic => &mut self.stats.synthetic,
            Ok(()) => &mut self.stats.ethernet,
            Err(FrameError::UnsupportedLink(_)) => &mut self.stats.unsupported_link,
            Err(FrameError::UnsupportedProtocol { .. }) => &mut self.stats.unsupported_protocol,
            Err(FrameError::TooShort { .. }) => &mut self.stats.too_short,
        } += 1;
        result?;
        let snapped = packet.snapped();
        self.stats.snapped += u64::from(snapped);
        Ok(Framed { snapped, synthetic })
    }

    /// The counts so far.
    pub fn stats(&self) -> FrameStats {
        self.stats
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::PacketDirection;

    const V4: &[u8] = &[0x45, 1, 2, 3];
    const V6: &[u8] = &[0x60, 1, 2, 3];

    fn frame(link: LinkType, parts: &[&[u8]]) -> Result<Vec<u8>, FrameError> {
        let mut out = vec![0xaa];
        let result = append_ethernet(link, &parts.concat(), &mut out);
        assert_eq!(out[0], 0xaa, "appends");
        if result.is_err() {
            assert_eq!(out.len(), 1, "nothing on error");
        }
        result.map(|()| out.split_off(1))
    }

    fn synthetic(ethertype: u16, payload: &[u8]) -> Result<Vec<u8>, FrameError> {
        let mut out = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
        out.extend(ethertype.to_be_bytes());
        out.extend(payload);
        Ok(out)
    }

    #[test]
    fn ethernet_is_passed_as_it_is() {
        assert_eq!(frame(LinkType::ETHERNET, &[&[1, 2, 3]]), Ok(vec![1, 2, 3]));
        assert_eq!(frame(LinkType::ETHERNET, &[]), Ok(vec![]));
    }

    #[test]
    fn raw_ip_goes_by_its_version() {
        for link in [12, 14, 101].map(LinkType) {
            assert_eq!(frame(link, &[V4]), synthetic(0x0800, V4));
            assert_eq!(frame(link, &[V6]), synthetic(0x86dd, V6));
            assert_eq!(frame(link, &[]), Err(FrameError::TooShort { link, len: 0 }));
            assert_eq!(
                frame(link, &[&[0x50]]),
                Err(FrameError::UnsupportedProtocol { link, protocol: 5 })
            );
        }
        assert_eq!(frame(LinkType::IPV4, &[V4]), synthetic(0x0800, V4));
        assert_eq!(frame(LinkType::IPV6, &[V6]), synthetic(0x86dd, V6));
    }

    #[test]
    fn loopback_families_in_both_byte_orders() {
        for link in [LinkType::NULL, LinkType::LOOP] {
            for (family, ethertype) in [
                (2u32, 0x0800),
                (10, 0x86dd),
                (24, 0x86dd),
                (28, 0x86dd),
                (30, 0x86dd),
            ] {
                assert_eq!(
                    frame(link, &[&family.to_le_bytes(), V4]),
                    synthetic(ethertype, V4)
                );
                assert_eq!(
                    frame(link, &[&family.to_be_bytes(), V4]),
                    synthetic(ethertype, V4)
                );
            }
            assert_eq!(
                frame(link, &[&7u32.to_be_bytes(), V4]),
                Err(FrameError::UnsupportedProtocol { link, protocol: 7 })
            );
            assert_eq!(
                frame(link, &[&[0, 0, 2]]),
                Err(FrameError::TooShort { link, len: 3 })
            );
        }
    }

    #[test]
    fn cooked_headers_give_their_protocol() {
        let sll = |arphrd: u16, protocol: u16| {
            let mut header = vec![0, 4];
            header.extend(arphrd.to_be_bytes());
            header.extend([0, 6, 1, 2, 3, 4, 5, 6, 0, 0]);
            header.extend(protocol.to_be_bytes());
            header
        };
        let sll2 = |arphrd: u16, protocol: u16| {
            let mut header = protocol.to_be_bytes().to_vec();
            header.extend([0, 0, 0, 0, 0, 7]);
            header.extend(arphrd.to_be_bytes());
            header.extend([4, 6, 1, 2, 3, 4, 5, 6, 0, 0]);
            header
        };
        for (link, header) in [
            (LinkType::LINUX_SLL, &sll as &dyn Fn(u16, u16) -> Vec<u8>),
            (LinkType::LINUX_SLL2, &sll2 as &dyn Fn(u16, u16) -> Vec<u8>),
        ] {
            assert_eq!(frame(link, &[&header(1, 0x0800), V4]), synthetic(0x0800, V4));
            assert_eq!(frame(link, &[&header(772, 0x86dd), V6]), synthetic(0x86dd, V6));
            assert_eq!(frame(link, &[&header(1, 0x8100), V6]), synthetic(0x8100, V6));
            assert_eq!(
                frame(link, &[&header(1, 4), V4]),
                Err(FrameError::UnsupportedProtocol { link, protocol: 4 })
            );
            assert_eq!(
                frame(link, &[&header(824, 0x0800), V4]),
                Err(FrameError::UnsupportedProtocol {
                    link,
                    protocol: 0x0800
                })
            );
            let short = &header(1, 0x0800)[1..];
            assert_eq!(
                frame(link, &[short]),
                Err(FrameError::TooShort {
                    link,
                    len: short.len()
                })
            );
        }
    }

    #[test]
    fn every_link_type_is_supported_or_named_as_not() {
        for link in (0..=u16::MAX).map(LinkType) {
            let unsupported = frame(link, &[V4]) == Err(FrameError::UnsupportedLink(link));
            assert_eq!(unsupported, !link.is_supported(), "{link}");
            assert!(!link.is_supported() || link.name().is_some(), "{link}");
        }
        assert_eq!(LinkType(127).to_string(), "IEEE802_11_RADIOTAP (127)");
        assert_eq!(LinkType(9999).to_string(), "9999");
    }

    #[test]
    fn the_framer_counts_every_outcome() {
        let mut framer = Framer::default();
        let mut out = Vec::new();
        let mut feed = |link, data: &[u8], orig_len| {
            out.clear();
            let direction = PacketDirection::Unknown;
            let packet = CapturedPacket {
                time_ns: 0,
                interface: 0,
                link,
                data,
                orig_len,
                comment: None,
                direction,
            };
            framer.frame(&packet, &mut out)
        };
        assert_eq!(
            feed(LinkType::ETHERNET, V4, 4),
            Ok(Framed {
                snapped: false,
                synthetic: false
            })
        );
        assert_eq!(
            feed(LinkType::ETHERNET, V4, 5),
            Ok(Framed {
                snapped: true,
                synthetic: false
            })
        );
        assert_eq!(
            feed(LinkType::RAW, V4, 5),
            Ok(Framed {
                snapped: true,
                synthetic: true
            })
        );
        assert!(feed(LinkType(105), V4, 5).is_err());
        assert!(feed(LinkType::RAW, &[], 5).is_err());
        assert!(feed(LinkType::RAW, &[0], 5).is_err());
        let expected = FrameStats {
            ethernet: 2,
            synthetic: 1,
            snapped: 2,
            unsupported_link: 1,
            unsupported_protocol: 1,
            too_short: 1,
        };
        assert_eq!(framer.stats(), expected);
    }
}
