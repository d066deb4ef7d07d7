//! The start of a daemon, watched by a thread of its own: it may take long (tables of gigabytes, DPDK's memory). Who waits for
//! it is told each second what it does, and SIGTERM or SIGINT end it at once, wherever it is: nobody relies on it yet.

use std::fs;
use std::io::{self, ErrorKind, Read};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use signal_hook::SigId;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::{flag, low_level};
use tracing::info;

use crate::Refusal;

/// What a start does is said so often.
const TOLD_EVERY: Duration = Duration::from_secs(1);

/// From now on SIGHUP, SIGUSR1 and SIGUSR2 end this process no more. To be called before anything else: a reload may be
/// asked of a daemon that has not begun, and what would end one without a hand-over must not be a signal that means nothing here.
///
/// # Errors
///
/// The system does not let signals be handled.
pub fn outlive_signals() -> io::Result<()> {
    for signal in [SIGHUP, SIGUSR1, SIGUSR2] {
        flag::register(signal, Arc::new(AtomicBool::new(false)))?;
    }
    Ok(())
}

/// A start under way; over when it is dropped.
pub(crate) struct Start {
    shared: Arc<Shared>,
    /// Its end wakes the thread.
    bell: Option<UnixStream>,
    actions: Vec<SigId>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    /// The last signal that asked for the end; 0: none did.
    signal: Arc<AtomicUsize>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    doing: String,
    /// Files that go with the process.
    files: Vec<PathBuf>,
    over: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Every statement leaves it whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Start {
    /// Begins to watch.
    ///
    /// # Errors
    ///
    /// The system gives no socket or thread, or lets no signals be handled.
    pub(crate) fn watch() -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let (bell, rung) = UnixStream::pair()?;
        rung.set_read_timeout(Some(TOLD_EVERY))?;
        let mut start = Start {
            shared: Arc::clone(&shared),
            bell: None,
            actions: Vec::new(),
            thread: None,
        };
        for signal in [SIGTERM, SIGINT] {
            // In this order: who is woken finds the number.
            let number = signal.unsigned_abs() as usize;
            let noted = flag::register_usize(signal, Arc::clone(&shared.signal), number)?;
            start.actions.push(noted);
            start
                .actions
                .push(low_level::pipe::register(signal, bell.try_clone()?)?);
        }
        start.bell = Some(bell);
        start.thread = Some(
            Builder::new()
                .name("start".to_string())
                .spawn(move || run(&shared, rung))?,
        );
        Ok(start)
    }

    /// What it does from now on, for those who wait.
    pub(crate) fn doing(&self, what: impl Into<String>) {
        self.shared.state().doing = what.into();
    }

    /// Makes a file that goes with the process: either it is not there, or a signal removes it.
    ///
    /// # Errors
    ///
    /// As `make`.
    pub(crate) fn make_file<T>(
        &self,
        file: PathBuf,
        make: impl FnOnce() -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let mut state = self.shared.state();
        let made = make()?;
        state.files.push(file);
        Ok(made)
    }
}

impl Drop for Start {
    fn drop(&mut self) {
        // What comes from here on is for those who listen to it beside us.
        self.shared.state().over = true;
        for action in self.actions.drain(..) {
            low_level::unregister(action);
        }
        if let Some(bell) = self.bell.take() {
            let _ = bell.shutdown(std::net::Shutdown::Both);
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(shared: &Shared, mut rung: UnixStream) {
    loop {
        let heard = rung.read(&mut [0; 8]);
        let state = shared.state();
        if state.over {
            return;
        }
        let signal = shared.signal.load(Ordering::SeqCst);
        if signal != 0 {
            info!(doing = state.doing, "asked to end before it runs");
            for file in &state.files {
                let _ = fs::remove_file(file);
            }
            // The thread that writes lines ends with the process.
            crate::log::finish();
            // Nothing is unwound: DPDK, or the system, may be in the middle of a call that takes minutes.
            low_level::exit(128 + i32::try_from(signal).unwrap_or(0));
        }
        let idle = heard.is_err_and(|e| matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut));
        if idle && !state.doing.is_empty() {
            info!("starting: {}", state.doing);
        }
    }
}
