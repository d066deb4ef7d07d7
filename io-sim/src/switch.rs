//! Learning switches (IEEE 802.1D without a spanning tree: topologies have no loops), with VLANs (802.1Q, a table of each).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::account::{Account, AccountOf};
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

/// Numbers of VLANs: 0 and 4095 are none (802.1Q, table 9-2).
pub const VLAN_RANGE: std::ops::RangeInclusive<u16> = 1..=4094;

/// Which VLANs a port of a switch is in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Vlan {
    /// The switch knows of no VLANs there: frames pass among such ports as they are, tagged or not.
    #[default]
    None,
    /// Of this one, whose frames have no tag on the link. A tagged frame that comes in is dropped.
    Access(u16),
    /// Of all, and each frame has a tag on the link. One without that comes in is dropped.
    Trunk,
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
    /// With a tag where none belongs, or without one on a trunk.
    pub wrong_vlan: u64,
    /// Frames do not pass from the port where it came in to the one behind which its address is.
    pub parted: u64,
    /// Addresses learnt anew.
    pub learnt: u64,
    /// Addresses that were somewhere else before.
    pub moved: u64,
    /// Addresses that did not fit into the table.
    pub table_full: u64,
}

#[derive(Clone, Copy, Debug)]
struct Port {
    link: (LinkId, Side),
    vlan: Vlan,
}

#[derive(Debug)]
pub(crate) struct Switch {
    pub(crate) spec: SwitchSpec,
    ports: Vec<Port>,
    /// By VLAN (0: none) and address.
    table: BTreeMap<(u16, [u8; 6]), u16>,
    /// From this port frames do not pass to that one.
    parted: BTreeSet<(u16, u16)>,
    pub(crate) counters: SwitchCounters,
}

impl Switch {
    pub(crate) fn new(spec: SwitchSpec) -> Self {
        Switch {
            spec,
            ports: Vec::new(),
            table: BTreeMap::new(),
            parted: BTreeSet::new(),
            counters: SwitchCounters::default(),
        }
    }

    /// Ports so far: the number of the next one.
    pub(crate) fn port_count(&self) -> usize {
        self.ports.len()
    }

    /// Another port.
    pub(crate) fn attach(&mut self, link: (LinkId, Side), vlan: Vlan) {
        self.ports.push(Port { link, vlan });
    }

    /// Whether frames pass from one port to another.
    pub(crate) fn part(&mut self, from: u16, to: u16, parted: bool) {
        if parted {
            self.parted.insert((from, to));
        } else {
            self.parted.remove(&(from, to));
        }
    }

    /// What became of the frames that it received.
    pub(crate) fn account(&self) -> Account<'_> {
        let c = &self.counters;
        Account::new(
            AccountOf::Machine(&self.spec.name, ""),
            c.received,
            [
                ("forwarded", c.forwarded),
                ("flooded", c.flooded),
                ("filtered", c.filtered),
                ("wrong-vlan", c.wrong_vlan),
                ("parted", c.parted),
            ],
        )
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
        let ingress = self
            .ports
            .get(usize::from(at.port))
            .map_or(Vlan::None, |p| p.vlan);
        let (vid, frame) = match (ingress, tag(&frame)) {
            (Vlan::None, _) => (0, frame),
            (Vlan::Access(vid), None) => (vid, frame),
            (Vlan::Trunk, Some(vid)) if VLAN_RANGE.contains(&vid) => (vid, untagged(frame)),
            _ => {
                self.counters.wrong_vlan += 1;
                return net.dropped(at, "switch-wrong-vlan", frame.len());
            }
        };
        // Bit 0 of the first byte: a group, never a sender.
        if src[0] & 1 == 0 {
            let room = self.table.len() < self.spec.table_len_max;
            match self.table.get_mut(&(vid, src)) {
                Some(port) => {
                    self.counters.moved += u64::from(*port != at.port);
                    *port = at.port;
                }
                None if room => {
                    self.counters.learnt += 1;
                    self.table.insert((vid, src), at.port);
                }
                None => self.counters.table_full += 1,
            }
        }
        let send_at = net.now + nanos(self.spec.delay);
        let known = if dst[0] & 1 == 0 {
            self.table.get(&(vid, dst)).copied()
        } else {
            None
        };
        match known {
            Some(port) if port == at.port => {
                self.counters.filtered += 1;
                net.dropped(at, "switch-filtered", frame.len());
            }
            Some(port) if self.parted.contains(&(at.port, port)) => {
                self.counters.parted += 1;
                net.dropped(at, "switch-parted", frame.len());
            }
            Some(port) => {
                self.counters.forwarded += 1;
                if let Some(&to) = self.ports.get(usize::from(port)) {
                    net.send(to.link, send_at, to.as_sent(vid, frame));
                }
            }
            None => {
                self.counters.flooded += 1;
                for port in crate::chance::flood_order(self.ports.len()) {
                    let (port, Some(&to)) = (port as u16, self.ports.get(port)) else {
                        continue;
                    };
                    if port == at.port || !to.is_in(vid) {
                        continue;
                    }
                    // Of a flooded frame nothing is lost that is counted: it has reached the others.
                    if !self.parted.contains(&(at.port, port)) {
                        net.send(to.link, send_at, to.as_sent(vid, frame.clone()));
                    }
                }
            }
        }
    }
}

impl Port {
    fn is_in(&self, vid: u16) -> bool {
        match self.vlan {
            Vlan::None => vid == 0,
            Vlan::Access(own) => vid == own,
            Vlan::Trunk => vid != 0,
        }
    }

    /// A frame of a VLAN as it is on the link.
    fn as_sent(&self, vid: u16, mut frame: Vec<u8>) -> Vec<u8> {
        if self.vlan == Vlan::Trunk && vid != 0 {
            let [high, low] = vid.to_be_bytes();
            frame.splice(12..12, [0x81, 0x00, high, low]);
        }
        frame
    }
}

/// The VLAN of a tagged frame.
fn tag(frame: &[u8]) -> Option<u16> {
    match frame.get(12..16)? {
        [0x81, 0x00, high, low] => Some(u16::from_be_bytes([*high, *low]) & 0x0fff),
        _ => None,
    }
}

fn untagged(mut frame: Vec<u8>) -> Vec<u8> {
    frame.drain(12..16);
    frame
}
