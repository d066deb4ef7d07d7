//! Connections: their bytes, the table that finds them, their timers.

mod index;
mod slab;
mod slots;
mod table;

#[cfg(test)]
mod tests;

pub use index::{Bucket, WAYS};
pub use slots::{SLOT_COUNT, SlotChunk};
pub use table::{
    ConnMark, ConnTable, HeapMemory, MemorySource, TableFull, TableMemory, TableSizes, TableUse,
};

pub(crate) use index::Candidates;
pub(crate) use slab::Slab;
pub(crate) use table::{ConnPlaces, Fired, slot_of_hash};

use bytemuck::{Pod, Zeroable};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::num::NonZeroU32;

use crate::proto::ConnState;
use crate::service::{RealServerId, ServiceId};
use crate::tuple::{Direction, Family, L4Proto, Tuple};

/// Conns of one slab at most: a `ConnRef` has 30 bits for the place, and its value 0 is "none".
pub const CONN_COUNT_MAX: u32 = (1 << 30) - 2;

/// A conn of a worker: slab and place. Places are used again; who keeps one over time compares the tuple
/// or [`ConnView::generation`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(u32);

impl ConnId {
    pub(crate) const fn v4(place: u32) -> Self {
        ConnId(place << 1)
    }

    pub(crate) const fn v6(place: u32) -> Self {
        ConnId(place << 1 | 1)
    }

    /// Whether it lies in the slab of 128-byte conns.
    #[inline]
    pub const fn is_v6(self) -> bool {
        self.0 & 1 != 0
    }

    /// Place in its slab.
    #[inline]
    pub const fn place(self) -> u32 {
        self.0 >> 1
    }

    /// As a number that is not 0, for links.
    pub(crate) const fn link(self) -> u32 {
        self.0 + 1
    }

    /// From [`ConnId::link`].
    pub(crate) const fn from_link(link: u32) -> Option<Self> {
        match link.checked_sub(1) {
            Some(bits) => Some(ConnId(bits)),
            None => None,
        }
    }

    pub(crate) const fn with(self, direction: Direction) -> ConnRef {
        let bits = NonZeroU32::new((self.0 + 2) << 1 | direction as u32);
        ConnRef(bits.expect("places have 30 bits"))
    }
}

/// A conn and the direction in which a tuple runs: what the index leads to. Never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ConnRef(NonZeroU32);

impl ConnRef {
    pub(crate) const fn bits(self) -> u32 {
        self.0.get()
    }

    /// From [`ConnRef::bits`]; 0 is none.
    #[inline]
    pub(crate) const fn from_bits(bits: u32) -> Option<Self> {
        match NonZeroU32::new(bits) {
            Some(bits) => Some(ConnRef(bits)),
            None => None,
        }
    }

    #[inline]
    pub(crate) const fn id(self) -> ConnId {
        ConnId((self.bits() >> 1).wrapping_sub(2))
    }

    #[inline]
    pub(crate) const fn direction(self) -> Direction {
        Hint(self.bits()).direction()
    }
}

/// A conn that a tuple may belong to, or none: the bits of a [`ConnRef`], or 0. Not an `Option`, so that what is done
/// with it is computed for none as for any: which tuples have one cannot be predicted, and a `match` is a branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hint(u32);

impl Hint {
    pub(crate) const NONE: Hint = Hint(0);

    /// From [`ConnRef::bits`], or 0.
    #[inline]
    pub(crate) const fn from_bits(bits: u32) -> Self {
        Hint(bits)
    }

    #[inline]
    pub(crate) const fn conn(self) -> Option<ConnRef> {
        ConnRef::from_bits(self.0)
    }

    #[inline]
    pub(crate) const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// As [`ConnId::is_v6`]; `false` for none.
    #[inline]
    pub(crate) const fn is_v6(self) -> bool {
        self.0 & 2 != 0
    }

    /// As [`ConnId::place`]; for none what no slab has, and is next to the first place by wrapping arithmetic.
    #[inline]
    pub(crate) const fn place(self) -> usize {
        ((self.0 >> 2) as usize).wrapping_sub(1)
    }

