//! The interfaces of a node: opened together, with a queue each way for every worker, and shared out among them.

use std::collections::BTreeMap;
use std::ffi::{CString, c_int};
use std::sync::{Arc, Mutex};

use evenkeel_core::hash::Toeplitz;
use evenkeel_core::lport::Steering;
use evenkeel_core::port::{BURST, PortId};
use evenkeel_core::worker::BucketMap;

use crate::eal::{Eal, EalInner, error_text, lock, port_names};
use crate::handoff::Ring;
use crate::mbuf::Mbuf;
use crate::mempool::{Mempool, MempoolConfig, MempoolError};
use crate::port::{DpdkPort, Queues};
use crate::rss::{self, RssTrust};
use crate::tap::{self, Tap, TapConfig, TapError, TapStats, TapThread};

/// Interfaces of a node at most.
pub const INTERFACES_MAX: usize = 16;
/// Workers of a node at most.
pub const WORKERS_MAX: u16 = 128;
/// Frames that wait for an interface from those who have no queue of it, at most.
const OUTBOX_LEN: usize = 1024;
/// Longest chained frame that net_pcap writes whole; it cuts longer ones. It does not announce that it
/// takes chains.
const NET_PCAP_CHAIN_MAX: usize = 0x3F00;

/// An interface to open.
#[derive(Clone, Debug)]
pub struct InterfaceConfig {
    /// Name of the DPDK device: `net_pcap0`, or a PCI address such as `0000:03:00.0`.
    pub name: String,
    /// Receive descriptors wanted; the driver's limits apply.
    pub rx_desc_count: u16,
    /// Transmit descriptors wanted; the driver's limits apply.
    pub tx_desc_count: u16,
    /// MTU in bytes; `None`: the driver's, mostly 1,500.
    pub mtu: Option<u16>,
    /// Whether frames to any address are received: what answers for virtual MAC addresses, or for another than
    /// the device's own, needs that.
    pub promiscuous: bool,
    /// The addresses that it needs, for a NIC that refuses promiscuous mode: filters let frames to them in.
    pub macs: Vec<[u8; 6]>,
}

impl InterfaceConfig {
    /// An interface with 1,024 descriptors each way that receives frames to any address.
    pub fn new(name: &str) -> Self {
        InterfaceConfig {
            name: name.to_owned(),
            rx_desc_count: 1024,
            tx_desc_count: 1024,
            mtu: None,
            promiscuous: true,
            macs: Vec::new(),
        }
    }
}

/// What interfaces are opened with. The steering is the cluster's.
#[derive(Clone, Debug)]
pub struct DevicesConfig {
    /// Interfaces; the index of one is its [`PortId`].
    pub interfaces: Vec<InterfaceConfig>,
    /// Interfaces of the kernel for what is not the engine's; at most one for each interface.
    pub taps: Vec<(PortId, TapConfig)>,
    /// Workers, each of which gets a port.
    pub workers: u16,
    /// Buckets, and the hash that the NICs' are compared with.
    pub steering: Arc<Steering>,
    /// The key of that hash.
    pub rss_key: Vec<u8>,
    /// Which worker serves which bucket.
    pub buckets: BucketMap,
    /// Frames that wait for a worker from the others, at most.
    pub handoff_len: usize,
    /// The pool of each NUMA socket; `None`: as many frames of 2 KiB as can be under way at once.
    pub pool: Option<MempoolConfig>,
    /// Frames that a pool has for each interface of its socket; `None`: as many as `pool` says.
    pub frames_per_interface: Option<u32>,
}

impl DevicesConfig {
    /// Interfaces for so many workers, whose buckets are dealt in turn.
    pub fn new(
        interfaces: Vec<InterfaceConfig>,
        workers: u16,
        steering: Arc<Steering>,
        rss_key: &[u8],
    ) -> Self {
        DevicesConfig {
            interfaces,
            taps: Vec::new(),
            workers,
            steering,
            rss_key: rss_key.to_vec(),
            buckets: BucketMap::dealt(workers),
            handoff_len: 1024,
            pool: None,
            frames_per_interface: None,
        }
    }

