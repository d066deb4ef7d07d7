//! Fields, sessions and tuples as bytes, each one's writer beside its reader.

use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::time::Duration;

use super::read::{Field, FrameError};
use super::write::PushError;
use super::{SERVER_UNRESOLVED, SERVICE_UNRESOLVED};
use crate::cluster::{Epoch, GroupId, Incarnation, NodeId, PeerId};
use crate::conn::{ConnInit, SLOT_COUNT};
use crate::proto::ConnState;
use crate::service::FwdMode;
use crate::sync::{
    Isns, LSN_MAX, Lsn, LsnRange, RANGE_COUNT_MAX, SeqDeltas, SessionRecord, SlotDigest, Version,
    VersionedRecord, WindowScales,
};
use crate::tuple::{L4Proto, Tuple};

/// What a writer of a field returns; after an error the caller takes back what was written.
pub(super) type Put = Result<(), PushError>;
/// What a reader of a field returns.
pub(super) type Got<T> = Result<T, FrameError>;

/// What is still to be read.
#[derive(Clone, Copy)]
pub(super) struct Bytes<'a>(pub(super) &'a [u8]);

impl<'a> Bytes<'a> {
    pub(super) fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn take(&mut self, n: usize) -> Got<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(n).ok_or(FrameError::Truncated)?;
        self.0 = rest;
        Ok(head)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Got<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk().ok_or(FrameError::Truncated)?;
        self.0 = rest;
        Ok(*head)
    }

    pub(super) fn u8(&mut self) -> Got<u8> {
        self.array().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Got<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Got<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Got<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn bool(&mut self) -> Got<bool> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(FrameError::Bad(Field::Bool)),
        }
    }

    /// `count` things of `len` bytes each, if all of them are there: nothing is allocated for what is not.
    pub(super) fn list<T>(
        &mut self,
        count: usize,
        len: usize,
        read: impl Fn(&mut Bytes<'a>) -> Got<T>,
    ) -> Got<Vec<T>> {
        let mut bytes = Bytes(self.take(count * len)?);
        let mut list = Vec::with_capacity(count);
        for _ in 0..count {
            list.push(read(&mut bytes)?);
        }
        Ok(list)
    }

    pub(super) fn end(self) -> Got<()> {
        if self.is_empty() {
            Ok(())
        } else {
            Err(FrameError::Trailing)
        }
    }
}

pub(super) const PEER_LEN: usize = 10;
pub(super) const RANGE_LEN: usize = 12;
pub(super) const CLAIM_LEN: usize = 29;

pub(super) fn put_peer(buf: &mut Vec<u8>, peer: PeerId) {
    buf.extend(peer.node.0.to_le_bytes());
    buf.extend(peer.incarnation.0.to_le_bytes());
}

pub(super) fn take_peer(bytes: &mut Bytes<'_>) -> Got<PeerId> {
    Ok(PeerId {
        node: NodeId(bytes.u16()?),
        incarnation: Incarnation(bytes.u64()?),
    })
}

pub(super) fn put_group(buf: &mut Vec<u8>, group: GroupId) {
    buf.extend(group.node.0.to_le_bytes());
    buf.extend(group.generation.to_le_bytes());
}

pub(super) fn take_group(bytes: &mut Bytes<'_>) -> Got<GroupId> {
    Ok(GroupId {
        node: NodeId(bytes.u16()?),
        generation: bytes.u64()?,
    })
}

pub(super) fn put_epoch(buf: &mut Vec<u8>, epoch: Epoch) {
    buf.extend(epoch.term.to_le_bytes());
    put_peer(buf, epoch.holder);
}

pub(super) fn take_epoch(bytes: &mut Bytes<'_>) -> Got<Epoch> {
    Ok(Epoch {
        term: bytes.u64()?,
        holder: take_peer(bytes)?,
    })
}

pub(super) fn put_lsn(buf: &mut Vec<u8>, lsn: Lsn) -> Put {
    if lsn > LSN_MAX {
        return Err(PushError::Unencodable);
    }
    let [a, b, c, d, e, f, _, _] = lsn.to_le_bytes();
    buf.extend([a, b, c, d, e, f]);
    Ok(())
}

pub(super) fn take_lsn(bytes: &mut Bytes<'_>) -> Got<Lsn> {
    let [a, b, c, d, e, f] = bytes.array()?;
    Ok(u64::from_le_bytes([a, b, c, d, e, f, 0, 0]))
}

