//! Table memory that is mapped, lies on huge pages where the system has them, and is faulted in before the
//! first packet: a page fault costs microseconds, and a table on 4 KB pages misses the TLB at every conn.

use std::fmt;
use std::io;

use bytemuck::{AnyBitPattern, NoUninit, Pod};
use evenkeel_core::conn::{MemorySource, TableSizes};
use evenkeel_core::memory::{OutOfMemory, Region};
use memmap2::{MmapMut, MmapOptions};

/// Every region begins at a cache line.
const LINE: usize = 64;
/// Regions that a table asks for at most; each may lose a line to alignment.
const REGION_COUNT_MAX: usize = 16;
/// Smallest page there is: one write in each faults all in.
const SMALL_PAGE: usize = 4096;
/// A huge page of x86_64, and of aarch64 with 4 KB pages.
const HUGE_PAGE: usize = 2 << 20;

/// Which pages a mapping asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pages {
    /// Transparent huge pages, where the system grants them: `madvise(MADV_HUGEPAGE)`.
    #[default]
    Huge,
    /// The system's small pages only, for comparison.
    Small,
}

/// Why memory could not be mapped.
#[derive(Debug)]
pub enum MapError {
    /// The system has less memory left; writing to it all would have the process killed.
    NotEnough {
        /// Wanted, in bytes.
        wanted: usize,
        /// Available, in bytes.
        available: usize,
    },
    /// The system refused the mapping.
    Refused {
        /// Wanted, in bytes.
        wanted: usize,
        /// What it said.
        error: io::Error,
    },
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: usize| bytes.div_ceil(1 << 20);
        match self {
            MapError::NotEnough { wanted, available } => write!(
                f,
                "the conn tables need {} MiB and {} MiB are available: lower the number of conns, or free memory",
                mib(*wanted),
                mib(*available)
            ),
            MapError::Refused { wanted, error } => write!(
                f,
                "cannot map {} MiB for the conn tables: {error}; lower the number of conns, or raise the limit (ulimit -v, memory cgroup)",
                mib(*wanted)
            ),
        }
    }
}

impl std::error::Error for MapError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            MapError::NotEnough { .. } => None,
            MapError::Refused { error, .. } => Some(error),
        }
    }
}

/// Memory for the table of one worker, mapped and faulted in as a whole. It is lent for as long as the
/// process lives and never unmapped: a worker's table is made once.
#[derive(Debug)]
pub struct MappedMemory {
    rest: &'static mut [u8],
    from_heap_bytes: usize,
}

impl MappedMemory {
    /// Maps what a table of `sizes` needs.
    pub fn reserve(sizes: TableSizes, pages: Pages) -> Result<Self, MapError> {
        Self::map(sizes.bytes() + REGION_COUNT_MAX * LINE, pages)
    }

    /// Maps `bytes` zeroed bytes, on the boundary of a huge page.
    pub fn map(bytes: usize, pages: Pages) -> Result<Self, MapError> {
        let wanted = bytes.next_multiple_of(HUGE_PAGE) + HUGE_PAGE;
        if let Some(available) = available_bytes().filter(|&available| available < wanted) {
            return Err(MapError::NotEnough { wanted, available });
        }
        let map = MmapOptions::new()
            .len(wanted)
            .map_anon()
            .map_err(|error| MapError::Refused { wanted, error })?;
        advise(&map, pages);
        let whole: &'static mut MmapMut = Box::leak(Box::new(map));
        let skip = whole.as_ptr().align_offset(HUGE_PAGE).min(HUGE_PAGE);
        let (_, rest) = whole.split_at_mut(skip);
        // Only after the advice: pages come in the size that is wanted at the first write.
        for page in rest.chunks_mut(SMALL_PAGE) {
            page[0] = 0;
        }
        Ok(MappedMemory {
            rest,
            from_heap_bytes: 0,
        })
    }