    /// Frames that can be under way at once: in descriptors, rings, bursts and caches.
    pub fn frames_needed(&self) -> u32 {
        let workers = u64::from(self.workers);
        let cache = u64::from(MempoolConfig::default().cache_count);
        let descriptors = |i: &InterfaceConfig| u64::from(i.rx_desc_count) + u64::from(i.tx_desc_count);
        let per_worker = self.interfaces.iter().map(descriptors).sum::<u64>()
            + self.handoff_len as u64
            // A thread's cache holds up to one and a half times its size.
            + cache * 3 / 2
            + 4 * BURST as u64;
        let outboxes = self.interfaces.len() as u64 * OUTBOX_LEN as u64;
        let taps = self.taps.len() as u64 * (tap::TAP_QUEUE_LEN as u64 + cache * 3 / 2);
        let frames = workers * per_worker + outboxes + taps;
        // Pools are best at one less than a power of two.
        let frames = frames.next_power_of_two() - 1;
        u32::try_from(frames).unwrap_or(u32::MAX)
    }

    /// Memory that EAL is to reserve for the pool of one NUMA socket and for the queues, in MiB
    /// ([`Memory`](crate::Memory)).
    pub fn memory_mb(&self) -> u32 {
        /// Of a frame beside its buffer: the mbuf, the pool's header, what alignment takes.
        const FRAME_OVERHEAD: u64 = 320;
        /// Of a descriptor in rings of drivers, at most, and of its place in their tables.
        const DESC_LEN: u64 = 128;
        /// Of EAL and drivers for themselves.
        const SPARE_MB: u64 = 32;
        let pool = self.pool_at(None, &vec![None; self.interfaces.len()]);
        let frames = u64::from(pool.frame_count) * (u64::from(pool.room_len) + FRAME_OVERHEAD);
        let descriptors = |i: &InterfaceConfig| u64::from(i.rx_desc_count) + u64::from(i.tx_desc_count);
        let descriptors = self.interfaces.iter().map(descriptors).sum::<u64>() * u64::from(self.workers);
        let mb = (frames + descriptors * DESC_LEN).div_ceil(1 << 20) + SPARE_MB;
        u32::try_from(mb).unwrap_or(u32::MAX)
    }

    /// The pool of a NUMA socket, of interfaces that are at these: all pools together have no more than memory was asked for.
    fn pool_at(&self, socket: Option<u16>, sockets: &[Option<u16>]) -> MempoolConfig {
        let mut pool = self.pool_config();
        if let Some(frames) = self.frames_per_interface {
            let own = sockets.iter().filter(|at| **at == socket).count();
            pool.frame_count = frames.saturating_mul(u32::try_from(own).unwrap_or(u32::MAX));
        }
        pool
    }

    fn pool_config(&self) -> MempoolConfig {
        self.pool.unwrap_or(MempoolConfig {
            frame_count: self.frames_needed(),
            ..MempoolConfig::default()
        })
    }
}

/// Counters that the driver keeps.
pub type DriverStats = dpdk_sys::Stats;

/// State of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Whether it carries frames.
    pub up: bool,
    /// Whether both directions may send at once.
    pub full_duplex: bool,
    /// Speed in Mbit/s, if known.
    pub speed_mbps: Option<u32>,
}

/// Who steers the frames of an interface to the workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steered {
    /// The NIC, by the cluster's key and table of buckets; workers hand over what it does not know.
    Nic,
    /// The NIC, by the cluster's key and another table: workers hand over what that brings to another.
    NicByOtherTable,
    /// The workers: whoever receives a frame hands it over.
    Workers,
}

/// Which frames an interface receives, by their destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reception {
    /// All of them.
    All,
    /// Those to its own address, to those of [`InterfaceConfig::macs`], and all multicast ones.
    Filters,
    /// What a virtual device without such a choice shows.
    AsItIs,
}

/// Opened and started interfaces, and what of them is not a worker's: the pools, and the kernel's side.
///
/// To be dropped before [`Eal::shutdown`], as the ports.
#[derive(Debug)]
pub struct Devices {
    control: Control,
    _taps: Option<TapThread>,
}

/// A view of the interfaces for the threads that are no workers; as many as wanted.
#[derive(Clone, Debug)]
pub struct Control {
    devices: Arc<[Arc<Device>]>,
    pools: Arc<[Mempool]>,
}

