use super::*;
use crate::wire::{Ipv4View, Pseudo, VrrpView};
use alloc::string::String;
use core::fmt::Write;
use core::net::{Ipv4Addr, Ipv6Addr};
use proptest::prelude::*;
use std::format;
use std::string::ToString;
use std::vec;

fn ms(n: u64) -> Instant {
    Instant::from_millis(n)
}

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Node `n` of VRID 51, every 100 ms.
fn config(v6: bool, n: u8, priority: u8) -> VrrpConfig {
    let addr = |s: &str| s.parse::<IpAddr>().expect("an address");
    VrrpConfig {
        vrid: 51,
        priority,
        interval_cs: 10,
        preempt: true,
        primary: addr(&if v6 {
            format!("fe80::{n:x}")
        } else {
            format!("192.0.2.{n}")
        }),
        addrs: if v6 {
            vec![addr("fe80::33"), addr("2001:db8:1::1")]
        } else {
            vec![addr("198.51.100.1"), addr("198.51.100.46")]
        },
        router: false,
        ipv4_pseudo_header: true,
        lease_margin: millis(50),
    }
}

fn vrrp(config: VrrpConfig) -> Vrrp {
    Vrrp::new(config, ms(0)).expect("a good config")
}

/// One that is master since its Master_Down_Interval passed, with nothing left to poll.
fn master(config: VrrpConfig) -> Vrrp {
    let mut v = vrrp(config);
    v.handle_ready(ms(0), true);
    v.handle_timeout(v.poll_timeout().expect("a timer"));
    assert_eq!(v.state(), VrrpState::Master);
    drain(&mut v);
    v
}

fn drain(v: &mut Vrrp) -> (Vec<Vec<u8>>, Vec<VrrpEvent>) {
    let frames = core::iter::from_fn(|| v.poll_transmit()).collect();
    let events = core::iter::from_fn(|| v.poll_event()).collect();
    (frames, events)
}

/// The advertisement that node `n` with this config would send.
fn advert(config: VrrpConfig) -> Vec<u8> {
    let priority = config.priority;
    vrrp(config).framing.advertisement(priority)
}

fn stop_of(config: VrrpConfig) -> Vec<u8> {
    vrrp(config).framing.advertisement(PRIORITY_STOPPED)
}

/// What a frame is, in a word or two.
fn describe(frame: &[u8]) -> String {
    if is_advertisement(frame) {
        let l4 = if frame[12] == 0x08 { 34 } else { 54 };
        return format!("advert {}", VrrpView::new_unchecked(&frame[l4..]).priority());
    }
    match frame[12..14] {
        [0x08, 0x06] => "ARP".to_string(),
        [0x86, 0xdd] => "NA".to_string(),
        _ => panic!("what is {frame:02x?}?"),
    }
}

#[test]
fn intervals_of_the_rfc() {
    let v = vrrp(config(false, 1, 100));
    // (256 - 100) * 100 ms / 256, and three intervals more.
    assert_eq!(v.skew_time(), Duration::from_nanos(60_937_500));
    assert_eq!(v.master_down_interval(), Duration::from_nanos(360_937_500));
    assert_eq!(v.poll_timeout(), Some(Instant::from_nanos(360_937_500)));
    let v = vrrp(config(false, 1, 254));
    assert_eq!(v.skew_time(), Duration::from_nanos(781_250));
    let mut v = vrrp(config(false, 1, 100));
    // The master's interval counts, not one's own.
    let mut other = config(false, 2, 200);
    other.interval_cs = 4095;
    v.handle_frame(ms(10), &advert(other)).expect("an advertisement");
    assert_eq!(v.master_down_interval(), millis(40_950) * 3 + v.skew_time());
    assert_eq!(v.poll_timeout(), Some(ms(10) + v.master_down_interval()));
    assert_eq!(v.counters().other_interval_in, 1);
    assert_eq!(v.config().interval(), millis(100));
}

