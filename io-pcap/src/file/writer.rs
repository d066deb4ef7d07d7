//! Writes captures: pcapng with comments and directions, and classic pcap for readers that know no other.
//!
//! The bytes depend on nothing but what was written: no time of day, no host name, little-endian everywhere.

use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::linktype::LinkType;
use super::pcap::MAGIC_NANO;
use super::pcapng::{
    BYTE_ORDER_MAGIC, ENHANCED_PACKET, EPB_FLAGS, IF_NAME, IF_TSRESOL, INTERFACE_DESCRIPTION,
    NAME_RESOLUTION, OPT_COMMENT, OPT_END, SECTION_HEADER,
};
use super::{INTERFACE_COUNT_MAX, PACKET_LEN_MAX, PacketDirection};

/// The longest comment that is written, in bytes; longer ones are cut between two characters.
pub const COMMENT_LEN_MAX: usize = 4096;
/// The longest name of an interface or an address that is written, in bytes.
pub const NAME_LEN_MAX: usize = 255;
/// Names of addresses that are written at most.
pub const NAME_COUNT_MAX: usize = 1_024;

/// Option of a section header: the program that wrote it.
const SHB_USERAPPL: u16 = 4;
/// Records of a name resolution block.
const NRB_IPV4: u16 = 1;
const NRB_IPV6: u16 = 2;
/// Option if_tsresol: 10^-9 s.
const NANOSECONDS: u8 = 9;
const USER_APPLICATION: &str = concat!("evenkeel ", env!("CARGO_PKG_VERSION"));
const WRITE_BUFFER_LEN: usize = 64 * 1024;

/// Why a capture could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The file could not be created.
    #[error("cannot create {}: {source}", path.display())]
    Create {
        /// The path as it was given.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Writing failed: the disk is full, the reader of a pipe went away, and the like.
    #[error("cannot write {target}: {source}")]
    Write {
        /// The path, or a word for what is not a file.
        target: String,
        /// The system's error.
        source: io::Error,
    },
    /// A write failed before: what is in the file ends there.
    #[error("cannot write {target}: an earlier write failed")]
    AfterError {
        /// The path, or a word for what is not a file.
        target: String,
    },
    /// An interface that was not declared when the writer was made.
    #[error("interface {interface} is not declared, only {declared} are")]
    NoSuchInterface {
        /// The number given.
        interface: u32,
        /// How many are declared.
        declared: usize,
    },
    /// More interfaces than a reader here would take.
    #[error("{count} interfaces, at most {INTERFACE_COUNT_MAX} can be declared")]
    TooManyInterfaces {
        /// How many were given.
        count: usize,
    },
    /// An interface name beyond [`NAME_LEN_MAX`].
    #[error("interface name of {len} bytes, at most {NAME_LEN_MAX} are possible")]
    NameTooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// A packet beyond [`PACKET_LEN_MAX`].
    #[error("packet of {len} bytes, at most {PACKET_LEN_MAX} are possible")]
    PacketTooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// Classic pcap has 32 bits for the seconds.
    #[error("time {time_ns} ns is after 2106-02-07 and does not fit into a classic pcap file")]
    TimeTooLate {
        /// The time given.
        time_ns: u64,
    },
}

/// One packet to write.
#[derive(Clone, Copy, Debug)]
pub struct OutPacket<'a> {
    /// Nanoseconds since the Unix epoch.
    pub time_ns: u64,
    /// Which of the declared interfaces, counted from 0.
    pub interface: u32,
    /// An Ethernet frame, at most [`PACKET_LEN_MAX`] bytes.
    pub data: &'a [u8],
    /// Its length on the wire; a smaller value than `data.len()` is taken as `data.len()`.
    pub orig_len: u32,
    /// A comment, of which [`COMMENT_LEN_MAX`] bytes are kept.
    pub comment: Option<&'a str>,
    /// Which way it crosses the interface.
    pub direction: PacketDirection,
}

/// Writes pcapng: one section, its interfaces declared at the start, all Ethernet with nanoseconds.
///
/// Call [`finish`](CaptureWriter::finish): only it reports what goes wrong with the last bytes. A writer that
/// is dropped instead writes them if it can.
#[derive(Debug)]
pub struct CaptureWriter {
    out: Output,
    interface_count: usize,
    block: Vec<u8>,
}

