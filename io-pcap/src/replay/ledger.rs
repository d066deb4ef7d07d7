//! What became of each conn. The table forgets a conn when it is over; this remembers.

use std::collections::HashMap;
use std::net::SocketAddr;

use evenkeel_core::conn::ConnView;
use evenkeel_core::service::Snapshot;
use evenkeel_core::time::Instant;
use evenkeel_core::tuple::{Direction, Tuple};
use serde::Serialize;

/// Conns that are remembered, at most; of more only the number.
pub const CONN_LOG_MAX: usize = 1 << 20;

const NS_PER_MS: u64 = 1_000_000;

/// One connection, as `--conns` lists it. Times are nanoseconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConnResult {
    /// `tcp` or `udp`.
    pub proto: String,
    /// The client's end.
    pub client: SocketAddr,
    /// The end that the client used.
    pub vip: SocketAddr,
    /// The end that the real server saw.
    pub local: SocketAddr,
    /// The real server's end.
    pub server: SocketAddr,
    /// Name of the service.
    pub service: String,
    /// The last state, by its name in LVS.
    pub state: &'static str,
    /// It became ESTABLISHED (UDP: it was answered).
    pub established: bool,
    /// It was closed by FINs of both sides or by a RST.
    pub closed: bool,
    /// What ended it.
    pub end: ConnEnd,
    /// When its first packet came.
    pub opened_ns: u64,
    /// When its last packet came.
    pub last_ns: u64,
    /// When it left the table, in whole milliseconds; `None`: it is still there.
    pub ended_ns: Option<u64>,
    /// Packets of the client that were forwarded.
    pub inbound_packets: u64,
    /// Their bytes, as frames that came in.
    pub inbound_bytes: u64,
    /// Packets of the real server that were forwarded.
    pub outbound_packets: u64,
    /// Their bytes, as frames that came in.
    pub outbound_bytes: u64,
}

/// How a conn left the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ConnEnd {
    /// It has not: it is still open, or closed and not yet forgotten.
    Open,
    /// By its timer, without having been closed.
    Expired,
    /// By its timer, after it was closed.
    Closed,
    /// A new connection of the same client took its place.
    Replaced,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    records: Vec<Record>,
    /// Place of the last record with this tuple.
    latest: HashMap<Tuple, usize>,
    /// Conns that are not remembered.
    omitted: u64,
}

#[derive(Debug)]
struct Record {
    result: ConnResult,
    tuple: Tuple,
    /// Tick at which the engine lets it expire without another packet, in milliseconds.
    deadline_ms: u64,
}

impl Record {
    /// Writes down that its conn was gone by `now_ms`.
    fn end(&mut self, now_ms: u64) {
        let (end, at_ms) = match (self.deadline_ms <= now_ms, self.result.closed) {
            (true, true) => (ConnEnd::Closed, self.deadline_ms),
            (true, false) => (ConnEnd::Expired, self.deadline_ms),
            (false, _) => (ConnEnd::Replaced, now_ms),
        };
        self.result.end = end;
        self.result.ended_ns = Some(at_ms.saturating_mul(NS_PER_MS));
    }
}

impl Ledger {
    /// A packet of `view`'s conn was forwarded, `opened` if it was the first.
    pub(super) fn forwarded(
        &mut self,
        view: &ConnView,
        direction: Direction,
        opened: bool,
        bytes: u64,
        now: Instant,
        snapshot: &Snapshot,
    ) {
        let tuple = view.init.inbound();
        let now_ms = now.as_nanos() / NS_PER_MS;
        if opened {
            if let Some(&old) = self.latest.get(&tuple)
                && let Some(record) = self.records.get_mut(old)
            {
                record.end(now_ms);
            }
            if self.records.len() == CONN_LOG_MAX {
                self.omitted += 1;
                self.latest.remove(&tuple);
                return;
            }
            self.latest.insert(tuple, self.records.len());
            self.records.push(Record {
                result: ConnResult::new(view, now, snapshot),
                tuple,
                deadline_ms: now_ms,
            });
        }
        let Some(record) = self.latest.get(&tuple).and_then(|&i| self.records.get_mut(i)) else {
            return;
        };
        let timeouts = snapshot
            .service(view.init.service)
            .map(|s| s.timeouts)
            .unwrap_or_default();
        record.deadline_ms = now_ms.saturating_add(u64::from(timeouts.ms(view.init.state)));
        let result = &mut record.result;
        result.state = view.init.state.name();
        result.established = view.was_established;
        result.closed = view.was_closed;
        result.last_ns = now.as_nanos();
        let (packets, sum) = match direction {
            Direction::Inbound => (&mut result.inbound_packets, &mut result.inbound_bytes),
            Direction::Outbound => (&mut result.outbound_packets, &mut result.outbound_bytes),
        };
        *packets += 1;
        *sum += bytes;
    }

    /// All conns in the order in which they were opened, and how many more there were. `is_open` says whether
    /// the conn of a tuple is in the table now.
    pub(super) fn finish(mut self, now: Instant, is_open: impl Fn(&Tuple) -> bool) -> (Vec<ConnResult>, u64) {
        for (i, record) in self.records.iter_mut().enumerate() {
            let is_latest = self.latest.get(&record.tuple) == Some(&i);
            if is_latest && !is_open(&record.tuple) {
                record.end(now.as_nanos() / NS_PER_MS);
            }
        }
        (self.records.into_iter().map(|r| r.result).collect(), self.omitted)
    }
}

impl ConnResult {
    fn new(view: &ConnView, now: Instant, snapshot: &Snapshot) -> Self {
        let init = &view.init;
        ConnResult {
            proto: init.proto.to_string(),
            client: init.client,
            vip: init.vip,
            local: init.local,
            server: init.server,
            service: snapshot
                .service(init.service)
                .map(|s| s.name.clone())
                .unwrap_or_default(),
            state: init.state.name(),
            established: false,
            closed: false,
            end: ConnEnd::Open,
            opened_ns: now.as_nanos(),
            last_ns: now.as_nanos(),
            ended_ns: None,
            inbound_packets: 0,
            inbound_bytes: 0,
            outbound_packets: 0,
            outbound_bytes: 0,
        }
    }
}
