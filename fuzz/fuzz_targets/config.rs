//! Arbitrary text as a config: a config or errors with places in the text, and no panic.
#![no_main]

use evenkeel_control::{PROBLEM_COUNT_MAX, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match parse("fuzz.toml", text) {
        Ok(config) => {
            assert!(config.snapshot.services().count() > 0);
            assert!(
                config
                    .warnings
                    .iter()
                    .all(|w| w.code.is_warning() && text.get(w.span()).is_some())
            );
            assert!(config.restart_needed(&config).is_empty());
        }
        Err(errors) => {
            let problems = errors.problems();
            assert!(!problems.is_empty() && problems.len() <= PROBLEM_COUNT_MAX);
            assert!(problems.is_sorted_by_key(|p| (p.line, p.column)));
            assert!(
                problems
                    .iter()
                    .all(|p| !p.help.is_empty() && text.get(p.span()).is_some())
            );
        }
    }
});
