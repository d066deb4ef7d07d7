//! Where a capture comes from, such that it can be read twice.

use std::fmt;
use std::fs;
use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::patient::{Patient, Stop};
use crate::file::{CaptureError, CaptureReader};

/// The most bytes that are kept of a capture that cannot be read twice: 256 MiB.
pub const SPOOL_LEN_MAX: u64 = 256 << 20;

/// A capture file, or what came in through a pipe.
#[derive(Clone)]
pub struct CaptureSource {
    path: PathBuf,
    /// All of it, where it could be read only once.
    spooled: Option<Spooled>,
    /// Ends the wait for a pipe.
    stop: Stop,
}

impl fmt::Debug for CaptureSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CaptureSource")
            .field("path", &self.path)
            .field("spooled", &self.spooled)
            .finish_non_exhaustive()
    }
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
            stop: Arc::new(|| false),
        }
    }

    /// Where the capture comes through a pipe, a FIFO or the like, waiting for more of it ends when `stop` says so,
    /// and so does the capture. It is asked some fifty times a second, and should be what `watch` of
    /// [`replay`](super::replay) asks, too.
    #[must_use]
    pub fn stop_when(mut self, stop: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        self.stop = Arc::new(stop);
        self
    }

    /// A capture in memory, by a name.
    pub fn from_bytes(name: impl Into<PathBuf>, bytes: Vec<u8>) -> Self {
        CaptureSource {
            path: name.into(),
            spooled: Some(Spooled(bytes.into())),
            stop: Arc::new(|| false),
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

    /// Whether reading it may wait for somebody: no for what does not exist, which opening says.
    fn may_block(&self) -> bool {
        self.is_stdin() || fs::metadata(&self.path).is_ok_and(|meta| !meta.is_file() && !meta.is_dir())
    }

    /// Opens it and reads its file header.
    ///
    /// # Errors
    ///
    /// As [`CaptureReader::open`].
    pub fn open(&self) -> Result<CaptureReader, CaptureError> {
        match &self.spooled {
            Some(bytes) => CaptureReader::new(Cursor::new(bytes.clone())),
            None if self.may_block() => {
                let patient = Patient::open(&self.path, self.stop.clone());
                CaptureReader::new(patient.map_err(|error| CaptureError::open(&self.path, &error))?)
            }
            None => CaptureReader::open(&self.path),
        }
    }

    /// Sees to it that [`open`](CaptureSource::open) can be called twice: what is no regular file is read into
    /// memory, up to [`SPOOL_LEN_MAX`]. A file that does not exist and a folder are left for `open` to say.
    ///
    /// # Errors
    ///
    /// [`SpoolError`].
    pub fn make_repeatable(&mut self) -> Result<(), SpoolError> {
        if self.spooled.is_some() || !self.may_block() {
            return Ok(());
        }
        let mut bytes = Vec::new();
        Patient::open(&self.path, self.stop.clone())
            .and_then(|patient| patient.take(SPOOL_LEN_MAX + 1).read_to_end(&mut bytes))
            .map_err(|source| SpoolError::Read {
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
