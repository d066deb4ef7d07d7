//! The section `[io]`, and the devices of ports: what packets come and go by.

use std::collections::BTreeMap;

use crate::problem::{Code, Finding, Findings, Span, counted, shown};
use crate::read::{Field, Key, Need, Schema, Table};
use crate::sections::ALL;
use crate::value::Bad;

/// The section `[io]`, and the devices of all ports. Fixed while a node runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IoConfig {
    /// What moves packets.
    pub driver: Driver,
    /// What a worker does while there are none.
    pub idle: Idle,
    /// CPUs of the workers, in their order, each another one; empty: the kernel places them.
    pub cores: Vec<u16>,
    /// What each port is, by its place in [`SnapshotSpec::ports`](evenkeel_core::service::SnapshotSpec::ports).
    pub devices: Vec<Device>,
    /// What only [`Driver::Dpdk`] reads.
    pub dpdk: DpdkConfig,
}

/// What moves packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Driver {
    /// libpcap, on any interface of the kernel.
    #[default]
    Pcap,
    /// DPDK, on devices that it has a driver for.
    Dpdk,
}

/// What a worker does while there are no packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Idle {
    /// It pauses, and then sleeps.
    #[default]
    Sleep,
    /// It asks again, and keeps its core busy.
    Poll,
}

/// What a port is on this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// An interface, a PCI address or a vdev string: 1 to [`DEVICE_LEN_MAX`] bytes without control characters, and
    /// of no other port. `None`: nothing can run on it.
    pub name: Option<String>,
    /// The kernel's interface for what is not the balancer's, made by DPDK: 1 to [`INTERFACE_LEN_MAX`] bytes, and
    /// of no other port. `None`: there is none. Never with [`Driver::Pcap`], whose interface the kernel has anyway.
    pub tap: Option<String>,
}

/// The section `[io.dpdk]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DpdkConfig {
    /// Whether memory is of huge pages.
    pub huge_pages: bool,
    /// Memory that DPDK takes at start, in MiB. The buffers of all ports fit.
    pub memory_mib: u32,
    /// Packet buffers for each port; more than its queues hold.
    pub mbufs: u32,
    /// Receive descriptors of each queue, one queue a worker.
    pub rx_descriptors: u16,
    /// Transmit descriptors of each queue, one queue a worker.
    pub tx_descriptors: u16,
}

impl Default for DpdkConfig {
    fn default() -> Self {
        DpdkConfig {
            huge_pages: true,
            memory_mib: MEMORY_MIB,
            mbufs: MBUFS,
            rx_descriptors: DESCRIPTORS,
            tx_descriptors: DESCRIPTORS,
        }
    }
}

/// Longest name of a device, in bytes.
pub const DEVICE_LEN_MAX: usize = 255;

/// Longest name of an interface of the kernel, in bytes (IFNAMSIZ less its end).
pub const INTERFACE_LEN_MAX: usize = 15;

/// Largest number of a CPU: what fits the kernel's `cpu_set_t`.
const CPU_MAX: u32 = 1023;

const MEMORY_MIB: u32 = 512;
const MBUFS: u32 = 16_384;
const DESCRIPTORS: u16 = 1024;

/// Bytes of a buffer: 2,048 of a packet, headroom, the mbuf's own and the pool's.
const MBUF_BYTES: u64 = 2_560;
/// Buffers of a port beyond what its queues hold, unless the config says otherwise: bursts and rings of the workers.
const MBUFS_SPARE: u32 = 8_192;
/// Memory beyond the buffers, unless the config says otherwise: descriptors, rings, and what DPDK needs itself.
const MEMORY_SPARE_MIB: u32 = 128;

pub(crate) static IO: Schema = Schema {
    title: "[io]",
    keys: &[
        Key("driver", "\"pcap\""),
        Key("idle", "\"sleep\""),
        Key("cores", "[2, 3]"),
        Key("dpdk", "[io.dpdk]"),
    ],
};
pub(crate) static DPDK: Schema = Schema {
    title: "[io.dpdk]",
    keys: &[
        Key("huge_pages", "true"),
        Key("memory_mib", "512"),
        Key("mbufs", "16384"),
        Key("rx_descriptors", "1024"),
        Key("tx_descriptors", "1024"),
    ],
};

/// What was read of a port's device.
#[derive(Clone, Debug, Default)]
pub(crate) struct DeviceDraft {
    pub(crate) name: Option<Field<String>>,
    pub(crate) tap: Option<Field<String>>,
}

impl DeviceDraft {
    /// Reads `device` and `tap` of a port.
    pub(crate) fn read(port: &Table<'_, '_>, findings: &mut Findings) -> Self {
        DeviceDraft {
            name: port.parsed("device", Need::Optional, device, findings),
            tap: port.parsed("tap", Need::Optional, tap, findings),
        }
    }