    #[inline]
    pub(crate) const fn direction(self) -> Direction {
        if self.0 & 1 == 0 {
            Direction::Inbound
        } else {
            Direction::Outbound
        }
    }
}

/// What both sizes of conn have beside their addresses: 40 bytes, 24 of them replication's.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct ConnMeta {
    pub(crate) proto: u8,
    pub(crate) state: u8,
    pub(crate) flags: u8,
    /// Counts the uses of this place.
    pub(crate) generation: u8,
    /// Tick at which it expires without another packet, low 32 bits.
    pub(crate) deadline: u32,
    pub(crate) service: u16,
    pub(crate) server: u16,
    /// Place of rarer state in the side slab, plus one; 0 is none.
    pub(crate) ext: u32,
    /// Replication: epoch as a 16-bit index, LSN of 48 bits.
    pub(crate) version: u64,
    /// Replication: what this session adds to its slot's digest.
    pub(crate) digest: u64,
    /// Replication: next in the dirty queue of its bucket, or in the list of its tombstones ([`LIST_END`] is the
    /// end); of a replica in neither, the deadline that its holder knows of; [`ANSWER_AWAITED`] of one that nobody
    /// was told of yet.
    pub(crate) dirty_link: u32,
    /// Replication: place in its slot.
    pub(crate) slot_link: u32,
}

/// Bytes of a conn that belong to replication: version 8, digest 8, dirty link 4, slot link 4.
const REPLICATION_BYTES: usize = 24;

const _: () = assert!(size_of::<ConnMeta>() == 40);
const _: () = assert!(size_of::<ConnMeta>() - core::mem::offset_of!(ConnMeta, version) == REPLICATION_BYTES);
const _: () =
    assert!(core::mem::offset_of!(ConnMeta, digest) - core::mem::offset_of!(ConnMeta, version) == 8);
const _: () =
    assert!(core::mem::offset_of!(ConnMeta, dirty_link) - core::mem::offset_of!(ConnMeta, digest) == 8);
const _: () =
    assert!(core::mem::offset_of!(ConnMeta, slot_link) - core::mem::offset_of!(ConnMeta, dirty_link) == 4);

/// Flags of a conn.
pub(crate) mod flag {
    /// It was ESTABLISHED once, and counted.
    pub(crate) const ESTABLISHED: u8 = 1;
    /// It was closed, and counted.
    pub(crate) const CLOSED: u8 = 2;
    /// The client's side is IPv4 (in the slab of IPv6 conns: NAT46).
    pub(crate) const CLIENT_V4: u8 = 4;
    /// The real server's side is IPv4 (in the slab of IPv6 conns: NAT64).
    pub(crate) const SERVER_V4: u8 = 8;
    /// The real server's packets do not pass here.
    pub(crate) const INBOUND_ONLY: u8 = 16;
    /// Replication: the slot that is being pulled names it.
    pub(crate) const MENTIONED: u8 = 32;
    /// Replication: an adoption restarted its timeout, and no packet has come since.
    pub(crate) const RESTARTED: u8 = 64;
    /// Replication: while others hold it, that it changed here and could not be told: what its holder has of the same version
    /// replaces it. (Who holds a conn has told it or is to tell it: the bit has its other meaning then.)
    pub(crate) const UNTOLD: u8 = RESTARTED;
    /// Replication: it is in the dirty queue of its bucket.
    pub(crate) const DIRTY: u8 = 128;
}

/// Set in [`ConnMeta::proto`] of a tombstone, so that no packet's protocol equals it.
pub(crate) const TOMB: u8 = 0x80;

/// End of the dirty queue and of the list of received tombstones.
pub(crate) const LIST_END: u32 = u32::MAX;

/// In [`ConnMeta::dirty_link`] of a conn of TCP's that nobody was told of: the real server's SYN-ACK has not passed.
pub(crate) const ANSWER_AWAITED: u32 = LIST_END - 1;

