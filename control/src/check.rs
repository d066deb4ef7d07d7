//! What a config means as a whole: core's checks, brought back to the text, and some of our own.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use evenkeel_core::lport::{PortClassError, Steering, SteeringError};
use evenkeel_core::port::PortId;
use evenkeel_core::sched::CYCLE_LEN_MAX;
use evenkeel_core::service::{Place, Snapshot, SnapshotError, SnapshotErrorKind as Kind, WEIGHT_MAX};
use evenkeel_core::tuple::Family;

use crate::cluster;
use crate::problem::{Code, Finding, Findings, PROBLEM_COUNT_MAX, Span, counted};
use crate::sections::{Draft, ServicePlace};

/// Local ports that every class must keep: as many as the engine probes on a local address.
const CLASS_PORTS_MIN: u32 = evenkeel_core::worker::PORT_PROBES_PER_ADDR;

/// Steering by the key, or findings.
pub(crate) fn steering(draft: &Draft, findings: &mut Findings) -> Option<Arc<Steering>> {
    let steering = match Steering::new(&draft.rss_key.value, draft.buckets.value) {
        Ok(steering) => steering,
        Err(errors) => {
            for error in errors {
                findings.push(steering_finding(draft, error));
            }
            return None;
        }
    };
    let min = draft.local_port_min.value;
    let left = steering.usable_ports(min);
    if left < CLASS_PORTS_MIN {
        let buckets = draft.buckets.value;
        let message =
            format!("local ports from {min} on leave a bucket with {left} of them on each local address");
        let buckets = counted(buckets, "bucket");
        let help = format!("with {buckets} every one needs {CLASS_PORTS_MIN} at least: lower `min`");
        findings.push(Finding::new(
            Code::LocalPorts,
            draft.local_port_min.span.clone(),
            message,
            help,
        ));
    }
    Some(Arc::new(steering))
}

fn steering_finding(draft: &Draft, error: SteeringError) -> Finding {
    match error {
        SteeringError::KeyLength(_) => {
            let help = "write \"microsoft\", \"symmetric\", or a key of 40 to 128 bytes";
            Finding::new(Code::RssKey, draft.rss_key.span.clone(), error.to_string(), help).label("this key")
        }
        SteeringError::PortClass(PortClassError::BucketCount(_)) => {
            let help = "write 1, 2, 4, 8, 16, 32, 64, 128 or 256, the same on every node";
            Finding::new(
                Code::OutOfRange,
                draft.buckets.span.clone(),
                error.to_string(),
                help,
            )
            .label("out of range")
        }
        SteeringError::PortClass(PortClassError::Rank { rank, .. }) => {
            let fewer = 1u32.checked_shl(rank).unwrap_or(0);
            let help = format!(
                "a reply could not be brought to the worker of its connection: use \"microsoft\" or \"symmetric\" \
                 or another key, or at most {}",
                counted(fewer, "bucket")
            );
            Finding::new(Code::RssKey, draft.rss_key.span.clone(), error.to_string(), help).label("this key")
        }
    }
}

/// Services that need conns of a kind for which the table has no room.
pub(crate) fn tables(draft: &Draft, findings: &mut Findings) {
    for (family, room, span) in [
        (Family::V4, draft.sizes.conns_v4, &draft.conns_v4),
        (Family::V6, draft.sizes.conns_v6, &draft.conns_v6),
    ] {
        let mut services = draft.spec.services.iter().zip(&draft.places.services);
        let needs = |vip: IpAddr, server: IpAddr| match (vip, server) {
            (IpAddr::V4(_), IpAddr::V4(_)) => family == Family::V4,
            _ => family == Family::V6,
        };
        let first =
            services.find(|(s, place)| !place.vip_unread && s.servers.iter().any(|r| needs(s.vip, r.addr)));
        if let (0, Some((service, place))) = (room, first) {
            let message = format!("no {family} conns, but \"{}\" needs them", service.name);
            let help =
                "a conn with an IPv6 address on either side is an IPv6 conn: give the table room for them";
            let finding = Finding::new(Code::NoTable, span.clone(), message, help).label("none");
            findings.push(finding.other(place.vip.clone(), "needed here"));
        }
    }
}

