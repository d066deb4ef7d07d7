//! Pools of frame buffers, of fixed size.

use std::ffi::{CString, c_int};
use std::ptr::NonNull;
use std::sync::Arc;

use dpdk_sys::RteMempool;
use evenkeel_core::port::{HEAD_LEN, HEADROOM};

use crate::eal::{Eal, EalInner, error_text};
use crate::mbuf::Mbuf;

/// Size of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MempoolConfig {
    /// Frames in all: at least what the queues' descriptors, the bursts and the caches can hold at once.
    pub frame_count: u32,
    /// Frames that each registered thread may keep for itself, at most 512 and at most 2/3 of the pool.
    pub cache_count: u32,
    /// Bytes of a buffer, headroom included. A longer frame is a chain of buffers.
    pub room_len: u16,
}

impl Default for MempoolConfig {
    /// 8,191 frames of 2 KiB and the headroom: a full Ethernet frame in one buffer, 18 MiB in all.
    fn default() -> Self {
        MempoolConfig {
            frame_count: 8191,
            cache_count: 256,
            room_len: 2048 + HEADROOM as u16,
        }
    }
}

impl MempoolConfig {
    /// Smallest room: headroom, and a head as [`Frame::data`](evenkeel_core::port::Frame::data) promises.
    pub const ROOM_LEN_MIN: u16 = (HEADROOM + HEAD_LEN) as u16;
    /// Most frames of a pool.
    pub const FRAME_COUNT_MAX: u32 = 1 << 24;
}

/// A pool of frames. A handle: the pool itself lives until [`Eal::shutdown`].
#[derive(Clone, Debug)]
pub struct Mempool {
    pool: NonNull<RteMempool>,
    name: Arc<str>,
    frame_count: u32,
    room_len: u16,
    _eal: Arc<EalInner>,
}

// SAFETY: the pools that `create` makes have DPDK's default, multi-producer multi-consumer ops, which any
// number of threads may use at once; caches are per lcore id, and an id is one thread's (`LcoreGuard`).
unsafe impl Send for Mempool {}
// SAFETY: as for Send.
unsafe impl Sync for Mempool {}

impl Mempool {
    /// Makes a pool; names are unique in a process.
    ///
    /// # Errors
    /// A size out of range, a name that is taken or too long (at most 25 bytes), or too little memory.
    pub fn create(eal: &Eal, name: &str, config: MempoolConfig) -> Result<Mempool, MempoolError> {
        Mempool::create_on(eal, name, config, None)
    }

    /// As [`Mempool::create`], in the memory of a NUMA socket; `None`: of any.
    ///
    /// # Errors
    /// As [`Mempool::create`].
    pub fn create_on(
        eal: &Eal,
        name: &str,
        config: MempoolConfig,
        socket: Option<u16>,
    ) -> Result<Mempool, MempoolError> {
        let MempoolConfig {
            frame_count,
            cache_count,
            room_len,
        } = config;
        if frame_count == 0 || frame_count > MempoolConfig::FRAME_COUNT_MAX {
            return Err(MempoolError::FrameCount(frame_count));
        }
        if cache_count > 512 || cache_count > frame_count / 3 * 2 {
            return Err(MempoolError::CacheCount(cache_count));
        }
        if room_len < MempoolConfig::ROOM_LEN_MIN {
            return Err(MempoolError::RoomLen(room_len));
        }
        let c_name = CString::new(name).map_err(|_| MempoolError::Name(name.to_owned()))?;
        let mut code: c_int = 0;
        let socket = socket.map_or(-1, c_int::from);
        // SAFETY: EAL is up, `eal` being there; the name is a C string, which DPDK copies; `code` is writable.
        let pool = unsafe {
            dpdk_sys::ekd_pool_create(
                c_name.as_ptr(),
                frame_count,
                cache_count,
                room_len,
                socket,
                &mut code,
            )
        };
        let Some(pool) = NonNull::new(pool) else {
            return Err(MempoolError::Create {
                name: name.to_owned(),
                code,
                text: error_text(code),
            });
        };
        eal.inner().add_pool(pool, name, frame_count);
        Ok(Mempool {
            pool,
            name: name.into(),
            frame_count,
            room_len,
            _eal: Arc::clone(eal.inner()),
        })
    }

    /// Its name, which is unique in a process.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Frames of the pool in all.
    pub fn frame_count(&self) -> u32 {
        self.frame_count
    }

    /// Frames that are home, those in threads' caches included. Any thread may ask: nobody waits for it, and it is exact
    /// only while nobody else uses the pool.
    pub fn available(&self) -> u32 {
        // SAFETY: the pool lives as long as `_eal`.
        unsafe { dpdk_sys::ekd_pool_avail(self.pool.as_ptr()) }
    }

    /// Longest frame that [`Mempool::alloc`] gives, in bytes.
    pub fn alloc_len_max(&self) -> usize {
        usize::from(self.room_len) - HEADROOM
    }

    /// A frame of `len` zero bytes behind the headroom; `None` if the pool is empty, or `len` exceeds
    /// [`Mempool::alloc_len_max`].
    pub fn alloc(&self, len: usize) -> Option<Mbuf> {
        if len > self.alloc_len_max() {
            return None;
        }
        // SAFETY: the pool lives as long as `_eal`.
        let raw = NonNull::new(unsafe { dpdk_sys::ekd_mbuf_alloc(self.pool.as_ptr()) })?;
        // SAFETY: rte_pktmbuf_alloc() gives a reset, unshared mbuf, now ours alone.
        let mut frame = unsafe { Mbuf::from_raw(raw) };
        frame.append_zeros(len).then_some(frame)
    }

    /// A frame with a copy of `bytes`, in as many buffers as they need; `None` if the pool has not so many.
    pub fn copy_of(&self, bytes: &[u8]) -> Option<Mbuf> {
        let len = u32::try_from(bytes.len()).ok()?;
        // SAFETY: the pool lives as long as `_eal`; `bytes` has `len` bytes.
        let raw = unsafe { dpdk_sys::ekd_mbuf_from(self.pool.as_ptr(), bytes.as_ptr().cast(), len) };
        // SAFETY: fresh mbufs of the pool, chained, now ours alone.
        Some(unsafe { Mbuf::from_raw(NonNull::new(raw)?) })
    }

    pub(crate) fn as_ptr(&self) -> *mut RteMempool {
        self.pool.as_ptr()
    }
}

/// Why a pool was not made.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum MempoolError {
    /// See [`MempoolConfig::frame_count`].
    #[error("a pool has 1 to {max} frames, not {0}", max = MempoolConfig::FRAME_COUNT_MAX)]
    FrameCount(u32),
    /// See [`MempoolConfig::cache_count`].
    #[error("a thread's cache of {0} frames is more than 512, or than two thirds of the pool")]
    CacheCount(u32),
    /// See [`MempoolConfig::room_len`].
    #[error("a buffer of {0} bytes is less than the {min} of headroom and head", min = MempoolConfig::ROOM_LEN_MIN)]
    RoomLen(u16),
    /// The name cannot be a C string.
    #[error("pool name {0:?} contains a zero byte")]
    Name(String),
    /// DPDK refused.
    #[error("pool {name} cannot be made: {text} (error {code})")]
    Create {
        /// Name of the pool.
        name: String,
        /// Negative errno.
        code: c_int,
        /// Its text.
        text: String,
    },
}