pub(super) fn put_version(buf: &mut Vec<u8>, version: Version) -> Put {
    put_epoch(buf, version.epoch);
    put_lsn(buf, version.lsn)
}

pub(super) fn take_version(bytes: &mut Bytes<'_>) -> Got<Version> {
    Ok(Version {
        epoch: take_epoch(bytes)?,
        lsn: take_lsn(bytes)?,
    })
}

pub(super) fn put_range(buf: &mut Vec<u8>, range: LsnRange) -> Put {
    if range.first > range.last {
        return Err(PushError::Unencodable);
    }
    put_lsn(buf, range.first)?;
    put_lsn(buf, range.last)
}

pub(super) fn take_range(bytes: &mut Bytes<'_>) -> Got<LsnRange> {
    let (first, last) = (take_lsn(bytes)?, take_lsn(bytes)?);
    if first > last {
        return Err(FrameError::Bad(Field::Range));
    }
    Ok(LsnRange { first, last })
}

pub(super) fn put_ranges(buf: &mut Vec<u8>, ranges: &[LsnRange]) -> Put {
    ranges.iter().try_for_each(|range| put_range(buf, *range))
}

pub(super) fn take_ranges(bytes: &mut Bytes<'_>, count: usize) -> Got<Vec<LsnRange>> {
    bytes.list(count, RANGE_LEN, take_range)
}

/// The number of things in a list of at most `max`, in one byte.
pub(super) fn put_count<T>(buf: &mut Vec<u8>, list: &[T], max: usize) -> Put {
    match u8::try_from(list.len()) {
        Ok(count) if list.len() <= max => {
            buf.push(count);
            Ok(())
        }
        _ => Err(PushError::Unencodable),
    }
}

pub(super) fn take_count(bytes: &mut Bytes<'_>, max: usize) -> Got<usize> {
    let count = usize::from(bytes.u8()?);
    if count > max {
        return Err(FrameError::Bad(Field::Count));
    }
    Ok(count)
}

/// [`put_count`] of ranges.
pub(super) fn put_range_count(buf: &mut Vec<u8>, ranges: &[LsnRange]) -> Put {
    put_count(buf, ranges, RANGE_COUNT_MAX)
}

pub(super) fn take_range_count(bytes: &mut Bytes<'_>) -> Got<usize> {
    take_count(bytes, RANGE_COUNT_MAX)
}

pub(super) fn put_slot(buf: &mut Vec<u8>, slot: u16) -> Put {
    if usize::from(slot) >= SLOT_COUNT {
        return Err(PushError::Unencodable);
    }
    buf.extend(slot.to_le_bytes());
    Ok(())
}

pub(super) fn take_slot(bytes: &mut Bytes<'_>) -> Got<u16> {
    let slot = bytes.u16()?;
    if usize::from(slot) >= SLOT_COUNT {
        return Err(FrameError::Bad(Field::Slot));
    }
    Ok(slot)
}

pub(super) const DIGEST_LEN: usize = 14;

pub(super) fn put_digest(buf: &mut Vec<u8>, digest: &SlotDigest) -> Put {
    put_slot(buf, digest.slot)?;
    buf.extend(digest.count.to_le_bytes());
    buf.extend(digest.hash.to_le_bytes());
    Ok(())
}

pub(super) fn take_digest(bytes: &mut Bytes<'_>) -> Got<SlotDigest> {
    Ok(SlotDigest {
        slot: take_slot(bytes)?,
        count: bytes.u32()?,
        hash: bytes.u64()?,
    })
}

/// Both ports, then both addresses; returns whether they are IPv6.
fn put_ends(buf: &mut Vec<u8>, a: SocketAddr, b: SocketAddr) -> Result<bool, PushError> {
    buf.extend(a.port().to_le_bytes());
    buf.extend(b.port().to_le_bytes());
    match (a.ip(), b.ip()) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            buf.extend(a.octets());
            buf.extend(b.octets());
            Ok(false)
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            buf.extend(a.octets());
            buf.extend(b.octets());
            Ok(true)
        }
        _ => Err(PushError::Unencodable),
    }
}

fn take_ends(bytes: &mut Bytes<'_>, v6: bool) -> Got<(SocketAddr, SocketAddr)> {
    let (a, b) = (bytes.u16()?, bytes.u16()?);
    let addr = |bytes: &mut Bytes<'_>| -> Got<IpAddr> {
        if v6 {
            bytes.array::<16>().map(|octets| Ipv6Addr::from(octets).into())
        } else {
            bytes.array::<4>().map(|octets| Ipv4Addr::from(octets).into())
        }
    };
    let a = SocketAddr::new(addr(bytes)?, a);
    let b = SocketAddr::new(addr(bytes)?, b);
    Ok((a, b))
}

