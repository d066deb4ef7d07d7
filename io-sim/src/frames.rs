//! Frames that are under way, beside the queue: it moves what it holds, and frames need not be.

use crate::ids::LinkId;
use crate::link::Side;

/// The place of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameId(pub(crate) u32);

/// Frames on links. There are never more places than frames that were under way at a time.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    places: Vec<Vec<u8>>,
    free: Vec<u32>,
    /// By link and direction.
    under_way: Vec<[u64; 2]>,
    bytes: u64,
}

/// What a frame takes beside its bytes, as it is counted: its place, its event and its allocation.
const FRAME_OVERHEAD: u64 = 96;

impl Frames {
    pub(crate) fn put(&mut self, link: LinkId, from: Side, frame: Vec<u8>) -> FrameId {
        let at = usize::from(link.0);
        if self.under_way.len() <= at {
            self.under_way.resize(at + 1, [0; 2]);
        }
        self.under_way[at][from as usize] += 1;
        self.bytes += frame.len() as u64 + FRAME_OVERHEAD;
        match self.free.pop() {
            Some(place) => {
                if let Some(room) = self.places.get_mut(place as usize) {
                    *room = frame;
                }
                FrameId(place)
            }
            None => {
                self.places.push(frame);
                FrameId((self.places.len() - 1) as u32)
            }
        }
    }

    /// Takes a frame from where it was put; each is taken once.
    pub(crate) fn take(&mut self, link: LinkId, from: Side, id: FrameId) -> Vec<u8> {
        let frame = self.places.get_mut(id.0 as usize).map(std::mem::take);
        let frame = frame.unwrap_or_default();
        self.free.push(id.0);
        self.bytes -= frame.len() as u64 + FRAME_OVERHEAD;
        if let Some(ways) = self.under_way.get_mut(usize::from(link.0)) {
            ways[from as usize] -= 1;
        }
        frame
    }

    /// Frames that are on a link, in each direction.
    pub(crate) fn under_way(&self, link: LinkId) -> [u64; 2] {
        self.under_way
            .get(usize::from(link.0))
            .copied()
            .unwrap_or_default()
    }

    /// What all of them take.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_is_taken_and_its_place_used_again() {
        let mut frames = Frames::default();
        let (link, empty) = (LinkId(3), frames.bytes());
        let ids: Vec<_> = (0..4u8).map(|n| frames.put(link, Side::B, vec![n; 60])).collect();
        assert_eq!(frames.under_way(link), [0, 4]);
        assert_eq!(frames.bytes(), 4 * (60 + FRAME_OVERHEAD));
        assert_eq!(frames.take(link, Side::B, ids[1]), [1; 60]);
        let again = frames.put(link, Side::A, vec![9]);
        assert_eq!(again, ids[1]);
        assert_eq!(frames.under_way(link), [1, 3]);
        for (id, side, byte) in [
            (ids[0], Side::B, 0),
            (ids[2], Side::B, 2),
            (ids[3], Side::B, 3),
            (again, Side::A, 9),
        ] {
            assert_eq!(frames.take(link, side, id)[0], byte);
        }
        assert_eq!((frames.bytes(), frames.under_way(link)), (empty, [0, 0]));
    }
}