impl CaptureWriter {
    /// Creates (or overwrites) a file, compressed if its name ends in `.gz`; `-` is standard output. Each
    /// item of `interfaces` is the name of an interface.
    ///
    /// # Errors
    ///
    /// The file cannot be created or written, or the interfaces are beyond their bounds.
    pub fn create(path: impl AsRef<Path>, interfaces: &[&str]) -> Result<CaptureWriter, WriteError> {
        check_interfaces(interfaces)?;
        CaptureWriter::start(Output::create(path.as_ref())?, interfaces)
    }

    /// Writes to anything, uncompressed.
    ///
    /// # Errors
    ///
    /// As [`create`](CaptureWriter::create).
    pub fn new(out: impl Write + Send + 'static, interfaces: &[&str]) -> Result<CaptureWriter, WriteError> {
        check_interfaces(interfaces)?;
        CaptureWriter::start(
            Output::stream(Box::new(out), "the stream".to_owned(), false),
            interfaces,
        )
    }

    fn start(out: Output, interfaces: &[&str]) -> Result<CaptureWriter, WriteError> {
        let mut writer = CaptureWriter {
            out,
            interface_count: interfaces.len(),
            block: Vec::new(),
        };
        writer.begin_block(u32::from_le_bytes(SECTION_HEADER));
        writer.block.extend(BYTE_ORDER_MAGIC.to_le_bytes());
        // Version 1.0.
        writer.block.extend([1, 0, 0, 0]);
        // The length of the section is not known.
        writer.block.extend((-1i64).to_le_bytes());
        writer.option(SHB_USERAPPL, USER_APPLICATION.as_bytes());
        writer.option(OPT_END, &[]);
        writer.end_block()?;
        for name in interfaces {
            writer.begin_block(INTERFACE_DESCRIPTION);
            writer.block.extend(LinkType::ETHERNET.0.to_le_bytes());
            writer.block.extend([0, 0]);
            writer.block.extend(PACKET_LEN_MAX.to_le_bytes());
            writer.option(IF_NAME, name.as_bytes());
            writer.option(IF_TSRESOL, &[NANOSECONDS]);
            writer.option(OPT_END, &[]);
            writer.end_block()?;
        }
        Ok(writer)
    }

    /// Writes names of addresses, which Wireshark shows if it resolves names from the capture: [`NAME_COUNT_MAX`] of them, of
    /// each [`NAME_LEN_MAX`] bytes; what is more is left out.
    ///
    /// # Errors
    ///
    /// Writing failed, and all that follows fails, too.
    pub fn names<'n>(
        &mut self,
        names: impl IntoIterator<Item = (IpAddr, &'n str)>,
    ) -> Result<(), WriteError> {
        self.begin_block(NAME_RESOLUTION);
        for (addr, name) in names.into_iter().take(NAME_COUNT_MAX) {
            let name = bounded_to(name, NAME_LEN_MAX);
            let (kind, addr): (u16, Vec<u8>) = match addr {
                IpAddr::V4(addr) => (NRB_IPV4, addr.octets().to_vec()),
                IpAddr::V6(addr) => (NRB_IPV6, addr.octets().to_vec()),
            };
            // A record is laid out as an option is; a name ends with a zero.
            let value = [addr.as_slice(), name.as_bytes(), &[0]].concat();
            self.option(kind, &value);
        }
        self.option(OPT_END, &[]);
        self.end_block()
    }

