//! Declarations of `shim.c`, and the structs that both sides share.

use core::ffi::{c_char, c_int};
use core::marker::{PhantomData, PhantomPinned};
use core::mem::offset_of;

/// A mempool of mbufs; only ever behind a pointer.
#[repr(C)]
pub struct RteMempool {
    _opaque: [u8; 0],
    _not_send_nor_sync: PhantomData<(*mut u8, PhantomPinned)>,
}

/// The first cache line of `struct rte_mbuf`, in host byte order. The second line is not mirrored: its
/// layout differs between builds. Only ever behind a pointer.
#[repr(C)]
pub struct RteMbuf {
    /// Start of the segment's buffer.
    pub buf_addr: *mut u8,
    /// IO address, or something else: not for use.
    _buf_iova: u64,
    /// Bytes from `buf_addr` to the data.
    pub data_off: u16,
    /// Owners; only DPDK changes it.
    pub refcnt: u16,
    /// Segments of the frame, valid in the first.
    pub nb_segs: u16,
    /// Port of ingress.
    pub port: u16,
    /// `RTE_MBUF_F_*`.
    pub ol_flags: u64,
    /// `RTE_PTYPE_*`, 0 is unknown.
    pub packet_type: u32,
    /// Bytes of the whole frame, valid in the first segment.
    pub pkt_len: u32,
    /// Bytes in this segment.
    pub data_len: u16,
    /// VLAN tag that the NIC stripped, if a flag says so.
    pub vlan_tci: u16,
    /// RSS hash, if [`RX_RSS_HASH`] is set.
    pub rss: u32,
    _hash_hi: u32,
    /// Outer VLAN tag that the NIC stripped, if a flag says so.
    pub vlan_tci_outer: u16,
    /// Bytes of the buffer, headroom included.
    pub buf_len: u16,
    /// The pool to which the segment returns.
    pub pool: *mut RteMempool,
}

// The same numbers stand in shim.c, where they are held against DPDK's headers.
const _: () = {
    assert!(offset_of!(RteMbuf, buf_addr) == 0);
    assert!(offset_of!(RteMbuf, data_off) == 16);
    assert!(offset_of!(RteMbuf, refcnt) == 18);
    assert!(offset_of!(RteMbuf, nb_segs) == 20);
    assert!(offset_of!(RteMbuf, port) == 22);
    assert!(offset_of!(RteMbuf, ol_flags) == 24);
    assert!(offset_of!(RteMbuf, packet_type) == 32);
    assert!(offset_of!(RteMbuf, pkt_len) == 36);
    assert!(offset_of!(RteMbuf, data_len) == 40);
    assert!(offset_of!(RteMbuf, vlan_tci) == 42);
    assert!(offset_of!(RteMbuf, rss) == 44);
    assert!(offset_of!(RteMbuf, vlan_tci_outer) == 52);
    assert!(offset_of!(RteMbuf, buf_len) == 54);
    assert!(offset_of!(RteMbuf, pool) == 56);
    assert!(size_of::<RteMbuf>() == 64);
};

/// Bytes of a `struct rte_mbuf` at least: within them a dynamic field can be read.
pub const MBUF_SIZE: usize = 128;
/// `RTE_MBUF_F_RX_RSS_HASH`
pub const RX_RSS_HASH: u64 = 1 << 1;
/// `RTE_MBUF_F_RX_L4_CKSUM_BAD`
pub const RX_L4_CKSUM_BAD: u64 = 1 << 3;
/// `RTE_MBUF_F_RX_IP_CKSUM_BAD`
pub const RX_IP_CKSUM_BAD: u64 = 1 << 4;
/// `RTE_MBUF_F_RX_IP_CKSUM_GOOD`
pub const RX_IP_CKSUM_GOOD: u64 = 1 << 7;
/// `RTE_MBUF_F_RX_L4_CKSUM_GOOD`
pub const RX_L4_CKSUM_GOOD: u64 = 1 << 8;
/// `RTE_MBUF_F_EXTERNAL`
pub const EXTERNAL: u64 = 1 << 61;
/// `RTE_MBUF_F_INDIRECT`
pub const INDIRECT: u64 = 1 << 62;
/// `RTE_ETH_NAME_MAX_LEN`: bytes of a port's name, its zero included.
pub const PORT_NAME_SIZE: usize = 64;

