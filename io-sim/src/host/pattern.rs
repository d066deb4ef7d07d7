//! The bytes of flows: a function of the flow, the direction and the position, so that each byte can be verified.

/// Begins what a client says.
pub(super) const CLIENT_MAGIC: u64 = 0x6576_656e_6b65_656c;
/// Begins what a server says.
pub(super) const SERVER_MAGIC: u64 = 0x6e61_7665_6a65_6c31;

/// Which way bytes run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    ToServer = 0,
    ToClient = 1,
}

/// The bytes of one direction of a flow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pattern(u64);

impl Pattern {
    pub(super) fn new(seed: u64, flow: u32, way: Way) -> Self {
        Pattern(mix(seed ^ mix(u64::from(flow) << 1 | way as u64)))
    }

    /// Eight bytes from a position that is a multiple of eight.
    fn word(self, at: u64) -> [u8; 8] {
        mix(self.0.wrapping_add((at >> 3).wrapping_mul(0x9e37_79b9_7f4a_7c15))).to_le_bytes()
    }

    fn byte(self, at: u64) -> u8 {
        self.word(at)[(at & 7) as usize]
    }

    /// Appends the bytes from `at` on.
    pub(super) fn fill(self, mut at: u64, len: usize, out: &mut Vec<u8>) {
        let end = at + len as u64;
        while at < end {
            if at & 7 == 0 && at + 8 <= end {
                out.extend(self.word(at));
                at += 8;
            } else {
                out.push(self.byte(at));
                at += 1;
            }
        }
    }

    /// Whether `data` is what stands at `at`.
    pub(super) fn is(self, mut at: u64, mut data: &[u8]) -> bool {
        while let Some(&first) = data.first() {
            match data.first_chunk::<8>() {
                Some(chunk) if at & 7 == 0 => {
                    if *chunk != self.word(at) {
                        return false;
                    }
                    at += 8;
                    data = &data[8..];
                }
                _ => {
                    if first != self.byte(at) {
                        return false;
                    }
                    at += 1;
                    data = &data[1..];
                }
            }
        }
        true
    }
}

/// The finaliser of splitmix64 (Steele, Lea, Flood 2014).
fn mix(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_counts() {
        let pattern = Pattern::new(1, 2, Way::ToServer);
        let mut all = Vec::new();
        pattern.fill(0, 100, &mut all);
        for at in 0..100 {
            for len in 0..=100 - at {
                let mut some = Vec::new();
                pattern.fill(at as u64, len, &mut some);
                assert_eq!(some, all[at..at + len]);
                assert!(pattern.is(at as u64, &some));
                if let Some(last) = some.last_mut() {
                    *last ^= 1;
                    assert!(!pattern.is(at as u64, &some));
                }
            }
        }
        let mut other = Vec::new();
        Pattern::new(1, 2, Way::ToClient).fill(0, 100, &mut other);
        assert_ne!(all, other);
    }
}
