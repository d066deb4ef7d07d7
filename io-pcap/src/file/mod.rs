//! Capture files: a streaming reader of pcap and pcapng, and writers of both.
//!
//! One packet goes through these files in this order: [`CaptureReader`] (`reader.rs`) finds the format by
//! its magic number and reads records through `source.rs` (gzip, byte offsets) with `pcap.rs` or
//! `pcapng.rs`; [`Framer`] (`linktype.rs`) makes an Ethernet frame of whatever link layer was captured;
//! [`CaptureWriter`] or [`PcapWriter`] (`writer.rs`) writes what came out.
//!
//! A capture is input from outside. Memory stays below the bounds stated here whatever the file says, and
//! every way in which a file can be wrong is a [`CaptureError`], never a panic.
//!
//! Formats: draft-ietf-opsawg-pcap and draft-ietf-opsawg-pcapng.

mod error;
mod linktype;
mod pcap;
mod pcapng;
mod reader;
mod source;
mod writer;

pub use error::CaptureError;
pub use linktype::{
    FrameError, FrameStats, Framed, Framer, LinkType, SYNTHETIC_DST_MAC, SYNTHETIC_SRC_MAC, append_ethernet,
};
pub use reader::{CaptureReader, FileFormat};
pub use writer::{
    COMMENT_LEN_MAX, CaptureWriter, NAME_COUNT_MAX, NAME_LEN_MAX, OutPacket, PcapWriter, WriteError,
};

/// The most captured bytes of one packet, in bytes: 256 KiB, libpcap's own limit. A record that claims more
/// is corrupt.
pub const PACKET_LEN_MAX: u32 = 256 * 1024;

/// The longest pcapng block, in bytes. Blocks that are not packets are skipped without being buffered, so
/// this bounds nonsense lengths and not memory.
pub const BLOCK_LEN_MAX: u32 = 16 * 1024 * 1024;

/// The most interfaces that one section of a pcapng file may describe.
pub const INTERFACE_COUNT_MAX: usize = 1024;

/// One packet as the capture holds it, lent by [`CaptureReader::next_packet`] until the next call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CapturedPacket<'a> {
    /// When it was captured, in nanoseconds since the Unix epoch. A pcapng Simple Packet Block has no time:
    /// it gets that of the packet before it, or 0. A time outside of `u64` is clamped into it.
    pub time_ns: u64,
    /// Which interface captured it: its number within the pcapng section; always 0 in a classic pcap file.
    pub interface: u32,
    /// What the first header in `data` is.
    pub link: LinkType,
    /// The captured bytes, at most [`PACKET_LEN_MAX`].
    pub data: &'a [u8],
    /// How many bytes the packet had on the wire. More than `data.len()` if the capture had a snap length;
    /// some writers give nonsense (less) here, which is passed on.
    pub orig_len: u32,
    /// The first comment of the packet (pcapng). Invalid UTF-8 is replaced by U+FFFD.
    pub comment: Option<&'a str>,
    /// Which way it crossed the capturing interface, if the file says so.
    pub direction: PacketDirection,
}

impl CapturedPacket<'_> {
    /// Whether the capture holds only the beginning of the packet.
    pub fn snapped(&self) -> bool {
        u64::from(self.orig_len) > self.data.len() as u64
    }
}

/// Which way a packet crossed the interface that captured it. (Not to be mixed up with the direction of a
/// connection: pcapng's words for these, inbound and outbound, mean something else here.)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PacketDirection {
    /// The capture does not say.
    #[default]
    Unknown,
    /// The interface received it.
    Received,
    /// The interface sent it.
    Sent,
}

/// The byte order that a file announces by its magic number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Endian {
    Little,
    Big,
}

impl Endian {
    fn u16(self, bytes: [u8; 2]) -> u16 {
        match self {
            Endian::Little => u16::from_le_bytes(bytes),
            Endian::Big => u16::from_be_bytes(bytes),
        }
    }

    fn u32(self, bytes: [u8; 4]) -> u32 {
        match self {
            Endian::Little => u32::from_le_bytes(bytes),
            Endian::Big => u32::from_be_bytes(bytes),
        }
    }

    fn i64(self, bytes: [u8; 8]) -> i64 {
        match self {
            Endian::Little => i64::from_le_bytes(bytes),
            Endian::Big => i64::from_be_bytes(bytes),
        }
    }
}

/// The `N` bytes at `at` of a fixed-size header. Positions are ours, from the format's layout, never from
/// the file.
fn field<const N: usize, const LEN: usize>(header: &[u8; LEN], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&header[at..at + N]);
    out
}

/// How a record's time is not what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OddTime {
    /// Its part below a second is a second or more. It counts for what it is.
    LongFraction,
    /// It is outside of what a `u64` of nanoseconds holds, and was clamped into it.
    Clamped,
}

/// What a format reader knows of a packet beside its bytes.
#[derive(Clone, Copy, Debug)]
struct PacketMeta {
    time_ns: u64,
    interface: u32,
    link: LinkType,
    orig_len: u32,
    direction: PacketDirection,
    /// What is odd about the time, if anything.
    odd_time: Option<OddTime>,
    /// Whether the reader's comment buffer holds this packet's comment.
    has_comment: bool,
}
