//! The bytes of a capture: decompressed if need be, counted, and never more of them in memory than a buffer.

use std::error::Error;
use std::fmt;
use std::io::{self, BufRead, BufReader, Cursor, Read};

use flate2::bufread::MultiGzDecoder;

use super::error::Fault;

/// Size of each read buffer, in bytes.
const BUFFER_LEN: usize = 64 * 1024;

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Why no more bytes come.
#[derive(Debug)]
pub(super) enum SourceError {
    /// The operating system's error.
    Io(io::Error),
    /// The gzip stream ends before its trailer.
    GzipCut,
    /// The gzip stream does not decompress, or its checksum is wrong.
    GzipCorrupt(String),
}

/// A byte stream with a position.
pub(super) struct Source {
    inner: BufReader<Box<dyn Read + Send>>,
    offset: u64,
}

impl Source {
    /// Looks at the first two bytes and decompresses if they are gzip's, whatever the file is called.
    pub(super) fn new(input: impl Read + Send + 'static) -> Result<Source, SourceError> {
        let mut raw = RawInput(input);
        let mut magic = [0; 2];
        let mut len = 0;
        while let Some(rest) = magic.get_mut(len..).filter(|rest| !rest.is_empty()) {
            match raw.read(rest) {
                Ok(0) => break,
                Ok(n) => len += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(classify(error)),
            }
        }
        let head = magic.get(..len).unwrap_or_default().to_vec();
        let is_gzip = head == GZIP_MAGIC;
        let whole = Cursor::new(head).chain(raw);
        let inner: Box<dyn Read + Send> = if is_gzip {
            Box::new(MultiGzDecoder::new(BufReader::with_capacity(BUFFER_LEN, whole)))
        } else {
            Box::new(whole)
        };
        Ok(Source {
            inner: BufReader::with_capacity(BUFFER_LEN, inner),
            offset: 0,
        })
    }

    /// How many bytes were taken.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Fills `buf` as far as the source goes; less than `buf.len()` means that it ended.
    pub(super) fn read_up_to(&mut self, buf: &mut [u8]) -> Result<usize, SourceError> {
        let mut len = 0;
        while let Some(rest) = buf.get_mut(len..).filter(|rest| !rest.is_empty()) {
            match self.inner.read(rest) {
                Ok(0) => break,
                Ok(n) => {
                    len += n;
                    self.offset += n as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(classify(error)),
            }
        }
        Ok(len)
    }

    /// Fills `buf`, or says that the source was cut in the middle of `what`.
    pub(super) fn read_exact(&mut self, buf: &mut [u8], what: &'static str) -> Result<(), Fault> {
        let len = self.read_up_to(buf)?;
        if len == buf.len() {
            Ok(())
        } else {
            Err(Fault::Cut(what))
        }
    }

    /// As `read_exact`, but `false` if the source ended just before `buf`: where a file may end.
    pub(super) fn read_exact_or_end(&mut self, buf: &mut [u8], what: &'static str) -> Result<bool, Fault> {
        match self.read_up_to(buf)? {
            0 => Ok(false),
            len if len == buf.len() => Ok(true),
            _ => Err(Fault::Cut(what)),
        }
    }

    /// Passes over `len` bytes without keeping them.
    pub(super) fn skip(&mut self, mut len: u64, what: &'static str) -> Result<(), Fault> {
        while len > 0 {
            let available = match self.inner.fill_buf() {
                Ok(buf) => buf.len() as u64,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(classify(error).into()),
            };
            if available == 0 {
                return Err(Fault::Cut(what));
            }
            let step = available.min(len);
            self.inner.consume(usize::try_from(step).unwrap_or(usize::MAX));
            self.offset += step;
            len -= step;
        }
        Ok(())
    }
}

/// Tells errors of the system from those of the decompressor, which both come as `io::Error`.
struct RawInput<R>(R);

impl<R: Read> Read for RawInput<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buf) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                Err(io::Error::other(RawError(error)))
            }
            result => result,
        }
    }
}

#[derive(Debug)]
struct RawError(io::Error);

impl fmt::Display for RawError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for RawError {}

fn classify(error: io::Error) -> SourceError {
    match error.downcast::<RawError>() {
        Ok(RawError(error)) => SourceError::Io(error),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => SourceError::GzipCut,
        Err(error) => SourceError::GzipCorrupt(error.to_string()),
    }
}
