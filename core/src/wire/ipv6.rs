//! The fixed header of IPv6 (RFC 8200, section 3). Extension headers follow in
//! [`crate::wire::ipv6ext`].

use core::net::Ipv6Addr;

use crate::wire::bytes::{clipped, clipped_mut, read, read_u16, read_u32, write};
use crate::wire::{IpProto, WireError};

mod field {
    use crate::wire::bytes::Field;

    pub(super) const VERSION_CLASS_LABEL: Field = 0..4;
    pub(super) const PAYLOAD_LEN: Field = 4..6;
    pub(super) const NEXT_HEADER: usize = 6;
    pub(super) const HOP_LIMIT: usize = 7;
    pub(super) const SRC: Field = 8..24;
    pub(super) const DST: Field = 24..40;
}

/// Length of the fixed header in bytes.
pub const HEADER_LEN: usize = field::DST.end;

const FLOW_LABEL_MASK: u32 = 0x000f_ffff;

/// A view of an IPv6 packet. Bytes of the buffer beyond the payload length are Ethernet padding and not
/// part of it.
#[derive(Clone, Copy, Debug)]
pub struct Ipv6View<T> {
    buffer: T,
}

impl<T: AsRef<[u8]>> Ipv6View<T> {
    /// A view without a check; accessors panic on a buffer shorter than [`HEADER_LEN`].
    pub const fn new_unchecked(buffer: T) -> Self {
        Ipv6View { buffer }
    }

    /// A view of a whole packet: as [`Ipv6View::new_header_checked`], and [`WireError::Truncated`] if
    /// the payload is longer than the buffer.
    pub fn new_checked(buffer: T) -> Result<Self, WireError> {
        let view = Self::new_header_checked(buffer)?;
        if HEADER_LEN + usize::from(view.payload_len()) > view.buffer.as_ref().len() {
            return Err(WireError::Truncated);
        }
        Ok(view)
    }

    /// A view of a packet of which at least the fixed header is in the buffer:
    /// [`WireError::Truncated`], [`WireError::BadVersion`].
    pub fn new_header_checked(buffer: T) -> Result<Self, WireError> {
        if buffer.as_ref().len() < HEADER_LEN {
            return Err(WireError::Truncated);
        }
        let view = Ipv6View { buffer };
        if view.version() != 6 {
            return Err(WireError::BadVersion);
        }
        Ok(view)
    }

    /// The buffer back.
    pub fn into_inner(self) -> T {
        self.buffer
    }

    #[inline]
    fn first_word(&self) -> u32 {
        read_u32(self.buffer.as_ref(), field::VERSION_CLASS_LABEL)
    }

    /// Version, 6.
    #[inline]
    pub fn version(&self) -> u8 {
        (self.first_word() >> 28) as u8
    }

    /// Traffic class: DSCP and ECN together.
    #[inline]
    pub fn traffic_class(&self) -> u8 {
        (self.first_word() >> 20) as u8
    }

    /// Flow label, 20 bits.
    #[inline]
    pub fn flow_label(&self) -> u32 {
        self.first_word() & FLOW_LABEL_MASK
    }

    /// Length of all that follows the fixed header, extension headers included, in bytes. Zero in a
    /// jumbogram (RFC 2675), which is then a packet without payload to us.
    #[inline]
    pub fn payload_len(&self) -> u16 {
        read_u16(self.buffer.as_ref(), field::PAYLOAD_LEN)
    }

    /// Type of the header that follows: an extension header or the upper protocol.
    #[inline]
    pub fn next_header(&self) -> IpProto {
        IpProto(self.buffer.as_ref()[field::NEXT_HEADER])
    }

    /// Hop limit.
    #[inline]
    pub fn hop_limit(&self) -> u8 {
        self.buffer.as_ref()[field::HOP_LIMIT]
    }

    /// Source address.
    #[inline]
    pub fn src(&self) -> Ipv6Addr {
        read::<16>(self.buffer.as_ref(), field::SRC).into()
    }

    /// Destination address.
    #[inline]
    pub fn dst(&self) -> Ipv6Addr {
        read::<16>(self.buffer.as_ref(), field::DST).into()
    }

