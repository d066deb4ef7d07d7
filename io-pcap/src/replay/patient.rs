//! Reading what may keep one waiting for ever (pipes, FIFOs, terminals) such that the wait can be ended.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

/// Bytes that one read takes at most.
const CHUNK_LEN: usize = 64 * 1024;
/// Chunks that wait at most; two more are in hands.
const CHUNK_COUNT_MAX: usize = 4;
/// Time between two looks at whether to go on waiting.
const PATIENCE: Duration = Duration::from_millis(20);

/// Says whether to stop.
pub(super) type Stop = Arc<dyn Fn() -> bool + Send + Sync>;

/// A file or standard input that a thread of its own opens and reads: a signal does not end a read that blocks,
/// so who must be able to stop does not do it himself. Once `stop` says so, it is at its end.
pub(super) struct Patient {
    chunks: Receiver<io::Result<Vec<u8>>>,
    chunk: Vec<u8>,
    /// Bytes of `chunk` that were taken.
    taken: usize,
    stop: Stop,
}

impl Patient {
    /// Opens `path`, `-` for standard input, as soon as somebody is at the other end. If `stop` says so before, it
    /// is empty.
    pub(super) fn open(path: &Path, stop: Stop) -> io::Result<Self> {
        let (sender, chunks) = sync_channel(CHUNK_COUNT_MAX);
        let path = path.to_owned();
        // The thread is left to itself: it ends with its input, when nobody listens any more, or with the process.
        thread::Builder::new()
            .name("capture".to_owned())
            .spawn(move || send_all(&path, &sender))?;
        let mut patient = Patient {
            chunks,
            chunk: Vec::new(),
            taken: 0,
            stop,
        };
        // The first chunk is empty: it says that the path is open, or why not.
        patient.next_chunk()?;
        Ok(patient)
    }

    /// Waits for a chunk; `false` if there is none any more.
    fn next_chunk(&mut self) -> io::Result<bool> {
        loop {
            if (self.stop)() {
                return Ok(false);
            }
            match self.chunks.recv_timeout(PATIENCE) {
                Ok(chunk) => {
                    (self.chunk, self.taken) = (chunk?, 0);
                    return Ok(true);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(false),
            }
        }
    }
}

impl Read for Patient {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.taken >= self.chunk.len() {
            if !self.next_chunk()? {
                return Ok(0);
            }
        }
        let mut rest = self.chunk.get(self.taken..).unwrap_or_default();
        let len = rest.read(buf)?;
        self.taken += len;
        Ok(len)
    }
}

/// Opens and reads to the end, or until nobody listens any more.
fn send_all(path: &Path, to: &SyncSender<io::Result<Vec<u8>>>) {
    let result = open(path).and_then(|mut input| {
        let mut chunk = Vec::new();
        while to.send(Ok(chunk)).is_ok() {
            chunk = vec![0; CHUNK_LEN];
            let len = loop {
                match input.read(&mut chunk) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    result => break result?,
                }
            };
            if len == 0 {
                break;
            }
            chunk.truncate(len);
        }
        Ok(())
    });
    if let Err(error) = result {
        // If nobody listens, nobody wants to know.
        let _ = to.send(Err(error));
    }
}

fn open(path: &Path) -> io::Result<Box<dyn Read>> {
    Ok(if path == Path::new("-") {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(path)?)
    })
}
