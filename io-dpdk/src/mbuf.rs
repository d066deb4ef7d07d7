//! A frame in an mbuf.

use std::ffi::CStr;
use std::ptr::NonNull;
use std::slice;

use dpdk_sys::RteMbuf;
use evenkeel_core::port::{Frame, HEAD_LEN, HandoffTag, PortId, RxChecksum};
use evenkeel_core::wire::checksum;

use crate::mempool::Mempool;
use crate::rss::PacketType;

/// Flags of segments whose buffer is not their own, so that another may point to it.
const FOREIGN: u64 = dpdk_sys::INDIRECT | dpdk_sys::EXTERNAL;

/// A frame: an mbuf or a chain of them, with one owner. Dropping it returns the buffers to their pool.
///
/// Every buffer of it is unshared, the first one starts with headroom as DPDK laid it out, and its pool
/// lives until [`Eal::shutdown`](crate::Eal::shutdown), which counts the frames before it frees.
#[derive(Debug)]
pub struct Mbuf {
    raw: NonNull<RteMbuf>,
    tag: Option<HandoffTag>,
}

// An `Mbuf` is moved in bursts: pointer and tag, nothing else.
const _: () = assert!(size_of::<Mbuf>() == 24);

// SAFETY: an mbuf belongs to no thread; rte_pktmbuf_free() may be called on any, as the pools are
// multi-producer. The owner is one `Mbuf`, so no two threads touch it.
unsafe impl Send for Mbuf {}

impl Mbuf {
    /// Takes ownership of an mbuf.
    ///
    /// # Safety
    /// `raw` is the first segment of a well-formed frame that nobody else owns, every segment has one
    /// reference and lies in its own buffer, and its pool lives until `Eal::shutdown`.
    pub(crate) unsafe fn from_raw(raw: NonNull<RteMbuf>) -> Mbuf {
        Mbuf { raw, tag: None }
    }

    /// Gives ownership away: to a driver, say.
    pub(crate) fn into_raw(self) -> NonNull<RteMbuf> {
        let raw = self.raw;
        std::mem::forget(self);
        raw
    }

    /// Segments of the frame.
    pub fn segment_count(&self) -> u16 {
        self.head().nb_segs
    }

    /// The NIC's RSS hash, whatever it was computed over.
    pub fn nic_rss(&self) -> Option<u32> {
        let head = self.head();
        (head.ol_flags & dpdk_sys::RX_RSS_HASH != 0).then_some(head.rss)
    }

    /// When the driver received the frame, in the driver's own unit: net_pcap gives microseconds since
    /// the Unix epoch, NICs ticks of their clock. `None` if it did not stamp this frame.
    pub fn rx_timestamp(&self, field: RxTimestampField) -> Option<u64> {
        if self.head().ol_flags & field.flag == 0 {
            return None;
        }
        // SAFETY: `field` was registered with DPDK and lies within the mbuf (checked by `look_up`); a dynamic
        // field is written by the driver before it gives the frame away. The offset may be odd to u64.
        Some(unsafe {
            self.raw
                .as_ptr()
                .cast::<u8>()
                .add(field.offset)
                .cast::<u64>()
                .read_unaligned()
        })
    }

    /// Appends a copy of the whole frame, all segments, to `into`.
    pub fn copy_to(&self, into: &mut Vec<u8>) {
        into.reserve(self.len());
        self.for_each_segment(|segment| {
            // SAFETY: each segment has `data_len` bytes at `data_off` of its buffer, and is ours to read.
            into.extend_from_slice(unsafe {
                let start = segment.buf_addr.add(usize::from(segment.data_off));
                slice::from_raw_parts(start, usize::from(segment.data_len))
            });
        });
    }

    /// DPDK's own check of the frame's structure, for tests.
    ///
    /// # Errors
    /// What is wrong, in DPDK's words.
    pub fn check(&self) -> Result<(), String> {
        // SAFETY: the mbuf is ours; the reason is a static string.
        unsafe {
            let reason = dpdk_sys::ekd_mbuf_check(self.raw.as_ptr());
            if reason.is_null() {
                Ok(())
            } else {
                Err(CStr::from_ptr(reason).to_string_lossy().into_owned())
            }
        }
    }

