//! Interfaces through DPDK.

use std::sync::Arc;
use std::time::Duration;

use evenkeel_control::{Cluster, Config};
use evenkeel_core::port::PortId;
use evenkeel_core::wire::vrrp::{virtual_mac_v4, virtual_mac_v6};
use evenkeel_io_dpdk::{
    Control, DeviceSpec, Devices, DevicesConfig, DpdkPort, Eal, EalArgs, EalError, InterfaceConfig,
    LcoreGuard, LogLine, Memory, Mempool, MempoolConfig, PortError, Reception, Steered, TapConfig, TapError,
};
use tracing::{debug, error, info, warn};

use crate::io::station::Driver;
use crate::io::{DriverLook, PoolView};
use crate::lane::{IoCounts, Lane, io_counts};
use crate::{Refusal, refusal};

/// A worker without packets sleeps so long at a time: a packet waits for it at most.
const SLEEP: Duration = Duration::from_micros(50);

/// A worker's port, and the EAL that its thread registers with.
pub(crate) struct EalPort {
    port: DpdkPort,
    eal: Arc<Eal>,
}

impl evenkeel_core::port::Port for EalPort {
    type Frame = <DpdkPort as evenkeel_core::port::Port>::Frame;

    fn rx_burst(&mut self, into: &mut Vec<Self::Frame>) -> usize {
        self.port.rx_burst(into)
    }

    fn alloc(&mut self, len: usize) -> Option<Self::Frame> {
        self.port.alloc(len)
    }

    fn tx(&mut self, port: PortId, frame: Self::Frame) {
        self.port.tx(port, frame);
    }

    fn punt(&mut self, frame: Self::Frame) {
        self.port.punt(frame);
    }

    fn handoff(
        &mut self,
        to: evenkeel_core::port::WorkerId,
        frame: Self::Frame,
        tag: evenkeel_core::port::HandoffTag,
    ) {
        self.port.handoff(to, frame, tag);
    }

    fn flush(&mut self) {
        self.port.flush();
    }
}

impl Driver for EalPort {
    type Guard = Option<LcoreGuard>;

    fn enter(&self) -> Option<LcoreGuard> {
        self.eal
            .register_thread()
            .inspect_err(|error| warn!(%error, "a worker does without a cache of packet buffers"))
            .ok()
    }

    fn sleep(&mut self, at_most: Duration, _: &Lane) {
        std::thread::sleep(at_most.min(SLEEP));
    }

    fn counts(&mut self) -> IoCounts {
        let stats = self.port.stats();
        io_counts(&[
            ("rx-frames", stats.rx_frames),
            ("rx-copied", stats.rx_copied),
            ("rx-no-buffer", stats.rx_no_buffer),
            ("tx-frames", stats.tx_frames),
            ("tx-retries", stats.tx_retries),
            ("tx-full", stats.tx_full),
            ("tx-chained", stats.tx_chained),
            ("tx-no-interface", stats.tx_no_interface),
            ("tx-passed-on", stats.tx_passed_on),
            ("tx-pass-full", stats.tx_pass_full),
            ("tx-for-others", stats.tx_for_others),
            ("tx-checksum-driver", stats.tx_checksum_driver),
            ("tx-checksum-software", stats.tx_checksum_software),
            ("tx-refused", stats.tx_refused),
            ("punted", stats.punted),
            ("punt-full", stats.punt_full),
            ("punt-dropped", stats.punt_dropped),
            ("handoff-out", stats.handoff_out),
            ("handoff-in", stats.handoff_in),
            ("handoff-full", stats.handoff_full),
            ("handoff-dropped", stats.handoff_dropped),
            ("alloc-failed", stats.alloc_failed),
            ("rss-agreed", stats.rss_agreed),
            ("rss-disagreed", stats.rss_disagreed),
        ])
    }
}

/// DPDK while the node runs.
pub(crate) struct Running {
    devices: Devices,
    eal: Arc<Eal>,
    frames_before: u32,
}

struct Looked(Control);