impl Devices {
    /// Opens and starts interfaces; gives each worker its port, in their order.
    ///
    /// # Errors
    /// What cannot be opened; what was opened before it is closed.
    pub fn open(eal: &Eal, config: &DevicesConfig) -> Result<(Devices, Vec<DpdkPort>), PortError> {
        if !(1..=WORKERS_MAX).contains(&config.workers) {
            return Err(PortError::Workers(config.workers));
        }
        let sockets: Vec<_> = config.interfaces.iter().map(|i| socket_of(&i.name)).collect();
        let mut pools: BTreeMap<Option<u16>, Mempool> = BTreeMap::new();
        let mut pool_of = |socket: Option<u16>| {
            if let Some(pool) = pools.get(&socket) {
                return Ok(pool.clone());
            }
            let name = match socket {
                Some(socket) => format!("frames-{socket}"),
                None => "frames".to_owned(),
            };
            let pool = Mempool::create_on(eal, &name, config.pool_at(socket, &sockets), socket)?;
            pools.insert(socket, pool.clone());
            Ok(pool)
        };
        let devices = open_all(
            eal,
            &config.interfaces,
            config.workers,
            Some(config),
            &mut pool_of,
        )?;
        let outboxes = config.workers > 1 || !config.taps.is_empty();
        let mut devices: Vec<Device> = devices;
        if outboxes {
            for device in &mut devices {
                device.outboxes = (0..device.tx_queues).map(|_| Ring::new(OUTBOX_LEN)).collect();
            }
        }
        let taps = open_taps(eal, &mut devices, &config.taps)?;
        let devices: Arc<[Arc<Device>]> = devices.into_iter().map(Arc::new).collect();
        let ports = share_out(
            &devices,
            config.workers,
            config.handoff_len,
            Some(&config.steering),
        );
        let control = Control {
            devices,
            pools: pools.into_values().collect(),
        };
        Ok((Devices { control, _taps: taps }, ports))
    }

    /// The view of the interfaces for other threads.
    pub fn control(&self) -> &Control {
        &self.control
    }
}

impl DpdkPort {
    /// Opens and starts interfaces for a single worker; received frames come from `pool`. There is no way to the
    /// kernel.
    ///
    /// # Errors
    /// An interface that does not exist, is in use or cannot be set up; those opened before it are closed.
    pub fn open(eal: &Eal, interfaces: &[InterfaceConfig], pool: &Mempool) -> Result<DpdkPort, PortError> {
        let devices = open_all(eal, interfaces, 1, None, &mut |_| Ok(pool.clone()))?;
        let devices: Arc<[Arc<Device>]> = devices.into_iter().map(Arc::new).collect();
        let port = share_out(&devices, 1, 1, None).pop();
        port.ok_or(PortError::Workers(0))
    }
}

impl Control {
    /// How many interfaces there are.
    pub fn interface_count(&self) -> usize {
        self.devices.len()
    }

    /// Name of an interface's device.
    pub fn name(&self, port: PortId) -> Option<&str> {
        Some(&self.device(port)?.name)
    }

    /// MAC address of an interface's device.
    pub fn mac(&self, port: PortId) -> Option<[u8; 6]> {
        Some(self.device(port)?.mac)
    }

    /// MTU of an interface, in bytes.
    pub fn mtu(&self, port: PortId) -> Option<u16> {
        Some(self.device(port)?.mtu)
    }

    /// Receive and transmit queues of an interface.
    pub fn queues(&self, port: PortId) -> Option<(u16, u16)> {
        let device = self.device(port)?;
        Some((device.rx_queues, device.tx_queues))
    }

    /// Who steers the frames of an interface.
    pub fn steered(&self, port: PortId) -> Option<Steered> {
        Some(self.device(port)?.steered)
    }

    /// Which frames an interface receives.
    pub fn reception(&self, port: PortId) -> Option<Reception> {
        Some(self.device(port)?.reception)
    }

    /// The table by which an interface's NIC chooses queues, as the driver has it now; `None` if it has none.
    pub fn reta(&self, port: PortId) -> Option<Vec<u16>> {
        let device = self.device(port)?;
        let mut queues = vec![0; usize::from(device.reta_size)];
        let _turn = lock(&device.control);
        // SAFETY: the port is open, as we hold it; `queues` has `reta_size` places.
        let code = unsafe { dpdk_sys::ekd_port_reta(device.id, queues.as_mut_ptr(), device.reta_size) };
        (code == 0 && !queues.is_empty()).then_some(queues)
    }

