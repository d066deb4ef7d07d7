//! Names of DPDK's devices as a config writes them, and what can be known to be wrong with one before EAL is
//! asked: EAL reports no mistake, and opens without the device.

use std::ffi::CString;
use std::fmt;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::{fs, io};

use crate::eal::EalError;

/// A device with its arguments: a virtual one (`net_af_packet0,iface=veth1,framecnt=4096`) or one on the PCI bus
/// (`0000:03:00.0`, also `03:00.0`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceSpec {
    name: String,
    args: Vec<(String, String)>,
    is_pci: bool,
}

/// Drivers that make a PCI device DPDK's, or share it with the kernel.
const USER_DRIVERS: [&str; 6] = [
    "vfio-pci",
    "uio_pci_generic",
    "igb_uio",
    "mlx5_core",
    "mlx4_core",
    "mana",
];

impl DeviceSpec {
    /// Reads a device as a config has it.
    ///
    /// # Errors
    /// What is neither a PCI address nor a name of a virtual device with `key=value` arguments that DPDK takes
    /// as they are.
    pub fn parse(text: &str) -> Result<DeviceSpec, EalError> {
        let mut parts = text.split(',');
        let name = parts.next().unwrap_or_default();
        let args = parts
            .map(|arg| match arg.split_once('=') {
                Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
                _ => Err(EalError::bad(
                    text,
                    &format!("{arg:?} is not key=value; write NAME,KEY=VALUE,.."),
                )),
            })
            .collect::<Result<Vec<_>, _>>()?;
        match pci_address(name) {
            Some(address) => {
                let spec = DeviceSpec {
                    name: address,
                    args,
                    is_pci: true,
                };
                spec.check()?;
                Ok(spec)
            }
            None if name.contains(':') => Err(EalError::bad(
                text,
                "it is no PCI address such as 0000:03:00.0 (lspci -D lists them)",
            )),
            None => {
                let spec = DeviceSpec::unchecked(name, args);
                spec.check()?;
                Ok(spec)
            }
        }
    }

    /// A virtual device; [`DeviceSpec::check`] is still to be asked.
    pub(crate) fn unchecked(name: &str, args: Vec<(String, String)>) -> DeviceSpec {
        DeviceSpec {
            name: name.to_owned(),
            args,
            is_pci: false,
        }
    }

    /// The device with as many queues as there are workers, where its driver makes as many as it is told to and
    /// the config does not say: net_af_packet.
    #[must_use]
    pub fn with_queues(mut self, queues: u16) -> DeviceSpec {
        if self.is_driver("net_af_packet") && self.arg("qpairs").is_none() && queues > 1 {
            self.args.push(("qpairs".to_owned(), queues.to_string()));
        }
        self
    }

    /// The device's name, by which its port is found: without arguments.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is on the PCI bus.
    pub fn is_pci(&self) -> bool {
        self.is_pci
    }

    /// The kernel's interfaces that it receives from or sends to.
    pub fn kernel_interfaces(&self) -> Vec<&str> {
        let takes = ["net_af_packet", "net_af_xdp", "net_pcap"];
        if !takes.iter().any(|driver| self.is_driver(driver)) {
            return Vec::new();
        }
        let names = self
            .args
            .iter()
            .filter(|(key, _)| matches!(key.as_str(), "iface" | "rx_iface" | "tx_iface" | "rx_iface_in"));
        let mut names: Vec<&str> = names.map(|(_, value)| value.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// One argument of EAL.
    pub(crate) fn to_arg(&self) -> String {
        format!("{}{self}", if self.is_pci { "--allow=" } else { "--vdev=" })
    }

    fn arg(&self, key: &str) -> Option<&str> {
        let found = self.args.iter().find(|(name, _)| name == key);
        found.map(|(_, value)| value.as_str())
    }

    /// Whether the name is that of a driver and a number.
    fn is_driver(&self, driver: &str) -> bool {
        let number = self.name.strip_prefix(driver);
        number.is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()))
    }

