//! Interfaces through libpcap.

use std::sync::Arc;
use std::time::Duration;

use evenkeel_core::port::WorkerId;
use evenkeel_io_pcap::live_port::{HANDOFF_COUNT_MAX, Handoffs, LivePort};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tracing::warn;

use crate::io::station::Driver;
use crate::lane::{IoCounts, Lane, io_counts};
use crate::{Refusal, refusal};

/// Sleep while an interface is down.
const FAILING_SLEEP: Duration = Duration::from_millis(1);

impl Driver for LivePort {
    type Guard = ();

    fn enter(&self) {}

    fn sleep(&mut self, at_most: Duration, lane: &Lane) {
        if self.waiting() > 0 {
            return;
        }
        if let Some(error) = self.take_failure() {
            warn!("{error}");
        }
        if self.is_failing() {
            // It would be awake at once, as often as it asks.
            std::thread::sleep(at_most.min(FAILING_SLEEP));
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

    fn counts(&mut self) -> IoCounts {
        self.count_kernel_drops();
        let stats = self.stats();
        io_counts(&[
            ("rx-frames", stats.rx_frames),
            ("rx-unusable", stats.rx_unusable),
            ("rx-failed", stats.rx_failed),
            ("rx-kernel-dropped", stats.rx_kernel_dropped),
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
pub(crate) fn open(devices: &[String], lanes: &[Arc<Lane>]) -> Result<Vec<LivePort>, Refusal> {
    let workers = u8::try_from(lanes.len()).unwrap_or(u8::MAX);
    let handoffs = Handoffs::new(workers, HANDOFF_COUNT_MAX);
    let ports = (0..workers).zip(lanes).map(|(worker, lane)| {
        let mut port = LivePort::open(devices, WorkerId(worker), &handoffs).map_err(|error| {
            refusal(
                error.to_string(),
                "bring the interface up, or correct `device` of the port",
            )
        })?;
        let (punts, wakes) = (Arc::clone(lane), lanes.to_vec());
        port.set_punt(Box::new(move |at, frame| punts.punt(at, frame)));
        port.set_wake(Box::new(move |worker| {
            if let Some(lane) = wakes.get(usize::from(worker.0)) {
                lane.worker_bell.ring();
            }
        }));
        Ok(port)
    });
    ports.collect()
}
