//! The pcapng format (draft-ietf-opsawg-pcapng): blocks, each with its length before and after.
//!
//! ```text
//!  section header (SHB)       byte order of what follows, interfaces start anew
//!    interface description (IDB)  link type, unit and offset of its time stamps; numbered from 0
//!    packet: enhanced (EPB), simple (SPB), or the obsolete packet block (PB)
//!    anything else              skipped
//!  section header ...
//! ```

use super::error::Fault;
use super::linktype::LinkType;
use super::source::Source;
use super::{
    BLOCK_LEN_MAX, Endian, FileFormat, INTERFACE_COUNT_MAX, OddTime, PACKET_LEN_MAX, PacketDirection,
    PacketMeta, field,
};

/// Block type of a section header; reads alike in both byte orders.
pub(super) const SECTION_HEADER: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];
pub(super) const INTERFACE_DESCRIPTION: u32 = 1;
const PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
pub(super) const NAME_RESOLUTION: u32 = 4;
pub(super) const ENHANCED_PACKET: u32 = 6;

pub(super) const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;

pub(super) const OPT_END: u16 = 0;
pub(super) const OPT_COMMENT: u16 = 1;
pub(super) const EPB_FLAGS: u16 = 2;
pub(super) const IF_NAME: u16 = 2;
pub(super) const IF_TSRESOL: u16 = 9;
const IF_TSOFFSET: u16 = 14;

/// Type, length before, length after.
const BLOCK_OVERHEAD: u32 = 12;
/// The longest interface name that is kept, in bytes.
const NAME_KEPT_MAX: usize = 256;

/// State of a pcapng file between two packets.
#[derive(Debug)]
pub(super) struct PcapNgFormat {
    endian: Endian,
    interfaces: Vec<Interface>,
    /// Sections seen; the one being read is the last.
    section_count: u32,
    /// Time of the packet before, for packets without one.
    last_time_ns: u64,
    /// Room for an option's value; its length is a u16, so at most 64 KiB.
    option: Vec<u8>,
}

#[derive(Debug)]
struct Interface {
    link: LinkType,
    /// 0 is no limit.
    snap_len: u32,
    unit: TimeUnit,
    offset_s: i64,
    name: Option<String>,
}

impl PcapNgFormat {
    /// Reads the first section header, of which the type (4 bytes) was read.
    pub(super) fn open(source: &mut Source) -> Result<PcapNgFormat, Fault> {
        let mut format = PcapNgFormat {
            endian: Endian::Little,
            interfaces: Vec::new(),
            section_count: 0,
            last_time_ns: 0,
            option: Vec::new(),
        };
        let mut len = [0; 4];
        source.read_exact(&mut len, "a section header")?;
        format.section_header(source, len)?;
        Ok(format)
    }

    /// The name of an interface of the present section.
    pub(super) fn interface_name(&self, interface: u32) -> Option<&str> {
        self.interfaces.get(interface as usize)?.name.as_deref()
    }

    pub(super) fn section_count(&self) -> u32 {
        self.section_count
    }

    /// Reads on to the next packet: its bytes into `data`, its first comment into `comment`. `None` at the
    /// end of the file, which is where a block would begin.
    pub(super) fn next(
        &mut self,
        source: &mut Source,
        data: &mut Vec<u8>,
        comment: &mut String,
    ) -> Result<Option<PacketMeta>, Fault> {
        loop {
            let start = source.offset();
            let mut header = [0; 8];
            if !source.read_exact_or_end(&mut header, "a block header")? {
                return Ok(None);
            }
            let block_type: [u8; 4] = field(&header, 0);
            let len: [u8; 4] = field(&header, 4);
            if block_type == SECTION_HEADER {
                self.section_header(source, len)?;
                continue;
            }
            let block_type = self.endian.u32(block_type);
            let len = self.endian.u32(len);
            let what = match block_type {
                INTERFACE_DESCRIPTION => "an interface description block",
                PACKET => "a packet block",
                SIMPLE_PACKET => "a simple packet block",
                ENHANCED_PACKET => "an enhanced packet block",
                _ => "a block",
            };
            let endian = self.endian;
            let mut body = Body::new(source, start, BLOCK_OVERHEAD, len, endian, what)?;
            let packet = match block_type {
                INTERFACE_DESCRIPTION => {
                    self.interface_description(&mut body)?;
                    None
                }
                ENHANCED_PACKET => Some(self.packet(&mut body, false, data, comment)?),
                PACKET => Some(self.packet(&mut body, true, data, comment)?),
                SIMPLE_PACKET => Some(self.simple_packet(&mut body, data)?),
                _ => None,
            };
            body.finish()?;
            if let Some(packet) = packet {
                self.last_time_ns = packet.time_ns;
                return Ok(Some(packet));
            }
        }
    }

