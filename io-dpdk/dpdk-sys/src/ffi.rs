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
    /// Second half of the hash field, which drivers leave alone unless they match flows: io-dpdk keeps there
    /// for which types of packets the hash is trusted.
    pub hash_hi: u32,
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
    assert!(offset_of!(RteMbuf, hash_hi) == 48);
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
/// `RTE_MBUF_F_TX_TCP_CKSUM`
pub const TX_TCP_CKSUM: u64 = 1 << 52;
/// `RTE_MBUF_F_TX_UDP_CKSUM`
pub const TX_UDP_CKSUM: u64 = 3 << 52;
/// `RTE_MBUF_F_TX_L4_MASK`
pub const TX_L4_MASK: u64 = 3 << 52;
/// `RTE_MBUF_F_TX_IP_CKSUM`
pub const TX_IP_CKSUM: u64 = 1 << 54;
/// `RTE_MBUF_F_TX_IPV4`
pub const TX_IPV4: u64 = 1 << 55;
/// `RTE_MBUF_F_TX_IPV6`
pub const TX_IPV6: u64 = 1 << 56;
/// `RTE_MBUF_F_EXTERNAL`
pub const EXTERNAL: u64 = 1 << 61;
/// `RTE_MBUF_F_INDIRECT`
pub const INDIRECT: u64 = 1 << 62;
/// `RTE_ETH_NAME_MAX_LEN`: bytes of a port's name, its zero included.
pub const PORT_NAME_SIZE: usize = 64;

/// What a port can be given.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct PortCaps {
    /// NUMA socket, -1: any.
    pub socket: i32,
    /// Receive queues at most.
    pub rx_queues: u16,
    /// Transmit queues at most.
    pub tx_queues: u16,
    /// Entries of the table that RSS chooses queues by; 0: no RSS over four-tuples that can be configured.
    pub reta_size: u16,
    /// Bytes of the RSS key, 0: the driver does not say.
    pub key_len: u8,
    /// Name of the driver, ended by a zero.
    pub driver: [u8; 33],
}

impl Default for PortCaps {
    fn default() -> Self {
        PortCaps {
            socket: -1,
            rx_queues: 0,
            tx_queues: 0,
            reta_size: 0,
            key_len: 0,
            driver: [0; 33],
        }
    }
}

/// What was asked of a port, and what it gave.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct PortSetup {
    /// RSS key, `key_len` bytes; null: no RSS.
    pub key: *const u8,
    /// Receive queues.
    pub rx_queues: u16,
    /// Transmit queues.
    pub tx_queues: u16,
    /// Receive descriptors: wanted, then granted.
    pub rx_desc: u16,
    /// Transmit descriptors: wanted, then granted.
    pub tx_desc: u16,
    /// MTU in bytes: wanted, 0 is as it is; then what is in force.
    pub mtu: u16,
    /// Bytes of the key.
    pub key_len: u8,
    /// MAC address; given.
    pub mac: [u8; 6],
    /// 1 if the driver takes chained frames; given.
    pub tx_multi_seg: u8,
    /// 1: the driver fills in checksums of TCP; 2: of UDP; given.
    pub tx_checksum: u8,
    /// 1 if the driver reports RSS hashes; given.
    pub rx_hash: u8,
}

impl Default for PortSetup {
    fn default() -> Self {
        PortSetup {
            key: core::ptr::null(),
            rx_queues: 1,
            tx_queues: 1,
            rx_desc: 0,
            tx_desc: 0,
            mtu: 0,
            key_len: 0,
            mac: [0; 6],
            tx_multi_seg: 0,
            tx_checksum: 0,
            rx_hash: 0,
        }
    }
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
    assert!(size_of::<PortCaps>() == 44);
    assert!(size_of::<PortSetup>() == 32);
    assert!(offset_of!(PortSetup, rx_queues) == 8);
    assert!(offset_of!(PortSetup, mac) == 19);
    assert!(offset_of!(PortSetup, rx_hash) == 27);
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
    /// Keeps what DPDK logs, 16 KiB at most, instead of writing it to stderr; 0 or a negative errno. Once, first.
    fn ekd_log_capture() -> c_int = 0;
    /// Moves what was logged into `into`, `room` bytes at most; how many.
    fn ekd_log_take(into: *mut c_char, room: u32) -> u32 = 0;

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

    /// Makes a pool of `count` mbufs with `data_room` bytes, headroom included, in the memory of a NUMA socket
    /// (-1: any); null and `err` negative.
    fn ekd_pool_create(
        name: *const c_char, count: u32, cache: u32, data_room: u16, socket: c_int, err: *mut c_int
    ) -> *mut RteMempool = core::ptr::null_mut();
    /// Frees a pool, all of whose mbufs are home.
    fn ekd_pool_free(pool: *mut RteMempool) = ();
    /// Mbufs that are home, those in caches included.
    fn ekd_pool_avail(pool: *const RteMempool) -> u32 = 0;

