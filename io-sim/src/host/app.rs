//! What runs over a host's connections. A client says who it is, waits for the greeting and asks; a server greets
//! and answers.
//!
//! ```text
//! client:  magic 8 | flow 4 | request len 4 | reply len 4 | zero 4 | request 0 | request 1 | ..
//! server:  magic 8 | number 4 | zero 4 | reply 0 | reply 1 | ..      a reply: number 4 | its count 4 | pattern
//! ```
//!
//! All but these heads is [`Pattern`], by its position in the stream.

use smoltcp::socket::tcp::{Socket, State};

use super::pattern::{CLIENT_MAGIC, Pattern, SERVER_MAGIC, Way};
use crate::flow::{BrokenWhy, FlowEnd, FlowRecord, FlowState};
use crate::ids::FlowId;
use crate::observe::Trace;
use crate::random::{Purpose, nanos};
use crate::world::Net;

/// Bytes of the client's head.
pub(super) const CLIENT_HEAD: u64 = 24;
/// Bytes of the server's greeting.
pub(super) const SERVER_HEAD: u64 = 16;
/// Bytes of a reply before its pattern.
pub(super) const REPLY_HEAD: u64 = 8;
/// Longest request and reply over TCP, in bytes.
pub(super) const MESSAGE_LEN_MAX: u32 = 1 << 20;

/// What waits to be written into a socket.
#[derive(Debug, Default)]
struct Outbox {
    bytes: Vec<u8>,
    written: usize,
}

impl Outbox {
    fn is_empty(&self) -> bool {
        self.written >= self.bytes.len()
    }

    fn write(&mut self, socket: &mut Socket<'_>) {
        let rest = self.bytes.get(self.written..).unwrap_or_default();
        if rest.is_empty() || !socket.can_send() {
            return;
        }
        let n = socket.send_slice(rest).unwrap_or(0);
        self.written += n;
        if self.is_empty() {
            // Its memory goes, as most connections are silent most of the time.
            *self = Outbox::default();
        }
    }
}

/// Marks the end of a flow.
pub(super) fn end(net: &mut Net, record: &mut FlowRecord, flow: FlowId, broken: Option<BrokenWhy>) {
    record.ended = Some(evenkeel_core::time::Instant::from_nanos(net.now));
    record.broken = broken;
    match broken {
        Some(why) => {
            record.state = FlowState::Broken;
            net.trace(Trace::FlowBroken(flow, why));
        }
        None => {
            record.state = FlowState::Closed;
            record.awaiting_since = None;
            net.trace(Trace::FlowClosed(flow));
        }
    }
}

/// A client is connected.
pub(super) fn established(net: &mut Net, record: &mut FlowRecord, flow: FlowId) {
    record.established = Some(evenkeel_core::time::Instant::from_nanos(net.now));
    record.state = FlowState::Open;
    net.trace(Trace::FlowEstablished(flow));
}

/// A request is made.
pub(super) fn asked(now: u64, record: &mut FlowRecord) {
    record.requested += 1;
    record.awaiting_since = Some(evenkeel_core::time::Instant::from_nanos(now));
}

/// What was awaited is there.
pub(super) fn answered(now: u64, record: &mut FlowRecord) {
    if let Some(since) = record.awaiting_since.take() {
        let stall = evenkeel_core::time::Instant::from_nanos(now).saturating_since(since);
        if stall > record.longest_stall {
            record.longest_stall = stall;
            record.longest_stall_from = since;
        }
    }
}

/// When the next request is due.
pub(super) fn gap_end(net: &Net, record: &FlowRecord, flow: FlowId) -> u64 {
    let spec = &record.spec;
    let extra = net.streams.below(
        spec.key.unwrap_or(3 << 32 | u64::from(flow.0)),
        Purpose::FlowGap,
        record.requested.into(),
        nanos(spec.gap_jitter),
    );
    net.now.saturating_add(nanos(spec.gap)).saturating_add(extra)
}

