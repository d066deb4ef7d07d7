//! Reading and writing fields at fixed places, for the views.

use core::ops::Range;

/// Where a field lies in its header, in bytes.
pub(super) type Field = Range<usize>;

/// The bytes of `field`. `N` is its length; the views' constructors saw to it that it lies in `data`.
#[inline(always)]
pub(super) fn read<const N: usize>(data: &[u8], field: Field) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&data[field]);
    out
}

#[inline(always)]
pub(super) fn read_u16(data: &[u8], field: Field) -> u16 {
    u16::from_be_bytes(read(data, field))
}

#[inline(always)]
pub(super) fn read_u32(data: &[u8], field: Field) -> u32 {
    u32::from_be_bytes(read(data, field))
}

#[inline(always)]
pub(super) fn write<const N: usize>(data: &mut [u8], field: Field, value: [u8; N]) {
    data[field].copy_from_slice(&value);
}

/// `data[from..to]`, clipped to what is there: a setter may have put any number into a length field.
#[inline]
pub(super) fn clipped(data: &[u8], from: usize, to: usize) -> &[u8] {
    let to = to.min(data.len());
    data.get(from..to).unwrap_or(&[])
}

/// [`clipped`], mutable.
#[inline]
pub(super) fn clipped_mut(data: &mut [u8], from: usize, to: usize) -> &mut [u8] {
    let to = to.min(data.len());
    data.get_mut(from..to).unwrap_or(&mut [])
}
