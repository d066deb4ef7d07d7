//! Receive-side scaling: what a NIC is told, and when its hash is believed.
//!
//! The canonical bucket of a packet is the software's Toeplitz over its four-tuple. A NIC that was given the
//! cluster's key should report just that, but NICs hash UDP by addresses only, keep a key of their own, or hash
//! what is in a tunnel: so that each type of packets is believed after comparison only.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use evenkeel_core::hash::{RSS_KEY_LEN_MIN, Toeplitz};
use evenkeel_core::worker::BucketMap;

/// Hashes in a row that must agree with the software's before a type's are believed.
pub const AGREEMENTS_NEEDED: u32 = 64;
/// While all types are decided, one burst in so many is looked at again.
const SAMPLE_EVERY: u32 = 64;

/// Types of packets that NICs tell apart, and of which the whole four-tuple can be hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PacketType {
    /// TCP over IPv4.
    Tcp4,
    /// UDP over IPv4.
    Udp4,
    /// TCP over IPv6.
    Tcp6,
    /// UDP over IPv6.
    Udp6,
}

impl PacketType {
    /// Every type.
    pub const ALL: [PacketType; 4] = [
        PacketType::Tcp4,
        PacketType::Udp4,
        PacketType::Tcp6,
        PacketType::Udp6,
    ];

