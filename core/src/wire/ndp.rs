//! Neighbour discovery of IPv6 (RFC 4861): solicitations, which the engine answers for owned addresses,
//! and advertisements.

use core::net::Ipv6Addr;

use crate::wire::bytes::{read, write};
use crate::wire::checksum::Pseudo;
use crate::wire::icmpv6::{self, Icmpv6View, msg};
use crate::wire::{Ipv6Repr, MacAddr, WireError};

mod field {
    use crate::wire::bytes::Field;

    pub(super) const TYPE: usize = 0;
    pub(super) const CODE: usize = 1;
    /// Flags of an advertisement and reserved bits.
    pub(super) const FLAGS: Field = 4..8;
    pub(super) const TARGET: Field = 8..24;
}

/// Length of a message without options, in bytes.
pub const HEADER_LEN: usize = field::TARGET.end;

/// Hop limit of every message: no router has passed it on.
pub const HOP_LIMIT: u8 = 255;

/// Length of the link-layer address option on Ethernet, in bytes.
const LINK_ADDR_OPTION_LEN: usize = 8;

const OPTION_SOURCE_LINK_ADDR: u8 = 1;
const OPTION_TARGET_LINK_ADDR: u8 = 2;

const FLAG_ROUTER: u8 = 0x80;
const FLAG_SOLICITED: u8 = 0x40;
const FLAG_OVERRIDE: u8 = 0x20;

/// The multicast group on which the owner of `addr` is asked for (RFC 4291, section 2.7.1):
/// `ff02::1:ff` and the last three bytes.
pub const fn solicited_node(addr: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = addr.octets();
    Ipv6Addr::new(
        0xff02,
        0,
        0,
        0,
        0,
        1,
        0xff00 | a as u16,
        (b as u16) << 8 | c as u16,
    )
}

/// Flags of an advertisement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NeighbourFlags {
    /// R: the sender is a router.
    pub router: bool,
    /// S: this answers a solicitation.
    pub solicited: bool,
    /// O: the address given here replaces a cached one.
    pub override_cached: bool,
}

/// A view of a neighbour solicitation or advertisement, from its ICMPv6 header to its last option.
#[derive(Clone, Copy, Debug)]
pub struct NdpView<T> {
    buffer: T,
}

impl<T: AsRef<[u8]>> NdpView<T> {
    /// A view without a check; accessors panic on a buffer shorter than [`HEADER_LEN`].
    pub const fn new_unchecked(buffer: T) -> Self {
        NdpView { buffer }
    }

    /// A view of an ICMPv6 message. [`WireError::Truncated`] below 24 bytes, [`WireError::BadValue`] for
    /// other types.
    pub fn new_checked(buffer: T) -> Result<Self, WireError> {
        if buffer.as_ref().len() < HEADER_LEN {
            return Err(WireError::Truncated);
        }
        let view = NdpView { buffer };
        match view.msg_type() {
            msg::NEIGHBOUR_SOLICITATION | msg::NEIGHBOUR_ADVERTISEMENT => Ok(view),
            _ => Err(WireError::BadValue),
        }
    }

    /// The buffer back.
    pub fn into_inner(self) -> T {
        self.buffer
    }

    /// Type of the message.
    pub fn msg_type(&self) -> u8 {
        self.buffer.as_ref()[field::TYPE]
    }

    /// Code; zero in every valid message.
    pub fn code(&self) -> u8 {
        self.buffer.as_ref()[field::CODE]
    }

    /// Flags; mean something in an advertisement.
    pub fn flags(&self) -> NeighbourFlags {
        let [flags, ..] = read::<4>(self.buffer.as_ref(), field::FLAGS);
        NeighbourFlags {
            router: flags & FLAG_ROUTER != 0,
            solicited: flags & FLAG_SOLICITED != 0,
            override_cached: flags & FLAG_OVERRIDE != 0,
        }
    }

    /// The address that is asked for or advertised.
    pub fn target(&self) -> Ipv6Addr {
        read::<16>(self.buffer.as_ref(), field::TARGET).into()
    }

