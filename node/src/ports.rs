//! The links of the data ports. A thread of its own looks at them, as a driver or the kernel may let it wait; the control
//! side and who looks in read what it found.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use evenkeel_control::{Config, Driver};
use evenkeel_core::port::PortId;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use tracing::{error, warn};

use crate::io::DriverLook;
use crate::lane::ControlBell;

/// So often links are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// A port is down once it was seen so as many times in a row: a single look may meet a moment.
const DOWN_COUNT: u32 = 2;
/// A port is up again once it was seen so for this time: a link that comes and goes is no link.
const UP_TIME: Duration = Duration::from_secs(3);

/// Virtual devices of DPDK that stand on the kernel's interface of the argument `iface`: they say that they are up,
/// whatever that is.
const OVER_KERNEL: [&str; 3] = ["net_af_packet", "net_af_xdp", "net_pcap"];

/// What a port's link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Link {
    /// It carries frames, as far as one can see.
    Up,
    /// It does not.
    Down,
    /// There is no such interface any more.
    Gone,
    /// There is another one of this name, which nobody has opened.
    Anew,
}

impl Link {
    const ALL: [Link; 4] = [Link::Up, Link::Down, Link::Gone, Link::Anew];

    pub(crate) fn is_up(self) -> bool {
        self == Link::Up
    }

    /// Why frames do not pass, in words.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Link::Up => "it has a link",
            Link::Down => "no link: it is set down, or its cable or the other end is dead",
            Link::Gone => "its interface is gone",
            Link::Anew => "its interface was made anew: start this node again",
        }
    }
}

/// A port as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PortView {
    /// Name of the config.
    pub(crate) name: String,
    /// Its device, as the config has it.
    pub(crate) device: String,
    pub(crate) link: Link,
}

impl PortView {
    /// That it is down, in words for the log and for alarms.
    pub(crate) fn complaint(&self) -> String {
        format!(
            "port {} ({}) is down: {}",
            self.name,
            self.device,
            self.link.words()
        )
    }
}

#[derive(Debug)]
struct State {
    name: String,
    device: String,
    /// A [`Link`] as a number.
    link: AtomicU8,
}

/// The ports of a node by their number, for whoever wants to know.
#[derive(Debug)]
pub(crate) struct Ports(Vec<State>);

impl Ports {
    /// Those of a config, thought to be up.
    pub(crate) fn of(config: &Config) -> Self {
        let ports = config.spec.ports.iter().zip(&config.io.devices);
        let state = |name: &str, device: Option<&str>| State {
            name: name.to_string(),
            // Without its arguments: the name is what `ip link` or `dpdk-devbind.py` calls it.
            device: device.map_or("no device", interface).to_string(),
            link: AtomicU8::new(Link::Up as u8),
        };
        Ports(ports.map(|(p, d)| state(&p.name, d.name.as_deref())).collect())
    }

    /// All of them.
    pub(crate) fn views(&self) -> Vec<PortView> {
        (0..self.0.len()).filter_map(|n| self.view(n)).collect()
    }

    /// One of them, by its number.
    pub(crate) fn view(&self, port: usize) -> Option<PortView> {
        let state = self.0.get(port)?;
        Some(PortView {
            name: state.name.clone(),
            device: state.device.clone(),
            link: Ports::read(state),
        })
    }

    /// Their links, by their number.
    pub(crate) fn links(&self) -> impl Iterator<Item = Link> + '_ {
        self.0.iter().map(Ports::read)
    }

    fn read(state: &State) -> Link {
        let number = state.link.load(Ordering::Relaxed);
        Link::ALL.get(usize::from(number)).copied().unwrap_or(Link::Down)
    }

    /// Whether it was another one before.
    pub(crate) fn set(&self, port: usize, link: Link) -> bool {
        let state = self.0.get(port);
        state.is_some_and(|state| state.link.swap(link as u8, Ordering::Relaxed) != link as u8)
    }
}

/// The kernel's interface of a device as the config has it, or the device's own name.
fn interface(device: &str) -> &str {
    kernel_interface(Driver::Dpdk, device)
        .or_else(|| device.split(',').next())
        .unwrap_or(device)
}

/// The kernel's interface that a device stands on.
pub(crate) fn kernel_interface(driver: Driver, device: &str) -> Option<&str> {
    match driver {
        Driver::Pcap => Some(device),
        Driver::Dpdk => {
            let mut parts = device.split(',');
            let name = parts.next()?;
            let over = OVER_KERNEL.iter().any(|driver| name.starts_with(driver));
            parts
                .find_map(|part| part.trim().strip_prefix("iface="))
                .filter(|_| over)
        }
    }
}

