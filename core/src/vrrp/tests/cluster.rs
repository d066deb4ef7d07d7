//! Several instances on one link with delay: who is master, and when.

use super::*;
use alloc::collections::BTreeMap;

/// A link: a frame of one reaches all others after a delay that depends on both ends.
struct Link {
    now: Instant,
    nodes: Vec<Vrrp>,
    alive: Vec<bool>,
    delay: fn(usize, usize) -> Duration,
    /// By time and number: to whom, and what.
    flying: BTreeMap<(Instant, u64), (usize, Vec<u8>)>,
    count: u64,
    /// When, who and what.
    log: Vec<(Instant, usize, VrrpEvent)>,
    /// Link-layer source of the last frame of each kind that left: where switches and hosts think the VIP is.
    announced_by: Option<usize>,
}

impl Link {
    fn new(configs: Vec<VrrpConfig>) -> Self {
        let nodes: Vec<_> = configs.into_iter().map(vrrp).collect();
        Link {
            now: ms(0),
            alive: vec![true; nodes.len()],
            nodes,
            delay: |from, to| Duration::from_micros(300 + 100 * from as u64 + 10 * to as u64),
            flying: BTreeMap::new(),
            count: 0,
            log: Vec::new(),
            announced_by: None,
        }
    }

    /// All ready from the start.
    fn ready(configs: Vec<VrrpConfig>) -> Self {
        let mut link = Link::new(configs);
        for node in 0..link.nodes.len() {
            link.act(node, |v, now| v.handle_ready(now, true));
        }
        link
    }

    fn act(&mut self, node: usize, f: impl FnOnce(&mut Vrrp, Instant)) {
        f(&mut self.nodes[node], self.now);
        let (frames, events) = drain(&mut self.nodes[node]);
        for frame in frames {
            if is_advertisement(&frame) {
                self.nodes[node].handle_sent(self.now);
            } else {
                self.announced_by = Some(node);
            }
            for to in (0..self.nodes.len()).filter(|to| *to != node) {
                let at = self.now + (self.delay)(node, to);
                self.count += 1;
                self.flying.insert((at, self.count), (to, frame.clone()));
            }
        }
        self.log.extend(events.into_iter().map(|e| (self.now, node, e)));
    }

    fn run_until(&mut self, end: Instant) {
        loop {
            let timer = (0..self.nodes.len())
                .filter(|n| self.alive[*n])
                .filter_map(|n| Some((self.nodes[n].poll_timeout()?, n)))
                .min();
            let frame = self.flying.first_key_value().map(|(at, _)| *at);
            // Frames before timers of the same time.
            match (frame, timer) {
                (Some((at, number)), timer) if timer.is_none_or(|(t, _)| at <= t) && at <= end => {
                    self.now = at;
                    let (to, frame) = self.flying.remove(&(at, number)).expect("it is there");
                    if self.alive[to] {
                        self.act(to, |v, now| {
                            // What others announce is no advertisement.
                            let runs = v.state() != VrrpState::Initialize;
                            let heard = v.handle_frame(now, &frame).is_ok();
                            assert_eq!(heard, runs && is_advertisement(&frame));
                        });
                    }
                }
                (_, Some((at, node))) if at <= end => {
                    self.now = at;
                    self.act(node, |v, now| v.handle_timeout(now));
                }
                _ => break,
            }
        }
        self.now = end;
    }

    fn run_for(&mut self, ms: u64) {
        self.run_until(self.now + millis(ms));
    }

    fn masters(&self) -> Vec<usize> {
        let is_master = |n: &usize| self.alive[*n] && self.nodes[*n].state() == VrrpState::Master;
        (0..self.nodes.len()).filter(is_master).collect()
    }

    /// When `node` became master for the last time.
    fn mastered(&self, node: usize) -> Instant {
        let event = |(_, n, e): &&(Instant, usize, VrrpEvent)| *n == node && *e == VrrpEvent::BecameMaster;
        self.log.iter().rev().find(event).expect("it became master").0
    }
}

