//! Arbitrary bytes as a script of frames, time steps and commands. It is played twice, in bursts and one
//! frame at a time: both must come out alike.
#![no_main]

mod lab;

use std::time::Duration;

use evenkeel_core::port::{Frame, HeapFrame, PortId, RxChecksum};
use evenkeel_core::time::Instant;
use evenkeel_core::tuple::{L4Proto, Tuple};
use evenkeel_core::worker::{Command, Verdicts, Worker};
use libfuzzer_sys::fuzz_target;

/// Reads the script; behind its end all is zero.
struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    fn take(&mut self, n: usize) -> &'a [u8] {
        let (head, rest) = self.0.split_at(n.min(self.0.len()));
        self.0 = rest;
        head
    }
}

/// A TCP or UDP packet without right checksums: its frame says that they are right.
fn frame(tuple: &Tuple, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut l4 = [tuple.src.port().to_be_bytes(), tuple.dst.port().to_be_bytes()].concat();
    match tuple.proto {
        L4Proto::Tcp => {
            l4.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags, 1, 0, 1, 1, 0, 0]);
        }
        L4Proto::Udp => {
            l4.extend((8 + payload.len() as u16).to_be_bytes());
            l4.extend([flags, flags]);
        }
    }
    l4.extend(payload);
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 1, 2];
    match (tuple.src.ip(), tuple.dst.ip()) {
        (std::net::IpAddr::V6(src), std::net::IpAddr::V6(dst)) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend((l4.len() as u16).to_be_bytes());
            frame.extend([tuple.proto.ip_proto(), 64]);
            frame.extend(src.octets());
            frame.extend(dst.octets());
        }
        (std::net::IpAddr::V4(src), std::net::IpAddr::V4(dst)) => {
            frame.extend([8, 0, 0x45, 0]);
            frame.extend((20 + l4.len() as u16).to_be_bytes());
            frame.extend([0, 1, 0, 0, 64, tuple.proto.ip_proto(), 0, 0]);
            frame.extend(src.octets());
            frame.extend(dst.octets());
        }
        _ => unreachable!("tuples of one family"),
    }
    frame.extend(l4);
    frame
}

/// A frame of the script: of a client, of the real server of its conn, or raw; perhaps changed.
fn next_frame(script: &mut Script<'_>, worker: &Worker) -> HeapFrame {
    let (what, service, who) = (script.byte(), script.byte() % 8, script.byte() % 8);
    let mut port = PortId(0);
    let mut bytes = if what % 8 == 7 {
        let len = usize::from(script.byte());
        script.take(len).to_vec()
    } else {
        let inbound = Tuple {
            proto: lab::proto(service),
            src: lab::client(service, who),
            dst: lab::vip(service),
        };
        let outbound = worker.conn(&inbound).map(|(view, _)| view.init.outbound());
        let tuple = match outbound {
            Some(outbound) if what & 1 == 1 => {
                port = PortId(1);
                outbound
            }
            _ => inbound,
        };
        let flags = script.byte();
        let len = usize::from(script.byte() % 64);
        frame(&tuple, flags, script.take(len))
    };
    if what & 0x40 != 0 && !bytes.is_empty() {
        let at = usize::from(script.byte()) % bytes.len();
        bytes[at] = script.byte();
    }
    if what & 0x80 != 0 {
        bytes.truncate(usize::from(script.byte()));
    }
    let mut frame = HeapFrame::new(port, &bytes);
    frame.rx_checksum = if what & 0x20 != 0 {
        RxChecksum::Unknown
    } else {
        RxChecksum::Good
    };
    frame
}

fuzz_target!(|bytes: &[u8]| {
    let mut script = Script(bytes);
    let (mut bursts, mut singles) = (lab::worker(), lab::worker());
    let mut verdicts = Verdicts::default();
    let mut now = Instant::from_millis(1);
    let mut steps = 0;
    while !script.0.is_empty() && steps < 500 {
        steps += 1;
        let op = script.byte();
        match op % 8 {
            0 => now = now + Duration::from_millis(u64::from(script.byte()) << (op >> 3)),
            1 => {
                for worker in [&mut bursts, &mut singles] {
                    worker.handle_timeout(now);
                    assert!(worker.poll_timeout().is_some() || worker.table().is_empty());
                }
            }
            2 => {
                let variant = script.byte();
                for worker in [&mut bursts, &mut singles] {
                    let set = Command::SetSnapshot(lab::snapshot(variant));
                    let done = worker.handle_command(now, set);
                    assert!(done.is_ok() || worker.poll_event().is_some());
                }
            }
            3 => {
                // A session of the one is installed in the other: it is there already.
                let first = bursts.table().iter().next();
                if let Some(record) = first.and_then(|view| bursts.session(view.id)) {
                    let install = Command::Install(Box::new(record));
                    assert!(singles.handle_command(now, install).is_err());
                    // Both come to the same time.
                    bursts.handle_burst::<HeapFrame>(now, &mut [], &mut verdicts);
                }
            }
            _ => {
                let mut frames = Vec::new();
                let mut alone = Vec::new();
                for _ in 0..=op >> 3 {
                    let frame = next_frame(&mut script, &singles);
                    frames.push(frame.clone());
                    let mut one = [frame];
                    singles.handle_burst(now, &mut one, &mut verdicts);
                    let [one] = one;
                    alone.push((verdicts.as_slice()[0], one.data().to_vec()));
                }
                bursts.handle_burst(now, &mut frames, &mut verdicts);
                assert_eq!(verdicts.as_slice().len(), alone.len());
                for ((frame, verdict), want) in frames.iter().zip(verdicts.as_slice()).zip(alone) {
                    assert_eq!((*verdict, frame.data().to_vec()), want);
                }
            }
        }
    }
    assert_eq!(bursts.counters(), singles.counters());
    lab::check(&mut bursts);
    lab::check(&mut singles);
});
