//! The classic pcap format (draft-ietf-opsawg-pcap): one header, then records to the end of the file.

use super::error::Fault;
use super::linktype::LinkType;
use super::source::Source;
use super::{Endian, FileFormat, OddTime, PACKET_LEN_MAX, PacketDirection, PacketMeta, field};

/// Magic number of files with microseconds.
pub(super) const MAGIC_MICRO: u32 = 0xa1b2_c3d4;
/// Magic number of files with nanoseconds.
pub(super) const MAGIC_NANO: u32 = 0xa1b2_3c4d;
/// Magic number of the files of a patched libpcap of the 1990s: microseconds, and eight more bytes a record.
pub(super) const MAGIC_MODIFIED: u32 = 0xa1b2_cd34;

/// Bytes of the file header behind the magic number: version (2 x 2), time zone (4), accuracy (4), snap
/// length (4), link type and FCS length (4).
const HEADER_REST_LEN: usize = 20;
/// Bytes of a record's header: seconds, fraction, captured length, original length.
const RECORD_HEADER_LEN: usize = 16;
/// What the modified format adds: interface index (4), protocol (2), packet type (1), padding (1).
const MODIFIED_EXTRA_LEN: usize = 8;

/// State of a classic file between two packets.
#[derive(Debug)]
pub(super) struct PcapFormat {
    endian: Endian,
    ns_per_unit: u64,
    modified: bool,
    link: LinkType,
}

impl PcapFormat {
    /// What the first four bytes of a file say, if they are of this format.
    pub(super) fn detect(magic: [u8; 4]) -> Option<PcapFormat> {
        [Endian::Little, Endian::Big].into_iter().find_map(|endian| {
            let (ns_per_unit, modified) = match endian.u32(magic) {
                MAGIC_MICRO => (1000, false),
                MAGIC_NANO => (1, false),
                MAGIC_MODIFIED => (1000, true),
                _ => return None,
            };
            Some(PcapFormat {
                endian,
                ns_per_unit,
                modified,
                link: LinkType::ETHERNET,
            })
        })
    }

    /// Reads the file header behind the magic number. The time zone and the accuracy have been zero for ever
    /// and are ignored, as is the snap length, which files have wrong.
    pub(super) fn read_header(&mut self, source: &mut Source) -> Result<(), Fault> {
        let mut header = [0; HEADER_REST_LEN];
        source.read_exact(&mut header, "the file header")?;
        let major = self.endian.u16(field(&header, 0));
        let minor = self.endian.u16(field(&header, 2));
        if major != 2 {
            return Err(Fault::Version {
                format: FileFormat::Pcap,
                major,
                minor,
            });
        }
        // The upper half holds the length of a frame check sequence. It is left on the frames, as trailing
        // bytes behind the length that IP states.
        let link = self.endian.u32(field(&header, 16)) & 0xffff;
        self.link = LinkType(u16::try_from(link).unwrap_or(u16::MAX));
        if self.link.is_supported() {
            Ok(())
        } else {
            Err(Fault::Link(self.link))
        }
    }

    /// Reads the next record's bytes into `data`. `None` at the end of the file.
    pub(super) fn next(
        &mut self,
        source: &mut Source,
        data: &mut Vec<u8>,
    ) -> Result<Option<PacketMeta>, Fault> {
        let byte_offset = source.offset();
        let mut header = [0; RECORD_HEADER_LEN];
        if !source.read_exact_or_end(&mut header, "a packet's record header")? {
            return Ok(None);
        }
        let seconds = self.endian.u32(field(&header, 0));
        let fraction = self.endian.u32(field(&header, 4));
        let captured_len = self.endian.u32(field(&header, 8));
        let orig_len = self.endian.u32(field(&header, 12));
        if captured_len > PACKET_LEN_MAX {
            let what = format!("a record claims {captured_len} captured bytes, more than {PACKET_LEN_MAX}");
            return Err(Fault::Corrupt { byte_offset, what });
        }
        let mut direction = PacketDirection::Unknown;
        if self.modified {
            let mut extra = [0; MODIFIED_EXTRA_LEN];
            source.read_exact(&mut extra, "a packet's record header")?;
            direction = direction_of_packet_type(extra[6]);
        }
        data.clear();
        data.resize(captured_len as usize, 0);
        source.read_exact(data, "a packet's data")?;
        // At most (2^32 - 1) s and (2^32 - 1) us: below 2^63 ns.
        let fraction_ns = u64::from(fraction) * self.ns_per_unit;
        let time_ns = u64::from(seconds) * 1_000_000_000 + fraction_ns;
        Ok(Some(PacketMeta {
            odd_time: (fraction_ns >= 1_000_000_000).then_some(OddTime::LongFraction),
            time_ns,
            interface: 0,
            link: self.link,
            orig_len,
            direction,
            has_comment: false,
        }))
    }
}

/// Linux's packet type (PACKET_HOST 0 to PACKET_OUTGOING 4, packet(7)).
fn direction_of_packet_type(packet_type: u8) -> PacketDirection {
    match packet_type {
        0..=3 => PacketDirection::Received,
        4 => PacketDirection::Sent,
        _ => PacketDirection::Unknown,
    }
}
