//! The same capture through the simulator's port and through a replay: the same bytes.

use std::cell::RefCell;
use std::io::{Cursor, Write};
use std::path::Path;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use evenkeel_core::port::PortId;
use evenkeel_io_pcap::file::{CaptureReader, CaptureWriter, OutPacket, PacketDirection};
use evenkeel_io_pcap::replay::{CaptureSource, MapVip, Node, Options, Output, replay};
use evenkeel_io_sim::{Direction, Instant, LbCost, LbSpec, Place, Tap, World};

const CONFIG: &str = include_str!("../../../examples/replay.toml");
const CAPTURES: [&str; 9] = [
    "dns",
    "dns6",
    "halfclosed",
    "http4",
    "http6",
    "mariadb",
    "mariadb-short",
    "refused",
    "reset",
];

/// Time, port, bytes.
type Packet = (u64, u16, Vec<u8>);

#[derive(Clone, Debug, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic").extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What a replay received and what it sent; and what it says of both.
fn replayed(capture: Vec<u8>, node: &Node, options: Options) -> (Vec<Packet>, Vec<Packet>) {
    let shared = Shared::default();
    let options = Options {
        output: Some(Output::Stream(Box::new(shared.clone()))),
        ..options
    };
    let mut source = CaptureSource::from_bytes("memory", capture);
    let summary = replay(&mut source, node, options, &mut |_| true).expect("the capture is replayed");
    assert_eq!(summary.checksums.wrong, 0, "the simulator's NIC verifies none");
    let written = shared.0.lock().expect("no panic").clone();
    let mut reader = CaptureReader::new(Cursor::new(written)).expect("a capture was written");
    let (mut received, mut sent) = (Vec::new(), Vec::new());
    while let Some(p) = reader.next_packet().expect("a whole capture was written") {
        // Interfaces of the config's ports stand in their order.
        let packet = (p.time_ns, p.interface as u16, p.data.to_vec());
        match p.direction {
            PacketDirection::Received => received.push(packet),
            _ => sent.push(packet),
        }
    }
    (received, sent)
}

struct Sent(Rc<RefCell<Vec<Packet>>>);

impl Tap for Sent {
    fn frame(&mut self, now: Instant, at: Place, direction: Direction, data: &[u8]) {
        assert_eq!(direction, Direction::Out, "nothing is on a link");
        self.0.borrow_mut().push((now.as_nanos(), at.port, data.to_vec()));
    }
}

#[test]
fn a_capture_is_replayed_to_the_same_bytes() {
    let captures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../captures");
    let mut compared = 0;
    for (name, workers) in CAPTURES.iter().flat_map(|name| [(name, 1), (name, 3)]) {
        let config = evenkeel_control::parse("replay.toml", CONFIG).expect("the config is right");
        let node = Node {
            steering: config.steering.clone(),
            sizes: config.sizes,
            local_port_min: config.local_port_min,
            spec: config.spec.clone(),
        };
        let capture =
            std::fs::read(captures.join(format!("{name}.pcap"))).expect("the capture is in the tree");
        let mapped = Options {
            map_vip: Some(MapVip::Busiest),
            // Local ports are drawn, and servers answer to them.
            seed: 7,
            ..Options::default()
        };
        // As a balancer would have seen it: both legs.
        let (seen, _) = replayed(capture, &node, mapped);
        let shared = Shared::default();
        let mut writer = CaptureWriter::new(shared.clone(), &["clients"]).expect("memory");
        for (time_ns, _, data) in &seen {
            writer
                .write(&OutPacket {
                    time_ns: *time_ns,
                    interface: 0,
                    data,
                    orig_len: data.len() as u32,
                    comment: None,
                    direction: PacketDirection::Received,
                })
                .expect("memory");
        }
        writer.finish().expect("memory");
        let both_legs = shared.0.lock().expect("no panic").clone();
        let options = Options {
            workers,
            seed: 7,
            ..Options::default()
        };
        let (received, want) = replayed(both_legs, &node, options);

        let mut spec = LbSpec::new("lb", config.steering, config.spec);
        spec.sizes = config.sizes;
        spec.local_port_min = config.local_port_min;
        spec.workers = workers;
        spec.seed = Some(7);
        spec.cost = LbCost::NONE;
        spec.promiscuous = true;
        let mut world = World::new(1);
        let lb = world.add_lb(spec).expect("right");
        let sent = Rc::new(RefCell::new(Vec::new()));
        world.add_tap(Box::new(Sent(sent.clone())));
        world.start(lb).expect("memory");
        for (time, port, data) in &received {
            world.run_until(Instant::from_nanos(*time));
            world.inject(lb, PortId(*port), data).expect("it is there");
            world.run_until(Instant::from_nanos(*time));
        }
        let sent = sent.borrow();
        assert_eq!(sent.len(), want.len(), "{name}, {workers} workers");
        for (n, (sent, want)) in sent.iter().zip(&want).enumerate() {
            assert_eq!(sent, want, "{name}, {workers} workers, packet {n}");
        }
        compared += want.len();
        world.check_conservation().expect("all are found again");
    }
    assert!(compared > 1_500, "{compared} packets compared");
}
