//! The capture that a replay writes: every packet as it came in and as it went out, on the interface of its
//! side, with its verdict as comment; and the digest over all that came out.

use evenkeel_core::conn::ConnView;
use evenkeel_core::port::{Frame, PortId};
use evenkeel_core::tuple::Direction;
use evenkeel_core::worker::Verdict;
use xxhash_rust::xxh3::Xxh3;

use super::engine::Sent;
use crate::file::{CaptureWriter, OutPacket, PACKET_LEN_MAX, PacketDirection, WriteError};

/// A packet's number in the input, its time, and how much of it there is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stamp {
    /// Counted from 1, as Wireshark does.
    pub(super) number: u64,
    pub(super) time_ns: u64,
    /// Bytes at the end of each frame that stand for what the capture does not hold.
    pub(super) padded: usize,
}

/// What the engine said of a packet, in words.
pub(super) fn verdict_words(verdict: Verdict, conn: Option<&(ConnView, Direction)>) -> String {
    match (verdict, conn) {
        (Verdict::Tx(_), Some((_, Direction::Inbound))) => "forwarded inbound".to_owned(),
        (Verdict::Tx(_), Some((_, Direction::Outbound))) => "forwarded outbound".to_owned(),
        (Verdict::Tx(_), None) => "answered".to_owned(),
        (Verdict::Drop(reason), _) => format!("dropped: {reason}"),
        (Verdict::Punt, _) => "punted".to_owned(),
        (Verdict::Handoff(to, _), _) => format!("handed to worker {}", to.0),
        (Verdict::Held | Verdict::Answered, _) => "answered".to_owned(),
    }
}

/// What a forwarded packet became.
fn forwarded_words(conn: &(ConnView, Direction)) -> String {
    let (view, direction) = conn;
    let c = &view.init;
    match direction {
        Direction::Inbound => format!(
            "forwarded inbound: {} > {} => {} > {}, conn {}",
            c.client,
            c.vip,
            c.local,
            c.server,
            c.state.name()
        ),
        Direction::Outbound => format!(
            "forwarded outbound: {} > {} => {} > {}, conn {}",
            c.server,
            c.local,
            c.vip,
            c.client,
            c.state.name()
        ),
    }
}

/// Writes the frame as it came in: `data` (padding and all), `orig_len` bytes on the wire.
pub(super) fn write_in(
    writer: &mut CaptureWriter,
    stamp: Stamp,
    interface: u32,
    data: &[u8],
    orig_len: usize,
    words: &str,
) -> Result<(), WriteError> {
    let comment = format!("{words} (packet {})", stamp.number);
    write(
        writer,
        stamp,
        interface,
        data,
        orig_len,
        &comment,
        PacketDirection::Received,
    )
}

/// Writes a frame that went out.
pub(super) fn write_out(
    writer: &mut CaptureWriter,
    stamp: Stamp,
    interface: u32,
    sent: &Sent,
    conn: Option<&(ConnView, Direction)>,
) -> Result<(), WriteError> {
    let words = match conn {
        Some(conn) if !sent.originated => forwarded_words(conn),
        _ => "answer".to_owned(),
    };
    let comment = format!("{words} (packet {})", stamp.number);
    let data = sent.frame.data();
    let stamp = if sent.originated {
        Stamp { padded: 0, ..stamp }
    } else {
        stamp
    };
    write(
        writer,
        stamp,
        interface,
        data,
        data.len(),
        &comment,
        PacketDirection::Sent,
    )
}

fn write(
    writer: &mut CaptureWriter,
    stamp: Stamp,
    interface: u32,
    data: &[u8],
    orig_len: usize,
    comment: &str,
    direction: PacketDirection,
) -> Result<(), WriteError> {
    let captured = data
        .len()
        .saturating_sub(stamp.padded)
        .min(PACKET_LEN_MAX as usize);
    writer.write(&OutPacket {
        time_ns: stamp.time_ns,
        interface,
        data: data.get(..captured).unwrap_or_default(),
        orig_len: u32::try_from(orig_len.max(data.len())).unwrap_or(u32::MAX),
        comment: Some(comment),
        direction,
    })
}

/// A digest over everything that came out, in the order of the packets: 128 bits of XXH3. Two replays with
/// the same digest did the same.
pub(super) struct Digest(Xxh3);

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Digest")
    }
}

impl Digest {
    pub(super) fn new() -> Self {
        Digest(Xxh3::new())
    }

    /// What became of a packet: its time, its verdict in words, and every frame that went out with its port.
    pub(super) fn packet(&mut self, time_ns: u64, verdict: Verdict, sent: &[Sent]) {
        let words = match verdict {
            Verdict::Tx(_) => "sent",
            Verdict::Drop(reason) => reason.name(),
            Verdict::Punt => "punted",
            Verdict::Handoff(..) => "handed-off",
            Verdict::Held | Verdict::Answered => "answered",
        };
        self.0.update(&time_ns.to_le_bytes());
        self.0.update(&(words.len() as u64).to_le_bytes());
        self.0.update(words.as_bytes());
        self.0.update(&(sent.len() as u64).to_le_bytes());
        for Sent {
            port: PortId(port),
            frame,
            ..
        } in sent
        {
            self.0.update(&port.to_le_bytes());
            self.0.update(&(frame.len() as u64).to_le_bytes());
            self.0.update(frame.data());
        }
    }

    /// As 32 hexadecimal digits.
    pub(super) fn hex(&self) -> String {
        format!("{:032x}", self.0.digest128())
    }
}