/// What was asked of a port, and what it gave.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct PortInfo {
    /// Receive descriptors: wanted, then granted.
    pub rx_desc: u16,
    /// Transmit descriptors: wanted, then granted.
    pub tx_desc: u16,
    /// MTU in bytes.
    pub mtu: u16,
    /// MAC address.
    pub mac: [u8; 6],
    /// 1 if the driver takes chained frames.
    pub tx_multi_seg: u8,
    /// Name of the driver, ended by a zero.
    pub driver: [u8; 31],
}

/// State of a link.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Link {
    /// Speed in Mbit/s, `u32::MAX` if unknown.
    pub speed_mbps: u32,
    /// 1 if the link is up.
    pub up: u8,
    /// 1 if full duplex.
    pub full_duplex: u8,
    _reserved: [u8; 2],
}

/// Counters that the driver keeps, since the port started.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Frames received.
    pub rx_packets: u64,
    /// Frames sent.
    pub tx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Frames lost because nobody fetched them.
    pub rx_missed: u64,
    /// Frames lost as broken.
    pub rx_errors: u64,
    /// Frames that could not be sent.
    pub tx_errors: u64,
    /// Frames lost because the mempool was empty.
    pub rx_no_mbuf: u64,
}

const _: () = {
    assert!(size_of::<PortInfo>() == 44);
    assert!(size_of::<Link>() == 8);
    assert!(size_of::<Stats>() == 64);
};

