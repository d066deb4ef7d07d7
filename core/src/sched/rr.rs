//! Round robin.

use alloc::vec::Vec;

/// Every place whose weight is not 0, once.
pub(super) fn cycle(weights: &[u16]) -> Vec<u16> {
    (0u16..)
        .zip(weights)
        .filter(|&(_, &w)| w > 0)
        .map(|(place, _)| place)
        .collect()
}
