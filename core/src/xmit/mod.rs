//! Rewriting: a packet becomes what its other side shall see, from the Ethernet header up to the
//! transport ports. Every rewrite is a pure function of target and packet.

mod fullnat;
mod seq;

pub(crate) use fullnat::{Target, rewrite};
pub(crate) use seq::SeqShift;

use crate::port::PortId;
use crate::service::NextHop;
use crate::wire::MacAddr;

/// The way out of a rewritten packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Egress {
    pub(crate) hop: NextHop,
    pub(crate) src_mac: MacAddr,
    /// Longest IP packet.
    pub(crate) mtu: u32,
}

impl Egress {
    pub(crate) fn port(&self) -> PortId {
        self.hop.port
    }
}