/// What is thought of a port by what was seen of it.
#[derive(Debug)]
struct Debounce {
    said: Link,
    downs: u32,
    up_since: Option<Instant>,
}

impl Debounce {
    fn new() -> Self {
        Debounce {
            said: Link::Up,
            downs: 0,
            up_since: None,
        }
    }

    fn seen(&mut self, at: Instant, link: Link) -> Link {
        if link.is_up() {
            self.downs = 0;
            let since = *self.up_since.get_or_insert(at);
            if at.saturating_duration_since(since) >= UP_TIME {
                self.said = Link::Up;
            }
        } else {
            self.up_since = None;
            self.downs = self.downs.saturating_add(1);
            if self.downs >= DOWN_COUNT {
                self.said = link;
            }
        }
        self.said
    }
}

/// An interface of the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct KernelInterface {
    up: bool,
    index: Option<usize>,
    mac: Option<[u8; 6]>,
}

/// All interfaces of this network namespace.
fn kernel_interfaces() -> io::Result<BTreeMap<String, KernelInterface>> {
    let mut all: BTreeMap<String, KernelInterface> = BTreeMap::new();
    // IFF_RUNNING is the kernel's word for a carrier, and that nothing else keeps the interface from working.
    let wanted = InterfaceFlags::IFF_UP | InterfaceFlags::IFF_RUNNING;
    for entry in getifaddrs()? {
        let one = all.entry(entry.interface_name).or_default();
        one.up = entry.flags.contains(wanted);
        if let Some(link) = entry.address.as_ref().and_then(|a| a.as_link_addr()) {
            one.index = Some(link.ifindex());
            one.mac = link.addr();
        }
    }
    Ok(all)
}

/// What is looked at of one port.
#[derive(Debug)]
struct Watched {
    kernel: Option<String>,
    /// Of the kernel's interface that was opened.
    index: Option<usize>,
    debounce: Debounce,
}

impl Watched {
    fn seen(&mut self, kernel: &BTreeMap<String, KernelInterface>, driver: Option<bool>) -> Link {
        if let Some(name) = &self.kernel {
            let Some(interface) = kernel.get(name) else {
                return Link::Gone;
            };
            let index = *self.index.get_or_insert(interface.index.unwrap_or(0));
            if interface.index.is_some_and(|now| now != index) {
                return Link::Anew;
            }
            if !interface.up {
                return Link::Down;
            }
        }
        match driver {
            Some(false) => Link::Down,
            _ => Link::Up,
        }
    }
}

