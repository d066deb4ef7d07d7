//! The engine at its public boundary: packet stories, twins by proptest, hostile input.

mod hostile;
mod packet;
mod stories;
mod story;
mod twins;