    /// What EAL would not report: its device is missing afterwards.
    pub(crate) fn check(&self) -> Result<(), EalError> {
        let name = &self.name;
        let known =
            |b: u8| b.is_ascii_alphanumeric() || b == b'_' || (self.is_pci && (b == b':' || b == b'.'));
        if name.is_empty() || !name.bytes().all(known) || name.len() >= dpdk_sys::PORT_NAME_SIZE {
            return Err(EalError::bad(
                name,
                "a device's name has 1 to 63 letters, digits and underscores",
            ));
        }
        for (key, value) in &self.args {
            if let Some(c) = value
                .chars()
                .find(|c| matches!(c, ',' | '[' | ']' | '"') || c.is_control())
            {
                let why = format!("value {value:?} of {key} contains {c:?}, which DPDK would split at");
                return Err(EalError::bad(name, &why));
            }
        }
        Ok(())
    }

    /// Looks whether the device is there, and ours to take.
    pub(crate) fn find(&self) -> Result<(), EalError> {
        if self.is_pci {
            return self.find_pci(Path::new("/sys/bus/pci/devices"));
        }
        for interface in self.kernel_interfaces() {
            let name = CString::new(interface).unwrap_or_default();
            // SAFETY: the name is a C string; the call only reads it.
            if unsafe { dpdk_sys::ekd_interface_index(name.as_ptr()) } == 0 {
                return Err(EalError::NoInterface {
                    device: self.name.clone(),
                    interface: interface.to_owned(),
                });
            }
        }
        Ok(())
    }

    fn find_pci(&self, devices: &Path) -> Result<(), EalError> {
        let folder = devices.join(&self.name);
        if !folder.exists() {
            return Err(EalError::NoPciDevice(self.name.clone()));
        }
        let driver = fs::read_link(folder.join("driver")).ok();
        let driver = driver
            .as_deref()
            .and_then(Path::file_name)
            .map_or("none".into(), |name| name.to_string_lossy());
        if USER_DRIVERS.contains(&driver.as_ref()) {
            return Ok(());
        }
        Err(EalError::KernelDriver {
            device: self.name.clone(),
            driver: driver.into_owned(),
        })
    }

    /// Claims what the device stands on for this process: DPDK lets two processes open one kernel interface, and
    /// each gets a copy of every frame. Names in the abstract namespace of Unix sockets go with their process, and
    /// each network namespace has its own.
    pub(crate) fn claim(&self) -> Result<Vec<UnixDatagram>, EalError> {
        let mut what: Vec<String> = self.kernel_interfaces().into_iter().map(str::to_owned).collect();
        if self.is_pci {
            what.push(self.name.clone());
        }
        let claimed = what.into_iter().map(|what| {
            let failed = |error: io::Error| match error.kind() {
                io::ErrorKind::AddrInUse => EalError::Taken {
                    device: self.name.clone(),
                    what: what.clone(),
                },
                _ => EalError::Claim {
                    what: what.clone(),
                    error,
                },
            };
            let name = format!("evenkeel-dpdk-{what}");
            let name = SocketAddr::from_abstract_name(name).map_err(failed)?;
            UnixDatagram::bind_addr(&name).map_err(failed)
        });
        claimed.collect()
    }
}

impl fmt::Display for DeviceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        self.args
            .iter()
            .try_for_each(|(key, value)| write!(f, ",{key}={value}"))
    }
}