/// Whether a flow has made its last request.
pub(super) fn is_done(now: u64, record: &FlowRecord) -> bool {
    let spec = &record.spec;
    (spec.requests != u32::MAX && record.requested >= spec.requests)
        || spec.until.is_some_and(|until| now >= until.as_nanos())
}

/// The client's side of a flow.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) flow: FlowId,
    outbox: Outbox,
    /// Bytes received.
    received: u64,
    greeting: [u8; SERVER_HEAD as usize],
    to_client: Pattern,
    to_server: Pattern,
    /// When the next request is due; `None`: one waits for its reply, or there are no more.
    request_at: Option<u64>,
    /// The connection was told to close.
    closing: bool,
    /// It vanished: nothing is sent or heard any more.
    pub(super) gone: bool,
    progress_at: u64,
    /// What progress is measured by.
    seen: (State, usize, u64),
}

impl Client {
    pub(super) fn new(seed: u64, now: u64, flow: FlowId, record: &FlowRecord) -> Self {
        let mut outbox = Outbox::default();
        let head = &mut outbox.bytes;
        head.extend(CLIENT_MAGIC.to_le_bytes());
        head.extend(flow.0.to_le_bytes());
        head.extend(record.spec.request_len.to_le_bytes());
        head.extend(record.spec.reply_len.to_le_bytes());
        head.extend([0; 4]);
        Client {
            flow,
            outbox,
            received: 0,
            greeting: [0; SERVER_HEAD as usize],
            to_client: Pattern::new(seed, flow.0, Way::ToClient),
            to_server: Pattern::new(seed, flow.0, Way::ToServer),
            request_at: None,
            closing: false,
            gone: false,
            progress_at: now,
            seen: (State::SynSent, 0, 0),
        }
    }

    /// Reads, writes, and says when it wants a turn. A flow that is over wants none.
    pub(super) fn turn(
        &mut self,
        net: &mut Net,
        record: &mut FlowRecord,
        socket: &mut Socket<'_>,
    ) -> Option<u64> {
        if record.ended.is_some() {
            return None;
        }
        let state = socket.state();
        if record.established.is_none() && socket.may_send() {
            established(net, record, self.flow);
        }
        if !self.read(net, record, socket) {
            return self.break_off(net, record, socket, BrokenWhy::WrongBytesAtClient);
        }
        match state {
            State::Closed => {
                end(net, record, self.flow, Some(BrokenWhy::Reset));
                return None;
            }
            State::TimeWait if self.closing => {
                end(net, record, self.flow, None);
                return None;
            }
            State::CloseWait | State::LastAck | State::Closing | State::TimeWait if !self.closing => {
                return self.break_off(net, record, socket, BrokenWhy::ClosedByServer);
            }
            _ => {}
        }
        if self.request_at.is_some_and(|at| net.now >= at) || self.is_due_to_end(net.now, record) {
            self.request_at = None;
            if is_done(net.now, record) {
                self.finish(net, record, socket);
            } else {
                self.request(net, record);
            }
        }
        self.outbox.write(socket);
        if record.ended.is_some() || self.gone {
            return None;
        }

        let seen = (socket.state(), socket.send_queue(), self.received);
        if seen != self.seen {
            self.seen = seen;
            self.progress_at = net.now;
        }
        let awaits = record.awaiting_since.is_some() || !self.outbox.is_empty() || seen.1 > 0 || self.closing;
        let give_up_at = self.progress_at.saturating_add(nanos(record.spec.give_up));
        if awaits && net.now >= give_up_at {
            return self.break_off(net, record, socket, BrokenWhy::GaveUp);
        }
        let until = record.spec.until.filter(|_| self.request_at.is_some());
        let until = until.map(|u| u.as_nanos().max(net.now + 1));
        let times = [self.request_at, awaits.then_some(give_up_at), until];
        times.into_iter().flatten().min()
    }

    /// The time of requests is over while none is under way.
    fn is_due_to_end(&self, now: u64, record: &FlowRecord) -> bool {
        self.request_at.is_some() && record.spec.until.is_some_and(|until| now >= until.as_nanos())
    }

