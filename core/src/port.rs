//! The boundary to packet I/O: what a driver gives ([`Frame`]) and what it does ([`Port`]).

use alloc::vec::Vec;
use core::fmt;

/// Index of a packet interface in the config (`[[port]]` in order).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortId(pub u16);

impl fmt::Display for PortId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "port {}", self.0)
    }
}

/// Index of a worker in its node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(pub u8);

/// Headroom in front of the data of every received frame, in bytes: what [`Frame::push_front`] can
/// grow at least.
pub const HEADROOM: usize = 128;

/// Bytes that [`Frame::data`] shows at least, unless the frame is shorter.
pub const HEAD_LEN: usize = 192;

/// Frames of a burst at most.
pub const BURST: usize = 32;

/// What the driver knows of a received frame's checksums (IPv4 header, TCP, UDP, ICMP).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RxChecksum {
    /// Not looked at: the engine checks the IPv4 header itself and leaves the transport checksum to
    /// the receiver, as incremental updates keep it as right or wrong as it was.
    #[default]
    Unknown,
    /// Verified right.
    Good,
    /// Verified wrong: the engine drops the frame and counts it.
    Bad,
}

/// Why a frame is handed to another worker, and how far it got. 16 bytes; it travels with the frame
/// and is read back by [`Frame::tag`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct HandoffTag {
    /// Why.
    pub reason: HandoffReason,
    /// Where the other worker goes on; 0 is from the beginning.
    pub stage: u8,
    /// Hand-offs so far, this one included; at most [`HandoffTag::HOPS_MAX`].
    pub hops: u8,
    /// Not used.
    pub reserved: u8,
    /// RSS bucket of the packet's canonical tuple.
    pub bucket: u16,
    /// Not used.
    pub reserved2: [u16; 5],
}

impl HandoffTag {
    /// Hand-offs of one frame at most; one more is a counted drop.
    pub const HOPS_MAX: u8 = 3;
}

const _: () = assert!(size_of::<HandoffTag>() == 16);

/// Why a frame was handed to another worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum HandoffReason {
    /// The canonical bucket belongs to the other worker: the NIC steered by something else.
    Bucket,
}

/// A frame that a driver owns. Dropping it returns its buffer.
pub trait Frame: Send {
    /// The contiguous head: at least [`HEAD_LEN`] bytes, or all of the frame.
    fn data(&self) -> &[u8];
    /// As [`Frame::data`].
    fn data_mut(&mut self) -> &mut [u8];
    /// Bytes of the whole frame, segments behind the head included.
    fn len(&self) -> usize;
    /// Whether the frame has no byte.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Grows the frame by `n` bytes at the front and returns the new head; `None` if the headroom is
    /// used up. The new bytes are unspecified.
    fn push_front(&mut self, n: usize) -> Option<&mut [u8]>;
    /// Cuts `n` bytes off the front; at most the contiguous head.
    fn pull_front(&mut self, n: usize);
    /// Cuts the frame to `n` bytes in all; no effect if it is not longer.
    fn truncate(&mut self, n: usize);
    /// Interface on which it was received.
    fn ingress(&self) -> PortId;
    /// Toeplitz hash of the canonical tuple, if the driver trusts its NIC for this packet type.
    fn rss(&self) -> Option<u32>;
    /// What is known of its checksums.
    fn rx_checksum(&self) -> RxChecksum;
    /// The tag of the last hand-off, if another worker handed it over.
    fn tag(&self) -> Option<HandoffTag>;
    /// Whether the driver can compute a transport checksum when it sends the frame.
    fn can_offload_tx_checksum(&self) -> bool {
        false
    }
    /// Asks for the transport checksum to be computed when the frame is sent, if the driver can: over all that
    /// follows `l4`, whose checksum field holds the folded sum of the pseudo-header. `l3` and `l4` are the
    /// offsets of the network and the transport header.
    fn offload_tx_checksum(&mut self, l3: usize, l4: usize) {
        let _ = (l3, l4);
    }
}

/// Packet I/O of one worker.
pub trait Port {
    /// The driver's frame.
    type Frame: Frame;
    /// Appends received frames to `into`, which has room for [`BURST`] in all; returns how many.
    fn rx_burst(&mut self, into: &mut Vec<Self::Frame>) -> usize;
    /// A fresh frame of `len` bytes for something that the engine originates; `None` if the pool is
    /// empty (the engine keeps what it wanted to send and tries again).
    fn alloc(&mut self, len: usize) -> Option<Self::Frame>;
    /// Sends `frame` out of `port`. A full ring is the driver's counted drop.
    fn tx(&mut self, port: PortId, frame: Self::Frame);
    /// Gives `frame` to the kernel.
    fn punt(&mut self, frame: Self::Frame);
    /// Gives `frame` to another worker of this node. A full ring is the driver's counted drop.
    fn handoff(&mut self, to: WorkerId, frame: Self::Frame, tag: HandoffTag);
    /// Takes back a frame that the engine dropped or answered. Dropping it is enough; a tool may look
    /// at it first.
    fn done(&mut self, frame: Self::Frame, verdict: crate::worker::Verdict) {
        let _ = verdict;
        drop(frame);
    }
    /// Pushes out what `tx` collected.
    fn flush(&mut self);
}

/// A frame in a `Vec`, for captures, simulation and tests.
#[derive(Clone, Debug, Default)]
pub struct HeapFrame {
    buf: Vec<u8>,
    head: usize,
    /// See [`Frame::ingress`].
    pub ingress: PortId,
    /// See [`Frame::rss`].
    pub rss: Option<u32>,
    /// See [`Frame::rx_checksum`].
    pub rx_checksum: RxChecksum,
    /// See [`Frame::tag`].
    pub tag: Option<HandoffTag>,
    /// A number of the owner's choice that stays with the frame, such as a packet's place in its capture.
    pub cookie: u64,
}

impl HeapFrame {
    /// A frame with a copy of `data`, and [`HEADROOM`] in front.
    pub fn new(ingress: PortId, data: &[u8]) -> Self {
        let mut buf = Vec::with_capacity(HEADROOM + data.len());
        buf.resize(HEADROOM, 0);
        buf.extend_from_slice(data);
        HeapFrame {
            buf,
            head: HEADROOM,
            ingress,
            ..HeapFrame::default()
        }
    }

    /// A frame of `len` zero bytes, and [`HEADROOM`] in front.
    pub fn zeroed(ingress: PortId, len: usize) -> Self {
        HeapFrame {
            buf: alloc::vec![0; HEADROOM + len],
            head: HEADROOM,
            ingress,
            ..HeapFrame::default()
        }
    }
}

impl Frame for HeapFrame {
    fn data(&self) -> &[u8] {
        &self.buf[self.head..]
    }
    fn data_mut(&mut self) -> &mut [u8] {
        &mut self.buf[self.head..]
    }
    fn len(&self) -> usize {
        self.buf.len() - self.head
    }
    fn push_front(&mut self, n: usize) -> Option<&mut [u8]> {
        self.head = self.head.checked_sub(n)?;
        Some(&mut self.buf[self.head..])
    }
    fn pull_front(&mut self, n: usize) {
        self.head += n.min(self.len());
    }
    fn truncate(&mut self, n: usize) {
        self.buf.truncate(self.head + n.min(self.len()));
    }
    fn ingress(&self) -> PortId {
        self.ingress
    }
    fn rss(&self) -> Option<u32> {
        self.rss
    }
    fn rx_checksum(&self) -> RxChecksum {
        self.rx_checksum
    }
    fn tag(&self) -> Option<HandoffTag> {
        self.tag
    }
}
