//! A frame in an mbuf.

use std::ffi::CStr;
use std::ptr::NonNull;
use std::slice;

use dpdk_sys::RteMbuf;
use evenkeel_core::port::{Frame, HEAD_LEN, HandoffTag, PortId, RxChecksum};

use crate::mempool::Mempool;

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

    pub(crate) fn set_ingress(&mut self, port: PortId) {
        self.head_mut().port = port.0;
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

    /// Always `None`: with one queue there is nothing to steer, and a NIC's hash is to be trusted only
    /// after it was compared with the software's ([`Mbuf::nic_rss`] has it).
    fn rss(&self) -> Option<u32> {
        None
    }

    fn rx_checksum(&self) -> RxChecksum {
        // Both bits of a field set mean "not right in the packet, but the data is" (a checksum left to
        // offload): nothing that can be relied on, hence unknown.
        let flags = self.head().ol_flags;
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

    fn tag(&self) -> Option<HandoffTag> {
        self.tag
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
