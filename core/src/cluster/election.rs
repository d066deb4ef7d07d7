//! Who answers for which address: virtual ones by VRRP, local ones by the state of their home node.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::time::Duration;

use super::config::ClusterConfig;
use super::member::PeerState;
use super::outbox::Outbox;
use super::{ClusterConfigError, NodeCore, NodeEvent, NodeId};
use crate::announce::announcement;
use crate::port::PortId;
use crate::sync::{Answering, Readiness};
use crate::time::Instant;
use crate::tuple::Family;
use crate::vrrp::{Vrrp, VrrpConfig, VrrpEvent, VrrpState, is_advertisement};
use crate::wire::MacAddr;

/// When the announcements of local addresses that were taken over are repeated: one may be lost.
const ANNOUNCE_AGAIN: Duration = crate::vrrp::ANNOUNCE_AGAIN;
/// Whoever does not hear a node takes it for dead, and takes its local addresses. If it lives it says that they are
/// its own: first after so long,
pub(super) const ASSERT_FIRST: Duration = Duration::from_millis(500);
/// and then ever more rarely, but no more rarely than this. When it is heard again, or they come home to it, as often until
/// it would be that rare.
const ASSERT_LAST: Duration = Duration::from_secs(16);

/// The virtual routers of a node: one a family.
#[derive(Debug)]
pub(super) struct Election {
    port: PortId,
    routers: Vec<Vrrp>,
    serving: bool,
}

impl Election {
    pub(super) fn new(config: &ClusterConfig, now: Instant) -> Result<Self, ClusterConfigError> {
        let mut election = Election {
            port: PortId(0),
            routers: Vec::new(),
            serving: false,
        };
        let (Some(vrrp), Some(me)) = (&config.vrrp, config.member(config.id)) else {
            return Ok(election);
        };
        election.port = vrrp.port;
        let families = [vrrp.source_v4.map(IpAddr::V4), vrrp.source_v6.map(IpAddr::V6)];
        for primary in families.into_iter().flatten() {
            let addrs = vrrp
                .virtual_addrs()
                .filter(|a| a.is_ipv4() == primary.is_ipv4())
                .collect();
            let router = VrrpConfig {
                vrid: vrrp.vrid,
                priority: me.priority,
                interval_cs: vrrp.interval_cs,
                preempt: vrrp.preempt,
                primary,
                addrs,
                router: false,
                ipv4_pseudo_header: true,
                lease_margin: vrrp.lease_margin(),
            };
            let router = Vrrp::new(router, now).map_err(|_| ClusterConfigError::VrrpRefused)?;
            election.routers.push(router);
        }
        Ok(election)
    }

    /// From whom an advertisement came; `Err`: it was none for a router of this node.
    pub(super) fn handle_frame(&mut self, now: Instant, port: PortId, frame: &[u8]) -> Result<IpAddr, ()> {
        if port != self.port {
            return Err(());
        }
        let mut from = Err(());
        for router in &mut self.routers {
            if router.handle_frame(now, frame).is_ok() {
                from = router.heard_master().ok_or(());
            }
        }
        from
    }

    pub(super) fn handle_sent(&mut self, at: Instant, frame: &[u8]) {
        if !is_advertisement(frame) {
            return;
        }
        // The EtherType tells the family.
        let v6 = frame.get(12..14) == Some(&[0x86, 0xdd]);
        for router in &mut self.routers {
            if (router.config().family() == Family::V6) == v6 {
                router.handle_sent(at);
            }
        }
    }

    /// Whether this node may be master. One that may not any more says so on the link, and listens.
    pub(super) fn set_serving(&mut self, now: Instant, serving: bool) {
        if self.serving == serving {
            return;
        }
        self.serving = serving;
        for router in &mut self.routers {
            router.handle_ready(now, serving);
            if !serving && router.state() == VrrpState::Master {
                router.handle_shutdown(now);
                router.handle_startup(now);
            }
        }
    }

    /// Whether the operator wants this node to be master.
    pub(super) fn set_promoted(&mut self, now: Instant, promoted: bool) {
        for router in &mut self.routers {
            router.handle_promote(now, promoted);
        }
    }

    pub(super) fn is_promoted(&self) -> bool {
        self.routers.iter().any(Vrrp::is_promoted)
    }

    pub(super) fn stop(&mut self, now: Instant) {
        for router in &mut self.routers {
            router.handle_shutdown(now);
        }
    }

    /// Whether a master other than this node was heard within this time.
    pub(super) fn heard_within(&self, now: Instant, time: Duration) -> bool {
        let mut heard = self.routers.iter().filter_map(Vrrp::heard_master_at);
        heard.any(|at| at + time > now)
    }

    pub(super) fn is_master(&self, family: Family) -> bool {
        let mut own = self.routers.iter().filter(|r| r.config().family() == family);
        own.any(|r| r.state() == VrrpState::Master)
    }

    /// Until when this node is certain that nobody else is master.
    pub(super) fn lease_until(&self, family: Family) -> Option<Instant> {
        let mut own = self.routers.iter().filter(|r| r.config().family() == family);
        own.find_map(Vrrp::lease_until)
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.routers.iter().filter_map(Vrrp::poll_timeout).min()
    }

