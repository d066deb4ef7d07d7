//! Worlds at their public boundary.

mod balanced;
mod build;
mod cluster;
mod lease;
mod network;
mod parity;
mod router;
mod tiers;
