//! Extension headers of IPv6 (RFC 8200, section 4): a bounded walk to the upper protocol, and the
//! fragment header.

use crate::wire::bytes::{read_u16, read_u32, write};
use crate::wire::{IpProto, WireError};

/// Extension headers of a packet at most. RFC 8200 recommends each at most once, destination options
/// twice: that makes six. A longer chain is a way to hide a header or to burn cycles.
pub const HEADERS_MAX: usize = 8;

/// Length of a fragment header in bytes.
pub const FRAGMENT_HEADER_LEN: usize = fragment::IDENT.end;

mod fragment {
    use crate::wire::bytes::Field;

    pub(super) const NEXT_HEADER: usize = 0;
    pub(super) const RESERVED: usize = 1;
    pub(super) const OFFSET_FLAGS: Field = 2..4;
    pub(super) const IDENT: Field = 4..8;
}

/// What a chain of extension headers leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpperLayer {
    /// The upper protocol: the first type that the walk does not step over. [`IpProto::ESP`] and
    /// [`IpProto::IPV6_NO_NEXT`] are such.
    pub proto: IpProto,
    /// Where it begins, in bytes from the start of the payload of the fixed header. At most the
    /// payload's length. In a fragment other than the first these are bytes from the middle of the
    /// upper protocol, not its header.
    pub offset: usize,
    /// The fragment header, if there was one.
    pub fragment: Option<Ipv6FragmentRepr>,
    /// Whether a routing header with segments left was seen: the destination in the fixed header is
    /// not the final one, which is what checksums cover.
    pub routing_segments_left: bool,
    /// Whether an authentication header was seen: it covers the addresses of the fixed header (RFC 4302,
    /// section 3.3.3.1.2), so that the packet is forged as soon as one is rewritten.
    pub authenticated: bool,
    /// Number of extension headers, at most [`HEADERS_MAX`].
    pub header_count: u8,
}

impl UpperLayer {
    /// Whether the packet is a fragment. A fragment header that covers the whole datagram (an "atomic
    /// fragment", RFC 6946) does not make it one.
    pub const fn is_fragment(&self) -> bool {
        matches!(self.fragment, Some(f) if f.offset != 0 || f.more_fragments)
    }
}

/// Steps over hop-by-hop options, routing, fragment and authentication headers and destination options,
/// from the header of type `first` at the start of `payload`.
///
/// The walk ends at any other type, and behind the fragment header of a fragment other than the first.
///
/// [`WireError::Truncated`] if a header is not all in `payload`; [`WireError::TooManyHeaders`] for a ninth
/// header; [`WireError::BadValue`] for hop-by-hop options elsewhere than first (RFC 8200, section 4.1)
/// and for a second fragment header.
#[inline]
pub fn walk(payload: &[u8], first: IpProto) -> Result<UpperLayer, WireError> {
    let mut upper = UpperLayer {
        proto: first,
        offset: 0,
        fragment: None,
        routing_segments_left: false,
        authenticated: false,
        header_count: 0,
    };
    // The common packet has no extension header and leaves here.
    while upper.proto.is_ipv6_extension() {
        if usize::from(upper.header_count) == HEADERS_MAX {
            return Err(WireError::TooManyHeaders);
        }
        step(payload, &mut upper)?;
        if matches!(upper.fragment, Some(f) if f.offset != 0) {
            break;
        }
    }
    Ok(upper)
}

/// Steps over the extension header of type `upper.proto` at `upper.offset`.
fn step(payload: &[u8], upper: &mut UpperLayer) -> Result<(), WireError> {
    let rest = payload.get(upper.offset..).ok_or(WireError::Truncated)?;
    let &[next, len_field, _, segments_left, ..] = rest else {
        return Err(WireError::Truncated);
    };
    let len = match upper.proto {
        IpProto::IPV6_FRAGMENT => FRAGMENT_HEADER_LEN,
        // RFC 4302, section 2.2: in units of 4 bytes, minus 2.
        IpProto::AH => (usize::from(len_field) + 2) * 4,
        // RFC 8200: in units of 8 bytes, the first not counted.
        _ => (usize::from(len_field) + 1) * 8,
    };
    if len > rest.len() {
        return Err(WireError::Truncated);
    }
    match upper.proto {
        IpProto::HOP_BY_HOP if upper.header_count != 0 => return Err(WireError::BadValue),
        IpProto::IPV6_FRAGMENT => {
            if upper.fragment.is_some() {
                return Err(WireError::BadValue);
            }
            upper.fragment = Some(Ipv6FragmentRepr::parse(&Ipv6FragmentView::new_checked(rest)?)?);
        }
        IpProto::IPV6_ROUTING => upper.routing_segments_left |= segments_left != 0,
        IpProto::AH => upper.authenticated = true,
        _ => {}
    }
    upper.proto = IpProto(next);
    upper.offset += len;
    upper.header_count += 1;
    Ok(())
}

