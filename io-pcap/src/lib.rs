//! Packet I/O over capture files, and replay of them through the engine.
//!
//! - [`file`](mod@file) reads pcap and pcapng, plain or gzip, and writes both: pure Rust, streaming, safe on
//!   hostile input.
//! - `live` (feature `libpcap`) opens network interfaces and compiles BPF filters through libpcap.

pub mod file;
#[cfg(feature = "libpcap")]
pub mod live;
