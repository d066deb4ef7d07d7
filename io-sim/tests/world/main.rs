//! Worlds at their public boundary.

mod balanced;
mod build;
mod network;
mod parity;
