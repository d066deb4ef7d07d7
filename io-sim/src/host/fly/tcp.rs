//! The protocol: RFC 9293 with RFC 5961 (blind resets), RFC 6298 (timeouts), RFC 6582 (recovery without selective
//! acknowledgements) and the probe of RFC 8985 section 7, as Linux does them.
//!
//! What is not there: options beside the largest segment (so no window scale, timestamps or selective acknowledgements),
//! congestion control (at most ten segments are under way), simultaneous open, urgent data, delayed acknowledgements.

use super::flow::{Flow, NEVER, State, flag};
use super::segment::{ACK, FIN, Header, PSH, RST, SYN, Segment, common_mss, own_mss};
use super::talk;
use super::{Turn, micros};
use crate::host::app::{self, CLIENT_HEAD, SERVER_HEAD};
use crate::ids::FlowId;
use crate::random::nanos;

/// The window that this end always has: what comes is verified at once, and gone.
const WINDOW: u16 = u16::MAX;
/// Segments under way at most: Linux's initial window (RFC 6928).
const IN_FLIGHT_MAX: u32 = 10;
/// Equal acknowledgements that tell of a loss (RFC 5681 section 3.2).
const DUPLICATES: u8 = 3;
/// What Linux adds to a probe's time if several segments are under way.
const PROBE_SLACK_NS: u64 = 2_000_000;

impl Flow {
    // --- what is said ---------------------------------------------------------------------------------------------

    /// The length of our stream so far.
    pub(super) fn limit(&self, turn: &Turn<'_>) -> u64 {
        let Some(record) = turn.flows.get(self.flow as usize) else {
            // A server that does not know yet to whom it speaks: its greeting.
            return SERVER_HEAD;
        };
        let spec = &record.spec;
        if self.is(flag::CLIENT) {
            return CLIENT_HEAD + u64::from(record.requested) * u64::from(spec.request_len);
        }
        let asked = self.received.saturating_sub(CLIENT_HEAD) / u64::from(spec.request_len.max(1));
        SERVER_HEAD + asked * u64::from(spec.reply_len)
    }

    fn says(&self, turn: &Turn<'_>) -> talk::Talk {
        let seed = turn.net.streams.seed();
        let lens = turn.flows.get(self.flow as usize);
        let (request_len, reply_len) = lens.map_or((1, 16), |r| (r.spec.request_len, r.spec.reply_len));
        let flow = FlowId(self.flow);
        if self.is(flag::CLIENT) {
            talk::Talk::client(seed, flow, request_len, reply_len)
        } else {
            talk::Talk::server(seed, flow, self.app as u32, reply_len)
        }
    }

    // --- what is sent ---------------------------------------------------------------------------------------------

    fn emit(&self, turn: &mut Turn<'_>, header: &Header, position: u64, len: usize) {
        let says = (len > 0).then(|| self.says(turn));
        let say = |out: &mut Vec<u8>| {
            if let Some(says) = says {
                says.say(position, len, out);
            }
        };
        turn.out.push(header.frame(turn.local, self.remote(), len, say));
    }

    fn header(&self, seq: u32, flags: u8) -> Header {
        Header {
            seq,
            ack: self.expected(),
            flags: flags | ACK,
            window: WINDOW,
            mss: None,
        }
    }

    fn send_ack(&mut self, turn: &mut Turn<'_>) {
        self.clear(flag::OWES_ACK);
        let seq = self.seq(self.una + u64::from(self.max));
        self.emit(turn, &self.header(seq, 0), 0, 0);
    }

    /// The SYN, or the SYN that answers one.
    fn send_syn(&mut self, turn: &mut Turn<'_>) {
        let mut header = self.header(self.iss, SYN);
        header.mss = Some(own_mss(turn.local.ip(), turn.mtu));
        if self.is(flag::CLIENT) {
            (header.flags, header.ack) = (SYN, 0);
        } else {
            header.ack = self.irs.wrapping_add(1);
        }
        self.emit(turn, &header, 0, 0);
    }

