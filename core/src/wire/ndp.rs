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