    /// A section header whose type and length were read; the length is understood only now. The length of the
    /// section, which writers get wrong, is ignored.
    fn section_header(&mut self, source: &mut Source, len: [u8; 4]) -> Result<(), Fault> {
        let what = "a section header";
        let start = source.offset() - 8;
        let mut magic = [0; 4];
        source.read_exact(&mut magic, what)?;
        self.endian = match u32::from_le_bytes(magic) {
            BYTE_ORDER_MAGIC => Endian::Little,
            magic if magic.swap_bytes() == BYTE_ORDER_MAGIC => Endian::Big,
            magic => {
                let what = format!("a section header has byte-order magic {magic:08x}");
                return Err(Fault::Corrupt {
                    byte_offset: start,
                    what,
                });
            }
        };
        let endian = self.endian;
        let mut body = Body::new(source, start, BLOCK_OVERHEAD + 4, endian.u32(len), endian, what)?;
        let rest: [u8; 12] = body.array()?;
        let major = endian.u16(field(&rest, 0));
        let minor = endian.u16(field(&rest, 2));
        if major != 1 {
            return Err(Fault::Version {
                format: FileFormat::PcapNg,
                major,
                minor,
            });
        }
        body.finish()?;
        self.interfaces.clear();
        // A section takes 28 bytes, so this would need 120 GB to overflow; saturating costs nothing.
        self.section_count = self.section_count.saturating_add(1);
        Ok(())
    }

    fn interface_description(&mut self, body: &mut Body<'_>) -> Result<(), Fault> {
        let fixed: [u8; 8] = body.array()?;
        let mut interface = Interface {
            link: LinkType(self.endian.u16(field(&fixed, 0))),
            snap_len: self.endian.u32(field(&fixed, 4)),
            unit: TimeUnit::MICROSECOND,
            offset_s: 0,
            name: None,
        };
        while let Some((code, len)) = body.option_header()? {
            match code {
                IF_TSRESOL => {
                    interface.unit = TimeUnit::from_option(body.option_array::<1>(len, "if_tsresol")?)
                }
                IF_TSOFFSET => {
                    interface.offset_s = self.endian.i64(body.option_array::<8>(len, "if_tsoffset")?);
                }
                IF_NAME => {
                    body.option_bytes(len, &mut self.option)?;
                    let kept = self.option.get(..NAME_KEPT_MAX).unwrap_or(&self.option);
                    interface.name = Some(String::from_utf8_lossy(kept).into_owned());
                }
                _ => body.option_skip(len)?,
            }
        }
        if self.interfaces.len() >= INTERFACE_COUNT_MAX {
            return Err(body.corrupt(format!("more than {INTERFACE_COUNT_MAX} interfaces in a section")));
        }
        self.interfaces.push(interface);
        Ok(())
    }

    /// An enhanced packet block or the obsolete packet block: the same but for the first four bytes.
    fn packet(
        &mut self,
        body: &mut Body<'_>,
        obsolete: bool,
        data: &mut Vec<u8>,
        comment: &mut String,
    ) -> Result<PacketMeta, Fault> {
        let endian = self.endian;
        let fixed: [u8; 20] = body.array()?;
        let interface = if obsolete {
            // Interface (2 bytes), then the drops since the packet before (2).
            u32::from(endian.u16(field(&fixed, 0)))
        } else {
            endian.u32(field(&fixed, 0))
        };
        let high = endian.u32(field(&fixed, 4));
        let low = endian.u32(field(&fixed, 8));
        let captured_len = endian.u32(field(&fixed, 12));
        let orig_len = endian.u32(field(&fixed, 16));
        let known = self.interfaces.get(interface as usize).ok_or_else(|| {
            let count = self.interfaces.len();
            body.corrupt(format!(
                "a packet of interface {interface}, but {count} are described"
            ))
        })?;
        body.packet_data(captured_len, data)?;
        let (time_ns, clamped) = known.time_ns(u64::from(high) << 32 | u64::from(low));
        let mut meta = PacketMeta {
            odd_time: clamped.then_some(OddTime::Clamped),
            time_ns,
            interface,
            link: known.link,
            orig_len,
            direction: PacketDirection::Unknown,
            has_comment: false,
        };
        while let Some((code, len)) = body.option_header()? {
            match code {
                OPT_COMMENT if !meta.has_comment => {
                    body.option_bytes(len, &mut self.option)?;
                    comment.clear();
                    comment.push_str(&String::from_utf8_lossy(&self.option));
                    meta.has_comment = true;
                }
                // pack_flags of the obsolete block has the same code and layout.
                EPB_FLAGS => {
                    let flags = endian.u32(body.option_array::<4>(len, "epb_flags")?);
                    meta.direction = match flags & 0b11 {
                        0b01 => PacketDirection::Received,
                        0b10 => PacketDirection::Sent,
                        _ => PacketDirection::Unknown,
                    };
                }
                _ => body.option_skip(len)?,
            }
        }
        Ok(meta)
    }