    /// Bytes from a position on, as many as fit into one segment, up to `limit`, and our FIN if it is next. How much of
    /// the sequence space that is.
    fn send_from(&mut self, turn: &mut Turn<'_>, position: u64, limit: u64, room: u64) -> u32 {
        let len = limit.saturating_sub(position).min(self.mss.into()).min(room);
        let is_last = position + len == limit;
        let fin = is_last && self.is(flag::CLOSING);
        let mut flags = 0;
        if is_last && len > 0 {
            flags |= PSH;
        }
        if fin {
            flags |= FIN;
        }
        self.clear(flag::OWES_ACK);
        let header = self.header(self.seq(position), flags);
        self.emit(turn, &header, position, len as usize);
        len as u32 + u32::from(fin)
    }

    /// Sends what may be sent, and an acknowledgement that nothing else carries.
    pub(super) fn output(&mut self, turn: &mut Turn<'_>) {
        use State as S;
        if matches!(
            self.state,
            S::Established | S::CloseWait | S::FinWait1 | S::Closing | S::LastAck
        ) {
            let limit = self.limit(turn);
            let end = limit + u64::from(self.is(flag::CLOSING));
            let window = u64::from(self.window).min(u64::from(IN_FLIGHT_MAX) * u64::from(self.mss));
            let was_idle = self.max == 0;
            let mut is_new = false;
            // After a timeout one segment is under way, until something is acknowledged.
            while self.retries == 0 || self.max == 0 {
                let position = self.una + u64::from(self.next);
                let room = (self.una + window).saturating_sub(position);
                if position >= end || room == 0 && position < limit {
                    break;
                }
                let n = self.send_from(turn, position, limit, room);
                self.next += n;
                if self.next > self.max {
                    self.max = self.next;
                    is_new = true;
                    if !self.is(flag::TIMED | flag::RECOVERS) {
                        self.set(flag::TIMED);
                        self.mark = (position as u32).wrapping_add(n);
                        self.sent_at = micros(turn.net.now);
                    }
                }
            }
            let waits_for_window = self.max == 0 && self.una < end;
            if was_idle && is_new || waits_for_window && self.timer_at == NEVER {
                self.arm(turn);
            }
        }
        if self.is(flag::OWES_ACK) {
            self.send_ack(turn);
        }
    }

    // --- the timer ------------------------------------------------------------------------------------------------

    /// Linux: the smoothed round trip, and four deviations, but no less than the smallest timeout.
    fn timeout(&self, turn: &Turn<'_>) -> u64 {
        let tcp = &turn.tcp;
        let base = if self.srtt > 0 {
            let spread = (u64::from(self.deviation) * 1_000).max(nanos(tcp.timeout_min));
            ticks(turn, u64::from(self.srtt) * 125 + spread)
        } else if self.is(flag::SYN_AGAIN) {
            // RFC 6298 section 5.7.
            nanos(tcp.timeout_initial).saturating_mul(3)
        } else {
            nanos(tcp.timeout_initial)
        };
        let factor = 1u64 << self.backoff.min(32);
        base.saturating_mul(factor).min(nanos(tcp.timeout_max))
    }

    /// Sets the timer anew: something is under way, or waits for a window.
    fn arm(&mut self, turn: &Turn<'_>) {
        self.clear(flag::PROBES);
        let mut wait = self.timeout(turn);
        let calm = self.backoff == 0 && !self.is(flag::PROBED | flag::RECOVERS);
        if turn.tcp.tail_loss_probe && calm && self.srtt > 0 && self.max > 0 {
            let more = if self.max <= u32::from(self.mss) {
                nanos(turn.tcp.timeout_min)
            } else {
                PROBE_SLACK_NS
            };
            wait = wait.min(ticks(turn, u64::from(self.srtt) * 250 + more));
            self.set(flag::PROBES);
        }
        self.timer_at = turn.net.now.saturating_add(wait);
    }

    pub(super) fn start(&mut self, turn: &mut Turn<'_>) {
        self.send_syn(turn);
        self.sent_at = micros(turn.net.now);
        self.timer_at = turn.net.now.saturating_add(self.timeout(turn));
    }

