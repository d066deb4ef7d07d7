//! The floor: what any implementation of the same table sizes must do to the same packets in the same
//! order, and nothing else. No code is shared with the engine.
//!
//! * Memory: the line of an index of 8-byte entries, 8 to a bucket, filled to the engine's load; then the
//!   line of the conn (two for IPv6, whose addresses alone fill one). Bursts of 32 in three stages: ask for
//!   all index lines; read them and ask for all conn lines; read those and rewrite.
//! * Work: link-layer addresses, network addresses, ports, time to live, both checksums by RFC 1624.
//!
//! Lines are asked for by PREFETCHT1, which is what costs least here ([`Ask`]).
//!
//! It is told the place in the index instead of hashing, checks nothing, keeps no state, and knows at
//! compile time where in the frame things are.

use bytemuck::{AnyBitPattern, NoUninit, Pod, Zeroable};
use evenkeel_node::memory::{MapError, MappedMemory, Pages};

use crate::flows::{Addr, Kind, Packet, SERVERS, flow};
use crate::frame::{BenchFrame, DATA_AT};
use crate::world::{GATEWAY_MAC, PORT_MAC, server_mac};

/// Frames of a burst.
pub const BURST: usize = 32;
const LINE: usize = 64;
/// Entries of the index for 27 conns of 32: denser than the engine's, in favour of the floor.
const LOAD: (usize, usize) = (27, 32);

/// How lines are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// PREFETCHT1: into the second-level cache. Nothing is lost when all of the first level's fill buffers are
    /// busy. The floor asks so.
    T1,
    /// PREFETCHT0: into the first level. What finds no fill buffer is dropped, and costs its full latency later.
    T0,
}

/// Asks for the line at `value`.
#[inline(always)]
pub fn ask<T>(value: &T, how: Ask) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch has no architectural effect and faults at no address; SSE is part of x86_64.
    unsafe {
        use core::arch::x86_64::{_MM_HINT_T0, _MM_HINT_T1, _mm_prefetch};
        let at = core::ptr::from_ref(value).cast();
        match how {
            Ask::T1 => _mm_prefetch::<_MM_HINT_T1>(at),
            Ask::T0 => _mm_prefetch::<_MM_HINT_T0>(at),
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    std::hint::black_box((value, how));
}

#[inline(always)]
fn prefetch<T>(value: &T) {
    ask(value, Ask::T1);
}

/// A conn of 64 bytes. By direction: the addresses and ports that its packets get, and the next hop.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C, align(64))]
pub struct Conn4 {
    to: [To4; 2],
    touched: u64,
    rest: [u8; 24],
}

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct To4 {
    src: [u8; 4],
    dst: [u8; 4],
    ports: [u8; 4],
    hop: u32,
}

/// A conn of 128 bytes.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C, align(64))]
pub struct Conn6 {
    to: [To6; 2],
    touched: u64,
    rest: [u8; 40],
}

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct To6 {
    src: [u8; 16],
    dst: [u8; 16],
    ports: [u8; 4],
    hop: u32,
}

const _: () = assert!(size_of::<Conn4>() == LINE && size_of::<Conn6>() == 2 * LINE);

/// Index and conns.
#[derive(Debug)]
pub struct Floor<C: 'static> {
    index: &'static mut [u64],
    conns: &'static mut [C],
    /// Destination and source of the Ethernet header, by next hop: servers, then the gateway.
    macs: [[u8; 12]; SERVERS as usize + 1],
    stride: u64,
}

