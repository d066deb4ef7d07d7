//! VLAN tags: IEEE 802.1Q (TPID 0x8100), 802.1ad service tags (0x88a8) and the older 0x9100.
//!
//! On the wire a tag is TPID then TCI, and the type of what follows comes after the last tag. Seen from
//! the Ethernet header it is simpler to read the other way: its type field is the TPID, and each tag is a
//! TCI followed by the next type. [`VlanView`] is over those four bytes.

use crate::wire::bytes::{read_u16, write};
use crate::wire::{EtherType, WireError, ethernet};

mod field {
    use crate::wire::bytes::Field;

    pub(super) const TCI: Field = 0..2;
    pub(super) const ETHERTYPE: Field = 2..4;
}

/// Length of a tag in bytes.
pub const TAG_LEN: usize = field::ETHERTYPE.end;

/// Tags of a frame at most: a service and a customer tag.
pub const TAGS_MAX: usize = 2;

/// A view of a tag, from its TCI on.
#[derive(Clone, Copy, Debug)]
pub struct VlanView<T> {
    buffer: T,
}

impl<T: AsRef<[u8]>> VlanView<T> {
    /// A view without a length check; accessors panic on a buffer shorter than [`TAG_LEN`].
    pub const fn new_unchecked(buffer: T) -> Self {
        VlanView { buffer }
    }

    /// A view of what follows an EtherType for which [`EtherType::is_vlan`]. [`WireError::Truncated`]
    /// below 4 bytes.
    pub fn new_checked(buffer: T) -> Result<Self, WireError> {
        match buffer.as_ref().len() {
            0..TAG_LEN => Err(WireError::Truncated),
            _ => Ok(VlanView { buffer }),
        }
    }

    /// Tag control information: priority, drop eligibility and VLAN together.
    #[inline]
    pub fn tci(&self) -> u16 {
        read_u16(self.buffer.as_ref(), field::TCI)
    }

    /// Priority code point, 0 to 7.
    #[inline]
    pub fn priority(&self) -> u8 {
        (self.tci() >> 13) as u8
    }

    /// Drop eligible indicator.
    #[inline]
    pub fn drop_eligible(&self) -> bool {
        self.tci() & 0x1000 != 0
    }

    /// VLAN identifier, 0 (priority tag only) to 4095 (reserved).
    #[inline]
    pub fn vid(&self) -> u16 {
        self.tci() & 0x0fff
    }

    /// Type of what follows the tag.
    #[inline]
    pub fn ethertype(&self) -> EtherType {
        EtherType(read_u16(self.buffer.as_ref(), field::ETHERTYPE))
    }

    /// All bytes after the tag.
    #[inline]
    pub fn payload(&self) -> &[u8] {
        &self.buffer.as_ref()[TAG_LEN..]
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> VlanView<T> {
    /// Sets priority, drop eligibility and VLAN together.
    #[inline]
    pub fn set_tci(&mut self, tci: u16) {
        write(self.buffer.as_mut(), field::TCI, tci.to_be_bytes());
    }

    /// Sets the VLAN identifier (its low 12 bits), and nothing else.
    #[inline]
    pub fn set_vid(&mut self, vid: u16) {
        self.set_tci(self.tci() & 0xf000 | vid & 0x0fff);
    }

    /// Sets the type of what follows.
    #[inline]
    pub fn set_ethertype(&mut self, ethertype: EtherType) {
        write(self.buffer.as_mut(), field::ETHERTYPE, ethertype.0.to_be_bytes());
    }
}

/// A tag, without its TPID, which is the type field before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VlanRepr {
    /// Priority code point; its low 3 bits are written.
    pub priority: u8,
    /// Drop eligible indicator.
    pub drop_eligible: bool,
    /// VLAN identifier; its low 12 bits are written.
    pub vid: u16,
    /// Type of what follows.
    pub ethertype: EtherType,
}

impl VlanRepr {
    /// Reads a tag. [`WireError::BadValue`] for VLAN 4095, which 802.1Q reserves.
    pub fn parse<T: AsRef<[u8]>>(view: &VlanView<T>) -> Result<Self, WireError> {
        if view.vid() == 0x0fff {
            return Err(WireError::BadValue);
        }
        Ok(VlanRepr {
            priority: view.priority(),
            drop_eligible: view.drop_eligible(),
            vid: view.vid(),
            ethertype: view.ethertype(),
        })
    }

    /// Length of the tag in bytes.
    pub const fn buffer_len(&self) -> usize {
        TAG_LEN
    }

