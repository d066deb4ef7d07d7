//! What a daemon says of itself, to standard error: a line for each thing that happened, as text or as a JSON object.
//!
//! Lines wait in a bounded queue for a thread of their own (`queue`): a reader that stands still stops nobody.

mod queue;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::IsTerminal;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use evenkeel_control::{LogConfig, LogFormat, LogLevel};
use tracing::callsite::Identifier;
use tracing::level_filters::LevelFilter;
use tracing::{Event, Metadata, Subscriber, error};
use tracing_subscriber::layer::{Context, Filter, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt};

use queue::{LINES, Writer};

/// Lines of one kind in a second, at most.
const LINES_PER_SECOND: u32 = 20;
/// Kinds of lines that are told apart; those beyond are limited together.
const KIND_COUNT_MAX: usize = 256;
/// At the end of the process, lines that wait have so long to be written.
const LAST_LINES_TIME: Duration = Duration::from_secs(1);

static SUPPRESSED: AtomicU64 = AtomicU64::new(0);

/// Lines that were left out so far, as there were too many of their kind in a second.
pub fn suppressed() -> u64 {
    SUPPRESSED.load(Ordering::Relaxed)
}

/// Lines that were lost so far, as their reader stood still or is gone.
pub fn dropped() -> u64 {
    LINES.dropped()
}

/// Begins to log; what a thread says as it panics becomes a line, too. A second call changes nothing.
///
/// # Errors
///
/// There is no thread to be had for it: lines are not written then.
pub fn start(config: &LogConfig) -> std::io::Result<()> {
    let level = match config.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let limit = Limit::new(second);
    let out = || Writer::new(&LINES);
    let started = match config.format {
        LogFormat::Text => {
            let lines = fmt::layer()
                .with_writer(out)
                .with_ansi(std::io::stderr().is_terminal());
            Registry::default()
                .with(lines.with_filter(limit).with_filter(level))
                .try_init()
        }
        LogFormat::Json => {
            let lines = fmt::layer().json().flatten_event(true).with_writer(out);
            Registry::default()
                .with(lines.with_filter(limit).with_filter(level))
                .try_init()
        }
    };
    if started.is_err() {
        // Somebody has begun before.
        return Ok(());
    }
    // The usual hook writes to standard error itself, and would wait for a reader that stands still.
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let place = panic.location().map(ToString::to_string);
        let words = panic.payload_as_str().unwrap_or_default();
        // Only if RUST_BACKTRACE asks for it.
        let trace = Backtrace::capture();
        let trace = (trace.status() == BacktraceStatus::Captured).then(|| trace.to_string());
        error!(
            thread = thread.name(),
            place, trace, "a thread has panicked: {words}"
        );
    }));
    queue::spawn()
}

/// Waits until all lines are written, for a second at most; whether they are.
pub fn finish() -> bool {
    LINES.written_within(LAST_LINES_TIME)
}

#[cfg(unix)]
fn second() -> u64 {
    crate::clock::now().as_nanos() / 1_000_000_000
}

#[cfg(not(unix))]
fn second() -> u64 {
    0
}

/// Lets so many lines of a kind through in a second.
struct Limit<F> {
    second: F,
    kinds: Mutex<Vec<Kind>>,
}

struct Kind {
    /// `None`: all that found no place of their own.
    callsite: Option<Identifier>,
    second: u64,
    count: u32,
}

impl<F: Fn() -> u64> Limit<F> {
    fn new(second: F) -> Self {
        Limit {
            second,
            kinds: Mutex::new(Vec::new()),
        }
    }

    fn passes(&self, callsite: Identifier) -> bool {
        let now = (self.second)();
        // A thread that fell while it logged has left nothing half done here.
        let mut kinds = self
            .kinds
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let known = kinds
            .iter()
            .position(|kind| kind.callsite.as_ref() == Some(&callsite));
        let at = known.unwrap_or_else(|| {
            let callsite = (kinds.len() + 1 < KIND_COUNT_MAX).then_some(callsite);
            let others = kinds
                .iter()
                .position(|kind| callsite.is_none() && kind.callsite.is_none());
            others.unwrap_or_else(|| {
                kinds.push(Kind {
                    callsite,
                    second: now,
                    count: 0,
                });
                kinds.len() - 1
            })
        });
        let Some(kind) = kinds.get_mut(at) else {
            return true;
        };
        if kind.second != now {
            kind.second = now;
            kind.count = 0;
        }
        kind.count = kind.count.saturating_add(1);
        let passes = kind.count <= LINES_PER_SECOND;
        if !passes {
            SUPPRESSED.fetch_add(1, Ordering::Relaxed);
        }
        passes
    }
}

impl<S: Subscriber, F: Fn() -> u64 + 'static> Filter<S> for Limit<F> {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        self.passes(event.metadata().callsite())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::Arc;

    use super::*;

    /// Counts lines that come through.
    struct Tally(Arc<AtomicU64>);

    impl<S: Subscriber> Layer<S> for Tally {
        fn on_event(&self, _: &Event<'_>, _: Context<'_, S>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_flood_of_one_kind_is_limited_and_the_others_are_not() {
        thread_local!(static NOW: Cell<u64> = const { Cell::new(7) });
        let through = Arc::new(AtomicU64::new(0));
        let limited = Tally(Arc::clone(&through)).with_filter(Limit::new(|| NOW.get()));
        let registry = Registry::default().with(limited);
        let before = suppressed();
        tracing::subscriber::with_default(registry, || {
            let flood = |n| tracing::info!(n, "a kind");
            (0..LINES_PER_SECOND + 30).for_each(flood);
            assert_eq!(through.load(Ordering::Relaxed), u64::from(LINES_PER_SECOND));
            tracing::info!("another kind");
            assert_eq!(through.load(Ordering::Relaxed), u64::from(LINES_PER_SECOND) + 1);
            NOW.set(8);
            flood(0);
            assert_eq!(through.load(Ordering::Relaxed), u64::from(LINES_PER_SECOND) + 2);
        });
        assert_eq!(suppressed() - before, 30);
    }
}
