//! Nodes among each other, with workers that confirm late, or lose what they are told.

mod failures;
mod joining;
mod leaving;
mod net;
