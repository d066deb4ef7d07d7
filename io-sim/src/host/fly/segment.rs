//! Segments: parsed where they lie, written with their packet around them.

use std::net::{IpAddr, SocketAddr};

use crate::host::wire::{self, be16};

pub(super) const FIN: u8 = 1;
pub(super) const SYN: u8 = 1 << 1;
pub(super) const RST: u8 = 1 << 2;
pub(super) const PSH: u8 = 1 << 3;
pub(super) const ACK: u8 = 1 << 4;

/// Bytes of a header without options.
const HEADER_LEN: usize = 20;
/// What a peer takes that does not say it (RFC 9293 section 3.7.1), per family.
const MSS_DEFAULT: [u16; 2] = [536, 1_220];

/// A segment that came. Its checksum was right.
#[derive(Clone, Copy, Debug)]
pub(in crate::host) struct Segment<'a> {
    pub(super) seq: u32,
    pub(super) ack: u32,
    pub(super) flags: u8,
    pub(super) window: u16,
    /// The option (RFC 9293 section 3.7.1).
    pub(super) mss: Option<u16>,
    pub(super) data: &'a [u8],
}

impl<'a> Segment<'a> {
    pub(in crate::host) fn parse(tcp: &'a [u8]) -> Option<Self> {
        let word = |at: usize| Some(u32::from_be_bytes(*tcp.get(at..)?.first_chunk()?));
        let header_len = usize::from(*tcp.get(12)? >> 4) * 4;
        let mut options = tcp.get(HEADER_LEN..header_len)?;
        let mut mss = None;
        while let Some(&kind) = options.first() {
            let len = match kind {
                0 => break,
                1 => 1,
                _ => usize::from(*options.get(1)?).max(2),
            };
            if kind == 2 && len == 4 {
                mss = be16(options, 2);
            }
            options = options.get(len..)?;
        }
        Some(Segment {
            seq: word(4)?,
            ack: word(8)?,
            flags: *tcp.get(13)?,
            window: be16(tcp, 14)?,
            mss,
            data: tcp.get(header_len..)?,
        })
    }

    pub(super) const fn has(&self, flags: u8) -> bool {
        self.flags & flags != 0
    }

    /// A SYN that opens, not one that answers.
    pub(in crate::host) const fn opens(&self) -> bool {
        self.flags & (SYN | ACK | RST | FIN) == SYN
    }

    /// What it takes of the sequence space.
    pub(super) fn len(&self) -> u32 {
        self.data.len() as u32 + u32::from(self.has(SYN)) + u32::from(self.has(FIN))
    }
}

/// A segment to send.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    pub(super) seq: u32,
    pub(super) ack: u32,
    pub(super) flags: u8,
    pub(super) window: u16,
    /// Of a SYN: what this end takes.
    pub(super) mss: Option<u16>,
}

impl Header {
    /// A frame, its Ethernet header left open. `say` appends `len` bytes, the payload.
    pub(super) fn frame(
        &self,
        from: SocketAddr,
        to: SocketAddr,
        len: usize,
        say: impl FnOnce(&mut Vec<u8>),
    ) -> Vec<u8> {
        let header_len = HEADER_LEN + if self.mss.is_some() { 4 } else { 0 };
        wire::ip_frame_with(from.ip(), to.ip(), wire::TCP, 64, header_len + len, |frame| {
            let at = frame.len();
            frame.extend(from.port().to_be_bytes());
            frame.extend(to.port().to_be_bytes());
            frame.extend(self.seq.to_be_bytes());
            frame.extend(self.ack.to_be_bytes());
            frame.extend([(header_len as u8 / 4) << 4, self.flags]);
            frame.extend(self.window.to_be_bytes());
            frame.extend([0; 4]);
            if let Some(mss) = self.mss {
                frame.extend([2, 4]);
                frame.extend(mss.to_be_bytes());
            }
            say(frame);
            let check = wire::checksum(from.ip(), to.ip(), wire::TCP, &frame[at..]);
            frame[at + 16..at + 18].copy_from_slice(&check.to_be_bytes());
        })
    }
}

/// What a packet of `mtu` bytes holds.
pub(super) fn own_mss(addr: IpAddr, mtu: u16) -> u16 {
    mtu.saturating_sub(if addr.is_ipv4() { 40 } else { 60 })
}

/// What both ends take.
pub(super) fn common_mss(addr: IpAddr, mtu: u16, peer: Option<u16>) -> u16 {
    let peer = peer.unwrap_or(MSS_DEFAULT[usize::from(addr.is_ipv6())]);
    // No less than the head of a stream: see `talk`.
    peer.min(own_mss(addr, mtu)).max(28)
}