    /// State of an interface's link, without waiting; `None` if there is no such interface, or the driver
    /// does not say.
    pub fn link(&self, port: PortId) -> Option<Link> {
        self.device(port)?.link()
    }

    /// The driver's counters of an interface; `None` if there is no such interface, or it has none.
    pub fn driver_stats(&self, port: PortId) -> Option<DriverStats> {
        self.device(port)?.driver_stats()
    }

    /// What passed between an interface and the kernel; `None` if there is no way between them.
    pub fn tap_stats(&self, port: PortId) -> Option<TapStats> {
        Some(self.device(port)?.tap.as_ref()?.stats())
    }

    /// The pools, one for each NUMA socket that has an interface.
    pub fn pools(&self) -> &[Mempool] {
        &self.pools
    }

    fn device(&self, port: PortId) -> Option<&Device> {
        self.devices.get(usize::from(port.0)).map(|device| &**device)
    }
}

/// A started DPDK port: its queues are the workers', the rest is asked for by whoever holds it. Stopped and
/// closed when the last one lets go.
#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) id: u16,
    pub(crate) name: String,
    pub(crate) mac: [u8; 6],
    pub(crate) mtu: u16,
    /// Longest chained frame that may be sent.
    pub(crate) chain_len_max: usize,
    /// Transports whose checksum the driver makes ([`dpdk_sys::PortSetup::tx_checksum`]).
    pub(crate) tx_checksum: u8,
    pub(crate) rx_queues: u16,
    pub(crate) tx_queues: u16,
    /// Whether the driver reports hashes that should be the canonical ones.
    pub(crate) rx_hash: bool,
    steered: Steered,
    reta_size: u16,
    reception: Reception,
    /// By transmit queue, for those who have none; empty if nobody needs that.
    pub(crate) outboxes: Vec<Arc<Ring<Mbuf>>>,
    pub(crate) tap: Option<Arc<Tap>>,
    pub(crate) pool: Mempool,
    /// DPDK wants calls that are not for a queue one at a time.
    control: Mutex<()>,
    eal: Arc<EalInner>,
}

fn open_all(
    eal: &Eal,
    interfaces: &[InterfaceConfig],
    workers: u16,
    config: Option<&DevicesConfig>,
    pool_of: &mut dyn FnMut(Option<u16>) -> Result<Mempool, MempoolError>,
) -> Result<Vec<Device>, PortError> {
    if interfaces.is_empty() || interfaces.len() > INTERFACES_MAX {
        return Err(PortError::Count(interfaces.len()));
    }
    interfaces
        .iter()
        .map(|interface| Device::open(eal, interface, workers, config, pool_of))
        .collect()
}

fn open_taps(
    eal: &Eal,
    devices: &mut [Device],
    taps: &[(PortId, TapConfig)],
) -> Result<Option<TapThread>, PortError> {
    if taps.is_empty() {
        return Ok(None);
    }
    let (wake, woken) = tap::wake_pair().map_err(|error| PortError::TapThread(error.to_string()))?;
    let mut opened = Vec::new();
    for (port, config) in taps {
        let free = devices
            .get_mut(usize::from(port.0))
            .filter(|device| device.tap.is_none());
        let device = free.ok_or(PortError::TapOf(*port))?;
        let outbox = device.outboxes.first().ok_or(PortError::TapOf(*port))?;
        let tap = Tap::open(config, device.mac, device.mtu, &device.pool, outbox, &wake)?;
        let tap = Arc::new(tap);
        device.tap = Some(tap.clone());
        opened.push(tap);
    }
    let thread = TapThread::start(eal.inner(), opened, wake, woken)
        .map_err(|error| PortError::TapThread(error.to_string()))?;
    Ok(Some(thread))
}

