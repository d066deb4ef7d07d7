//! A service of leases and keys with the semantics of etcd's v3 API, as far as a cluster needs it to agree on who holds
//! what. Nodes do not use it yet; tests do.
//!
//! - A store has one *revision*: each change, of as many keys as it may touch, makes it one greater.
//! - A *lease* has a time to live. Who has it keeps it alive; when it is over, or revoked, all keys that are attached to it are deleted
//!   at once, in one revision.
//! - A *transaction* compares the revision at which a key was last changed (0: it is not there), and puts or deletes it
//!   if it is right; otherwise it tells the key as it is.
//! - A *watch* tells every change of the keys with a prefix from a revision on, each once and in order; from a revision that was
//!   compacted it is refused.
//! - What is acknowledged is durable. Times of leases are not: a new leader gives each lease its whole time anew, as
//!   etcd's lessor does when it is promoted. So a lease may live longer than its time, and never shorter.
//!
//! [`Store`] is this, without I/O; [`LeaseService`] is a machine that serves it to datagrams ([`Request`], [`Reply`]).

mod message;
mod service;
mod store;

pub use message::{Reply, ReplyBody, Request, RequestBody};
pub use service::LeaseService;
pub use store::{Change, Event, Item, LeaseId, Store, StoreError};

/// Bytes of a key at most.
pub const KEY_LEN_MAX: usize = 64;
/// Bytes of a value at most.
pub const VALUE_LEN_MAX: usize = 256;
/// Keys of a store at most.
pub const KEY_COUNT_MAX: usize = 1_024;
/// Leases of a store at most.
pub const LEASE_COUNT_MAX: usize = 1_024;
/// Events that a store remembers at most: beyond these it compacts by itself.
pub const EVENT_COUNT_MAX: usize = 4_096;