/// A view of a fragment header and what follows it.
#[derive(Clone, Copy, Debug)]
pub struct Ipv6FragmentView<T> {
    buffer: T,
}

impl<T: AsRef<[u8]>> Ipv6FragmentView<T> {
    /// A view without a check; accessors panic on a buffer shorter than [`FRAGMENT_HEADER_LEN`].
    pub const fn new_unchecked(buffer: T) -> Self {
        Ipv6FragmentView { buffer }
    }

    /// A view of a fragment header. [`WireError::Truncated`] below 8 bytes.
    pub fn new_checked(buffer: T) -> Result<Self, WireError> {
        match buffer.as_ref().len() {
            0..FRAGMENT_HEADER_LEN => Err(WireError::Truncated),
            _ => Ok(Ipv6FragmentView { buffer }),
        }
    }

    /// Type of the first header of the fragmentable part.
    pub fn next_header(&self) -> IpProto {
        IpProto(self.buffer.as_ref()[fragment::NEXT_HEADER])
    }

    /// Place of what follows in the fragmentable part, in bytes.
    pub fn offset(&self) -> u16 {
        read_u16(self.buffer.as_ref(), fragment::OFFSET_FLAGS) & 0xfff8
    }

    /// Whether fragments follow this one.
    pub fn more_fragments(&self) -> bool {
        read_u16(self.buffer.as_ref(), fragment::OFFSET_FLAGS) & 1 != 0
    }

    /// Identification of the datagram.
    pub fn ident(&self) -> u32 {
        read_u32(self.buffer.as_ref(), fragment::IDENT)
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Ipv6FragmentView<T> {
    /// Sets the type of the first header of the fragmentable part.
    pub fn set_next_header(&mut self, proto: IpProto) {
        self.buffer.as_mut()[fragment::NEXT_HEADER] = proto.0;
    }

    /// Sets offset (in bytes, a multiple of 8) and flag; all reserved bits become zero.
    pub fn set_fragmentation(&mut self, more_fragments: bool, offset: u16) {
        let data = self.buffer.as_mut();
        data[fragment::RESERVED] = 0;
        write(
            data,
            fragment::OFFSET_FLAGS,
            (offset & 0xfff8 | u16::from(more_fragments)).to_be_bytes(),
        );
    }

    /// Sets the identification.
    pub fn set_ident(&mut self, ident: u32) {
        write(self.buffer.as_mut(), fragment::IDENT, ident.to_be_bytes());
    }
}

/// A fragment header (RFC 8200, section 4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv6FragmentRepr {
    /// Type of the first header of the fragmentable part.
    pub next_header: IpProto,
    /// Place of what follows in the fragmentable part, in bytes; a multiple of 8.
    pub offset: u16,
    /// Whether fragments follow this one.
    pub more_fragments: bool,
    /// Identification of the datagram.
    pub ident: u32,
}

impl Ipv6FragmentRepr {
    /// Reads a header. Reserved bits are ignored, as RFC 8200 wants; nothing is refused.
    pub fn parse<T: AsRef<[u8]>>(view: &Ipv6FragmentView<T>) -> Result<Self, WireError> {
        Ok(Ipv6FragmentRepr {
            next_header: view.next_header(),
            offset: view.offset(),
            more_fragments: view.more_fragments(),
            ident: view.ident(),
        })
    }

    /// Length of the header in bytes.
    pub const fn buffer_len(&self) -> usize {
        FRAGMENT_HEADER_LEN
    }