    /// Writes one packet.
    ///
    /// # Errors
    ///
    /// The packet is beyond its bounds (nothing was written, the writer goes on), or writing failed (all that
    /// follows fails, too).
    pub fn write(&mut self, packet: &OutPacket<'_>) -> Result<(), WriteError> {
        if packet.interface as usize >= self.interface_count {
            let declared = self.interface_count;
            return Err(WriteError::NoSuchInterface {
                interface: packet.interface,
                declared,
            });
        }
        let len = packet_len(packet.data)?;
        self.begin_block(ENHANCED_PACKET);
        self.block.extend(packet.interface.to_le_bytes());
        let [low, high] = [packet.time_ns & 0xffff_ffff, packet.time_ns >> 32];
        for half in [high, low] {
            // Both are below 2^32 by now.
            self.block.extend((half as u32).to_le_bytes());
        }
        self.block.extend(len.to_le_bytes());
        self.block.extend(packet.orig_len.max(len).to_le_bytes());
        self.block.extend_from_slice(packet.data);
        self.pad();
        if let Some(comment) = packet.comment {
            self.option(OPT_COMMENT, bounded(comment).as_bytes());
        }
        let flags: Option<u32> = match packet.direction {
            PacketDirection::Unknown => None,
            PacketDirection::Received => Some(0b01),
            PacketDirection::Sent => Some(0b10),
        };
        if let Some(flags) = flags {
            self.option(EPB_FLAGS, &flags.to_le_bytes());
        }
        if packet.comment.is_some() || flags.is_some() {
            self.option(OPT_END, &[]);
        }
        self.end_block()
    }

    /// Writes what is still buffered, and ends the gzip stream.
    ///
    /// # Errors
    ///
    /// Writing failed now, or before: then the file is not whole.
    pub fn finish(self) -> Result<(), WriteError> {
        self.out.finish()
    }

    fn begin_block(&mut self, block_type: u32) {
        self.block.clear();
        self.block.extend(block_type.to_le_bytes());
        // The length, filled in by end_block.
        self.block.extend([0; 4]);
    }

    /// `value` has its bound, far below the 64 KiB of an option, from every caller.
    fn option(&mut self, code: u16, value: &[u8]) {
        self.block.extend(code.to_le_bytes());
        self.block.extend((value.len() as u16).to_le_bytes());
        self.block.extend_from_slice(value);
        self.pad();
    }

    /// Blocks begin at multiples of four, so the block's own length tells.
    fn pad(&mut self) {
        self.block.resize(self.block.len().next_multiple_of(4), 0);
    }

    fn end_block(&mut self) -> Result<(), WriteError> {
        // At most a packet, a comment and 60 bytes more, or 1,024 names: no truncation.
        let len = (self.block.len() + 4) as u32;
        self.block[4..8].copy_from_slice(&len.to_le_bytes());
        self.block.extend(len.to_le_bytes());
        self.out.write_all(&self.block)
    }
}

/// Writes classic pcap with nanoseconds, link type Ethernet. (DPDK's net_pcap, for one, reads this format
/// only.)
///
/// Call [`finish`](PcapWriter::finish), as with [`CaptureWriter`].
#[derive(Debug)]
pub struct PcapWriter {
    out: Output,
}

impl PcapWriter {
    /// Creates (or overwrites) a file, compressed if its name ends in `.gz`; `-` is standard output.
    ///
    /// # Errors
    ///
    /// The file cannot be created or written.
    pub fn create(path: impl AsRef<Path>) -> Result<PcapWriter, WriteError> {
        PcapWriter::start(Output::create(path.as_ref())?)
    }

    /// Writes to anything, uncompressed.
    ///
    /// # Errors
    ///
    /// The header cannot be written.
    pub fn new(out: impl Write + Send + 'static) -> Result<PcapWriter, WriteError> {
        PcapWriter::start(Output::stream(Box::new(out), "the stream".to_owned(), false))
    }