    /// The bytes of the options.
    pub fn options_bytes(&self) -> &[u8] {
        &self.buffer.as_ref()[HEADER_LEN..]
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> NdpView<T> {
    /// Sets the type; the code becomes zero.
    pub fn set_msg_type(&mut self, msg_type: u8) {
        let data = self.buffer.as_mut();
        data[field::TYPE] = msg_type;
        data[field::CODE] = 0;
    }

    /// Sets the flags; the reserved bits become zero.
    pub fn set_flags(&mut self, flags: NeighbourFlags) {
        let bit = |on, bit| if on { bit } else { 0 };
        let byte = bit(flags.router, FLAG_ROUTER)
            | bit(flags.solicited, FLAG_SOLICITED)
            | bit(flags.override_cached, FLAG_OVERRIDE);
        write(self.buffer.as_mut(), field::FLAGS, [byte, 0, 0, 0]);
    }

    /// Sets the target.
    pub fn set_target(&mut self, target: Ipv6Addr) {
        write(self.buffer.as_mut(), field::TARGET, target.octets());
    }

    /// The bytes of the options.
    pub fn options_bytes_mut(&mut self) -> &mut [u8] {
        &mut self.buffer.as_mut()[HEADER_LEN..]
    }

    /// Computes the checksum and writes it; the buffer must be the whole message.
    pub fn fill_checksum(&mut self, pseudo: &Pseudo) {
        Icmpv6View::new_unchecked(self.buffer.as_mut()).fill_checksum(pseudo);
    }
}

/// A neighbour solicitation or advertisement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NdpRepr {
    /// Who has the target address?
    Solicitation {
        /// The address asked for.
        target: Ipv6Addr,
        /// Hardware address of the one who asks; absent in duplicate address detection.
        source_mac: Option<MacAddr>,
    },
    /// The sender has it.
    Advertisement {
        /// Flags.
        flags: NeighbourFlags,
        /// The address advertised.
        target: Ipv6Addr,
        /// Hardware address of the target; may be absent in the answer to a unicast solicitation.
        target_mac: Option<MacAddr>,
    },
}

impl NdpRepr {
    /// Reads a message that came in a packet with header `ip`, with the validity rules of RFC 4861,
    /// sections 7.1.1 and 7.1.2, all but the checksum ([`Icmpv6View::verify_checksum`]).
    ///
    /// [`WireError::BadValue`]: a hop limit other than 255, a code other than zero, a multicast target, a
    /// group address as a neighbour's hardware address, an unspecified source asking with its hardware
    /// address or elsewhere than at the solicited-node group, a solicited advertisement to a group.
    /// [`WireError::BadLength`]: an option of length zero, or a link-layer address that is not Ethernet's.
    /// [`WireError::Truncated`]: an option that runs past the message.
    pub fn parse<T: AsRef<[u8]>>(view: &NdpView<T>, ip: &Ipv6Repr) -> Result<Self, WireError> {
        let target = view.target();
        if ip.hop_limit != HOP_LIMIT || view.code() != 0 || target.is_multicast() {
            return Err(WireError::BadValue);
        }
        match view.msg_type() {
            msg::NEIGHBOUR_SOLICITATION => {
                let source_mac = link_addr(view.options_bytes(), OPTION_SOURCE_LINK_ADDR)?;
                if ip.src.is_unspecified() && (source_mac.is_some() || ip.dst != solicited_node(target)) {
                    return Err(WireError::BadValue);
                }
                Ok(NdpRepr::Solicitation { target, source_mac })
            }
            msg::NEIGHBOUR_ADVERTISEMENT => {
                let flags = view.flags();
                if ip.dst.is_multicast() && flags.solicited {
                    return Err(WireError::BadValue);
                }
                let target_mac = link_addr(view.options_bytes(), OPTION_TARGET_LINK_ADDR)?;
                Ok(NdpRepr::Advertisement {
                    flags,
                    target,
                    target_mac,
                })
            }
            _ => Err(WireError::BadValue),
        }
    }

    /// Length of the message with its option, in bytes.
    pub const fn buffer_len(&self) -> usize {
        match self {
            NdpRepr::Solicitation { source_mac: None, .. }
            | NdpRepr::Advertisement { target_mac: None, .. } => HEADER_LEN,
            _ => HEADER_LEN + LINK_ADDR_OPTION_LEN,
        }
    }