impl DriverLook for Looked {
    fn pools(&self) -> Vec<PoolView> {
        let view = |pool: &Mempool| PoolView {
            name: pool.name().to_string(),
            capacity: pool.frame_count().into(),
            in_use: pool.frame_count().saturating_sub(pool.available()).into(),
        };
        self.0.pools().iter().map(view).collect()
    }

    fn link_is_up(&self, port: PortId) -> Option<bool> {
        self.0.link(port).map(|link| link.up)
    }

    fn mac(&self, port: PortId) -> Option<[u8; 6]> {
        self.0.mac(port)
    }

    fn counts(&self, port: PortId) -> Vec<(&'static str, u64)> {
        let mut counts = Vec::new();
        if let Some(stats) = self.0.driver_stats(port) {
            counts.extend([
                ("rx-packets", stats.rx_packets),
                ("tx-packets", stats.tx_packets),
                ("rx-missed", stats.rx_missed),
                ("rx-errors", stats.rx_errors),
                ("rx-no-buffer", stats.rx_no_mbuf),
                ("tx-errors", stats.tx_errors),
            ]);
        }
        if let Some(tap) = self.0.tap_stats(port) {
            counts.extend([
                ("tap-to-kernel", tap.to_kernel),
                ("tap-from-kernel", tap.from_kernel),
                ("tap-refused", tap.refused),
                ("tap-no-buffer", tap.no_buffer),
                ("tap-full", tap.full),
            ]);
        }
        counts
    }
}

/// Starts DPDK, and opens the interfaces of all workers.
pub(crate) fn open(
    config: &Config,
    devices: &[String],
    lanes: &[Arc<Lane>],
) -> Result<(Vec<EalPort>, Running), Refusal> {
    let wrong = |error: &dyn std::fmt::Display, help: &str| refusal(error.to_string(), help);
    let workers = u16::from(config.workers);
    let dpdk = &config.io.dpdk;
    let memory = if dpdk.huge_pages {
        Memory::Hugepages { mb: dpdk.memory_mib }
    } else {
        Memory::NoHuge { mb: dpdk.memory_mib }
    };
    let mut args = EalArgs::new(memory);
    let mut interfaces = Vec::with_capacity(devices.len());
    for ((n, device), port) in (0..).zip(devices).zip(&config.spec.ports) {
        let spec = DeviceSpec::parse(device)
            .map_err(|e| {
                wrong(
                    &e,
                    "correct `device` of the port: a PCI address, or a virtual device",
                )
            })?
            .with_queues(workers);
        let mut interface = InterfaceConfig::new(spec.name());
        interface.rx_desc_count = dpdk.rx_descriptors;
        interface.tx_desc_count = dpdk.tx_descriptors;
        interface.mtu = port.mtu;
        interface.macs = vec![port.mac.0];
        interface
            .macs
            .extend(virtual_macs(config.cluster.as_ref(), PortId(n)));
        interfaces.push(interface);
        args = args.device(spec);
    }
    let eal = Eal::init(&args).map_err(|e| wrong(&e, remedy(&e)))?;
    let mut wanted = DevicesConfig::new(interfaces, workers, Arc::clone(&config.steering), &config.rss_key);
    wanted.pool = Some(MempoolConfig::default());
    wanted.frames_per_interface = Some(dpdk.mbufs);
    for (n, (device, port)) in config.io.devices.iter().zip(&config.spec.ports).enumerate() {
        if let Some(name) = &device.tap {
            let tap = TapConfig {
                name: name.clone(),
                mac: Some(port.mac.0),
                addresses: port.addresses.clone(),
            };
            wanted.taps.push((PortId(n as u16), tap));
        }
    }
    let (devices, ports) = Devices::open(&eal, &wanted).map_err(|e| wrong(&e, remedy_of_port(&e)))?;
    tell(config, devices.control());
    let frames_before = frames(&devices);
    let eal = Arc::new(eal);
    let ports = ports.into_iter().zip(lanes).map(|(mut port, lane)| {
        let lane = Arc::clone(lane);
        port.set_punt(Box::new(move |at, frame| lane.punt(at, frame)));
        EalPort {
            port,
            eal: Arc::clone(&eal),
        }
    });
    let ports = ports.collect();
    let running = Running {
        devices,
        eal,
        frames_before,
    };
    Ok((ports, running))
}

