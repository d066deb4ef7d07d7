//! A virtual router (VRRP version 3; RFC 9568, RFC 5798 before it), one instance a family and number.
//!
//! ```text
//!                  +---------------+
//!       +--------->|               |<-------------+
//!       |          |  Initialize   |              |
//!       |   +------|               |----------+   |
//!       |   |      +---------------+          |   |
//!  shutdown |                        owner,   |  shutdown: priority 0 is sent
//!       | startup                    ready    |   |
//!       |   v                                 v   |
//! +---------------+  down timer, ready   +---------------+
//! |               |  or ready, silence   |               |
//! |    Backup     |--------------------->|    Master     |
//! |               |<---------------------|               |
//! +---------------+   a better master    +---------------+
//! ```
//!
//! Beyond the RFC, an instance is *ready* or not, as its node's conn table is. One that is not ready becomes
//! master under no circumstances: to masters of whatever priority it is a backup that does not preempt, and a
//! timer that passes in silence is armed again. Once it is ready it is master after its Skew_Time if there was
//! silence (those that start together would all be master at once without it), and else preempts by the RFC's rules. A master that ceases to be ready remains master: nobody else may be better,
//! and whoever knows can stop it ([`Vrrp::handle_shutdown`]).
//!
//! One that its operator promotes ([`Vrrp::handle_promote`]) runs with the highest priority that is no owner's, and
//! preempts: it takes over from any master that is not promoted itself, and stays until it is demoted.
//!
//! Methods come in the groups of sans-IO code: `handle_*` says that something happened, `poll_*` asks what to do
//! next, the rest reads. After each `handle_*`, frames and events are polled until there are none. Who has both a
//! frame and a timer to hand in hands in the frame first: a node that was held up finds the master's advertisements
//! in its queue, and shall not take over before it has read them.

mod config;
mod frame;
#[cfg(test)]
mod tests;

pub use config::{ADDR_COUNT_MAX_V4, ADDR_COUNT_MAX_V6, VrrpConfig, VrrpConfigError};
pub use frame::VrrpDrop;

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::time::Duration;

use crate::announce::announcement;
use crate::time::Instant;
use crate::tuple::Family;
use crate::wire::vrrp::{PRIORITY_OWNER, PRIORITY_STOPPED, virtual_mac_v4, virtual_mac_v6};
use crate::wire::{EtherType, EthernetView, IpProto, MacAddr, ethernet};
use config::{centiseconds, master_down_interval, skew_time};
use frame::{Framing, Heard, Octets};

/// Events that wait to be polled at most; the oldest gives way, and [`VrrpCounters::events_lost`] counts it.
pub const EVENT_COUNT_MAX: usize = 16;
/// Priority of one that was promoted: the highest that is not an address owner's.
pub const PRIORITY_PROMOTED: u8 = PRIORITY_OWNER - 1;
/// When the announcements of a new master are repeated: one may be lost, or come while a switch relearns.
pub const ANNOUNCE_AGAIN: Duration = Duration::from_secs(1);

/// State of an instance (RFC 9568, section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum VrrpState {
    /// It does not run.
    Initialize,
    /// It listens to a master, or waits for one.
    Backup,
    /// It answers for the virtual addresses. The RFC's newer word is Active.
    Master,
}

/// A change of state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VrrpEvent {
    /// From now on this node answers for the virtual addresses.
    BecameMaster,
    /// Another one does, or is waited for.
    BecameBackup {
        /// To whom it gave way; `None` after a start.
        master: Option<IpAddr>,
    },
    /// It runs no longer.
    Stopped,
}

