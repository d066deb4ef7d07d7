//! Checksums of frames, recomputed without the engine's code: plain sums over all bytes of every frame, and another
//! reader's opinion of some.

use std::collections::BTreeMap;
use std::time::Duration;

use evenkeel_io_sim::Owner;

use etherparse::{NetSlice, SlicedPacket, TransportSlice};

use super::Found;

/// Of so many frames one is read by etherparse, too.
const SAMPLE: u64 = 64;

/// `checksums`.
#[derive(Debug, Default)]
pub(crate) struct Checksums {
    pub(crate) found: Found,
    /// Frames with wrong sums that came to somebody, of links that flip bits, and that he has not sent on yet. Sums are
    /// changed by what is changed in a packet: what was wrong stays it, and is for the far end to find.
    passing: BTreeMap<Owner, u64>,
}

impl Checksums {
    /// A frame reaches somebody, on a link that may have flipped bits of it.
    pub(crate) fn received(&mut self, owner: Owner, data: &[u8]) {
        if wrong(data).or_else(|| sampled(data)).is_some() {
            *self.passing.entry(owner).or_default() += 1;
        }
    }

    /// A frame that leaves `place`, which is a port of `owner`.
    pub(crate) fn frame(&mut self, at: Duration, owner: Owner, place: &str, data: &[u8]) {
        self.found.looked += 1;
        let wrong = wrong(data).or_else(|| match self.found.looked % SAMPLE {
            1 => sampled(data),
            _ => None,
        });
        if let Some(wrong) = wrong {
            if let Some(passing) = self.passing.get_mut(&owner).filter(|n| **n > 0) {
                *passing -= 1;
                return;
            }
            self.found.add(at, || {
                format!("{place} sends a frame of {} bytes: {wrong}", data.len())
            });
        }
    }
}

fn be16(data: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*data.get(at..)?.first_chunk()?))
}

/// The ones' complement sum (RFC 1071) of 16-bit words, an odd byte padded: two words at a time, as its section 2 (C) says,
/// which is the same modulo 65,535.
fn sum(data: &[u8]) -> u64 {
    let (doubles, rest) = data.as_chunks::<4>();
    let sum: u64 = doubles.iter().map(|d| u64::from(u32::from_be_bytes(*d))).sum();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    sum + u64::from(u32::from_be_bytes(last))
}

fn folds_to_ones(mut sum: u64) -> bool {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum == 0xffff
}

/// What is wrong with a frame; `None` too for what has no checksum.
fn wrong(data: &[u8]) -> Option<String> {
    let ip = data.get(14..)?;
    match be16(data, 12)? {
        0x0800 => {
            let header_len = usize::from(ip.first()? & 0xf) * 4;
            let total = usize::from(be16(ip, 2)?);
            let (Some(header), Some(packet)) = (ip.get(..header_len), ip.get(..total)) else {
                return Some("its IPv4 lengths are beyond its end".into());
            };
            if !folds_to_ones(sum(header)) {
                return Some("wrong IPv4 header checksum".into());
            }
            if be16(ip, 6)? & 0x3fff != 0 {
                return None;
            }
            transport(*ip.get(9)?, ip.get(12..20)?, packet.get(header_len..)?, true)
        }
        0x86dd => {
            let len = usize::from(be16(ip, 4)?);
            let Some(payload) = ip.get(40..40 + len) else {
                return Some("its IPv6 length is beyond its end".into());
            };
            transport(*ip.get(6)?, ip.get(8..40)?, payload, false)
        }
        _ => None,
    }
}

fn transport(proto: u8, addresses: &[u8], segment: &[u8], v4: bool) -> Option<String> {
    let (name, pseudo) = match proto {
        6 => ("TCP", true),
        17 if v4 && be16(segment, 6) == Some(0) => return None,
        17 => ("UDP", true),
        1 if v4 => ("ICMP", false),
        58 if !v4 => ("ICMPv6", true),
        // VRRPv3 (RFC 9568, 5.2.8).
        112 => ("VRRP", true),
        _ => return None,
    };
    let mut all = sum(segment);
    if pseudo {
        all += sum(addresses) + u64::from(proto) + segment.len() as u64;
    }
    let right = folds_to_ones(all) || (proto == 112 && v4 && folds_to_ones(sum(segment)));
    (!right).then(|| format!("wrong {name} checksum"))
}