    /// `len` zeroed elements, or `None` if what is left does not hold them.
    pub fn take<T: NoUninit + AnyBitPattern>(&mut self, len: usize) -> Option<&'static mut [T]> {
        let bytes = len.checked_mul(size_of::<T>())?;
        let align = LINE.max(align_of::<T>());
        let skip = self.rest.as_ptr().align_offset(align);
        if skip.checked_add(bytes)? > self.rest.len() {
            return None;
        }
        let (_, rest) = core::mem::take(&mut self.rest).split_at_mut(skip);
        let (taken, rest) = rest.split_at_mut(bytes);
        self.rest = rest;
        // Aligned and of the right length: the cast has nothing left to refuse.
        bytemuck::try_cast_slice_mut(taken).ok()
    }

    /// Bytes that did not fit the mapping and came from the heap: 0 for the table that was reserved for.
    pub fn from_heap_bytes(&self) -> usize {
        self.from_heap_bytes
    }
}

impl MemorySource for MappedMemory {
    /// From the mapping; from the heap, faulted in too, where more is asked for than was reserved.
    fn region<T: Pod>(&mut self, len: usize) -> Result<Region<T>, OutOfMemory> {
        if let Some(mapped) = self.take(len) {
            return Ok(Region::Lent(mapped));
        }
        let mut region = Region::try_zeroed(len)?;
        self.from_heap_bytes += len * size_of::<T>();
        region.fault_in();
        Ok(region)
    }
}

/// Memory whose pages come when they are used: for tools that make large tables and fill few of them. Each
/// region is a mapping of its own, lent for as long as the process lives.
#[derive(Clone, Copy, Debug, Default)]
pub struct LazyMemory;

impl MemorySource for LazyMemory {
    fn region<T: Pod>(&mut self, len: usize) -> Result<Region<T>, OutOfMemory> {
        if len == 0 {
            return Region::try_zeroed(0);
        }
        let none = OutOfMemory {
            bytes: len as u128 * size_of::<T>() as u128,
        };
        let bytes = usize::try_from(none.bytes).map_err(|_| none)?;
        let map = MmapOptions::new().len(bytes).map_anon().map_err(|_| none)?;
        let map: &'static mut MmapMut = Box::leak(Box::new(map));
        bytemuck::try_cast_slice_mut(map)
            .map(Region::Lent)
            .map_err(|_| none)
    }
}

/// What the system can still give without swapping or killing; `None` where it does not say.
#[cfg(target_os = "linux")]
fn available_bytes() -> Option<usize> {
    let info = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = info.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: usize = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(not(target_os = "linux"))]
fn available_bytes() -> Option<usize> {
    None
}

/// A wish: a system without huge pages ignores it, and the table works as well, only slower.
#[cfg(target_os = "linux")]
fn advise(map: &MmapMut, pages: Pages) {
    let advice = match pages {
        Pages::Huge => memmap2::Advice::HugePage,
        Pages::Small => memmap2::Advice::NoHugePage,
    };
    let _ = map.advise(advice);
}

