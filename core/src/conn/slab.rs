//! A slab: places of one size, taken and returned in O(1). Places never used before are handed out in
//! order, so that an idle slab stays untouched behind its high-water mark.

use bytemuck::{Pod, Zeroable};

use super::{Conn4, Conn6, ConnExt};
use crate::memory::Region;

/// What lies in a slab: it lends a field to the free list.
pub(crate) trait Place: Pod + Zeroable {
    fn free_link(&mut self) -> &mut u32;
}

impl Place for Conn4 {
    fn free_link(&mut self) -> &mut u32 {
        &mut self.meta.slot_link
    }
}

impl Place for Conn6 {
    fn free_link(&mut self) -> &mut u32 {
        &mut self.meta.slot_link
    }
}

impl Place for ConnExt {
    fn free_link(&mut self) -> &mut u32 {
        &mut self.free_link
    }
}

#[derive(Debug)]
pub(crate) struct Slab<T: 'static> {
    places: Region<T>,
    /// First free place that was used before, plus one.
    free: u32,
    /// Places below were used before.
    fresh: u32,
    len: u32,
}

impl<T: Place> Slab<T> {
    pub(crate) fn new(places: Region<T>) -> Self {
        assert!(
            places.len() <= super::CONN_COUNT_MAX as usize,
            "places have 30 bits"
        );
        Slab {
            places,
            free: 0,
            fresh: 0,
            len: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len as usize
    }

    /// The place that [`Slab::take`] takes next.
    #[inline]
    pub(crate) fn next_free(&self) -> Option<u32> {
        match self.free.checked_sub(1) {
            Some(place) => Some(place),
            None => ((self.fresh as usize) < self.places.len()).then_some(self.fresh),
        }
    }

    /// Takes a place; its content is what its last user left. `None`: full.
    #[inline]
    pub(crate) fn take(&mut self) -> Option<u32> {
        let place = self.next_free()?;
        if self.free == 0 {
            self.fresh += 1;
        } else {
            self.free = *self.places[place as usize].free_link();
        }
        self.len += 1;
        Some(place)
    }

    /// Returns a place that was taken.
    pub(crate) fn give_back(&mut self, place: u32) {
        *self.places[place as usize].free_link() = self.free;
        self.free = place + 1;
        self.len -= 1;
    }

    #[inline]
    pub(crate) fn at(&self, place: u32) -> Option<&T> {
        self.places.get(place as usize)
    }

    #[inline]
    pub(crate) fn at_mut(&mut self, place: u32) -> Option<&mut T> {
        self.places.get_mut(place as usize)
    }

    /// Where `place` is, for asking.
    #[inline]
    pub(crate) fn line(&self, place: usize) -> *const T {
        self.places.as_ptr().wrapping_add(place)
    }

    /// All places.
    #[inline]
    pub(crate) fn places_mut(&mut self) -> &mut [T] {
        &mut self.places
    }

    /// Places below this were used at least once.
    pub(crate) fn high_water(&self) -> u32 {
        self.fresh
    }
}
