//! Worlds at their public boundary.

mod balanced;
mod build;
mod cluster;
mod network;
mod parity;
mod tiers;