    /// Writes the header.
    pub fn emit<T: AsRef<[u8]> + AsMut<[u8]>>(&self, view: &mut Ipv6FragmentView<T>) {
        view.set_next_header(self.next_header);
        view.set_fragmentation(self.more_fragments, self.offset);
        view.set_ident(self.ident);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    const HOP: IpProto = IpProto::HOP_BY_HOP;
    const ROUTING: IpProto = IpProto::IPV6_ROUTING;
    const FRAGMENT: IpProto = IpProto::IPV6_FRAGMENT;
    const OPTIONS: IpProto = IpProto::IPV6_DEST_OPTIONS;

    /// A header of `len` bytes, its length field by `len_field`.
    fn header(next: IpProto, len_field: u8, len: usize) -> Vec<u8> {
        let mut bytes = std::vec![0; len];
        bytes[..2].copy_from_slice(&[next.0, len_field]);
        bytes
    }

    #[test]
    fn no_extension_header() {
        for proto in [IpProto::TCP, IpProto::ESP, IpProto::IPV6_NO_NEXT, IpProto(200)] {
            let upper = walk(&[], proto).expect("nothing to walk");
            assert_eq!((upper.proto, upper.offset, upper.header_count), (proto, 0, 0));
        }
    }

    #[test]
    fn every_header_once() {
        let mut routing = header(FRAGMENT, 2, 24);
        routing[3] = 1;
        let fragment = [IpProto::AH.0, 0, 0x00, 0x01, 0xde, 0xad, 0xbe, 0xef];
        let chain = [
            header(OPTIONS, 0, 8),
            header(ROUTING, 1, 16),
            routing,
            fragment.to_vec(),
            // An integrity check value of 12 bytes: 24 bytes are 6 words, minus 2.
            header(OPTIONS, 4, 24),
            header(IpProto::UDP, 0, 8),
            std::vec![0xff; 3],
        ]
        .concat();
        let want = UpperLayer {
            proto: IpProto::UDP,
            offset: 88,
            fragment: Some(Ipv6FragmentRepr {
                next_header: IpProto::AH,
                offset: 0,
                more_fragments: true,
                ident: 0xdead_beef,
            }),
            routing_segments_left: true,
            authenticated: true,
            header_count: 6,
        };
        assert_eq!(walk(&chain, HOP), Ok(want));
        assert!(want.is_fragment());
        for cut in 0..88 {
            assert_eq!(
                walk(&chain[..cut], HOP),
                Err(WireError::Truncated),
                "cut at {cut}"
            );
        }
        assert_eq!(walk(&chain[..88], HOP), Ok(want));
    }

    #[test]
    fn routing_header_without_segments_left() {
        let upper = walk(&header(IpProto::TCP, 0, 8), ROUTING).expect("a chain");
        assert!(!upper.routing_segments_left);
        // One that is used up does not hide an earlier one that is not.
        let mut first = header(ROUTING, 0, 8);
        first[3] = 1;
        let both = [first, header(IpProto::TCP, 0, 8)].concat();
        assert!(walk(&both, ROUTING).expect("a chain").routing_segments_left);
    }

    #[test]
    fn a_later_fragment_ends_the_walk() {
        // What follows would be a destination options header, were it the first fragment.
        let bytes = [OPTIONS.0, 0, 0x00, 0x08, 0, 0, 0, 7, 0xff, 0xff];
        let upper = walk(&bytes, FRAGMENT).expect("a fragment");
        assert_eq!((upper.proto, upper.offset), (OPTIONS, 8));
        assert!(upper.is_fragment());
    }

    #[test]
    fn an_atomic_fragment_is_whole() {
        let bytes = [IpProto::TCP.0, 0, 0, 0, 0, 0, 0, 7];
        let upper = walk(&bytes, FRAGMENT).expect("a fragment header");
        assert!(upper.fragment.is_some() && !upper.is_fragment());
    }

    #[test]
    fn eight_headers_and_no_more() {
        let chain = |n: usize| -> Vec<u8> {
            (0..n)
                .flat_map(|i| header(if i + 1 == n { IpProto::TCP } else { OPTIONS }, 0, 8))
                .collect()
        };
        let upper = walk(&chain(8), OPTIONS).expect("eight are followed");
        assert_eq!(
            (upper.proto, upper.offset, upper.header_count),
            (IpProto::TCP, 64, 8)
        );
        assert_eq!(walk(&chain(9), OPTIONS), Err(WireError::TooManyHeaders));
    }

    #[test]
    fn misplaced_and_repeated_headers() {
        let hop_second = [header(HOP, 0, 8), header(IpProto::TCP, 0, 8)].concat();
        assert_eq!(walk(&hop_second, OPTIONS), Err(WireError::BadValue));
        assert_eq!(walk(&hop_second, HOP), Err(WireError::BadValue));
        let two_fragments = [header(FRAGMENT, 0, 8), header(IpProto::TCP, 0, 8)].concat();
        assert_eq!(walk(&two_fragments, FRAGMENT), Err(WireError::BadValue));
    }

    #[test]
    fn esp_ends_the_walk() {
        let chain = [header(IpProto::ESP, 0, 8), header(OPTIONS, 9, 8)].concat();
        let upper = walk(&chain, OPTIONS).expect("a chain");
        assert_eq!((upper.proto, upper.offset), (IpProto::ESP, 8));
    }

    #[test]
    fn fragment_header_both_ways() {
        const BYTES: [u8; 8] = [6, 0, 0x04, 0xd1, 0x12, 0x34, 0x56, 0x78];
        let repr = Ipv6FragmentRepr {
            next_header: IpProto::TCP,
            offset: 1232,
            more_fragments: true,
            ident: 0x1234_5678,
        };
        let view = Ipv6FragmentView::new_checked(&BYTES).expect("a header");
        assert_eq!(Ipv6FragmentRepr::parse(&view), Ok(repr));
        let mut bytes = [0xa5; 8];
        repr.emit(&mut Ipv6FragmentView::new_unchecked(&mut bytes));
        assert_eq!(bytes, BYTES);
    }
}