#[test]
fn configs_that_cannot_be() {
    let refused = |edit: fn(&mut VrrpConfig)| {
        let mut config = config(false, 1, 100);
        edit(&mut config);
        Vrrp::new(config, ms(0)).map(|_| ()).expect_err("refused")
    };
    let v6: IpAddr = Ipv6Addr::LOCALHOST.into();
    assert_eq!(refused(|c| c.vrid = 0), VrrpConfigError::Vrid);
    assert_eq!(refused(|c| c.priority = 0), VrrpConfigError::Priority);
    assert_eq!(refused(|c| c.interval_cs = 0), VrrpConfigError::Interval);
    assert_eq!(refused(|c| c.interval_cs = 4096), VrrpConfigError::Interval);
    assert_eq!(
        refused(|c| c.primary = Ipv4Addr::UNSPECIFIED.into()),
        VrrpConfigError::Primary
    );
    assert_eq!(refused(|c| c.addrs.clear()), VrrpConfigError::AddrCount);
    assert_eq!(
        refused(|c| c.addrs = vec![Ipv4Addr::new(10, 0, 0, 1).into(); 256]),
        VrrpConfigError::AddrCount
    );
    assert_eq!(
        refused(|c| c.addrs.push(Ipv6Addr::LOCALHOST.into())),
        VrrpConfigError::Addr(v6)
    );
    assert_eq!(
        refused(|c| c.lease_margin = millis(201)),
        VrrpConfigError::LeaseMargin
    );
    for error in [
        VrrpConfigError::Vrid,
        VrrpConfigError::AddrCount,
        VrrpConfigError::Addr(v6),
    ] {
        assert!(!error.to_string().is_empty());
    }
    let mut many = config(true, 1, 100);
    many.addrs = (0..90)
        .map(|n| Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n + 1).into())
        .collect();
    let v = Vrrp::new(many, ms(0)).expect("90 are allowed");
    assert!(v.framing.advertisement(1).len() <= 14 + 1500);
}

/// Every byte of what is sent, IPv4: Ethernet, IP, VRRP.
#[test]
fn advertisement_bytes_v4() {
    let frame = advert(config(false, 1, 200));
    let want: [u8; 50] = [
        0x01, 0x00, 0x5e, 0x00, 0x00, 0x12, 0x00, 0x00, 0x5e, 0x00, 0x01, 0x33, 0x08, 0x00, //
        0x45, 0xc0, 0x00, 0x24, 0x00, 0x00, 0x40, 0x00, 0xff, 0x70, 0xd8, 0x95, // TTL 255, protocol 112
        192, 0, 2, 1, 224, 0, 0, 18, //
        0x31, 0x33, 0xc8, 0x02, 0x00, 0x0a, 0x0f, 0x94, // version 3, type 1, VRID 51, 200, 100 ms
        198, 51, 100, 1, 198, 51, 100, 46,
    ];
    // Checksums by RFC 1071's definition.
    let by_hand = |bytes: &[u8]| {
        let sum: u32 = bytes
            .chunks(2)
            .map(|w| u32::from(w[0]) << 8 | u32::from(w[1]))
            .sum();
        let sum = (sum & 0xffff) + (sum >> 16);
        (sum & 0xffff) as u16 + (sum >> 16) as u16
    };
    assert_eq!(by_hand(&want[14..34]), 0xffff);
    let pseudo = [&want[26..34], &[0, 112, 0, 16], &want[34..]].concat();
    assert_eq!(by_hand(&pseudo), 0xffff);
    assert_eq!(frame, want);
    // The form of RFC 9568.
    let mut c = config(false, 1, 200);
    c.ipv4_pseudo_header = false;
    let frame = advert(c);
    assert_eq!(frame[..40], want[..40]);
    assert_eq!(by_hand(&frame[34..]), 0xffff);
}

