//! UDP (RFC 768).

use crate::wire::bytes::{clipped, clipped_mut, read_u16, write};
use crate::wire::checksum::{self, Pseudo};
use crate::wire::{IpProto, WireError};

mod field {
    use crate::wire::bytes::Field;

    pub(super) const SRC_PORT: Field = 0..2;
    pub(super) const DST_PORT: Field = 2..4;
    pub(super) const LEN: Field = 4..6;
    pub(super) const CHECKSUM: Field = 6..8;
}

/// Length of the header in bytes.
pub const HEADER_LEN: usize = field::CHECKSUM.end;

/// A view of a UDP datagram. Bytes of the IP payload beyond the datagram's own length are not part of it.
#[derive(Clone, Copy, Debug)]
pub struct UdpView<T> {
    buffer: T,
}

impl<T: AsRef<[u8]>> UdpView<T> {
    /// A view without a check; accessors panic on a buffer shorter than [`HEADER_LEN`].
    pub const fn new_unchecked(buffer: T) -> Self {
        UdpView { buffer }
    }

    /// A view of a whole datagram in the bytes of an IP payload: as [`UdpView::new_header_checked`], and
    /// [`WireError::Truncated`] if the length is more than the buffer.
    pub fn new_checked(buffer: T) -> Result<Self, WireError> {
        let view = Self::new_header_checked(buffer)?;
        if usize::from(view.len()) > view.buffer.as_ref().len() {
            return Err(WireError::Truncated);
        }
        Ok(view)
    }

    /// A view of a datagram of which at least the header is in the buffer: [`WireError::Truncated`]; and
    /// [`WireError::BadLength`] for a length below 8. The length zero of jumbograms (RFC 2675) is not
    /// served.
    pub fn new_header_checked(buffer: T) -> Result<Self, WireError> {
        if buffer.as_ref().len() < HEADER_LEN {
            return Err(WireError::Truncated);
        }
        let view = UdpView { buffer };
        if usize::from(view.len()) < HEADER_LEN {
            return Err(WireError::BadLength);
        }
        Ok(view)
    }

    /// The buffer back.
    pub fn into_inner(self) -> T {
        self.buffer
    }

    /// Source port; zero if the sender expects no answer.
    #[inline]
    pub fn src_port(&self) -> u16 {
        read_u16(self.buffer.as_ref(), field::SRC_PORT)
    }

    /// Destination port.
    #[inline]
    pub fn dst_port(&self) -> u16 {
        read_u16(self.buffer.as_ref(), field::DST_PORT)
    }

    /// Length of header and payload in bytes; never below 8 in a checked view, so there is no `is_empty`.
    #[inline]
    #[allow(clippy::len_without_is_empty, reason = "a datagram has at least its header")]
    pub fn len(&self) -> u16 {
        read_u16(self.buffer.as_ref(), field::LEN)
    }

    /// The checksum; zero if the sender made none.
    #[inline]
    pub fn checksum(&self) -> u16 {
        read_u16(self.buffer.as_ref(), field::CHECKSUM)
    }

    /// The payload, or as much of it as the buffer has.
    #[inline]
    pub fn payload(&self) -> &[u8] {
        clipped(self.buffer.as_ref(), HEADER_LEN, usize::from(self.len()))
    }

    /// Whether the checksum is right. None at all (zero) is right over IPv4 only: RFC 8200, section 8.1.
    pub fn verify_checksum(&self, pseudo: &Pseudo) -> bool {
        if self.checksum() == 0 {
            return matches!(pseudo, Pseudo::V4 { .. });
        }
        let datagram = clipped(self.buffer.as_ref(), 0, usize::from(self.len()));
        checksum::is_valid(pseudo.sum_over(IpProto::UDP, datagram))
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> UdpView<T> {
    /// Sets the source port.
    #[inline]
    pub fn set_src_port(&mut self, port: u16) {
        write(self.buffer.as_mut(), field::SRC_PORT, port.to_be_bytes());
    }

    /// Sets the destination port.
    #[inline]
    pub fn set_dst_port(&mut self, port: u16) {
        write(self.buffer.as_mut(), field::DST_PORT, port.to_be_bytes());
    }

    /// Sets the length of header and payload, in bytes.
    #[inline]
    pub fn set_len(&mut self, len: u16) {
        write(self.buffer.as_mut(), field::LEN, len.to_be_bytes());
    }

    /// Sets the checksum.
    #[inline]
    pub fn set_checksum(&mut self, checksum: u16) {
        write(self.buffer.as_mut(), field::CHECKSUM, checksum.to_be_bytes());
    }

    /// The payload, or as much of it as the buffer has.
    #[inline]
    pub fn payload_mut(&mut self) -> &mut [u8] {
        let to = usize::from(self.len());
        clipped_mut(self.buffer.as_mut(), HEADER_LEN, to)
    }

    /// Computes the checksum and writes it; a zero is written as 0xffff.
    pub fn fill_checksum(&mut self, pseudo: &Pseudo) {
        self.set_checksum(0);
        let datagram = clipped(self.buffer.as_ref(), 0, usize::from(self.len()));
        let checksum = match checksum::finish(pseudo.sum_over(IpProto::UDP, datagram)) {
            0 => 0xffff,
            c => c,
        };
        self.set_checksum(checksum);
    }
}

/// A UDP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpRepr {
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// Length of the payload in bytes, at most 65,527; more is written as the largest length there is.
    pub payload_len: u16,
}

impl UdpRepr {
    /// Reads a header. [`WireError::BadValue`] for destination port zero, [`WireError::BadLength`] for a
    /// view that no `new_*checked` would give.
    pub fn parse<T: AsRef<[u8]>>(view: &UdpView<T>) -> Result<Self, WireError> {
        if view.dst_port() == 0 {
            return Err(WireError::BadValue);
        }
        let payload_len = view
            .len()
            .checked_sub(HEADER_LEN as u16)
            .ok_or(WireError::BadLength)?;
        Ok(UdpRepr {
            src_port: view.src_port(),
            dst_port: view.dst_port(),
            payload_len,
        })
    }

