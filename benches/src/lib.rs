//! Benchmarks of the engine, each beside its floor: the memory accesses and the rewrite that every
//! implementation has, and nothing else.
//!
//! `ratio` (a binary) runs engine and floor in turn and prints what one costs in terms of the other;
//! `benches/engine.rs` shows the same to criterion; `benches/instructions.rs` counts instructions.

pub mod cases;
pub mod floor;
pub mod flows;
pub mod frame;
pub mod measure;
pub mod world;