/// What an instance counts. All only grow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VrrpCounters {
    /// Advertisements given out to be sent.
    pub adverts_out: u64,
    /// Gratuitous ARP and unsolicited neighbour advertisements given out to be sent.
    pub announcements_out: u64,
    /// Advertisements that passed all checks.
    pub adverts_in: u64,
    /// Of these: of priority 0.
    pub stopped_in: u64,
    /// Of these: with another interval than is configured here.
    pub other_interval_in: u64,
    /// Of these: with other addresses than are configured here.
    pub other_addrs_in: u64,
    /// How often it became master.
    pub became_master: u64,
    /// Times that the down timer passed while it was not ready.
    pub silences: u64,
    /// Events that nobody polled.
    pub events_lost: u64,
    /// Frames that told nothing, by reason.
    pub drops: [u64; VrrpDrop::COUNT],
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Vrrp {
    config: VrrpConfig,
    framing: Framing,
    state: VrrpState,
    now: Instant,
    ready: bool,
    /// It runs with [`PRIORITY_PROMOTED`] and preempts.
    promoted: bool,
    /// The down timer passed while it was not ready, and no master was heard since.
    silence: bool,
    /// Active_Adver_Interval: of the master that was heard last.
    master_interval: Duration,
    /// Adver_Timer in Master, Active_Down_Timer in Backup.
    timer: Option<Instant>,
    heard: Option<(IpAddr, Instant)>,
    master_since: Option<Instant>,
    sent_at: Option<Instant>,
    /// Priority of the advertisement that waits to be polled: only the latest says what is true.
    advert_due: Option<u8>,
    /// Place of the next virtual address to announce; behind the last, none is.
    announce_next: usize,
    announce_again: Option<Instant>,
    events: VecDeque<VrrpEvent>,
    counters: VrrpCounters,
}

impl Vrrp {
    /// An instance that has just started up, and is not ready.
    pub fn new(config: VrrpConfig, now: Instant) -> Result<Self, VrrpConfigError> {
        config.check()?;
        let v6 = config.family() == Family::V6;
        let mac = if v6 {
            virtual_mac_v6(config.vrid)
        } else {
            virtual_mac_v4(config.vrid)
        };
        let framing = Framing {
            vrid: config.vrid,
            primary: config.primary,
            interval_cs: config.interval_cs,
            ipv4_pseudo_header: config.ipv4_pseudo_header,
            mac,
            addrs: Octets::new(v6, &config.addrs),
        };
        let mut vrrp = Vrrp {
            framing,
            state: VrrpState::Initialize,
            now,
            ready: false,
            promoted: false,
            silence: false,
            master_interval: config.interval(),
            timer: None,
            heard: None,
            master_since: None,
            sent_at: None,
            advert_due: None,
            announce_next: config.addrs.len(),
            announce_again: None,
            events: VecDeque::with_capacity(EVENT_COUNT_MAX),
            counters: VrrpCounters::default(),
            config,
        };
        vrrp.handle_startup(now);
        Ok(vrrp)
    }

    /// Runs again after a shutdown (RFC 9568, section 6.4.1). Nothing changes if it runs.
    pub fn handle_startup(&mut self, now: Instant) {
        self.set_now(now);
        if self.state != VrrpState::Initialize {
            return;
        }
        if self.config.is_owner() && self.ready {
            self.become_master();
        } else {
            self.master_interval = self.config.interval();
            self.become_backup(None);
        }
    }

    /// Stops (RFC 9568, sections 6.4.2 and 6.4.3). A master says so with an advertisement of priority 0, upon
    /// which the best backup takes over within its Skew_Time.
    pub fn handle_shutdown(&mut self, now: Instant) {
        self.set_now(now);
        if self.state == VrrpState::Initialize {
            return;
        }
        self.leave_master();
        if self.state == VrrpState::Master {
            self.advert_due = Some(PRIORITY_STOPPED);
        }
        self.state = VrrpState::Initialize;
        self.timer = None;
        self.silence = false;
        self.heard = None;
        self.push_event(VrrpEvent::Stopped);
    }

    /// Whether the conn table is ready: only then does this node become master.
    pub fn handle_ready(&mut self, now: Instant, ready: bool) {
        self.set_now(now);
        let was_ready = core::mem::replace(&mut self.ready, ready);
        if !ready || self.state != VrrpState::Backup {
            return;
        }
        if self.config.is_owner() {
            self.become_master();
        } else if self.silence && !was_ready {
            // Nodes that start together are ready together: the skew gives them an order, as after a master's stop. The
            // timer that runs has come round in silence, and may be about to pass for the least of them.
            self.timer = Some(self.now + self.skew_time());
        }
    }

    /// Whether the operator wants this node to be master, whatever its priority and whether it preempts or not. A
    /// backup that is ready takes over when its down timer passes; one that is demoted is as it was configured.
    pub fn handle_promote(&mut self, now: Instant, promoted: bool) {
        self.set_now(now);
        if self.promoted == promoted {
            return;
        }
        self.promoted = promoted;
        if self.state == VrrpState::Master {
            // The others learn of it at once; the timer runs on.
            self.advert_due = Some(self.priority());
        }
    }

