//! Two instances of a virtual router, one of each family, that hear arbitrary frames, good ones with a few bytes
//! changed among them, while time passes and their node becomes ready, unready, stops and starts.
#![no_main]

use std::net::IpAddr;
use std::time::Duration;

use evenkeel_core::time::Instant;
use evenkeel_core::vrrp::{EVENT_COUNT_MAX, Vrrp, VrrpConfig, VrrpState, is_advertisement};
use evenkeel_core::wire::{Ipv4View, Pseudo, VrrpView};
use libfuzzer_sys::fuzz_target;

fn ip(s: &str) -> IpAddr {
    s.parse().expect("an address")
}

fn instance(v6: bool, host: u8, priority: u8) -> Vrrp {
    let config = VrrpConfig {
        vrid: 51,
        priority,
        interval_cs: 10,
        preempt: host % 2 == 0,
        primary: ip(&if v6 {
            format!("fe80::{host:x}")
        } else {
            format!("192.0.2.{host}")
        }),
        addrs: vec![ip(if v6 { "2001:db8:1::1" } else { "198.51.100.1" })],
        router: false,
        ipv4_pseudo_header: true,
        lease_margin: Duration::from_millis(50),
    };
    Vrrp::new(config, Instant::ZERO).expect("a good config")
}

/// An advertisement of another node, as it would send it.
fn advertisement(v6: bool, host: u8, priority: u8) -> Vec<u8> {
    let mut other = instance(v6, host, priority.max(1));
    other.handle_timeout(Instant::from_millis(500));
    other.handle_ready(Instant::from_millis(500), true);
    // It takes its skew, which is less than an interval, until it is the master.
    other.handle_timeout(Instant::from_millis(60_000));
    if priority == 0 {
        other.handle_shutdown(Instant::from_millis(60_000));
    }
    other.poll_transmit().expect("an advertisement")
}

/// Checksums put right, so that what is behind them is reached.
fn mend(frame: &mut [u8]) {
    if let Some(Ok(mut packet)) = frame.get_mut(14..).map(Ipv4View::new_checked) {
        packet.fill_checksum();
        let pseudo = Pseudo::v4(packet.src(), packet.dst());
        if let Ok(mut message) = VrrpView::new_checked(packet.payload_mut()) {
            message.fill_checksum(&pseudo);
        }
    }
}

fuzz_target!(|steps: Vec<(u8, u8, u16, Vec<u8>)>| {
    let mut instances = [instance(false, 5, 100), instance(true, 6, 100)];
    let mut now = Instant::ZERO;
    for (what, a, later, bytes) in steps.into_iter().take(200) {
        now = now + Duration::from_millis(u64::from(later));
        for (v6, v) in [false, true].into_iter().zip(&mut instances) {
            let known = v.counters().adverts_in + v.counters().drops.iter().sum::<u64>();
            let mut heard = 0;
            match what % 8 {
                0 => v.handle_ready(now, a & 1 == 1),
                1 => v.handle_timeout(now),
                2 => v.handle_shutdown(now),
                3 => v.handle_startup(now),
                4 => v.handle_sent(now),
                5 => {
                    let _ = v.handle_frame(now, &bytes);
                    heard = 1;
                }
                _ => {
                    let mut frame = advertisement(v6, a % 16 + 1, bytes.first().map_or(100, |b| *b));
                    for change in bytes.get(1..).unwrap_or(&[]).chunks_exact(2) {
                        let at = usize::from(change[0]) % frame.len();
                        frame[at] ^= change[1];
                    }
                    if a & 0x80 != 0 {
                        mend(&mut frame);
                    }
                    let _ = v.handle_frame(now, &frame);
                    heard = 1;
                }
            }
            let counted = v.counters().adverts_in + v.counters().drops.iter().sum::<u64>();
            assert_eq!(counted, known + heard, "every frame is counted, once");
            assert!(v.lease_until().is_none() || v.state() == VrrpState::Master);
            assert_eq!(v.poll_timeout().is_none(), v.state() == VrrpState::Initialize);
            let frames: Vec<_> = std::iter::from_fn(|| v.poll_transmit()).collect();
            assert!(frames.len() <= 2);
            assert!(frames.iter().skip(1).all(|f| !is_advertisement(f)));
            assert!(std::iter::from_fn(|| v.poll_event()).count() <= EVENT_COUNT_MAX);
        }
    }
});
