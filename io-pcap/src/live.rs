//! Live network interfaces and BPF filters, through libpcap (feature `libpcap`).
//!
//! [`LiveInterface`] receives without blocking into a frame buffer and sends frames; [`BpfFilter`] applies a
//! filter expression to frames from anywhere, such as a capture file.

#[cfg(target_os = "linux")]
use std::os::fd::AsFd;
use std::path::Path;

use pcap::{Active, BpfProgram, Capture, Dead, Device, Direction, Linktype, Precision};

use crate::file::{FrameError, LinkType, append_ethernet};

/// What one wants of an interface.
#[derive(Clone, Debug)]
pub struct LiveOptions {
    /// Receive frames for other machines, too.
    pub promiscuous: bool,
    /// How many bytes of each frame are captured, at most 65,535 (which is the default: all).
    pub snap_len: u16,
    /// How long the system may gather packets before it hands them over, in milliseconds. With immediate
    /// mode, which is always on, it hands them over at once; some systems want a timeout nevertheless.
    pub timeout_ms: u16,
    /// Leave out the frames that this machine sends, its own ones included.
    pub inbound_only: bool,
    /// A filter expression, such as `tcp port 80`; see pcap-filter(7). Names in it may be looked up by DNS.
    pub filter: Option<String>,
}

impl Default for LiveOptions {
    fn default() -> Self {
        LiveOptions {
            promiscuous: false,
            snap_len: u16::MAX,
            timeout_ms: 1,
            inbound_only: false,
            filter: None,
        }
    }
}

/// An interface that can be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// The name to open it by.
    pub name: String,
    /// What the system says about it.
    pub description: Option<String>,
    /// It is administratively up.
    pub up: bool,
    /// It is the machine's own loopback.
    pub loopback: bool,
}

/// Why libpcap could not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LiveError {
    /// The process may not capture.
    #[error(
        "not permitted to capture on {device} ({message}): this needs CAP_NET_RAW, and CAP_NET_ADMIN for \
         promiscuous mode; run as root or grant them with setcap"
    )]
    NotPermitted {
        /// The interface.
        device: String,
        /// libpcap's words.
        message: String,
    },
    /// No such interface.
    #[error("no interface {device}; there are: {}", known.join(", "))]
    NoSuchDevice {
        /// The name asked for.
        device: String,
        /// The names that there are.
        known: Vec<String>,
    },
    /// The interface could not be opened for another reason: it is down, for example.
    #[error("cannot open {device}: {message}")]
    Open {
        /// The interface.
        device: String,
        /// libpcap's words.
        message: String,
    },
    /// The interface delivers packets that cannot be made into Ethernet frames, or one wants to send Ethernet
    /// frames on one that is not Ethernet.
    #[error("{device} is no Ethernet interface: its link type is {link}")]
    UnsupportedLink {
        /// The interface.
        device: String,
        /// Its link type.
        link: LinkType,
    },
    /// The filter expression does not compile.
    #[error("bad filter \"{expression}\": {message}")]
    Filter {
        /// The expression.
        expression: String,
        /// libpcap's words.
        message: String,
    },
    /// The interfaces cannot be listed.
    #[error("cannot list the interfaces: {message}")]
    List {
        /// libpcap's words.
        message: String,
    },
    /// Receiving failed for good: the interface went away, for example.
    #[error("cannot receive from {device}: {message}")]
    Receive {
        /// The interface.
        device: String,
        /// libpcap's words.
        message: String,
    },
    /// A frame could not be sent. Later ones may be: a full queue shows so, too.
    #[error("cannot send {len} bytes on {device}: {message}")]
    Send {
        /// The interface.
        device: String,
        /// The frame's length in bytes.
        len: usize,
        /// libpcap's words.
        message: String,
    },
}

/// What [`LiveInterface::receive`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// A packet; its frame was appended to the buffer.
    Packet {
        /// When the system saw it, in nanoseconds since the Unix epoch.
        time_ns: u64,
        /// Its length on the wire, in bytes, before an Ethernet header was made up for it, if one was.
        orig_len: u32,
        /// Only its beginning was captured.
        snapped: bool,
    },
    /// A packet that could not be made into a frame: count it and go on.
    Unusable(FrameError),
    /// There is none now.
    Nothing,
}

/// Counters of the system for an open interface, in packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LiveStats {
    /// Received that passed the filter.
    pub received: u32,
    /// Dropped for want of room in the system's buffer.
    pub dropped: u32,
    /// Dropped by the interface or its driver, where the system counts that.
    pub interface_dropped: u32,
}