    /// The timer ran out.
    pub(super) fn timer(&mut self, turn: &mut Turn<'_>) {
        self.timer_at = NEVER;
        let tcp = turn.tcp;
        match self.state {
            State::Closed => {}
            State::TimeWait => self.state = State::Closed,
            State::SynSent | State::SynReceived => {
                let client = self.state == State::SynSent;
                let (max, linear) = if client {
                    (tcp.syn_retries.saturating_add(tcp.syn_linear), tcp.syn_linear)
                } else {
                    (tcp.synack_retries, 0)
                };
                if self.retries >= max {
                    return self.time_out();
                }
                self.retries += 1;
                self.backoff += u8::from(self.retries > linear);
                self.set(flag::SYN_AGAIN);
                self.send_syn(turn);
                // The first timeout, doubled: there is nothing measured yet.
                let wait = nanos(tcp.timeout_initial).saturating_mul(1 << self.backoff.min(32));
                self.timer_at = turn.net.now.saturating_add(wait.min(nanos(tcp.timeout_max)));
            }
            _ if self.is(flag::PROBES) => {
                self.clear(flag::PROBES);
                self.set(flag::PROBED);
                self.probe_tail(turn);
                self.timer_at = turn.net.now.saturating_add(self.timeout(turn));
            }
            _ => self.retransmit(turn),
        }
    }

    /// The last segment once more (all that the window allows is under way): its acknowledgement tells of a loss.
    fn probe_tail(&mut self, turn: &mut Turn<'_>) {
        self.clear(flag::TIMED);
        let limit = self.limit(turn);
        let bytes = (limit - self.una.min(limit)).min(self.max.into());
        let last = bytes.min(self.mss.into());
        self.send_from(turn, self.una + bytes - last, limit, last);
    }

    /// RFC 6298 section 5.4 to 5.6; what is under way behind the first segment follows as acknowledgements come.
    fn retransmit(&mut self, turn: &mut Turn<'_>) {
        let now = micros(turn.net.now);
        let retries = match self.state {
            // Nobody owns the connection any more.
            State::LastAck | State::Closing => turn.tcp.orphan_retries,
            _ => turn.tcp.retries,
        };
        if self.retries == 0 {
            self.first_retry_at = now;
        } else if now.wrapping_sub(self.first_retry_at) >= model_timeout(turn, retries) {
            return self.time_out();
        }
        let limit = self.limit(turn);
        if self.una >= limit + u64::from(self.is(flag::CLOSING)) {
            return;
        }
        self.set(flag::RECOVERS);
        self.clear(flag::TIMED | flag::PROBED);
        self.mark = (self.una as u32).wrapping_add(self.max);
        self.duplicates = 0;
        // A window of zero is asked for one byte (RFC 9293 section 3.8.6.1).
        let room = u64::from(self.window).max(1);
        self.next = self.send_from(turn, self.una, limit, room);
        self.max = self.max.max(self.next);
        self.retries = self.retries.saturating_add(1);
        self.backoff = self.backoff.saturating_add(1);
        self.timer_at = turn.net.now.saturating_add(self.timeout(turn));
    }

    fn time_out(&mut self) {
        self.state = State::Closed;
        self.set(flag::TIMED_OUT);
    }

    /// When the peer is asked whether it is there, or given up.
    pub(super) fn keepalive_at(&self, turn: &Turn<'_>) -> Option<u64> {
        let keepalive = turn.tcp.keepalive?;
        let open = matches!(
            self.state,
            State::Established | State::CloseWait | State::FinWait2
        );
        (open && self.max == 0 && self.timer_at == NEVER).then(|| {
            let asked = nanos(keepalive.interval).saturating_mul(self.probes.into());
            self.quiet_from
                .saturating_add(nanos(keepalive.time))
                .saturating_add(asked)
        })
    }