    /// A simple packet block: interface 0, no time, the captured length follows from the snap length.
    fn simple_packet(&mut self, body: &mut Body<'_>, data: &mut Vec<u8>) -> Result<PacketMeta, Fault> {
        let orig_len = self.endian.u32(body.array()?);
        let Some(interface) = self.interfaces.first() else {
            return Err(body.corrupt("a simple packet, but no interface is described".to_owned()));
        };
        let snap_len = if interface.snap_len == 0 {
            u32::MAX
        } else {
            interface.snap_len
        };
        body.packet_data(orig_len.min(snap_len), data)?;
        Ok(PacketMeta {
            odd_time: None,
            time_ns: self.last_time_ns,
            interface: 0,
            link: interface.link,
            orig_len,
            direction: PacketDirection::Unknown,
            has_comment: false,
        })
    }
}

impl Interface {
    /// Nanoseconds since the Unix epoch, and whether they had to be clamped into a `u64`.
    fn time_ns(&self, ticks: u64) -> (u64, bool) {
        let unit_ns = self.unit.to_ns(ticks);
        let in_unit = u64::try_from(unit_ns).unwrap_or(u64::MAX);
        // |offset| < 2^63 s, so below 2^93 ns; the sum cannot overflow.
        let ns = i128::from(in_unit) + i128::from(self.offset_s) * 1_000_000_000;
        let clamped = u64::try_from(ns).is_err() || u128::from(in_unit) != unit_ns;
        (u64::try_from(ns.max(0)).unwrap_or(u64::MAX), clamped)
    }
}

/// The unit of an interface's time stamps: option if_tsresol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TimeUnit {
    /// 10^-n s.
    Decimal(u8),
    /// 2^-n s.
    Binary(u8),
}

impl TimeUnit {
    /// The default of the format.
    const MICROSECOND: TimeUnit = TimeUnit::Decimal(6);

    fn from_option([value]: [u8; 1]) -> TimeUnit {
        if value & 0x80 == 0 {
            TimeUnit::Decimal(value)
        } else {
            TimeUnit::Binary(value & 0x7f)
        }
    }

    /// Rounded down.
    fn to_ns(self, ticks: u64) -> u128 {
        // Below 2^64 * 10^9 < 2^94.
        let billionths = u128::from(ticks) * 1_000_000_000;
        match self {
            // 10^38 is the largest power of ten in a u128; beyond it the quotient is 0 anyway.
            TimeUnit::Decimal(n) => 10u128
                .checked_pow(u32::from(n))
                .map_or(0, |divisor| billionths / divisor),
            // n is at most 127, so the shift is defined.
            TimeUnit::Binary(n) => billionths >> n,
        }
    }
}

/// What is left of a block's body: nothing in here reads beyond it.
struct Body<'a> {
    source: &'a mut Source,
    start: u64,
    total_len: u32,
    left: u32,
    endian: Endian,
    what: &'static str,
}

