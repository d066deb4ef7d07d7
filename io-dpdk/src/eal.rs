//! DPDK's environment: started once per process, ended when nothing of it is in use.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString, c_char, c_int};
use std::marker::PhantomData;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::{fmt, fs, io};

use dpdk_sys::RteMempool;

use crate::device::DeviceSpec;
use crate::mbuf::RxTimestampField;

/// Whether EAL was started, or tried, in this process.
static STARTED: AtomicBool = AtomicBool::new(false);

/// Lines of DPDK's log that wait for [`Eal::take_log`], at most.
const SAID_LINES_MAX: usize = 256;

/// A line of DPDK's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// As DPDK numbers them: 1 to 3 fatal, 4 an error, 5 a warning, 6 and 7 information, 8 for its makers.
    pub level: u8,
    /// What it says.
    pub text: String,
}

/// The level of a line whose own is not known: nothing better is asked of DPDK.
const LEVEL_WARNING: u8 = 5;

/// Where DPDK's memory comes from. Sizes in MiB, reserved at start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// Huge pages if enough are free, else [`Memory::NoHuge`].
    Auto {
        /// MiB
        mb: u32,
    },
    /// Huge pages, without a hugetlbfs mount and without files (`--in-memory`).
    Hugepages {
        /// MiB
        mb: u32,
    },
    /// Ordinary pages, at about twice the cost of a packet.
    NoHuge {
        /// MiB
        mb: u32,
    },
}

impl Default for Memory {
    fn default() -> Self {
        Memory::Auto { mb: 256 }
    }
}

/// What EAL is started with.
#[derive(Clone, Debug, Default)]
pub struct EalArgs {
    memory: Memory,
    devices: Vec<DeviceSpec>,
    extra: Vec<String>,
}

impl EalArgs {
    /// EAL with this memory, and no virtual device.
    pub fn new(memory: Memory) -> Self {
        EalArgs {
            memory,
            ..EalArgs::default()
        }
    }