    /// Writes the tag.
    pub fn emit<T: AsRef<[u8]> + AsMut<[u8]>>(&self, view: &mut VlanView<T>) {
        let dei = if self.drop_eligible { 0x1000 } else { 0 };
        view.set_tci(u16::from(self.priority & 7) << 13 | dei | self.vid & 0x0fff);
        view.set_ethertype(self.ethertype);
    }
}

/// The tags of a frame and what comes after them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VlanTags {
    /// Number of tags, at most [`TAGS_MAX`].
    pub count: u8,
    /// VLAN identifiers, outermost first; zero beyond `count`.
    pub vids: [u16; TAGS_MAX],
    /// Type of what follows the last tag.
    pub ethertype: EtherType,
    /// Offset in the frame of what follows the last tag: 14, 18 or 22 bytes.
    pub offset: usize,
}

impl VlanTags {
    /// Steps over the tags of a frame that begins with its Ethernet header.
    ///
    /// [`WireError::Truncated`] if the frame ends within the header or a tag,
    /// [`WireError::TooManyHeaders`] for a third tag.
    #[inline]
    pub fn walk(frame: &[u8]) -> Result<Self, WireError> {
        let eth = ethernet::EthernetView::new_checked(frame)?;
        let mut tags = VlanTags {
            count: 0,
            vids: [0; TAGS_MAX],
            ethertype: eth.ethertype(),
            offset: ethernet::HEADER_LEN,
        };
        let mut rest = eth.payload();
        for vid in &mut tags.vids {
            if !tags.ethertype.is_vlan() {
                return Ok(tags);
            }
            let (tag, behind) = rest.split_at_checked(TAG_LEN).ok_or(WireError::Truncated)?;
            let tag = VlanView::new_unchecked(tag);
            *vid = tag.vid();
            tags.ethertype = tag.ethertype();
            tags.offset += TAG_LEN;
            tags.count += 1;
            rest = behind;
        }
        match tags.ethertype.is_vlan() {
            true => Err(WireError::TooManyHeaders),
            false => Ok(tags),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame's first bytes with these after the addresses.
    fn frame<const N: usize>(rest: [u8; N]) -> std::vec::Vec<u8> {
        [&[0x02; 12][..], &rest].concat()
    }

    #[test]
    fn both_ways() {
        const BYTES: [u8; 4] = [0xb0, 0x64, 0x08, 0x00];
        let repr = VlanRepr {
            priority: 5,
            drop_eligible: true,
            vid: 100,
            ethertype: EtherType::IPV4,
        };
        let view = VlanView::new_checked(&BYTES).expect("a tag");
        assert_eq!(VlanRepr::parse(&view), Ok(repr));
        let mut bytes = [0xa5; 4];
        repr.emit(&mut VlanView::new_unchecked(&mut bytes));
        assert_eq!(bytes, BYTES);
        VlanView::new_unchecked(&mut bytes).set_vid(0xffff);
        assert_eq!(bytes, [0xbf, 0xff, 0x08, 0x00]);
        assert_eq!(
            VlanRepr::parse(&VlanView::new_unchecked(&bytes)),
            Err(WireError::BadValue)
        );
        assert_eq!(
            VlanView::new_checked(&bytes[..3]).err(),
            Some(WireError::Truncated)
        );
    }

    #[test]
    fn walks_over_none_one_and_two_tags() {
        let plain = VlanTags::walk(&frame([0x08, 0x00]));
        assert_eq!(
            plain,
            Ok(VlanTags {
                count: 0,
                vids: [0, 0],
                ethertype: EtherType::IPV4,
                offset: 14
            })
        );
        let one = VlanTags::walk(&frame([0x81, 0x00, 0x60, 0x0a, 0x86, 0xdd]));
        assert_eq!(
            one,
            Ok(VlanTags {
                count: 1,
                vids: [10, 0],
                ethertype: EtherType::IPV6,
                offset: 18
            })
        );
        for outer in [[0x88, 0xa8], [0x91, 0x00]] {
            let two = VlanTags::walk(&frame([
                outer[0], outer[1], 0x00, 0xc8, 0x81, 0x00, 0x00, 0x0a, 0x08, 0x06,
            ]));
            assert_eq!(
                two,
                Ok(VlanTags {
                    count: 2,
                    vids: [200, 10],
                    ethertype: EtherType::ARP,
                    offset: 22
                })
            );
        }
    }

    #[test]
    fn a_third_tag_and_a_cut_one_are_refused() {
        let three = frame([0x81, 0, 0, 1, 0x81, 0, 0, 2, 0x81, 0, 0, 3, 0x08, 0x00]);
        assert_eq!(VlanTags::walk(&three), Err(WireError::TooManyHeaders));
        let cut = frame([0x81, 0x00, 0x00, 0x01, 0x08]);
        assert_eq!(VlanTags::walk(&cut), Err(WireError::Truncated));
        assert_eq!(VlanTags::walk(&cut[..13]), Err(WireError::Truncated));
    }
}
