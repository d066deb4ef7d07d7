//! The loop: one packet after the other.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use evenkeel_core::conn::{ConnView, HeapMemory, MemorySource};
use evenkeel_core::port::{HeapFrame, RxChecksum};
use evenkeel_core::service::Snapshot;
use evenkeel_core::time::Instant;
use evenkeel_core::tuple::{Direction, Tuple};
use evenkeel_core::wire::IpProto;
use evenkeel_core::worker::Verdict;

use super::checksum::{self, Checked, Tally};
use super::engine::{Engine, Sent};
use super::ledger::Ledger;
use super::look::{Packet, Seen, look};
use super::map_vip::{Flows, Mapping, ToEndpoint};
use super::output::{self, Digest, Stamp};
use super::reply::{set_macs, with_ends};
use super::sides::Sides;
use super::summary::{self, MapVipSummary, OffloadSender, WorkerSummary};
use super::{
    BadChecksums, CaptureSource, CaptureSummary, ChecksumSummary, ConnSummary, FLOW_COUNT_MAX, Filter,
    MapVip, Node, NotPresented, Options, Output, Progress, ReplayError, Summary, VerdictSummary,
    WORKER_COUNT_MAX,
};
use crate::file::{CaptureError, CaptureReader, CaptureWriter, CapturedPacket, Framer};

/// Replays a capture. `watch` is asked before every packet whether to go on.
///
/// The engine's clock is the packets': it begins with the first one, never goes back, and ends with the last
/// one; timers that are due between two packets run at their own times. What comes out depends on nothing
/// but the arguments, and neither on the number of workers.
///
/// # Errors
///
/// [`ReplayError`]: nothing was replayed, or the output could not be written. A capture that is cut short or
/// corrupt is no error: what could be read was replayed, and [`CaptureSummary::cut`] names the cut.
pub fn replay(
    source: &mut CaptureSource,
    node: &Node,
    options: Options,
    watch: &mut dyn FnMut(Progress) -> bool,
) -> Result<Summary, ReplayError> {
    replay_in(&mut HeapMemory, source, node, options, watch)
}

/// As [`replay`], with the tables of the workers in memory from `memory`.
///
/// # Errors
///
/// As [`replay`].
pub fn replay_in(
    memory: &mut impl MemorySource,
    source: &mut CaptureSource,
    node: &Node,
    mut options: Options,
    watch: &mut dyn FnMut(Progress) -> bool,
) -> Result<Summary, ReplayError> {
    let mut notes = Vec::new();
    let mut interrupted = false;
    let (mapping, map_summary) = match options.map_vip {
        None => (None, None),
        Some(choice) => {
            let mapped = map(source, node, choice, &mut options.filter, watch, &mut interrupted)?;
            if mapped.is_none() && !interrupted {
                notes.push("no TCP or UDP endpoint in the capture: nothing was mapped to a VIP".to_owned());
            }
            mapped.unzip()
        }
    };
    let (spec, snapshot) = match mapping {
        Some(ref mapping) => (&mapping.spec, mapping.snapshot.clone()),
        None => {
            let snapshot = Snapshot::new(&node.spec).map_err(|errors| {
                ReplayError::Config(
                    errors
                        .iter()
                        .take(5)
                        .map(ToString::to_string)
                        .collect::<Vec<_>>()
                        .join("; "),
                )
            })?;
            (&node.spec, snapshot)
        }
    };
    let snapshot = Arc::new(snapshot);
    let sides = Sides::new(spec, &snapshot);
    let workers = options.workers.clamp(1, WORKER_COUNT_MAX);
    let engine = Engine::new(memory, node, snapshot.clone(), workers, options.seed)?;

    // The output is created when all else is known to be good.
    let (reader, cut) = match source.open() {
        Ok(reader) => (Some(reader), None),
        Err(_) if interrupted || stopped(watch, None) => {
            interrupted = true;
            (None, None)
        }
        Err(error) if is_cut_header(&error) => (None, Some(error)),
        Err(error) => return Err(error.into()),
    };
    let writer = match options.output {
        None => None,
        Some(Output::Path(path)) => Some(CaptureWriter::create(path, &sides.names())?),
        Some(Output::Stream(stream)) => Some(CaptureWriter::new(stream, &sides.names())?),
    };
    let mut replay = Replay {
        mapping: mapping.as_ref(),
        snapshot,
        sides,
        engine,
        writer,
        policy: options.bad_checksums,
        tally: Tally::default(),
        ledger: options.conns.then(Ledger::default),
        digest: Digest::new(),
        framer: Framer::default(),
        captured: CaptureSummary::begin(source),
        ends: HashMap::new(),
        frame: Vec::new(),
        sent: Vec::new(),
    };
    replay.captured.cut = cut.map(|e| e.to_string());
    replay.captured.interrupted = interrupted;
    if let Some(mut reader) = reader {
        replay.captured.format = Some(reader.format().to_string());
        if !interrupted {
            replay.read(&mut reader, &mut options.filter, watch)?;
            replay.captured.long_fractions = reader.long_fractions();
            replay.captured.clamped_times = reader.clamped_times();
        }
    }
    let mut summary = replay.finish()?;
    summary.map_vip = map_summary;
    if let Some(mapping) = &mapping {
        notes.extend(mapping.notes.iter().cloned());
    }
    notes.append(&mut summary.notes);
    summary.notes = notes;
    Ok(summary)
}