impl<C: NoUninit + AnyBitPattern + ConnOf> Floor<C> {
    /// A table with room for `room` conns, of which the first `n` are there.
    pub fn new(kind: Kind, n: u32, room: u32, pages: Pages) -> Result<Self, MapError> {
        let buckets = (2 * room as usize * LOAD.1).div_ceil(LOAD.0 * 8);
        let mut memory =
            MappedMemory::map(buckets * LINE + room as usize * size_of::<C>() + 2 * LINE, pages)?;
        let index = memory.take(buckets * 8).expect("it was mapped for this");
        let conns = memory.take(room as usize).expect("it was mapped for this");
        let macs = std::array::from_fn(|hop| {
            let mut macs = [0; 12];
            macs[..6].copy_from_slice(&if hop == SERVERS as usize {
                GATEWAY_MAC
            } else {
                server_mac(hop as u32)
            });
            macs[6..].copy_from_slice(&PORT_MAC);
            macs
        });
        let floor = Floor {
            stride: stride(buckets as u64 * 8),
            index,
            conns,
            macs,
        };
        for i in 0..n {
            floor.conns[i as usize] = C::of(kind, i);
            for outbound in [false, true] {
                let at = floor.place(Packet { flow: i, outbound }) as usize;
                assert_eq!(floor.index[at], 0, "every entry has a place of its own");
                // As wide as the engine's: a signature, and the conn with its direction.
                floor.index[at] = 0x5157_0000_0000_0000 | u64::from(i) << 1 | u64::from(outbound);
            }
        }
        Ok(floor)
    }

    /// Where in the index a packet's entry stands: neighbours lie far apart.
    pub fn place(&self, packet: Packet) -> u32 {
        let entry = u64::from(packet.flow) << 1 | u64::from(packet.outbound);
        (u128::from(entry) * u128::from(self.stride) % self.index.len() as u128) as u32
    }

    /// Index line and conn line of a burst: for each packet a word of its conn.
    #[inline(never)]
    pub fn lookup(&self, places: &[u32; BURST], out: &mut [u64; BURST]) {
        for &place in places {
            prefetch(&self.index[place as usize]);
        }
        let entries = places.map(|place| {
            let entry = self.index[place as usize] as u32;
            prefetch(&self.conns[entry as usize >> 1]);
            entry
        });
        for (out, entry) in out.iter_mut().zip(entries) {
            *out = self.conns[entry as usize >> 1].word();
        }
    }

    /// The index line alone: what it takes to see that a packet has no conn.
    #[inline(never)]
    pub fn miss(&self, places: &[u32; BURST], out: &mut [u64; BURST]) {
        for &place in places {
            prefetch(&self.index[place as usize]);
        }
        for (out, &place) in out.iter_mut().zip(places) {
            *out = self.index[place as usize];
        }
    }

    /// An established burst.
    #[inline(never)]
    pub fn forward(&mut self, how: Ask, places: &[u32; BURST], frames: &mut [BenchFrame; BURST]) {
        match how {
            Ask::T1 => self.forward_by(Ask::T1, places, frames),
            Ask::T0 => self.forward_by(Ask::T0, places, frames),
        }
    }

    #[inline(always)]
    fn forward_by(&mut self, how: Ask, places: &[u32; BURST], frames: &mut [BenchFrame; BURST]) {
        for &place in places {
            ask(&self.index[place as usize], how);
        }
        let entries = places.map(|place| {
            let entry = self.index[place as usize] as u32;
            self.conns[entry as usize >> 1].ask(how);
            entry
        });
        for (frame, entry) in frames.iter_mut().zip(entries) {
            self.conns[entry as usize >> 1].rewrite(entry & 1, &self.macs, frame);
        }
    }

    /// The memory of a conn that is opened: two index entries and the conn are written.
    #[inline(never)]
    pub fn open(&mut self, kind: Kind, first: u32, places: &[[u32; 2]; BURST]) {
        for [a, b] in places {
            prefetch(&self.index[*a as usize]);
            prefetch(&self.index[*b as usize]);
        }
        for (i, &[a, b]) in (first..).zip(places) {
            self.index[a as usize] = u64::from(i) << 1;
            self.index[b as usize] = u64::from(i) << 1 | 1;
            self.conns[i as usize] = C::of(kind, i);
        }
    }