#[test]
fn advertisement_v6_as_etherparse_reads_it() {
    let frame = advert(config(true, 1, 200));
    let sliced = etherparse::SlicedPacket::from_ethernet(&frame).expect("etherparse reads it");
    let Some(etherparse::LinkSlice::Ethernet2(link)) = &sliced.link else {
        panic!("no Ethernet");
    };
    assert_eq!(link.destination(), [0x33, 0x33, 0, 0, 0, 0x12]);
    assert_eq!(link.source(), [0, 0, 0x5e, 0, 2, 51]);
    let Some(etherparse::NetSlice::Ipv6(ip)) = &sliced.net else {
        panic!("no IPv6");
    };
    let h = ip.header();
    assert_eq!((h.hop_limit(), h.next_header().0), (255, 112));
    assert_eq!(h.source_addr(), "fe80::1".parse::<Ipv6Addr>().expect("address"));
    assert_eq!(
        h.destination_addr(),
        "ff02::12".parse::<Ipv6Addr>().expect("address")
    );
    assert_eq!(usize::from(h.payload_length()), 8 + 32);
    let message = &frame[54..];
    assert_eq!(message[..6], [0x31, 51, 200, 2, 0, 10]);
    assert_eq!(
        message[8..24],
        "fe80::33".parse::<Ipv6Addr>().expect("address").octets()
    );
    let pseudo = Pseudo::v6(h.source_addr(), h.destination_addr());
    assert!(VrrpView::new_unchecked(message).verify_checksum(&pseudo));
}

/// Each state, and how it is reached; each event. One row a pair: state, timer, frames, events.
#[test]
fn whole_state_table() {
    type Make = fn() -> Vrrp;
    type Happen = fn(&mut Vrrp, Instant) -> Result<(), VrrpDrop>;
    const T: Instant = Instant::from_nanos(10_000_000_000);
    // All at T, with a timer that is not due.
    fn at_t(mut v: Vrrp) -> Vrrp {
        let preempts = v.ready && v.config.preempt;
        let better = config(false, 9, if preempts { 250 } else { 90 });
        if v.state() == VrrpState::Backup && !v.silence {
            v.handle_frame(T, &advert(better)).expect("heard");
        } else {
            v.handle_timeout(T);
        }
        drain(&mut v);
        v
    }
    fn backup(preempt: bool, ready: bool) -> Vrrp {
        let mut c = config(false, 5, 100);
        c.preempt = preempt;
        let mut v = vrrp(c);
        v.handle_ready(ms(0), ready);
        at_t(v)
    }
    let states: [(&str, Make); 8] = [
        ("Initialize", || {
            let mut v = vrrp(config(false, 5, 100));
            v.handle_ready(ms(0), true);
            v.handle_shutdown(ms(0));
            drain(&mut v);
            v
        }),
        ("Initialize, owner", || {
            let mut v = master(config(false, 5, 255));
            v.handle_shutdown(T);
            drain(&mut v);
            v
        }),
        ("Backup, ready", || backup(true, true)),
        ("Backup, ready, no preempt", || backup(false, true)),
        ("Backup, not ready", || backup(true, false)),
        ("Backup, not ready, silence", || {
            let mut v = vrrp(config(false, 5, 100));
            v.handle_timeout(ms(9000));
            at_t(v)
        }),
        ("Master", || at_t(master(config(false, 5, 100)))),
        ("Master, owner", || at_t(master(config(false, 5, 255)))),
    ];
    fn hears(v: &mut Vrrp, at: Instant, n: u8, priority: u8) -> Result<(), VrrpDrop> {
        let mut c = config(false, n, priority.max(1));
        c.interval_cs = 20;
        let frame = if priority == 0 { stop_of(c) } else { advert(c) };
        v.handle_frame(at, &frame)
    }
    let events: [(&str, Happen); 12] = [
        ("startup", |v, at| {
            v.handle_startup(at);
            Ok(())
        }),
        ("shutdown", |v, at| {
            v.handle_shutdown(at);
            Ok(())
        }),
        ("ready", |v, at| {
            v.handle_ready(at, true);
            Ok(())
        }),
        ("not ready", |v, at| {
            v.handle_ready(at, false);
            Ok(())
        }),
        ("timer", |v, _| {
            let due = v.timer.unwrap_or(T + millis(7));
            v.announce_again = None;
            v.handle_timeout(due);
            Ok(())
        }),
        ("advert 0", |v, at| hears(v, at, 9, 0)),
        ("advert 99", |v, at| hears(v, at, 9, 99)),
        ("advert 100, lower address", |v, at| hears(v, at, 1, 100)),
        ("advert 100, higher address", |v, at| hears(v, at, 9, 100)),
        ("advert 101", |v, at| hears(v, at, 1, 101)),
        ("advert 255", |v, at| hears(v, at, 9, 255)),
        ("own advert", |v, at| hears(v, at, 5, 101)),
    ];
    let mut page = String::new();
    for (name, make) in states {
        writeln!(page, "{name}").expect("a string grows");
        for (event, happen) in events {
            let mut v = make();
            let before = v.timer;
            let result = happen(&mut v, T + millis(7));
            let timer = match v.timer {
                None => "none".to_string(),
                Some(at) if Some(at) == before => "as before".to_string(),
                Some(at) => format!("{:?}", at - v.now),
            };
            let state = format!("{:?}", v.state());
            let (frames, told) = drain(&mut v);
            let frames: Vec<_> = frames.iter().map(|f| describe(f)).collect();
            write!(page, "    {event:<27} -> {state:<10}  timer {timer}").expect("a string grows");
            if let Err(reason) = result {
                write!(page, "; dropped: {}", reason.name()).expect("a string grows");
            }
            if !frames.is_empty() {
                write!(page, "; sends {}", frames.join(", ")).expect("a string grows");
            }
            for event in told {
                write!(page, "; {event:?}").expect("a string grows");
            }
            page.push('\n');
        }
    }
    insta::assert_snapshot!(page);
}

