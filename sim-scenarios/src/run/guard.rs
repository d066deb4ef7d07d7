//! Panics while a run is made or judged: each is a failure of its run, never a pass, and no end of other runs.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;
use std::time::Duration;

use super::nanos;
use crate::expect::Failure;

thread_local! {
    /// How many calls of [`catch`] this thread is in.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    /// Where the last panic was that one of them caught.
    static PLACE: RefCell<String> = const { RefCell::new(String::new()) };
}

static HOOK: Once = Once::new();

/// A panic that was caught.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Panicked {
    /// File and line.
    pub(crate) place: String,
    pub(crate) message: String,
}

/// Calls `work`, and catches its panic. What it was changing is left as it is, and must not be used any more.
pub(crate) fn catch<R>(work: impl FnOnce() -> R) -> Result<R, Panicked> {
    HOOK.call_once(|| {
        let others = take_hook();
        set_hook(Box::new(move |info| {
            let caught = DEPTH.get() > 0;
            if caught {
                let place = info.location().map(|l| format!("{}:{}", l.file(), l.line()));
                PLACE.set(place.unwrap_or_default());
            }
            // Who asks for backtraces gets them.
            if !caught || std::env::var_os("RUST_BACKTRACE").is_some() {
                others(info);
            }
        }));
    });
    DEPTH.set(DEPTH.get() + 1);
    let result = catch_unwind(AssertUnwindSafe(work));
    DEPTH.set(DEPTH.get() - 1);
    result.map_err(|payload| {
        let text = payload.downcast_ref::<&str>().map(|s| (*s).to_owned());
        let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
        Panicked {
            place: PLACE.take(),
            message: text.unwrap_or_else(|| "without a message".to_owned()),
        }
    })
}

/// Judges that panicked.
#[derive(Debug, Default)]
pub(crate) struct Panics {
    broken: BTreeSet<&'static str>,
    /// One for each: its name says that it is no finding of that judge, so that no counter-proof can declare it.
    pub(crate) failures: Vec<Failure>,
    /// The judge that panics whenever it is asked, to see what comes of it.
    #[cfg(test)]
    pub(crate) doctored: Option<&'static str>,
}

impl Panics {
    /// Lets the judge of this name look. One that has panicked is not asked again.
    pub(crate) fn ask(&mut self, name: &'static str, at: Duration, look: impl FnOnce()) {
        if !self.broken.is_empty() && self.broken.contains(name) {
            return;
        }
        #[cfg(test)]
        let look = || {
            assert_ne!(self.doctored, Some(name), "doctored");
            look();
        };
        if let Err(panicked) = catch(look) {
            self.broken.insert(name);
            self.failures.push(Failure {
                name: format!("{name} panicked"),
                expected: "a judge says what it found".to_owned(),
                seen: format!("{}, at {}", panicked.message, panicked.place),
                at_ns: nanos(at),
                unmeasured: false,
            });
        }
    }

    /// Those of another one, too.
    pub(crate) fn join(&mut self, other: &Panics) {
        self.failures.extend(other.failures.iter().cloned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_has_its_place_and_its_message_and_its_judge_is_not_asked_again() {
        let line = line!() + 1;
        let caught = catch(|| panic!("five is {}", 5)).map(|()| 0);
        let panicked = caught.expect_err("it panicked");
        assert_eq!(panicked.message, "five is 5");
        assert!(
            panicked.place.ends_with(&format!("guard.rs:{line}")),
            "{panicked:?}"
        );
        assert_eq!(catch(|| 7), Ok(7));
        let mut panics = Panics::default();
        let mut asked = 0;
        for _ in 0..3 {
            panics.ask("one", Duration::from_secs(1), || {
                asked += 1;
                panic!("no");
            });
            panics.ask("other", Duration::ZERO, || ());
        }
        assert_eq!((asked, panics.failures.len()), (1, 1));
        assert_eq!(panics.failures[0].name, "one panicked");
        assert_eq!(panics.failures[0].at_ns, 1_000_000_000);
    }
}
