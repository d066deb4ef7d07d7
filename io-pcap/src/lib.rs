//! Packet I/O over capture files, and replay of them through the engine.
//!
//! - [`file`](mod@file) reads pcap and pcapng, plain or gzip, and writes both: pure Rust, streaming, safe on
//!   hostile input.
//! - [`port`] is core's `Port` over frames that are fed one by one.
//! - [`replay`] puts a capture through the engine and says what happened.
//! - `live` (feature `libpcap`) opens network interfaces and compiles BPF filters through libpcap; `live_port` is
//!   core's `Port` over them.

pub mod file;
#[cfg(feature = "libpcap")]
pub mod live;
#[cfg(feature = "libpcap")]
pub mod live_port;
pub mod port;
pub mod replay;
