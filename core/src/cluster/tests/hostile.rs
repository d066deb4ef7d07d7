//! Messages and events that no honest node or worker sends: counted, bounded, and never a panic.

use alloc::vec::Vec;
use core::time::Duration;

use proptest::prelude::*;

use super::net::{config, group, peer};
use crate::cluster::*;
use crate::port::{PortId, WorkerId};
use crate::sync::{GroupClaim, NodeMessage, Readiness, SyncEvent, SyncStatus};
use crate::time::Instant;

/// Numbers at and about what is known, and at the ends.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0u64..6, Just(u64::MAX), Just(u64::MAX - 1)]
}

fn who() -> impl Strategy<Value = PeerId> {
    (0u16..5, number()).prop_map(|(node, life)| peer(node, life))
}

fn claim() -> impl Strategy<Value = GroupClaim> {
    (0u16..5, number(), number(), who(), 0u8..7).prop_map(|(node, generation, term, holder, role)| {
        GroupClaim {
            group: group(node, generation),
            epoch: Epoch { term, holder },
            role: Role::from_u8(role).expect("a role"),
        }
    })
}

#[derive(Clone, Debug)]
enum Input {
    Peer(PeerId, NodeMessage),
    Event(u8, SyncEvent),
    Frame(Vec<u8>),
    Sent(u64),
    Command(NodeCommand),
    Wait(u64),
}

fn message() -> impl Strategy<Value = NodeMessage> {
    let heartbeat = (
        prop_oneof![Just(7u64), Just(0)],
        0u8..3,
        any::<bool>(),
        prop::collection::vec(claim(), 0..80),
        prop::collection::vec(who(), 0..20),
        any::<u16>(),
    );
    let heartbeat = heartbeat.prop_map(|(shares, readiness, draining, claims, hears, late)| {
        let all = [Readiness::Joining, Readiness::Degraded, Readiness::Ready];
        NodeMessage::Heartbeat {
            shares,
            readiness: all[usize::from(readiness)],
            draining,
            claims,
            hears,
            late,
        }
    });
    let told = |c: GroupClaim| (c.group, c.epoch);
    prop_oneof![
        4 => heartbeat,
        1 => claim().prop_map(told).prop_map(|(group, epoch)| NodeMessage::Fenced { group, epoch }),
        1 => claim().prop_map(told).prop_map(|(group, epoch)| NodeMessage::Handover { group, epoch }),
    ]
}

fn event() -> impl Strategy<Value = SyncEvent> {
    let counts = || prop::collection::vec((claim().prop_map(|c| c.group), any::<u32>()), 0..5);
    let peers = || prop::collection::vec((who(), number()), 0..5);
    let status = (
        counts(),
        counts(),
        counts(),
        counts(),
        peers(),
        peers(),
        prop::collection::vec(who(), 0..5),
    )
        .prop_map(
            |(outstanding, pulled, lacking, sessions, behind, unacked, late)| {
                SyncEvent::Status(SyncStatus {
                    outstanding,
                    pulled,
                    lacking,
                    sessions,
                    behind,
                    unacked,
                    late,
                })
            },
        );
    prop_oneof![
        claim().prop_map(|GroupClaim { group, epoch, role }| {
            SyncEvent::AuthorityApplied(Authority { group, epoch, role })
        }),
        claim().prop_map(|c| SyncEvent::Merged {
            group: c.group,
            epoch: c.epoch
        }),
        claim().prop_map(|c| SyncEvent::Offered { group: c.group }),
        (who(), claim()).prop_map(|(from, c)| SyncEvent::Stale {
            from,
            group: c.group,
            epoch: c.epoch
        }),
        who().prop_map(SyncEvent::OutOfSync),
        who().prop_map(SyncEvent::Refused),
        status,
    ]
}

fn command() -> impl Strategy<Value = NodeCommand> {
    prop::sample::select(&[
        NodeCommand::Drain,
        NodeCommand::Undrain,
        NodeCommand::Promote,
        NodeCommand::Demote,
    ])
}

fn input() -> impl Strategy<Value = Input> {
    prop_oneof![
        6 => (who(), message()).prop_map(|(from, m)| Input::Peer(from, m)),
        4 => (0u8..3, event()).prop_map(|(w, e)| Input::Event(w, e)),
        1 => prop::collection::vec(any::<u8>(), 0..80).prop_map(Input::Frame),
        1 => number().prop_map(Input::Sent),
        1 => command().prop_map(Input::Command),
        4 => (0u64..2_000).prop_map(Input::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn nothing_that_is_said_breaks_a_node(inputs in prop::collection::vec(input(), 1..60)) {
        let mut now = Instant::from_millis(1_000);
        let mut config = config(1, 3);
        config.heartbeat = Duration::from_millis(50);
        let mut node = NodeCore::new(config, Incarnation(3), 2, 9, now).expect("the config is right");
        let mut epochs: Vec<(GroupId, Epoch)> = Vec::new();
        for input in inputs {
            match input {
                Input::Peer(from, m) => node.handle_peer(now, from, &m),
                Input::Event(w, e) => node.handle_event(now, WorkerId(w), e),
                Input::Frame(f) => node.handle_frame(now, PortId(0), &f),
                Input::Sent(at) => node.handle_sent(now, Instant::from_nanos(at)),
                Input::Command(c) => node.handle_command(now, c),
                Input::Wait(ms) => {
                    now = now + Duration::from_millis(ms);
                    node.handle_timeout(now);
                }
            }
            prop_assert!(node.groups().count() <= GROUP_COUNT_MAX);
            for n in 1..=3 {
                let of_it = node.groups().filter(|g| g.0.node == NodeId(n)).count();
                prop_assert!(of_it <= GENERATION_COUNT_MAX + 1);
            }
            // A node holds by its own grant only, and what it knows only grows while it knows it.
            for (id, epoch, role) in node.groups() {
                prop_assert!(!role.is_holder() || epoch.holder == peer(1, 3), "{id:?} {epoch:?} {role:?}");
                prop_assert!(role.is_holder() || epoch.holder != peer(1, 3), "{id:?} {epoch:?} {role:?}");
                let before = epochs.iter().find(|e| e.0 == id);
                prop_assert!(before.is_none_or(|e| e.1 <= epoch));
            }
            epochs = node.groups().map(|(id, epoch, _)| (id, epoch)).collect();
            if let Some(creating) = node.creating() {
                prop_assert!(node.role(creating).is_some_and(Role::is_holder));
            }
            let (mut messages, mut commands, mut events, mut frames) = (0, 0, 0, 0);
            while node.poll_peer().is_some() { messages += 1; }
            while node.poll_command().is_some() { commands += 1; }
            while node.poll_event().is_some() { events += 1; }
            while node.poll_transmit().is_some() { frames += 1; }
            prop_assert!(messages <= MESSAGE_COUNT_MAX && commands <= COMMAND_COUNT_MAX);
            prop_assert!(events <= EVENT_COUNT_MAX && frames <= FRAME_COUNT_MAX);
            prop_assert!(node.poll_timeout().is_some());
        }
    }
}