/// Gives each worker its queues: of each interface those with its own number.
fn share_out(
    devices: &Arc<[Arc<Device>]>,
    workers: u16,
    handoff_len: usize,
    steering: Option<&Arc<Steering>>,
) -> Vec<DpdkPort> {
    let rings: Arc<[Arc<Ring<Mbuf>>]> = match workers {
        1 => Arc::new([]),
        _ => (0..workers).map(|_| Ring::new(handoff_len)).collect(),
    };
    let toeplitz: Option<Arc<Toeplitz>> = devices
        .iter()
        .any(|device| device.rx_hash)
        .then(|| steering.map(|steering| Arc::new(steering.toeplitz().clone())))
        .flatten();
    let port = |worker: u16| {
        let queues = |device: &Arc<Device>| Queues {
            rx: (worker < device.rx_queues).then_some(worker),
            tx: worker % device.tx_queues.max(1),
            owns_tx: worker < device.tx_queues,
            pending: Vec::with_capacity(BURST),
            trust: (device.rx_hash && toeplitz.is_some()).then(RssTrust::default),
            device: device.clone(),
        };
        DpdkPort::new(
            worker,
            devices.iter().map(queues).collect(),
            rings.clone(),
            toeplitz.clone(),
        )
    };
    (0..workers).map(port).collect()
}

impl Device {
    fn open(
        eal: &Eal,
        config: &InterfaceConfig,
        workers: u16,
        node: Option<&DevicesConfig>,
        pool_of: &mut dyn FnMut(Option<u16>) -> Result<Mempool, MempoolError>,
    ) -> Result<Device, PortError> {
        let name = &config.name;
        let missing = || PortError::NoSuchPort {
            name: name.clone(),
            known: port_names(),
            said: eal.inner().last_words(),
        };
        let id = find_device(name).ok_or_else(missing)?;
        // From here on the drop of the claim gives the port back.
        let claim = Claim::take(eal.inner(), id).ok_or_else(|| PortError::InUse(name.clone()))?;
        let failed = |code| PortError::Configure {
            name: name.clone(),
            code,
            text: error_text(code),
            said: eal.inner().last_words(),
        };
        let mut caps = dpdk_sys::PortCaps::default();
        // SAFETY: the port is stopped and ours (claimed above); `caps` is writable and of the shim's layout.
        match unsafe { dpdk_sys::ekd_port_caps(id, &mut caps) } {
            0 => {}
            code => return Err(failed(code)),
        }
        let pool = pool_of(u16::try_from(caps.socket).ok())?;
        let queues = |most: u16| workers.min(most).max(1);
        let (rx_queues, tx_queues) = (queues(caps.rx_queues), queues(caps.tx_queues));
        // With one queue a NIC's hash steers nothing, but saves making it.
        let key = node
            .filter(|_| caps.reta_size > 0)
            .and_then(|node| rss::key_of_len(&node.rss_key, caps.key_len));
        let mut setup = dpdk_sys::PortSetup {
            rx_queues,
            tx_queues,
            rx_desc: config.rx_desc_count,
            tx_desc: config.tx_desc_count,
            mtu: config.mtu.unwrap_or(0),
            ..dpdk_sys::PortSetup::default()
        };
        let mut has_rss = false;
        if let Some(key) = &key {
            let mut with_rss = dpdk_sys::PortSetup {
                key: key.as_ptr(),
                key_len: u8::try_from(key.len()).unwrap_or(u8::MAX),
                ..setup
            };
            // SAFETY: as above; the pool lives until `Eal::shutdown`, which the device's `eal` prevents; the key
            // has `key_len` bytes and stays until the call returns.
            has_rss = unsafe { dpdk_sys::ekd_port_configure(id, pool.as_ptr(), &mut with_rss) } == 0;
            if has_rss {
                setup = with_rss;
            }
        }
        if !has_rss {
            // SAFETY: as above, without a key.
            match unsafe { dpdk_sys::ekd_port_configure(id, pool.as_ptr(), &mut setup) } {
                0 => {}
                code => return Err(failed(code)),
            }
        }
        let driver: Vec<u8> = caps.driver.iter().copied().take_while(|&b| b != 0).collect();
        let chain_len_max = match (setup.tx_multi_seg, driver.as_slice()) {
            (0, b"net_pcap") => NET_PCAP_CHAIN_MAX,
            (0, _) => 0,
            _ => usize::MAX,
        };
        // SAFETY: configured just now, with its queues.
        match unsafe { dpdk_sys::ekd_port_start(id) } {
            0 => {}
            code => {
                return Err(PortError::Start {
                    name: name.clone(),
                    code,
                    text: error_text(code),
                    said: eal.inner().last_words(),
                });
            }
        }
        let mut device = Device {
            id,
            name: name.clone(),
            mac: setup.mac,
            mtu: setup.mtu,
            chain_len_max,
            tx_checksum: setup.tx_checksum,
            rx_queues,
            tx_queues,
            rx_hash: has_rss && setup.rx_hash != 0,
            steered: Steered::Workers,
            reta_size: if has_rss { caps.reta_size } else { 0 },
            reception: Reception::AsItIs,
            outboxes: Vec::new(),
            tap: None,
            pool,
            control: Mutex::new(()),
            eal: claim.keep(),
        };
        device.reception = device.receive(config)?;
        if let Some(node) = node.filter(|_| has_rss && rx_queues > 1) {
            device.steer(node);
        }
        Ok(device)
    }

