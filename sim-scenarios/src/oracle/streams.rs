//! `byte-streams`: what hosts say of their flows.

use std::time::Duration;

use evenkeel_core::tuple::L4Proto;
use evenkeel_io_sim::{BrokenWhy, FlowRecord, FlowState};

use super::Found;

/// `byte-streams`.
#[derive(Debug, Default)]
pub(crate) struct ByteStreams {
    pub(crate) found: Found,
}

impl ByteStreams {
    /// A flow at `end`, when the run is over. `forgotten`: its session died with a node, and nobody else had it; a
    /// datagram opens another one, at any server. That this is so for its client is for the expectations.
    pub(crate) fn flow(&mut self, end: Duration, number: u32, flow: &FlowRecord, forgotten: bool) {
        let found = &mut self.found;
        found.looked += flow.client_bytes + flow.server_bytes;
        let at = flow.ended.map_or(end, |t| Duration::from_nanos(t.as_nanos()));
        let name = || format!("flow {number} ({} > {})", flow.client(), flow.spec.target);
        match flow.broken {
            Some(BrokenWhy::OtherServer) if forgotten && flow.spec.proto == L4Proto::Udp => {}
            Some(
                why
                @ (BrokenWhy::WrongBytesAtClient | BrokenWhy::WrongBytesAtServer | BrokenWhy::OtherServer),
            ) => {
                found.add(at, || format!("{}: {}", name(), why.name()));
            }
            // That it broke is for the expectations.
            Some(_) => {}
            None if flow.state == FlowState::Closed => {
                let replied = u64::from(flow.replied);
                let expected = (
                    replied * u64::from(flow.spec.request_len),
                    replied * u64::from(flow.spec.reply_len),
                );
                let seen = (flow.server_bytes, flow.client_bytes);
                if seen.0 < expected.0 || seen.1 < expected.1 || flow.requested != flow.replied {
                    found.add(at, || {
                        format!(
                            "{} is closed: {} requests, {} replies, {} and {} bytes of {} and {}",
                            name(),
                            flow.requested,
                            flow.replied,
                            seen.0,
                            seen.1,
                            expected.0,
                            expected.1
                        )
                    });
                }
            }
            None => {}
        }
    }
}