    /// A frame that came in, of whatever kind.
    pub fn handle_frame(&mut self, now: Instant, frame: &[u8]) -> Result<(), VrrpDrop> {
        self.set_now(now);
        let heard = self.read(frame).inspect_err(|&reason| {
            if let Some(n) = self.counters.drops.get_mut(reason as usize) {
                *n += 1;
            }
        })?;
        self.counters.adverts_in += 1;
        self.counters.other_interval_in += u64::from(heard.interval_cs != self.config.interval_cs);
        self.counters.other_addrs_in += u64::from(!heard.same_addrs);
        if heard.priority == PRIORITY_STOPPED {
            self.counters.stopped_in += 1;
        } else {
            self.heard = Some((heard.source, self.now));
            self.silence = false;
        }
        match self.state {
            VrrpState::Initialize => {}
            VrrpState::Backup => self.backup_heard(&heard),
            VrrpState::Master => self.master_heard(&heard),
        }
        Ok(())
    }

    fn read(&self, frame: &[u8]) -> Result<Heard, VrrpDrop> {
        let heard = self.framing.read(frame)?;
        match self.state {
            VrrpState::Initialize => Err(VrrpDrop::Stopped),
            VrrpState::Master if self.config.is_owner() => Err(VrrpDrop::AddressOwner),
            _ => Ok(heard),
        }
    }

    /// RFC 9568, section 6.4.2.
    fn backup_heard(&mut self, heard: &Heard) {
        if heard.priority == PRIORITY_STOPPED {
            self.timer = Some(self.now + self.skew_time());
            return;
        }
        let wants = self.config.preempt || self.promoted || self.config.is_owner();
        if self.ready && wants && heard.priority < self.priority() {
            // The timer runs on: this node takes over when it passes.
            return;
        }
        self.master_interval = centiseconds(heard.interval_cs);
        self.timer = Some(self.now + self.master_down_interval());
    }

    /// RFC 9568, section 6.4.3.
    fn master_heard(&mut self, heard: &Heard) {
        let theirs = (heard.priority, heard.source);
        let better = heard.priority != PRIORITY_STOPPED && theirs > (self.priority(), self.config.primary);
        if better {
            self.master_interval = centiseconds(heard.interval_cs);
            self.leave_master();
            self.become_backup(Some(heard.source));
        } else if heard.priority == PRIORITY_STOPPED {
            self.advertise();
        } else {
            // The other one learns of this master at once, and so do the switches between them; the timer runs on.
            self.advert_due = Some(self.priority());
        }
    }

    /// Something is due by [`Vrrp::poll_timeout`].
    pub fn handle_timeout(&mut self, now: Instant) {
        self.set_now(now);
        if self.timer.is_some_and(|at| at <= self.now) {
            match self.state {
                VrrpState::Initialize => self.timer = None,
                VrrpState::Backup if self.ready => self.become_master(),
                VrrpState::Backup => {
                    self.counters.silences += 1;
                    self.silence = true;
                    self.timer = Some(self.now + self.master_down_interval());
                }
                VrrpState::Master => self.advertise(),
            }
        }
        if self.announce_again.is_some_and(|at| at <= self.now) {
            self.announce_again = None;
            self.announce_next = 0;
        }
    }

    /// An advertisement of this master has left the node ([`is_advertisement`]), at `now`: the lease runs from
    /// there.
    pub fn handle_sent(&mut self, now: Instant) {
        self.set_now(now);
        // What was sent before it became master, the last one of an earlier time as master too, proves nothing.
        if self.master_since.is_some_and(|since| since <= now) {
            self.sent_at = self.sent_at.max(Some(now));
        }
    }