    /// Length of the header in bytes; the payload goes behind it.
    pub const fn buffer_len(&self) -> usize {
        HEADER_LEN
    }

    /// Writes the header. The checksum is zero: when the payload is in place,
    /// [`UdpView::fill_checksum`].
    pub fn emit<T: AsRef<[u8]> + AsMut<[u8]>>(&self, view: &mut UdpView<T>) {
        view.set_src_port(self.src_port);
        view.set_dst_port(self.dst_port);
        view.set_len(self.payload_len.saturating_add(HEADER_LEN as u16));
        view.set_checksum(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::{Ipv4Addr, Ipv6Addr};

    const BYTES: [u8; 13] = [
        0x14, 0xe9, 0x00, 0x35, 0x00, 0x0d, 0xba, 0xa7, b'h', b'e', b'l', b'l', b'o',
    ];
    const V4: Pseudo = Pseudo::v4(Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(198, 51, 100, 7));
    const V6: Pseudo = Pseudo::v6(
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1),
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2),
    );

    fn repr() -> UdpRepr {
        UdpRepr {
            src_port: 5353,
            dst_port: 53,
            payload_len: 5,
        }
    }

    #[test]
    fn both_ways() {
        let view = UdpView::new_checked(&BYTES).expect("a datagram");
        assert_eq!(UdpRepr::parse(&view), Ok(repr()));
        assert_eq!(view.payload(), b"hello");
        assert!(view.verify_checksum(&V4) && !view.verify_checksum(&V6));

        let mut bytes = [0xa5; 13];
        let mut view = UdpView::new_unchecked(&mut bytes);
        repr().emit(&mut view);
        view.payload_mut().copy_from_slice(b"hello");
        view.fill_checksum(&V4);
        assert_eq!(bytes, BYTES);
        let mut view = UdpView::new_unchecked(&mut bytes);
        view.fill_checksum(&V6);
        assert_eq!(view.checksum(), 0x4b6f);
    }

    #[test]
    fn no_checksum_is_legal_over_ipv4_only() {
        let mut bytes = BYTES;
        let mut view = UdpView::new_unchecked(&mut bytes);
        view.set_checksum(0);
        assert!(view.verify_checksum(&V4) && !view.verify_checksum(&V6));
    }

    #[test]
    fn a_computed_zero_is_written_as_ones() {
        let mut bytes = BYTES;
        let mut view = UdpView::new_unchecked(&mut bytes);
        // The source port takes up what the checksum would have been.
        view.set_src_port(0);
        view.fill_checksum(&V4);
        let port = view.checksum();
        view.set_src_port(port);
        view.fill_checksum(&V4);
        assert_eq!(view.checksum(), 0xffff);
        assert!(view.verify_checksum(&V4));
    }

    #[test]
    fn bytes_beyond_the_length_are_not_covered() {
        let mut bytes = [0xee; 16];
        bytes[..13].copy_from_slice(&BYTES);
        let view = UdpView::new_checked(&bytes).expect("a datagram");
        assert_eq!(view.payload(), b"hello");
        assert!(view.verify_checksum(&V4));
    }

    #[test]
    fn refusals() {
        let with_len = |len: u8| {
            let mut bytes = BYTES;
            bytes[5] = len;
            UdpView::new_checked(bytes).err()
        };
        assert_eq!(with_len(0), Some(WireError::BadLength));
        assert_eq!(with_len(7), Some(WireError::BadLength));
        assert_eq!(with_len(8), None);
        assert_eq!(with_len(14), Some(WireError::Truncated));
        assert_eq!(
            UdpView::new_checked(&BYTES[..7]).err(),
            Some(WireError::Truncated)
        );
        assert!(UdpView::new_header_checked(&BYTES[..8]).is_ok());
        let mut bytes = BYTES;
        bytes[2..4].fill(0);
        let view = UdpView::new_checked(&bytes).expect("lengths fit");
        assert_eq!(UdpRepr::parse(&view), Err(WireError::BadValue));
    }
}
