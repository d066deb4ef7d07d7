//! IPv4 headers (RFC 791), with options allowed and fragments told apart.

use core::net::Ipv4Addr;

use crate::wire::bytes::{clipped, clipped_mut, read, read_u16, write};
use crate::wire::{IpProto, WireError, checksum};

mod field {
    use crate::wire::bytes::Field;

    pub(super) const VERSION_IHL: usize = 0;
    pub(super) const TOS: usize = 1;
    pub(super) const TOTAL_LEN: Field = 2..4;
    pub(super) const IDENT: Field = 4..6;
    pub(super) const FLAGS_OFFSET: Field = 6..8;
    pub(super) const TTL: usize = 8;
    pub(super) const PROTO: usize = 9;
    pub(super) const CHECKSUM: Field = 10..12;
    pub(super) const SRC: Field = 12..16;
    pub(super) const DST: Field = 16..20;
}

/// Length of a header without options, in bytes.
pub const HEADER_LEN: usize = field::DST.end;

/// Length of the longest header, in bytes.
pub const HEADER_LEN_MAX: usize = 60;

const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET_MASK: u16 = 0x1fff;

/// A view of an IPv4 packet. Bytes of the buffer beyond the total length are Ethernet padding and not
/// part of it.
#[derive(Clone, Copy, Debug)]
pub struct Ipv4View<T> {
    buffer: T,
}

impl<T: AsRef<[u8]>> Ipv4View<T> {
    /// A view without a check; accessors panic on a buffer shorter than its header.
    pub const fn new_unchecked(buffer: T) -> Self {
        Ipv4View { buffer }
    }

    /// A view of a whole packet: as [`Ipv4View::new_header_checked`], and [`WireError::Truncated`] if the
    /// total length is more than the buffer.
    pub fn new_checked(buffer: T) -> Result<Self, WireError> {
        let view = Self::new_header_checked(buffer)?;
        if usize::from(view.total_len()) > view.buffer.as_ref().len() {
            return Err(WireError::Truncated);
        }
        Ok(view)
    }

    /// A view of a packet of which at least the header, with its options, is in the buffer.
    ///
    /// [`WireError::BadVersion`]; [`WireError::BadLength`] for a header below 20 bytes or a total length
    /// below the header's; [`WireError::Truncated`] if the header is not all there.
    pub fn new_header_checked(buffer: T) -> Result<Self, WireError> {
        let len = buffer.as_ref().len();
        if len < HEADER_LEN {
            return Err(WireError::Truncated);
        }
        let view = Ipv4View { buffer };
        if view.version() != 4 {
            return Err(WireError::BadVersion);
        }
        let header_len = view.header_len();
        if header_len < HEADER_LEN || usize::from(view.total_len()) < header_len {
            return Err(WireError::BadLength);
        }
        if header_len > len {
            return Err(WireError::Truncated);
        }
        Ok(view)
    }

    /// The buffer back.
    pub fn into_inner(self) -> T {
        self.buffer
    }

    /// Version, 4.
    #[inline]
    pub fn version(&self) -> u8 {
        self.buffer.as_ref()[field::VERSION_IHL] >> 4
    }

    /// Length of the header with its options, in bytes.
    #[inline]
    pub fn header_len(&self) -> usize {
        usize::from(self.buffer.as_ref()[field::VERSION_IHL] & 0x0f) * 4
    }

    /// Type of service: DSCP and ECN together.
    #[inline]
    pub fn tos(&self) -> u8 {
        self.buffer.as_ref()[field::TOS]
    }

    /// Length of header and payload, in bytes.
    #[inline]
    pub fn total_len(&self) -> u16 {
        read_u16(self.buffer.as_ref(), field::TOTAL_LEN)
    }

    /// Identification of the datagram that this is a fragment of.
    #[inline]
    pub fn ident(&self) -> u16 {
        read_u16(self.buffer.as_ref(), field::IDENT)
    }

    /// Whether routers must not fragment the packet.
    #[inline]
    pub fn dont_fragment(&self) -> bool {
        self.flags_offset() & DONT_FRAGMENT != 0
    }

