//! Ethernet II headers (IEEE 802.3 clause 3): the outermost 14 bytes of every frame. VLAN tags follow
//! in [`crate::wire::vlan`].

use crate::wire::bytes::{read, read_u16, write};
use crate::wire::{EtherType, MacAddr, WireError};

mod field {
    use crate::wire::bytes::Field;

    pub(super) const DST: Field = 0..6;
    pub(super) const SRC: Field = 6..12;
    pub(super) const ETHERTYPE: Field = 12..14;
}

/// Length of the header in bytes, without tags.
pub const HEADER_LEN: usize = field::ETHERTYPE.end;

/// Smallest frame on a wire without its check sequence, in bytes; shorter ones are padded with zeros.
pub const MIN_FRAME_LEN: usize = 60;

/// A view of an Ethernet frame.
#[derive(Clone, Copy, Debug)]
pub struct EthernetView<T> {
    buffer: T,
}

impl<T: AsRef<[u8]>> EthernetView<T> {
    /// A view without a length check; accessors panic on a buffer shorter than [`HEADER_LEN`].
    pub const fn new_unchecked(buffer: T) -> Self {
        EthernetView { buffer }
    }

    /// A view of a frame. [`WireError::Truncated`] below 14 bytes.
    pub fn new_checked(buffer: T) -> Result<Self, WireError> {
        match buffer.as_ref().len() {
            0..HEADER_LEN => Err(WireError::Truncated),
            _ => Ok(EthernetView { buffer }),
        }
    }

    /// The buffer back.
    pub fn into_inner(self) -> T {
        self.buffer
    }

    /// Destination address.
    #[inline]
    pub fn dst(&self) -> MacAddr {
        MacAddr(read(self.buffer.as_ref(), field::DST))
    }

    /// Source address.
    #[inline]
    pub fn src(&self) -> MacAddr {
        MacAddr(read(self.buffer.as_ref(), field::SRC))
    }

    /// Type of what follows: a VLAN tag's, where the frame is tagged.
    #[inline]
    pub fn ethertype(&self) -> EtherType {
        EtherType(read_u16(self.buffer.as_ref(), field::ETHERTYPE))
    }

    /// All bytes after the header, padding included.
    #[inline]
    pub fn payload(&self) -> &[u8] {
        &self.buffer.as_ref()[HEADER_LEN..]
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> EthernetView<T> {
    /// Sets the destination address.
    #[inline]
    pub fn set_dst(&mut self, mac: MacAddr) {
        write(self.buffer.as_mut(), field::DST, mac.0);
    }

    /// Sets the source address.
    #[inline]
    pub fn set_src(&mut self, mac: MacAddr) {
        write(self.buffer.as_mut(), field::SRC, mac.0);
    }

    /// Sets the type.
    #[inline]
    pub fn set_ethertype(&mut self, ethertype: EtherType) {
        write(self.buffer.as_mut(), field::ETHERTYPE, ethertype.0.to_be_bytes());
    }

    /// All bytes after the header.
    #[inline]
    pub fn payload_mut(&mut self) -> &mut [u8] {
        &mut self.buffer.as_mut()[HEADER_LEN..]
    }
}

/// An Ethernet header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EthernetRepr {
    /// Destination address.
    pub dst: MacAddr,
    /// Source address.
    pub src: MacAddr,
    /// Type of what follows.
    pub ethertype: EtherType,
}

impl EthernetRepr {
    /// Reads a header. [`WireError::BadValue`] for an 802.3 length field: LLC frames are not ours.
    pub fn parse<T: AsRef<[u8]>>(view: &EthernetView<T>) -> Result<Self, WireError> {
        let ethertype = view.ethertype();
        if ethertype.is_length() {
            return Err(WireError::BadValue);
        }
        Ok(EthernetRepr {
            dst: view.dst(),
            src: view.src(),
            ethertype,
        })
    }

    /// Length of the header in bytes.
    pub const fn buffer_len(&self) -> usize {
        HEADER_LEN
    }

    /// Writes the header.
    pub fn emit<T: AsRef<[u8]> + AsMut<[u8]>>(&self, view: &mut EthernetView<T>) {
        view.set_dst(self.dst);
        view.set_src(self.src);
        view.set_ethertype(self.ethertype);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: [u8; 16] = [
        0x02, 0, 0, 0, 0, 0x01, // to
        0x02, 0, 0, 0, 0, 0x02, // from
        0x86, 0xdd, // IPv6
        0xaa, 0xbb,
    ];

    fn repr() -> EthernetRepr {
        EthernetRepr {
            dst: MacAddr([2, 0, 0, 0, 0, 1]),
            src: MacAddr([2, 0, 0, 0, 0, 2]),
            ethertype: EtherType::IPV6,
        }
    }

    #[test]
    fn parse() {
        let view = EthernetView::new_checked(&BYTES).expect("a frame");
        assert_eq!(EthernetRepr::parse(&view), Ok(repr()));
        assert_eq!(view.payload(), [0xaa, 0xbb]);
    }

    #[test]
    fn emit() {
        let mut bytes = [0xa5; 16];
        let mut view = EthernetView::new_unchecked(&mut bytes);
        repr().emit(&mut view);
        view.payload_mut().copy_from_slice(&[0xaa, 0xbb]);
        assert_eq!(bytes, BYTES);
    }

    #[test]
    fn refusals() {
        assert_eq!(
            EthernetView::new_checked(&BYTES[..13]).err(),
            Some(WireError::Truncated)
        );
        let mut llc = BYTES;
        llc[12..14].copy_from_slice(&[0, 3]);
        let view = EthernetView::new_checked(&llc).expect("long enough");
        assert_eq!(EthernetRepr::parse(&view), Err(WireError::BadValue));
    }
}
