//! Nodes among each other, with workers that confirm late, or lose what they are told.

mod chaos;
mod failures;
mod hostile;
mod joining;
mod leaving;
mod net;