    /// A whole Ethernet frame to send, or `None`. The link-layer source is the virtual router's.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        if let Some(priority) = self.advert_due.take() {
            self.counters.adverts_out += 1;
            return Some(self.framing.advertisement(priority));
        }
        let addr = *self.config.addrs.get(self.announce_next)?;
        self.announce_next += 1;
        self.counters.announcements_out += 1;
        Some(announcement(self.framing.mac, addr, self.config.router))
    }

    /// A change of state, or `None`.
    pub fn poll_event(&mut self) -> Option<VrrpEvent> {
        self.events.pop_front()
    }

    /// When [`Vrrp::handle_timeout`] has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match (self.timer, self.announce_again) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// What it was made with.
    pub fn config(&self) -> &VrrpConfig {
        &self.config
    }

    /// Its state.
    pub fn state(&self) -> VrrpState {
        self.state
    }

    /// The priority that it advertises.
    pub fn priority(&self) -> u8 {
        if self.promoted {
            self.config.priority.max(PRIORITY_PROMOTED)
        } else {
            self.config.priority
        }
    }

    /// Whether its operator wants it to be master.
    pub fn is_promoted(&self) -> bool {
        self.promoted
    }

    /// Whether the conn table is ready.
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// What it counted.
    pub fn counters(&self) -> &VrrpCounters {
        &self.counters
    }

    /// Link-layer address of the virtual router.
    pub fn virtual_mac(&self) -> MacAddr {
        self.framing.mac
    }

    /// After which silence of the present master this node takes over.
    pub fn master_down_interval(&self) -> Duration {
        master_down_interval(self.priority(), self.master_interval)
    }

    /// After which time this node takes over from a master that stops.
    pub fn skew_time(&self) -> Duration {
        skew_time(self.priority(), self.master_interval)
    }

    /// When a master, whether better or worse than this node, was heard last; stops are not counted.
    pub fn heard_master_at(&self) -> Option<Instant> {
        self.heard.map(|(_, at)| at)
    }

    /// Who was heard then.
    pub fn heard_master(&self) -> Option<IpAddr> {
        self.heard.map(|(source, _)| source)
    }

    /// Until when it is certain that no backup has taken over: the time at which the last advertisement was
    /// sent, and the shortest Master_Down_Interval that a backup may have, less the margin. `None`: not master,
    /// or nothing was sent yet. It holds as far as backups hear what is sent.
    pub fn lease_until(&self) -> Option<Instant> {
        Some(self.sent_at? + self.config.lease())
    }

    /// Whether this node is master and not certain of it.
    pub fn is_suspect(&self, now: Instant) -> bool {
        self.state == VrrpState::Master && self.lease_until().is_none_or(|until| until <= now)
    }

    /// Time never goes back for an instance.
    fn set_now(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }

    fn become_master(&mut self) {
        self.state = VrrpState::Master;
        self.silence = false;
        self.master_since = Some(self.now);
        self.counters.became_master += 1;
        self.advertise();
        self.announce_next = 0;
        self.announce_again = Some(self.now + ANNOUNCE_AGAIN);
        self.push_event(VrrpEvent::BecameMaster);
    }

    fn become_backup(&mut self, master: Option<IpAddr>) {
        self.state = VrrpState::Backup;
        self.timer = Some(self.now + self.master_down_interval());
        self.push_event(VrrpEvent::BecameBackup { master });
    }

    /// What only a master has, and had better not be sent by another.
    fn leave_master(&mut self) {
        self.master_since = None;
        self.sent_at = None;
        self.advert_due = None;
        self.announce_next = self.config.addrs.len();
        self.announce_again = None;
    }

    fn advertise(&mut self) {
        self.advert_due = Some(self.priority());
        self.timer = Some(self.now + self.config.interval());
    }

    fn push_event(&mut self, event: VrrpEvent) {
        if self.events.len() == EVENT_COUNT_MAX {
            self.events.pop_front();
            self.counters.events_lost += 1;
        }
        self.events.push_back(event);
    }
}

/// Whether a frame that [`Vrrp::poll_transmit`] gave is an advertisement, of which [`Vrrp::handle_sent`] wants to
/// know; else it announces an address.
pub fn is_advertisement(frame: &[u8]) -> bool {
    let Ok(view) = EthernetView::new_checked(frame) else {
        return false;
    };
    // Where IPv4 has the protocol, and IPv6 the next header.
    let proto_at = match view.ethertype() {
        EtherType::IPV4 => 9,
        EtherType::IPV6 => 6,
        _ => return false,
    };
    frame.get(ethernet::HEADER_LEN + proto_at) == Some(&IpProto::VRRP.0)
}