    /// Adds a virtual device such as `net_pcap0` with `[("rx_pcap", "in.pcap")]`. Names and values are
    /// checked by [`Eal::init`].
    #[must_use]
    pub fn vdev(mut self, name: &str, args: &[(&str, &str)]) -> Self {
        let args = args
            .iter()
            .map(|&(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        self.devices.push(DeviceSpec::unchecked(name, args));
        self
    }

    /// Adds a device. Of the PCI bus, EAL looks at devices that were added, and at no others.
    #[must_use]
    pub fn device(mut self, device: DeviceSpec) -> Self {
        self.devices.push(device);
        self
    }

    /// Adds an argument as it is, such as `--log-level=debug`.
    #[must_use]
    pub fn extra(mut self, arg: &str) -> Self {
        self.extra.push(arg.to_owned());
        self
    }

    /// The argument vector. `cpu` is where EAL's own thread is pinned; `available_mb` of ordinary pages, if the system says.
    fn to_argv(
        &self,
        free_huge_mb: u64,
        available_mb: Option<u64>,
        cpu: Option<u32>,
    ) -> Result<Vec<CString>, EalError> {
        let mut argv = vec!["evenkeel".to_owned(), "--no-telemetry".to_owned()];
        // One lcore, for EAL's own thread. The id is 0 whatever the CPU: a CPU's number may exceed the
        // largest lcore id.
        if let Some(cpu) = cpu {
            argv.push(format!("--lcores=0@{cpu}"));
        }
        let (huge, mb) = match self.memory {
            Memory::Auto { mb } => (free_huge_mb >= u64::from(mb), mb),
            Memory::NoHuge { mb } => (false, mb),
            Memory::Hugepages { mb } if free_huge_mb < u64::from(mb) => {
                return Err(EalError::NoHugepages {
                    wanted_mb: mb,
                    free_mb: free_huge_mb,
                });
            }
            Memory::Hugepages { mb } => (true, mb),
        };
        // EAL takes it all at once, in a call that only the end of the process ends.
        if let Some(available_mb) = available_mb.filter(|&available| !huge && available < u64::from(mb)) {
            return Err(EalError::NoMemory {
                wanted_mb: mb,
                available_mb,
            });
        }
        // --no-huge together with --in-memory is refused by EAL.
        let how: &[&str] = if huge {
            &["--in-memory"]
        } else {
            &["--no-huge", "--no-shconf"]
        };
        argv.extend(how.iter().map(|&arg| arg.to_owned()));
        argv.extend(["-m".to_owned(), mb.to_string()]);
        // Of what it says, only what went wrong is of use to who reads our message.
        argv.push("--log-level=warning".to_owned());
        let mut names = BTreeSet::new();
        for device in &self.devices {
            device.check()?;
            if !names.insert(device.name()) {
                return Err(EalError::bad(device.name(), "two devices have this name"));
            }
            argv.push(device.to_arg());
        }
        if !self.devices.iter().any(DeviceSpec::is_pci) {
            argv.push("--no-pci".to_owned());
        }
        argv.extend(self.extra.iter().cloned());
        argv.into_iter()
            .map(|arg| {
                CString::new(arg).map_err(|e| {
                    EalError::bad(&String::from_utf8_lossy(&e.into_vec()), "it contains a zero byte")
                })
            })
            .collect()
    }
}

/// DPDK, running. There is at most one of it in the life of a process.
#[derive(Debug)]
pub struct Eal {
    inner: Arc<EalInner>,
    thread: Option<JoinHandle<()>>,
    end: SyncSender<SyncSender<c_int>>,
    without_hugepages: bool,
    /// What its devices stand on, claimed for this process.
    _claims: Vec<UnixDatagram>,
}

/// What ports, pools and registered threads keep alive.
#[derive(Debug, Default)]
pub(crate) struct EalInner {
    ports_taken: Mutex<BTreeSet<u16>>,
    pools: Mutex<Vec<PoolRecord>>,
    /// What DPDK said at the start: its words on devices that failed.
    said: Mutex<Vec<LogLine>>,
}

/// A pool, owned by EAL so that no frame can outlive it.
#[derive(Debug)]
struct PoolRecord {
    pool: NonNull<RteMempool>,
    name: String,
    frame_count: u32,
}

// SAFETY: DPDK lets any thread use a mempool; `shutdown`, which frees it, owns the only reference.
unsafe impl Send for PoolRecord {}

impl Eal {
    /// Starts EAL on a thread of its own, since EAL pins the thread that starts it, and threads made by
    /// that thread inherit the pinning.
    ///
    /// # Errors
    /// Arguments that cannot work are refused before EAL sees them, and may be corrected. Once EAL was
    /// called, it cannot be called again, whether it started or not.
    pub fn init(args: &EalArgs) -> Result<Eal, EalError> {
        if let Some(why) = crate::UNAVAILABLE {
            return Err(EalError::Unavailable(why));
        }
        if STARTED.load(Ordering::Acquire) {
            return Err(EalError::Again);
        }
        let argv = args.to_argv(free_hugepages_mb(), available_mb(), first_allowed_cpu())?;
        let mut claims = Vec::new();
        for device in &args.devices {
            device.find()?;
            claims.extend(device.claim()?);
        }
        if STARTED.swap(true, Ordering::AcqRel) {
            return Err(EalError::Again);
        }
        let without_hugepages = argv.iter().any(|arg| arg.as_c_str() == c"--no-huge");
        let (started, start) = mpsc::sync_channel(1);
        let (end, ended) = mpsc::sync_channel(1);
        let thread = thread::Builder::new()
            .name("dpdk-eal".to_owned())
            .spawn(move || eal_thread(argv, &started, &ended))
            .map_err(EalError::Thread)?;
        match start.recv() {
            Ok(Ok(())) => Ok(Eal {
                inner: Arc::new(EalInner {
                    said: Mutex::new(said_lines()),
                    ..EalInner::default()
                }),
                thread: Some(thread),
                end,
                without_hugepages,
                _claims: claims,
            }),
            Ok(Err(code)) => Err(EalError::Init {
                code,
                text: error_text(code),
                said: last_words(&said_lines()),
            }),
            Err(_) => Err(EalError::Thread(io::Error::other("it ended before EAL answered"))),
        }
    }

    /// DPDK's name and release, such as `DPDK 22.11.11`.
    pub fn version() -> String {
        // SAFETY: rte_version() returns a static string and may be called at any time.
        unsafe { CStr::from_ptr(dpdk_sys::ekd_version()) }
            .to_string_lossy()
            .into_owned()
    }

    /// What DPDK and its drivers logged since the last call, warnings and worse: the last 16 KiB of it. Nothing of
    /// it goes to stderr.
    pub fn take_log(&self) -> Vec<LogLine> {
        let mut lines = std::mem::take(&mut *lock(&self.inner.said));
        lines.extend(said_lines());
        lines
    }

    /// Whether DPDK runs on ordinary pages.
    pub fn without_hugepages(&self) -> bool {
        self.without_hugepages
    }

    /// Gives the calling thread an lcore id until the guard is dropped. Without one every frame taken
    /// from or returned to a mempool goes through the shared ring.
    ///
    /// # Errors
    /// The thread has an id already, or all (128) are taken.
    pub fn register_thread(&self) -> Result<LcoreGuard, EalError> {
        self.inner.register_thread()
    }

    /// Where drivers put the receive timestamp; `None` if no driver stamps frames. Known once the port
    /// that stamps is open.
    pub fn rx_timestamp_field(&self) -> Option<RxTimestampField> {
        RxTimestampField::look_up()
    }

    /// Names of all ports that EAL has, at most 32.
    pub fn port_names(&self) -> Vec<String> {
        port_names()
    }

    /// Ends EAL and frees its memory.
    ///
    /// # Errors
    /// Nothing is freed while a port, a pool's handle or a registered thread is left, or frames are still
    /// out: EAL then stays until the process ends.
    pub fn shutdown(mut self) -> Result<(), ShutdownError> {
        let inner = std::mem::take(&mut self.inner);
        let inner = Arc::try_unwrap(inner).map_err(|_| ShutdownError::InUse)?;
        let pools = inner.pools.into_inner().unwrap_or_else(PoisonError::into_inner);
        // With no registered thread left there is no mempool cache in use, so a frame counts as home only
        // after the ring took it: whoever returned it is done with the pool.
        for record in &pools {
            // SAFETY: the pool lives until ekd_pool_free below.
            let home = unsafe { dpdk_sys::ekd_pool_avail(record.pool.as_ptr()) };
            if home != record.frame_count {
                let out = record.frame_count.saturating_sub(home);
                return Err(ShutdownError::FramesOut {
                    pool: record.name.clone(),
                    frame_count: out,
                });
            }
        }
        for record in &pools {
            // SAFETY: all frames are home and no handle is left, as just checked.
            unsafe { dpdk_sys::ekd_pool_free(record.pool.as_ptr()) };
        }
        let (reply, answer) = mpsc::sync_channel(1);
        self.end.send(reply).map_err(|_| ShutdownError::ThreadGone)?;
        let code = answer.recv().map_err(|_| ShutdownError::ThreadGone)?;
        if let Some(thread) = self.thread.take() {
            thread.join().map_err(|_| ShutdownError::ThreadGone)?;
        }
        if code == 0 {
            Ok(())
        } else {
            Err(ShutdownError::Cleanup {
                code,
                text: error_text(code),
            })
        }
    }

    pub(crate) fn inner(&self) -> &Arc<EalInner> {
        &self.inner
    }
}

impl EalInner {
    /// See [`Eal::register_thread`].
    pub(crate) fn register_thread(self: &Arc<Self>) -> Result<LcoreGuard, EalError> {
        // SAFETY: reads a thread-local variable of the calling thread.
        if unsafe { dpdk_sys::ekd_lcore_id() } != u32::MAX {
            return Err(EalError::ThreadRegistered);
        }
        // SAFETY: EAL is up, an `Eal` or what it gave being there. The matching unregister is the guard's,
        // which cannot leave this thread.
        let code = unsafe { dpdk_sys::ekd_thread_register() };
        if code != 0 {
            return Err(EalError::Register {
                code,
                text: error_text(code),
            });
        }
        Ok(LcoreGuard {
            _eal: Arc::clone(self),
            _thread_bound: PhantomData,
        })
    }

    /// Claims an ethdev port: one owner each, as its queues are not for two threads.
    pub(crate) fn claim_port(&self, id: u16) -> bool {
        lock(&self.ports_taken).insert(id)
    }

    pub(crate) fn release_port(&self, id: u16) {
        lock(&self.ports_taken).remove(&id);
    }

    /// DPDK's last words, as the end of a message; what is shown stays for [`Eal::take_log`].
    pub(crate) fn last_words(&self) -> String {
        let mut said = lock(&self.said);
        said.extend(said_lines());
        let excess = said.len().saturating_sub(SAID_LINES_MAX);
        said.drain(..excess);
        last_words(&said)
    }

    pub(crate) fn add_pool(&self, pool: NonNull<RteMempool>, name: &str, frame_count: u32) {
        lock(&self.pools).push(PoolRecord {
            pool,
            name: name.to_owned(),
            frame_count,
        });
    }
}

/// An lcore id, held by the thread that asked for it.
#[derive(Debug)]
pub struct LcoreGuard {
    _eal: Arc<EalInner>,
    /// The id is a thread's own: the guard must not be sent away.
    _thread_bound: PhantomData<*mut ()>,
}

impl Drop for LcoreGuard {
    fn drop(&mut self) {
        // SAFETY: this thread registered itself (the guard is not Send), and EAL is up, as `_eal` keeps
        // `shutdown` from succeeding.
        unsafe { dpdk_sys::ekd_thread_unregister() };
    }
}

/// Why EAL did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum EalError {
    /// This build has no DPDK.
    #[error("DPDK is not available: {0}")]
    Unavailable(&'static str),
    /// EAL was started before, or failed to, and cannot be started twice in a process.
    #[error("DPDK was already initialised in this process, and can be only once; start a new process")]
    Again,
    /// An argument cannot work.
    #[error("DPDK argument {arg:?}: {why}")]
    BadArgument {
        /// The argument.
        arg: String,
        /// What is wrong with it.
        why: String,
    },
    /// Huge pages were asked for and are not there.
    #[error(
        "DPDK needs {wanted_mb} MiB of huge pages, and {free_mb} MiB are free; \
         write a page count to /proc/sys/vm/nr_hugepages, or run without huge pages"
    )]
    NoHugepages {
        /// MiB asked for.
        wanted_mb: u32,
        /// MiB free, all page sizes together.
        free_mb: u64,
    },
    /// More ordinary memory was asked for than there is.
    #[error("DPDK is to take {wanted_mb} MiB without huge pages, and {available_mb} MiB are available")]
    NoMemory {
        /// MiB asked for.
        wanted_mb: u32,
        /// MiB that the system can give without swapping or killing.
        available_mb: u64,
    },
    /// EAL refused.
    #[error(
        "DPDK did not start: {text} (error {code}){said}; check the device's driver and arguments, and that \
         enough memory is free"
    )]
    Init {
        /// Negative errno.
        code: c_int,
        /// Its text.
        text: String,
        /// What DPDK logged last, as the end of a sentence.
        said: String,
    },
    /// A virtual device stands on an interface of the kernel that is not there.
    #[error(
        "device {device}: the kernel has no interface {interface:?} in this network namespace; `ip link` lists \
         those there are"
    )]
    NoInterface {
        /// Name of the device.
        device: String,
        /// Name of the interface.
        interface: String,
    },
    /// There is no such device on the PCI bus.
    #[error("there is no PCI device {0}; `lspci -D` lists those there are")]
    NoPciDevice(String),
    /// A PCI device is the kernel's.
    #[error(
        "PCI device {device} belongs to the kernel (driver: {driver}); give it to DPDK: \
         dpdk-devbind.py --bind=vfio-pci {device}"
    )]
    KernelDriver {
        /// Address of the device.
        device: String,
        /// Name of the kernel's driver, or `none`.
        driver: String,
    },
    /// Another process has it.
    #[error("device {device}: {what} is in use by another process with this program; stop that one first")]
    Taken {
        /// Name of the device.
        device: String,
        /// The kernel's interface, or the PCI address.
        what: String,
    },
    /// Whether another process has it cannot be found out.
    #[error("{what} cannot be claimed for this process: {error}")]
    Claim {
        /// The kernel's interface, or the PCI address.
        what: String,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// The thread for EAL could not be made.
    #[error("the thread for DPDK failed: {0}")]
    Thread(#[source] io::Error),
    /// The calling thread has an lcore id.
    #[error("this thread is registered with DPDK already")]
    ThreadRegistered,
    /// The calling thread could not be registered.
    #[error("this thread cannot be registered with DPDK: {text} (error {code})")]
    Register {
        /// Negative errno.
        code: c_int,
        /// Its text.
        text: String,
    },
}

impl EalError {
    pub(crate) fn bad(arg: &str, why: &str) -> Self {
        EalError::BadArgument {
            arg: arg.to_owned(),
            why: why.to_owned(),
        }
    }
}

/// Why DPDK was not ended.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShutdownError {
    /// A port, a pool's handle or a registered thread is left.
    #[error("DPDK is in use: drop all ports, pools and thread guards first")]
    InUse,
    /// Frames were not dropped.
    #[error("{frame_count} frames of pool {pool} are still out")]
    FramesOut {
        /// Name of the pool.
        pool: String,
        /// How many.
        frame_count: u32,
    },
    /// EAL's thread is gone.
    #[error("the thread of DPDK has ended by itself")]
    ThreadGone,
    /// EAL's cleanup failed.
    #[error("DPDK did not end: {text} (error {code})")]
    Cleanup {
        /// Negative errno.
        code: c_int,
        /// Its text.
        text: String,
    },
}

