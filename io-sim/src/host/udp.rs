//! Requests and replies over UDP.
//!
//! ```text
//! request: magic 8 | flow 4 | count 4 | reply len 4 | zero 4 | pattern
//! reply:   magic 8 | flow 4 | count 4 | number of the server 4 | zero 4 | pattern
//! ```

use super::app::{answered, end, gap_end, is_done};
use super::pattern::{CLIENT_MAGIC, Pattern, SERVER_MAGIC, Way};
use crate::flow::{BrokenWhy, FlowEnd, FlowRecord, FlowState};
use crate::ids::FlowId;
use crate::observe::Trace;
use crate::random::nanos;
use crate::world::Net;

const HEAD: usize = 24;
/// Shortest datagram.
pub(super) const DATAGRAM_LEN_MIN: u32 = 32;
/// Longest datagram.
pub(super) const DATAGRAM_LEN_MAX: u32 = 1_400;

fn datagram(magic: u64, flow: FlowId, count: u32, word: u32, pattern: Pattern, len: u32) -> Vec<u8> {
    let len = len.clamp(DATAGRAM_LEN_MIN, DATAGRAM_LEN_MAX);
    let mut data = Vec::with_capacity(len as usize);
    data.extend(magic.to_le_bytes());
    data.extend(flow.0.to_le_bytes());
    data.extend(count.to_le_bytes());
    data.extend(word.to_le_bytes());
    data.extend([0; 4]);
    // Each datagram has its own stretch of the pattern.
    pattern.fill(u64::from(count) << 16, len as usize - HEAD, &mut data);
    data
}

/// Flow, count and word of a datagram's head.
fn head(magic: u64, data: &[u8]) -> Option<(FlowId, u32, u32)> {
    let word = |at: usize| Some(u32::from_le_bytes(*data.get(at..)?.first_chunk()?));
    (data.get(..8)? == magic.to_le_bytes() && word(20)? == 0).then_some(())?;
    Some((FlowId(word(8)?), word(12)?, word(16)?))
}

fn body_is(pattern: Pattern, count: u32, data: &[u8]) -> bool {
    pattern.is(u64::from(count) << 16, data.get(HEAD..).unwrap_or_default())
}

/// What a server answers to a datagram. `Err`: it is not what its flow says.
pub(super) fn serve(
    seed: u64,
    number: u32,
    flows: &mut [FlowRecord],
    data: &[u8],
) -> Result<Vec<u8>, Option<FlowId>> {
    let (flow, count, reply_len) = head(CLIENT_MAGIC, data).ok_or(None)?;
    let record = flows.get_mut(flow.0 as usize).ok_or(None)?;
    let right = data.len() == record.spec.request_len as usize
        && reply_len == record.spec.reply_len
        && body_is(Pattern::new(seed, flow.0, Way::ToServer), count, data);
    if !right {
        return Err(Some(flow));
    }
    record.server_bytes += data.len() as u64;
    let pattern = Pattern::new(seed, flow.0, Way::ToClient);
    Ok(datagram(SERVER_MAGIC, flow, count, number, pattern, reply_len))
}

/// The client's side of a UDP flow.
#[derive(Debug)]
pub(super) struct UdpClient {
    pub(super) flow: FlowId,
    request_at: Option<u64>,
    retry_at: Option<u64>,
    progress_at: u64,
}

impl UdpClient {
    pub(super) fn new(now: u64, flow: FlowId) -> Self {
        UdpClient {
            flow,
            request_at: Some(now),
            retry_at: None,
            progress_at: now,
        }
    }

    /// A datagram came.
    pub(super) fn receive(&mut self, net: &mut Net, record: &mut FlowRecord, data: &[u8]) {
        let Some((flow, count, number)) = head(SERVER_MAGIC, data) else {
            return end(net, record, self.flow, Some(BrokenWhy::WrongBytesAtClient));
        };
        let pattern = Pattern::new(net.streams.seed(), self.flow.0, Way::ToClient);
        let right = flow == self.flow
            && count < record.requested
            && data.len() == record.spec.reply_len as usize
            && body_is(pattern, count, data);
        if !right {
            return end(net, record, self.flow, Some(BrokenWhy::WrongBytesAtClient));
        }
        if record.server.is_some_and(|known| known != number) {
            return end(net, record, self.flow, Some(BrokenWhy::OtherServer));
        }
        // A reply to an earlier copy of a request is no news.
        if record.replied + 1 != record.requested || count != record.replied {
            return;
        }
        record.server = Some(number);
        record.client_bytes += data.len() as u64;
        if record.established.is_none() {
            record.established = Some(evenkeel_core::time::Instant::from_nanos(net.now));
            net.trace(Trace::FlowEstablished(self.flow));
        }
        record.replied += 1;
        answered(net.now, record);
        self.progress_at = net.now;
        self.retry_at = None;
        self.request_at = Some(gap_end(net, record, self.flow));
    }

    /// What is due: a datagram to send, and when the next turn is.
    pub(super) fn turn(&mut self, net: &mut Net, record: &mut FlowRecord) -> (Option<Vec<u8>>, Option<u64>) {
        if record.ended.is_some() {
            return (None, None);
        }
        let mut send = false;
        let over = record.spec.until.is_some_and(|until| net.now >= until.as_nanos());
        if self.request_at.is_some_and(|at| net.now >= at || over) {
            self.request_at = None;
            if is_done(net.now, record) {
                if matches!(record.spec.end, FlowEnd::Close | FlowEnd::Reset) {
                    end(net, record, self.flow, None);
                }
                return (None, None);
            }
            record.requested += 1;
            record.state = FlowState::Open;
            record.awaiting_since = Some(evenkeel_core::time::Instant::from_nanos(net.now));
            self.progress_at = net.now;
            send = true;
        } else if self.retry_at.is_some_and(|at| net.now >= at) {
            if net.now >= self.progress_at.saturating_add(nanos(record.spec.give_up)) {
                end(net, record, self.flow, Some(BrokenWhy::GaveUp));
                return (None, None);
            }
            record.udp_retries += 1;
            send = true;
        }
        let data = send.then(|| {
            self.retry_at = Some(net.now + nanos(record.spec.udp_retry).max(1));
            let pattern = Pattern::new(net.streams.seed(), self.flow.0, Way::ToServer);
            let spec = &record.spec;
            let count = record.requested - 1;
            datagram(
                CLIENT_MAGIC,
                self.flow,
                count,
                spec.reply_len,
                pattern,
                spec.request_len,
            )
        });
        let next = [self.request_at, self.retry_at].into_iter().flatten().min();
        (data, next)
    }
}