/// The addresses that the virtual router of a port may have.
fn virtual_macs(cluster: Option<&Cluster>, port: PortId) -> impl Iterator<Item = [u8; 6]> {
    let vrrp = cluster.and_then(|cluster| cluster.config.vrrp.as_ref());
    let vrrp = vrrp.filter(|vrrp| vrrp.port == port);
    let v4 = vrrp
        .filter(|v| v.source_v4.is_some())
        .map(|v| virtual_mac_v4(v.vrid).0);
    let v6 = vrrp
        .filter(|v| v.source_v6.is_some())
        .map(|v| virtual_mac_v6(v.vrid).0);
    v4.into_iter().chain(v6)
}

/// Says of each port what its NIC does, and what is left to workers.
fn tell(config: &Config, control: &Control) {
    for (n, port) in (0..).zip(&config.spec.ports) {
        let id = PortId(n);
        let (rx, tx) = control.queues(id).unwrap_or_default();
        let steered = match control.steered(id) {
            _ if config.workers == 1 => "nobody: there is one worker",
            Some(Steered::Nic) => "the NIC, by the cluster's key and table",
            Some(Steered::NicByOtherTable) => {
                "the NIC, by another table: workers hand over what comes to the wrong one"
            }
            Some(Steered::Workers) | None => "the workers: who receives a frame hands it over",
        };
        let received = match control.reception(id) {
            Some(Reception::All) => "to any address",
            Some(Reception::Filters) => {
                "to its own addresses and the virtual ones: promiscuous mode was refused"
            }
            Some(Reception::AsItIs) | None => "as the virtual device shows them",
        };
        info!(
            device = control.name(id),
            rx_queues = rx,
            tx_queues = tx,
            "port {}: frames are steered by {steered}, and received {received}",
            port.name
        );
    }
}

/// What to do where EAL cannot start.
fn remedy(error: &EalError) -> &'static str {
    match error {
        EalError::NoHugepages { .. } => {
            "lower `memory_mib` of [io.dpdk], or reserve more: docs/deploy.md says how; `huge_pages = false` does for a try"
        }
        EalError::NoMemory { .. } => "lower `memory_mib` of [io.dpdk], or free memory",
        EalError::NoInterface { .. } => "correct `device` of the port, or make the interface",
        EalError::NoPciDevice(_) => "correct `device` of the port",
        EalError::KernelDriver { .. } => "docs/deploy.md says how interfaces are bound to DPDK",
        EalError::Taken { .. } => "end the other one, or correct `device` of the port",
        EalError::BadArgument { .. } => "correct `device` of the port: a PCI address, or a virtual device",
        _ => "docs/deploy.md says how huge pages are reserved and interfaces bound to DPDK",
    }
}

/// What to do where an interface cannot be opened.
fn remedy_of_port(error: &PortError) -> &'static str {
    match error {
        PortError::Count(_) => "have fewer [[port]]s",
        PortError::Workers(_) => "lower `workers`",
        PortError::NoSuchPort { .. } => {
            "correct `device` of the port; docs/deploy.md says how interfaces are bound to DPDK"
        }
        PortError::InUse(_) => "two ports have this `device`: correct one of them",
        PortError::Configure { .. } => {
            "the device has limits of its own: lower `workers`, `rx_descriptors` or `tx_descriptors`, or `mtu` of the port"
        }
        PortError::Start { .. } => {
            "see what DPDK says of it; more `mbufs` in [io.dpdk] help where its queues cannot be filled"
        }
        PortError::Deaf { .. } => "let it be trusted, or have the virtual router on another port",
        PortError::Pool(_) => "lower `mbufs` of [io.dpdk], or give it more by `memory_mib`",
        PortError::Tap(TapError::Name(_)) => "correct `tap` of the port",
        PortError::Tap(TapError::Open { .. }) => {
            "start as root, with `user` of [daemon], or choose another `tap` of the port"
        }
        PortError::Tap(TapError::Address { .. }) => {
            "remove the address from the kernel where it is, or correct `addresses` of the port"
        }
        PortError::TapOf(_) => "have one `tap` for each port",
        PortError::TapThread(_) => "see the limits of this process (ulimit -a) and of its cgroup",
    }
}