/// The life of EAL's own thread: it becomes the main lcore, and waits to be told to clean up.
fn eal_thread(
    argv: Vec<CString>,
    started: &SyncSender<Result<(), c_int>>,
    ended: &Receiver<SyncSender<c_int>>,
) {
    // EAL may keep pointers into its arguments, so they stay for good; it is started once, so this is bounded.
    let argv: Vec<*mut c_char> = argv
        .into_iter()
        .map(CString::into_raw)
        .chain([std::ptr::null_mut()])
        .collect();
    let argc = c_int::try_from(argv.len() - 1).unwrap_or(c_int::MAX);
    let argv = Box::leak(argv.into_boxed_slice());
    // Without it, its lines go to stderr: worse to read, nothing more.
    // SAFETY: sets the stream of the log, before EAL and its threads use it; called once, as this is.
    let _ = unsafe { dpdk_sys::ekd_log_capture() };
    // SAFETY: rte_eal_init() wants a NULL-terminated vector of writable strings that stay, which was just
    // made, and to be called once, which STARTED keeps.
    let code = unsafe { dpdk_sys::ekd_eal_init(argc, argv.as_mut_ptr()) };
    let up = code == 0;
    if started.send(if up { Ok(()) } else { Err(code) }).is_err() || !up {
        return;
    }
    // An `Eal` that is dropped without `shutdown` closes the channel: EAL then stays until the process ends.
    if let Ok(reply) = ended.recv() {
        // SAFETY: the main lcore calls this, after `shutdown` made sure that no port, pool, frame or
        // registered thread is left; nothing of EAL is used afterwards, since `Eal` is gone.
        let code = unsafe { dpdk_sys::ekd_eal_cleanup() };
        // A receiver that is gone no longer wants to know.
        let _ = reply.send(code);
    }
}

