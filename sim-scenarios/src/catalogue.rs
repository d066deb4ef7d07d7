//! The committed scenarios.

/// Their file names and texts, sorted by name.
pub const EMBEDDED: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/scenarios.rs"));

/// The text of a committed scenario.
pub fn embedded(file: &str) -> Option<&'static str> {
    EMBEDDED.iter().find(|s| s.0 == file).map(|s| s.1)
}