    /// What stands here or, where nothing does, in `base`.
    pub(crate) fn over(self, base: DeviceDraft) -> Self {
        DeviceDraft {
            name: self.name.or(base.name),
            tap: self.tap.or(base.tap),
        }
    }
}

fn device(text: &str) -> Result<String, Bad> {
    let bad = |message: String, help: String| Err(Bad::new(Code::BadValue, message, help));
    if text.len() > DEVICE_LEN_MAX {
        let message = format!("the name of a device is {} bytes long", text.len());
        return bad(message, format!("write {DEVICE_LEN_MAX} bytes at most"));
    }
    if text.is_empty() || text.trim() != text || text.chars().any(char::is_control) {
        let help = "write an interface such as \"eth1\", a PCI address such as \"0000:03:00.0\", or a vdev such as \
                    \"net_af_packet0,iface=eth1\", without blanks around it";
        return bad(format!("\"{}\" is not a device", shown(text)), help.into());
    }
    Ok(text.to_owned())
}

fn tap(text: &str) -> Result<String, Bad> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let known = [".", "..", "all", "default"].contains(&text);
    if !text.is_empty() && text.len() <= INTERFACE_LEN_MAX && text.chars().all(plain) && !known {
        return Ok(text.to_owned());
    }
    Err(Bad::new(
        Code::BadValue,
        format!("\"{}\" is not the name of an interface", shown(text)),
        format!("1 to {INTERFACE_LEN_MAX} letters (a to z), digits, dots, hyphens and underscores: \"ek0\""),
    ))
}

/// Reads `[io]` for `workers` (`None`: how many could not be read) and `devices`, one a port.
pub(crate) fn read(
    root: &Table<'_, '_>,
    workers: Option<u8>,
    devices: Vec<DeviceDraft>,
    findings: &mut Findings,
) -> IoConfig {
    let io = root.table("io", &IO, ALL, findings);
    let drivers = [("pcap", Driver::Pcap), ("dpdk", Driver::Dpdk)];
    let driver = io
        .as_ref()
        .and_then(|t| t.choice("driver", Need::Optional, &drivers, findings));
    let idles = [("sleep", Idle::Sleep), ("poll", Idle::Poll)];
    let idle = io
        .as_ref()
        .and_then(|t| t.choice("idle", Need::Optional, &idles, findings));
    let cores = io
        .as_ref()
        .map_or_else(Vec::new, |t| read_cores(t, workers, findings));
    let dpdk = io.as_ref().and_then(|t| t.table("dpdk", &DPDK, ALL, findings));
    let written = root.has("io") && io.as_ref().is_none_or(|t| t.has("driver"));
    let config = IoConfig {
        driver: driver.as_ref().map_or_else(Driver::default, |d| d.value),
        idle: idle.map_or_else(Idle::default, |i| i.value),
        cores,
        dpdk: read_dpdk(dpdk.as_ref(), workers, devices.len(), findings),
        devices: Vec::new(),
    };
    if !written || driver.is_some() {
        of_driver(config.driver, &devices, dpdk.as_ref(), findings);
    }
    once(&devices, findings);
    let devices = devices.into_iter().map(|d| Device {
        name: d.name.map(|n| n.value),
        tap: d.tap.map(|t| t.value),
    });
    IoConfig {
        devices: devices.collect(),
        ..config
    }
}

/// The CPUs of the workers: as many as there are, none of them twice.
fn read_cores(io: &Table<'_, '_>, workers: Option<u8>, findings: &mut Findings) -> Vec<u16> {
    let (cores, all_read) = io.integers("cores", 0..=CPU_MAX, findings);
    let mut seen = BTreeMap::new();
    for core in &cores {
        if let Some(first) = seen.insert(core.value, core.span.clone()) {
            let message = format!("CPU {} stands there twice", core.value);
            let help = "write another one: two workers on one CPU stand in each other's way";
            let finding = Finding::new(Code::Duplicate, core.span.clone(), message, help);
            findings.push(finding.label("the second one").other(first, "the first one"));
        }
    }
    if let Some(workers) = workers.filter(|&w| all_read && !cores.is_empty() && cores.len() != usize::from(w))
    {
        let message = format!(
            "{}, but {}",
            counted(workers, "worker"),
            counted(cores.len() as u64, "core")
        );
        let help = "write a CPU for each worker, or none: they are not pinned then";
        let span = io.span_of("cores");
        findings.push(Finding::new(Code::CoreCount, span, message, help).label("not as many"));
    }
    cores.iter().filter_map(|c| u16::try_from(c.value).ok()).collect()
}