/// A cold start: both listened in silence, and both are ready in the same instant. Only the better one takes over.
#[test]
fn of_two_that_are_ready_at_once_one_is_master() {
    let mut nodes = [vrrp(config(false, 1, 100)), vrrp(config(false, 2, 200))];
    for v in &mut nodes {
        v.handle_timeout(ms(900));
        v.handle_ready(ms(1000), true);
        // Said again, it puts nothing off.
        v.handle_ready(ms(1010), true);
        assert_eq!(v.poll_timeout(), Some(ms(1000) + v.skew_time()));
    }
    let [low, high] = &mut nodes;
    high.handle_timeout(ms(1000) + high.skew_time());
    assert_eq!(high.state(), VrrpState::Master);
    for frame in drain(high).0.iter().filter(|f| is_advertisement(f)) {
        low.handle_frame(ms(1030), frame).expect("heard");
    }
    low.handle_timeout(ms(1000) + low.skew_time());
    assert_eq!(low.state(), VrrpState::Backup);
    assert_eq!(low.counters().became_master, 0);
}

/// The timer of the lesser one is about to pass when both are ready: that it came round just now means nothing.
#[test]
fn a_timer_that_is_about_to_pass_makes_no_master_of_the_lesser_one() {
    let mut low = vrrp(config(false, 1, 100));
    let passes = low.poll_timeout().expect("it listens");
    low.handle_timeout(passes);
    let again = low.poll_timeout().expect("it listens on");
    let ready = Instant::from_nanos(again.as_nanos() - 1_000_000);
    low.handle_ready(ready, true);
    assert_eq!(low.poll_timeout(), Some(ready + low.skew_time()));
    assert!(low.skew_time() > millis(1));
}