    fn break_off(
        &self,
        net: &mut Net,
        record: &mut FlowRecord,
        socket: &mut Socket<'_>,
        why: BrokenWhy,
    ) -> Option<u64> {
        socket.abort();
        end(net, record, self.flow, Some(why));
        None
    }

    /// `false`: bytes are not what they should be.
    fn read(&mut self, net: &Net, record: &mut FlowRecord, socket: &mut Socket<'_>) -> bool {
        let mut right = true;
        while right && socket.can_recv() {
            let taken = socket.recv(|data| {
                let (n, ok) = self.take(net, record, data);
                right = ok;
                (n, n)
            });
            if !matches!(taken, Ok(n) if n > 0) {
                break;
            }
        }
        right
    }

    /// Verifies a run of bytes up to the end of what it belongs to; how many were taken, and whether they are right.
    fn take(&mut self, net: &Net, record: &mut FlowRecord, data: &[u8]) -> (usize, bool) {
        let reply_len = u64::from(record.spec.reply_len);
        if self.received < SERVER_HEAD {
            let at = self.received as usize;
            let n = data.len().min(self.greeting.len() - at);
            self.greeting[at..at + n].copy_from_slice(&data[..n]);
            self.received += n as u64;
            if self.received < SERVER_HEAD {
                return (n, true);
            }
            let (magic, rest) = self.greeting.split_at(8);
            if magic != SERVER_MAGIC.to_le_bytes() || rest[4..] != [0; 4] {
                return (n, false);
            }
            record.server = rest.first_chunk().map(|n| u32::from_le_bytes(*n));
            record.client_bytes += SERVER_HEAD;
            answered(net.now, record);
            self.request_at = Some(gap_end(net, record, self.flow));
            return (n, true);
        }
        // Nothing is replied that was not asked for.
        let of_replies = self.received - SERVER_HEAD;
        let (count, within) = (of_replies / reply_len, of_replies % reply_len);
        if count >= u64::from(record.requested) {
            return (data.len(), false);
        }
        let end = if within < REPLY_HEAD {
            REPLY_HEAD
        } else {
            reply_len
        };
        let n = (data.len() as u64).min(end - within) as usize;
        let data = &data[..n];
        let right = if within < REPLY_HEAD {
            let mut head = [0; REPLY_HEAD as usize];
            head[..4].copy_from_slice(&record.server.unwrap_or(0).to_le_bytes());
            head[4..].copy_from_slice(&(count as u32).to_le_bytes());
            head[within as usize..within as usize + n] == *data
        } else {
            self.to_client.is(self.received, data)
        };
        if !right {
            return (n, false);
        }
        self.received += n as u64;
        record.client_bytes += n as u64;
        if within + n as u64 == reply_len {
            record.replied += 1;
            answered(net.now, record);
            self.request_at = Some(gap_end(net, record, self.flow));
        }
        (n, true)
    }

    fn request(&mut self, net: &Net, record: &mut FlowRecord) {
        let len = record.spec.request_len;
        let at = CLIENT_HEAD + u64::from(record.requested) * u64::from(len);
        self.to_server.fill(at, len as usize, &mut self.outbox.bytes);
        asked(net.now, record);
    }

    /// After the last reply.
    fn finish(&mut self, net: &mut Net, record: &mut FlowRecord, socket: &mut Socket<'_>) {
        match record.spec.end {
            FlowEnd::Close => {
                self.closing = true;
                record.state = FlowState::Closing;
                socket.close();
            }
            FlowEnd::Reset => {
                socket.abort();
                end(net, record, self.flow, None);
            }
            FlowEnd::Stay => {}
            FlowEnd::Vanish => self.gone = true,
        }
    }
}

/// The server's side of a connection.
#[derive(Debug)]
pub(super) struct Server {
    number: u32,
    outbox: Outbox,
    greeted: bool,
    received: u64,
    head: [u8; CLIENT_HEAD as usize],
    /// What the head said.
    talk: Option<Talk>,
    replies: u32,
    /// Position in what it says.
    sent: u64,
}