    /// Grows the last segment by `len` zero bytes, if they fit.
    pub(crate) fn append_zeros(&mut self, len: usize) -> bool {
        let Ok(short) = u16::try_from(len) else {
            return false;
        };
        // SAFETY: the mbuf is ours. rte_pktmbuf_append() returns NULL or the start of `len` new bytes, which
        // lie in the buffer and are set before anyone reads them.
        unsafe {
            let start = dpdk_sys::ekd_mbuf_append(self.raw.as_ptr(), short);
            if start.is_null() {
                return false;
            }
            start.cast::<u8>().write_bytes(0, len);
        }
        true
    }

    /// Gathers the head that `data()` promises; true if it is there.
    pub(crate) fn gather_head(&mut self) -> bool {
        let head = self.head();
        if head.nb_segs == 1 || usize::from(head.data_len) >= HEAD_LEN {
            return true;
        }
        // SAFETY: the chain is ours and unshared, so that bytes may move between its buffers.
        unsafe { dpdk_sys::ekd_mbuf_pull_up(self.raw.as_ptr(), HEAD_LEN as u16) == 0 }
    }

    /// Whether the first segment has `len` bytes in front of its data.
    pub(crate) fn has_headroom(&self, len: usize) -> bool {
        usize::from(self.head().data_off) >= len
    }

    /// Whether the frame, or a buffer of it, may have another owner.
    pub(crate) fn is_shared(&self) -> bool {
        let mut shared = false;
        self.for_each_segment(|segment| {
            shared |= segment.refcnt != 1 || segment.ol_flags & FOREIGN != 0;
        });
        shared
    }

    /// A copy with buffers of its own; `None` if the pool is empty.
    pub(crate) fn copied(&self, pool: &Mempool) -> Option<Mbuf> {
        // SAFETY: the frame is ours to read, and the pool lives as long as its handle.
        let raw = NonNull::new(unsafe { dpdk_sys::ekd_mbuf_copy(self.raw.as_ptr(), pool.as_ptr()) })?;
        // SAFETY: rte_pktmbuf_copy() gives a deep copy in fresh mbufs of `pool`, now ours alone.
        Some(unsafe { Mbuf::from_raw(raw) })
    }

    /// Where the frame came from, and for which types of packets ([`PacketType::bit`]) its hash is believed. What a
    /// driver left of its way out (net_ring) means nothing on the way in.
    pub(crate) fn set_received(&mut self, port: PortId, trusted: u32) {
        let head = self.head_mut();
        head.port = port.0;
        head.hash_hi = trusted;
        head.ol_flags &= !TX_FLAGS;
    }

    /// As a driver does that reports a hash.
    #[cfg(test)]
    pub(crate) fn report_hash(&mut self, hash: u32) {
        let head = self.head_mut();
        head.rss = hash;
        head.ol_flags |= dpdk_sys::RX_RSS_HASH;
    }

    pub(crate) fn set_tag(&mut self, tag: HandoffTag) {
        self.tag = Some(tag);
    }

    /// The checksum that is still to be made of the frame, if one was asked for.
    pub(crate) fn asked_checksum(&self) -> Option<TxChecksum> {
        match self.head().ol_flags & dpdk_sys::TX_L4_MASK {
            0 => None,
            dpdk_sys::TX_UDP_CKSUM => Some(TxChecksum::Udp),
            dpdk_sys::TX_TCP_CKSUM => Some(TxChecksum::Tcp),
            // No frame of ours is of SCTP.
            _ => None,
        }
    }

    /// Makes the checksum that was asked for, over all segments, for a driver that cannot.
    pub(crate) fn finish_checksum(&mut self) {
        let Some(asked) = self.asked_checksum() else {
            return;
        };
        self.head_mut().ol_flags &= !TX_FLAGS;
        // SAFETY: the mbuf is ours, and the lengths were set when the checksum was asked for.
        let l4 = unsafe { dpdk_sys::ekd_mbuf_transport_at(self.raw.as_ptr()) } as usize;
        let mut sum = RunningSum::default();
        let mut skip = l4;
        self.for_each_segment(|segment| {
            // SAFETY: as in `copy_to`.
            let bytes = unsafe {
                let start = segment.buf_addr.add(usize::from(segment.data_off));
                slice::from_raw_parts(start, usize::from(segment.data_len))
            };
            let part = bytes.get(skip.min(bytes.len())..).unwrap_or_default();
            skip = skip.saturating_sub(bytes.len());
            sum.add(part);
        });
        let checksum = match (asked, sum.finish()) {
            // Zero would say that there is none (RFC 768).
            (TxChecksum::Udp, 0) => 0xffff,
            (_, checksum) => checksum,
        };
        let at = l4 + asked.field();
        if let Some(field) = self.data_mut().get_mut(at..at + 2) {
            field.copy_from_slice(&checksum.to_be_bytes());
        }
    }

