//! Memory of the tables: sized and faulted in by the caller, before the first packet.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::{Deref, DerefMut};

use bytemuck::Zeroable;

/// A fixed run of `T` that never grows: on the heap, or lent for ever by an owner who mapped it, on huge
/// pages for example. Both variants keep pointer and length in the same place, so that an access has no
/// branch.
#[derive(Debug)]
pub enum Region<T: 'static> {
    /// On the heap.
    Owned(Box<[T]>),
    /// Mapped by someone who lives as long as the process.
    Lent(&'static mut [T]),
}

impl<T: Zeroable + Copy> Region<T> {
    /// `len` zeroed elements on the heap. Large runs come from the allocator as untouched pages; who
    /// cannot have page faults under traffic calls [`Region::fault_in`], or lends mapped memory.
    pub fn zeroed(len: usize) -> Self {
        Region::Owned(bytemuck::zeroed_slice_box(len))
    }

    /// Writes every element, so that the pages behind are there.
    pub fn fault_in(&mut self) {
        self.fill(T::zeroed());
    }
}

impl<T> From<Vec<T>> for Region<T> {
    fn from(v: Vec<T>) -> Self {
        Region::Owned(v.into_boxed_slice())
    }
}

impl<T> Deref for Region<T> {
    type Target = [T];
    #[inline]
    fn deref(&self) -> &[T] {
        match self {
            Region::Owned(b) => b,
            Region::Lent(s) => s,
        }
    }
}

impl<T> DerefMut for Region<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        match self {
            Region::Owned(b) => b,
            Region::Lent(s) => s,
        }
    }
}