/// The snapshot, or findings.
pub(crate) fn snapshot(draft: &Draft, findings: &mut Findings) -> Option<Snapshot> {
    let errors = match Snapshot::new(&draft.spec) {
        Ok(snapshot) => return Some(snapshot),
        Err(errors) => errors,
    };
    let mut placed: Vec<(Span, SnapshotError)> = errors
        .into_iter()
        .filter(|e| !is_artefact(draft, e))
        .map(|e| (place_of(draft, &e), e))
        .collect();
    placed.sort_by_key(|(span, _)| span.start);
    // Services that take their local addresses from the node's share have their errors in common.
    placed.dedup_by(|a, b| a.0 == b.0 && a.1.kind == b.1.kind);
    // Only what is reported is put into words: that may search for another place.
    findings.omit(placed.len().saturating_sub(PROBLEM_COUNT_MAX));
    for (span, error) in placed.into_iter().take(PROBLEM_COUNT_MAX) {
        findings.push(snapshot_finding(draft, span, &error));
    }
    None
}

/// Whether an error is only about what could not be read, and was reported as such.
fn is_artefact(draft: &Draft, error: &SnapshotError) -> bool {
    let service = |i: usize| draft.places.services.get(i);
    let unread = |i, part: fn(&ServicePlace) -> bool| service(i).is_some_and(part);
    match (error.place, &error.kind) {
        (Place::Service(i), Kind::NoServers) => unread(i, |s| s.servers_unread),
        (Place::Service(i), Kind::NoLocalAddr(_)) => unread(i, |s| s.locals_unread || s.from_share),
        // These are told of the share.
        (
            Place::Service(i),
            Kind::TooMany {
                what: "local addresses",
                ..
            },
        ) => unread(i, |s| s.from_share),
        (Place::LocalAddr(..), &Kind::AddressConflict(addr)) => cluster::tells_conflict(draft, addr, false),
        (Place::PeerLocalAddr(_), &Kind::AddressConflict(addr)) => cluster::tells_conflict(draft, addr, true),
        (Place::LocalAddr(i, _), Kind::UnusedLocalAddr(_)) => unread(i, |s| s.servers_unread),
        (
            Place::Service(i),
            Kind::NotUnicast(_) | Kind::PortZero | Kind::Overlap { .. } | Kind::AddressConflict(_),
        ) => unread(i, |s| s.vip_unread),
        _ => false,
    }
}

/// The part of the text that an error is about.
fn place_of(draft: &Draft, error: &SnapshotError) -> Span {
    let places = &draft.places;
    let span = match error.place {
        Place::Port(i) => places.ports.get(i).map(|p| match error.kind {
            Kind::Duplicate { .. } => &p.name,
            Kind::BadMac(_) => &p.mac,
            Kind::Mtu { .. } => &p.mtu,
            _ => &p.whole,
        }),
        Place::PortAddress(i, j) => places.ports.get(i).and_then(|p| p.addresses.get(j)),
        Place::Service(i) => places.services.get(i).map(|s| match error.kind {
            Kind::NotUnicast(_) | Kind::PortZero | Kind::Overlap { .. } | Kind::AddressConflict(_) => &s.vip,
            Kind::NoLocalAddr(_) => &s.local_addresses,
            _ => &s.whole,
        }),
        Place::LocalAddr(i, j) => places.services.get(i).and_then(|s| s.locals.get(j)),
        Place::Server(i, j) => {
            places
                .services
                .get(i)
                .and_then(|s| s.servers.get(j))
                .map(|r| match error.kind {
                    Kind::Weight(_) => &r.weight,
                    _ => &r.address,
                })
        }
        Place::Route(i) => places.routes.get(i).map(|r| match error.kind {
            Kind::UnknownPort(_) => &r.port,
            Kind::FamilyMismatch | Kind::NotUnicast(_) => &r.via,
            _ => &r.to,
        }),
        Place::Neighbour(i) => places.neighbours.get(i).map(|n| match error.kind {
            Kind::UnknownPort(_) => &n.port,
            Kind::BadMac(_) => &n.mac,
            _ => &n.address,
        }),
        Place::PeerLocalAddr(i) => places.peer_locals.get(i),
        Place::Whole => match error.kind {
            // The first one beyond the bound.
            Kind::TooMany { what: "ports", max } => places.ports.get(max).map(|p| &p.whole),
            Kind::TooMany {
                what: "services",
                max,
            } => places.services.get(max).map(|s| &s.whole),
            Kind::TooMany {
                what: "neighbours",
                max,
            } => places.neighbours.get(max).map(|n| &n.address),
            Kind::TooMany {
                what: "local addresses of peers",
                max,
            } => places.peer_locals.get(max),
            Kind::TooMany { what: "routes", .. } => places.routes.last().map(|r| &r.to),
            Kind::TooMany {
                what: "real servers",
                max,
            } => places
                .services
                .iter()
                .flat_map(|s| &s.servers)
                .nth(max)
                .map(|r| &r.address),
            _ => None,
        },
    };
    span.cloned().unwrap_or(0..0)
}