    /// The memory of a conn that expires: conn and both index entries are read and cleared.
    #[inline(never)]
    pub fn expire(&mut self, first: u32, places: &[[u32; 2]; BURST]) {
        for (i, [a, b]) in (first..).zip(places) {
            self.conns[i as usize].ask(Ask::T1);
            prefetch(&self.index[*a as usize]);
            prefetch(&self.index[*b as usize]);
        }
        for (i, &[a, b]) in (first..).zip(places) {
            self.conns[i as usize].clear();
            self.index[a as usize] = 0;
            self.index[b as usize] = 0;
        }
    }
}

/// A number near the golden section of `places` that shares no factor with it.
fn stride(places: u64) -> u64 {
    let gcd = |mut a: u64, mut b: u64| {
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    let near = places * 618 / 1000;
    (near..).find(|&s| gcd(s, places) == 1).unwrap_or(1)
}

/// What the floor does with a conn.
pub trait ConnOf: Sized {
    /// The conn of a flow.
    fn of(kind: Kind, n: u32) -> Self;
    /// A word of it.
    fn word(&self) -> u64;
    /// Asks for its lines.
    fn ask(&self, how: Ask);
    /// Writes to it.
    fn clear(&mut self);
    /// Rewrites a packet of it.
    fn rewrite(&self, direction: u32, macs: &[[u8; 12]; SERVERS as usize + 1], frame: &mut BenchFrame);
}

fn ports(src: u16, dst: u16) -> [u8; 4] {
    (u32::from(src) << 16 | u32::from(dst)).to_be_bytes()
}

impl ConnOf for Conn4 {
    fn of(kind: Kind, n: u32) -> Self {
        assert_eq!(kind, Kind::V4, "others do not fit");
        let f = flow(kind, n);
        let v4 = |a: Addr| if let Addr::V4(a) = a { a } else { [0; 4] };
        let to = |src: (Addr, u16), dst: (Addr, u16), hop| To4 {
            src: v4(src.0),
            dst: v4(dst.0),
            ports: ports(src.1, dst.1),
            hop,
        };
        Conn4 {
            to: [to(f.local, f.server, f.server_no), to(f.vip, f.client, SERVERS)],
            ..Conn4::zeroed()
        }
    }

    #[inline(always)]
    fn word(&self) -> u64 {
        self.touched
    }

    #[inline(always)]
    fn ask(&self, how: Ask) {
        ask(self, how);
    }

    #[inline(always)]
    fn clear(&mut self) {
        self.touched = 0;
    }

    #[inline(always)]
    fn rewrite(&self, direction: u32, macs: &[[u8; 12]; SERVERS as usize + 1], frame: &mut BenchFrame) {
        let to = &self.to[direction as usize & 1];
        let data = frame.fixed_mut();
        let (src, dst) = (read4(data, 26), read4(data, 30));
        let (new_src, new_dst) = (u32::from_be_bytes(to.src), u32::from_be_bytes(to.dst));
        let addrs = u64::from(!src) + u64::from(new_src) + u64::from(!dst) + u64::from(new_dst);
        // Time to live is the high byte of its word: less one is less 0x0100.
        let ip_sum = read2(data, 24);
        let new_ip_sum = !fold(addrs + u64::from(!ip_sum) + u64::from(!0x0100u16));
        let transport = addrs + u64::from(!read4(data, 34)) + u64::from(u32::from_be_bytes(to.ports));
        let new_tcp_sum = !fold(transport + u64::from(!read2(data, 50)));
        data[..12].copy_from_slice(&macs[to.hop as usize % macs.len()]);
        data[22] -= 1;
        data[24..26].copy_from_slice(&new_ip_sum.to_be_bytes());
        data[26..30].copy_from_slice(&to.src);
        data[30..34].copy_from_slice(&to.dst);
        data[34..38].copy_from_slice(&to.ports);
        data[50..52].copy_from_slice(&new_tcp_sum.to_be_bytes());
        let len = 14 + usize::from(read2(data, 16));
        frame.set_len(len);
    }
}

impl ConnOf for Conn6 {
    fn of(kind: Kind, n: u32) -> Self {
        let f = flow(kind, n);
        let wide = |a: Addr| match a {
            Addr::V4(a) => {
                let mut wide = [0; 16];
                wide[12..].copy_from_slice(&a);
                wide
            }
            Addr::V6(a) => a,
        };
        // The high half of `hop` says that the packets of this direction become IPv4 (1) or IPv6 (2).
        let across = |to_v4| {
            if kind == Kind::Nat64 {
                if to_v4 { 1 << 16 } else { 2 << 16 }
            } else {
                0
            }
        };
        let to = |src: (Addr, u16), dst: (Addr, u16), hop| To6 {
            src: wide(src.0),
            dst: wide(dst.0),
            ports: ports(src.1, dst.1),
            hop,
        };
        Conn6 {
            to: [
                to(f.local, f.server, f.server_no | across(true)),
                to(f.vip, f.client, SERVERS | across(false)),
            ],
            ..Conn6::zeroed()
        }
    }

    #[inline(always)]
    fn word(&self) -> u64 {
        self.touched
    }

    #[inline(always)]
    fn ask(&self, how: Ask) {
        ask(self, how);
        ask(&self.touched, how);
    }

    #[inline(always)]
    fn clear(&mut self) {
        self.touched = 0;
    }

    #[inline(always)]
    fn rewrite(&self, direction: u32, macs: &[[u8; 12]; SERVERS as usize + 1], frame: &mut BenchFrame) {
        let to = &self.to[direction as usize & 1];
        match to.hop >> 16 {
            0 => self.rewrite_within(to, macs, frame),
            1 => self.rewrite_as_v4(to, macs, frame),
            _ => self.rewrite_as_v6(to, macs, frame),
        }
    }
}

impl Conn6 {
    #[inline(always)]
    fn rewrite_within(&self, to: &To6, macs: &[[u8; 12]; SERVERS as usize + 1], frame: &mut BenchFrame) {
        let data = frame.fixed_mut();
        let mut delta = u64::from(!read4(data, 54)) + u64::from(u32::from_be_bytes(to.ports));
        for at in 0..4 {
            delta += u64::from(!read4(data, 22 + 4 * at)) + u64::from(read4(&to.src, 4 * at));
            delta += u64::from(!read4(data, 38 + 4 * at)) + u64::from(read4(&to.dst, 4 * at));
        }
        let new_sum = !fold(delta + u64::from(!read2(data, 70)));
        data[..12].copy_from_slice(&macs[to.hop as usize % macs.len()]);
        data[21] -= 1;
        data[22..38].copy_from_slice(&to.src);
        data[38..54].copy_from_slice(&to.dst);
        data[54..58].copy_from_slice(&to.ports);
        data[70..72].copy_from_slice(&new_sum.to_be_bytes());
        let len = 54 + usize::from(read2(data, 18));
        frame.set_len(len);
    }

    /// IPv6 becomes IPv4: everything in front of the transport header is written anew, 20 bytes later.
    #[inline(always)]
    fn rewrite_as_v4(&self, to: &To6, macs: &[[u8; 12]; SERVERS as usize + 1], frame: &mut BenchFrame) {
        let data = frame.fixed_mut();
        let mut delta = u64::from(!read4(data, 54)) + u64::from(u32::from_be_bytes(to.ports));
        for at in 0..8 {
            delta += u64::from(!read4(data, 22 + 4 * at));
        }
        let addrs = u64::from(read4(&to.src, 12)) + u64::from(read4(&to.dst, 12));
        let new_sum = !fold(delta + addrs + u64::from(!read2(data, 70)));
        let len = 20 + read2(data, 18);
        let (hop_limit, proto) = (data[21] - 1, data[20]);
        let words =
            0x4500 + u64::from(len) + u64::from(new_sum) + (u64::from(hop_limit) << 8 | u64::from(proto));
        data[20..32].copy_from_slice(&macs[to.hop as usize % 0x1_0000 % macs.len()]);
        data[32..36].copy_from_slice(&[0x08, 0x00, 0x45, 0]);
        data[36..38].copy_from_slice(&len.to_be_bytes());
        data[38..40].copy_from_slice(&new_sum.to_be_bytes());
        data[40..44].copy_from_slice(&[0, 0, hop_limit, proto]);
        data[44..46].copy_from_slice(&(!fold(words + addrs)).to_be_bytes());
        data[46..50].copy_from_slice(&to.src[12..]);
        data[50..54].copy_from_slice(&to.dst[12..]);
        data[54..58].copy_from_slice(&to.ports);
        data[70..72].copy_from_slice(&new_sum.to_be_bytes());
        frame.move_front(20);
        frame.set_len(14 + usize::from(len));
    }

    /// IPv4 becomes IPv6: 20 bytes earlier.
    #[inline(always)]
    fn rewrite_as_v6(&self, to: &To6, macs: &[[u8; 12]; SERVERS as usize + 1], frame: &mut BenchFrame) {
        let data: &mut [u8; 92] = frame.whole_mut()[DATA_AT - 20..]
            .first_chunk_mut()
            .expect("the buffer is longer");
        let mut delta = u64::from(!read4(data, 46)) + u64::from(!read4(data, 50));
        delta += u64::from(!read4(data, 54)) + u64::from(u32::from_be_bytes(to.ports));
        for at in 0..4 {
            delta += u64::from(read4(&to.src, 4 * at)) + u64::from(read4(&to.dst, 4 * at));
        }
        let new_sum = !fold(delta + u64::from(!read2(data, 70)));
        let len = read2(data, 36) - 20;
        let (hop_limit, proto) = (data[42] - 1, data[43]);
        data[..12].copy_from_slice(&macs[to.hop as usize % 0x1_0000 % macs.len()]);
        data[12..18].copy_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0]);
        data[18..20].copy_from_slice(&len.to_be_bytes());
        data[20..22].copy_from_slice(&[proto, hop_limit]);
        data[22..38].copy_from_slice(&to.src);
        data[38..54].copy_from_slice(&to.dst);
        data[54..58].copy_from_slice(&to.ports);
        data[70..72].copy_from_slice(&new_sum.to_be_bytes());
        frame.move_front(-20);
        frame.set_len(54 + usize::from(len));
    }
}

