//! The exception path: what is not the engine's goes to an interface of the kernel with the same address as the
//! port, and what the kernel sends there leaves by the port.
//!
//! The interface is a TAP device. A thread of its own reads and writes it, so that no worker calls into the kernel
//! for a frame: a flood of what is not ours costs a worker a full ring, not its time. To make the interface needs
//! CAP_NET_ADMIN; afterwards nothing does.

use std::ffi::{CString, c_int};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use evenkeel_core::port::Frame;

use crate::eal::{EalInner, error_text};
use crate::handoff::{Refused, Ring};
use crate::mbuf::Mbuf;
use crate::mempool::Mempool;

/// Frames that wait for the kernel, at most; more are dropped and counted.
pub const TAP_QUEUE_LEN: usize = 1024;
/// Frames read from, or written to, an interface before the others have their turn.
const TURN: usize = 64;
/// Longest frame that is read: the largest MTU, Ethernet header and two tags.
const FRAME_LEN_MAX: usize = 65_535 + 14 + 8;

/// How long an address may take until it can be used; it takes milliseconds.
const ADDRESS_TIME_MAX: Duration = Duration::from_secs(5);

/// The kernel's side of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TapConfig {
    /// Name of the kernel interface to make: at most 15 bytes.
    pub name: String,
    /// Its MAC address; `None`: the device's.
    pub mac: Option<[u8; 6]>,
    /// Its addresses with the length of their prefixes: those of the port.
    pub addresses: Vec<(IpAddr, u8)>,
}

/// What passed between a port and the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TapStats {
    /// Frames that the kernel took.
    pub to_kernel: u64,
    /// Frames that the kernel sent, and that wait for the port.
    pub from_kernel: u64,
    /// Frames that the kernel did not take.
    pub refused: u64,
    /// Frames that the kernel sent, dropped because the pool was empty.
    pub no_buffer: u64,
    /// Frames that the kernel sent, dropped because too many wait for the port.
    pub full: u64,
}

#[derive(Debug, Default)]
struct Counts {
    to_kernel: AtomicU64,
    from_kernel: AtomicU64,
    refused: AtomicU64,
    no_buffer: AtomicU64,
    full: AtomicU64,
}

/// A kernel interface, and what waits for it.
#[derive(Debug)]
pub(crate) struct Tap {
    file: File,
    queue: Arc<Ring<Mbuf>>,
    /// Where frames of the kernel wait for the port.
    outbox: Arc<Ring<Mbuf>>,
    pool: Mempool,
    counts: Counts,
    wake: Arc<Wake>,
}

/// Wakes the thread that waits for the kernel.
#[derive(Debug)]
pub(crate) struct Wake {
    is_asleep: AtomicBool,
    is_over: AtomicBool,
    pipe: UnixStream,
}

impl Wake {
    fn wake(&self) {
        // Only the first one after the thread fell asleep pays for a call into the kernel.
        if self.is_asleep.load(Ordering::SeqCst) && self.is_asleep.swap(false, Ordering::SeqCst) {
            // A full pipe wakes as well.
            let _ = (&self.pipe).write(&[1]);
        }
    }
}

impl Tap {
    /// Makes the interface and gives it its addresses.
    pub(crate) fn open(
        config: &TapConfig,
        mac: [u8; 6],
        mtu: u16,
        pool: &Mempool,
        outbox: &Arc<Ring<Mbuf>>,
        wake: &Arc<Wake>,
    ) -> Result<Tap, TapError> {
        let name = &config.name;
        let c_name = CString::new(name.as_str()).map_err(|_| TapError::Name(name.clone()))?;
        let usable = |b: u8| b.is_ascii_graphic() && b != b'/' && b != b':' && b != b'%';
        if name.is_empty() || name.len() > 15 || !name.bytes().all(usable) {
            return Err(TapError::Name(name.clone()));
        }
        let mac = config.mac.unwrap_or(mac);
        // SAFETY: the name is a C string of at most 15 bytes, the address has 6 bytes; both are only read.
        let fd = unsafe { dpdk_sys::ekd_tap_open(c_name.as_ptr(), mac.as_ptr(), mtu) };
        if fd < 0 {
            return Err(TapError::Open {
                name: name.clone(),
                code: fd,
                text: error_text(fd),
            });
        }
        // SAFETY: just opened, and nobody else's.
        let file = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
        for &(address, prefix) in &config.addresses {
            let (bytes, len) = match address {
                IpAddr::V4(a) => (a.to_ipv6_mapped().octets(), 4),
                IpAddr::V6(a) => (a.octets(), 16),
            };
            let bytes = bytes.get(16 - len..).unwrap_or(&bytes);
            // SAFETY: the name is a C string, the address has `len` bytes; both are only read.
            let code =
                unsafe { dpdk_sys::ekd_address_add(c_name.as_ptr(), bytes.as_ptr(), len as u8, prefix) };
            if code != 0 {
                return Err(TapError::Address {
                    name: name.clone(),
                    address,
                    prefix,
                    text: error_text(code),
                });
            }
        }
        for &(address, prefix) in &config.addresses {
            if !await_address(name, address) {
                return Err(TapError::Address {
                    name: name.clone(),
                    address,
                    prefix,
                    text: "it does not answer for it".to_owned(),
                });
            }
        }
        Ok(Tap {
            file,
            queue: Ring::new(TAP_QUEUE_LEN),
            outbox: outbox.clone(),
            pool: pool.clone(),
            counts: Counts::default(),
            wake: wake.clone(),
        })
    }