const BOTH: [bool; 2] = [false, true];

#[test]
fn the_highest_priority_is_elected() {
    for v6 in BOTH {
        let mut link = Link::ready(vec![config(v6, 1, 100), config(v6, 2, 200), config(v6, 3, 150)]);
        link.run_for(2000);
        assert_eq!(link.masters(), [1]);
        // By Master_Down_Interval: nobody else was it even for a moment.
        assert_eq!(link.mastered(1), ms(0) + link.nodes[1].master_down_interval());
        let became: u64 = link.nodes.iter().map(|v| v.counters().became_master).sum();
        assert_eq!(became, 1);
        assert_eq!(link.nodes[0].heard_master(), Some(config(v6, 2, 200).primary));
        assert!(!link.nodes[1].is_suspect(link.now));
        assert_eq!(link.announced_by, Some(1));
    }
}

#[test]
fn failover_after_master_down_and_return() {
    for v6 in BOTH {
        let mut link = Link::ready(vec![config(v6, 1, 100), config(v6, 2, 200), config(v6, 3, 150)]);
        link.run_for(1000);
        link.alive[1] = false;
        let lease = link.nodes[1].lease_until().expect("it was master");
        let heard = link.nodes[2].heard_master_at().expect("it heard it");
        link.run_for(1000);
        assert_eq!(link.masters(), [2]);
        assert_eq!(link.announced_by, Some(2));
        let took_over = link.mastered(2);
        assert!(took_over <= heard + link.nodes[2].master_down_interval() + millis(1));
        assert!(took_over > lease, "leases do not overlap");
        // It comes back with an empty table, and then with a full one.
        link.nodes[1] = vrrp(config(v6, 2, 200));
        let now = link.now;
        link.act(1, |v, _| v.handle_shutdown(now));
        link.act(1, |v, _| v.handle_startup(now));
        link.alive[1] = true;
        link.run_for(3000);
        assert_eq!(
            link.masters(),
            [2],
            "a newcomer that is not ready does not preempt"
        );
        assert!(link.nodes[1].heard_master_at().is_some());
        let ready_at = link.now;
        link.act(1, |v, now| v.handle_ready(now, true));
        link.run_for(1000);
        assert_eq!(link.masters(), [1]);
        assert!(link.mastered(1) <= ready_at + link.nodes[1].master_down_interval());
        assert_eq!(link.announced_by, Some(1));
        assert_eq!(
            link.log
                .iter()
                .filter(|(at, ..)| *at > ready_at)
                .map(|(_, n, e)| (*n, *e))
                .collect::<Vec<_>>(),
            [
                (1, VrrpEvent::BecameMaster),
                (
                    2,
                    VrrpEvent::BecameBackup {
                        master: Some(config(v6, 2, 200).primary)
                    }
                )
            ]
        );
    }
}

#[test]
fn without_preempt_the_master_stays() {
    let mut late = config(false, 2, 200);
    late.preempt = false;
    let mut link = Link::new(vec![config(false, 1, 100), late]);
    link.act(0, |v, now| v.handle_ready(now, true));
    link.act(1, |v, now| v.handle_shutdown(now));
    link.run_for(1000);
    assert_eq!(link.masters(), [0]);
    link.act(1, |v, now| v.handle_startup(now));
    link.act(1, |v, now| v.handle_ready(now, true));
    link.run_for(5000);
    assert_eq!(link.masters(), [0]);
    link.alive[0] = false;
    link.run_for(1000);
    assert_eq!(link.masters(), [1]);
}

