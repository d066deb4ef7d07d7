//! The one module with an intrinsic: hints that a cache line is about to be read. Nothing where the target has no
//! such intrinsic. Nothing is read: any address will do.

/// Asks for the line at `at`.
///
/// Into the second-level cache: a burst asks for more lines at once than the first level has fill buffers, and
/// a prefetch into the first level that finds none free is dropped (docs/performance.md has the measurements).
#[inline(always)]
pub(crate) fn prefetch<T>(at: *const T) {
    // _MM_HINT_T1
    hint::<2, T>(at);
}

/// [`prefetch`] into the first-level cache: for a few lines, asked for before.
#[inline(always)]
pub(crate) fn prefetch_near<T>(at: *const T) {
    // _MM_HINT_T0
    hint::<3, T>(at);
}

#[inline(always)]
fn hint<const LEVEL: i32, T>(at: *const T) {
    #[cfg(target_arch = "x86_64")]
    #[allow(unsafe_code, reason = "the intrinsic is unsafe to call in its signature only")]
    // SAFETY: a prefetch has no architectural effect and cannot fault, whatever the address. SSE is part of every
    // x86_64 target.
    unsafe {
        core::arch::x86_64::_mm_prefetch::<LEVEL>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

#[cfg(target_arch = "x86_64")]
const _: () = assert!(core::arch::x86_64::_MM_HINT_T1 == 2 && core::arch::x86_64::_MM_HINT_T0 == 3);
