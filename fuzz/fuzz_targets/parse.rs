//! One frame of arbitrary bytes through a worker, with everything that a driver may say of its checksums.
#![no_main]

mod lab;

use evenkeel_core::port::{Frame, HeapFrame, PortId, RxChecksum};
use evenkeel_core::time::Instant;
use evenkeel_core::worker::{Verdict, Verdicts};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut worker = lab::worker();
    let mut verdicts = Verdicts::default();
    for checksum in [RxChecksum::Good, RxChecksum::Unknown, RxChecksum::Bad] {
        let mut frame = HeapFrame::new(PortId(u16::from(bytes.len() % 2 == 1)), bytes);
        frame.rx_checksum = checksum;
        let mut frames = [frame];
        worker.handle_burst(Instant::from_millis(1), &mut frames, &mut verdicts);
        let data = frames[0].data();
        match verdicts.as_slice() {
            // At most 20 bytes longer: from IPv4 to IPv6.
            [Verdict::Tx(_)] => assert!(data.len() <= bytes.len() + 20),
            [_] => assert_eq!(data, bytes, "what is not sent is not touched"),
            other => panic!("{other:?}"),
        }
    }
    lab::check(&mut worker);
    let _ = (lab::client(0, 0), lab::proto(0));
});
