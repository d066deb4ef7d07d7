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