    /// Writes the message into a buffer of exactly [`NdpRepr::buffer_len`] bytes. The checksum is zero,
    /// as it covers addresses too: [`NdpView::fill_checksum`].
    pub fn emit<T: AsRef<[u8]> + AsMut<[u8]>>(&self, view: &mut NdpView<T>) {
        let (msg_type, flags, target, option, mac) = match *self {
            NdpRepr::Solicitation { target, source_mac } => (
                msg::NEIGHBOUR_SOLICITATION,
                NeighbourFlags::default(),
                target,
                OPTION_SOURCE_LINK_ADDR,
                source_mac,
            ),
            NdpRepr::Advertisement {
                flags,
                target,
                target_mac,
            } => (
                msg::NEIGHBOUR_ADVERTISEMENT,
                flags,
                target,
                OPTION_TARGET_LINK_ADDR,
                target_mac,
            ),
        };
        view.set_msg_type(msg_type);
        Icmpv6View::new_unchecked(view.buffer.as_mut()).set_checksum(0);
        view.set_flags(flags);
        view.set_target(target);
        if let Some(MacAddr([a, b, c, d, e, f])) = mac {
            view.options_bytes_mut()
                .copy_from_slice(&[option, 1, a, b, c, d, e, f]);
        }
    }
}

const _: () = assert!(HEADER_LEN > icmpv6::HEADER_LEN);

/// The address in the last option of type `wanted`. All options are walked, so that one bad length makes
/// the whole message bad, as RFC 4861 wants; at most one option per 8 bytes.
fn link_addr(mut options: &[u8], wanted: u8) -> Result<Option<MacAddr>, WireError> {
    let mut found = None;
    while !options.is_empty() {
        let &[kind, units, ..] = options else {
            return Err(WireError::Truncated);
        };
        if units == 0 {
            return Err(WireError::BadLength);
        }
        let (option, rest) = options
            .split_at_checked(usize::from(units) * 8)
            .ok_or(WireError::Truncated)?;
        if kind == wanted {
            let &[_, _, a, b, c, d, e, f] = option else {
                return Err(WireError::BadLength);
            };
            let mac = MacAddr([a, b, c, d, e, f]);
            if mac.is_multicast() {
                return Err(WireError::BadValue);
            }
            found = Some(mac);
        }
        options = rest;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::IpProto;

    const ASKER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    const OWNER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);

    const SOLICITATION: [u8; 32] = [
        135, 0, 0x1c, 0x27, 0, 0, 0, 0, //
        0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, //
        1, 1, 2, 0, 0, 0, 0, 1,
    ];
    const ADVERTISEMENT: [u8; 32] = [
        136, 0, 0x8a, 0x71, 0x60, 0, 0, 0, //
        0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, //
        2, 1, 2, 0, 0, 0, 0, 2,
    ];

    fn solicitation() -> NdpRepr {
        NdpRepr::Solicitation {
            target: OWNER,
            source_mac: Some(MacAddr([2, 0, 0, 0, 0, 1])),
        }
    }

    fn advertisement() -> NdpRepr {
        NdpRepr::Advertisement {
            flags: NeighbourFlags {
                router: false,
                solicited: true,
                override_cached: true,
            },
            target: OWNER,
            target_mac: Some(MacAddr([2, 0, 0, 0, 0, 2])),
        }
    }

    fn ip(src: Ipv6Addr, dst: Ipv6Addr) -> Ipv6Repr {
        Ipv6Repr {
            src,
            dst,
            next_header: IpProto::ICMPV6,
            payload_len: 32,
            hop_limit: HOP_LIMIT,
            traffic_class: 0,
            flow_label: 0,
        }
    }

    fn parse(bytes: &[u8], ip: &Ipv6Repr) -> Result<NdpRepr, WireError> {
        NdpRepr::parse(&NdpView::new_checked(bytes)?, ip)
    }

    #[test]
    fn both_ways() {
        for (repr, wire, ip) in [
            (solicitation(), SOLICITATION, ip(ASKER, solicited_node(OWNER))),
            (advertisement(), ADVERTISEMENT, ip(OWNER, ASKER)),
        ] {
            let pseudo = Pseudo::v6(ip.src, ip.dst);
            assert_eq!(parse(&wire, &ip), Ok(repr));
            assert!(Icmpv6View::new_unchecked(&wire).verify_checksum(&pseudo));
            let mut bytes = [0xa5; 32];
            let mut view = NdpView::new_unchecked(&mut bytes);
            repr.emit(&mut view);
            view.fill_checksum(&pseudo);
            assert_eq!(bytes, wire);
        }
    }

    #[test]
    fn without_option() {
        let dad = NdpRepr::Solicitation {
            target: OWNER,
            source_mac: None,
        };
        assert_eq!(dad.buffer_len(), 24);
        let mut bytes = [0xa5; 24];
        dad.emit(&mut NdpView::new_unchecked(&mut bytes));
        assert_eq!(
            parse(&bytes, &ip(Ipv6Addr::UNSPECIFIED, solicited_node(OWNER))),
            Ok(dad)
        );
    }

    #[test]
    fn solicited_node_groups() {
        let addr: Ipv6Addr = "2001:db8::1234:5678:9abc".parse().expect("address");
        assert_eq!(
            solicited_node(addr),
            "ff02::1:ff78:9abc".parse::<Ipv6Addr>().expect("address")
        );
    }

    #[test]
    fn a_router_may_have_passed_it_on() {
        for hop_limit in [0, 64, 254] {
            let ip = Ipv6Repr {
                hop_limit,
                ..ip(OWNER, ASKER)
            };
            assert_eq!(parse(&ADVERTISEMENT, &ip), Err(WireError::BadValue));
        }
    }

    #[test]
    fn bad_options() {
        let ip = ip(ASKER, OWNER);
        let with_options = |options: &[u8]| parse(&[&SOLICITATION[..24], options].concat(), &ip);
        assert_eq!(with_options(&[1, 0, 2, 0, 0, 0, 0, 1]), Err(WireError::BadLength));
        assert_eq!(with_options(&[14, 0]), Err(WireError::BadLength));
        assert_eq!(with_options(&[1, 2, 2, 0, 0, 0, 0, 1]), Err(WireError::Truncated));
        assert_eq!(with_options(&[1]), Err(WireError::Truncated));
        assert_eq!(
            with_options(&[1, 2, 2, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]),
            Err(WireError::BadLength)
        );
        assert_eq!(
            with_options(&[1, 1, 3, 0, 0, 0, 0, 1]),
            Err(WireError::BadValue),
            "a group address"
        );
        // A bad option behind a good one, and good ones behind an unknown one.
        assert_eq!(
            with_options(&[1, 1, 2, 0, 0, 0, 0, 1, 9, 0, 0, 0, 0, 0, 0, 0]),
            Err(WireError::BadLength)
        );
        assert_eq!(
            with_options(&[14, 1, 9, 9, 9, 9, 9, 9, 1, 1, 2, 0, 0, 0, 0, 1]),
            Ok(solicitation())
        );
    }

    #[test]
    fn rules_of_rfc_4861() {
        let group = solicited_node(OWNER);
        // Unspecified source: no hardware address, and only to the group.
        assert_eq!(
            parse(&SOLICITATION, &ip(Ipv6Addr::UNSPECIFIED, group)),
            Err(WireError::BadValue)
        );
        let dad = &SOLICITATION[..24];
        assert_eq!(
            parse(dad, &ip(Ipv6Addr::UNSPECIFIED, OWNER)),
            Err(WireError::BadValue)
        );
        assert!(parse(dad, &ip(Ipv6Addr::UNSPECIFIED, group)).is_ok());
        // Solicited to a group.
        assert_eq!(parse(&ADVERTISEMENT, &ip(OWNER, group)), Err(WireError::BadValue));
        // Code, multicast target, foreign type, cut.
        for (at, value, want) in [
            (1, 1, WireError::BadValue),
            (8, 0xff, WireError::BadValue),
            (0, 133, WireError::BadValue),
        ] {
            let mut bytes = ADVERTISEMENT;
            bytes[at] = value;
            assert_eq!(parse(&bytes, &ip(OWNER, ASKER)), Err(want), "byte {at}");
        }
        assert_eq!(
            parse(&ADVERTISEMENT[..23], &ip(OWNER, ASKER)),
            Err(WireError::Truncated)
        );
    }
}