    fn for_each_segment(&self, mut visit: impl FnMut(&RteMbuf)) {
        let mut segment = self.head();
        visit(segment);
        for _ in 1..segment.nb_segs {
            // SAFETY: a frame of n segments is a list of n valid mbufs, which are ours with the first.
            match unsafe { dpdk_sys::ekd_mbuf_next(segment).as_ref() } {
                Some(next) => segment = next,
                None => break,
            }
            visit(segment);
        }
    }

    fn head(&self) -> &RteMbuf {
        // SAFETY: `raw` points to an mbuf that we own, and the mirror's layout is asserted in shim.c. No
        // driver or other thread writes to it while we own it.
        unsafe { self.raw.as_ref() }
    }

    fn head_mut(&mut self) -> &mut RteMbuf {
        // SAFETY: as in `head`, and `self` is borrowed mutably.
        unsafe { self.raw.as_mut() }
    }
}

impl Drop for Mbuf {
    fn drop(&mut self) {
        // SAFETY: the owner frees, once; the pool is there, since `Eal::shutdown` refuses while frames are out.
        unsafe { dpdk_sys::ekd_mbuf_free(self.raw.as_ptr()) };
    }
}

impl Frame for Mbuf {
    fn data(&self) -> &[u8] {
        let head = self.head();
        // SAFETY: DPDK keeps data_off + data_len <= buf_len within the buffer at buf_addr; the buffer is this
        // segment's alone, and lives as long as we own the mbuf.
        unsafe {
            slice::from_raw_parts(
                head.buf_addr.add(usize::from(head.data_off)),
                usize::from(head.data_len),
            )
        }
    }

    fn data_mut(&mut self) -> &mut [u8] {
        let head = self.head();
        // SAFETY: as in `data`; unshared, so that writing is ours too, and `self` is borrowed mutably.
        unsafe {
            slice::from_raw_parts_mut(
                head.buf_addr.add(usize::from(head.data_off)),
                usize::from(head.data_len),
            )
        }
    }

    fn len(&self) -> usize {
        self.head().pkt_len as usize
    }

    fn push_front(&mut self, n: usize) -> Option<&mut [u8]> {
        let n = u16::try_from(n).ok()?;
        // Lengths are 16 bits wide in a segment; DPDK does not look whether they overflow.
        self.head().data_len.checked_add(n)?;
        // SAFETY: the mbuf is ours; rte_pktmbuf_prepend() refuses with NULL beyond the headroom. Bytes of the
        // headroom are initialised memory, as pools are made of zeroed pages.
        if unsafe { dpdk_sys::ekd_mbuf_prepend(self.raw.as_ptr(), n) }.is_null() {
            return None;
        }
        Some(self.data_mut())
    }

    fn pull_front(&mut self, n: usize) {
        let n = n.min(usize::from(self.head().data_len)) as u16;
        // SAFETY: the mbuf is ours; `n` is at most its data_len, so that rte_pktmbuf_adj() does not refuse.
        unsafe { dpdk_sys::ekd_mbuf_adj(self.raw.as_ptr(), n) };
        // Cannot fail: a buffer has room for headroom and head (MempoolConfig::ROOM_LEN_MIN), or it was
        // received with a longer head.
        self.gather_head();
    }

    fn truncate(&mut self, n: usize) {
        if let Ok(n) = u32::try_from(n) {
            // SAFETY: the chain is ours; segments that are cut off return to their pool and are not seen again.
            unsafe { dpdk_sys::ekd_mbuf_truncate(self.raw.as_ptr(), n) };
        }
    }

    fn ingress(&self) -> PortId {
        PortId(self.head().port)
    }