/// A network interface, open to receive and send.
pub struct LiveInterface {
    capture: Capture<Active>,
    device: String,
    link: LinkType,
}

impl std::fmt::Debug for LiveInterface {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LiveInterface")
            .field("device", &self.device)
            .field("link", &self.link)
            .finish_non_exhaustive()
    }
}

/// MTU of an interface of the kernel, as Linux tells it; `None` where nobody does.
pub fn mtu_of(device: &str) -> Option<u32> {
    let text = std::fs::read_to_string(Path::new("/sys/class/net").join(device).join("mtu"));
    text.ok()?.trim().parse().ok()
}

/// Microseconds where the system cannot do better.
const PRECISION: Precision = if cfg!(target_os = "linux") {
    Precision::Nano
} else {
    Precision::Micro
};

impl LiveInterface {
    /// Opens an interface in immediate and non-blocking mode.
    ///
    /// # Errors
    ///
    /// [`LiveError`]: no such interface, not permitted, a link type that does not become Ethernet, or a
    /// filter that does not compile.
    pub fn open(device: &str, options: &LiveOptions) -> Result<LiveInterface, LiveError> {
        let failed = |error: pcap::Error| diagnose(device, &error);
        let capture = Capture::from_device(device)
            .map_err(failed)?
            .promisc(options.promiscuous)
            .snaplen(i32::from(options.snap_len))
            .timeout(i32::from(options.timeout_ms))
            .immediate_mode(true)
            .precision(PRECISION)
            .open()
            .map_err(failed)?;
        let number = capture.get_datalink().0;
        let link = LinkType(u16::try_from(number).unwrap_or(u16::MAX));
        if !link.is_supported() {
            return Err(LiveError::UnsupportedLink {
                device: device.to_owned(),
                link,
            });
        }
        let mut capture = capture.setnonblock().map_err(failed)?;
        if options.inbound_only {
            capture.direction(Direction::In).map_err(failed)?;
        }
        if let Some(expression) = &options.filter {
            capture
                .filter(expression, true)
                .map_err(|error| bad_filter(expression, &error))?;
        }
        Ok(LiveInterface {
            capture,
            device: device.to_owned(),
            link,
        })
    }

    /// Takes one packet, if there is one, and appends it to `frame` as an Ethernet frame. Never blocks.
    ///
    /// # Errors
    ///
    /// [`LiveError::Receive`].
    pub fn receive(&mut self, frame: &mut Vec<u8>) -> Result<Received, LiveError> {
        let packet = match self.capture.next_packet() {
            Ok(packet) => packet,
            Err(pcap::Error::TimeoutExpired) => return Ok(Received::Nothing),
            Err(error) => {
                let (device, message) = (self.device.clone(), words(&error));
                return Err(LiveError::Receive { device, message });
            }
        };
        if let Err(error) = append_ethernet(self.link, packet.data, frame) {
            return Ok(Received::Unusable(error));
        }
        let header = packet.header;
        let seconds = u64::try_from(header.ts.tv_sec).unwrap_or(0);
        // With nanosecond precision, libpcap puts nanoseconds into the field for microseconds.
        let fraction = u64::try_from(header.ts.tv_usec).unwrap_or(0);
        let fraction_ns = if matches!(PRECISION, Precision::Nano) {
            fraction
        } else {
            fraction * 1000
        };
        Ok(Received::Packet {
            time_ns: seconds.saturating_mul(1_000_000_000).saturating_add(fraction_ns),
            orig_len: header.len,
            snapped: header.len > header.caplen,
        })
    }

    /// Sends an Ethernet frame.
    ///
    /// # Errors
    ///
    /// [`LiveError::Send`], or [`LiveError::UnsupportedLink`] if the interface is not Ethernet.
    pub fn send(&mut self, frame: &[u8]) -> Result<(), LiveError> {
        if self.link != LinkType::ETHERNET {
            return Err(LiveError::UnsupportedLink {
                device: self.device.clone(),
                link: self.link,
            });
        }
        self.capture.sendpacket(frame).map_err(|error| LiveError::Send {
            device: self.device.clone(),
            len: frame.len(),
            message: words(&error),
        })
    }

    /// What the interface's packets begin with; [`receive`](LiveInterface::receive) makes Ethernet of it.
    pub fn link(&self) -> LinkType {
        self.link
    }

    /// The kernel's number of the interface that has this one's name now: another one than before, if it was removed and made anew.
    /// `None`: there is none, or the system does not say.
    #[cfg(target_os = "linux")]
    pub fn index_of_name(&self) -> Option<u32> {
        rustix::net::netdevice::name_to_index(self.capture.as_fd(), &self.device).ok()
    }