    /// Asks for the frames that are wanted.
    fn receive(&self, config: &InterfaceConfig) -> Result<Reception, PortError> {
        let _turn = lock(&self.control);
        // SAFETY: started, and ours; what a driver without filters cannot do it leaves.
        let multicast = || unsafe { dpdk_sys::ekd_port_allmulticast(self.id) };
        if !config.promiscuous {
            multicast();
            return Ok(Reception::Filters);
        }
        // SAFETY: as above.
        let refused = unsafe { dpdk_sys::ekd_port_promiscuous(self.id) };
        if refused == 0 {
            return Ok(Reception::All);
        }
        multicast();
        // SAFETY: as above; the address has 6 bytes, and is only read.
        let add = |mac: &[u8; 6]| unsafe { dpdk_sys::ekd_port_mac_add(self.id, mac.as_ptr()) };
        let needed = config.macs.iter().filter(|mac| **mac != self.mac);
        let failed = needed.map(|mac| (*mac, add(mac))).find(|(_, code)| *code != 0);
        match reception_without(&self.name, refused, failed.is_none() && !config.macs.is_empty()) {
            Some(reception) => Ok(reception),
            None => Err(PortError::Deaf {
                name: self.name.clone(),
                text: error_text(refused),
                filter: failed.map_or_else(String::new, |(mac, code)| {
                    format!(
                        ", nor a filter for {} ({})",
                        evenkeel_core::wire::MacAddr(mac),
                        error_text(code)
                    )
                }),
                said: self.eal.last_words(),
            }),
        }
    }

    /// Tells the NIC which bucket goes to which queue.
    fn steer(&mut self, node: &DevicesConfig) {
        let buckets = node.steering.buckets();
        let table = rss::reta(&node.buckets, buckets, self.reta_size, self.rx_queues);
        let _turn = lock(&self.control);
        // SAFETY: the port is started; the table has as many entries as the driver said.
        let code = unsafe { dpdk_sys::ekd_port_set_reta(self.id, table.as_ptr(), self.reta_size) };
        let fits = self.reta_size.is_multiple_of(buckets) && self.rx_queues == node.workers;
        self.steered = if code == 0 && fits {
            Steered::Nic
        } else {
            Steered::NicByOtherTable
        };
    }

    pub(crate) fn link(&self) -> Option<Link> {
        let mut link = dpdk_sys::Link::default();
        let _turn = lock(&self.control);
        // SAFETY: the port is open, as we hold it; `link` is writable and of the shim's layout.
        if unsafe { dpdk_sys::ekd_port_link(self.id, &mut link) } != 0 {
            return None;
        }
        let speed_mbps = (link.speed_mbps != u32::MAX && link.speed_mbps != 0).then_some(link.speed_mbps);
        Some(Link {
            up: link.up != 0,
            full_duplex: link.full_duplex != 0,
            speed_mbps,
        })
    }

    pub(crate) fn driver_stats(&self) -> Option<DriverStats> {
        let mut stats = DriverStats::default();
        let _turn = lock(&self.control);
        // SAFETY: the port is open, as we hold it; `stats` is writable and of the shim's layout.
        (unsafe { dpdk_sys::ekd_port_stats(self.id, &mut stats) } == 0).then_some(stats)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: the port is open and ours; nobody is in its queues, as the ports that have them hold the device.
        // Closing returns the driver's frames to their pools. A driver that fails here has been told to stop twice.
        unsafe {
            if self.reception == Reception::All {
                dpdk_sys::ekd_port_not_promiscuous(self.id);
            }
            dpdk_sys::ekd_port_stop(self.id);
            dpdk_sys::ekd_port_close(self.id);
        }
        self.eal.release_port(self.id);
    }
}

