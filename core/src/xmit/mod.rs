//! Rewriting: a packet becomes what its other side shall see, from the Ethernet header up to the
//! transport ports. Every rewrite is a pure function of target and packet.

mod egress;
mod fullnat;
mod seq;

pub(crate) use egress::{Egress, Ways};
pub(crate) use fullnat::{Target4, Target6, rewrite_v4, rewrite_v6};
pub(crate) use seq::SeqShift;