    fn start(mut out: Output) -> Result<PcapWriter, WriteError> {
        let mut header = Vec::with_capacity(24);
        header.extend(MAGIC_NANO.to_le_bytes());
        // Version 2.4, time zone and accuracy 0.
        header.extend([2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        header.extend(PACKET_LEN_MAX.to_le_bytes());
        header.extend(u32::from(LinkType::ETHERNET.0).to_le_bytes());
        out.write_all(&header)?;
        Ok(PcapWriter { out })
    }

    /// Writes one Ethernet frame; `orig_len` below `data.len()` is taken as `data.len()`.
    ///
    /// # Errors
    ///
    /// As [`CaptureWriter::write`].
    pub fn write(&mut self, time_ns: u64, data: &[u8], orig_len: u32) -> Result<(), WriteError> {
        let len = packet_len(data)?;
        let seconds =
            u32::try_from(time_ns / 1_000_000_000).map_err(|_| WriteError::TimeTooLate { time_ns })?;
        let fraction = (time_ns % 1_000_000_000) as u32;
        let mut header = [0; 16];
        for (field, value) in header
            .chunks_exact_mut(4)
            .zip([seconds, fraction, len, orig_len.max(len)].map(u32::to_le_bytes))
        {
            field.copy_from_slice(&value);
        }
        self.out.write_all(&header)?;
        self.out.write_all(data)
    }

    /// Writes what is still buffered, and ends the gzip stream.
    ///
    /// # Errors
    ///
    /// Writing failed now, or before: then the file is not whole.
    pub fn finish(self) -> Result<(), WriteError> {
        self.out.finish()
    }
}

fn check_interfaces(interfaces: &[&str]) -> Result<(), WriteError> {
    if interfaces.len() > INTERFACE_COUNT_MAX {
        return Err(WriteError::TooManyInterfaces {
            count: interfaces.len(),
        });
    }
    match interfaces
        .iter()
        .map(|name| name.len())
        .find(|len| *len > NAME_LEN_MAX)
    {
        Some(len) => Err(WriteError::NameTooLong { len }),
        None => Ok(()),
    }
}

/// As much of a comment as is written. A character has at most four bytes, so the search is short.
fn bounded(comment: &str) -> &str {
    bounded_to(comment, COMMENT_LEN_MAX)
}

fn bounded_to(text: &str, len: usize) -> &str {
    let longest = text.len().min(len);
    (0..=longest)
        .rev()
        .find_map(|len| text.get(..len))
        .unwrap_or_default()
}

fn packet_len(data: &[u8]) -> Result<u32, WriteError> {
    match u32::try_from(data.len()) {
        Ok(len) if len <= PACKET_LEN_MAX => Ok(len),
        _ => Err(WriteError::PacketTooLong { len: data.len() }),
    }
}

/// Where the bytes go, buffered, with a name for messages.
struct Output {
    sink: Sink,
    target: String,
    failed: bool,
}

enum Sink {
    Plain(BufWriter<Box<dyn Write + Send>>),
    Gzip(GzEncoder<BufWriter<Box<dyn Write + Send>>>),
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output")
            .field("target", &self.target)
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

impl Output {
    fn create(path: &Path) -> Result<Output, WriteError> {
        if path == Path::new("-") {
            return Ok(Output::stream(
                Box::new(io::stdout()),
                "standard output".to_owned(),
                false,
            ));
        }
        let file = File::create(path).map_err(|source| WriteError::Create {
            path: path.to_owned(),
            source,
        })?;
        let compress = path.extension().is_some_and(|extension| extension == "gz");
        Ok(Output::stream(
            Box::new(file),
            path.display().to_string(),
            compress,
        ))
    }

    fn stream(out: Box<dyn Write + Send>, target: String, compress: bool) -> Output {
        let out = BufWriter::with_capacity(WRITE_BUFFER_LEN, out);
        // GzEncoder's header has neither a time nor a name, so that the bytes are the same each time.
        let sink = if compress {
            Sink::Gzip(GzEncoder::new(out, Compression::default()))
        } else {
            Sink::Plain(out)
        };
        Output {
            sink,
            target,
            failed: false,
        }
    }

    fn write_all(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        if self.failed {
            return Err(WriteError::AfterError {
                target: self.target.clone(),
            });
        }
        let result = match &mut self.sink {
            Sink::Plain(sink) => sink.write_all(bytes),
            Sink::Gzip(sink) => sink.write_all(bytes),
        };
        result.map_err(|source| {
            // Part of a block may be out: anything behind it would be misread.
            self.failed = true;
            WriteError::Write {
                target: self.target.clone(),
                source,
            }
        })
    }

    fn finish(self) -> Result<(), WriteError> {
        let Output { sink, target, failed } = self;
        if failed {
            return Err(WriteError::AfterError { target });
        }
        let result = match sink {
            Sink::Plain(mut sink) => sink.flush(),
            Sink::Gzip(sink) => sink.finish().and_then(|mut sink| sink.flush()),
        };
        result.map_err(|source| WriteError::Write { target, source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A place to write to that can be read afterwards.
    #[derive(Clone, Default)]
    struct Shared(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            self.0
                .lock()
                .expect("no test panics while it writes")
                .extend_from_slice(buf);
            Ok(buf.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Shared {
        fn take(&self) -> Vec<u8> {
            std::mem::take(&mut self.0.lock().expect("no test panics while it writes"))
        }
    }

    fn packet<'a>(data: &'a [u8], comment: Option<&'a str>, direction: PacketDirection) -> OutPacket<'a> {
        OutPacket {
            time_ns: 0x0102_0304_0506_0708,
            interface: 0,
            data,
            orig_len: 0,
            comment,
            direction,
        }
    }

    #[test]
    fn pcapng_bytes_are_as_the_format_draws_them() {
        let shared = Shared::default();
        let mut writer = CaptureWriter::new(shared.clone(), &["lan"]).expect("header");
        let head = {
            let mut head = vec![0x0a, 0x0d, 0x0d, 0x0a];
            let len = (28 + 4 + USER_APPLICATION.len().next_multiple_of(4) + 4) as u32;
            head.extend(len.to_le_bytes());
            head.extend([0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0]);
            head.extend([0xff; 8]);
            head.extend([4, 0, USER_APPLICATION.len() as u8, 0]);
            head.extend(USER_APPLICATION.as_bytes());
            head.resize(head.len().next_multiple_of(4), 0);
            head.extend([0; 4]);
            head.extend(len.to_le_bytes());
            head.extend([1, 0, 0, 0, 40, 0, 0, 0, 1, 0, 0, 0, 0, 0, 4, 0]);
            head.extend([
                2, 0, 3, 0, b'l', b'a', b'n', 0, 9, 0, 1, 0, 9, 0, 0, 0, 0, 0, 0, 0, 40, 0, 0, 0,
            ]);
            head
        };
        writer
            .write(&packet(&[1, 2, 3, 4, 5], Some("hi"), PacketDirection::Sent))
            .expect("packet");
        writer
            .write(&packet(&[], None, PacketDirection::Unknown))
            .expect("packet");
        writer.finish().expect("finish");
        let first = [
            6, 0, 0, 0, 60, 0, 0, 0, 0, 0, 0, 0, 4, 3, 2, 1, 8, 7, 6, 5, 5, 0, 0, 0, 5, 0, 0, 0, 1, 2, 3, 4,
            5, 0, 0, 0, 1, 0, 2, 0, b'h', b'i', 0, 0, 2, 0, 4, 0, 2, 0, 0, 0, 0, 0, 0, 0, 60, 0, 0, 0,
        ];
        let second = [
            6, 0, 0, 0, 32, 0, 0, 0, 0, 0, 0, 0, 4, 3, 2, 1, 8, 7, 6, 5, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0, 0,
        ];
        assert_eq!(shared.take(), [&head[..], &first, &second].concat());
    }

    #[test]
    fn names_of_addresses_are_as_the_format_draws_them_and_have_their_bounds() {
        let shared = Shared::default();
        let mut writer = CaptureWriter::new(shared.clone(), &["lan"]).expect("header");
        let v4: IpAddr = "10.0.0.1".parse().expect("good");
        let v6: IpAddr = "2001:db8::2".parse().expect("good");
        writer.names([(v4, "node1"), (v6, "ab")]).expect("names");
        writer.names((0..2_000).map(|_| (v4, "x"))).expect("names");
        writer.finish().expect("finish");
        let written = shared.take();
        let block = [
            4, 0, 0, 0, 56, 0, 0, 0, 1, 0, 10, 0, 10, 0, 0, 1, b'n', b'o', b'd', b'e', b'1', 0, 0, 0, 2, 0,
            19, 0, 0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, b'a', b'b', 0, 0, 0, 0, 0, 0,
            56, 0, 0, 0,
        ];
        let at = written
            .windows(block.len())
            .position(|w| w == block)
            .expect("the block");
        let many = &written[at + block.len()..];
        assert_eq!(many.len(), 12 + 12 * NAME_COUNT_MAX + 4);
        let long = "é".repeat(NAME_LEN_MAX);
        assert_eq!(bounded_to(&long, NAME_LEN_MAX).len(), NAME_LEN_MAX - 1);
    }

    #[test]
    fn classic_bytes_are_as_the_format_draws_them() {
        let shared = Shared::default();
        let mut writer = PcapWriter::new(shared.clone()).expect("header");
        writer.write(3_000_000_007, &[9, 8], 5).expect("packet");
        assert!(matches!(
            writer.write(u64::MAX, &[], 0),
            Err(WriteError::TimeTooLate { time_ns: u64::MAX })
        ));
        writer.finish().expect("finish");
        let expected = [
            0x4d, 0x3c, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0, 3, 0, 0, 0,
            7, 0, 0, 0, 2, 0, 0, 0, 5, 0, 0, 0, 9, 8,
        ];
        assert_eq!(shared.take(), expected);
    }

    #[test]
    fn what_is_out_of_bounds_is_refused_and_the_writer_goes_on() {
        let shared = Shared::default();
        let mut writer = CaptureWriter::new(shared.clone(), &["a"]).expect("header");
        let undeclared = OutPacket {
            interface: 1,
            ..packet(&[], None, PacketDirection::Unknown)
        };
        assert!(matches!(
            writer.write(&undeclared),
            Err(WriteError::NoSuchInterface {
                interface: 1,
                declared: 1
            })
        ));
        let long = vec![0; PACKET_LEN_MAX as usize + 1];
        let too_long = packet(&long, None, PacketDirection::Unknown);
        assert!(matches!(
            writer.write(&too_long),
            Err(WriteError::PacketTooLong { .. })
        ));
        writer
            .write(&packet(&long[1..], None, PacketDirection::Unknown))
            .expect("the longest packet");
        writer.finish().expect("finish");
        assert!(shared.take().len() > PACKET_LEN_MAX as usize);
        let names = vec![""; INTERFACE_COUNT_MAX + 1];
        assert!(matches!(
            CaptureWriter::new(Shared::default(), &names),
            Err(WriteError::TooManyInterfaces { .. })
        ));
        let name = "x".repeat(NAME_LEN_MAX + 1);
        assert!(matches!(
            CaptureWriter::new(Shared::default(), &[&name]),
            Err(WriteError::NameTooLong { .. })
        ));
    }

    /// Takes `room` bytes, then says that the disk is full.
    struct FullDisk {
        room: usize,
    }

    impl Write for FullDisk {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            if self.room == 0 && !buf.is_empty() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let len = buf.len().min(self.room);
            self.room -= len;
            Ok(len)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_is_an_error_wherever_it_shows() {
        let is_full = |error: &WriteError| matches!(error, WriteError::Write { source, .. } if source.kind() == io::ErrorKind::StorageFull);
        // All of it is still buffered: finish must say so.
        let writer = CaptureWriter::new(FullDisk { room: 10 }, &["a"]).expect("buffered");
        assert!(is_full(&writer.finish().expect_err("no room")));
        // It shows in the middle, and all that follows fails.
        let mut writer = CaptureWriter::new(FullDisk { room: 100_000 }, &["a"]).expect("buffered");
        let data = [0; 1000];
        let big = packet(&data, None, PacketDirection::Unknown);
        let error = (0..1000)
            .find_map(|_| writer.write(&big).err())
            .expect("a megabyte does not fit");
        assert!(is_full(&error));
        assert!(matches!(writer.write(&big), Err(WriteError::AfterError { .. })));
        assert!(matches!(writer.finish(), Err(WriteError::AfterError { .. })));
        let writer = PcapWriter::new(FullDisk { room: 23 }).expect("buffered");
        assert!(is_full(&writer.finish().expect_err("no room")));
        // The same below a compressor.
        for room in 0..12 {
            let mut out = Output::stream(Box::new(FullDisk { room }), "test".to_owned(), true);
            out.write_all(&[1, 2, 3]).expect("buffered");
            assert!(is_full(&out.finish().expect_err("no room")));
        }
    }

    #[test]
    fn a_dropped_writer_flushes() {
        let shared = Shared::default();
        let mut writer = PcapWriter::new(shared.clone()).expect("header");
        writer.write(0, &[1], 1).expect("packet");
        drop(writer);
        assert_eq!(shared.take().len(), 24 + 16 + 1);
    }
}