impl<'a> Body<'a> {
    /// `taken` counts the bytes of the block that were read, with the length that follows its body.
    fn new(
        source: &'a mut Source,
        start: u64,
        taken: u32,
        total_len: u32,
        endian: Endian,
        what: &'static str,
    ) -> Result<Body<'a>, Fault> {
        let corrupt = |why| {
            Err(Fault::Corrupt {
                byte_offset: start,
                what: why,
            })
        };
        let Some(left) = total_len.checked_sub(taken) else {
            return corrupt(format!("{what} has length {total_len}, less than its header"));
        };
        if total_len > BLOCK_LEN_MAX {
            return corrupt(format!(
                "{what} has length {total_len}, more than {BLOCK_LEN_MAX}"
            ));
        }
        if !total_len.is_multiple_of(4) {
            return corrupt(format!("{what} has length {total_len}, not a multiple of 4"));
        }
        Ok(Body {
            source,
            start,
            total_len,
            left,
            endian,
            what,
        })
    }

    fn corrupt(&self, what: String) -> Fault {
        Fault::Corrupt {
            byte_offset: self.start,
            what,
        }
    }

    /// Takes `len` bytes out of what is left, or says that they do not fit.
    fn reserve(&mut self, len: u32) -> Result<(), Fault> {
        self.left = self.left.checked_sub(len).ok_or_else(|| {
            let (what, total_len) = (self.what, self.total_len);
            self.corrupt(format!(
                "{what} of {total_len} bytes is too short for its contents"
            ))
        })?;
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let mut out = [0; N];
        self.reserve(u32::try_from(N).unwrap_or(u32::MAX))?;
        self.source.read_exact(&mut out, self.what)?;
        Ok(out)
    }

    /// Bytes and their padding to 32 bits. `len` has its bound from the caller.
    fn padded_bytes(&mut self, len: u32, out: &mut Vec<u8>) -> Result<(), Fault> {
        self.reserve(padded(len))?;
        out.clear();
        out.resize(len as usize, 0);
        self.source.read_exact(out, self.what)?;
        self.source.skip(u64::from(padded(len) - len), self.what)
    }

    fn packet_data(&mut self, len: u32, out: &mut Vec<u8>) -> Result<(), Fault> {
        if len > PACKET_LEN_MAX {
            let what = self.what;
            return Err(self.corrupt(format!(
                "{what} claims {len} captured bytes, more than {PACKET_LEN_MAX}"
            )));
        }
        self.padded_bytes(len, out)
    }

    /// Code and length of the next option, `None` behind the last. Its value must be taken next. (The format
    /// wants an end mark, but the end of the block ends the options, too.)
    fn option_header(&mut self) -> Result<Option<(u16, u16)>, Fault> {
        if self.left == 0 {
            return Ok(None);
        }
        let header: [u8; 4] = self.array()?;
        let code = self.endian.u16(field(&header, 0));
        let len = self.endian.u16(field(&header, 2));
        Ok((code != OPT_END).then_some((code, len)))
    }

    fn option_bytes(&mut self, len: u16, out: &mut Vec<u8>) -> Result<(), Fault> {
        self.padded_bytes(u32::from(len), out)
    }

    fn option_array<const N: usize>(&mut self, len: u16, name: &str) -> Result<[u8; N], Fault> {
        if usize::from(len) != N {
            return Err(self.corrupt(format!("option {name} has {len} bytes instead of {N}")));
        }
        let out = self.array()?;
        let padding = padded(u32::from(len)) - u32::from(len);
        self.reserve(padding)?;
        self.source.skip(u64::from(padding), self.what)?;
        Ok(out)
    }

    fn option_skip(&mut self, len: u16) -> Result<(), Fault> {
        let len = padded(u32::from(len));
        self.reserve(len)?;
        self.source.skip(u64::from(len), self.what)
    }

    /// Passes over the rest and checks the length behind the body.
    fn finish(self) -> Result<(), Fault> {
        self.source.skip(u64::from(self.left), self.what)?;
        let mut trailer = [0; 4];
        self.source.read_exact(&mut trailer, self.what)?;
        let trailer = self.endian.u32(trailer);
        if trailer == self.total_len {
            return Ok(());
        }
        let (what, total_len) = (self.what, self.total_len);
        Err(self.corrupt(format!(
            "{what} has length {total_len} before and {trailer} after its body"
        )))
    }
}

/// A length with its padding to 32 bits. No caller comes near to the end of the range.
fn padded(len: u32) -> u32 {
    len.saturating_add(3) & !3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_units_convert_exactly_and_never_overflow() {
        assert_eq!(TimeUnit::from_option([6]), TimeUnit::MICROSECOND);
        assert_eq!(TimeUnit::from_option([0x80 | 10]), TimeUnit::Binary(10));
        assert_eq!(TimeUnit::Decimal(0).to_ns(3), 3_000_000_000);
        assert_eq!(TimeUnit::Decimal(6).to_ns(1_500_000), 1_500_000_000);
        assert_eq!(TimeUnit::Decimal(9).to_ns(u64::MAX), u128::from(u64::MAX));
        assert_eq!(TimeUnit::Decimal(12).to_ns(1_999), 1);
        assert_eq!(TimeUnit::Binary(10).to_ns(1536), 1_500_000_000);
        assert_eq!(TimeUnit::Binary(32).to_ns(1 << 31), 500_000_000);
        for n in 0..=255 {
            let unit = TimeUnit::from_option([n]);
            let exact = unit.to_ns(u64::MAX);
            let ns = u64::try_from(exact).unwrap_or(u64::MAX);
            assert_eq!(unit.to_ns(0), 0);
            let interface = |offset_s| Interface {
                link: LinkType::ETHERNET,
                snap_len: 0,
                unit,
                offset_s,
                name: None,
            };
            let clamped = exact > u128::from(u64::MAX);
            assert_eq!(interface(0).time_ns(u64::MAX), (ns, clamped));
            assert_eq!(interface(i64::MIN).time_ns(u64::MAX), (0, true));
            assert_eq!(interface(i64::MAX).time_ns(u64::MAX), (u64::MAX, true));
        }
    }
}
