//! Where a capture comes from, such that it can be read twice.

use std::fs;
use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::file::{CaptureError, CaptureReader};

/// The most bytes that are kept of a capture that cannot be read twice: 256 MiB.
pub const SPOOL_LEN_MAX: u64 = 256 << 20;

/// A capture file, or what came in through a pipe.
#[derive(Clone, Debug)]
pub struct CaptureSource {
    path: PathBuf,
    /// All of it, where it could be read only once.
    spooled: Option<Spooled>,
}

#[derive(Clone, Debug)]
struct Spooled(Arc<[u8]>);

impl AsRef<[u8]> for Spooled {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Why a capture could not be kept to be read twice.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// More than [`SPOOL_LEN_MAX`].
    #[error(
        "{} comes through a pipe and is longer than {} MiB, which is what is kept to read it twice",
        path.display(),
        SPOOL_LEN_MAX >> 20
    )]
    TooLong {
        /// As it was given.
        path: PathBuf,
    },
    /// It could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// As it was given.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

impl CaptureSource {
    /// The capture at `path`; `-` is standard input.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        CaptureSource {
            path: path.into(),
            spooled: None,
        }
    }

    /// A capture in memory, by a name.
    pub fn from_bytes(name: impl Into<PathBuf>, bytes: Vec<u8>) -> Self {
        CaptureSource {
            path: name.into(),
            spooled: Some(Spooled(bytes.into())),
        }
    }

    /// As it was given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of the file, if it is one.
    pub fn file_len(&self) -> Option<u64> {
        let meta = fs::metadata(&self.path).ok().filter(|_| !self.is_stdin())?;
        meta.is_file().then_some(meta.len())
    }

    fn is_stdin(&self) -> bool {
        self.path == Path::new("-")
    }

    /// Opens it and reads its file header.
    ///
    /// # Errors
    ///
    /// As [`CaptureReader::open`].
    pub fn open(&self) -> Result<CaptureReader, CaptureError> {
        match &self.spooled {
            Some(bytes) => CaptureReader::new(Cursor::new(bytes.clone())),
            None => CaptureReader::open(&self.path),
        }
    }

    /// Sees to it that [`open`](CaptureSource::open) can be called twice: what is no regular file is read into
    /// memory, up to [`SPOOL_LEN_MAX`]. A file that does not exist is left for `open` to say.
    ///
    /// # Errors
    ///
    /// [`SpoolError`].
    pub fn make_repeatable(&mut self) -> Result<(), SpoolError> {
        let is_file = || fs::metadata(&self.path).map_or(true, |meta| meta.is_file());
        if self.spooled.is_some() || (!self.is_stdin() && is_file()) {
            return Ok(());
        }
        let mut bytes = Vec::new();
        let read = if self.is_stdin() {
            io::stdin().lock().take(SPOOL_LEN_MAX + 1).read_to_end(&mut bytes)
        } else {
            fs::File::open(&self.path).and_then(|f| f.take(SPOOL_LEN_MAX + 1).read_to_end(&mut bytes))
        };
        read.map_err(|source| SpoolError::Read {
            path: self.path.clone(),
            source,
        })?;
        if bytes.len() as u64 > SPOOL_LEN_MAX {
            return Err(SpoolError::TooLong {
                path: self.path.clone(),
            });
        }
        self.spooled = Some(Spooled(bytes.into()));
        Ok(())
    }
}
