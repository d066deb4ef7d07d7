//! What is replicated of a conn.

mod record;

pub use record::{InstallError, Isns, SeqDeltas, SessionRecord, WindowScales};