    pub(super) fn keepalive(&mut self, turn: &mut Turn<'_>) {
        let Some(keepalive) = turn.tcp.keepalive else {
            return;
        };
        if self.probes >= keepalive.probes {
            self.abort(turn);
            return self.time_out();
        }
        self.probes += 1;
        // A byte that the peer has: it answers with what it expects.
        let seq = self.seq(self.una).wrapping_sub(1);
        self.emit(turn, &self.header(seq, 0), 0, 0);
    }

    // --- ends -----------------------------------------------------------------------------------------------------

    /// Nothing more will be said.
    pub(super) fn close(&mut self) {
        match self.state {
            State::Established => self.state = State::FinWait1,
            State::CloseWait => self.state = State::LastAck,
            _ => return,
        }
        self.set(flag::CLOSING);
    }

    /// Ends at once, with a reset if the peer knows of the connection.
    pub(super) fn abort(&mut self, turn: &mut Turn<'_>) {
        if self.state.is_synchronized() && self.state != State::TimeWait || self.state == State::SynReceived {
            let seq = self.seq(self.una + u64::from(self.max));
            self.emit(turn, &self.header(seq, RST), 0, 0);
        }
        self.clear(flag::OWES_ACK);
        self.state = State::Closed;
    }

    fn time_wait(&mut self, turn: &Turn<'_>) {
        self.state = State::TimeWait;
        self.timer_at = turn.net.now.saturating_add(nanos(turn.tcp.time_wait));
    }

    // --- what comes -----------------------------------------------------------------------------------------------

    /// A server takes a SYN.
    pub(super) fn open(&mut self, turn: &mut Turn<'_>, segment: &Segment<'_>) {
        self.irs = segment.seq;
        self.window = segment.window;
        self.mss = common_mss(turn.local.ip(), turn.mtu, segment.mss);
        self.start(turn);
    }

    /// A segment for this connection (RFC 9293 section 3.10.7).
    pub(super) fn receive(&mut self, turn: &mut Turn<'_>, segment: &Segment<'_>) {
        self.probes = 0;
        match self.state {
            State::Closed => {}
            State::SynSent => self.receive_in_syn_sent(turn, segment),
            State::SynReceived => {
                if segment.opens() && segment.seq == self.irs {
                    self.set(flag::SYN_AGAIN);
                    return self.send_syn(turn);
                }
                if segment.has(RST) {
                    if segment.seq == self.expected() {
                        self.state = State::Closed;
                    }
                    return;
                }
                if segment.has(SYN) {
                    return self.send_ack(turn);
                }
                if !segment.has(ACK) {
                    return;
                }
                if segment.ack != self.seq(0) {
                    return self.reset_from(turn, segment.ack);
                }
                self.connected(turn, segment);
                self.receive_synchronized(turn, segment);
            }
            _ => self.receive_synchronized(turn, segment),
        }
    }

    fn receive_in_syn_sent(&mut self, turn: &mut Turn<'_>, segment: &Segment<'_>) {
        if segment.has(ACK) && segment.ack != self.seq(0) {
            if !segment.has(RST) {
                self.reset_from(turn, segment.ack);
            }
            return;
        }
        if segment.has(RST) {
            if segment.has(ACK) {
                self.state = State::Closed;
            }
            return;
        }
        if !segment.has(SYN) || !segment.has(ACK) {
            return;
        }
        self.irs = segment.seq;
        self.mss = common_mss(turn.local.ip(), turn.mtu, segment.mss);
        self.connected(turn, segment);
        self.set(flag::OWES_ACK | flag::MOVED);
    }

    /// A reset of what the peer believes to be a connection.
    fn reset_from(&self, turn: &mut Turn<'_>, seq: u32) {
        let mut header = self.header(seq, RST);
        (header.flags, header.ack) = (RST, 0);
        self.emit(turn, &header, 0, 0);
    }

    /// Our SYN is acknowledged.
    fn connected(&mut self, turn: &Turn<'_>, segment: &Segment<'_>) {
        self.state = State::Established;
        self.window = segment.window;
        (self.retries, self.backoff, self.timer_at) = (0, 0, NEVER);
        if !self.is(flag::SYN_AGAIN) {
            self.sample(turn);
        }
    }