/// Declares the shim, or, in a stub, functions of the same types: without `ekd_eal_init` there is nothing
/// that the others could be called with, so that they only have to exist.
macro_rules! shim {
    ($($(#[$doc:meta])* fn $name:ident($($arg:ident: $type:ty),*) $(-> $ret:ty)? = $stub:expr;)*) => {
        #[cfg(not(dpdk_stub))]
        unsafe extern "C" {
            $($(#[$doc])* pub fn $name($($arg: $type),*) $(-> $ret)?;)*
        }
        $(
            #[cfg(dpdk_stub)]
            #[allow(clippy::missing_safety_doc, reason = "a stub does nothing")]
            $(#[$doc])*
            pub unsafe fn $name($($arg: $type),*) $(-> $ret)? {
                $(let _ = $arg;)*
                $stub
            }
        )*
    };
}

/// `ENOSYS` of Linux, negated.
#[cfg(dpdk_stub)]
const NO: c_int = -38;

shim! {
    /// Starts EAL with a C argument vector; 0 or a negative errno. Once per process.
    fn ekd_eal_init(argc: c_int, argv: *mut *mut c_char) -> c_int = NO;
    /// Ends EAL: its memory goes, and with it every pool and mbuf.
    fn ekd_eal_cleanup() -> c_int = NO;
    /// Text of an errno, of either sign; valid until the thread's next call.
    fn ekd_strerror(err: c_int) -> *const c_char =
        c"libdpdk was not found when this was built (Debian: apt install libdpdk-dev)".as_ptr();
    /// DPDK's name and release, static.
    fn ekd_version() -> *const c_char = c"DPDK (stub)".as_ptr();
    /// Gives the calling thread an lcore id, and so a mempool cache; 0 or a negative errno.
    fn ekd_thread_register() -> c_int = NO;
    /// Takes the lcore id of the calling thread back.
    fn ekd_thread_unregister() = ();
    /// The calling thread's lcore id, `u32::MAX` if it has none.
    fn ekd_lcore_id() -> u32 = u32::MAX;

    /// Makes a pool of `count` mbufs with `data_room` bytes, headroom included; null and `err` negative.
    fn ekd_pool_create(
        name: *const c_char, count: u32, cache: u32, data_room: u16, err: *mut c_int
    ) -> *mut RteMempool = core::ptr::null_mut();
    /// Frees a pool, all of whose mbufs are home.
    fn ekd_pool_free(pool: *mut RteMempool) = ();
    /// Mbufs that are home, those in caches included.
    fn ekd_pool_avail(pool: *const RteMempool) -> u32 = 0;

    /// Finds a port by its device's name; 0 or a negative errno.
    fn ekd_port_by_name(name: *const c_char, port: *mut u16) -> c_int = NO;
    /// The first port at or after `from`; `name` has [`PORT_NAME_SIZE`] bytes. 0 or a negative errno.
    fn ekd_port_next(from: u16, port: *mut u16, name: *mut c_char) -> c_int = NO;
    /// Sets up a stopped port with one queue each way; 0 or a negative errno.
    fn ekd_port_configure(port: u16, pool: *mut RteMempool, io: *mut PortInfo) -> c_int = NO;
    /// Starts a configured port.
    fn ekd_port_start(port: u16) -> c_int = NO;
    /// Stops a port.
    fn ekd_port_stop(port: u16) -> c_int = NO;
    /// Closes a stopped port for good: its number and name are gone.
    fn ekd_port_close(port: u16) -> c_int = NO;
    /// Link state, without waiting for it.
    fn ekd_port_link(port: u16, out: *mut Link) -> c_int = NO;
    /// The driver's counters.
    fn ekd_port_stats(port: u16, out: *mut Stats) -> c_int = NO;
    /// Receives up to `count` frames from queue 0; they belong to the caller.
    fn ekd_rx_burst(port: u16, frames: *mut *mut RteMbuf, count: u16) -> u16 = 0;
    /// Sends frames on queue 0; the first so many now belong to the driver, the others stay the caller's.
    fn ekd_tx_burst(port: u16, frames: *mut *mut RteMbuf, count: u16) -> u16 = 0;

    /// An empty mbuf, or null.
    fn ekd_mbuf_alloc(pool: *mut RteMempool) -> *mut RteMbuf = core::ptr::null_mut();
    /// Frees a frame, all segments.
    fn ekd_mbuf_free(m: *mut RteMbuf) = ();
    /// Frees frames, all segments.
    fn ekd_mbuf_free_bulk(frames: *mut *mut RteMbuf, count: u32) = ();
    /// A deep, unshared copy with full headroom, or null.
    fn ekd_mbuf_copy(m: *const RteMbuf, pool: *mut RteMempool) -> *mut RteMbuf = core::ptr::null_mut();
    /// The next segment, or null.
    fn ekd_mbuf_next(m: *const RteMbuf) -> *mut RteMbuf = core::ptr::null_mut();
    /// Grows the frame at the front; the new start, or null if the headroom is too small.
    fn ekd_mbuf_prepend(m: *mut RteMbuf, len: u16) -> *mut c_char = core::ptr::null_mut();
    /// Cuts off the front of the first segment; the new start, or null if that is shorter.
    fn ekd_mbuf_adj(m: *mut RteMbuf, len: u16) -> *mut c_char = core::ptr::null_mut();
    /// Grows the last segment; the start of the new bytes, or null if its tailroom is too small.
    fn ekd_mbuf_append(m: *mut RteMbuf, len: u16) -> *mut c_char = core::ptr::null_mut();
    /// Cuts a chain to `len` bytes.
    fn ekd_mbuf_truncate(m: *mut RteMbuf, len: u32) = ();
    /// Gathers `want` bytes, or all, in the first segment; 0 or `-ENOSPC`.
    fn ekd_mbuf_pull_up(m: *mut RteMbuf, want: u16) -> c_int = NO;
    /// What is wrong with a frame, static, or null.
    fn ekd_mbuf_check(m: *const RteMbuf) -> *const c_char = core::ptr::null();
    /// Offset and flag of the receive timestamp, once a driver has registered them; 0 or a negative errno.
    fn ekd_rx_timestamp(offset: *mut i32, flag: *mut u64) -> c_int = NO;
}
