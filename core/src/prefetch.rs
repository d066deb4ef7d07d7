//! The one module with an intrinsic: a hint that a cache line is about to be read. Nothing where the
//! target has no such intrinsic.

/// Asks for the line at `value`. Never reads it: any reference will do.
///
/// Into the second-level cache: a burst asks for more lines at once than the first level has fill buffers, and
/// a prefetch into the first level that finds none free is dropped (docs/performance.md has the measurements).
#[inline(always)]
pub(crate) fn prefetch<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    #[allow(unsafe_code, reason = "the intrinsic is unsafe to call in its signature only")]
    // SAFETY: PREFETCHT1 has no architectural effect and cannot fault, whatever the address; this one is
    // that of a live reference besides. SSE is part of every x86_64 target.
    unsafe {
        core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T1 }>(
            core::ptr::from_ref(value).cast(),
        );
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}