/// Looks at all links, until it is dropped.
#[derive(Debug)]
pub(crate) struct Watch {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Of the ports of a config, whose devices are open. Says where a device has another address than its port.
    ///
    /// # Errors
    ///
    /// The system gives no thread.
    pub(crate) fn start(
        config: &Config,
        ports: Arc<Ports>,
        driver: Option<Arc<dyn DriverLook>>,
        bell: Arc<ControlBell>,
    ) -> io::Result<Watch> {
        let devices = config.io.devices.iter().map(|device| device.name.as_deref());
        let mut watched: Vec<Watched> = devices
            .map(|device| Watched {
                kernel: device
                    .and_then(|device| kernel_interface(config.io.driver, device))
                    .map(str::to_string),
                index: None,
                debounce: Debounce::new(),
            })
            .collect();
        let kernel = kernel_interfaces().unwrap_or_default();
        for ((n, port), watched) in config.spec.ports.iter().enumerate().zip(&mut watched) {
            let interface = watched.kernel.as_ref().and_then(|name| kernel.get(name));
            watched.index = interface.and_then(|i| i.index);
            let of_driver = driver.as_ref().and_then(|driver| driver.mac(port_id(n)));
            let own = interface.and_then(|i| i.mac).or(of_driver);
            if let Some(own) = own.filter(|own| *own != port.mac.0) {
                warn!(
                    "port {}: its device has the address {}, and the config gives it {}: a switch or hypervisor that knows \
                     only the first one brings no frames; let `mac` of the port be the device's, unless that is meant",
                    port.name,
                    mac_text(own),
                    port.mac
                );
            }
        }
        let (stop, stopped) = channel::<()>();
        let thread = Builder::new().name("links".to_string()).spawn(move || {
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(LOOK_EVERY) {
                if look(&mut watched, &ports, driver.as_deref()) {
                    bell.ring();
                }
            }
        })?;
        Ok(Watch {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

/// Looks once; whether anything is another one now.
fn look(watched: &mut [Watched], ports: &Ports, driver: Option<&dyn DriverLook>) -> bool {
    let kernel = if watched.iter().any(|w| w.kernel.is_some()) {
        match kernel_interfaces() {
            Ok(kernel) => kernel,
            Err(error) => {
                warn!(%error, "the kernel does not tell which interfaces are up: what was known last stays");
                return false;
            }
        }
    } else {
        BTreeMap::new()
    };
    let now = Instant::now();
    let mut any = false;
    for (n, watched) in watched.iter_mut().enumerate() {
        let of_driver = driver.and_then(|driver| driver.link_is_up(port_id(n)));
        let seen = watched.seen(&kernel, of_driver);
        any |= ports.set(n, watched.debounce.seen(now, seen));
    }
    any
}

fn port_id(n: usize) -> PortId {
    PortId(u16::try_from(n).unwrap_or(u16::MAX))
}

fn mac_text(mac: [u8; 6]) -> String {
    evenkeel_core::wire::MacAddr(mac).to_string()
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            error!("the thread that looks at links ended by a fault of its own");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    #[test]
    fn a_port_is_down_at_the_second_look_and_up_after_a_while() {
        let start = Instant::now();
        let mut d = Debounce::new();
        assert_eq!(d.seen(start, Link::Up), Link::Up);
        assert_eq!(
            d.seen(after(start, 200), Link::Down),
            Link::Up,
            "one look is none"
        );
        assert_eq!(d.seen(after(start, 400), Link::Up), Link::Up);
        assert_eq!(d.seen(after(start, 600), Link::Down), Link::Up, "in a row");
        assert_eq!(d.seen(after(start, 800), Link::Gone), Link::Gone);
        assert_eq!(
            d.seen(after(start, 1000), Link::Down),
            Link::Down,
            "the latest counts"
        );
        let up = after(start, 1200);
        assert_eq!(d.seen(up, Link::Up), Link::Down);
        assert_eq!(d.seen(after(up, 2000), Link::Down), Link::Down);
        let up = after(up, 2200);
        assert_eq!(d.seen(up, Link::Up), Link::Down, "from the start");
        assert_eq!(
            d.seen(up + UP_TIME - Duration::from_millis(1), Link::Up),
            Link::Down
        );
        assert_eq!(d.seen(up + UP_TIME, Link::Up), Link::Up);
    }

    #[test]
    fn an_interface_that_is_gone_or_another_one_is_down() {
        let there = |up, index| {
            let one = KernelInterface {
                up,
                index: Some(index),
                mac: None,
            };
            BTreeMap::from([("eth1".to_string(), one)])
        };
        let mut watched = Watched {
            kernel: Some("eth1".to_string()),
            index: Some(7),
            debounce: Debounce::new(),
        };
        assert_eq!(watched.seen(&there(true, 7), None), Link::Up);
        assert_eq!(watched.seen(&there(false, 7), Some(true)), Link::Down);
        assert_eq!(watched.seen(&BTreeMap::new(), None), Link::Gone);
        assert_eq!(watched.seen(&there(true, 9), None), Link::Anew);
        assert_eq!(
            watched.seen(&there(true, 7), Some(false)),
            Link::Down,
            "the driver says so"
        );
        watched.kernel = None;
        assert_eq!(watched.seen(&BTreeMap::new(), Some(true)), Link::Up);
        assert_eq!(watched.seen(&BTreeMap::new(), None), Link::Up, "nobody knows");
    }

    #[test]
    fn the_kernels_interface_of_a_device_is_found() {
        assert_eq!(kernel_interface(Driver::Pcap, "eth2"), Some("eth2"));
        let vdev = "net_af_packet_lan,qpairs=2,iface=eth2,framecnt=4096";
        assert_eq!(kernel_interface(Driver::Dpdk, vdev), Some("eth2"));
        assert_eq!(kernel_interface(Driver::Dpdk, "0000:03:00.0"), None);
        assert_eq!(kernel_interface(Driver::Dpdk, "net_tap0,iface=eth2"), None);
        assert_eq!(interface("0000:03:00.0,a=b"), "0000:03:00.0");
        assert_eq!(interface(vdev), "eth2");
    }

    /// The loopback interface is everywhere, and is itself.
    #[test]
    fn the_kernel_tells_its_interfaces() {
        let all = kernel_interfaces().expect("the kernel answers");
        let lo = all.get("lo").expect("a loopback interface");
        assert_eq!(lo.mac, Some([0; 6]));
        assert!(lo.index.is_some());
    }
}
