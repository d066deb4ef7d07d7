//! Replication at the public boundary of a worker: a few nodes, each of some workers, and a network between them
//! that loses, doubles and reorders by a seed. Who decides what, which is the node's to say, a test says.

#[allow(dead_code, reason = "the stories of the engine use more of it")]
#[path = "../engine/packet.rs"]
mod packet;
#[allow(dead_code, reason = "the stories of the engine use more of it")]
#[path = "../engine/story.rs"]
mod story;

mod adoption;
mod bounds;
mod conflicts;
mod deferred;
mod digests;
mod hostile;
mod live;
mod modes;
mod net;
mod offers;
mod repairs;
mod slots;
mod twin;