#[test]
fn a_new_master_announces_twice() {
    for v6 in [false, true] {
        let mut v = vrrp(config(v6, 1, 200));
        v.handle_ready(ms(0), true);
        let at = v.poll_timeout().expect("a timer");
        v.handle_timeout(at);
        let (frames, events) = drain(&mut v);
        let kind = if v6 { "NA" } else { "ARP" };
        assert_eq!(
            frames.iter().map(|f| describe(f)).collect::<Vec<_>>(),
            ["advert 200", kind, kind]
        );
        for (frame, addr) in frames[1..].iter().zip(&v.config().addrs.clone()) {
            assert_eq!(frame[6..12], v.virtual_mac().0);
            assert_eq!(*frame, announcement(v.virtual_mac(), *addr, false));
        }
        assert_eq!(
            events,
            [VrrpEvent::BecameBackup { master: None }, VrrpEvent::BecameMaster]
        );
        // Once more a second later, and never again.
        let (mut announcements, mut adverts) = (0, 0);
        let end = at + millis(5000);
        while let Some(due) = v.poll_timeout().filter(|due| *due < end) {
            v.handle_timeout(due);
            for frame in drain(&mut v).0 {
                if is_advertisement(&frame) {
                    adverts += 1;
                } else {
                    assert_eq!(due, at + ANNOUNCE_AGAIN);
                    announcements += 1;
                }
            }
        }
        assert_eq!((adverts, announcements), (49, 2));
        assert_eq!(v.counters().announcements_out, 4);
        assert_eq!(v.counters().adverts_out, 50);
    }
}

/// Announcements that were not polled are not sent by one that is master no longer.
#[test]
fn nothing_is_announced_after_giving_way() {
    let mut v = vrrp(config(false, 1, 100));
    v.handle_ready(ms(0), true);
    v.handle_timeout(v.poll_timeout().expect("a timer"));
    v.handle_frame(ms(400), &advert(config(false, 2, 101)))
        .expect("heard");
    assert_eq!(v.state(), VrrpState::Backup);
    assert_eq!(drain(&mut v).0, Vec::<Vec<u8>>::new());
    let mut v = vrrp(config(false, 1, 100));
    v.handle_ready(ms(0), true);
    v.handle_timeout(v.poll_timeout().expect("a timer"));
    v.handle_shutdown(ms(400));
    let (frames, _) = drain(&mut v);
    assert_eq!(frames, [stop_of(config(false, 1, 100))], "the stop only");
    assert_eq!(v.poll_timeout(), None);
}

#[test]
fn the_lease_runs_from_what_was_sent() {
    let mut v = vrrp(config(false, 1, 100));
    v.handle_sent(ms(1));
    assert_eq!(v.lease_until(), None, "a backup has none");
    v.handle_ready(ms(2), true);
    v.handle_timeout(ms(400));
    assert_eq!(v.lease_until(), None, "queued is not sent");
    assert!(v.is_suspect(ms(400)));
    // A report of what was sent before.
    v.handle_sent(ms(399));
    assert_eq!(v.lease_until(), None);
    v.handle_sent(ms(401));
    // Three intervals, the skew of priority 255, less 50 ms.
    let lease = Duration::from_nanos(300_390_625 - 50_000_000);
    assert_eq!(v.lease_until(), Some(ms(401) + lease));
    assert!(!v.is_suspect(ms(651)));
    assert!(v.is_suspect(ms(652)));
    v.handle_sent(ms(600));
    v.handle_sent(ms(500));
    assert_eq!(
        v.lease_until(),
        Some(ms(600) + lease),
        "reports may overtake each other"
    );
    v.handle_frame(ms(601), &advert(config(false, 2, 101)))
        .expect("heard");
    assert_eq!(v.lease_until(), None);
    assert!(!v.is_suspect(ms(9000)), "a backup has nothing to be sure of");
}

#[test]
fn which_frames_are_advertisements() {
    for v6 in [false, true] {
        let mut v = vrrp(config(v6, 1, 100));
        v.handle_ready(ms(0), true);
        v.handle_timeout(ms(400));
        let (frames, _) = drain(&mut v);
        let which: Vec<_> = frames.iter().map(|f| is_advertisement(f)).collect();
        assert_eq!(which, [true, false, false]);
    }
    assert!(!is_advertisement(&[]));
    assert!(!is_advertisement(&[8; 20]));
}