    /// Whether fragments follow this one.
    #[inline]
    pub fn more_fragments(&self) -> bool {
        self.flags_offset() & MORE_FRAGMENTS != 0
    }

    /// Place of the payload in the original datagram, in bytes.
    #[inline]
    pub fn fragment_offset(&self) -> u16 {
        (self.flags_offset() & OFFSET_MASK) << 3
    }

    /// Whether the packet is a fragment, the first one included.
    #[inline]
    pub fn is_fragment(&self) -> bool {
        self.flags_offset() & (MORE_FRAGMENTS | OFFSET_MASK) != 0
    }

    #[inline]
    fn flags_offset(&self) -> u16 {
        read_u16(self.buffer.as_ref(), field::FLAGS_OFFSET)
    }

    /// Time to live.
    #[inline]
    pub fn ttl(&self) -> u8 {
        self.buffer.as_ref()[field::TTL]
    }

    /// Protocol of the payload.
    #[inline]
    pub fn proto(&self) -> IpProto {
        IpProto(self.buffer.as_ref()[field::PROTO])
    }

    /// Header checksum.
    #[inline]
    pub fn checksum(&self) -> u16 {
        read_u16(self.buffer.as_ref(), field::CHECKSUM)
    }

    /// Source address.
    #[inline]
    pub fn src(&self) -> Ipv4Addr {
        read::<4>(self.buffer.as_ref(), field::SRC).into()
    }

    /// Destination address.
    #[inline]
    pub fn dst(&self) -> Ipv4Addr {
        read::<4>(self.buffer.as_ref(), field::DST).into()
    }

    /// The header, options included.
    #[inline]
    pub fn header(&self) -> &[u8] {
        clipped(self.buffer.as_ref(), 0, self.header_len())
    }

    /// The options, empty if there are none.
    #[inline]
    pub fn options(&self) -> &[u8] {
        clipped(self.buffer.as_ref(), HEADER_LEN, self.header_len())
    }

    /// Length of the payload as the header says, in bytes; all of it need not be in the buffer.
    #[inline]
    pub fn payload_len(&self) -> usize {
        usize::from(self.total_len()).saturating_sub(self.header_len())
    }

    /// The payload without padding, or as much of it as the buffer has.
    #[inline]
    pub fn payload(&self) -> &[u8] {
        clipped(
            self.buffer.as_ref(),
            self.header_len(),
            usize::from(self.total_len()),
        )
    }