#[cfg(not(target_os = "linux"))]
fn advise(_: &MmapMut, _: Pages) {}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_core::conn::ConnTable;
    use evenkeel_core::conn::TableMemory;
    use evenkeel_core::hash::MICROSOFT_KEY;
    use evenkeel_core::lport::Steering;
    use std::sync::Arc;

    const SIZES: TableSizes = TableSizes {
        conns_v4: 10_000,
        conns_v6: 3_000,
        exts: 10,
    };

    #[test]
    fn a_table_fits_what_was_reserved_for_it() {
        for pages in [Pages::Huge, Pages::Small] {
            let mut memory = MappedMemory::reserve(SIZES, pages).expect("a few megabytes");
            let table = ConnTable::new(
                TableMemory::new(SIZES, &mut memory).expect("reserved"),
                steering(),
                1,
            );
            assert_eq!(memory.from_heap_bytes(), 0);
            table.audit();
            assert_eq!(table.sizes(), SIZES);
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn mapped_memory_is_faulted_in_as_a_whole() {
        for pages in [Pages::Huge, Pages::Small] {
            let bytes = 8 * HUGE_PAGE;
            let mut memory = MappedMemory::map(bytes, pages).expect("megabytes");
            let taken: &mut [u8] = memory.take(bytes).expect("room");
            let resident = resident_bytes_of_mapping(taken.as_ptr().addr());
            assert!(resident >= bytes, "{resident} of {bytes} bytes are there");
        }
    }

    /// How much of the mapping in which `addr` lies has pages.
    #[cfg(target_os = "linux")]
    fn resident_bytes_of_mapping(addr: usize) -> usize {
        let smaps = std::fs::read_to_string("/proc/self/smaps").expect("Linux has it");
        let mut lines = smaps.lines();
        let hex = |digits: &str| usize::from_str_radix(digits, 16).ok();
        let range = |line: &str| {
            let (start, end) = line.split(' ').next()?.split_once('-')?;
            Some(hex(start)?..hex(end)?)
        };
        let is_it = |line| range(line).is_some_and(|range| range.contains(&addr));
        assert!(lines.any(is_it), "it is mapped");
        let rss = lines.find_map(|line| line.strip_prefix("Rss:")).expect("a line");
        let kib = rss.trim().trim_end_matches(" kB");
        kib.parse::<usize>().expect("a number") * 1024
    }

    fn steering() -> Arc<Steering> {
        Arc::new(Steering::new(&MICROSOFT_KEY, 64).expect("full rank"))
    }

    #[test]
    fn regions_are_zeroed_aligned_apart_and_writable() {
        let mut memory = MappedMemory::map(1 << 20, Pages::Huge).expect("a megabyte");
        let bytes: &mut [u8] = memory.take(3).expect("room");
        let words: &mut [u64] = memory.take(1000).expect("room");
        let more: &mut [u32] = memory.take(77).expect("room");
        assert_eq!((bytes.len(), words.len(), more.len()), (3, 1000, 77));
        for at in [bytes.as_ptr().addr(), words.as_ptr().addr(), more.as_ptr().addr()] {
            assert_eq!(at % LINE, 0);
        }
        assert!(words.iter().all(|&w| w == 0) && more.iter().all(|&w| w == 0));
        bytes.fill(0xff);
        words.fill(u64::MAX);
        assert!(more.iter().all(|&w| w == 0), "regions do not overlap");
    }

    #[test]
    fn what_was_not_reserved_comes_from_the_heap_and_says_so() {
        let mut memory = MappedMemory::map(100, Pages::Small).expect("a page");
        let huge = 8 * HUGE_PAGE;
        let region: Region<u8> = memory.region(huge).expect("megabytes");
        assert_eq!((region.len(), memory.from_heap_bytes()), (huge, huge));
        assert!(
            memory.take::<u64>(usize::MAX).is_none(),
            "a length that overflows is refused"
        );
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn more_than_the_machine_has_is_refused_with_a_remedy() {
        let error = MappedMemory::map(1 << 46, Pages::Huge).expect_err("64 TiB");
        assert!(matches!(error, MapError::NotEnough { .. }));
        assert!(error.to_string().contains("lower the number of conns"), "{error}");
    }

    #[test]
    fn lazy_memory_takes_pages_when_they_are_used() {
        // Far more than this test could touch.
        let sizes = TableSizes {
            conns_v4: 30_000_000,
            conns_v6: 0,
            exts: 0,
        };
        let before = resident_bytes();
        let table = ConnTable::new(
            TableMemory::new(sizes, &mut LazyMemory).expect("address space"),
            steering(),
            1,
        );
        table.audit();
        assert!(sizes.bytes() > 2 << 30);
        if let (Some(before), Some(after)) = (before, resident_bytes()) {
            assert!(
                after < before + (256 << 20),
                "{before} bytes before, {after} after"
            );
        }
    }

    /// What does not fit any address space is an error, not an end.
    #[test]
    fn too_much_is_refused() {
        let sizes = TableSizes {
            conns_v4: evenkeel_core::conn::CONN_COUNT_MAX,
            conns_v6: evenkeel_core::conn::CONN_COUNT_MAX,
            exts: 0,
        };
        let mut given = Vec::new();
        // A system may promise such a table once, never for ever.
        let refused = (0..100_000).find_map(|_| match TableMemory::new(sizes, &mut LazyMemory) {
            Ok(memory) => {
                given.push(memory);
                None
            }
            Err(error) => Some(error),
        });
        assert!(refused.expect("address space ends").bytes > 0);
    }

    #[cfg(target_os = "linux")]
    fn resident_bytes() -> Option<usize> {
        let pages = std::fs::read_to_string("/proc/self/statm").ok()?;
        Some(pages.split_whitespace().nth(1)?.parse::<usize>().ok()? * SMALL_PAGE)
    }

    #[cfg(not(target_os = "linux"))]
    fn resident_bytes() -> Option<usize> {
        None
    }
}