/// Words and remedy of an error of core.
fn snapshot_finding(draft: &Draft, span: Span, error: &SnapshotError) -> Finding {
    let new = |code, help: &str| Finding::new(code, span.clone(), error.kind.to_string(), help);
    let again = |code, message: &str, first: usize, help: &str| {
        let finding = Finding::new(code, span.clone(), message, help).label("the second one");
        let first = SnapshotError {
            place: sibling(error.place, first),
            kind: error.kind.clone(),
        };
        finding.other(place_of(draft, &first), "the first one")
    };
    match &error.kind {
        Kind::TooMany { what, max } => new(Code::TooMany, &format!("at most {max} {what}: leave some out")),
        Kind::NotUnicast(_) => new(
            Code::NotUnicast,
            "write the address of one host: not unspecified, loopback, multicast, broadcast or reserved",
        )
        .label("not a host's address"),
        Kind::PrefixLength { max, .. } => {
            new(Code::PrefixLength, &format!("write a length from 0 to {max}")).label("too long")
        }
        Kind::PortZero => new(Code::PortZero, "write a port from 1 to 65535"),
        Kind::Weight(_) => {
            new(Code::OutOfRange, &format!("write a weight from 0 to {WEIGHT_MAX}; only their proportion counts"))
                .label("out of range")
        }
        Kind::UnknownPort(_) => new(Code::UnknownPort, "write the name of a `[[port]]`"),
        Kind::FamilyMismatch => {
            let wanted = match error.place {
                Place::Route(i) => draft.spec.routes.get(i).map(|r| Family::of(&r.prefix)),
                _ => None,
            };
            let help = wanted.map_or_else(String::new, |f| format!(": write an {f} address"));
            new(Code::WrongFamily, &format!("gateway and prefix are of one family{help}")).label("the other family")
        }
        Kind::Duplicate { first } => {
            let (message, help) = match error.place {
                Place::Port(_) => ("two ports have this name", "give one of them another name"),
                Place::Route(_) => ("two routes have this prefix", "keep one of them"),
                Place::Neighbour(_) => ("two neighbours of a port have this address", "keep one of them"),
                Place::LocalAddr(..) => ("this local address stands there twice", "keep one of them"),
                _ => ("this real server stands there twice", "keep one of them; a larger `weight` gives it more"),
            };
            again(Code::Duplicate, message, *first, help)
        }
        Kind::Overlap { first } => again(
            Code::Overlap,
            "two services have this address, port and protocol",
            *first,
            "give one of them another `vip`, or put their servers into one service",
        ),
        Kind::AddressConflict(addr) => {
            let help = "an address is one thing only: a port's own, a VIP, a local address, or a real server's";
            let finding = new(Code::AddressConflict, help).label("here as something else");
            match first_use(draft, *addr, &span) {
                Some(first) => finding.other(first, "in use here"),
                None => finding,
            }
        }
        Kind::NoLocalAddr(family) => new(
            Code::NoLocalAddress,
            &format!("add an {family} address to `local_addresses`: servers see it as their client"),
        ),
        Kind::UnusedLocalAddr(_) => {
            new(Code::UnusedLocalAddress, "remove it, or add a server of this family").label("no use")
        }
        Kind::NoServers => new(Code::NoServer, "add a `[[service.server]]` with its `address` below the service")
            .label("this service"),
        Kind::CycleTooLong => new(
            Code::CycleTooLong,
            &format!("use smaller weights with a common factor: their sum, divided by it, is at most {CYCLE_LEN_MAX}"),
        )
        .label("this service"),
        Kind::Mtu { min, .. } => new(
            Code::OutOfRange,
            &format!("write {min} or more (IPv4 needs 68, IPv6 1280), or leave `mtu` out: the driver knows it"),
        )
        .label("too small"),
        Kind::BadMac(_) => {
            new(Code::BadMac, "write the address of one interface: not zero, broadcast or multicast (first byte odd)")
                .label("not a host's")
        }
    }
}

