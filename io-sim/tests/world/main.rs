//! Worlds at their public boundary.

mod balanced;
mod build;
mod cluster;
mod lease;
mod machine;
mod network;
mod parity;
mod router;
mod tiers;