#[test]
fn events_are_bounded() {
    let mut v = vrrp(config(false, 1, 100));
    for _ in 0..20 {
        v.handle_shutdown(ms(1));
        v.handle_startup(ms(1));
    }
    let (_, events) = drain(&mut v);
    assert_eq!(events.len(), EVENT_COUNT_MAX);
    assert_eq!(events.last(), Some(&VrrpEvent::BecameBackup { master: None }));
    assert_eq!(v.counters().events_lost, 41 - 16);
}

/// The IPv4 header checksum and the message's put right after an edit.
fn mended(mut frame: Vec<u8>) -> Vec<u8> {
    let mut ip = Ipv4View::new_unchecked(&mut frame[14..]);
    ip.fill_checksum();
    let pseudo = Pseudo::v4(ip.src(), ip.dst());
    VrrpView::new_unchecked(ip.payload_mut()).fill_checksum(&pseudo);
    frame
}

/// Every check of RFC 9568, section 7.1, and some of the layers below: each is counted by itself.
#[test]
fn every_drop_has_its_reason() {
    let good = advert(config(false, 2, 200));
    let edited = |at: usize, value: u8| {
        let mut frame = good.clone();
        frame[at] = value;
        mended(frame)
    };
    let raw = |at: usize, value: u8| {
        let mut frame = good.clone();
        frame[at] ^= value;
        frame
    };
    let resized = |len: u8| {
        let mut frame = good.clone();
        frame.resize(14 + usize::from(len), 0);
        frame[17] = len;
        mended(frame)
    };
    let mut dst_unicast = good.clone();
    dst_unicast[30..34].copy_from_slice(&[192, 0, 2, 1]);
    let mut group_source = good.clone();
    group_source[26..30].copy_from_slice(&[224, 0, 0, 1]);
    let mut tagged = good.clone();
    tagged.splice(12..12, [0x81, 0, 0, 5]);
    let cases = [
        (VrrpDrop::NotVrrp, good[..13].to_vec()),
        (VrrpDrop::NotVrrp, raw(12, 0x01)),
        (VrrpDrop::NotVrrp, edited(23, 17)),
        (VrrpDrop::NotVrrp, tagged),
        (VrrpDrop::OtherFamily, advert(config(true, 2, 200))),
        (VrrpDrop::BadIp, good[..49].to_vec()),
        (VrrpDrop::BadIp, raw(14, 0x10)),
        (VrrpDrop::BadIp, raw(24, 0x10)),
        (VrrpDrop::BadIp, edited(20, 0x20)),
        (VrrpDrop::BadIp, edited(21, 1)),
        (VrrpDrop::OtherDestination, mended(dst_unicast)),
        (VrrpDrop::BadSource, mended(group_source)),
        (VrrpDrop::OwnSource, advert(config(false, 1, 200))),
        (VrrpDrop::BadTtl, edited(22, 254)),
        (VrrpDrop::BadTtl, edited(22, 1)),
        (VrrpDrop::BadLength, {
            let mut short = good.clone();
            short.truncate(14 + 27);
            short[17] = 27;
            let mut ip = Ipv4View::new_unchecked(&mut short[14..]);
            ip.fill_checksum();
            short
        }),
        (VrrpDrop::BadLength, resized(32)),
        (VrrpDrop::BadLength, resized(40)),
        (VrrpDrop::BadVersion, edited(34, 0x21)),
        (VrrpDrop::BadType, edited(34, 0x32)),
        (VrrpDrop::BadChecksum, raw(36, 0x01)),
        (VrrpDrop::BadChecksum, raw(41, 0x01)),
        (VrrpDrop::OtherVrid, edited(35, 52)),
        (VrrpDrop::NoAddress, edited(37, 0)),
        (VrrpDrop::BadInterval, edited(39, 0)),
    ];
    let mut v = vrrp(config(false, 1, 100));
    let mut want = VrrpCounters::default();
    for (reason, frame) in cases {
        let timer = v.poll_timeout();
        assert_eq!(v.handle_frame(ms(5), &frame), Err(reason), "{frame:02x?}");
        want.drops[reason as usize] += 1;
        assert_eq!((v.counters(), v.poll_timeout()), (&want, timer));
        assert_eq!(v.heard_master_at(), None);
    }
    v.handle_frame(ms(5), &good).expect("the good one");
    // Padding of a short frame is not part of it.
    v.handle_frame(ms(6), &[&good[..], &[0; 10]].concat())
        .expect("padded");
    assert_eq!(v.heard_master(), Some(config(false, 2, 200).primary));
    assert_eq!(v.heard_master_at(), Some(ms(6)));
    v.handle_shutdown(ms(7));
    assert_eq!(v.handle_frame(ms(7), &good), Err(VrrpDrop::Stopped));
    let mut owner = master(config(false, 1, 255));
    assert_eq!(owner.handle_frame(ms(900), &good), Err(VrrpDrop::AddressOwner));
    // And all of them were met.
    want.drops[VrrpDrop::Stopped as usize] += 1;
    want.drops[VrrpDrop::AddressOwner as usize] += 1;
    assert!(want.drops.iter().all(|n| *n > 0));
    for (i, reason) in VrrpDrop::ALL.iter().enumerate() {
        assert_eq!(*reason as usize, i);
    }
}

