//! A frame as cheap as a driver's: head, length and bytes in one place.

use evenkeel_core::port::{Frame, HEADROOM, HandoffTag, PortId, RxChecksum};

/// Bytes of data that a frame holds at most.
pub const FRAME_LEN_MAX: usize = 192;
/// Where the data of a fresh frame begins.
pub const DATA_AT: usize = HEADROOM;
const BUF_LEN: usize = HEADROOM + FRAME_LEN_MAX;

/// See the module.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub struct BenchFrame {
    buf: [u8; BUF_LEN],
    head: u16,
    end: u16,
}

impl Default for BenchFrame {
    fn default() -> Self {
        BenchFrame {
            buf: [0; BUF_LEN],
            head: DATA_AT as u16,
            end: DATA_AT as u16,
        }
    }
}

impl BenchFrame {
    /// A burst of empty frames.
    pub fn burst() -> Box<[BenchFrame; 32]> {
        Box::new(std::array::from_fn(|_| BenchFrame::default()))
    }

    /// All headroom is there again; the bytes behind it.
    pub fn reset(&mut self) -> &mut [u8; FRAME_LEN_MAX] {
        self.head = DATA_AT as u16;
        self.end = BUF_LEN as u16;
        self.fixed_mut()
    }

    /// The bytes behind the headroom, for the floor: at a place that the compiler knows.
    #[inline(always)]
    pub fn fixed_mut(&mut self) -> &mut [u8; FRAME_LEN_MAX] {
        self.buf.last_chunk_mut().expect("data follows the headroom")
    }

    /// The whole buffer, headroom included, for the floor.
    #[inline(always)]
    pub fn whole_mut(&mut self) -> &mut [u8; BUF_LEN] {
        &mut self.buf
    }

    /// Sets the number of bytes behind the headroom.
    #[inline(always)]
    pub fn set_len(&mut self, len: usize) {
        self.end = self.head + len as u16;
    }

    /// Moves the front by `by` bytes, for the floor.
    #[inline(always)]
    pub fn move_front(&mut self, by: i16) {
        self.head = self.head.wrapping_add_signed(by);
    }

    /// Bytes of the frame.
    pub fn len_bytes(&self) -> usize {
        usize::from(self.end - self.head)
    }
}

impl Frame for BenchFrame {
    #[inline]
    fn data(&self) -> &[u8] {
        &self.buf[usize::from(self.head)..usize::from(self.end)]
    }
    #[inline]
    fn data_mut(&mut self) -> &mut [u8] {
        &mut self.buf[usize::from(self.head)..usize::from(self.end)]
    }
    #[inline]
    fn len(&self) -> usize {
        self.len_bytes()
    }
    fn push_front(&mut self, n: usize) -> Option<&mut [u8]> {
        self.head = self.head.checked_sub(u16::try_from(n).ok()?)?;
        Some(self.data_mut())
    }
    fn pull_front(&mut self, n: usize) {
        self.head += n.min(self.len_bytes()) as u16;
    }
    #[inline]
    fn truncate(&mut self, n: usize) {
        self.end = self.end.min(self.head.saturating_add(n as u16));
    }
    #[inline]
    fn ingress(&self) -> PortId {
        PortId(0)
    }
    #[inline]
    fn rss(&self) -> Option<u32> {
        None
    }
    #[inline]
    fn rx_checksum(&self) -> RxChecksum {
        RxChecksum::Unknown
    }
    #[inline]
    fn tag(&self) -> Option<HandoffTag> {
        None
    }
}