#[derive(Clone, Copy, Debug)]
struct Talk {
    flow: FlowId,
    request_len: u64,
    reply_len: u64,
    to_client: Pattern,
    to_server: Pattern,
}

impl Server {
    pub(super) fn new(number: u32) -> Self {
        Server {
            number,
            outbox: Outbox::default(),
            greeted: false,
            received: 0,
            head: [0; CLIENT_HEAD as usize],
            talk: None,
            replies: 0,
            sent: 0,
        }
    }

    /// Reads, writes. `Err`: what came is not what its flow says; the connection is reset.
    pub(super) fn turn(
        &mut self,
        net: &mut Net,
        flows: &mut [FlowRecord],
        socket: &mut Socket<'_>,
    ) -> Result<(), Option<FlowId>> {
        if !self.greeted && socket.may_send() {
            self.greeted = true;
            self.outbox.bytes.extend(SERVER_MAGIC.to_le_bytes());
            self.outbox.bytes.extend(self.number.to_le_bytes());
            self.outbox.bytes.extend([0; 4]);
            self.sent = SERVER_HEAD;
        }
        let mut right = true;
        while right && socket.can_recv() {
            let taken = socket.recv(|data| {
                let (n, ok) = self.take(net.streams.seed(), flows, data);
                right = ok;
                (n, n)
            });
            if !matches!(taken, Ok(n) if n > 0) {
                break;
            }
        }
        if !right {
            socket.abort();
            return Err(self.talk.map(|t| t.flow));
        }
        self.outbox.write(socket);
        if socket.state() == State::CloseWait && self.outbox.is_empty() {
            socket.close();
        }
        Ok(())
    }

    fn take(&mut self, seed: u64, flows: &mut [FlowRecord], data: &[u8]) -> (usize, bool) {
        let Some(talk) = self.talk else {
            return self.take_head(seed, flows, data);
        };
        let within = (self.received - CLIENT_HEAD) % talk.request_len;
        let n = (data.len() as u64).min(talk.request_len - within) as usize;
        let data = &data[..n];
        if !talk.to_server.is(self.received, data) {
            return (n, false);
        }
        self.received += n as u64;
        if let Some(record) = flows.get_mut(talk.flow.0 as usize) {
            record.server_bytes += n as u64;
        }
        if within + n as u64 == talk.request_len {
            let out = &mut self.outbox.bytes;
            out.extend(self.number.to_le_bytes());
            out.extend(self.replies.to_le_bytes());
            self.replies = self.replies.wrapping_add(1);
            talk.to_client.fill(
                self.sent + REPLY_HEAD,
                (talk.reply_len - REPLY_HEAD) as usize,
                out,
            );
            self.sent += talk.reply_len;
        }
        (n, true)
    }

    fn take_head(&mut self, seed: u64, flows: &mut [FlowRecord], data: &[u8]) -> (usize, bool) {
        let at = self.received as usize;
        let n = data.len().min(self.head.len() - at);
        self.head[at..at + n].copy_from_slice(&data[..n]);
        self.received += n as u64;
        if self.received < CLIENT_HEAD {
            return (n, true);
        }
        let word = |at: usize| {
            let bytes = self.head[at..].first_chunk::<4>();
            bytes.map_or(0, |b| u32::from_le_bytes(*b))
        };
        let flow = FlowId(word(8));
        let (request_len, reply_len) = (word(12), word(16));
        let Some(record) = flows.get_mut(flow.0 as usize) else {
            return (n, false);
        };
        let spec = &record.spec;
        let right = self.head[..8] == CLIENT_MAGIC.to_le_bytes()
            && (request_len, reply_len) == (spec.request_len, spec.reply_len)
            && word(20) == 0;
        if right {
            record.server_bytes += CLIENT_HEAD;
            self.talk = Some(Talk {
                flow,
                request_len: request_len.into(),
                reply_len: reply_len.into(),
                to_client: Pattern::new(seed, flow.0, Way::ToClient),
                to_server: Pattern::new(seed, flow.0, Way::ToServer),
            });
        }
        (n, right)
    }
}