#[test]
fn checksums_of_both_readings_are_heard() {
    for pseudo in [true, false] {
        let mut c = config(false, 2, 200);
        c.ipv4_pseudo_header = pseudo;
        let mut v = vrrp(config(false, 1, 100));
        v.handle_frame(ms(1), &advert(c)).expect("heard");
    }
    // Over IPv6 there is one reading.
    let mut frame = advert(config(true, 2, 200));
    VrrpView::new_unchecked(&mut frame[54..]).fill_checksum_of_message();
    let mut v = vrrp(config(true, 1, 100));
    assert_eq!(v.handle_frame(ms(1), &frame), Err(VrrpDrop::BadChecksum));
}

#[test]
fn other_addresses_are_counted_and_heard() {
    let mut v = vrrp(config(false, 1, 100));
    let mut c = config(false, 2, 200);
    c.addrs.reverse();
    v.handle_frame(ms(1), &advert(c.clone())).expect("heard");
    assert_eq!(v.counters().other_addrs_in, 0, "order means nothing");
    c.addrs.pop();
    v.handle_frame(ms(1), &advert(c)).expect("heard");
    assert_eq!(v.counters().other_addrs_in, 1);
}

/// Every cut and every flipped bit of a good frame: dropped and counted, or an advertisement in all respects
/// but those that nobody protects (the link-layer header, IPv6's class and label).
#[test]
fn cuts_and_flipped_bits() {
    for v6 in [false, true] {
        let good = advert(config(v6, 2, 200));
        let fresh = vrrp(config(v6, 1, 100));
        for len in 0..good.len() {
            let mut v = fresh.clone();
            v.handle_frame(ms(1), &good[..len]).expect_err("cut");
            assert_eq!(v.counters().drops.iter().sum::<u64>(), 1);
            assert_eq!(v.poll_timeout(), fresh.poll_timeout());
        }
        for bit in 0..good.len() * 8 {
            let mut frame = good.clone();
            frame[bit / 8] ^= 1 << (bit % 8);
            let mut v = fresh.clone();
            let unprotected = bit / 8 < 12 || v6 && (14..18).contains(&(bit / 8));
            match v.handle_frame(ms(1), &frame) {
                Ok(()) => assert!(unprotected, "bit {bit} of {good:02x?}"),
                Err(_) => assert_eq!(v.counters().drops.iter().sum::<u64>(), 1),
            }
        }
    }
}