    /// `None`: this system does not say.
    #[cfg(not(target_os = "linux"))]
    pub fn index_of_name(&self) -> Option<u32> {
        None
    }

    /// MTU of the interface that has its name now; `None`: the system does not say.
    pub fn mtu(&self) -> Option<u32> {
        mtu_of(&self.device)
    }

    /// The system's counters.
    ///
    /// # Errors
    ///
    /// [`LiveError::Receive`] if the system does not tell.
    pub fn stats(&mut self) -> Result<LiveStats, LiveError> {
        let stat = self.capture.stats().map_err(|error| LiveError::Receive {
            device: self.device.clone(),
            message: words(&error),
        })?;
        Ok(LiveStats {
            received: stat.received,
            dropped: stat.dropped,
            interface_dropped: stat.if_dropped,
        })
    }
}

#[cfg(unix)]
impl std::os::fd::AsFd for LiveInterface {
    /// To wait for packets with poll(2) or its like.
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.capture.as_fd()
    }
}

/// The interfaces that libpcap can open.
///
/// # Errors
///
/// [`LiveError::List`].
pub fn devices() -> Result<Vec<DeviceInfo>, LiveError> {
    let list = Device::list().map_err(|error| LiveError::List {
        message: words(&error),
    })?;
    let info = |device: Device| DeviceInfo {
        up: device.flags.is_up(),
        loopback: device.flags.is_loopback(),
        name: device.name,
        description: device.desc,
    };
    Ok(list.into_iter().map(info).collect())
}

/// A compiled filter expression, for packets that come from a file or from elsewhere.
pub struct BpfFilter {
    program: BpfProgram,
    expression: String,
}

impl std::fmt::Debug for BpfFilter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BpfFilter")
            .field("expression", &self.expression)
            .finish_non_exhaustive()
    }
}

impl BpfFilter {
    /// Compiles an expression (pcap-filter(7)) for packets of a link type; [`LinkType::ETHERNET`] for those
    /// that went through [`Framer`](crate::file::Framer). Names in it may be looked up by DNS.
    ///
    /// # Errors
    ///
    /// [`LiveError::Filter`].
    pub fn compile(link: LinkType, expression: &str) -> Result<BpfFilter, LiveError> {
        let failed = |error: pcap::Error| bad_filter(expression, &error);
        let dead: Capture<Dead> = Capture::dead(data_link(link)).map_err(failed)?;
        let program = dead.compile(expression, true).map_err(failed)?;
        Ok(BpfFilter {
            program,
            expression: expression.to_owned(),
        })
    }

    /// Whether the packet passes. Its length, in the words of the filter, is the captured one.
    pub fn matches(&self, data: &[u8]) -> bool {
        self.program.filter(data)
    }
}

/// libpcap's number within a program (DLT_) for that in a file (LINKTYPE_): they differ for raw IP only, of
/// those known here.
fn data_link(link: LinkType) -> Linktype {
    const DLT_RAW: i32 = if cfg!(target_os = "openbsd") { 14 } else { 12 };
    match link {
        LinkType::RAW | LinkType::RAW_12 | LinkType::RAW_14 => Linktype(DLT_RAW),
        LinkType(number) => Linktype(i32::from(number)),
    }
}

fn bad_filter(expression: &str, error: &pcap::Error) -> LiveError {
    LiveError::Filter {
        expression: expression.to_owned(),
        message: words(error),
    }
}

/// The message without what the caller says anyway.
fn words(error: &pcap::Error) -> String {
    match error {
        pcap::Error::PcapError(message) => message.clone(),
        other => other.to_string(),
    }
}

