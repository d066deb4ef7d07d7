//! Memory of the tables: sized and faulted in by the caller, before the first packet.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
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

/// The memory of a table is not to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory {
    /// Bytes that were asked for.
    pub bytes: u128,
}

impl fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} MiB for the conn tables are not to be had",
            self.bytes.div_ceil(1 << 20)
        )
    }
}

impl core::error::Error for OutOfMemory {}

impl<T: Zeroable + Copy> Region<T> {
    /// `len` zeroed elements on the heap. Elements aligned to a cache line are written by the allocator, page
    /// by page: who wants pages untouched until they are used, or huge ones, lends mapped memory.
    pub fn try_zeroed(len: usize) -> Result<Self, OutOfMemory> {
        let boxed = bytemuck::allocation::try_zeroed_slice_box(len);
        boxed.map(Region::Owned).map_err(|()| OutOfMemory {
            bytes: len as u128 * size_of::<T>() as u128,
        })
    }

    /// As [`Region::try_zeroed`], for runs whose length is no matter of a config. Panics where there is no memory.
    pub(crate) fn zeroed(len: usize) -> Self {
        Region::Owned(bytemuck::allocation::zeroed_slice_box(len))
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