/// A conn whose both sides are IPv4. One cache line.
///
/// What packets carry stands there by [`Direction`], source and destination in one run as on the wire: client
/// and VIP, then real server and LIP. A packet of one direction becomes the reverse of what those of the other
/// direction carry.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C, align(64))]
pub struct Conn4 {
    pub(crate) addrs: [[u8; 8]; 2],
    pub(crate) ports: [[u8; 4]; 2],
    pub(crate) meta: ConnMeta,
}

/// A conn with an IPv6 side. Two cache lines. As [`Conn4`]; an IPv4 side stands as IPv4-mapped addresses.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C, align(64))]
pub struct Conn6 {
    pub(crate) addrs: [[u8; 32]; 2],
    pub(crate) ports: [[u8; 4]; 2],
    pub(crate) meta: ConnMeta,
    reserved: [u8; 16],
}

const _: () = assert!(size_of::<Conn4>() == 64 && align_of::<Conn4>() == 64);
const _: () = assert!(size_of::<Conn6>() == 128 && align_of::<Conn6>() == 64);

impl Conn6 {
    /// The family of the packets of a direction.
    #[inline]
    pub(crate) fn family(&self, direction: Direction) -> Family {
        let v4 = [flag::CLIENT_V4, flag::SERVER_V4][direction as usize];
        if self.meta.flags & v4 != 0 {
            Family::V4
        } else {
            Family::V6
        }
    }
}

/// Rarer state of a conn, in a side slab.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct ConnExt {
    /// Added to sequence numbers of the client, modulo 2^32.
    pub(crate) inbound_delta: u32,
    /// Added to sequence numbers of the real server, modulo 2^32.
    pub(crate) outbound_delta: u32,
    pub(crate) client_isn: u32,
    pub(crate) server_isn: u32,
    /// Window scales, plus one; 0 is unknown.
    pub(crate) client_wscale: u8,
    pub(crate) server_wscale: u8,
    pub(crate) flags: u8,
    reserved: u8,
    /// Link of the free list.
    pub(crate) free_link: u32,
}

/// Flags of [`ConnExt`]: which of its fields mean something.
pub(crate) mod ext_flag {
    pub(crate) const DELTAS: u8 = 1;
    pub(crate) const CLIENT_ISN: u8 = 2;
    pub(crate) const SERVER_ISN: u8 = 4;
}

/// Everything that decides a new conn, before it is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnInit {
    /// Transport protocol.
    pub proto: L4Proto,
    /// The client's end.
    pub client: SocketAddr,
    /// The end that the client uses: VIP and port.
    pub vip: SocketAddr,
    /// The real server's end.
    pub server: SocketAddr,
    /// The end that the real server sees: LIP and local port.
    pub local: SocketAddr,
    /// Service.
    pub service: ServiceId,
    /// Real server.
    pub server_id: RealServerId,
    /// State to begin in.
    pub state: ConnState,
}

impl ConnInit {
    /// The tuple of the client's packets.
    pub const fn inbound(&self) -> Tuple {
        Tuple {
            proto: self.proto,
            src: self.client,
            dst: self.vip,
        }
    }

    /// The tuple of the real server's packets.
    pub const fn outbound(&self) -> Tuple {
        Tuple {
            proto: self.proto,
            src: self.server,
            dst: self.local,
        }
    }
}

/// A conn, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnView {
    /// Where it is.
    pub id: ConnId,
    /// Ends, service, server, state.
    pub init: ConnInit,
    /// Counts the uses of its place, modulo 256.
    pub generation: u8,
    /// Milliseconds until it expires without another packet.
    pub remaining_ms: u64,
    /// It was ESTABLISHED once.
    pub was_established: bool,
    /// It was closed by FINs or a RST.
    pub was_closed: bool,
}

/// The 16 bytes in which the slab of IPv6 conns holds `addr`.
pub(crate) fn wide(addr: IpAddr) -> [u8; 16] {
    match addr {
        IpAddr::V4(a) => a.to_ipv6_mapped().octets(),
        IpAddr::V6(a) => a.octets(),
    }
}

/// The reverse of [`wide`], given the family.
pub(crate) fn narrow(bytes: [u8; 16], family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::new(bytes[12], bytes[13], bytes[14], bytes[15])),
        Family::V6 => IpAddr::V6(Ipv6Addr::from(bytes)),
    }
}