/// What a parser of a TCP packet over IPv4 or IPv6 must read: version and lengths, the five-tuple, flags,
/// the sum of the IPv4 header. Returns a word that depends on all of it.
#[inline(never)]
pub fn read_headers(frames: &mut [BenchFrame; BURST], out: &mut [u64; BURST]) {
    for (frame, out) in frames.iter_mut().zip(out) {
        let data = frame.fixed_mut();
        *out = if read2(data, 12) == 0x0800 {
            let mut sum = 0;
            for at in 0..5 {
                sum += u64::from(read4(data, 14 + 4 * at));
            }
            let tuple = u64::from(read4(data, 26)) << 32 | u64::from(read4(data, 30));
            tuple ^ u64::from(read4(data, 34)) << 8 ^ u64::from(data[47]) ^ u64::from(fold(sum))
        } else {
            let mut tuple =
                u64::from(read4(data, 54)) << 8 ^ u64::from(data[67]) ^ u64::from(read4(data, 18));
            for at in 0..8 {
                tuple = tuple.rotate_left(8) ^ u64::from(read4(data, 22 + 4 * at));
            }
            tuple
        };
    }
}

#[inline(always)]
fn read2(data: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([data[at], data[at + 1]])
}

#[inline(always)]
fn read4(data: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([data[at], data[at + 1], data[at + 2], data[at + 3]])
}

/// A sum of ones' complement as one word.
#[inline(always)]
fn fold(sum: u64) -> u16 {
    let sum = sum.wrapping_add(sum.rotate_left(32)) >> 32;
    let sum = (sum as u32).wrapping_add((sum as u32).rotate_left(16)) >> 16;
    sum as u16
}