fn read_dpdk(
    dpdk: Option<&Table<'_, '_>>,
    workers: Option<u8>,
    ports: usize,
    findings: &mut Findings,
) -> DpdkConfig {
    let mut integer = |name, min, max| dpdk.and_then(|t| t.integer(name, min..=max, findings));
    let mut descriptors = |name| {
        let n = integer(name, 64, 8_192).and_then(|n| u16::try_from(n.value).ok());
        n.unwrap_or(DESCRIPTORS)
    };
    let (rx, tx) = (descriptors("rx_descriptors"), descriptors("tx_descriptors"));
    let mbufs = integer("mbufs", 1024, 1 << 21);
    let memory = integer("memory_mib", 64, 1 << 20);
    let huge_pages = dpdk.and_then(|t| t.boolean("huge_pages", findings));

    // A default follows from what is written, so that it is never what is wrong.
    let queues = (u32::from(rx) + u32::from(tx)) * u32::from(workers.unwrap_or(1));
    let count = mbufs
        .as_ref()
        .map_or_else(|| MBUFS.max(queues + MBUFS_SPARE), |n| n.value);
    let mib = |mbufs: u32| {
        let bytes = u64::from(mbufs) * ports as u64 * MBUF_BYTES;
        u32::try_from(bytes.div_ceil(1 << 20)).unwrap_or(u32::MAX)
    };
    if let (Some(mbufs), Some(_)) = (&mbufs, workers)
        && mbufs.value <= queues
    {
        let message = format!(
            "{} buffers, but the queues of a port alone hold {queues}",
            mbufs.value
        );
        let help = format!("write {} or more, or fewer descriptors", queues + MBUFS_SPARE);
        findings.push(Finding::new(Code::OutOfRange, mbufs.span.clone(), message, help).label("too few"));
    }
    if let Some(memory) = &memory
        && memory.value < mib(count)
    {
        let message = format!(
            "{} MiB of memory, but the buffers of {} take {}",
            memory.value,
            counted(ports as u64, "port"),
            mib(count)
        );
        let help = format!(
            "write {} or more, or fewer `mbufs`",
            mib(count).saturating_add(MEMORY_SPARE_MIB)
        );
        findings.push(Finding::new(Code::OutOfRange, memory.span.clone(), message, help).label("too little"));
    }
    DpdkConfig {
        huge_pages: huge_pages.is_none_or(|h| h.value),
        memory_mib: memory.map_or_else(
            || MEMORY_MIB.max(mib(count).saturating_add(MEMORY_SPARE_MIB)),
            |m| m.value,
        ),
        mbufs: count,
        rx_descriptors: rx,
        tx_descriptors: tx,
    }
}

/// What the driver cannot do.
fn of_driver(driver: Driver, devices: &[DeviceDraft], dpdk: Option<&Table<'_, '_>>, findings: &mut Findings) {
    if driver == Driver::Dpdk {
        return;
    }
    let needs = "remove it, or write `driver = \"dpdk\"` in `[io]`";
    let mut no_effect = |span: &Span, message| {
        let finding = Finding::new(Code::NoEffect, span.clone(), message, needs);
        findings.push(finding.label("no effect"));
    };
    if let Some(dpdk) = dpdk {
        no_effect(&dpdk.span, "a section of DPDK, but the driver is libpcap");
    }
    for tap in devices.iter().filter_map(|d| d.tap.as_ref()) {
        no_effect(
            &tap.span,
            "a tap, but the driver is libpcap: the kernel has the interface anyway",
        );
    }
    for name in devices.iter().filter_map(|d| d.name.as_ref()) {
        // What the kernel takes as a name (dev_valid_name).
        let valid = |c: char| c != '/' && c != ':' && c != ',' && !c.is_whitespace();
        if name.value.len() <= INTERFACE_LEN_MAX && name.value.chars().all(valid) {
            continue;
        }
        let message = format!("\"{}\" is not the name of an interface", shown(&name.value));
        let help = "libpcap needs an interface of the kernel, such as \"eth1\"; for others write `driver = \"dpdk\"` \
                    in `[io]`";
        findings.push(Finding::new(Code::BadValue, name.span.clone(), message, help));
    }
}

/// Every device and every tap is one port's.
fn once(devices: &[DeviceDraft], findings: &mut Findings) {
    twice("device", devices.iter().filter_map(|d| d.name.as_ref()), findings);
    twice("tap", devices.iter().filter_map(|d| d.tap.as_ref()), findings);
}

fn twice<'a>(what: &str, fields: impl Iterator<Item = &'a Field<String>>, findings: &mut Findings) {
    let mut seen: BTreeMap<&str, &Span> = BTreeMap::new();
    for field in fields {
        let Some(&first) = seen.get(field.value.as_str()) else {
            seen.insert(&field.value, &field.span);
            continue;
        };
        let message = format!("the {what} \"{}\" is that of two ports", shown(&field.value));
        let help = format!("give each port a {what} of its own");
        let finding = Finding::new(Code::Duplicate, field.span.clone(), message, help);
        findings.push(
            finding
                .label("the second one")
                .other(first.clone(), "the first one"),
        );
    }
}