    /// The payload, extension headers included and padding not, or as much of it as the buffer has.
    #[inline]
    pub fn payload(&self) -> &[u8] {
        clipped(
            self.buffer.as_ref(),
            HEADER_LEN,
            HEADER_LEN + usize::from(self.payload_len()),
        )
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Ipv6View<T> {
    /// Sets version 6, traffic class and the low 20 bits of the flow label.
    pub fn set_class_and_label(&mut self, traffic_class: u8, flow_label: u32) {
        let word = 6 << 28 | u32::from(traffic_class) << 20 | flow_label & FLOW_LABEL_MASK;
        write(
            self.buffer.as_mut(),
            field::VERSION_CLASS_LABEL,
            word.to_be_bytes(),
        );
    }

    /// Sets the payload length, in bytes.
    pub fn set_payload_len(&mut self, len: u16) {
        write(self.buffer.as_mut(), field::PAYLOAD_LEN, len.to_be_bytes());
    }

    /// Sets the type of the header that follows.
    pub fn set_next_header(&mut self, proto: IpProto) {
        self.buffer.as_mut()[field::NEXT_HEADER] = proto.0;
    }

    /// Sets the hop limit.
    #[inline]
    pub fn set_hop_limit(&mut self, hop_limit: u8) {
        self.buffer.as_mut()[field::HOP_LIMIT] = hop_limit;
    }

    /// Sets the source address.
    #[inline]
    pub fn set_src(&mut self, addr: Ipv6Addr) {
        write(self.buffer.as_mut(), field::SRC, addr.octets());
    }

    /// Sets the destination address.
    #[inline]
    pub fn set_dst(&mut self, addr: Ipv6Addr) {
        write(self.buffer.as_mut(), field::DST, addr.octets());
    }

    /// The payload, or as much of it as the buffer has.
    #[inline]
    pub fn payload_mut(&mut self) -> &mut [u8] {
        let to = HEADER_LEN + usize::from(self.payload_len());
        clipped_mut(self.buffer.as_mut(), HEADER_LEN, to)
    }
}

/// A fixed header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv6Repr {
    /// Source address.
    pub src: Ipv6Addr,
    /// Destination address.
    pub dst: Ipv6Addr,
    /// Type of the header that follows.
    pub next_header: IpProto,
    /// Length of all that follows the fixed header, in bytes.
    pub payload_len: u16,
    /// Hop limit.
    pub hop_limit: u8,
    /// Traffic class: DSCP and ECN together.
    pub traffic_class: u8,
    /// Flow label; its low 20 bits are written.
    pub flow_label: u32,
}

impl Ipv6Repr {
    /// Reads a header. [`WireError::BadVersion`] for a view that no `new_*checked` would give.
    pub fn parse<T: AsRef<[u8]>>(view: &Ipv6View<T>) -> Result<Self, WireError> {
        if view.version() != 6 {
            return Err(WireError::BadVersion);
        }
        Ok(Ipv6Repr {
            src: view.src(),
            dst: view.dst(),
            next_header: view.next_header(),
            payload_len: view.payload_len(),
            hop_limit: view.hop_limit(),
            traffic_class: view.traffic_class(),
            flow_label: view.flow_label(),
        })
    }

    /// Length of the header in bytes.
    pub const fn buffer_len(&self) -> usize {
        HEADER_LEN
    }

    /// Writes the header.
    pub fn emit<T: AsRef<[u8]> + AsMut<[u8]>>(&self, view: &mut Ipv6View<T>) {
        view.set_class_and_label(self.traffic_class, self.flow_label);
        view.set_payload_len(self.payload_len);
        view.set_next_header(self.next_header);
        view.set_hop_limit(self.hop_limit);
        view.set_src(self.src);
        view.set_dst(self.dst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: [u8; 40] = [
        0x6b, 0x8a, 0xbc, 0xde, 0x00, 0x04, 0x11, 0x40, // class 0xb8, label 0xabcde, 4 bytes of UDP
        0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, // from
        0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, // to
    ];

    fn repr() -> Ipv6Repr {
        Ipv6Repr {
            src: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1),
            dst: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2),
            next_header: IpProto::UDP,
            payload_len: 4,
            hop_limit: 64,
            traffic_class: 0xb8,
            flow_label: 0xabcde,
        }
    }

    #[test]
    fn both_ways() {
        let mut bytes = [0xee; 46];
        bytes[..40].copy_from_slice(&HEADER);
        let view = Ipv6View::new_checked(&bytes).expect("a packet");
        assert_eq!(Ipv6Repr::parse(&view), Ok(repr()));
        assert_eq!(view.payload().len(), 4, "padding is not payload");
        let mut bytes = [0xa5; 40];
        repr().emit(&mut Ipv6View::new_unchecked(&mut bytes));
        assert_eq!(bytes, HEADER);
    }

    #[test]
    fn refusals() {
        assert_eq!(
            Ipv6View::new_checked(&HEADER[..39]).err(),
            Some(WireError::Truncated)
        );
        assert_eq!(Ipv6View::new_checked(&HEADER).err(), Some(WireError::Truncated));
        let view = Ipv6View::new_header_checked(&HEADER).expect("the header is there");
        assert_eq!((view.payload_len(), view.payload().len()), (4, 0));
        let mut other = HEADER;
        other[0] = 0x45;
        assert_eq!(Ipv6View::new_checked(&other).err(), Some(WireError::BadVersion));
    }
}