    /// The type of a frame; `None` for what NICs do not agree upon: tags, IPv4 options, fragments, IPv6
    /// extension headers.
    pub fn of(frame: &[u8]) -> Option<PacketType> {
        const IPV4: [u8; 2] = [8, 0];
        const IPV6: [u8; 2] = [0x86, 0xdd];
        let ethertype: [u8; 2] = frame.get(12..14)?.try_into().ok()?;
        match ethertype {
            // A fragment has an offset or says that more follow; nothing else counts.
            IPV4 => {
                let ip = frame.get(14..14 + 24)?;
                let whole = ip[0] == 0x45 && ip[6] & 0x3f == 0 && ip[7] == 0;
                match ip[9] {
                    6 if whole => Some(PacketType::Tcp4),
                    17 if whole => Some(PacketType::Udp4),
                    _ => None,
                }
            }
            IPV6 => {
                let ip = frame.get(14..14 + 44)?;
                match ip[6] {
                    6 if ip[0] >> 4 == 6 => Some(PacketType::Tcp6),
                    17 if ip[0] >> 4 == 6 => Some(PacketType::Udp6),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// Its bit in [`RssTrust::trusted`].
    pub fn bit(self) -> u32 {
        1 << self as u32
    }
}

/// What the software makes of a frame of this type.
fn software_hash(toeplitz: &Toeplitz, kind: PacketType, frame: &[u8]) -> Option<u32> {
    let port = |at: usize| Some(u16::from_be_bytes(frame.get(at..at + 2)?.try_into().ok()?));
    let addr = |v6: bool, at: usize| -> Option<IpAddr> {
        Some(if v6 {
            Ipv6Addr::from(<[u8; 16]>::try_from(frame.get(at..at + 16)?).ok()?).into()
        } else {
            Ipv4Addr::from(<[u8; 4]>::try_from(frame.get(at..at + 4)?).ok()?).into()
        })
    };
    let v6 = matches!(kind, PacketType::Tcp6 | PacketType::Udp6);
    let (src, dst, ports) = if v6 { (22, 38, 54) } else { (26, 30, 34) };
    let src = SocketAddr::new(addr(v6, src)?, port(ports)?);
    let dst = SocketAddr::new(addr(v6, dst)?, port(ports + 2)?);
    Some(toeplitz.hash(src, dst))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Belief {
    /// So many have agreed.
    Learning(u32),
    Trusted,
    /// For good.
    Distrusted,
}

/// Which types of packets a device's hash is believed for, as one worker found out.
#[derive(Clone, Debug)]
pub struct RssTrust {
    beliefs: [Belief; 4],
    bursts: u32,
    agreed: u64,
    disagreed: u64,
}

impl Default for RssTrust {
    fn default() -> Self {
        RssTrust {
            beliefs: [Belief::Learning(0); 4],
            bursts: 0,
            agreed: 0,
            disagreed: 0,
        }
    }
}

impl RssTrust {
    /// Whether a frame of this burst should be compared: of all bursts while there is something to learn, of one
    /// in 64 later.
    pub fn wants_sample(&mut self) -> bool {
        self.bursts = self.bursts.wrapping_add(1);
        self.bursts.is_multiple_of(SAMPLE_EVERY)
            || self.beliefs.iter().any(|b| matches!(b, Belief::Learning(_)))
    }

    /// Compares the hash that a NIC reported for a frame with the software's.
    pub fn compare(&mut self, toeplitz: &Toeplitz, frame: &[u8], reported: u32) {
        let Some(kind) = PacketType::of(frame) else { return };
        let Some(expected) = software_hash(toeplitz, kind, frame) else {
            return;
        };
        let belief = &mut self.beliefs[kind as usize];
        if reported != expected {
            self.disagreed += 1;
            *belief = Belief::Distrusted;
            return;
        }
        self.agreed += 1;
        *belief = match *belief {
            Belief::Learning(n) if n + 1 >= AGREEMENTS_NEEDED => Belief::Trusted,
            Belief::Learning(n) => Belief::Learning(n + 1),
            decided => decided,
        };
    }

    /// The types that are believed, as [`PacketType::bit`]s.
    pub fn trusted(&self) -> u32 {
        let is_trusted = |kind: &PacketType| self.beliefs[*kind as usize] == Belief::Trusted;
        PacketType::ALL
            .into_iter()
            .filter(is_trusted)
            .fold(0, |bits, kind| bits | kind.bit())
    }

    /// Hashes that agreed, so far.
    pub fn agreed(&self) -> u64 {
        self.agreed
    }

    /// Hashes that did not, so far.
    pub fn disagreed(&self) -> u64 {
        self.disagreed
    }
}

/// The key as a device wants it, which takes `len` bytes (0: any): what is behind the 40 bytes that a tuple
/// reaches has no influence. `None`: the device takes too short ones.
pub(crate) fn key_of_len(key: &[u8], len: u8) -> Option<Vec<u8>> {
    let len = usize::from(len);
    if len == 0 {
        return (key.len() <= usize::from(u8::MAX)).then(|| key.to_vec());
    }
    if len < RSS_KEY_LEN_MIN {
        return None;
    }
    let mut key = key.to_vec();
    key.resize(len, 0);
    Some(key)
}

/// The queues of a table of `size` entries: bucket by bucket, again and again, each to the queue of its worker.
/// Workers beyond the queues share them, and are handed what is theirs.
pub(crate) fn reta(map: &BucketMap, buckets: u16, size: u16, queues: u16) -> Vec<u16> {
    let (buckets, queues) = (buckets.max(1), queues.max(1));
    (0..size)
        .map(|entry| u16::from(map.worker(entry % buckets).0) % queues)
        .collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::LazyLock;

    use etherparse::PacketBuilder;
    use evenkeel_core::hash::MICROSOFT_KEY;
    use evenkeel_core::lport::Steering;

    use super::*;

    pub(crate) fn toeplitz() -> &'static Toeplitz {
        static MADE: LazyLock<Toeplitz> = LazyLock::new(|| Toeplitz::new(&MICROSOFT_KEY).expect("40 bytes"));
        &MADE
    }

    pub(crate) fn frame(kind: PacketType, port: u16) -> Vec<u8> {
        let mut frame = Vec::new();
        let l2 = PacketBuilder::ethernet2([2; 6], [4; 6]);
        let v6 = [0x20; 16];
        match kind {
            PacketType::Tcp4 => l2
                .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
                .tcp(port, 80, 1, 1)
                .write(&mut frame, &[]),
            PacketType::Udp4 => l2
                .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
                .udp(port, 53)
                .write(&mut frame, &[]),
            PacketType::Tcp6 => l2.ipv6(v6, v6, 64).tcp(port, 80, 1, 1).write(&mut frame, &[]),
            PacketType::Udp6 => l2.ipv6(v6, v6, 64).udp(port, 53).write(&mut frame, &[]),
        }
        .expect("to memory");
        frame
    }

    /// The hash, from the addresses and ports that the frames above were made with.
    pub(crate) fn hash(kind: PacketType, port: u16) -> u32 {
        let ends = |a: &str, b: &str| {
            let end = |text: &str| text.parse().expect("an endpoint");
            toeplitz().hash(end(a), end(b))
        };
        let v6 = Ipv6Addr::from([0x20; 16]);
        match kind {
            PacketType::Tcp4 => ends(&format!("10.0.0.1:{port}"), "10.0.0.2:80"),
            PacketType::Udp4 => ends(&format!("10.0.0.1:{port}"), "10.0.0.2:53"),
            PacketType::Tcp6 => ends(&format!("[{v6}]:{port}"), &format!("[{v6}]:80")),
            PacketType::Udp6 => ends(&format!("[{v6}]:{port}"), &format!("[{v6}]:53")),
        }
    }

    #[test]
    fn a_type_is_believed_after_its_hash_agreed_often_enough() {
        for kind in PacketType::ALL {
            let mut trust = RssTrust::default();
            for n in 0..AGREEMENTS_NEEDED {
                assert_eq!(trust.trusted(), 0, "after {n}");
                let port = 1000 + n as u16;
                trust.compare(toeplitz(), &frame(kind, port), hash(kind, port));
            }
            assert_eq!(trust.trusted(), kind.bit(), "{kind:?} alone");
            assert_eq!((trust.agreed(), trust.disagreed()), (64, 0));
        }
    }

    #[test]
    fn one_doctored_hash_is_one_too_many_for_good() {
        let mut trust = RssTrust::default();
        let agree = |trust: &mut RssTrust, kind| {
            (0..2 * AGREEMENTS_NEEDED)
                .for_each(|_| trust.compare(toeplitz(), &frame(kind, 7), hash(kind, 7)));
        };
        // While it is learned.
        trust.compare(
            toeplitz(),
            &frame(PacketType::Udp4, 7),
            hash(PacketType::Udp4, 7) ^ 1,
        );
        agree(&mut trust, PacketType::Udp4);
        assert_eq!(trust.trusted(), 0);
        // Once it is believed.
        agree(&mut trust, PacketType::Tcp4);
        assert_eq!(trust.trusted(), PacketType::Tcp4.bit());
        trust.compare(toeplitz(), &frame(PacketType::Tcp4, 7), hash(PacketType::Tcp4, 8));
        agree(&mut trust, PacketType::Tcp4);
        assert_eq!(trust.trusted(), 0);
        assert_eq!((trust.agreed(), trust.disagreed()), (6 * 64, 2));
    }

    #[test]
    fn what_nics_do_not_agree_upon_is_not_learned_from() {
        let mut trust = RssTrust::default();
        let whole = frame(PacketType::Udp4, 9);
        let mut tagged = whole.clone();
        tagged.splice(12..12, [0x81, 0, 0, 42]);
        let [mut fragment, mut last, mut options] = [whole.clone(), whole.clone(), whole.clone()];
        fragment[20] = 0x20;
        last[21] = 1;
        options[14] = 0x46;
        let mut dont_fragment = whole.clone();
        dont_fragment[20] = 0x40;
        let mut extension = frame(PacketType::Udp6, 9);
        extension[20] = 60;
        for other in [
            tagged,
            fragment,
            last,
            options,
            extension,
            whole[..37].to_vec(),
            vec![],
        ] {
            assert_eq!(PacketType::of(&other), None);
            trust.compare(toeplitz(), &other, 0);
        }
        assert_eq!((trust.agreed(), trust.disagreed()), (0, 0));
        assert_eq!(PacketType::of(&dont_fragment), Some(PacketType::Udp4));
    }

    #[test]
    fn bursts_are_sampled_less_often_once_all_is_decided() {
        let mut trust = RssTrust::default();
        assert!((0..100).all(|_| trust.wants_sample()));
        for kind in PacketType::ALL {
            trust.compare(toeplitz(), &frame(kind, 7), hash(kind, 7) ^ 1);
        }
        let sampled = (0..640).filter(|_| trust.wants_sample()).count();
        assert_eq!(sampled, 10);
    }

    #[test]
    fn the_key_of_a_device_hashes_as_the_clusters() {
        let ends = ("[2001:db8::1]:4711", "[2001:db8:ffff::2]:443");
        let ends = (ends.0.parse().expect("end"), ends.1.parse().expect("end"));
        let long: Vec<u8> = MICROSOFT_KEY.iter().copied().chain([0x5a; 12]).collect();
        for key in [&MICROSOFT_KEY[..], &long] {
            let want = Toeplitz::new(key).expect("a key").hash(ends.0, ends.1);
            for len in [0, 40, 52, 128] {
                let made = key_of_len(key, len).expect("long enough");
                assert!(len == 0 || made.len() == usize::from(len));
                let hash = Toeplitz::new(&made).expect("a key").hash(ends.0, ends.1);
                assert_eq!(hash, want, "{} bytes of {}", len, key.len());
            }
            assert_eq!(key_of_len(key, 39), None);
        }
    }

    #[test]
    fn the_table_repeats_the_buckets_and_brings_each_to_its_worker() {
        for (buckets, size, workers, queues) in
            [(64, 128, 4, 4), (64, 64, 3, 3), (128, 512, 2, 2), (64, 128, 4, 1)]
        {
            let map = BucketMap::dealt(workers);
            let steering = Steering::new(&MICROSOFT_KEY, buckets).expect("full rank");
            let table = reta(&map, buckets, size, queues);
            assert_eq!(table.len(), usize::from(size));
            for hash in (0..10_000u32).map(|n| n.wrapping_mul(0x9e37_79b9)) {
                let worker = map.worker(steering.bucket(hash)).0;
                // NICs take the low bits of the hash.
                let queue = table[hash as usize % table.len()];
                assert_eq!(queue, u16::from(worker) % queues);
            }
        }
    }
}