    /// Gives a frame to the kernel.
    pub(crate) fn give(&self, frame: Mbuf) -> Result<(), Refused> {
        self.queue.push(frame)?;
        self.wake.wake();
        Ok(())
    }

    pub(crate) fn stats(&self) -> TapStats {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        TapStats {
            to_kernel: read(&self.counts.to_kernel),
            from_kernel: read(&self.counts.from_kernel),
            refused: read(&self.counts.refused),
            no_buffer: read(&self.counts.no_buffer),
            full: read(&self.counts.full),
        }
    }

    /// Writes what waits; whether there was anything.
    fn write(&self, scratch: &mut Vec<u8>) -> bool {
        let mut busy = false;
        for _ in 0..TURN {
            let Some(frame) = self.queue.pop() else { break };
            busy = true;
            let written = if frame.segment_count() == 1 {
                (&self.file).write(frame.data())
            } else {
                scratch.clear();
                frame.copy_to(scratch);
                (&self.file).write(scratch)
            };
            let count = match written {
                Ok(_) => &self.counts.to_kernel,
                Err(_) => &self.counts.refused,
            };
            count.fetch_add(1, Ordering::Relaxed);
        }
        busy
    }

    /// Reads what the kernel sent; whether there was anything.
    fn read(&self, buffer: &mut [u8]) -> bool {
        let mut busy = false;
        for _ in 0..TURN {
            let Ok(len) = (&self.file).read(buffer) else { break };
            let Some(bytes) = buffer.get(..len).filter(|bytes| !bytes.is_empty()) else {
                break;
            };
            busy = true;
            let count = match self.pool.copy_of(bytes) {
                None => &self.counts.no_buffer,
                Some(frame) => match self.outbox.push(frame) {
                    Ok(()) => &self.counts.from_kernel,
                    Err(_) => &self.counts.full,
                },
            };
            count.fetch_add(1, Ordering::Relaxed);
        }
        busy
    }
}

/// Waits until the kernel answers for an address that was just given to an interface. For one of IPv6 it joins the
/// group by which neighbours ask (RFC 4291, 2.7.1), in its own time.
fn await_address(interface: &str, address: IpAddr) -> bool {
    let IpAddr::V6(address) = address else { return true };
    let [.., a, b, c] = address.octets();
    let group = format!("ff0200000000000000000001ff{a:02x}{b:02x}{c:02x}");
    let is_joined = || match fs::read_to_string("/proc/thread-self/net/igmp6") {
        Ok(groups) => groups.lines().any(|line| {
            let mut fields = line.split_ascii_whitespace().skip(1);
            fields.next() == Some(interface) && fields.next() == Some(&group)
        }),
        // Where it cannot be seen it cannot be waited for.
        Err(_) => true,
    };
    let began = Instant::now();
    while !is_joined() {
        if began.elapsed() > ADDRESS_TIME_MAX {
            return false;
        }
        thread::sleep(Duration::from_millis(1));
    }
    true
}

/// The thread that serves the kernel's interfaces, until it is dropped.
#[derive(Debug)]
pub(crate) struct TapThread {
    wake: Arc<Wake>,
    taps: Vec<Arc<Tap>>,
    thread: Option<JoinHandle<()>>,
}