    fn receive_synchronized(&mut self, turn: &mut Turn<'_>, segment: &Segment<'_>) {
        // How far the segment begins behind what we expect.
        let offset = segment.seq.wrapping_sub(self.expected()) as i32;
        let len = segment.len();
        let in_window = (0..i32::from(WINDOW)).contains(&offset);
        if segment.has(RST) {
            // RFC 5961 section 3.2.
            if offset == 0 {
                self.state = State::Closed;
            } else if in_window {
                self.send_ack(turn);
            }
            return;
        }
        if segment.has(SYN) {
            // RFC 5961 section 4.2.
            return self.send_ack(turn);
        }
        let ends_behind = offset.saturating_add_unsigned(len) > 0;
        if !(offset == 0 && len == 0 || ends_behind && offset < i32::from(WINDOW)) {
            // What says nothing new is answered, so that a peer which missed our acknowledgement gets it. That an
            // empty segment is not, but for a keepalive, keeps two ends that disagree from answering each other for ever.
            if len > 0 || offset == -1 {
                self.set(flag::OWES_ACK);
            }
            return;
        }
        if !segment.has(ACK) || !self.acknowledged(turn, segment) {
            return;
        }
        self.take(turn, segment, offset);
    }

    /// `false`: it acknowledges what was never sent.
    fn acknowledged(&mut self, turn: &mut Turn<'_>, segment: &Segment<'_>) -> bool {
        let news = segment.ack.wrapping_sub(self.seq(self.una)) as i32;
        if news > 0 && news.cast_unsigned() > self.max {
            return false;
        }
        if news < 0 {
            // Overtaken by a later one.
            return true;
        }
        if news == 0 {
            let repeats =
                segment.data.is_empty() && !segment.has(FIN) && self.max > 0 && segment.window == self.window;
            if repeats {
                self.duplicates = self.duplicates.saturating_add(1);
                if self.duplicates == DUPLICATES && !self.is(flag::RECOVERS) {
                    self.set(flag::RECOVERS);
                    self.clear(flag::TIMED | flag::PROBED);
                    self.mark = (self.una as u32).wrapping_add(self.max);
                    self.send_head(turn);
                }
            }
            let opens = self.window == 0 && segment.window > 0;
            self.window = segment.window;
            if opens {
                // What was sent into the closed window is not waited for.
                (self.next, self.retries, self.backoff) = (0, 0, 0);
            }
            return true;
        }
        let news = news.cast_unsigned();
        self.window = segment.window;
        self.una += u64::from(news);
        self.next = self.next.saturating_sub(news);
        self.max -= news;
        (self.duplicates, self.retries, self.backoff) = (0, 0, 0);
        self.set(flag::MOVED);
        let reached = (self.una as u32).wrapping_sub(self.mark) as i32 >= 0;
        if self.is(flag::TIMED) && reached {
            self.clear(flag::TIMED);
            self.sample(turn);
        }
        if self.is(flag::RECOVERS) {
            if reached {
                self.clear(flag::RECOVERS);
            } else if self.next == self.max {
                // RFC 6582: the next hole.
                self.send_head(turn);
            }
        }
        if self.max == 0 {
            self.clear(flag::PROBED | flag::PROBES);
            self.timer_at = NEVER;
        } else {
            self.arm(turn);
        }
        if self.is(flag::CLOSING) && self.una > self.limit(turn) {
            match self.state {
                State::FinWait1 => self.state = State::FinWait2,
                State::Closing => self.time_wait(turn),
                State::LastAck => self.state = State::Closed,
                _ => {}
            }
        }
        true
    }

    /// The first segment that is not acknowledged, once more.
    fn send_head(&mut self, turn: &mut Turn<'_>) {
        let limit = self.limit(turn);
        let n = self.send_from(turn, self.una, limit, self.max.into());
        self.next = self.next.max(n);
        self.max = self.max.max(n);
        self.arm(turn);
    }