/// The element with index `first` beside the one at `place`.
fn sibling(place: Place, first: usize) -> Place {
    match place {
        Place::Port(_) => Place::Port(first),
        Place::PortAddress(i, _) => Place::PortAddress(i, first),
        Place::Service(_) => Place::Service(first),
        Place::LocalAddr(i, _) => Place::LocalAddr(i, first),
        Place::Server(i, _) => Place::Server(i, first),
        Place::Route(_) => Place::Route(first),
        Place::Neighbour(_) => Place::Neighbour(first),
        Place::PeerLocalAddr(_) => Place::PeerLocalAddr(first),
        Place::Whole => Place::Whole,
    }
}

/// Where `addr` is used in the first of its roles, other than at `not_at`.
fn first_use(draft: &Draft, addr: IpAddr, not_at: &Span) -> Option<Span> {
    own_addrs(draft)
        .find(|(a, at)| *a == addr && *at != not_at)
        .map(|(_, at)| at.clone())
}

/// Every address that the balancer answers for, or its peers: those of ports, VIPs and local addresses.
fn own_addrs(draft: &Draft) -> impl Iterator<Item = (IpAddr, &Span)> {
    let (spec, places) = (&draft.spec, &draft.places);
    let ports = spec
        .ports
        .iter()
        .zip(&places.ports)
        .flat_map(|(p, at)| p.addresses.iter().map(|a| a.0).zip(&at.addresses));
    let services = || spec.services.iter().zip(&places.services);
    let vips = services()
        .filter(|(_, at)| !at.vip_unread)
        .map(|(s, at)| (s.vip, &at.vip));
    let locals = services().flat_map(|(s, at)| s.local_addrs.iter().copied().zip(&at.locals));
    let peers = spec.peer_local_addrs.iter().copied().zip(&places.peer_locals);
    ports.chain(vips).chain(locals).chain(peers)
}

/// Gateways and neighbours at addresses of the balancer: what is sent to them comes back or is lost.
pub(crate) fn next_hops(draft: &Draft, findings: &mut Findings) {
    let mut own = BTreeMap::new();
    for (addr, at) in own_addrs(draft) {
        own.entry(addr).or_insert(at);
    }
    let (spec, places) = (&draft.spec, &draft.places);
    let routes = spec.routes.iter().zip(&places.routes);
    let gateways = routes.filter_map(|(r, at)| Some((r.via?, &at.via, "gateway")));
    let neighbours = spec.neighbours.iter().zip(&places.neighbours);
    let neighbours = neighbours.map(|(n, at)| (n.addr, &at.address, "neighbour"));
    for (addr, span, what) in gateways.chain(neighbours) {
        let Some(&first) = own.get(&addr) else { continue };
        if !findings.wants(span) {
            findings.omit(1);
            continue;
        }
        let message = format!("{what} {addr} is an address of the balancer itself");
        let help = match what {
            "gateway" => {
                "write the router's address, or leave `via` out if the hosts are on the link of the port"
            }
            _ => "write the address of the other host, or remove the neighbour: its own need none",
        };
        let finding = Finding::new(Code::AddressConflict, span.clone(), message, help);
        findings.push(
            finding
                .label("not another host")
                .other(first.clone(), "the balancer's own"),
        );
    }
}

