//! Finds out what a file is, and reads it packet by packet.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::error::{CaptureError, Fault};
use super::pcap::PcapFormat;
use super::pcapng::{PcapNgFormat, SECTION_HEADER};
use super::source::Source;
use super::{CapturedPacket, OddTime, PacketMeta};

/// The format of a capture file, gzip around it left aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileFormat {
    /// Classic pcap, with microseconds or nanoseconds.
    Pcap,
    /// pcapng.
    PcapNg,
}

impl fmt::Display for FileFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FileFormat::Pcap => "pcap",
            FileFormat::PcapNg => "pcapng",
        })
    }
}

/// Reads a capture as a stream, one packet at a time.
///
/// Memory: two buffers of 64 KiB (and the decompressor's), one packet of at most
/// [`PACKET_LEN_MAX`](super::PACKET_LEN_MAX), one comment, and the interfaces of one section.
pub struct CaptureReader {
    source: Source,
    format: Format,
    data: Vec<u8>,
    comment: String,
    packets_read: u64,
    long_fractions: u64,
    clamped_times: u64,
    /// Set once and for all when no more packets come.
    end: Option<Result<(), CaptureError>>,
}

enum Format {
    Pcap(PcapFormat),
    PcapNg(PcapNgFormat),
}

impl fmt::Debug for CaptureReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CaptureReader")
            .field("format", &self.format())
            .field("packets_read", &self.packets_read)
            .field("byte_offset", &self.source.offset())
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}

impl CaptureReader {
    /// Opens a file, or standard input if the path is `-`, and reads its file header.
    ///
    /// # Errors
    ///
    /// All of [`CaptureError`] but `Corrupt` records: a file that is cut within its header is `Cut` here.
    pub fn open(path: impl AsRef<Path>) -> Result<CaptureReader, CaptureError> {
        let path = path.as_ref();
        if path == Path::new("-") {
            return CaptureReader::new(io::stdin());
        }
        // A folder can be opened on some systems, but not be read on any.
        if path.is_dir() {
            let error = io::Error::new(io::ErrorKind::IsADirectory, "it is a directory");
            return Err(CaptureError::open(path, &error));
        }
        let file = File::open(path).map_err(|error| CaptureError::open(path, &error))?;
        CaptureReader::new(file)
    }

    /// As [`open`](CaptureReader::open), from anything that can be read.
    ///
    /// # Errors
    ///
    /// As [`open`](CaptureReader::open).
    pub fn new(input: impl Read + Send + 'static) -> Result<CaptureReader, CaptureError> {
        let mut source = Source::new(input).map_err(|error| Fault::Source(error).into_error(0, 0))?;
        match detect(&mut source) {
            Ok(format) => Ok(CaptureReader {
                source,
                format,
                data: Vec::new(),
                comment: String::new(),
                packets_read: 0,
                long_fractions: 0,
                clamped_times: 0,
                end: None,
            }),
            Err(fault) => Err(fault.into_error(0, source.offset())),
        }
    }

    /// The next packet, lent until the next call; `None` at the end of the file.
    ///
    /// # Errors
    ///
    /// `Cut`, `Corrupt`, `Io`, and `UnsupportedVersion` of a later section of a pcapng file. An error is the
    /// end: every later call returns the same.
    pub fn next_packet(&mut self) -> Result<Option<CapturedPacket<'_>>, CaptureError> {
        if let Some(end) = &self.end {
            return end.clone().map(|()| None);
        }
        let read = match &mut self.format {
            Format::Pcap(pcap) => pcap.next(&mut self.source, &mut self.data),
            Format::PcapNg(pcapng) => pcapng.next(&mut self.source, &mut self.data, &mut self.comment),
        };
        match read {
            Ok(Some(meta)) => {
                self.packets_read += 1;
                let PacketMeta {
                    time_ns,
                    interface,
                    link,
                    orig_len,
                    direction,
                    odd_time,
                    has_comment,
                } = meta;
                self.long_fractions += u64::from(odd_time == Some(OddTime::LongFraction));
                self.clamped_times += u64::from(odd_time == Some(OddTime::Clamped));
                let comment = has_comment.then_some(self.comment.as_str());
                let data = &self.data;
                Ok(Some(CapturedPacket {
                    time_ns,
                    interface,
                    link,
                    data,
                    orig_len,
                    comment,
                    direction,
                }))
            }
            Ok(None) => {
                self.end = Some(Ok(()));
                Ok(None)
            }
            Err(fault) => {
                let error = fault.into_error(self.packets_read, self.source.offset());
                self.end = Some(Err(error.clone()));
                Err(error)
            }
        }
    }

    /// What the file is.
    pub fn format(&self) -> FileFormat {
        match self.format {
            Format::Pcap(_) => FileFormat::Pcap,
            Format::PcapNg(_) => FileFormat::PcapNg,
        }
    }

    /// How many packets were delivered.
    pub fn packets_read(&self) -> u64 {
        self.packets_read
    }

    /// Packets so far whose time has a part below a second that is a second or more (classic pcap); it counts for
    /// what it is.
    pub fn long_fractions(&self) -> u64 {
        self.long_fractions
    }

    /// Packets so far whose time is outside of `u64` and was clamped into it (pcapng).
    pub fn clamped_times(&self) -> u64 {
        self.clamped_times
    }

    /// How many bytes of the capture were read, after decompression.
    pub fn byte_offset(&self) -> u64 {
        self.source.offset()
    }

    /// Which section of a pcapng file the last packet was in, counted from 0. Interfaces of different
    /// sections are different, even where their numbers are the same. Always 0 in a classic file.
    pub fn section(&self) -> u32 {
        match &self.format {
            Format::Pcap(_) => 0,
            Format::PcapNg(pcapng) => pcapng.section_count().saturating_sub(1),
        }
    }

    /// The name of an interface of the present section, if the file gives one: at most 256 bytes of it.
    pub fn interface_name(&self, interface: u32) -> Option<&str> {
        match &self.format {
            Format::Pcap(_) => None,
            Format::PcapNg(pcapng) => pcapng.interface_name(interface),
        }
    }
}

fn detect(source: &mut Source) -> Result<Format, Fault> {
    let mut magic = [0; 4];
    let len = source.read_up_to(&mut magic)?;
    if len < magic.len() {
        // Less than a magic number may be the beginning of anything.
        return Err(Fault::Foreign(magic.get(..len).unwrap_or_default().to_vec()));
    }
    if magic == SECTION_HEADER {
        return Ok(Format::PcapNg(PcapNgFormat::open(source)?));
    }
    if let Some(mut pcap) = PcapFormat::detect(magic) {
        pcap.read_header(source)?;
        return Ok(Format::Pcap(pcap));
    }
    let mut more = [0; 12];
    // Only for the message: whatever stops this, the file is foreign.
    let more_len = source.read_up_to(&mut more).unwrap_or(0);
    Err(Fault::Foreign(
        [&magic, more.get(..more_len).unwrap_or_default()].concat(),
    ))
}