/// Free buffers of all pools.
fn frames(devices: &Devices) -> u32 {
    let pools = devices.control().pools();
    pools.iter().map(|pool| pool.available()).sum()
}

/// Lines of DPDK, each at its level. The log limits them as all others.
fn tell_words(lines: &[LogLine]) {
    for LogLine { level, text } in lines {
        match level {
            ..=4 => error!("DPDK says: {text}"),
            5 => warn!("DPDK says: {text}"),
            6 | 7 => info!("DPDK says: {text}"),
            _ => debug!("DPDK says: {text}"),
        }
    }
}

impl Running {
    /// To look at it; to be dropped before it is ended.
    pub(crate) fn look(&self) -> Arc<dyn DriverLook> {
        Arc::new(Looked(self.devices.control().clone()))
    }

    /// What puts DPDK's words since the last time into the log, as long as it runs.
    pub(crate) fn words(&self) -> Box<dyn FnMut()> {
        // It must not keep DPDK from ending.
        let eal = Arc::downgrade(&self.eal);
        Box::new(move || {
            if let Some(eal) = eal.upgrade() {
                tell_words(&eal.take_log());
            }
        })
    }

    /// Ends DPDK, once all workers have ended.
    pub(crate) fn end(self) {
        self.words()();
        let Running {
            devices,
            eal,
            frames_before,
        } = self;
        drop(devices);
        let ended = Arc::into_inner(eal).map(Eal::shutdown);
        match ended {
            Some(Ok(())) => info!(buffers = frames_before, "DPDK has ended, every buffer is home"),
            Some(Err(error)) => error!(%error, "DPDK has not ended well"),
            None => error!("DPDK has not ended: a worker holds it"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use evenkeel_io_dpdk::MempoolError;
    use tracing::{Event, Level, Subscriber};
    use tracing_subscriber::layer::{Context, SubscriberExt};
    use tracing_subscriber::{Layer, Registry};

    use super::*;

    /// Notes the level of each line.
    struct Levels(Arc<Mutex<Vec<Level>>>);

    impl<S: Subscriber> Layer<S> for Levels {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            self.0.lock().expect("no panic").push(*event.metadata().level());
        }
    }

    #[test]
    fn what_cannot_be_opened_has_its_own_remedy() {
        let (name, said, text): (String, String, String) = Default::default();
        let configure = PortError::Configure {
            name: name.clone(),
            code: -22,
            text,
            said: said.clone(),
        };
        let missing = PortError::NoSuchPort {
            name,
            known: Vec::new(),
            said,
        };
        for (error, remedy) in [
            (missing, "bound to DPDK"),
            (configure, "`workers`"),
            (PortError::InUse("a".into()), "two ports"),
            (PortError::Pool(MempoolError::FrameCount(0)), "`memory_mib`"),
            (PortError::Tap(TapError::Name("/".into())), "correct `tap`"),
            (PortError::TapThread("no".into()), "ulimit"),
        ] {
            let help = remedy_of_port(&error);
            assert!(help.contains(remedy), "{error}: {help}");
            assert_eq!(
                help.contains("bound to DPDK"),
                remedy == "bound to DPDK",
                "{error}"
            );
        }
    }

    #[test]
    fn words_of_dpdk_are_lines_of_the_log_at_their_level() {
        let levels = Arc::new(Mutex::new(Vec::new()));
        let registry = Registry::default().with(Levels(Arc::clone(&levels)));
        let lines: Vec<LogLine> = (1..=8)
            .map(|level| LogLine {
                level,
                text: format!("EAL: {level}"),
            })
            .collect();
        tracing::subscriber::with_default(registry, || tell_words(&lines));
        let (e, w, i, d) = (Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG);
        assert_eq!(*levels.lock().expect("no panic"), [e, e, e, e, w, i, i, d]);
    }
}