/// What etherparse says is wrong.
fn sampled(data: &[u8]) -> Option<String> {
    let packet = match SlicedPacket::from_ethernet(data) {
        Ok(packet) => packet,
        Err(error) => return Some(format!("etherparse cannot read it: {error}")),
    };
    let transport = packet.transport.as_ref()?;
    let (said, computed) = match (&packet.net, transport) {
        (Some(NetSlice::Ipv4(ip)), TransportSlice::Tcp(tcp)) => {
            let header = ip.header();
            let computed =
                tcp.to_header()
                    .calc_checksum_ipv4_raw(header.source(), header.destination(), tcp.payload());
            (tcp.checksum(), computed.ok()?)
        }
        (Some(NetSlice::Ipv6(ip)), TransportSlice::Tcp(tcp)) => {
            let header = ip.header();
            let computed =
                tcp.to_header()
                    .calc_checksum_ipv6_raw(header.source(), header.destination(), tcp.payload());
            (tcp.checksum(), computed.ok()?)
        }
        _ => return None,
    };
    (said != computed).then(|| format!("TCP checksum {said:04x}, and etherparse computes {computed:04x}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::PacketBuilder;

    const NODE: Owner = Owner::Lb(evenkeel_io_sim::LbId(0));

    fn frames() -> Vec<Vec<u8>> {
        let eth = || PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let v6 = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
        let mut frames = vec![Vec::new(); 4];
        let payload = b"odd";
        eth()
            .ipv4([192, 0, 2, 1], [192, 0, 2, 2], 64)
            .tcp(1, 2, 3, 4)
            .write(&mut frames[0], payload)
            .expect("v4 tcp");
        eth()
            .ipv6(v6, v6, 64)
            .tcp(1, 2, 3, 4)
            .write(&mut frames[1], payload)
            .expect("v6 tcp");
        eth()
            .ipv4([192, 0, 2, 1], [192, 0, 2, 2], 64)
            .udp(1, 2)
            .write(&mut frames[2], payload)
            .expect("v4 udp");
        eth()
            .ipv6(v6, v6, 64)
            .udp(1, 2)
            .write(&mut frames[3], payload)
            .expect("v6 udp");
        frames
    }

    #[test]
    fn oracle_checksums_fires_on_every_flipped_bit() {
        for frame in frames() {
            let mut oracle = Checksums::default();
            oracle.frame(Duration::ZERO, NODE, "node 1", &frame);
            assert_eq!(oracle.found.first, None, "etherparse and we agree");
            assert_eq!(sampled(&frame), None);
            let mut fired = 0;
            let v6 = frame[12] == 0x86;
            for byte in 14..frame.len() {
                // The first 4 bytes and the hop limit of IPv6 are under no checksum, nor is what tells the protocol.
                if (v6 && (byte < 18 || byte == 20 || byte == 21)) || (!v6 && byte == 14) {
                    continue;
                }
                let mut doctored = frame.clone();
                doctored[byte] ^= 1;
                fired += u32::from(wrong(&doctored).is_some());
            }
            assert!(
                fired as usize >= frame.len() - 14 - 10,
                "{fired} of {}",
                frame.len()
            );
        }
    }

    #[test]
    fn oracle_checksums_spares_what_came_wrong_and_nothing_more() {
        let mut frame = frames().remove(0);
        *frame.last_mut().expect("a byte") ^= 1;
        let mut oracle = Checksums::default();
        oracle.received(NODE, &frame);
        for found in [0, 1, 2] {
            oracle.frame(Duration::ZERO, NODE, "node 1", &frame);
            assert_eq!(oracle.found.count, found);
        }
        oracle.received(NODE, &frames()[0]);
        oracle.frame(Duration::ZERO, NODE, "node 1", &frame);
        assert_eq!(oracle.found.count, 3, "a right one excuses nothing");
    }

    #[test]
    fn what_is_cut_or_foreign_is_no_panic() {
        for frame in frames() {
            for len in 0..frame.len() {
                let _ = wrong(&frame[..len]);
                let _ = sampled(&frame[..len]);
            }
        }
    }
}