/// A port that is claimed and not yet open.
struct Claim {
    eal: Option<Arc<EalInner>>,
    id: u16,
}

impl Claim {
    fn take(eal: &Arc<EalInner>, id: u16) -> Option<Claim> {
        eal.claim_port(id).then(|| Claim {
            eal: Some(eal.clone()),
            id,
        })
    }

    /// The claim is the device's from now on.
    fn keep(mut self) -> Arc<EalInner> {
        self.eal.take().unwrap_or_default()
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(eal) = &self.eal {
            eal.release_port(self.id);
        }
    }
}

/// What an interface receives that refused promiscuous mode; `None`: not what it is to answer to.
fn reception_without(name: &str, refused: c_int, has_filters: bool) -> Option<Reception> {
    /// `ENOTSUP` of Linux, negated: the driver has no such function.
    const NOT_SUPPORTED: c_int = -95;
    if has_filters {
        return Some(Reception::Filters);
    }
    // A virtual device that has neither has nothing that would keep frames away. A NIC always does.
    let is_virtual = name.starts_with("net_") || name.starts_with("eth_");
    (is_virtual && refused == NOT_SUPPORTED).then_some(Reception::AsItIs)
}

/// The port of a device.
fn find_device(name: &str) -> Option<u16> {
    // EAL names the ports of net_ring after the driver and the device.
    find_port(name).or_else(|| find_port(&format!("net_ring_{name}")))
}

/// The NUMA socket of a device; `None`: it has none, or there is no such device, which is said where it is opened.
fn socket_of(name: &str) -> Option<u16> {
    let id = find_device(name)?;
    let mut caps = dpdk_sys::PortCaps::default();
    // SAFETY: EAL is up, as the caller has an `Eal`, and has the port; it is asked and not changed, and `caps` is writable and of
    // the shim's layout.
    let code = unsafe { dpdk_sys::ekd_port_caps(id, &mut caps) };
    (code == 0).then(|| u16::try_from(caps.socket).ok()).flatten()
}

fn find_port(name: &str) -> Option<u16> {
    let name = CString::new(name).ok()?;
    let mut id = 0;
    // SAFETY: EAL is up, as the caller has an `Eal`; the name is a C string and `id` is writable.
    (unsafe { dpdk_sys::ekd_port_by_name(name.as_ptr(), &mut id) } == 0).then_some(id)
}

/// Why an interface was not opened.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// There are 1 to [`INTERFACES_MAX`].
    #[error("a node has 1 to {INTERFACES_MAX} interfaces, not {0}")]
    Count(usize),
    /// There are 1 to [`WORKERS_MAX`].
    #[error("a node has 1 to {WORKERS_MAX} workers, not {0}")]
    Workers(u16),
    /// DPDK has no port of this name. EAL starts without devices that fail.
    #[error(
        "DPDK has no port {name:?}: its device is missing, did not take its arguments, or may not be opened (who is not \
         root needs CAP_NET_RAW for net_af_packet, and the files of /dev/vfio for PCI); ports there are: {}{said}",
        list(known)
    )]
    NoSuchPort {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: Vec<String>,
        /// What DPDK logged last, as the end of a sentence.
        said: String,
    },
    /// It is open already.
    #[error("DPDK port {0:?} is in use by this process")]
    InUse(String),
    /// Its queues could not be set up.
    #[error("DPDK port {name:?} cannot be set up: {text} (error {code}){said}")]
    Configure {
        /// Name of the port.
        name: String,
        /// Negative errno.
        code: c_int,
        /// Its text.
        text: String,
        /// What DPDK logged last, as the end of a sentence.
        said: String,
    },
    /// It did not start.
    #[error("DPDK port {name:?} does not start: {text} (error {code}){said}")]
    Start {
        /// Name of the port.
        name: String,
        /// Negative errno.
        code: c_int,
        /// Its text.
        text: String,
        /// What DPDK logged last, as the end of a sentence.
        said: String,
    },
    /// It would never receive what is for a virtual router.
    #[error(
        "DPDK port {name:?} takes neither promiscuous mode ({text}){filter}: it would not receive what is for the virtual MAC \
         address; for an SR-IOV function, `ip link set DEV vf N trust on` on its host{said}"
    )]
    Deaf {
        /// Name of the port.
        name: String,
        /// Why there is no promiscuous mode.
        text: String,
        /// Which filter failed, and why, as a part of a sentence.
        filter: String,
        /// What DPDK logged last, as the end of a sentence.
        said: String,
    },
    /// The pool for its frames could not be made.
    #[error(transparent)]
    Pool(#[from] MempoolError),
    /// The kernel's side of an interface could not be made.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// There is no such interface, or it has a kernel's side already.
    #[error("{0} has no place for an interface of the kernel: there is no such port, or it has one")]
    TapOf(PortId),
    /// The thread that serves the kernel's interfaces could not be made.
    #[error("the thread for the kernel's interfaces failed: {0}")]
    TapThread(String),
}