    /// Finds a port by its device's name; 0 or a negative errno.
    fn ekd_port_by_name(name: *const c_char, port: *mut u16) -> c_int = NO;
    /// The first port at or after `from`; `name` has [`PORT_NAME_SIZE`] bytes. 0 or a negative errno.
    fn ekd_port_next(from: u16, port: *mut u16, name: *mut c_char) -> c_int = NO;
    /// What a port can be given; 0 or a negative errno.
    fn ekd_port_caps(port: u16, out: *mut PortCaps) -> c_int = NO;
    /// Sets up a stopped port; 0 or a negative errno.
    fn ekd_port_configure(port: u16, pool: *mut RteMempool, io: *mut PortSetup) -> c_int = NO;
    /// Asks a started port for frames to whatever destination; 0 or a negative errno.
    fn ekd_port_promiscuous(port: u16) -> c_int = NO;
    /// Asks a started port for frames to one more address, of 6 bytes; 0 or a negative errno.
    fn ekd_port_mac_add(port: u16, mac: *const u8) -> c_int = NO;
    /// Takes back what was asked of a port by `ekd_port_promiscuous`.
    fn ekd_port_not_promiscuous(port: u16) = ();
    /// Asks a started port for all multicast frames.
    fn ekd_port_allmulticast(port: u16) = ();
    /// Fills a started port's table of `count` entries with queues; 0 or a negative errno.
    fn ekd_port_set_reta(port: u16, queues: *const u16, count: u16) -> c_int = NO;
    /// Reads the table back; 0 or a negative errno.
    fn ekd_port_reta(port: u16, queues: *mut u16, count: u16) -> c_int = NO;
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
    /// Receives up to `count` frames from a queue; they belong to the caller.
    fn ekd_rx_burst(port: u16, queue: u16, frames: *mut *mut RteMbuf, count: u16) -> u16 = 0;
    /// Sends frames on a queue; the first so many now belong to the driver, the others stay the caller's.
    fn ekd_tx_burst(port: u16, queue: u16, frames: *mut *mut RteMbuf, count: u16) -> u16 = 0;
    /// Makes frames ready whose checksums the driver is to fill in; the first so many can be sent.
    fn ekd_tx_prepare(port: u16, queue: u16, frames: *mut *mut RteMbuf, count: u16) -> u16 = 0;

    /// An empty mbuf, or null.
    fn ekd_mbuf_alloc(pool: *mut RteMempool) -> *mut RteMbuf = core::ptr::null_mut();
    /// Frees a frame, all segments.
    fn ekd_mbuf_free(m: *mut RteMbuf) = ();
    /// Frees frames, all segments.
    fn ekd_mbuf_free_bulk(frames: *mut *mut RteMbuf, count: u32) = ();
    /// A deep, unshared copy with full headroom, or null.
    fn ekd_mbuf_copy(m: *const RteMbuf, pool: *mut RteMempool) -> *mut RteMbuf = core::ptr::null_mut();
    /// A frame with a copy of `len` bytes, in as many segments as they need, or null.
    fn ekd_mbuf_from(pool: *mut RteMempool, bytes: *const c_char, len: u32) -> *mut RteMbuf = core::ptr::null_mut();
    /// Asks for a transport checksum by flags; `l2` (at most 127) and `l3` (511) are the lengths of headers.
    fn ekd_mbuf_ask_checksum(m: *mut RteMbuf, l2: u16, l3: u16, flags: u64) = ();
    /// Where the transport header begins whose checksum was asked for.
    fn ekd_mbuf_transport_at(m: *const RteMbuf) -> u32 = 0;
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

    /// Makes a kernel interface (TAP) and sets it up; its file descriptor, or a negative errno.
    fn ekd_tap_open(name: *const c_char, mac: *const u8, mtu: u16) -> c_int = NO;
    /// Gives a kernel interface an address of 4 or 16 bytes; 0 or a negative errno.
    fn ekd_address_add(name: *const c_char, address: *const u8, len: u8, prefix: u8) -> c_int = NO;
    /// Index of a kernel interface, 0 if there is none of this name.
    fn ekd_interface_index(name: *const c_char) -> u32 = 0;
    /// Waits until one of at most 32 file descriptors can be read; which, by bits.
    fn ekd_wait_readable(fds: *const c_int, count: u32, timeout_ms: c_int) -> u32 = 0;
}