    /// Whether the header's checksum is right.
    #[inline]
    pub fn verify_checksum(&self) -> bool {
        checksum::is_valid(checksum::sum(self.header()))
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Ipv4View<T> {
    /// Sets the version to 4 and the header's length: a multiple of 4 from 20 to 60 bytes.
    pub fn set_header_len(&mut self, len: usize) {
        self.buffer.as_mut()[field::VERSION_IHL] = 0x40 | (len / 4) as u8 & 0x0f;
    }

    /// Sets type of service.
    pub fn set_tos(&mut self, tos: u8) {
        self.buffer.as_mut()[field::TOS] = tos;
    }

    /// Sets the length of header and payload, in bytes.
    pub fn set_total_len(&mut self, len: u16) {
        write(self.buffer.as_mut(), field::TOTAL_LEN, len.to_be_bytes());
    }

    /// Sets the identification.
    pub fn set_ident(&mut self, ident: u16) {
        write(self.buffer.as_mut(), field::IDENT, ident.to_be_bytes());
    }

    /// Sets the fragmentation fields; the reserved flag becomes zero. `offset` is in bytes, a multiple
    /// of 8.
    pub fn set_fragmentation(&mut self, dont_fragment: bool, more_fragments: bool, offset: u16) {
        let flags =
            if dont_fragment { DONT_FRAGMENT } else { 0 } | if more_fragments { MORE_FRAGMENTS } else { 0 };
        write(
            self.buffer.as_mut(),
            field::FLAGS_OFFSET,
            (flags | offset >> 3).to_be_bytes(),
        );
    }

    /// Sets time to live.
    #[inline]
    pub fn set_ttl(&mut self, ttl: u8) {
        self.buffer.as_mut()[field::TTL] = ttl;
    }

    /// Sets the protocol of the payload.
    #[inline]
    pub fn set_proto(&mut self, proto: IpProto) {
        self.buffer.as_mut()[field::PROTO] = proto.0;
    }

    /// Sets the header checksum.
    #[inline]
    pub fn set_checksum(&mut self, checksum: u16) {
        write(self.buffer.as_mut(), field::CHECKSUM, checksum.to_be_bytes());
    }

    /// Sets the source address.
    #[inline]
    pub fn set_src(&mut self, addr: Ipv4Addr) {
        write(self.buffer.as_mut(), field::SRC, addr.octets());
    }

    /// Sets the destination address.
    #[inline]
    pub fn set_dst(&mut self, addr: Ipv4Addr) {
        write(self.buffer.as_mut(), field::DST, addr.octets());
    }

    /// The payload without padding, or as much of it as the buffer has.
    #[inline]
    pub fn payload_mut(&mut self) -> &mut [u8] {
        let (from, to) = (self.header_len(), usize::from(self.total_len()));
        clipped_mut(self.buffer.as_mut(), from, to)
    }

    /// Computes the header checksum and writes it.
    pub fn fill_checksum(&mut self) {
        self.set_checksum(0);
        let checksum = checksum::finish(checksum::sum(self.header()));
        self.set_checksum(checksum);
    }
}

/// An IPv4 header without options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4Repr {
    /// Source address.
    pub src: Ipv4Addr,
    /// Destination address.
    pub dst: Ipv4Addr,
    /// Protocol of the payload.
    pub proto: IpProto,
    /// Length of the payload in bytes, at most 65,515; more is written as the largest length there is.
    pub payload_len: u16,
    /// Time to live.
    pub ttl: u8,
    /// Type of service: DSCP and ECN together.
    pub tos: u8,
    /// Identification.
    pub ident: u16,
    /// Whether routers must not fragment the packet.
    pub dont_fragment: bool,
    /// Whether fragments follow this one.
    pub more_fragments: bool,
    /// Place of the payload in the original datagram, in bytes; a multiple of 8.
    pub fragment_offset: u16,
}

impl Ipv4Repr {
    /// Reads a header. Options are skipped: the engine forwards them through the view and originates
    /// none. [`WireError::BadLength`] for a view that no `new_*checked` would give; the checksum is left
    /// to [`Ipv4View::verify_checksum`].
    pub fn parse<T: AsRef<[u8]>>(view: &Ipv4View<T>) -> Result<Self, WireError> {
        if view.version() != 4 {
            return Err(WireError::BadVersion);
        }
        let payload_len = usize::from(view.total_len())
            .checked_sub(view.header_len())
            .ok_or(WireError::BadLength)?;
        Ok(Ipv4Repr {
            src: view.src(),
            dst: view.dst(),
            proto: view.proto(),
            payload_len: payload_len as u16,
            ttl: view.ttl(),
            tos: view.tos(),
            ident: view.ident(),
            dont_fragment: view.dont_fragment(),
            more_fragments: view.more_fragments(),
            fragment_offset: view.fragment_offset(),
        })
    }

    /// Length of the header in bytes.
    pub const fn buffer_len(&self) -> usize {
        HEADER_LEN
    }

