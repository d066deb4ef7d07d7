//! Hosts: clients and servers.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use evenkeel_core::tuple::L4Proto;
use evenkeel_core::wire::MacAddr;

use crate::flow::{FlowRecord, FlowSpec};
use crate::ids::{FlowId, HostId, Owner, Place};
use crate::world::{Attached, Net, WorldError};

/// A host with one port.
#[derive(Clone, Debug)]
pub struct HostSpec {
    /// For captures and messages.
    pub name: String,
    /// Its link-layer address.
    pub mac: MacAddr,
    /// Its addresses with the lengths of their prefixes; all that is in one of these is on its link.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Where everything else goes, one a family.
    pub gateways: Vec<IpAddr>,
    /// Largest IP packet.
    pub mtu: u16,
    /// Neighbours that it remembers at most.
    pub neighbour_count_max: usize,
    /// Packets that wait for one neighbour at most.
    pub neighbour_queue_max: usize,
    /// How long a neighbour is taken for granted; it is asked for again (and used meanwhile) after that.
    pub neighbour_lifetime: Duration,
    /// Connections that it has at a time, at most.
    pub conn_count_max: usize,
    /// Bytes of a connection's receive buffer, and of its send buffer.
    pub tcp_buffer: usize,
}

impl HostSpec {
    /// With the sizes that most scenarios use.
    pub fn new(name: impl Into<String>, mac: MacAddr, addresses: Vec<(IpAddr, u8)>) -> Self {
        HostSpec {
            name: name.into(),
            mac,
            addresses,
            gateways: Vec::new(),
            mtu: 1500,
            neighbour_count_max: 1024,
            neighbour_queue_max: 4096,
            neighbour_lifetime: Duration::from_secs(60),
            conn_count_max: 65_536,
            tcp_buffer: 2048,
        }
    }
}

/// A server on a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerSpec {
    /// Its number, which it tells in its greeting and in every reply.
    pub number: u32,
    /// TCP or UDP.
    pub proto: L4Proto,
    /// An address of the host's, and the port.
    pub addr: SocketAddr,
}

/// What a host counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostCounters {
    /// Frames received.
    pub received: u64,
}

/// Refuses a flow whose lengths are out of their bounds.
pub(crate) fn check_flow(spec: &FlowSpec) -> Result<(), WorldError> {
    let _ = spec;
    Ok(())
}

#[derive(Debug)]
pub(crate) struct Host {
    id: HostId,
    pub(crate) spec: HostSpec,
    pub(crate) link: Option<Attached>,
    pub(crate) counters: HostCounters,
    servers: BTreeMap<(L4Proto, SocketAddr), u32>,
}

impl Host {
    pub(crate) fn new(id: HostId, spec: HostSpec) -> Self {
        Host {
            id,
            spec,
            link: None,
            counters: HostCounters::default(),
            servers: BTreeMap::new(),
        }
    }

    pub(crate) fn place(&self) -> Place {
        Place {
            owner: Owner::Host(self.id),
            port: 0,
        }
    }

    pub(crate) fn has(&self, addr: IpAddr) -> bool {
        self.spec.addresses.iter().any(|(own, _)| *own == addr)
    }

    pub(crate) fn serve(&mut self, server: ServerSpec) -> Result<(), WorldError> {
        if !self.has(server.addr.ip()) {
            return Err(WorldError::NotItsAddress {
                host: self.spec.name.clone(),
                addr: server.addr.ip(),
            });
        }
        self.servers.insert((server.proto, server.addr), server.number);
        Ok(())
    }

    pub(crate) fn receive(&mut self, net: &mut Net, flows: &mut [FlowRecord], frame: Vec<u8>) {
        self.counters.received += 1;
        let _ = (net, flows, frame);
    }

    pub(crate) fn flow_due(&mut self, net: &mut Net, flows: &mut [FlowRecord], flow: FlowId) {
        let _ = (net, flows, flow);
    }

    pub(crate) fn conn_due(&mut self, net: &mut Net, flows: &mut [FlowRecord], conn: u32, generation: u32) {
        let _ = (net, flows, conn, generation);
    }

    pub(crate) fn neighbours_due(&mut self, net: &mut Net) {
        let _ = net;
    }
}
