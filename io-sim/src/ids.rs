//! Names of the things in a world: small numbers, dealt in the order in which things are added.

use std::fmt;

use evenkeel_core::port::PortId;

use crate::switch::Vlan;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty), $word:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($word, " {}"), self.0)
            }
        }
    };
}

id!(
    /// A switch.
    SwitchId(u16), "switch"
);
id!(
    /// An actor.
    ActorId(u16), "actor"
);
id!(
    /// A router.
    RouterId(u16), "router"
);
id!(
    /// A host: client or server, or both.
    HostId(u16), "host"
);
id!(
    /// A load balancer's machine. What runs on it may come and go.
    LbId(u16), "lb"
);
id!(
    /// A link between two ports.
    LinkId(u16), "link"
);
id!(
    /// A connection (or a UDP flow) that a client opens.
    FlowId(u32), "flow"
);

/// A port of a load balancer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LbPort {
    /// One that the engine knows: `[[port]]` of its config, in order.
    Data(PortId),
    /// The one to the other nodes.
    Sync,
}

/// One end of a link, before it is connected: switches give a free port of theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The next port of a switch.
    Switch(SwitchId),
    /// The next port of a switch, in these VLANs.
    Vlan(SwitchId, Vlan),
    /// A port of a router.
    Router(RouterId, u16),
    /// The one port of a host.
    Host(HostId),
    /// The one port of an actor's machine.
    Actor(ActorId),
    /// A port of a load balancer.
    Lb(LbId, LbPort),
}

/// Something that has ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// A switch.
    Switch(SwitchId),
    /// A router.
    Router(RouterId),
    /// A host.
    Host(HostId),
    /// A load balancer.
    Lb(LbId),
    /// An actor.
    Actor(ActorId),
}

impl Owner {
    /// Numbers for what is hashed: its kind, and which one of it.
    pub(crate) const fn code(self) -> (u16, u16) {
        match self {
            Owner::Switch(id) => (0, id.0),
            Owner::Host(id) => (1, id.0),
            Owner::Lb(id) => (2, id.0),
            Owner::Router(id) => (3, id.0),
            Owner::Actor(id) => (4, id.0),
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Owner::Switch(id) => id.fmt(f),
            Owner::Router(id) => id.fmt(f),
            Owner::Host(id) => id.fmt(f),
            Owner::Lb(id) => id.fmt(f),
            Owner::Actor(id) => id.fmt(f),
        }
    }
}

/// A port of something. Ports of a load balancer: its data ports in order, then the sync port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Of what.
    pub owner: Owner,
    /// Which one.
    pub port: u16,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} port {}", self.owner, self.port)
    }
}