/// First byte of a tuple.
mod tuple_bit {
    pub(super) const UDP: u8 = 1;
    pub(super) const V6: u8 = 2;
}

pub(super) fn put_tuple(buf: &mut Vec<u8>, tuple: &Tuple) -> Put {
    let mut lead = match tuple.proto {
        L4Proto::Tcp => 0,
        L4Proto::Udp => tuple_bit::UDP,
    };
    if tuple.src.is_ipv6() {
        lead |= tuple_bit::V6;
    }
    buf.push(lead);
    put_ends(buf, tuple.src, tuple.dst)?;
    Ok(())
}

pub(super) fn take_tuple(bytes: &mut Bytes<'_>) -> Got<Tuple> {
    let lead = bytes.u8()?;
    if lead & !(tuple_bit::UDP | tuple_bit::V6) != 0 {
        return Err(FrameError::Bad(Field::Flags));
    }
    let (src, dst) = take_ends(bytes, lead & tuple_bit::V6 != 0)?;
    let proto = if lead & tuple_bit::UDP != 0 {
        L4Proto::Udp
    } else {
        L4Proto::Tcp
    };
    Ok(Tuple { proto, src, dst })
}

/// First byte of a session: the state in the low nibble, and these.
mod state_bit {
    pub(super) const STATE: u8 = 0x0f;
    pub(super) const UDP: u8 = 0x10;
    pub(super) const CLIENT_V6: u8 = 0x20;
    pub(super) const SERVER_V6: u8 = 0x40;
}

const _: () = assert!(ConnState::COUNT <= state_bit::STATE as usize + 1);

/// Second byte of a session.
mod session_bit {
    pub(super) const ESTABLISHED: u8 = 1;
    pub(super) const CLOSED: u8 = 2;
    pub(super) const INBOUND_ONLY: u8 = 4;
    pub(super) const DELTAS: u8 = 8;
    pub(super) const CLIENT_ISN: u8 = 0x10;
    pub(super) const SERVER_ISN: u8 = 0x20;
    pub(super) const WINDOW_SCALES: u8 = 0x40;
    pub(super) const ALL: u8 = 0x7f;
}

/// The nibble of a window scale that is not known.
const SCALE_UNKNOWN: u8 = 15;
/// The largest window scale (RFC 7323, section 2.3).
const SCALE_MAX: u8 = 14;

pub(super) fn put_session(buf: &mut Vec<u8>, session: &SessionRecord) -> Put {
    let c = &session.conn;
    let scales = session.window_scales;
    let bits = |pairs: &[(bool, u8)]| {
        let set = pairs.iter().filter(|(is, _)| *is);
        set.fold(0, |bits, (_, bit)| bits | bit)
    };
    buf.push(
        c.state as u8
            | bits(&[
                (c.proto == L4Proto::Udp, state_bit::UDP),
                (c.client.is_ipv6(), state_bit::CLIENT_V6),
                (c.server.is_ipv6(), state_bit::SERVER_V6),
            ]),
    );
    buf.push(bits(&[
        (session.was_established, session_bit::ESTABLISHED),
        (session.was_closed, session_bit::CLOSED),
        (session.inbound_only, session_bit::INBOUND_ONLY),
        (session.deltas.is_some(), session_bit::DELTAS),
        (session.isns.client.is_some(), session_bit::CLIENT_ISN),
        (session.isns.server.is_some(), session_bit::SERVER_ISN),
        (scales != WindowScales::default(), session_bit::WINDOW_SCALES),
    ]));
    buf.push(session.mode as u8);
    let remaining_ms = u32::try_from(session.remaining.as_millis()).unwrap_or(u32::MAX);
    buf.extend(remaining_ms.to_le_bytes());
    put_ends(buf, c.client, c.vip)?;
    put_ends(buf, c.server, c.local)?;
    if let Some(deltas) = session.deltas {
        buf.extend(deltas.inbound.to_le_bytes());
        buf.extend(deltas.outbound.to_le_bytes());
    }
    for isn in [session.isns.client, session.isns.server].into_iter().flatten() {
        buf.extend(isn.to_le_bytes());
    }
    if scales != WindowScales::default() {
        let nibble = |scale: Option<u8>| scale.map_or(SCALE_UNKNOWN, |scale| scale.min(SCALE_MAX));
        buf.push(nibble(scales.client) | nibble(scales.server) << 4);
    }
    Ok(())
}

