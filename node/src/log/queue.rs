//! Lines on their way to standard error. Whoever logs puts a line into the queue and goes on, or loses it if there is no
//! room; a thread writes them, and waits for the reader alone.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::warn;

/// Lines that wait, at most.
const LINE_COUNT_MAX: usize = 1024;
/// Bytes of all lines that wait, at most.
const BYTE_COUNT_MAX: usize = 1 << 20;
/// Somebody who shares standard error may have made it one that does not wait: then it is asked again after this time.
const AGAIN_AFTER: Duration = Duration::from_millis(10);

/// What waits for standard error.
pub(super) static LINES: Queue = Queue::new();

/// A bounded queue of whole lines.
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    /// A line has come.
    filled: Condvar,
    /// The last line is written.
    emptied: Condvar,
    dropped: AtomicU64,
}

struct Waiting {
    lines: VecDeque<Vec<u8>>,
    byte_count: usize,
    /// Whether a line that was taken out is being written.
    writing: bool,
    /// Lines that found no room since that was said last.
    unsaid: u64,
}

impl Queue {
    const fn new() -> Self {
        Queue {
            waiting: Mutex::new(Waiting {
                lines: VecDeque::new(),
                byte_count: 0,
                writing: false,
                unsaid: 0,
            }),
            filled: Condvar::new(),
            emptied: Condvar::new(),
            dropped: AtomicU64::new(0),
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // It is whole after every statement.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lines that were lost: there was no room for them, or they could not be written.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn push(&self, line: &[u8]) {
        let mut waiting = self.waiting();
        if waiting.lines.len() >= LINE_COUNT_MAX || line.len() > BYTE_COUNT_MAX - waiting.byte_count {
            waiting.unsaid = waiting.unsaid.saturating_add(1);
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        waiting.byte_count += line.len();
        waiting.lines.push_back(line.to_vec());
        drop(waiting);
        self.filled.notify_one();
    }

    /// The next line, once there is one. The one before counts as written.
    fn next(&self) -> Vec<u8> {
        let mut waiting = self.waiting();
        waiting.writing = false;
        loop {
            if let Some(line) = waiting.lines.pop_front() {
                waiting.byte_count -= line.len();
                waiting.writing = true;
                return line;
            }
            self.emptied.notify_all();
            waiting = self.filled.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// How many lines found no room, to be said now: there is room again.
    fn unsaid(&self) -> Option<u64> {
        let mut waiting = self.waiting();
        let room = waiting.lines.len() <= LINE_COUNT_MAX / 2 && waiting.byte_count <= BYTE_COUNT_MAX / 2;
        if waiting.unsaid == 0 || !room {
            return None;
        }
        Some(std::mem::take(&mut waiting.unsaid))
    }

    /// Writes what comes, until `until` says that it is enough.
    fn write(&self, out: &mut impl Write, mut until: impl FnMut() -> bool) {
        while !until() {
            let line = self.next();
            if write_all(out, &line).is_err() {
                // Who read it has gone. Another line to say so would fare no better.
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
            if let Some(lines) = self.unsaid() {
                warn!(
                    lines,
                    "lines of the log were lost here, as nobody read them in time"
                );
            }
        }
    }

    /// Waits until nothing is left to be written; whether that was within the time.
    pub(super) fn written_within(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        let mut waiting = self.waiting();
        while waiting.writing || !waiting.lines.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.emptied.wait_timeout(waiting, left);
            (waiting, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
        true
    }
}

/// As [`Write::write_all`], also where writing does not wait.
fn write_all(out: &mut impl Write, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match out.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(n) => bytes = bytes.get(n..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => (),
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(AGAIN_AFTER),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Starts the thread that writes to standard error, for as long as the process lives.
pub(super) fn spawn() -> io::Result<()> {
    let mut out = output();
    let thread = std::thread::Builder::new().name("log".to_owned());
    thread.spawn(move || {
        own_nothing();
        LINES.write(&mut out, || false);
    })?;
    Ok(())
}

/// Standard error, without the lock of the standard library's: who else writes there must not wait for this thread.
#[cfg(unix)]
fn output() -> Box<dyn Write + Send> {
    use std::os::fd::AsFd;
    match io::stderr().as_fd().try_clone_to_owned() {
        Ok(own) => Box::new(std::fs::File::from(own)),
        Err(_) => Box::new(io::stderr()),
    }
}

#[cfg(not(unix))]
fn output() -> Box<dyn Write + Send> {
    Box::new(io::stderr())
}

/// The thread is there before root is dropped. The system takes its capabilities with the user, as it keeps none; new
/// privileges it gives up by itself.
#[cfg(unix)]
fn own_nothing() {
    // Without it, it could gain nothing either: it starts no program.
    let _ = rustix::thread::set_no_new_privs(true);
}

#[cfg(not(unix))]
fn own_nothing() {}

/// Makes one line of what is written to it.
pub(super) struct Writer {
    to: &'static Queue,
    line: Vec<u8>,
}

impl Writer {
    pub(super) fn new(to: &'static Queue) -> Self {
        Writer { to, line: Vec::new() }
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.line.is_empty() {
            self.to.push(&self.line);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

    use tracing_subscriber::layer::SubscriberExt;
    use tracing_subscriber::{Registry, fmt};

    use super::*;

    /// Takes a line when it is let.
    struct Slow {
        begun: SyncSender<()>,
        let_on: Receiver<()>,
        taken: SyncSender<Vec<u8>>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.begun.send(()).expect("the test waits");
            self.let_on.recv().expect("the test lets it on");
            self.taken.send(bytes.to_vec()).expect("the test waits");
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_stands_still_loses_lines_and_is_told_how_many() {
        static QUEUE: Queue = Queue::new();
        let (begun, begins) = sync_channel(0);
        let (on, let_on) = sync_channel(LINE_COUNT_MAX + 2);
        let (taken, takes) = sync_channel(LINE_COUNT_MAX + 2);
        let mut out = Slow { begun, let_on, taken };
        let writer = std::thread::spawn(move || {
            let lines = fmt::layer().with_ansi(false).with_writer(|| Writer::new(&QUEUE));
            let registry = Registry::default().with(lines);
            let mut left = LINE_COUNT_MAX + 2;
            tracing::subscriber::with_default(registry, || {
                QUEUE.write(&mut out, || {
                    left = left.wrapping_sub(1);
                    left == usize::MAX
                });
            });
        });
        // One is being written, as many as there is room for wait, and 7 find none.
        QUEUE.push(b"0\n");
        begins.recv().expect("it writes");
        for n in 1..LINE_COUNT_MAX + 8 {
            QUEUE.push(format!("{n}\n").as_bytes());
        }
        assert_eq!(QUEUE.dropped(), 7);
        assert!(!QUEUE.written_within(Duration::ZERO), "nobody has read them");
        on.send(()).expect("it waits");
        for _ in 0..LINE_COUNT_MAX + 1 {
            begins.recv().expect("it writes");
            on.send(()).expect("it waits");
        }
        writer.join().expect("no panic");
        let lines: Vec<String> = takes
            .into_iter()
            .map(|line| String::from_utf8(line).expect("text"))
            .collect();
        let (said, others): (Vec<_>, Vec<_>) = lines.iter().partition(|line| line.contains("were lost"));
        let numbers = (0..=LINE_COUNT_MAX).map(|n| format!("{n}\n"));
        assert!(others.into_iter().cloned().eq(numbers), "whole and in order");
        assert!(said.len() == 1 && said[0].contains("lines=7"), "{said:?}");
        assert_eq!(QUEUE.dropped(), 7);
    }

    #[test]
    fn long_lines_that_wait_are_bounded_by_their_bytes() {
        let queue = Queue::new();
        let long = vec![b'x'; BYTE_COUNT_MAX / 4];
        for _ in 0..5 {
            queue.push(&long);
        }
        assert_eq!((queue.dropped(), queue.waiting().lines.len()), (1, 4));
        queue.push(b"x");
        assert_eq!(queue.dropped(), 2);
        queue.next();
        queue.push(b"x");
        assert_eq!(queue.dropped(), 2, "there is room again");
    }

    /// Its reader has gone.
    struct Gone;

    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_cannot_be_written_is_counted_and_the_end_does_not_wait_for_it() {
        let queue = Arc::new(Queue::new());
        for _ in 0..3 {
            queue.push(b"a line\n");
        }
        let writer = Arc::clone(&queue);
        let left = std::cell::Cell::new(4);
        let thread = std::thread::spawn(move || {
            writer.write(&mut Gone, || {
                left.set(left.get() - 1);
                left.get() < 0
            });
        });
        assert!(queue.written_within(Duration::from_secs(60)));
        assert_eq!(queue.dropped(), 3);
        queue.push(b"the fourth, which lets the thread end\n");
        thread.join().expect("no panic");
        assert_eq!(queue.dropped(), 4);
    }
}
