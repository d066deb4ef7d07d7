//! The daemon's parts that own a clock, a thread or a mapping.

#![forbid(unsafe_code)]

pub mod memory;