pub(super) fn take_session(bytes: &mut Bytes<'_>) -> Got<SessionRecord> {
    let (lead, flags) = (bytes.u8()?, bytes.u8()?);
    let known = state_bit::STATE | state_bit::UDP | state_bit::CLIENT_V6 | state_bit::SERVER_V6;
    if lead & !known != 0 || flags & !session_bit::ALL != 0 {
        return Err(FrameError::Bad(Field::Flags));
    }
    let state = ConnState::from_u8(lead & state_bit::STATE).ok_or(FrameError::Bad(Field::State))?;
    let mode = match bytes.u8()? {
        0 => FwdMode::FullNat,
        _ => return Err(FrameError::Bad(Field::Mode)),
    };
    let remaining = Duration::from_millis(u64::from(bytes.u32()?));
    let (client, vip) = take_ends(bytes, lead & state_bit::CLIENT_V6 != 0)?;
    let (server, local) = take_ends(bytes, lead & state_bit::SERVER_V6 != 0)?;
    let has = |bit| flags & bit != 0;
    let deltas = if has(session_bit::DELTAS) {
        Some(SeqDeltas {
            inbound: bytes.u32()?,
            outbound: bytes.u32()?,
        })
    } else {
        None
    };
    let mut isn = |bit| has(bit).then(|| bytes.u32()).transpose();
    let isns = Isns {
        client: isn(session_bit::CLIENT_ISN)?,
        server: isn(session_bit::SERVER_ISN)?,
    };
    let mut window_scales = WindowScales::default();
    if has(session_bit::WINDOW_SCALES) {
        let both = bytes.u8()?;
        let scale = |nibble| (nibble != SCALE_UNKNOWN).then_some(nibble);
        window_scales = WindowScales {
            client: scale(both & 0x0f),
            server: scale(both >> 4),
        };
        if window_scales == WindowScales::default() {
            return Err(FrameError::Bad(Field::WindowScale));
        }
    }
    Ok(SessionRecord {
        conn: ConnInit {
            proto: if lead & state_bit::UDP != 0 {
                L4Proto::Udp
            } else {
                L4Proto::Tcp
            },
            client,
            vip,
            server,
            local,
            service: SERVICE_UNRESOLVED,
            server_id: SERVER_UNRESOLVED,
            state,
        },
        mode,
        remaining,
        was_established: has(session_bit::ESTABLISHED),
        was_closed: has(session_bit::CLOSED),
        inbound_only: has(session_bit::INBOUND_ONLY),
        deltas,
        isns,
        window_scales,
    })
}

/// First byte of a packed record.
mod packed_bit {
    pub(super) const EPOCH: u8 = 1;
    pub(super) const CLOSED: u8 = 2;
}

/// A record that stands behind one of epoch `before`.
pub(super) fn put_packed(buf: &mut Vec<u8>, record: &VersionedRecord, before: Option<Epoch>) -> Put {
    let same = before == Some(record.version.epoch);
    let mut lead = if same { 0 } else { packed_bit::EPOCH };
    if record.session.is_err() {
        lead |= packed_bit::CLOSED;
    }
    buf.push(lead);
    if !same {
        put_epoch(buf, record.version.epoch);
    }
    put_lsn(buf, record.version.lsn)?;
    match &record.session {
        Ok(session) => put_session(buf, session),
        Err(tuple) => put_tuple(buf, tuple),
    }
}

pub(super) fn take_packed(bytes: &mut Bytes<'_>, before: Option<Epoch>) -> Got<VersionedRecord> {
    let lead = bytes.u8()?;
    if lead & !(packed_bit::EPOCH | packed_bit::CLOSED) != 0 {
        return Err(FrameError::Bad(Field::Flags));
    }
    let epoch = if lead & packed_bit::EPOCH != 0 {
        take_epoch(bytes)?
    } else {
        before.ok_or(FrameError::Bad(Field::Epoch))?
    };
    let lsn = take_lsn(bytes)?;
    Ok(VersionedRecord {
        version: Version { epoch, lsn },
        session: if lead & packed_bit::CLOSED != 0 {
            Err(take_tuple(bytes)?)
        } else {
            Ok(take_session(bytes)?)
        },
    })
}