    /// Writes the header with its checksum.
    pub fn emit<T: AsRef<[u8]> + AsMut<[u8]>>(&self, view: &mut Ipv4View<T>) {
        view.set_header_len(HEADER_LEN);
        view.set_tos(self.tos);
        view.set_total_len(self.payload_len.saturating_add(HEADER_LEN as u16));
        view.set_ident(self.ident);
        view.set_fragmentation(self.dont_fragment, self.more_fragments, self.fragment_offset);
        view.set_ttl(self.ttl);
        view.set_proto(self.proto);
        view.set_src(self.src);
        view.set_dst(self.dst);
        view.fill_checksum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: [u8; 20] = [
        0x45, 0x10, 0x00, 0x1c, 0x12, 0x34, 0x40, 0x00, 0x40, 0x11, 0x3c, 0x51, 0xc0, 0x00, 0x02, 0x01, 0xc6,
        0x33, 0x64, 0x07,
    ];

    fn repr() -> Ipv4Repr {
        Ipv4Repr {
            src: Ipv4Addr::new(192, 0, 2, 1),
            dst: Ipv4Addr::new(198, 51, 100, 7),
            proto: IpProto::UDP,
            payload_len: 8,
            ttl: 64,
            tos: 0x10,
            ident: 0x1234,
            dont_fragment: true,
            more_fragments: false,
            fragment_offset: 0,
        }
    }

    /// The header, 8 bytes of payload and 6 of padding.
    fn packet() -> [u8; 34] {
        let mut bytes = [0xee; 34];
        bytes[..20].copy_from_slice(&HEADER);
        bytes
    }

    #[test]
    fn both_ways() {
        let bytes = packet();
        let view = Ipv4View::new_checked(&bytes).expect("a packet");
        assert_eq!(Ipv4Repr::parse(&view), Ok(repr()));
        assert!(view.verify_checksum() && !view.is_fragment());
        assert_eq!(view.payload().len(), 8, "padding is not payload");
        let mut bytes = [0xa5; 20];
        repr().emit(&mut Ipv4View::new_unchecked(&mut bytes));
        assert_eq!(bytes, HEADER);
    }

    #[test]
    fn options_are_part_of_the_header() {
        let mut bytes = packet();
        let mut view = Ipv4View::new_unchecked(&mut bytes);
        view.set_header_len(24);
        view.fill_checksum();
        let view = Ipv4View::new_checked(&bytes).expect("a packet");
        assert!(view.verify_checksum());
        assert_eq!(
            (view.options().len(), view.payload().len(), view.payload_len()),
            (4, 4, 4)
        );
        assert_eq!(Ipv4Repr::parse(&view).map(|r| r.payload_len), Ok(4));
    }

    #[test]
    fn fragments() {
        let mut bytes = packet();
        for (more, offset, is) in [
            (true, 0, true),
            (true, 8, true),
            (false, 65_528, true),
            (false, 0, false),
        ] {
            let mut view = Ipv4View::new_unchecked(&mut bytes);
            view.set_fragmentation(false, more, offset);
            assert_eq!(
                (view.more_fragments(), view.fragment_offset(), view.is_fragment()),
                (more, offset, is)
            );
        }
    }

    #[test]
    fn any_flipped_bit_of_the_header_fails_the_checksum() {
        for bit in 0..160 {
            let mut bytes = HEADER;
            bytes[bit / 8] ^= 1 << (bit % 8);
            if let Ok(view) = Ipv4View::new_header_checked(&bytes) {
                assert!(!view.verify_checksum(), "bit {bit}");
            }
        }
    }

    #[test]
    fn refusals() {
        let with = |at: usize, value: u8| {
            let mut bytes = packet();
            bytes[at] = value;
            Ipv4View::new_checked(bytes).err()
        };
        assert_eq!(with(0, 0x65), Some(WireError::BadVersion));
        assert_eq!(with(0, 0x44), Some(WireError::BadLength), "a header of 16 bytes");
        assert_eq!(
            with(3, 19),
            Some(WireError::BadLength),
            "total length below the header's"
        );
        assert_eq!(
            with(0, 0x4f),
            Some(WireError::BadLength),
            "a header longer than the packet"
        );
        assert_eq!(with(3, 34), None);
        assert_eq!(with(3, 35), Some(WireError::Truncated));
        assert_eq!(
            Ipv4View::new_checked(&HEADER[..19]).err(),
            Some(WireError::Truncated)
        );
        assert_eq!(Ipv4View::new_checked(&HEADER).err(), Some(WireError::Truncated));
        // A quoted packet is cut on purpose.
        let view = Ipv4View::new_header_checked(&HEADER).expect("the header is there");
        assert_eq!((view.payload_len(), view.payload().len()), (8, 0));
        let mut long_header = HEADER;
        long_header[0] = 0x46;
        assert_eq!(
            Ipv4View::new_header_checked(&long_header).err(),
            Some(WireError::Truncated)
        );
    }
}