    /// The NIC's, of packets of a type whose hash was compared with the software's often enough
    /// ([`RssTrust`](crate::rss::RssTrust)); [`Mbuf::nic_rss`] has it of all.
    fn rss(&self) -> Option<u32> {
        let trusted = self.head().hash_hi;
        let hash = self.nic_rss().filter(|_| trusted != 0)?;
        let kind = PacketType::of(self.data())?;
        (trusted & kind.bit() != 0).then_some(hash)
    }

    fn rx_checksum(&self) -> RxChecksum {
        rx_checksum(self.head().ol_flags)
    }

    fn tag(&self) -> Option<HandoffTag> {
        self.tag
    }

    /// Always: where the driver cannot, the port does it before the frame leaves.
    fn can_offload_tx_checksum(&self) -> bool {
        true
    }

    fn offload_tx_checksum(&mut self, l3: usize, l4: usize) {
        let Some(flags) = tx_flags(self.data(), l3) else {
            return;
        };
        let Some(l3_len) = l4.checked_sub(l3) else { return };
        // Widths of the fields: 7 and 9 bits. The engine's headers are shorter.
        if l3 > 127 || l3_len > 511 {
            return;
        }
        // SAFETY: the mbuf is ours; the lengths fit their fields.
        unsafe { dpdk_sys::ekd_mbuf_ask_checksum(self.raw.as_ptr(), l3 as u16, l3_len as u16, flags) };
    }
}

/// What a driver is asked to do on the way out.
const TX_FLAGS: u64 = dpdk_sys::TX_L4_MASK | dpdk_sys::TX_IP_CKSUM | dpdk_sys::TX_IPV4 | dpdk_sys::TX_IPV6;

/// A transport whose checksum a driver may make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TxChecksum {
    Tcp,
    Udp,
}

impl TxChecksum {
    /// Its bit in what a port says of its driver ([`dpdk_sys::PortSetup::tx_checksum`]).
    pub(crate) fn bit(self) -> u8 {
        match self {
            TxChecksum::Tcp => 1,
            TxChecksum::Udp => 2,
        }
    }

    /// Where the checksum is in the header.
    fn field(self) -> usize {
        match self {
            TxChecksum::Tcp => 16,
            TxChecksum::Udp => 6,
        }
    }
}

/// The flags that ask for the transport checksum of a packet whose network header is at `l3`; `None` if it is
/// neither TCP nor UDP.
fn tx_flags(frame: &[u8], l3: usize) -> Option<u64> {
    let (family, proto) = match frame.get(l3)? >> 4 {
        4 => (dpdk_sys::TX_IPV4, frame.get(l3 + 9)?),
        6 => (dpdk_sys::TX_IPV6, frame.get(l3 + 6)?),
        _ => return None,
    };
    match proto {
        6 => Some(family | dpdk_sys::TX_TCP_CKSUM),
        17 => Some(family | dpdk_sys::TX_UDP_CKSUM),
        _ => None,
    }
}

/// The ones' complement sum of 16-bit words (RFC 1071) of bytes that come in parts of any length.
#[derive(Debug, Default)]
struct RunningSum {
    sum: u32,
    /// Whether the next byte is the low one of its word.
    odd: bool,
}

impl RunningSum {
    fn add(&mut self, bytes: &[u8]) {
        let part = checksum::sum(bytes);
        self.sum = if self.odd {
            checksum::combine_after_odd(self.sum, part)
        } else {
            checksum::combine(self.sum, part)
        };
        self.odd ^= bytes.len() % 2 == 1;
    }

    fn finish(&self) -> u16 {
        checksum::finish(self.sum)
    }
}

/// What flags of a received frame say of its checksums.
fn rx_checksum(flags: u64) -> RxChecksum {
    // Both bits of a field set mean "not right in the packet, but the data is" (a checksum left to offload):
    // nothing that can be relied on, hence unknown.
    let ip = flags & (dpdk_sys::RX_IP_CKSUM_BAD | dpdk_sys::RX_IP_CKSUM_GOOD);
    let l4 = flags & (dpdk_sys::RX_L4_CKSUM_BAD | dpdk_sys::RX_L4_CKSUM_GOOD);
    if ip == dpdk_sys::RX_IP_CKSUM_BAD || l4 == dpdk_sys::RX_L4_CKSUM_BAD {
        RxChecksum::Bad
    } else if ip == dpdk_sys::RX_IP_CKSUM_GOOD && l4 == dpdk_sys::RX_L4_CKSUM_GOOD {
        RxChecksum::Good
    } else {
        RxChecksum::Unknown
    }
}

