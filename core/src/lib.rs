//! The engine of Evenkeel: what a load balancer decides and writes, without I/O, clocks or threads.
//!
//! A driver hands frames in and carries verdicts out ([`step`]); time is an argument, randomness comes from a
//! seed. The same inputs give the same bytes, on every machine and in every build.
//!
//! Where to read: [`worker`] follows one packet; `parse`, `conn`, `proto`, `sched`, `lport`, `xmit` and `l3`
//! are what it asks on the way.

#![no_std]
#![deny(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod announce;
pub mod cluster;
pub mod conn;
pub mod hash;
mod l3;
pub mod lport;
pub mod memory;
pub mod neighbours;
mod parse;
mod plain;
pub mod planted;
pub mod port;
mod prefetch;
#[doc(hidden)]
pub mod probe;
pub mod proto;
pub mod sched;
pub mod service;
pub mod stats;
pub mod step;
pub mod sync;
pub mod time;
pub mod timer;
pub mod tuple;
pub mod vrrp;
pub mod wire;
pub mod worker;
mod xmit;