proptest! {
    /// Whatever comes: no panic, a bounded number of frames, the state's invariants.
    #[test]
    fn arbitrary_events(
        steps in prop::collection::vec((0u8..8, any::<u8>(), any::<u8>(), 0u16..2000, any::<bool>()), 1..60),
        v6: bool,
        preempt: bool,
        priority in 1u8..,
    ) {
        let mut c = config(v6, 5, priority);
        c.preempt = preempt;
        let mut v = vrrp(c);
        let mut now = ms(0);
        for (what, a, b, later, poll) in steps {
            now = now + millis(u64::from(later));
            match what {
                0 => v.handle_ready(now, a & 1 == 1),
                1 => v.handle_timeout(now),
                2 => v.handle_shutdown(now),
                3 => v.handle_startup(now),
                4 => v.handle_sent(now),
                _ => {
                    let mut heard = config(v6, a % 8 + 1, b.max(1));
                    heard.interval_cs = u16::from(b) + 1;
                    heard.lease_margin = Duration::ZERO;
                    let frame = if b == 0 { stop_of(heard) } else { advert(heard) };
                    let _ = v.handle_frame(now, &frame);
                }
            }
            if poll {
                let (frames, _) = drain(&mut v);
                prop_assert!(frames.len() <= 1 + v.config().addrs.len());
            }
            prop_assert_eq!(v.state() == VrrpState::Initialize, v.timer.is_none());
            prop_assert!(v.lease_until().is_none() || v.state() == VrrpState::Master);
            prop_assert!(v.announce_again.is_none() || v.state() == VrrpState::Master);
            prop_assert!(v.events.len() <= EVENT_COUNT_MAX);
        }
    }

    #[test]
    fn arbitrary_bytes(bytes: Vec<u8>, v6: bool, prefix in 0usize..60) {
        let good = advert(config(v6, 2, 200));
        let mut frame = good[..prefix.min(good.len())].to_vec();
        frame.extend(bytes);
        let mut v = vrrp(config(v6, 1, 100));
        let _ = v.handle_frame(ms(1), &frame);
        let _ = is_advertisement(&frame);
    }
}

mod cluster;

#[test]
fn a_promoted_backup_preempts_even_if_it_is_configured_not_to() {
    let mut low = config(false, 1, 100);
    low.preempt = false;
    let mut v = vrrp(low);
    v.handle_ready(ms(0), true);
    let master = advert(config(false, 2, 200));
    v.handle_frame(ms(10), &master).expect("an advertisement");
    v.handle_promote(ms(20), true);
    assert_eq!((v.priority(), v.is_promoted()), (PRIORITY_PROMOTED, true));
    let due = v.poll_timeout().expect("a timer");
    for at in [110, 210, 310] {
        v.handle_frame(ms(at), &master).expect("an advertisement");
    }
    assert_eq!(
        v.poll_timeout(),
        Some(due),
        "a master of lower priority does not hold it up"
    );
    v.handle_timeout(due);
    assert_eq!(v.state(), VrrpState::Master);
    let (frames, _) = drain(&mut v);
    assert_eq!(describe(&frames[0]), "advert 254");
    v.handle_frame(due + millis(1), &master)
        .expect("an advertisement");
    assert_eq!(v.state(), VrrpState::Master, "it is no better");

    v.handle_promote(due + millis(2), false);
    assert_eq!(
        v.poll_transmit().map(|f| describe(&f)),
        Some("advert 100".to_string()),
        "at once"
    );
    v.handle_frame(due + millis(3), &master)
        .expect("an advertisement");
    assert_eq!(v.state(), VrrpState::Backup);
}

#[test]
fn a_promoted_one_that_is_not_ready_waits() {
    let mut v = vrrp(config(false, 1, 100));
    v.handle_promote(ms(0), true);
    let master = advert(config(false, 2, 200));
    v.handle_frame(ms(10), &master).expect("an advertisement");
    for at in (50..2_000).step_by(50) {
        v.handle_frame(ms(at), &master).expect("an advertisement");
        v.handle_timeout(ms(at));
        assert_eq!(v.state(), VrrpState::Backup);
    }
    v.handle_ready(ms(2_000), true);
    v.handle_timeout(v.poll_timeout().expect("a timer"));
    assert_eq!(v.state(), VrrpState::Master);
}