    /// RFC 6298 section 2, in Linux's integers.
    fn sample(&mut self, turn: &Turn<'_>) {
        let measured = micros(turn.net.now).wrapping_sub(self.sent_at).clamp(1, 1 << 27);
        if self.srtt == 0 {
            self.srtt = measured << 3;
            self.deviation = measured << 1;
            return;
        }
        let error = i64::from(measured) - i64::from(self.srtt >> 3);
        self.srtt = u32::try_from(i64::from(self.srtt) + error).unwrap_or(1).max(1);
        let mut spread = error.abs() - i64::from(self.deviation >> 2);
        if error < 0 && spread > 0 {
            // A round trip that became shorter says little of how much it varies.
            spread >>= 3;
        }
        self.deviation = u32::try_from(i64::from(self.deviation) + spread).unwrap_or(0);
    }

    /// Takes the bytes of a segment that begins `offset` behind what is expected, and its FIN.
    fn take(&mut self, turn: &mut Turn<'_>, segment: &Segment<'_>, offset: i32) {
        if self.is(flag::FIN_SEEN) {
            // Nothing comes behind a FIN.
            if segment.len() > 0 {
                self.set(flag::OWES_ACK);
            }
            return;
        }
        if segment.len() == 0 {
            return;
        }
        self.set(flag::OWES_ACK);
        let skip = usize::try_from(-i64::from(offset)).unwrap_or(0);
        let data = segment.data.get(skip..).unwrap_or_default();
        if offset > 0 {
            return self.take_early(turn, offset.cast_unsigned(), data);
        }
        if !data.is_empty() && !self.take_in_order(turn, data) {
            return;
        }
        let whole = offset.saturating_add_unsigned(segment.data.len() as u32) >= 0;
        // A FIN that stands before early bytes is none.
        if segment.has(FIN) && whole && self.early_len == 0 && self.ends_here(segment) {
            self.set(flag::FIN_SEEN | flag::MOVED);
            match self.state {
                State::Established => self.state = State::CloseWait,
                State::FinWait1 => self.state = State::Closing,
                State::FinWait2 => self.time_wait(turn),
                _ => {}
            }
        }
    }

    /// Whether the segment's FIN is what is expected next.
    fn ends_here(&self, segment: &Segment<'_>) -> bool {
        segment.seq.wrapping_add(segment.data.len() as u32) == self.expected()
    }

    /// What the peer says, if that is known: before its head it is not.
    fn hears(&self, turn: &Turn<'_>) -> Option<talk::Talk> {
        let seed = turn.net.streams.seed();
        let record = turn.flows.get(self.flow as usize)?;
        let flow = FlowId(self.flow);
        if self.is(flag::CLIENT) {
            Some(talk::Talk::server(
                seed,
                flow,
                record.server?,
                record.spec.reply_len,
            ))
        } else {
            let spec = &record.spec;
            Some(talk::Talk::client(seed, flow, spec.request_len, spec.reply_len))
        }
    }

    /// As many bytes of the peer as it may have said so far.
    fn hears_until(&self, turn: &Turn<'_>) -> u64 {
        match turn.flows.get(self.flow as usize) {
            // Nothing is replied that was not asked for.
            Some(record) if self.is(flag::CLIENT) => {
                SERVER_HEAD + u64::from(record.requested) * u64::from(record.spec.reply_len)
            }
            _ => u64::MAX,
        }
    }

    /// Bytes before which others are missing. One run of them is kept, that is to say its place; they are verified now.
    fn take_early(&mut self, turn: &Turn<'_>, at: u32, data: &[u8]) {
        let Some(hears) = self.hears(turn) else { return };
        let position = self.received + u64::from(at);
        if position + data.len() as u64 > self.hears_until(turn) || !hears.is(position, data) {
            return self.set(flag::WRONG);
        }
        let (from, to) = (at, at + data.len() as u32);
        let (early_from, early_to) = (self.early_at, self.early_at + self.early_len);
        if self.early_len == 0 {
            (self.early_at, self.early_len) = (from, to - from);
        } else if from <= early_to && early_from <= to {
            self.early_at = from.min(early_from);
            self.early_len = to.max(early_to) - self.early_at;
        }
        // Another run: it is lost, and comes again.
    }

