//! Learning switches (IEEE 802.1D without a spanning tree: topologies have no loops).

use std::collections::BTreeMap;
use std::time::Duration;

use crate::account::Account;
use crate::ids::{LinkId, Place};
use crate::link::Side;
use crate::random::nanos;
use crate::world::Net;

/// A switch.
#[derive(Clone, Debug)]
pub struct SwitchSpec {
    /// For captures and messages.
    pub name: String,
    /// Addresses that it learns at most; frames to others are flooded.
    pub table_len_max: usize,
    /// From a frame's arrival to its place in the next queue.
    pub delay: Duration,
}

impl SwitchSpec {
    /// With 4,096 addresses and a microsecond.
    pub fn new(name: impl Into<String>) -> Self {
        SwitchSpec {
            name: name.into(),
            table_len_max: 4096,
            delay: Duration::from_micros(1),
        }
    }
}

/// What a switch counted, in frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SwitchCounters {
    /// Received.
    pub received: u64,
    /// Sent to the one port where the address is.
    pub forwarded: u64,
    /// Sent to all other ports.
    pub flooded: u64,
    /// The address is where the frame came from; or no Ethernet.
    pub filtered: u64,
    /// Addresses learnt anew.
    pub learnt: u64,
    /// Addresses that were somewhere else before.
    pub moved: u64,
    /// Addresses that did not fit into the table.
    pub table_full: u64,
}

#[derive(Debug)]
pub(crate) struct Switch {
    pub(crate) spec: SwitchSpec,
    pub(crate) ports: Vec<(LinkId, Side)>,
    table: BTreeMap<[u8; 6], u16>,
    pub(crate) counters: SwitchCounters,
}

impl Switch {
    pub(crate) fn new(spec: SwitchSpec) -> Self {
        Switch {
            spec,
            ports: Vec::new(),
            table: BTreeMap::new(),
            counters: SwitchCounters::default(),
        }
    }

    /// The port behind which an address is.
    pub(crate) fn port_of(&self, mac: [u8; 6]) -> Option<u16> {
        self.table.get(&mac).copied()
    }

    /// What became of the frames that it received.
    pub(crate) fn account(&self) -> Account {
        let c = &self.counters;
        Account {
            name: self.spec.name.clone(),
            came: c.received,
            became: vec![
                ("forwarded", c.forwarded),
                ("flooded", c.flooded),
                ("filtered", c.filtered),
            ],
        }
    }

    pub(crate) fn receive(&mut self, net: &mut Net, at: Place, frame: Vec<u8>) {
        self.counters.received += 1;
        let (Some(dst), Some(src)) = (
            frame.first_chunk::<6>().copied(),
            frame.get(6..).and_then(|f| f.first_chunk::<6>()).copied(),
        ) else {
            self.counters.filtered += 1;
            net.dropped(at, "switch-filtered", frame.len());
            return;
        };
        // Bit 0 of the first byte: a group, never a sender.
        if src[0] & 1 == 0 {
            let room = self.table.len() < self.spec.table_len_max;
            match self.table.get_mut(&src) {
                Some(port) => {
                    self.counters.moved += u64::from(*port != at.port);
                    *port = at.port;
                }
                None if room => {
                    self.counters.learnt += 1;
                    self.table.insert(src, at.port);
                }
                None => self.counters.table_full += 1,
            }
        }
        let send_at = net.now + nanos(self.spec.delay);
        let known = if dst[0] & 1 == 0 { self.port_of(dst) } else { None };
        match known {
            Some(port) if port == at.port => {
                self.counters.filtered += 1;
                net.dropped(at, "switch-filtered", frame.len());
            }
            Some(port) => {
                self.counters.forwarded += 1;
                if let Some(&to) = self.ports.get(usize::from(port)) {
                    net.send(to, send_at, frame);
                }
            }
            None => {
                self.counters.flooded += 1;
                for (port, &to) in self.ports.iter().enumerate() {
                    if port != usize::from(at.port) {
                        net.send(to, send_at, frame.clone());
                    }
                }
            }
        }
    }
}