/// What wakes the thread, and what it is woken by.
pub(crate) fn wake_pair() -> io::Result<(Arc<Wake>, UnixStream)> {
    let (pipe, woken) = UnixStream::pair()?;
    pipe.set_nonblocking(true)?;
    woken.set_nonblocking(true)?;
    let wake = Wake {
        is_asleep: AtomicBool::new(false),
        is_over: AtomicBool::new(false),
        pipe,
    };
    Ok((Arc::new(wake), woken))
}

impl TapThread {
    /// Serves interfaces (at most 31).
    pub(crate) fn start(
        eal: &Arc<EalInner>,
        taps: Vec<Arc<Tap>>,
        wake: Arc<Wake>,
        woken: UnixStream,
    ) -> io::Result<TapThread> {
        let (served, waker, eal) = (taps.clone(), wake.clone(), eal.clone());
        let thread = thread::Builder::new()
            .name("dpdk-tap".to_owned())
            .spawn(move || {
                // With a cache it seldom holds up a worker at the pool's ring; it can do without.
                let _lcore = eal.register_thread().ok();
                serve(&served, &waker, &woken);
            })?;
        Ok(TapThread {
            wake,
            taps,
            thread: Some(thread),
        })
    }
}

impl Drop for TapThread {
    fn drop(&mut self) {
        self.wake.is_over.store(true, Ordering::SeqCst);
        let _ = (&self.wake.pipe).write(&[1]);
        if let Some(thread) = self.thread.take() {
            // It does not panic; if it did, there is nothing left to stop.
            let _ = thread.join();
        }
        // Frames that waited go home, and those that come later too.
        self.taps.iter().for_each(|tap| tap.queue.close());
    }
}

fn serve(taps: &[Arc<Tap>], wake: &Wake, mut woken: &UnixStream) {
    let mut fds: Vec<c_int> = vec![woken.as_raw_fd()];
    fds.extend(taps.iter().map(|tap| tap.file.as_raw_fd()));
    let mut buffer = vec![0; FRAME_LEN_MAX];
    let mut scratch = Vec::with_capacity(FRAME_LEN_MAX);
    let mut is_ready = false;
    while !wake.is_over.load(Ordering::SeqCst) {
        let mut busy = false;
        for tap in taps {
            busy |= tap.write(&mut scratch);
            busy |= tap.read(&mut buffer);
        }
        if busy {
            continue;
        }
        if is_ready {
            // Said to have something, and had nothing: an interface that was taken down or away.
            thread::sleep(Duration::from_millis(10));
        }
        // Said before the last look: who gives a frame after it wakes us.
        wake.is_asleep.store(true, Ordering::SeqCst);
        if taps.iter().all(|tap| tap.queue.is_empty()) && !wake.is_over.load(Ordering::SeqCst) {
            // A second at most: should a wake-up be lost, frames are late and not stuck.
            // SAFETY: the vector has as many file descriptors as is said.
            let ready = unsafe { dpdk_sys::ekd_wait_readable(fds.as_ptr(), fds.len() as u32, 1000) };
            // But for the first, which only wakes.
            is_ready = ready & !1 != 0;
        }
        wake.is_asleep.store(false, Ordering::SeqCst);
        // It does not block; what it gives means nothing.
        while woken.read(&mut buffer).is_ok_and(|len| len > 0) {}
    }
}

/// Why the kernel's side of an interface was not made.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TapError {
    /// The kernel takes no such name.
    #[error("{0:?} is no name of a kernel interface: 1 to 15 bytes, without spaces, '/', ':' and '%'")]
    Name(String),
    /// The kernel does not make it.
    #[error(
        "kernel interface {name} cannot be made: {text} (error {code}); it needs /dev/net/tun, CAP_NET_ADMIN, and a \
         name that is free"
    )]
    Open {
        /// Name of the interface.
        name: String,
        /// Negative errno.
        code: c_int,
        /// Its text.
        text: String,
    },
    /// It does not take an address.
    #[error("kernel interface {name} does not take the address {address}/{prefix}: {text}")]
    Address {
        /// Name of the interface.
        name: String,
        /// The address.
        address: IpAddr,
        /// Length of its prefix.
        prefix: u8,
        /// Why.
        text: String,
    },
}
