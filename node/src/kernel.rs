//! Addresses that the kernel has and must not: it would answer for what evenkeel answers for, and reset what evenkeel forwards.

use std::collections::BTreeMap;
use std::net::IpAddr;

use evenkeel_control::Config;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage;
use tracing::warn;

use crate::ports::kernel_interface;
use crate::{Refusal, refusal};

/// An address of one of the kernel's interfaces.
#[derive(Clone, Debug, PartialEq, Eq)]
struct KernelAddress {
    addr: IpAddr,
    interface: String,
}

/// What is wrong with an address that both have.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Clash {
    /// Connections at it are reset by the kernel.
    Refused(KernelAddress, String),
    /// Who asks for it is answered twice.
    Warned(KernelAddress, String),
}

/// Refuses a config whose VIPs or local addresses the kernel has on a machine on which it sees the same frames; a port's own
/// address is warned of, and so is whatever NICs that are DPDK's alone keep from the kernel.
pub(crate) fn check_addresses(config: &Config) -> Result<(), Refusal> {
    let found = match getifaddrs() {
        Ok(found) => found,
        Err(error) => {
            warn!(%error, "the kernel does not tell its addresses: whether it has one of evenkeel's is not known");
            return Ok(());
        }
    };
    let kernel = found.filter_map(|entry| {
        let addr = ip_of(entry.address.as_ref()?)?;
        let interface = entry.interface_name;
        Some(KernelAddress { addr, interface })
    });
    for clash in clashes(config, kernel) {
        match clash {
            Clash::Refused(KernelAddress { addr, interface }, what) => {
                return Err(refusal(
                    format!(
                        "the kernel has {addr}, {what}, on {interface}: it would reset connections of evenkeel"
                    ),
                    format!(
                        "remove it from the kernel (`ip address show dev {interface}`, `ip address delete {addr}/PREFIX dev {interface}`), or take another one"
                    ),
                ));
            }
            Clash::Warned(KernelAddress { addr, interface }, what) => {
                warn!(
                    "the kernel has {addr}, {what}, on {interface}, too: who asks for it is answered twice"
                );
            }
        }
    }
    Ok(())
}

fn ip_of(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
}

fn clashes(config: &Config, kernel: impl Iterator<Item = KernelAddress>) -> Vec<Clash> {
    let mut ours: BTreeMap<IpAddr, (bool, String)> = BTreeMap::new();
    let mut taps = Vec::new();
    for (port, device) in config.spec.ports.iter().zip(&config.io.devices) {
        taps.extend(device.tap.as_deref());
        for (addr, _) in &port.addresses {
            ours.insert(*addr, (false, format!("an own address of port {}", port.name)));
        }
    }
    for addr in &config.spec.peer_local_addrs {
        ours.insert(*addr, (true, "a local address of another node".to_owned()));
    }
    for service in &config.spec.services {
        for addr in &service.local_addrs {
            ours.insert(
                *addr,
                (true, format!("a local address of service {}", service.name)),
            );
        }
        ours.insert(
            service.vip,
            (true, format!("the VIP of service {}", service.name)),
        );
    }
    let mut devices = config.io.devices.iter().filter_map(|d| d.name.as_deref());
    let sees_frames = devices.any(|device| kernel_interface(config.io.driver, device).is_some());
    let clash = |has: KernelAddress| {
        let (resets, what) = ours.get(&has.addr)?.clone();
        // The interface that evenkeel made for the kernel itself has the port's own addresses.
        if !resets && taps.contains(&has.interface.as_str()) {
            return None;
        }
        Some(if resets && sees_frames {
            Clash::Refused(has, what)
        } else {
            Clash::Warned(has, what)
        })
    };
    kernel.filter_map(clash).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(driver: &str, devices: [&str; 2]) -> Config {
        let [clients, servers] = devices;
        let text = format!(
            r#"
io = {{ driver = "{driver}" }}

[[port]]
name = "clients"
mac = "02:00:00:00:00:01"
addresses = ["192.0.2.2/24"]
device = "{clients}"

[[port]]
name = "servers"
mac = "02:00:00:00:00:02"
addresses = ["198.51.100.2/24"]
device = "{servers}"

[[service]]
name = "web"
protocol = "tcp"
vip = "192.0.2.80:80"
local_addresses = ["198.51.100.101"]
server = [{{ address = "198.51.100.11:80" }}]
"#
        );
        evenkeel_control::parse("test.toml", &text).unwrap_or_else(|e| panic!("{:?}", e.problems()))
    }

    fn found(config: &Config, addr: &str) -> Vec<Clash> {
        let has = KernelAddress {
            addr: addr.parse().expect("an address"),
            interface: "eth0".into(),
        };
        clashes(config, [has].into_iter())
    }

    #[test]
    fn an_address_that_the_kernel_has_too_is_refused_where_it_sees_the_frames() {
        let pcap = config("pcap", ["eth1", "eth2"]);
        let refused = |c: &[Clash], what: &str| matches!(c, [Clash::Refused(_, w)] if w == what);
        let warned = |c: &[Clash], what: &str| matches!(c, [Clash::Warned(_, w)] if w == what);
        assert!(refused(&found(&pcap, "192.0.2.80"), "the VIP of service web"));
        assert!(refused(
            &found(&pcap, "198.51.100.101"),
            "a local address of service web"
        ));
        assert!(warned(
            &found(&pcap, "192.0.2.2"),
            "an own address of port clients"
        ));
        assert_eq!(found(&pcap, "198.51.100.4"), [], "the kernel's own");
        // A NIC that is DPDK's keeps its frames from the kernel.
        let nic = config("dpdk", ["0000:03:00.0", "0000:03:00.1"]);
        assert!(warned(&found(&nic, "192.0.2.80"), "the VIP of service web"));
        let packet = config("dpdk", ["0000:03:00.0", "net_af_packet1,iface=eth2"]);
        assert!(refused(&found(&packet, "192.0.2.80"), "the VIP of service web"));
    }
}