/// What DPDK logged since the last call, line by line; the shim keeps 16 KiB.
fn said_lines() -> Vec<LogLine> {
    let mut text: Vec<c_char> = vec![0; 16 << 10];
    // SAFETY: `text` has the room that is said; the shim locks.
    let len = unsafe { dpdk_sys::ekd_log_take(text.as_mut_ptr(), text.len() as u32) };
    text.truncate(len as usize);
    let bytes: Vec<u8> = text.into_iter().map(c_char::cast_unsigned).collect();
    log_lines(&String::from_utf8_lossy(&bytes))
}

/// Lines of messages, of which the first has the level: `<5>text`. One whose beginning is lost is a warning.
fn log_lines(text: &str) -> Vec<LogLine> {
    let mut level = LEVEL_WARNING;
    let mut lines = Vec::new();
    for mut line in text.lines() {
        let mark = line.as_bytes().first_chunk();
        if let Some(&[b'<', digit @ b'1'..=b'8', b'>']) = mark {
            level = digit - b'0';
            line = line.get(3..).unwrap_or_default();
        }
        let text = line.trim();
        if !text.is_empty() {
            let text = text.to_owned();
            lines.push(LogLine { level, text });
        }
    }
    lines
}

/// The last three lines, for the end of a message.
fn last_words(lines: &[LogLine]) -> String {
    match lines {
        [] => String::new(),
        lines => {
            let last = lines.get(lines.len().saturating_sub(3)..).unwrap_or(lines);
            let last: Vec<&str> = last.iter().map(|line| line.text.as_str()).collect();
            format!("; DPDK says: {}", last.join(" / "))
        }
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What these locks guard is whole after every statement, so a panic elsewhere leaves it usable.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// DPDK's text for an errno of either sign.
pub(crate) fn error_text(code: c_int) -> String {
    // SAFETY: rte_strerror() returns a static or thread-local string, read before this thread's next call.
    unsafe { CStr::from_ptr(dpdk_sys::ekd_strerror(code)) }
        .to_string_lossy()
        .into_owned()
}

/// Names of all ports.
pub(crate) fn port_names() -> Vec<String> {
    // RTE_MAX_ETHPORTS is 32 in the builds that we know; 64 iterations end a list that never does.
    const PORTS_MAX: usize = 64;
    let mut names = Vec::new();
    let mut from = 0;
    while names.len() < PORTS_MAX {
        let mut id = 0;
        let mut name: [c_char; dpdk_sys::PORT_NAME_SIZE] = [0; dpdk_sys::PORT_NAME_SIZE];
        // SAFETY: EAL is up; `name` has the RTE_ETH_NAME_MAX_LEN bytes that DPDK writes at most.
        if unsafe { dpdk_sys::ekd_port_next(from, &mut id, name.as_mut_ptr()) } != 0 {
            break;
        }
        let bytes: Vec<u8> = name
            .iter()
            .map(|&c| c.cast_unsigned())
            .take_while(|&b| b != 0)
            .collect();
        names.push(String::from_utf8_lossy(&bytes).into_owned());
        let Some(next) = id.checked_add(1) else { break };
        from = next;
    }
    names
}

/// Free huge pages of all sizes, in MiB; 0 if the kernel has none.
fn free_hugepages_mb() -> u64 {
    free_hugepages_mb_in(Path::new("/sys/kernel/mm/hugepages"))
}

fn free_hugepages_mb_in(dir: &Path) -> u64 {
    let Ok(sizes) = fs::read_dir(dir) else { return 0 };
    let mut free_kb = 0u64;
    for size in sizes.flatten() {
        let name = size.file_name();
        let page_kb = name
            .to_str()
            .and_then(|name| name.strip_prefix("hugepages-")?.strip_suffix("kB"));
        let Some(page_kb) = page_kb.and_then(|kb| kb.parse::<u64>().ok()) else {
            continue;
        };
        let Ok(count) = fs::read_to_string(size.path().join("free_hugepages")) else {
            continue;
        };
        let count = count.trim().parse::<u64>().unwrap_or(0);
        free_kb = free_kb.saturating_add(page_kb.saturating_mul(count));
    }
    free_kb / 1024
}

/// Memory of ordinary pages that the system can give, in MiB; `None` where it does not say.
fn available_mb() -> Option<u64> {
    let info = fs::read_to_string("/proc/meminfo").ok()?;
    let line = info.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024)
}

/// The first CPU on which the calling thread may run.
fn first_allowed_cpu() -> Option<u32> {
    let status = fs::read_to_string("/proc/thread-self/status").ok()?;
    let list = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    first_of_cpu_list(list)
}

fn first_of_cpu_list(list: &str) -> Option<u32> {
    list.trim().split([',', '-']).next()?.parse().ok()
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Memory::Auto { mb } => write!(f, "{mb} MiB, huge pages if free"),
            Memory::Hugepages { mb } => write!(f, "{mb} MiB of huge pages"),
            Memory::NoHuge { mb } => write!(f, "{mb} MiB without huge pages"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn argv(args: &EalArgs, free_mb: u64) -> Vec<String> {
        args.to_argv(free_mb, Some(256), Some(3))
            .expect("arguments are fine")
            .into_iter()
            .map(|arg| arg.into_string().expect("arguments are text"))
            .collect()
    }

    #[test]
    fn hugepages_are_taken_if_free() {
        let args = EalArgs::default()
            .vdev("net_pcap0", &[("rx_pcap", "/a b/c.pcap")])
            .extra("--iova-mode=va");
        let common = ["evenkeel", "--no-telemetry", "--lcores=0@3"];
        let rest = [
            "-m",
            "256",
            "--log-level=warning",
            "--vdev=net_pcap0,rx_pcap=/a b/c.pcap",
            "--no-pci",
            "--iova-mode=va",
        ];
        assert_eq!(argv(&args, 256), [&common[..], &["--in-memory"], &rest].concat());
        assert_eq!(
            argv(&args, 255),
            [&common[..], &["--no-huge", "--no-shconf"], &rest].concat()
        );
    }

    #[test]
    fn hugepages_that_are_not_there_are_named() {
        let err = EalArgs::new(Memory::Hugepages { mb: 64 })
            .to_argv(63, None, None)
            .expect_err("63 < 64");
        let text = err.to_string();
        assert!(text.contains("64 MiB") && text.contains("63 MiB"), "{text}");
        assert!(text.contains("/proc/sys/vm/nr_hugepages"), "{text}");
    }

    #[test]
    fn memory_that_is_not_there_is_named() {
        let without = |args: EalArgs, available| args.to_argv(0, available, None).map(|_| ());
        let args = || EalArgs::new(Memory::NoHuge { mb: 64 });
        let text = without(args(), Some(63)).expect_err("63 < 64").to_string();
        assert!(text.contains("64 MiB") && text.contains("63 MiB"), "{text}");
        assert!(without(args(), Some(64)).is_ok());
        assert!(without(args(), None).is_ok(), "a system that does not say");
        let auto = EalArgs::new(Memory::Auto { mb: 64 });
        assert!(matches!(without(auto, Some(63)), Err(EalError::NoMemory { .. })));
        let huge = EalArgs::new(Memory::Hugepages { mb: 64 });
        assert!(huge.to_argv(64, Some(0), None).is_ok(), "of other pages");
    }

    #[test]
    fn vdevs_that_eal_would_drop_silently_are_refused() {
        let long = "x".repeat(64);
        for (name, value, want) in [
            ("net_pcap0", "/tmp/a,b.pcap", "','"),
            ("net_pcap0", "/tmp/[a].pcap", "'['"),
            ("net_pcap0", "/tmp/a\nb", "'\\n'"),
            ("", "x", "1 to 63"),
            ("net pcap", "x", "1 to 63"),
            (long.as_str(), "x", "1 to 63"),
        ] {
            let args = EalArgs::default().vdev(name, &[("rx_pcap", value)]);
            let text = args
                .to_argv(0, None, None)
                .expect_err("must be refused")
                .to_string();
            assert!(text.contains(want), "{text}");
        }
        let twice = EalArgs::default().vdev("net_null0", &[]).vdev("net_null0", &[]);
        assert!(
            twice
                .to_argv(0, None, None)
                .expect_err("same name")
                .to_string()
                .contains("two devices")
        );
        let zero = EalArgs::default().extra("--a\0b");
        assert!(
            zero.to_argv(0, None, None)
                .expect_err("zero byte")
                .to_string()
                .contains("zero byte")
        );
    }

    #[test]
    fn pci_devices_that_were_not_named_are_not_probed() {
        let device = |text| DeviceSpec::parse(text).expect("a device");
        let args = EalArgs::default()
            .device(device("03:00.0"))
            .device(device("net_null0"));
        let argv = argv(&args, 0);
        assert!(argv.contains(&"--allow=0000:03:00.0".to_owned()), "{argv:?}");
        assert!(argv.contains(&"--vdev=net_null0".to_owned()), "{argv:?}");
        assert!(!argv.contains(&"--no-pci".to_owned()), "{argv:?}");
    }

    #[test]
    fn the_last_words_end_a_message() {
        let lines = |n: usize| log_lines(&(0..n).map(|n| format!("<5>line {n}\n")).collect::<String>());
        assert_eq!(last_words(&lines(0)), "");
        assert_eq!(last_words(&lines(1)), "; DPDK says: line 0");
        assert_eq!(last_words(&lines(5)), "; DPDK says: line 2 / line 3 / line 4");
    }

    #[test]
    fn lines_have_the_level_of_their_message() {
        let said = "the end of a line\n<4>EAL: one\n and two \n\n<5>PMD: three\n<9>four";
        let lines = log_lines(said);
        let lines: Vec<_> = lines.iter().map(|l| (l.level, l.text.as_str())).collect();
        let want = [
            (5, "the end of a line"),
            (4, "EAL: one"),
            (4, "and two"),
            (5, "PMD: three"),
            (5, "<9>four"),
        ];
        assert_eq!(lines, want);
        assert_eq!(log_lines(""), []);
    }

    #[test]
    fn cpu_lists_are_read() {
        assert_eq!(first_of_cpu_list("\t0-1\n"), Some(0));
        assert_eq!(first_of_cpu_list("\t5,7-9\n"), Some(5));
        assert_eq!(first_of_cpu_list("\t130\n"), Some(130));
        assert_eq!(first_of_cpu_list("\t\n"), None);
    }
}