/// Whether a capture whose header cannot be read is one nevertheless.
fn is_cut_header(error: &CaptureError) -> bool {
    matches!(error, CaptureError::Cut { .. } | CaptureError::Corrupt { .. })
}

/// Whether `watch` wants no more. A capture that is read through a pipe ends then, in whatever place: that is no
/// fault of the capture.
fn stopped(watch: &mut dyn FnMut(Progress) -> bool, reader: Option<&CaptureReader>) -> bool {
    !watch(Progress {
        scanning: false,
        packets: reader.map_or(0, CaptureReader::packets_read),
        bytes: reader.map_or(0, CaptureReader::byte_offset),
    })
}

/// Chooses the endpoint and puts it into the config.
fn map(
    source: &mut CaptureSource,
    node: &Node,
    choice: MapVip,
    filter: &mut Option<Filter>,
    watch: &mut dyn FnMut(Progress) -> bool,
    interrupted: &mut bool,
) -> Result<Option<(Mapping, MapVipSummary)>, ReplayError> {
    source.make_repeatable()?;
    let mut flows = Flows::default();
    let mut reader = match source.open() {
        Ok(reader) => reader,
        Err(_) if stopped(watch, None) => {
            *interrupted = true;
            return Ok(None);
        }
        // The second reading says so.
        Err(error) if is_cut_header(&error) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut framer = Framer::default();
    let mut frame = Vec::new();
    loop {
        let (packets, bytes) = (reader.packets_read(), reader.byte_offset());
        if !watch(Progress {
            scanning: true,
            packets,
            bytes,
        }) {
            *interrupted = true;
            return Ok(None);
        }
        let Ok(Some(packet)) = reader.next_packet() else {
            break;
        };
        frame.clear();
        if framer.frame(&packet, &mut frame).is_err() || filter.as_mut().is_some_and(|f| !f(&frame)) {
            continue;
        }
        if let Seen::Ip(seen) = look(&frame, wire_len(&packet, &frame)) {
            flows.count(&seen);
        }
    }
    let (endpoint, packets, endpoints) = match choice {
        MapVip::Endpoint(endpoint) => (endpoint, None, None),
        MapVip::Busiest => match flows.busiest() {
            Some((endpoint, packets, endpoints)) => (endpoint, Some(packets), Some(endpoints as u64)),
            None => return Ok(None),
        },
    };
    let mut mapping = Mapping::new(&node.spec, endpoint, &flows.clients(endpoint))?;
    if !flows.has(endpoint) {
        let instead = flows.busiest().map_or_else(
            || "it has no TCP or UDP endpoint".to_owned(),
            |(busiest, ..)| format!("its busiest endpoint is {busiest}"),
        );
        let note = format!("{endpoint} is not in the capture: no packet was mapped to the VIP; {instead}");
        mapping.notes.insert(0, note);
    }
    let summary = MapVipSummary {
        endpoint: endpoint.to_string(),
        vip: mapping.vip.to_string(),
        service: mapping.service.clone(),
        packets,
        endpoints,
    };
    Ok(Some((mapping, summary)))
}

/// The length of the frame on the wire: what was captured, and what the capture says is missing.
fn wire_len(packet: &CapturedPacket<'_>, frame: &[u8]) -> usize {
    let missing = (packet.orig_len as usize).saturating_sub(packet.data.len());
    frame.len().saturating_add(missing)
}

/// Bytes of zeros to stand for what the capture does not hold of an IP packet, such that the engine takes it
/// for whole. None where headers are missing, or contents that the engine reads.
fn padding(frame: &[u8], packet: &Packet) -> usize {
    let missing = packet.end.saturating_sub(frame.len());
    let readable = match packet.proto {
        _ if packet.fragment => true,
        IpProto::TCP | IpProto::UDP | IpProto::ICMP => packet.transport_header,
        // Neighbour discovery, RFC 4861: types 133 to 137.
        IpProto::ICMPV6 => {
            packet.transport_header
                && frame
                    .get(packet.l4)
                    .is_some_and(|kind| !(133..=137).contains(kind))
        }
        _ => true,
    };
    if readable { missing } else { 0 }
}

struct Replay<'a> {
    mapping: Option<&'a Mapping>,
    snapshot: Arc<Snapshot>,
    sides: Sides,
    engine: Engine,
    writer: Option<CaptureWriter>,
    policy: BadChecksums,
    tally: Tally,
    ledger: Option<Ledger>,
    digest: Digest,
    framer: Framer,
    captured: CaptureSummary,
    /// Server's end and local end of a client's last conn with the VIP (`--map-vip`): who answers late does
    /// it there.
    ends: HashMap<SocketAddr, (SocketAddr, SocketAddr)>,
    /// The packet's frame, as it is presented.
    frame: Vec<u8>,
    /// What came out of a packet.
    sent: Vec<Sent>,
}

