//! The order in which a switch floods its ports: theirs. With the feature `nondeterministic`, which exists to show that
//! the checks of determinism find what they are there for, it hangs on the process instead.

/// Ports in the order in which a frame is sent to them.
#[cfg(not(feature = "nondeterministic"))]
pub(crate) fn flood_order(ports: usize) -> impl Iterator<Item = usize> {
    0..ports
}

/// Ports in the order of a hash table whose key the process has drawn: the oldest mistake of simulators.
#[cfg(feature = "nondeterministic")]
pub(crate) fn flood_order(ports: usize) -> impl Iterator<Item = usize> {
    let table: std::collections::HashSet<usize> = (0..ports).collect();
    table.into_iter()
}