/// What is allowed but will not work as its writer may think. Apart from that, whose link-layer address has to be asked
/// for, which only who is on the network can.
pub(crate) fn warnings(
    draft: &Draft,
    snapshot: &Snapshot,
    warnings: &mut Findings,
    unresolved: &mut Findings,
) {
    let (workers, buckets) = (&draft.workers, draft.buckets.value);
    if u16::from(workers.value) > buckets {
        let message = format!(
            "{}, but only {}",
            counted(workers.value, "worker"),
            counted(buckets, "bucket")
        );
        let idle = u16::from(workers.value) - buckets;
        let stay = if idle == 1 { "stays" } else { "stay" };
        let help = format!("a bucket belongs to one worker: {idle} of them {stay} idle");
        warnings.push(Finding::new(
            Code::IdleWorkers,
            workers.span.clone(),
            message,
            help,
        ));
    }
    for (route, place) in draft.spec.routes.iter().zip(&draft.places.routes) {
        let unknown = |via: &IpAddr| snapshot.neighbour(*via, route.port).is_none();
        if let Some(via) = route.via.filter(unknown) {
            let message = format!("the link-layer address of gateway {via} is not in the config");
            let span = place.via.clone();
            let finding =
                |help| Finding::new(Code::UnknownGateway, span, message, help).label("no neighbour");
            match asking_port(draft, route.port, via) {
                Asks::Can => unresolved.push(finding(format!(
                    "the packets of a capture that this route takes are dropped: add a `[[neighbour]]` with address \
                     \"{via}\""
                ))),
                Asks::Cannot(name) => warnings.push(finding(format!(
                    "port \"{name}\" has no {} address to ask for it from: give it one in `addresses`, or add a \
                     `[[neighbour]]` with address \"{via}\"",
                    Family::of(&via)
                ))),
            }
        }
    }
    for family in [Family::V4, Family::V6] {
        let mut services = draft.spec.services.iter().zip(&draft.places.services);
        let first = services.find(|(s, _)| Family::of(&s.vip) == family);
        let default = draft
            .spec
            .routes
            .iter()
            .any(|r| r.len == 0 && Family::of(&r.prefix) == family);
        if let (Some((_, place)), false) = (first, default) {
            let to = if family == Family::V4 { "0.0.0.0/0" } else { "::/0" };
            let message = format!("{family} services, but no {family} default route");
            let help =
                format!("only clients of known prefixes get replies: add a `[[route]]` with `to = \"{to}\"`");
            warnings.push(
                Finding::new(Code::NoDefaultRoute, place.vip.clone(), message, help).label("of this service"),
            );
        }
    }
    for (service, place) in draft.spec.services.iter().zip(&draft.places.services) {
        if service.servers.iter().all(|r| r.weight == 0) {
            let message = format!("every server of \"{}\" has weight 0", service.name);
            let help = "it takes no new connection: give one server a `weight` of 1 or more";
            warnings
                .push(Finding::new(Code::NoWeight, place.whole.clone(), message, help).label("this service"));
        }
        for (server, place) in service.servers.iter().zip(&place.servers) {
            let (addr, span) = (server.addr, place.address.clone());
            let finding =
                |message, help| Finding::new(Code::NoNextHop, span, message, help).label("no next hop");
            match snapshot.missing_neighbour(addr) {
                None if snapshot.next_hop(addr).is_ok() => {}
                None => {
                    let message = format!("{addr} cannot be reached");
                    let help = "no route leads there: add a `[[route]]` to it, or a prefix with it to the \
                                `addresses` of the `[[port]]` on whose link it is";
                    warnings.push(finding(message, help.into()));
                }
                // The gateway has a warning of its own.
                Some((_, gateway)) if gateway != addr => {}
                Some((port, _)) => {
                    let message = format!("the link-layer address of {addr} is not in the config");
                    match asking_port(draft, port, addr) {
                        Asks::Can => unresolved.push(finding(
                            message,
                            format!(
                                "the packets of a capture that go there are dropped: add a `[[neighbour]]` with \
                                 address \"{addr}\""
                            ),
                        )),
                        Asks::Cannot(name) => warnings.push(finding(
                            message,
                            format!(
                                "port \"{name}\" has no {} address to ask for it from: give it one in `addresses`, \
                                 or add a `[[neighbour]]` with address \"{addr}\"",
                                Family::of(&addr)
                            ),
                        )),
                    }
                }
            }
        }
    }
}