/// What answers a segment for which there is no connection (RFC 9293 section 3.10.7.1).
pub(in crate::host) fn refuse(
    segment: &Segment<'_>,
    local: SocketAddr,
    remote: SocketAddr,
) -> Option<Vec<u8>> {
    if segment.has(RST) {
        return None;
    }
    let header = if segment.has(ACK) {
        Header {
            seq: segment.ack,
            ack: 0,
            flags: RST,
            window: 0,
            mss: None,
        }
    } else {
        Header {
            seq: 0,
            ack: segment.seq.wrapping_add(segment.len()),
            flags: RST | ACK,
            window: 0,
            mss: None,
        }
    };
    Some(header.frame(local, remote, 0, |_| {}))
}

/// What an end has said last of where it stands.
#[derive(Clone, Copy, Debug)]
pub(in crate::host) struct Said {
    /// Behind the last byte that it has sent.
    next: u32,
    ack: u32,
    window: u16,
}

/// What an end has said once it has sent a frame, its Ethernet header left open, without options of IP.
pub(in crate::host) fn said(frame: &[u8], before: Option<Said>) -> Option<Said> {
    let packet = frame.get(wire::ETHERNET_LEN..)?;
    let header_len = if packet.first()? >> 4 == 4 { 20 } else { 40 };
    let segment = Segment::parse(packet.get(header_len..)?)?;
    if segment.has(RST) {
        return before;
    }
    let end = segment.seq.wrapping_add(segment.len());
    // What is sent again ends before what was sent.
    let next = before.map_or(end, |said| match end.wrapping_sub(said.next) as i32 {
        1.. => end,
        _ => said.next,
    });
    Some(Said {
        next,
        ack: segment.ack,
        window: segment.window,
    })
}

/// An acknowledgement that says where an end stands (RFC 5961 section 4.2).
pub(in crate::host) fn challenge(said: Said, local: SocketAddr, remote: SocketAddr) -> Vec<u8> {
    let header = Header {
        seq: said.next,
        ack: said.ack,
        flags: ACK,
        window: said.window,
        mss: None,
    };
    header.frame(local, remote, 0, |_| {})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::wire::{ETHERNET_LEN, IPV4, IPV6, Packet};

    #[test]
    fn what_is_written_is_read() {
        for (from, to) in [
            ("10.0.0.1:5", "10.0.0.2:7"),
            ("[2001:db8::1]:5", "[2001:db8::2]:7"),
        ] {
            let (from, to): (SocketAddr, SocketAddr) = (from.parse().expect("ok"), to.parse().expect("ok"));
            for (mss, len) in [
                (None, 0),
                (Some(1_460), 0),
                (None, 1),
                (None, 1_001),
                (Some(536), 7),
            ] {
                let header = Header {
                    seq: 0xffff_fff0,
                    ack: 0x8000_0001,
                    flags: PSH | ACK,
                    window: 65_535,
                    mss,
                };
                let frame = header.frame(from, to, len, |frame| frame.extend(vec![0x5a; len]));
                let kind = if from.is_ipv4() { IPV4 } else { IPV6 };
                let packet = Packet::parse(kind, &frame[ETHERNET_LEN..]).expect("checksums are right");
                assert_eq!((packet.ends(), packet.proto), (Some((from, to)), wire::TCP));
                assert_eq!(ETHERNET_LEN + packet.len, frame.len());
                let segment = Segment::parse(packet.payload).expect("whole");
                assert_eq!((segment.seq, segment.ack), (header.seq, header.ack));
                assert_eq!(
                    (segment.flags, segment.window, segment.mss),
                    (PSH | ACK, 65_535, mss)
                );
                assert_eq!(segment.data, vec![0x5a; len]);
                // Whatever is cut off is refused, or shortens the data.
                for cut in 0..packet.payload.len() {
                    let parsed = Segment::parse(&packet.payload[..cut]);
                    assert!(parsed.is_none_or(|s| s.data.len() < len));
                }
            }
        }
    }

    #[test]
    fn options_that_lie_end_nowhere() {
        for options in [
            [2u8, 0, 0, 0],
            [2, 9, 0, 0],
            [1, 1, 1, 2],
            [77, 1, 0, 0],
            [0, 2, 4, 9],
        ] {
            let mut tcp = [0u8; 24];
            tcp[12] = 6 << 4;
            tcp[20..].copy_from_slice(&options);
            assert!(Segment::parse(&tcp).is_none_or(|s| s.mss.is_none()));
        }
    }
}