    /// Lets the routers do what is due, and fetches what they have to say.
    pub(super) fn advance(&mut self, now: Instant, out: &mut Outbox) {
        for router in &mut self.routers {
            if router.poll_timeout().is_some_and(|at| at <= now) {
                router.handle_timeout(now);
            }
            let family = router.config().family();
            while let Some(event) = router.poll_event() {
                match event {
                    VrrpEvent::BecameMaster => out.event(NodeEvent::BecameMaster(family)),
                    // Told at the start too: everybody begins as a backup.
                    VrrpEvent::BecameBackup { .. } => out.event(NodeEvent::BecameBackup(family)),
                    VrrpEvent::Stopped => {}
                }
            }
            while let Some(frame) = router.poll_transmit() {
                out.frame(self.port, frame);
            }
        }
    }

    fn answered(&self) -> impl Iterator<Item = (IpAddr, Option<MacAddr>)> + '_ {
        let masters = self.routers.iter().filter(|r| r.state() == VrrpState::Master);
        masters.flat_map(|r| {
            let addrs = r.config().addrs.iter();
            addrs.map(|&a| (a, Some(r.virtual_mac())))
        })
    }
}

impl NodeCore {
    /// Who answers for a member's local addresses: itself while it serves, else the holder of its newest group.
    fn responder(&self, node: NodeId) -> Option<NodeId> {
        let (up, serves) = if node == self.me.node {
            (!self.stopped, self.serves() && !self.leaving)
        } else {
            self.peer(node).map_or((false, false), |p| (p.up, p.serves()))
        };
        if serves {
            return Some(node);
        }
        let groups = self.groups.iter().rev().filter(|(id, _)| id.node == node);
        let holders = groups.filter(|(_, g)| self.is_alive(g.epoch.holder, g.learned_at));
        for (_, group) in holders {
            let holder = group.epoch.holder.node;
            // A joining node holds its own empty group, and answers for nothing yet.
            let ready = holder != node || (up && self.readiness_of(node) >= Readiness::Degraded);
            if ready {
                return Some(holder);
            }
        }
        None
    }

    /// Which addresses are this node's to answer, now.
    pub(super) fn advance_answering(&mut self, now: Instant) {
        let mut addrs: Vec<(IpAddr, Option<MacAddr>)> = Vec::new();
        if !self.stopped {
            addrs.extend(self.election.answered());
            if self.config.vrrp.is_none() && self.serves() && !self.leaving {
                addrs.extend(self.config.shared_addrs.iter().map(|&a| (a, None)));
            }
            for member in &self.config.members {
                if self.responder(member.id) == Some(self.me.node) {
                    addrs.extend(member.local_addrs.iter().map(|&a| (a, None)));
                    let peer = self.peers.iter_mut().find(|p| p.id == member.id);
                    peer.into_iter().for_each(|p| p.answered = true);
                }
            }
        }
        addrs.sort_unstable();
        addrs.dedup_by_key(|(a, _)| *a);
        if addrs != self.answering.addrs {
            let new = addrs.iter().filter(|a| !self.answering.addrs.contains(a));
            let new: Vec<IpAddr> = new.filter(|a| self.is_local(a.0)).map(|a| a.0).collect();
            self.announce(&new);
            if !new.is_empty() {
                self.announce_again = Some(now + ANNOUNCE_AGAIN);
            }
            // Whoever had its own meanwhile may be the last whom a host heard of them, should both be lost.
            if new.iter().any(|&a| self.is_own(a)) {
                self.assert_every = ASSERT_FIRST;
                self.assert_at = Some(now + ASSERT_FIRST);
            }
            self.answering = Arc::new(Answering { addrs });
            self.levels_due = true;
        }
        self.assert_local_addrs(now);
        if self.announce_again.is_some_and(|at| at <= now) {
            self.announce_again = None;
            let locals = self.answering.addrs.iter().map(|a| a.0);
            let locals: Vec<IpAddr> = locals.filter(|&a| self.is_local(a)).collect();
            self.announce(&locals);
        }
    }

    /// Whoever does not hear this node by sync takes its local addresses, perhaps; whoever hears it again does not answer
    /// for them any more, but hosts do not know that.
    fn assert_local_addrs(&mut self, now: Instant) {
        // One whom this node does not hear may not hear it either.
        let silent = |p: &PeerState| p.heard_at.is_none_or(|at| at + self.down_time <= now);
        let doubts = |p: &PeerState| p.incarnation.is_some() && (!p.hears_me || silent(p));
        let doubted = self.peers.iter().any(doubts);
        if doubted != self.doubted {
            self.doubted = doubted;
            self.assert_every = ASSERT_FIRST;
            self.assert_at = Some(if doubted { now + ASSERT_FIRST } else { now });
        }
        if self.assert_at.is_none_or(|at| at > now) {
            return;
        }
        let answered = self.answering.addrs.iter().map(|a| a.0);
        let own: Vec<IpAddr> = answered.filter(|&a| self.is_own(a)).collect();
        self.announce(&own);
        // Once all hear it again, or it has them again, it says so a few times: that may be lost, and nobody else says it.
        let goes_on = doubted || self.assert_every < ASSERT_LAST;
        self.assert_at = (goes_on && !self.stopped).then(|| now + self.assert_every);
        self.assert_every = (self.assert_every * 2).min(ASSERT_LAST);
    }

    fn is_local(&self, addr: IpAddr) -> bool {
        self.config.members.iter().any(|m| m.local_addrs.contains(&addr))
    }

    /// Whether this node is the home of a local address.
    fn is_own(&self, addr: IpAddr) -> bool {
        let me = self.config.member(self.me.node);
        me.is_some_and(|m| m.local_addrs.contains(&addr))
    }

    /// Tells links that this node has these addresses now.
    fn announce(&mut self, addrs: &[IpAddr]) {
        for &(port, mac) in &self.config.announce {
            for &addr in addrs {
                self.out.frame(port, announcement(mac, addr, false));
            }
        }
    }
}