impl CaptureSummary {
    fn begin(source: &CaptureSource) -> Self {
        CaptureSummary {
            file: source.path().display().to_string(),
            format: None,
            packets: 0,
            bytes: 0,
            first_ns: None,
            last_ns: None,
            snapped: 0,
            back_in_time: 0,
            longer_than_wire: 0,
            long_fractions: 0,
            clamped_times: 0,
            filtered: 0,
            not_presented: NotPresented::default(),
            cut: None,
            interrupted: false,
        }
    }
}

impl Replay<'_> {
    /// Every packet of the capture, up to its end or its cut.
    fn read(
        &mut self,
        reader: &mut CaptureReader,
        filter: &mut Option<Filter>,
        watch: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<(), ReplayError> {
        loop {
            let (packets, bytes) = (reader.packets_read(), reader.byte_offset());
            if !watch(Progress {
                scanning: false,
                packets,
                bytes,
            }) {
                self.captured.interrupted = true;
                return Ok(());
            }
            match reader.next_packet() {
                Ok(Some(packet)) => self.packet(&packet, filter)?,
                end => {
                    let cut = end.err();
                    if stopped(watch, Some(reader)) {
                        self.captured.interrupted = true;
                    } else {
                        self.captured.cut = cut.map(|e| e.to_string());
                    }
                    return Ok(());
                }
            }
        }
    }

    fn packet(
        &mut self,
        packet: &CapturedPacket<'_>,
        filter: &mut Option<Filter>,
    ) -> Result<(), ReplayError> {
        let c = &mut self.captured;
        c.packets += 1;
        c.bytes += packet.data.len() as u64;
        c.snapped += u64::from(packet.snapped());
        c.longer_than_wire += u64::from((packet.orig_len as usize) < packet.data.len());
        c.back_in_time += u64::from(c.last_ns.is_some_and(|last| packet.time_ns < last));
        c.first_ns = Some(c.first_ns.unwrap_or(packet.time_ns).min(packet.time_ns));
        c.last_ns = Some(c.last_ns.unwrap_or(packet.time_ns).max(packet.time_ns));
        self.frame.clear();
        if self.framer.frame(packet, &mut self.frame).is_err() {
            return Ok(());
        }
        if filter.as_mut().is_some_and(|f| !f(&self.frame)) {
            c.filtered += 1;
            return Ok(());
        }
        let mut stamp = Stamp {
            number: c.packets,
            time_ns: packet.time_ns,
            padded: 0,
        };
        let mut wire_len = wire_len(packet, &self.frame);
        let bytes = wire_len as u64;
        self.engine.advance(Instant::from_nanos(packet.time_ns));

        let mut seen = look(&self.frame, wire_len);
        let mut checksum = RxChecksum::Unknown;
        if let Seen::Ip(packet) = &seen {
            checksum = verify(&mut self.frame, packet, self.policy, &mut self.tally);
            stamp.padded = padding(&self.frame, packet);
            self.frame.resize(self.frame.len() + stamp.padded, 0);
            if self.place(&packet.clone()) {
                seen = look(&self.frame, self.frame.len());
                wire_len = self.frame.len();
            }
        }

        let ends = seen.ends();
        let tuple = seen.tuple();
        let ingress = self.sides.ingress(&self.snapshot, ends);
        let interface = self
            .sides
            .interface(ingress, self.sides.side(&self.snapshot, ends));
        let mut frame = HeapFrame::new(ingress, &self.frame);
        frame.rss = tuple.map(|t| self.engine.rss(&t));
        frame.rx_checksum = checksum;
        frame.cookie = stamp.number;
        let worker = tuple.map_or(0, |t| self.engine.worker_of(&t));
        self.sent.clear();
        let outcome = self.engine.present(worker, frame, &mut self.sent);

        self.digest.packet(packet.time_ns, outcome.verdict, &self.sent);
        let forwarded = tuple.filter(|_| matches!(outcome.verdict, Verdict::Tx(_)));
        let conn = forwarded.and_then(|t| self.engine.conn(&t));
        if let (Some((view, _)), Some(mapping)) = (&conn, self.mapping)
            && outcome.opened
            && view.init.vip == mapping.vip
            && (self.ends.len() < FLOW_COUNT_MAX || self.ends.contains_key(&view.init.client))
        {
            self.ends
                .insert(view.init.client, (view.init.server, view.init.local));
        }
        if let (Some((view, direction)), Some(ledger)) = (&conn, &mut self.ledger) {
            ledger.forwarded(
                view,
                *direction,
                outcome.opened,
                bytes,
                self.engine.clock(),
                &self.snapshot,
            );
        }
        self.write(stamp, interface, wire_len, outcome.verdict, conn.as_ref())
    }

    /// Gives a packet its place around the balancer; `true`: `self.frame` was changed.
    fn place(&mut self, packet: &Packet) -> bool {
        let Some(mapping) = self.mapping else { return false };
        let Some(captured) = packet.tuple() else {
            return false;
        };
        let Some((to, at_vip)) = mapping.at_vip(captured) else {
            return false;
        };
        if to == ToEndpoint::Reply
            && let Some((server, local)) = self.answering_ends(&at_vip)
        {
            if !with_ends(&mut self.frame, packet, server, local) {
                return false;
            }
            if let Ok(hop) = self.snapshot.next_hop(server.ip())
                && let Some(port) = self.snapshot.ports().get(usize::from(hop.port.0))
            {
                set_macs(&mut self.frame, hop.mac, port.mac);
            }
            return true;
        }
        at_vip != captured && with_ends(&mut self.frame, packet, at_vip.src, at_vip.dst)
    }

    /// Between which ends the real server's answer runs: those of the client's conn or, where that is gone, of
    /// its last one, unless another conn has these ends by now.
    fn answering_ends(&self, at_vip: &Tuple) -> Option<(SocketAddr, SocketAddr)> {
        if let Some((view, Direction::Inbound)) = self.engine.conn(&at_vip.reversed()) {
            return Some((view.init.server, view.init.local));
        }
        let &(server, local) = self.ends.get(&at_vip.dst)?;
        let taken = self
            .engine
            .conn(&Tuple {
                proto: at_vip.proto,
                src: server,
                dst: local,
            })
            .is_some();
        (!taken).then_some((server, local))
    }

    /// The packet as it came in, and everything that went out.
    fn write(
        &mut self,
        stamp: Stamp,
        interface: u32,
        wire_len: usize,
        verdict: Verdict,
        conn: Option<&(ConnView, Direction)>,
    ) -> Result<(), ReplayError> {
        let Some(writer) = &mut self.writer else {
            return Ok(());
        };
        let words = output::verdict_words(verdict, conn);
        output::write_in(writer, stamp, interface, &self.frame, wire_len, &words)?;
        for sent in &self.sent {
            let data = evenkeel_core::port::Frame::data(&sent.frame);
            let ends: Option<(IpAddr, IpAddr)> = look(data, data.len()).ends();
            let interface = self
                .sides
                .interface(sent.port, self.sides.side(&self.snapshot, ends));
            output::write_out(writer, stamp, interface, sent, conn)?;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Summary, ReplayError> {
        if let Some(writer) = self.writer.take() {
            writer.finish()?;
        }
        let stats = self.framer.stats();
        self.captured.not_presented = NotPresented {
            unsupported_link: stats.unsupported_link,
            unsupported_protocol: stats.unsupported_protocol,
            too_short: stats.too_short,
        };
        let counters = self.engine.counters();
        let workers = self.engine.by_worker().count();
        let by_worker: Vec<_> = self
            .engine
            .by_worker()
            .map(|c| WorkerSummary {
                packets: c.rx_packets,
                opened: c.opened,
            })
            .collect();
        let offload = self.tally.offload();
        let notes = self.offload_note(&offload).into_iter().collect();
        let (connections, omitted) = match self.ledger.take() {
            None => (None, 0),
            Some(ledger) => {
                let is_open = |t: &Tuple| self.engine.conn(t).is_some();
                let (conns, omitted) = ledger.finish(self.engine.clock(), is_open);
                (Some(conns), omitted)
            }
        };
        Ok(Summary {
            capture: self.captured,
            map_vip: None,
            verdicts: VerdictSummary::new(&counters),
            drops: summary::drops(&counters),
            conns: ConnSummary::new(&counters),
            checksums: ChecksumSummary {
                right: self.tally.right,
                wrong: self.tally.wrong,
                fixed: self.tally.fixed,
                partly: self.tally.partly,
                none: self.tally.none,
                offload: offload
                    .iter()
                    .map(|&(sender, packets)| OffloadSender {
                        sender: sender.to_string(),
                        packets,
                    })
                    .collect(),
            },
            // At most WORKER_COUNT_MAX.
            workers: workers as u8,
            by_worker: if workers > 1 { by_worker } else { Vec::new() },
            digest: self.digest.hex(),
            connections,
            connections_omitted: omitted,
            notes,
        })
    }

    /// What to say about checksums that the senders' NICs were to finish.
    fn offload_note(&self, offload: &[(IpAddr, u64)]) -> Option<String> {
        if offload.is_empty() {
            return None;
        }
        let senders: Vec<_> = offload
            .iter()
            .map(|(sender, n)| format!("{n} {} from {sender}", if *n == 1 { "packet" } else { "packets" }))
            .collect();
        let and_then = match self.policy {
            BadChecksums::Drop => "they were dropped; replay with --bad-checksums fix",
            BadChecksums::FinishOffload => "they were finished as the NIC would have done",
            BadChecksums::Accept => "they were taken as they are",
            BadChecksums::Fix => "they were computed anew",
        };
        Some(format!(
            "{}: the checksums look like transmit offload (captured before the sender's NIC finished them); {and_then}",
            senders.join(", ")
        ))
    }
}

/// Verifies, and does what the policy says; the driver's word for the engine.
fn verify(frame: &mut [u8], packet: &Packet, policy: BadChecksums, tally: &mut Tally) -> RxChecksum {
    let checked = checksum::verify(frame, packet);
    tally.count(checked, packet.src);
    let Checked::Wrong(wrong) = checked else {
        return RxChecksum::Good;
    };
    match policy {
        BadChecksums::Accept => RxChecksum::Good,
        BadChecksums::Fix => {
            checksum::fix(frame, packet, wrong);
            tally.fixed += 1;
            RxChecksum::Good
        }
        BadChecksums::FinishOffload if wrong.looks_like_offload => {
            checksum::fix(frame, packet, wrong);
            tally.fixed += 1;
            RxChecksum::Good
        }
        BadChecksums::Drop | BadChecksums::FinishOffload => RxChecksum::Bad,
    }
}
