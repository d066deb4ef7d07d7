//! What can be wrong with a capture file.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::FileFormat;
use super::linktype::LinkType;
use super::source::SourceError;

/// Why a capture could not be read, or not to its end.
///
/// Byte offsets count the bytes of the capture itself: within a gzip file, of what it decompresses to.
/// Every packet that `packets_read` counts was delivered before the error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CaptureError {
    /// The file could not be opened.
    #[error("cannot open {}: {message}", path.display())]
    Open {
        /// The path as it was given.
        path: PathBuf,
        /// The kind of the system's error.
        kind: io::ErrorKind,
        /// The system's error in words.
        message: String,
    },
    /// Reading failed for a reason outside of the file.
    #[error("reading failed at byte {byte_offset}, after {}: {message}", packets(*packets_read))]
    Io {
        /// Packets delivered before.
        packets_read: u64,
        /// How far reading came.
        byte_offset: u64,
        /// The kind of the system's error.
        kind: io::ErrorKind,
        /// The system's error in words.
        message: String,
    },
    /// No capture of a kind that is known here.
    #[error(
        "not a capture file: {}; expected pcap or pcapng, plain or compressed with gzip",
        Foreign(first_bytes)
    )]
    NotACapture {
        /// What it begins with: at most 16 bytes, none if it is empty.
        first_bytes: Vec<u8>,
    },
    /// A version of the format that is not known here.
    #[error("{format} version {major}.{minor} is not supported")]
    UnsupportedVersion {
        /// The format of the file.
        format: FileFormat,
        /// Major version.
        major: u16,
        /// Minor version.
        minor: u16,
    },
    /// A classic pcap file whose only link type cannot be made into Ethernet frames. (In pcapng the link type
    /// belongs to an interface; there, [`Framer`](super::Framer) counts the packets that it cannot take.)
    #[error(
        "unsupported link type {link}: supported are Ethernet, raw IP, BSD loopback and Linux cooked captures"
    )]
    UnsupportedLink {
        /// The link type.
        link: LinkType,
    },
    /// The file ends too early: in the middle of something.
    #[error(
        "cut short: the capture ends at byte {byte_offset} in the middle of {what}; {} before the cut {} read",
        packets(*packets_read),
        if *packets_read == 1 { "was" } else { "were" }
    )]
    Cut {
        /// Packets delivered before the cut: all that are whole.
        packets_read: u64,
        /// Where it ends: the number of bytes that could be read.
        byte_offset: u64,
        /// What was cut.
        what: &'static str,
    },
    /// The contents make no sense, and what follows cannot be found.
    #[error("corrupt at byte {byte_offset}, in or before packet {}: {what}", packets_read + 1)]
    Corrupt {
        /// Packets delivered before; the corrupt one would be the next, counted from one.
        packets_read: u64,
        /// Where the corrupt record or block begins.
        byte_offset: u64,
        /// What is wrong with it.
        what: String,
    },
}

fn packets(n: u64) -> String {
    format!("{n} packet{}", if n == 1 { "" } else { "s" })
}

impl CaptureError {
    /// Opening `path` failed.
    pub(crate) fn open(path: &Path, error: &io::Error) -> Self {
        CaptureError::Open {
            path: path.to_owned(),
            kind: error.kind(),
            message: error.to_string(),
        }
    }
}

/// Why a format reader stopped; [`Fault::into_error`] adds what only the reader knows.
#[derive(Debug)]
pub(super) enum Fault {
    Source(SourceError),
    /// The source ended in the middle of this.
    Cut(&'static str),
    Corrupt {
        byte_offset: u64,
        what: String,
    },
    Version {
        format: FileFormat,
        major: u16,
        minor: u16,
    },
    Link(LinkType),
    Foreign(Vec<u8>),
}

impl From<SourceError> for Fault {
    fn from(error: SourceError) -> Self {
        Fault::Source(error)
    }
}

impl Fault {
    /// `byte_offset` is how far the source was read.
    pub(super) fn into_error(self, packets_read: u64, byte_offset: u64) -> CaptureError {
        match self {
            Fault::Source(SourceError::Io(error)) => CaptureError::Io {
                packets_read,
                byte_offset,
                kind: error.kind(),
                message: error.to_string(),
            },
            Fault::Source(SourceError::GzipCut) => CaptureError::Cut {
                packets_read,
                byte_offset,
                what: "the gzip stream",
            },
            Fault::Source(SourceError::GzipCorrupt(message)) => CaptureError::Corrupt {
                packets_read,
                byte_offset,
                what: format!("the gzip stream: {message}"),
            },
            Fault::Cut(what) => CaptureError::Cut {
                packets_read,
                byte_offset,
                what,
            },
            Fault::Corrupt { byte_offset, what } => CaptureError::Corrupt {
                packets_read,
                byte_offset,
                what,
            },
            Fault::Version { format, major, minor } => {
                CaptureError::UnsupportedVersion { format, major, minor }
            }
            Fault::Link(link) => CaptureError::UnsupportedLink { link },
            Fault::Foreign(first_bytes) => CaptureError::NotACapture { first_bytes },
        }
    }
}

/// Says what a foreign file is, as far as its first bytes tell.
struct Foreign<'a>(&'a [u8]);

impl fmt::Display for Foreign<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// What people hand over by mistake, by magic number, and what to do about it.
        const KNOWN: [(&[u8], &str); 12] = [
            (b"\x28\xb5\x2f\xfd", "zstd: decompress it first"),
            (b"\xfd7zXZ\0", "xz: decompress it first"),
            (b"BZh", "bzip2: decompress it first"),
            (b"\x04\x22\x4d\x18", "lz4: decompress it first"),
            (b"\x1f\x8b", "gzip within gzip: decompress it once"),
            (b"PK\x03\x04", "a zip archive: extract it first"),
            (b"\x7fELF", "an executable"),
            (b"snoop\0\0\0", "a snoop capture: convert it with editcap"),
            (b"GMBU", "a Network Monitor capture: convert it with editcap"),
            (b"RTSS", "a Network Monitor capture: convert it with editcap"),
            (b"XCP\0", "a NetXRay capture: convert it with editcap"),
            (b"TRSNIFF data", "a Sniffer capture: convert it with editcap"),
        ];
        if self.0.is_empty() {
            return f.write_str("it is empty");
        }
        f.write_str("it begins with")?;
        for byte in self.0 {
            write!(f, " {byte:02x}")?;
        }
        let is_text = |b: &u8| b.is_ascii_graphic() || b.is_ascii_whitespace();
        match KNOWN.iter().find(|(magic, _)| self.0.starts_with(magic)) {
            Some((_, name)) => write!(f, " ({name})"),
            None if self.0.iter().all(is_text) => {
                write!(f, " (text: \"{}\")", self.0.escape_ascii())
            }
            None => Ok(()),
        }
    }
}
