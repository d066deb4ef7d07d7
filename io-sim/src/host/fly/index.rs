//! From a connection's ends to its place.

use super::flow::Flow;

/// The place of nothing.
const EMPTY: u32 = u32::MAX;
/// Slots of the smallest table.
const LEN_MIN: usize = 16;

/// What a flow is found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ends {
    pub(super) remote: [u8; 16],
    pub(super) local: u8,
    pub(super) local_port: u16,
    pub(super) remote_port: u16,
}

impl Ends {
    pub(super) const fn of(flow: &Flow) -> Self {
        Ends {
            remote: flow.remote,
            local: flow.local,
            local_port: flow.local_port,
            remote_port: flow.remote_port,
        }
    }

    /// Mixed as in splitmix64 (Steele, Lea, Flood 2014).
    fn hash(&self) -> u64 {
        let bits = u128::from_le_bytes(self.remote);
        let ports =
            u64::from(self.local_port) << 16 | u64::from(self.remote_port) | u64::from(self.local) << 32;
        let z =
            (bits as u64) ^ ((bits >> 64) as u64).rotate_left(29) ^ ports.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Places by ends: linear probing, at most half full; what is taken out leaves no trace (Knuth, volume 3, section 6.4,
/// algorithm R). Nothing ever walks through it.
#[derive(Debug, Default)]
pub(super) struct Index {
    slots: Vec<u32>,
    len: usize,
}

impl Index {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    fn home(&self, ends: &Ends) -> usize {
        ends.hash() as usize & (self.slots.len() - 1)
    }

    /// The slot of these ends, or the empty one where the search for them stops.
    fn slot(&self, ends: &Ends, flows: &[Flow]) -> usize {
        let mut at = self.home(ends);
        while let Some(flow) = flows.get(self.slots[at] as usize) {
            if Ends::of(flow) == *ends {
                break;
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
        at
    }

    pub(super) fn find(&self, ends: &Ends, flows: &[Flow]) -> Option<u32> {
        if self.len == 0 {
            return None;
        }
        Some(self.slots[self.slot(ends, flows)]).filter(|&place| place != EMPTY)
    }

    /// Adds the flow at `place`, whose ends are not there.
    pub(super) fn insert(&mut self, place: u32, flows: &[Flow]) {
        if self.slots.len() < LEN_MIN.max(2 * (self.len + 1)) {
            let len = LEN_MIN.max(2 * self.slots.len());
            let old = std::mem::replace(&mut self.slots, vec![EMPTY; len]);
            for place in old.into_iter().filter(|&place| place != EMPTY) {
                self.put(place, flows);
            }
        }
        self.put(place, flows);
        self.len += 1;
    }

    fn put(&mut self, place: u32, flows: &[Flow]) {
        if let Some(flow) = flows.get(place as usize) {
            let slot = self.slot(&Ends::of(flow), flows);
            self.slots[slot] = place;
        }
    }

    /// Takes out the flow with these ends.
    pub(super) fn remove(&mut self, ends: &Ends, flows: &[Flow]) {
        if self.find(ends, flows).is_none() {
            return;
        }
        let mask = self.slots.len() - 1;
        let mut hole = self.slot(ends, flows);
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let Some(flow) = flows.get(self.slots[at] as usize) else {
                break;
            };
            // It may move back into the hole unless its home lies behind that.
            let home = self.home(&Ends::of(flow));
            if (at.wrapping_sub(home) & mask) >= (at.wrapping_sub(hole) & mask) {
                self.slots[hole] = self.slots[at];
                hole = at;
            }
        }
        self.slots[hole] = EMPTY;
        self.len -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::SocketAddr;

    use super::super::flow::State;
    use super::*;
    use crate::random::{Purpose, Streams};

    #[test]
    fn it_finds_what_a_map_finds() {
        let streams = Streams::new(9);
        let mut flows: Vec<Flow> = Vec::new();
        let mut index = Index::default();
        let mut map: BTreeMap<(u16, u8), u32> = BTreeMap::new();
        let mut most = 0;
        for n in 0..20_000 {
            let draw = streams.draw(1, Purpose::Scenario, n);
            // Few ends, so that they meet; a stretch of growing, then one of shrinking, and so on.
            let key = ((draw % 700) as u16, (draw >> 32) as u8 % 3);
            let remote = SocketAddr::new([10, 0, 0, key.1].into(), 80);
            let flow = Flow::new(State::Closed, 0, key.0, remote, 0, 0);
            let grows = (n / 2_000) % 2 == 0;
            match map.get(&key) {
                Some(&place) => {
                    assert_eq!(index.find(&Ends::of(&flow), &flows), Some(place));
                    if !grows || draw >> 60 == 0 {
                        index.remove(&Ends::of(&flow), &flows);
                        map.remove(&key);
                    }
                }
                None => {
                    assert_eq!(index.find(&Ends::of(&flow), &flows), None);
                    index.remove(&Ends::of(&flow), &flows);
                    if grows {
                        flows.push(flow);
                        index.insert(flows.len() as u32 - 1, &flows);
                        map.insert(key, flows.len() as u32 - 1);
                    }
                }
            }
            assert_eq!(index.len(), map.len());
            most = most.max(map.len());
        }
        assert!(most > 500, "{most}");
        for ((port, host), &place) in &map {
            let remote = SocketAddr::new([10, 0, 0, *host].into(), 80);
            let flow = Flow::new(State::Closed, 0, *port, remote, 0, 0);
            assert_eq!(index.find(&Ends::of(&flow), &flows), Some(place));
        }
    }
}
