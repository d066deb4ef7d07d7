//! TCP and UDP in a frame, as far as a sequence of packets tells it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A TCP segment, or a UDP datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Packet {
    pub(super) to_mac: [u8; 6],
    pub(super) src: SocketAddr,
    pub(super) dst: SocketAddr,
    /// `None`: UDP.
    pub(super) tcp: Option<Tcp>,
    /// Bytes of payload.
    pub(super) len: u32,
    /// Where the payload begins in the frame.
    pub(super) payload_at: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tcp {
    pub(super) seq: u32,
    pub(super) ack: u32,
    pub(super) flags: u8,
}

pub(super) const FIN: u8 = 0x01;
pub(super) const SYN: u8 = 0x02;
pub(super) const RST: u8 = 0x04;
pub(super) const ACK: u8 = 0x10;

impl Tcp {
    /// Names of the flags, as Wireshark has them.
    pub(super) fn flags(self) -> String {
        let names = [
            (SYN, "SYN"),
            (FIN, "FIN"),
            (RST, "RST"),
            (0x08, "PSH"),
            (ACK, "ACK"),
            (0x20, "URG"),
        ];
        let set: Vec<_> = names
            .iter()
            .filter(|(bit, _)| self.flags & bit != 0)
            .map(|f| f.1)
            .collect();
        set.join(" ")
    }

    /// Sequence numbers that it takes.
    pub(super) fn takes(self, len: u32) -> u32 {
        len + u32::from(self.flags & SYN != 0) + u32::from(self.flags & FIN != 0)
    }
}

fn word(frame: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*frame.get(at..)?.first_chunk()?))
}

fn long(frame: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*frame.get(at..)?.first_chunk()?))
}

/// Reads a frame, tags of VLANs skipped; `None`: it is something else, a fragment or has extension headers.
pub(super) fn parse(frame: &[u8]) -> Option<Packet> {
    let mut at = 12;
    while matches!(word(frame, at)?, 0x8100 | 0x88a8) && at < 24 {
        at += 4;
    }
    let (kind, ip) = (word(frame, at)?, at + 2);
    let (src, dst, proto, l4, end): (IpAddr, IpAddr, u8, usize, usize) = match kind {
        0x0800 => {
            if word(frame, ip + 6)? & 0x3fff != 0 {
                return None;
            }
            let header = usize::from(frame.get(ip)? & 0xf) * 4;
            let src: [u8; 4] = *frame.get(ip + 12..)?.first_chunk()?;
            let dst: [u8; 4] = *frame.get(ip + 16..)?.first_chunk()?;
            let end = ip + usize::from(word(frame, ip + 2)?);
            (
                Ipv4Addr::from(src).into(),
                Ipv4Addr::from(dst).into(),
                *frame.get(ip + 9)?,
                ip + header,
                end,
            )
        }
        0x86dd => {
            let src: [u8; 16] = *frame.get(ip + 8..)?.first_chunk()?;
            let dst: [u8; 16] = *frame.get(ip + 24..)?.first_chunk()?;
            let end = ip + 40 + usize::from(word(frame, ip + 4)?);
            (
                Ipv6Addr::from(src).into(),
                Ipv6Addr::from(dst).into(),
                *frame.get(ip + 6)?,
                ip + 40,
                end,
            )
        }
        _ => return None,
    };
    let (tcp, payload_at) = match proto {
        6 => {
            let tcp = Tcp {
                seq: long(frame, l4 + 4)?,
                ack: long(frame, l4 + 8)?,
                flags: *frame.get(l4 + 13)?,
            };
            (Some(tcp), l4 + usize::from(frame.get(l4 + 12)? >> 4) * 4)
        }
        17 => (None, l4 + 8),
        _ => return None,
    };
    Some(Packet {
        to_mac: *frame.first_chunk()?,
        src: SocketAddr::new(src, word(frame, l4)?),
        dst: SocketAddr::new(dst, word(frame, l4 + 2)?),
        tcp,
        len: u32::try_from(end.min(frame.len()).checked_sub(payload_at)?).ok()?,
        payload_at,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Its frames are those of the engine and of the hosts; etherparse reads them too.
    #[test]
    fn it_reads_what_etherparse_reads() {
        let frames =
            crate::run::tests::frames_of(crate::run::tests::ONE_NODE, 1, std::time::Duration::from_secs(2));
        let mut read = 0;
        for frame in &frames {
            let sliced = etherparse::SlicedPacket::from_ethernet(frame).expect("whole");
            let Some(packet) = parse(frame) else {
                assert!(
                    sliced
                        .transport
                        .is_none_or(|t| !matches!(t, etherparse::TransportSlice::Tcp(_)))
                );
                continue;
            };
            let Some(etherparse::TransportSlice::Tcp(tcp)) = sliced.transport else {
                continue;
            };
            let (seen, fields) = (
                packet.tcp.expect("TCP"),
                (packet.src.port(), packet.dst.port(), packet.len),
            );
            assert_eq!(
                fields,
                (
                    tcp.source_port(),
                    tcp.destination_port(),
                    tcp.payload().len() as u32
                )
            );
            assert_eq!(
                (seen.seq, seen.ack),
                (tcp.sequence_number(), tcp.acknowledgment_number())
            );
            assert_eq!(
                (seen.flags & SYN != 0, seen.flags & FIN != 0),
                (tcp.syn(), tcp.fin())
            );
            assert!(!seen.flags().is_empty());
            read += 1;
            for end in 0..frame.len() {
                let _ = parse(&frame[..end]);
            }
        }
        assert!(read > 500, "{read} segments");
    }
}