#[test]
fn a_stop_hands_over_within_the_skew_time() {
    for v6 in BOTH {
        let mut link = Link::ready(vec![config(v6, 1, 100), config(v6, 2, 200), config(v6, 3, 150)]);
        link.run_for(1000);
        let stopped = link.now;
        link.act(1, |v, now| v.handle_shutdown(now));
        link.run_for(1000);
        assert_eq!(link.masters(), [2]);
        let gap = link.mastered(2) - stopped;
        assert!(gap <= link.nodes[2].skew_time() + millis(1), "{gap:?}");
        assert_eq!(link.nodes[2].counters().stopped_in, 1);
        assert_eq!(link.nodes[1].state(), VrrpState::Initialize);
        assert_eq!(link.nodes[1].poll_timeout(), None);
    }
}

/// Both down timers pass at the same moment: the larger primary address remains.
#[test]
fn equal_priorities() {
    for v6 in BOTH {
        let mut link = Link::ready(vec![config(v6, 1, 100), config(v6, 2, 100)]);
        link.run_for(2000);
        assert_eq!(link.masters(), [1]);
        assert_eq!(link.nodes[0].counters().became_master, 1, "for a moment");
        assert_eq!(
            link.log.last().map(|(_, n, e)| (*n, *e)),
            Some((
                0,
                VrrpEvent::BecameBackup {
                    master: Some(config(v6, 2, 100).primary)
                }
            ))
        );
        // Whoever is master already remains so.
        link.alive[1] = false;
        link.run_for(1000);
        assert_eq!(link.masters(), [0]);
        link.nodes[1] = vrrp(config(v6, 2, 100));
        link.alive[1] = true;
        let now = link.now;
        link.act(1, |v, _| {
            v.handle_shutdown(now);
            v.handle_startup(now);
            v.handle_ready(now, true);
        });
        link.run_for(3000);
        assert_eq!(link.masters(), [0]);
    }
}

#[test]
fn nobody_is_ready() {
    let mut link = Link::new(vec![config(false, 1, 100), config(false, 2, 200)]);
    link.run_for(5000);
    assert_eq!(link.masters(), Vec::<usize>::new());
    assert!(link.nodes.iter().all(|v| v.counters().silences > 10));
    assert!(
        link.log
            .iter()
            .all(|(_, _, e)| *e == VrrpEvent::BecameBackup { master: None })
    );
    // The first that is ready is master after its skew, whatever its priority.
    link.act(0, |v, now| v.handle_ready(now, true));
    assert_eq!(link.masters(), Vec::<usize>::new());
    link.run_for(61);
    assert_eq!(link.masters(), [0]);
    link.run_for(1000);
    link.act(1, |v, now| v.handle_ready(now, true));
    assert_eq!(link.masters(), [0], "a master is heard");
    link.run_for(1000);
    assert_eq!(link.masters(), [1]);
}

/// A partition makes two masters; when it is over the better one remains, and it takes one delay to be so.
#[test]
fn two_masters_meet() {
    let mut link = Link::ready(vec![config(false, 1, 100), config(false, 2, 200)]);
    link.run_for(1000);
    link.delay = |_, _| Duration::from_secs(3600);
    link.run_for(1000);
    assert_eq!(link.masters(), [0, 1]);
    link.flying.clear();
    link.delay = |_, _| millis(1);
    link.run_for(102);
    assert_eq!(link.masters(), [1]);
    let sent = link.nodes[1].counters().adverts_out;
    link.run_for(1000);
    assert_eq!(
        link.nodes[1].counters().adverts_out - sent,
        10,
        "no storm is left"
    );
}

#[test]
fn an_owner_is_master_at_once_and_for_ever() {
    let mut link = Link::new(vec![config(false, 1, 255), config(false, 2, 254)]);
    link.act(1, |v, now| v.handle_ready(now, true));
    link.run_for(1000);
    assert_eq!(link.masters(), [1], "not ready is not ready");
    link.act(0, |v, now| v.handle_ready(now, true));
    assert_eq!(link.masters(), [0, 1]);
    link.run_for(1);
    assert_eq!(link.masters(), [0]);
    link.run_for(2000);
    assert_eq!(link.masters(), [0]);
}