    /// The bytes that are expected next. `false`: they are wrong, or too few to tell.
    fn take_in_order(&mut self, turn: &mut Turn<'_>, data: &[u8]) -> bool {
        let before = self.received;
        if before == 0 && !self.take_head(turn, data) {
            return false;
        }
        // Of these some may have come early.
        let right = self.hears(turn).is_some_and(|hears| hears.is(before, data));
        if !right || before + data.len() as u64 > self.hears_until(turn) {
            self.set(flag::WRONG);
            if before == 0 {
                self.unknown(turn);
            }
            return false;
        }
        let len = data.len() as u32;
        let mut taken = len;
        if self.early_len > 0 && self.early_at <= len {
            taken = len.max(self.early_at + self.early_len);
            self.early_len = 0;
        } else {
            self.early_at -= len.min(self.early_at);
        }
        self.received += u64::from(taken);
        self.set(flag::MOVED);
        self.tell(turn, before);
        true
    }

    /// The head tells who speaks. It comes whole: it is said at once, and every segment has room for it; a part of it
    /// is not taken.
    fn take_head(&mut self, turn: &mut Turn<'_>, data: &[u8]) -> bool {
        if self.is(flag::CLIENT) {
            if data.len() < SERVER_HEAD as usize {
                return false;
            }
            if let Some(record) = turn.flows.get_mut(self.flow as usize) {
                record.server = talk::server_of(data);
            }
            return true;
        }
        if data.len() < CLIENT_HEAD as usize {
            return false;
        }
        let flow = talk::flow_of(data).filter(|flow| turn.flows.get(flow.0 as usize).is_some());
        match flow {
            Some(flow) => self.flow = flow.0,
            None => self.set(flag::WRONG),
        }
        flow.is_some()
    }

    /// A head that is wrong tells nothing.
    fn unknown(&mut self, turn: &mut Turn<'_>) {
        if !self.is(flag::CLIENT) {
            self.flow = u32::MAX;
        } else if let Some(record) = turn.flows.get_mut(self.flow as usize) {
            record.server = None;
        }
    }

    /// Writes into the flow's record what came since `before`.
    fn tell(&mut self, turn: &mut Turn<'_>, before: u64) {
        let Some(record) = turn.flows.get_mut(self.flow as usize) else {
            return;
        };
        if !self.is(flag::CLIENT) {
            record.server_bytes += self.received - before;
            return;
        }
        if record.ended.is_some() {
            return;
        }
        record.client_bytes += self.received - before;
        let replies = |received: u64| received.saturating_sub(SERVER_HEAD) / u64::from(record.spec.reply_len);
        let more = replies(self.received) - replies(before);
        if before == 0 || more > 0 {
            record.replied += more as u32;
            app::answered(turn.net.now, record);
            self.app = app::gap_end(turn.net, record, FlowId(self.flow));
        }
    }
}

/// The next whole tick.
fn ticks(turn: &Turn<'_>, span: u64) -> u64 {
    span.next_multiple_of(nanos(turn.tcp.tick).max(1))
}

/// How long Linux tries (`retransmits_timed_out`): as long as so many timeouts from the smallest on take, each twice as
/// long as the one before it, up to the longest. In microseconds.
fn model_timeout(turn: &Turn<'_>, retries: u8) -> u32 {
    let (min, max) = (nanos(turn.tcp.timeout_min).max(1), nanos(turn.tcp.timeout_max));
    let doublings = (max / min).max(1).ilog2();
    let doubled = u32::from(retries).min(doublings);
    let linear = u64::from(u32::from(retries) - doubled);
    let all = ((2u64 << doubled) - 1)
        .saturating_mul(min)
        .saturating_add(linear.saturating_mul(max));
    // Differences of our microseconds are right below an hour.
    u32::try_from(all / 1_000).unwrap_or(u32::MAX).min(3_600_000_000)
}