/// libpcap reports in words only: the list of interfaces and the words of its permission errors tell why.
fn diagnose(device: &str, error: &pcap::Error) -> LiveError {
    let message = words(error);
    let known: Vec<String> = devices()
        .map(|list| list.into_iter().map(|device| device.name).collect())
        .unwrap_or_default();
    let device = device.to_owned();
    if ["ermission", "not permitted", "CAP_NET_RAW"]
        .iter()
        .any(|word| message.contains(word))
    {
        LiveError::NotPermitted { device, message }
    } else if !known.is_empty() && !known.contains(&device) {
        LiveError::NoSuchDevice { device, known }
    } else {
        LiveError::Open { device, message }
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::time::{Duration, Instant};

    use super::*;

    /// Ethernet, IPv4, UDP from port 1000 to 2000, no data.
    const UDP: [u8; 42] = [
        2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10,
        0, 0, 2, 0x03, 0xe8, 0x07, 0xd0, 0, 8, 0, 0,
    ];

    #[test]
    fn a_filter_tells_packets_apart() {
        let filter = |link, expression| BpfFilter::compile(link, expression).expect("compiles");
        let (ethernet, ip) = (LinkType::ETHERNET, &UDP[14..]);
        assert!(filter(ethernet, "udp dst port 2000").matches(&UDP));
        assert!(!filter(ethernet, "udp src port 2000").matches(&UDP));
        assert!(!filter(ethernet, "tcp").matches(&UDP));
        assert!(filter(ethernet, "").matches(&UDP));
        for cut in 0..UDP.len() {
            // The ports come last: without them it is no match, and nothing worse.
            assert_eq!(
                filter(ethernet, "udp dst port 2000").matches(&UDP[..cut]),
                cut >= 38
            );
        }
        for link in [LinkType::RAW, LinkType::RAW_12, LinkType::RAW_14, LinkType::IPV4] {
            assert!(filter(link, "udp dst port 2000").matches(ip), "{link}");
            assert!(!filter(link, "udp dst port 2001").matches(ip), "{link}");
        }
    }

    #[test]
    fn a_bad_filter_is_quoted() {
        for expression in ["tcp prot 80", "tcp\0", "((("] {
            let error = BpfFilter::compile(LinkType::ETHERNET, expression).expect_err("nonsense");
            assert!(matches!(&error, LiveError::Filter { expression: quoted, .. } if quoted == expression));
        }
    }

    #[test]
    fn an_unknown_interface_is_answered_with_those_that_there_are() {
        let error =
            LiveInterface::open("no-such-if0", &LiveOptions::default()).expect_err("no such interface");
        match error {
            LiveError::NoSuchDevice { device, known } => {
                assert_eq!(device, "no-such-if0");
                assert!(!known.contains(&device) && !known.is_empty());
            }
            // Without privileges, libpcap may not come as far as the name.
            LiveError::NotPermitted { message, .. } => println!("SKIP: not permitted here: {message}"),
            other => panic!("{other:?}"),
        }
    }

    fn open_loopback(filter: &str) -> Option<LiveInterface> {
        let name = devices().ok()?.into_iter().find(|device| device.loopback)?.name;
        let options = LiveOptions {
            filter: Some(filter.to_owned()),
            ..LiveOptions::default()
        };
        match LiveInterface::open(&name, &options) {
            Ok(interface) => Some(interface),
            Err(error @ LiveError::NotPermitted { .. }) => {
                println!("SKIP: {error}");
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// The next packet; the deadline only ends a test that has failed.
    fn await_packet(interface: &mut LiveInterface, frame: &mut Vec<u8>) -> Received {
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            match interface.receive(frame).expect("loopback stays") {
                Received::Nothing => std::thread::yield_now(),
                received => return received,
            }
        }
        panic!("no packet came");
    }

    #[test]
    fn loopback_delivers_what_a_socket_sends_and_what_we_send() {
        let receiver = UdpSocket::bind("127.0.0.1:0").expect("a port");
        receiver
            .set_read_timeout(Some(Duration::from_secs(20)))
            .expect("a timeout");
        let address = receiver.local_addr().expect("bound");
        let Some(mut interface) = open_loopback(&format!("udp dst port {}", address.port())) else {
            return;
        };
        let mut frame = Vec::new();
        assert_eq!(interface.receive(&mut frame), Ok(Received::Nothing));

        let sender = UdpSocket::bind("127.0.0.1:0").expect("a port");
        sender.send_to(b"even keel", address).expect("sent");
        let received = await_packet(&mut interface, &mut frame);
        let Received::Packet {
            time_ns,
            orig_len,
            snapped,
        } = received
        else {
            panic!("{received:?}")
        };
        assert!(time_ns > 1_700_000_000_000_000_000 && !snapped, "{received:?}");
        assert_eq!(orig_len as usize, frame.len());
        assert!(frame.ends_with(b"even keel"));
        let mut buffer = [0; 64];
        assert_eq!(receiver.recv(&mut buffer).expect("the socket got it"), 9);

        if interface.link() == LinkType::ETHERNET {
            // The same frame again with other data: it comes back to the capture. (Not to the socket: Linux
            // takes loopback addresses in an injected frame for martians.)
            let data = frame.len() - 9;
            frame[data..].copy_from_slice(b"keel even");
            interface.send(&frame).expect("sent");
            let mut echo = Vec::new();
            let received = await_packet(&mut interface, &mut echo);
            assert!(
                matches!(received, Received::Packet { snapped: false, .. }),
                "{received:?}"
            );
            assert_eq!(echo, frame);
        }
        assert!(interface.stats().expect("Linux and BSD count").received >= 1);
    }
}