/// Whether a neighbour can be asked for.
enum Asks<'a> {
    Can,
    /// The port of this name has no address of the neighbour's family.
    Cannot(&'a str),
}

fn asking_port(draft: &Draft, port: PortId, addr: IpAddr) -> Asks<'_> {
    match draft.spec.ports.get(usize::from(port.0)) {
        Some(port)
            if !port
                .addresses
                .iter()
                .any(|(own, _)| Family::of(own) == Family::of(&addr)) =>
        {
            Asks::Cannot(&port.name)
        }
        _ => Asks::Can,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_core::port::PortId;
    use evenkeel_core::wire::MacAddr;

    const TEXT: &str = include_str!("../../examples/fullnat.toml");

    fn draft() -> Draft {
        let mut findings = Findings::default();
        let tree = crate::syntax::tree(&crate::sections::ROOT, TEXT, &mut findings).expect("TOML");
        let draft = crate::sections::draft(&tree, None, &mut findings);
        assert!(findings.is_empty());
        draft
    }

    /// Some of these cannot come from a text, because reading refuses it first. They have their words
    /// nevertheless: reading may change.
    #[test]
    fn every_error_of_core_points_at_its_place_and_has_a_remedy() {
        let draft = draft();
        let addr: IpAddr = "198.51.100.11".parse().expect("address");
        let too_many = |what, max| Kind::TooMany { what, max };
        let cases = [
            (
                Place::Whole,
                vec![
                    (too_many("ports", 1), Code::TooMany, "[[port]]"),
                    (too_many("services", 1), Code::TooMany, "[[service]]"),
                    (too_many("neighbours", 2), Code::TooMany, "\"198.51.100.11\""),
                    (too_many("routes", 5), Code::TooMany, "\"::/0\""),
                    (too_many("real servers", 3), Code::TooMany, "\"198.51.100.11:53\""),
                    (too_many("of something new", 1), Code::TooMany, ""),
                ],
            ),
            (
                Place::Service(1),
                vec![(too_many("local addresses", 256), Code::TooMany, "[[service]]")],
            ),
            (
                Place::Server(1, 1),
                vec![(
                    too_many("real server ids", 16_384),
                    Code::TooMany,
                    "\"198.51.100.12:53\"",
                )],
            ),
            (
                Place::Port(1),
                vec![
                    (Kind::Duplicate { first: 0 }, Code::Duplicate, "\"servers\""),
                    (
                        Kind::BadMac(MacAddr([0; 6])),
                        Code::BadMac,
                        "\"02:00:00:00:00:02\"",
                    ),
                    (Kind::Mtu { mtu: 9, min: 68 }, Code::OutOfRange, "[[port]]"),
                ],
            ),
            (
                Place::PortAddress(0, 1),
                vec![(Kind::NotUnicast(addr), Code::NotUnicast, "\"2001:db8:c::2/64\"")],
            ),
            (
                Place::PortAddress(1, 0),
                vec![
                    (
                        Kind::PrefixLength { len: 33, max: 32 },
                        Code::PrefixLength,
                        "\"198.51.100.2/24\"",
                    ),
                    (
                        Kind::AddressConflict(addr),
                        Code::AddressConflict,
                        "\"198.51.100.2/24\"",
                    ),
                ],
            ),
            (
                Place::Service(1),
                vec![
                    (Kind::Overlap { first: 0 }, Code::Overlap, "\"192.0.2.53:53\""),
                    (Kind::Duplicate { first: 0 }, Code::Duplicate, "[[service]]"),
                    (Kind::NotUnicast(addr), Code::NotUnicast, "\"192.0.2.53:53\""),
                    (Kind::PortZero, Code::PortZero, "\"192.0.2.53:53\""),
                    (
                        Kind::AddressConflict(addr),
                        Code::AddressConflict,
                        "\"192.0.2.53:53\"",
                    ),
                    (Kind::NoServers, Code::NoServer, "[[service]]"),
                    (Kind::CycleTooLong, Code::CycleTooLong, "[[service]]"),
                ],
            ),
            (
                Place::Service(2),
                vec![(
                    Kind::NoLocalAddr(Family::V6),
                    Code::NoLocalAddress,
                    "[\"2001:db8:5::101\", \"2001:db8:5::102\"]",
                )],
            ),
            (
                Place::LocalAddr(2, 1),
                vec![
                    (
                        Kind::UnusedLocalAddr(addr),
                        Code::UnusedLocalAddress,
                        "\"2001:db8:5::102\"",
                    ),
                    (
                        Kind::Duplicate { first: 0 },
                        Code::Duplicate,
                        "\"2001:db8:5::102\"",
                    ),
                ],
            ),
            (
                Place::Server(1, 0),
                vec![
                    (Kind::Weight(1001), Code::OutOfRange, "3"),
                    (Kind::PortZero, Code::PortZero, "\"198.51.100.11:53\""),
                ],
            ),
            (
                Place::Server(0, 2),
                vec![(
                    Kind::Duplicate { first: 0 },
                    Code::Duplicate,
                    "\"198.51.100.13:8080\"",
                )],
            ),
            (
                Place::Route(1),
                vec![
                    (Kind::UnknownPort(PortId(9)), Code::UnknownPort, "\"clients\""),
                    (Kind::FamilyMismatch, Code::WrongFamily, "\"2001:db8:c::1\""),
                    (Kind::NotUnicast(addr), Code::NotUnicast, "\"2001:db8:c::1\""),
                    (
                        Kind::PrefixLength { len: 129, max: 128 },
                        Code::PrefixLength,
                        "\"::/0\"",
                    ),
                    (Kind::Duplicate { first: 0 }, Code::Duplicate, "\"::/0\""),
                ],
            ),
            (
                Place::Neighbour(2),
                vec![
                    (Kind::UnknownPort(PortId(9)), Code::UnknownPort, "\"servers\""),
                    (Kind::NotUnicast(addr), Code::NotUnicast, "\"198.51.100.11\""),
                    (
                        Kind::BadMac(MacAddr([1; 6])),
                        Code::BadMac,
                        "\"02:00:00:00:02:11\"",
                    ),
                    (Kind::Duplicate { first: 0 }, Code::Duplicate, "\"198.51.100.11\""),
                ],
            ),
            // An index that the text does not have is no panic.
            (Place::Server(9, 9), vec![(Kind::PortZero, Code::PortZero, "")]),
        ];
        let cases = cases.into_iter().flat_map(|(place, found)| {
            let of_place = move |(kind, code, text)| (place, kind, code, text);
            found.into_iter().map(of_place)
        });
        for (place, kind, code, text) in cases {
            let error = SnapshotError { place, kind };
            let finding = snapshot_finding(&draft, place_of(&draft, &error), &error);
            assert_eq!(
                (finding.code, TEXT.get(finding.span.clone())),
                (code, Some(text)),
                "{error}"
            );
            assert!(!finding.help.is_empty() && !finding.message.is_empty(), "{error}");
            if let Kind::Duplicate { .. } | Kind::Overlap { .. } = error.kind {
                let (first, _) = finding.other.expect("the first one");
                assert!(first.start < finding.span.start && !first.is_empty(), "{error}");
            }
        }
    }
}