/// `DDDD:BB:DD.F` of that, or of `BB:DD.F`; hexadecimal.
fn pci_address(text: &str) -> Option<String> {
    let is_hex = |part: &str, len: usize| part.len() == len && part.bytes().all(|b| b.is_ascii_hexdigit());
    let (rest, function) = text.split_once('.')?;
    let mut parts: Vec<&str> = rest.split(':').collect();
    if parts.len() == 2 {
        parts.insert(0, "0000");
    }
    let [domain, bus, device] = parts.as_slice() else {
        return None;
    };
    if !(is_hex(domain, 4) && is_hex(bus, 2) && is_hex(device, 2) && is_hex(function, 1)) {
        return None;
    }
    Some(format!("{domain}:{bus}:{device}.{function}").to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(text: &str) -> DeviceSpec {
        DeviceSpec::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    #[test]
    fn a_virtual_device_is_split_into_its_name_and_its_arguments() {
        let device = spec("net_af_packet0,iface=veth1,framecnt=4096");
        assert_eq!(device.name(), "net_af_packet0");
        assert!(!device.is_pci());
        assert_eq!(device.kernel_interfaces(), ["veth1"]);
        assert_eq!(device.to_arg(), "--vdev=net_af_packet0,iface=veth1,framecnt=4096");
        assert_eq!(spec("net_null0").to_arg(), "--vdev=net_null0");
        // The interface of a TAP device is made, not taken.
        assert!(spec("net_tap0,iface=tap7").kernel_interfaces().is_empty());
    }

    #[test]
    fn a_pci_address_is_allowed_and_nothing_else_is_probed() {
        assert_eq!(spec("0000:03:00.1").to_arg(), "--allow=0000:03:00.1");
        assert_eq!(
            spec("3B:00.0,dv_flow_en=0").to_arg(),
            "--allow=0000:3b:00.0,dv_flow_en=0"
        );
        assert!(spec("3b:00.0").is_pci());
        for wrong in ["0000:03:00", "0:3:0.0:1", "00000:03:00.0", "03:0g.0"] {
            let text = DeviceSpec::parse(wrong).expect_err(wrong).to_string();
            assert!(
                text.contains("0000:03:00.0") || text.contains("letters"),
                "{text}"
            );
        }
    }

    #[test]
    fn what_dpdk_would_drop_silently_is_refused() {
        for (wrong, want) in [
            ("", "1 to 63"),
            ("net pcap", "1 to 63"),
            ("net_pcap0,rx_pcap", "is not key=value"),
            ("net_pcap0,=x", "is not key=value"),
            ("net_pcap0,rx_pcap=[a]", "'['"),
        ] {
            let text = DeviceSpec::parse(wrong).expect_err(wrong).to_string();
            assert!(text.contains(want), "{text}");
        }
    }

    #[test]
    fn af_packet_has_a_queue_a_worker_unless_the_config_says_how_many() {
        let queues = |text: &str, n| spec(text).with_queues(n).to_string();
        assert_eq!(
            queues("net_af_packet1,iface=a", 4),
            "net_af_packet1,iface=a,qpairs=4"
        );
        assert_eq!(queues("net_af_packet1,iface=a", 1), "net_af_packet1,iface=a");
        let two = "net_af_packet1,qpairs=2,iface=a";
        assert_eq!(queues(two, 4), two);
        assert_eq!(queues("net_null0", 4), "net_null0");
    }

    #[test]
    fn a_pci_device_that_is_missing_or_the_kernels_is_named_with_the_remedy() {
        let devices = std::env::temp_dir().join(format!("evenkeel-pci-{}", std::process::id()));
        let device = spec("0000:03:00.0");
        let said = |result: Result<(), EalError>| result.expect_err("not there").to_string();
        assert!(said(device.find_pci(&devices)).contains("lspci -D"));
        let folder = devices.join("0000:03:00.0");
        fs::create_dir_all(&folder).expect("the folder for temporary files is writable");
        assert!(said(device.find_pci(&devices)).contains("dpdk-devbind.py --bind=vfio-pci 0000:03:00.0"));
        for (driver, ours) in [("ixgbe", false), ("vfio-pci", true), ("mlx5_core", true)] {
            let link = folder.join("driver");
            let _ = fs::remove_file(&link);
            std::os::unix::fs::symlink(format!("/sys/bus/pci/drivers/{driver}"), &link).expect("a link");
            match device.find_pci(&devices) {
                Ok(()) => assert!(ours, "{driver}"),
                error => assert!(!ours && said(error).contains(driver)),
            }
        }
        fs::remove_dir_all(&devices).expect("made above");
    }

    #[test]
    fn an_interface_has_one_owner_and_is_free_again_after_it() {
        // A name that no other test run has.
        let device = spec(&format!("net_af_packet0,iface=ek{}", std::process::id()));
        let first = device.claim().expect("nobody has it");
        assert_eq!(first.len(), 1);
        let text = device.claim().expect_err("taken").to_string();
        assert!(text.contains("another process"), "{text}");
        drop(first);
        assert!(device.claim().is_ok());
        assert!(spec("net_null0").claim().expect("stands on nothing").is_empty());
    }
}