/// Where in an mbuf drivers put the receive timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RxTimestampField {
    offset: usize,
    flag: u64,
}

impl RxTimestampField {
    pub(crate) fn look_up() -> Option<RxTimestampField> {
        let (mut offset, mut flag) = (0, 0);
        // SAFETY: called through `Eal`, so EAL is up; both are writable.
        if unsafe { dpdk_sys::ekd_rx_timestamp(&mut offset, &mut flag) } != 0 {
            return None;
        }
        let offset = usize::try_from(offset).ok()?;
        (offset + size_of::<u64>() <= dpdk_sys::MBUF_SIZE).then_some(RxTimestampField { offset, flag })
    }
}

#[cfg(test)]
mod tests {
    use dpdk_sys::{RX_IP_CKSUM_BAD, RX_IP_CKSUM_GOOD, RX_L4_CKSUM_BAD, RX_L4_CKSUM_GOOD};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn received_checksums_are_good_if_both_are_and_bad_if_one_is() {
        let (ip_good, ip_bad) = (RX_IP_CKSUM_GOOD, RX_IP_CKSUM_BAD);
        let (l4_good, l4_bad) = (RX_L4_CKSUM_GOOD, RX_L4_CKSUM_BAD);
        for (flags, want) in [
            (0, RxChecksum::Unknown),
            (ip_good, RxChecksum::Unknown),
            (l4_good, RxChecksum::Unknown),
            (ip_good | l4_good, RxChecksum::Good),
            (ip_bad, RxChecksum::Bad),
            (l4_bad, RxChecksum::Bad),
            (ip_bad | l4_good, RxChecksum::Bad),
            (ip_good | l4_bad, RxChecksum::Bad),
            // "None": the checksum is wrong in the packet, and the data is not.
            (ip_good | l4_good | l4_bad, RxChecksum::Unknown),
            (ip_good | ip_bad | l4_good, RxChecksum::Unknown),
        ] {
            assert_eq!(rx_checksum(flags), want, "{flags:#x}");
            // Other flags do not matter.
            assert_eq!(rx_checksum(flags | dpdk_sys::RX_RSS_HASH | 1), want, "{flags:#x}");
        }
    }

    #[test]
    fn the_checksum_asked_for_is_that_of_the_packets_protocol() {
        let frame = |version: u8, at: usize, proto| {
            let mut frame = vec![0; 60];
            frame[14] = version << 4;
            frame[14 + at] = proto;
            frame
        };
        let (tcp, udp) = (dpdk_sys::TX_TCP_CKSUM, dpdk_sys::TX_UDP_CKSUM);
        let (v4, v6) = (dpdk_sys::TX_IPV4, dpdk_sys::TX_IPV6);
        assert_eq!(tx_flags(&frame(4, 9, 6), 14), Some(v4 | tcp));
        assert_eq!(tx_flags(&frame(4, 9, 17), 14), Some(v4 | udp));
        assert_eq!(tx_flags(&frame(6, 6, 6), 14), Some(v6 | tcp));
        assert_eq!(tx_flags(&frame(6, 6, 17), 14), Some(v6 | udp));
        assert_eq!(tx_flags(&frame(6, 6, 58), 14), None);
        assert_eq!(tx_flags(&frame(5, 6, 17), 14), None);
        assert_eq!(tx_flags(&[0x60], 0), None);
    }

    proptest! {
        /// However the segments are cut.
        #[test]
        fn a_sum_of_parts_is_that_of_the_whole(bytes in proptest::collection::vec(any::<u8>(), 0..400), cuts in proptest::collection::vec(0usize..400, 0..6)) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let mut sum = RunningSum::default();
            cuts.windows(2).for_each(|two| sum.add(&bytes[two[0]..two[1]]));
            prop_assert_eq!(sum.finish(), checksum::finish(checksum::sum(&bytes)));
        }
    }
}
