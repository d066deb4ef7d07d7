//! Interfaces through libpcap.

use std::sync::Arc;
use std::time::Duration;

use evenkeel_control::Config;
use evenkeel_core::port::WorkerId;
use evenkeel_io_pcap::live::{LiveError, mtu_of};
use evenkeel_io_pcap::live_port::{HANDOFF_COUNT_MAX, Handoffs, LivePort};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tracing::warn;

use crate::io::station::Driver;
use crate::lane::{IoCounts, Lane, io_counts};
use crate::start::Start;
use crate::{Refusal, refusal};

impl Driver for LivePort {
    type Guard = ();

    fn enter(&self) {}

    fn sleep(&mut self, at_most: Duration, lane: &Lane) {
        if self.waiting() > 0 {
            return;
        }
        let fds = self.fds().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        let mut fds: Vec<_> = fds
            .chain([PollFd::new(&lane.worker_bell, PollFlags::IN)])
            .collect();
        let timeout = Timespec {
            tv_sec: at_most.as_secs().try_into().unwrap_or(0),
            tv_nsec: at_most.subsec_nanos().into(),
        };
        // Interrupted by a signal: as good as the end of the time.
        let _ = poll(&mut fds, Some(&timeout));
    }

    fn say_news(&mut self) {
        // Once for each change, however often it is asked.
        while let Some(news) = self.take_news() {
            warn!("{news}");
        }
    }

    fn counts(&mut self) -> IoCounts {
        self.count_kernel_drops();
        let stats = self.stats();
        io_counts(&[
            ("rx-frames", stats.rx_frames),
            ("rx-unusable", stats.rx_unusable),
            ("rx-merged", stats.rx_merged),
            ("rx-failed", stats.rx_failed),
            ("rx-kernel-dropped", stats.rx_kernel_dropped),
            ("reopened", stats.reopened),
            ("tx-frames", stats.tx_frames),
            ("tx-failed", stats.tx_failed),
            ("tx-no-interface", stats.tx_no_interface),
            ("handoffs", stats.handoffs),
            ("handoff-full", stats.handoff_full),
            ("punted", stats.punted),
        ])
    }
}

/// Opens the interfaces of all workers.
pub(crate) fn open(
    config: &Config,
    devices: &[String],
    lanes: &[Arc<Lane>],
    start: &Start,
) -> Result<Vec<LivePort>, Refusal> {
    let workers = u8::try_from(lanes.len()).unwrap_or(u8::MAX);
    let handoffs = Handoffs::new(workers, HANDOFF_COUNT_MAX);
    let ports = (0..workers).zip(lanes).map(|(worker, lane)| {
        start.doing(format!("the interfaces of worker {} of {workers}", worker + 1));
        let mut port = LivePort::open(devices, WorkerId(worker), &handoffs)
            .map_err(|error| refusal(error.to_string(), remedy(&error)))?;
        let (punts, wakes) = (Arc::clone(lane), lanes.to_vec());
        port.set_punt(Box::new(move |at, frame| punts.punt(at, frame)));
        port.set_wake(Box::new(move |worker| {
            if let Some(lane) = wakes.get(usize::from(worker.0)) {
                lane.worker_bell.ring();
            }
        }));
        Ok(port)
    });
    let ports = ports.collect::<Result<_, _>>()?;
    for (port, device) in config.spec.ports.iter().zip(devices) {
        let Some(own) = mtu_of(device) else { continue };
        if let Some(mtu) = port.mtu.filter(|&mtu| u32::from(mtu) > own) {
            warn!(
                "port {} has `mtu` {mtu}, and {device} sends no more than {own}: longer packets are lost (tx-failed of `ctl stats`)",
                port.name
            );
        }
    }
    Ok(ports)
}

/// What to do about an interface that cannot be opened.
fn remedy(error: &LiveError) -> &'static str {
    match error {
        LiveError::UnsupportedLink { .. } => {
            "name an Ethernet interface as `device` of the port; `ip -brief link` lists them with their MAC addresses"
        }
        LiveError::NoSuchDevice { .. } => "correct `device` of the port, or make the interface",
        LiveError::NotPermitted { .. } => {
            "start as root, with `user` of [daemon]; docs/deploy.md says what else will do"
        }
        _ => "bring the interface up, or correct `device` of the port",
    }
}