fn list(names: &[String]) -> String {
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use evenkeel_core::hash::MICROSOFT_KEY;

    use super::*;

    #[test]
    fn a_nic_that_refuses_promiscuous_mode_needs_filters() {
        let (pci, vdev) = ("0000:03:00.0", "net_ring0");
        for name in [pci, vdev] {
            for refused in [-1, -95] {
                assert_eq!(reception_without(name, refused, true), Some(Reception::Filters));
            }
        }
        assert_eq!(
            reception_without(pci, -95, false),
            None,
            "an SR-IOV function without trust"
        );
        assert_eq!(reception_without(pci, -1, false), None);
        assert_eq!(
            reception_without(vdev, -1, false),
            None,
            "it has the mode, and refuses it"
        );
        assert_eq!(reception_without(vdev, -95, false), Some(Reception::AsItIs));
    }

    #[test]
    fn a_pool_has_frames_for_the_interfaces_of_its_own_socket_only() {
        let steering = Arc::new(Steering::new(&MICROSOFT_KEY, 64).expect("full rank"));
        let interfaces = ["a", "b", "c"].map(InterfaceConfig::new).to_vec();
        let mut config = DevicesConfig::new(interfaces, 1, steering, &MICROSOFT_KEY);
        config.frames_per_interface = Some(16_384);
        let sockets = [Some(0), Some(1), Some(0)];
        let frames = |socket| config.pool_at(socket, &sockets).frame_count;
        assert_eq!((frames(Some(0)), frames(Some(1))), (2 * 16_384, 16_384));
        // On a machine with one socket, and of virtual devices, there is one pool of all.
        assert_eq!(config.pool_at(None, &[None; 3]).frame_count, 3 * 16_384);
        config.frames_per_interface = Some(u32::MAX);
        assert_eq!(config.pool_at(None, &[None; 3]).frame_count, u32::MAX);
        config.frames_per_interface = None;
        assert_eq!(
            config.pool_at(Some(1), &sockets).frame_count,
            config.frames_needed()
        );
    }

    #[test]
    fn a_pool_has_a_frame_for_everything_that_can_hold_one() {
        let steering = Arc::new(Steering::new(&MICROSOFT_KEY, 64).expect("full rank"));
        let interfaces = vec![InterfaceConfig::new("a"), InterfaceConfig::new("b")];
        let mut config = DevicesConfig::new(interfaces, 4, steering, &MICROSOFT_KEY);
        let alone = 4 * (2 * 2048 + 1024 + 384 + 128) + 2 * 1024;
        assert!(config.frames_needed() >= alone);
        assert!((config.frames_needed() + 1).is_power_of_two());
        config.taps.push((
            PortId(0),
            TapConfig {
                name: "tap0".to_owned(),
                mac: None,
                addresses: Vec::new(),
            },
        ));
        config.handoff_len = 1 << 20;
        assert!(config.frames_needed() >= 4 << 20);
        assert_eq!(config.pool_config().frame_count, config.frames_needed());
        let bytes = u64::from(config.frames_needed()) * 2176;
        assert!(u64::from(config.memory_mb()) << 20 > bytes);
    }
}
