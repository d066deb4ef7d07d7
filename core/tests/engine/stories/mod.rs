//! Packet stories: what came in, what went out, which counters moved.

mod conns;
mod drops;
mod fullnat;
mod l3;
mod neighbours;
mod replica;
mod scheduling;
mod timeouts;
mod translation;
mod workers;
