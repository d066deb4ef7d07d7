//! Who is greeted, and who is answered: what lets nodes open each other's frames.
//!
//! A node says HELLO to each member whose present life it has not been greeted by, once a heartbeat. Who hears one asks its workers where
//! their streams are, and answers. What was sent before the HELLO came is below the numbers of the answer, so nothing of it is taken:
//! that makes a node that was just started as deaf to replayed frames as one that has heard them all.

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use super::{NODE_COUNT_MAX, NodeId, PeerId};
use crate::port::WorkerId;
use crate::sync::codec::{CAPABILITIES, Hello, StreamNumbers};
use crate::sync::seal::{SALT_LEN, Salt, Sealing, Secrets, Suite};
use crate::sync::{Receiver, SyncCommand};
use crate::time::Instant;

/// Workers are asked no more often than this, however many HELLOs come.
const ASK_EVERY: Duration = Duration::from_millis(5);

#[derive(Debug)]
pub(super) struct Greeting {
    salt: Salt,
    suite: Suite,
    /// As heartbeats.
    every: Duration,
    hello_at: Instant,
    /// Who is to be answered, by node: the latest salt of each.
    asked: Vec<(PeerId, Salt)>,
    /// Of the answers that workers are asked for: their number, who gets them, and what has come.
    round: u32,
    answering: Vec<(PeerId, Salt)>,
    numbers: Vec<Option<StreamNumbers>>,
    asked_at: Option<Instant>,
    /// Secrets that workers are to apply, their number, and who has.
    secrets: Option<Secrets>,
    secrets_number: u32,
    applied: Vec<bool>,
    secrets_at: Instant,
    /// At most one HELLO for each member, and one command for each worker of each kind.
    hellos: VecDeque<(NodeId, Hello)>,
    commands: VecDeque<(WorkerId, SyncCommand)>,
}

impl Greeting {
    pub(super) fn new(sealing: &Sealing, every: Duration, workers: u8, now: Instant) -> Self {
        Greeting {
            salt: sealing.salt,
            suite: sealing.crypto.suite(),
            every,
            hello_at: now,
            asked: Vec::new(),
            round: 0,
            answering: Vec::new(),
            numbers: vec![None; usize::from(workers)],
            asked_at: None,
            secrets: None,
            secrets_number: 0,
            applied: vec![true; usize::from(workers)],
            secrets_at: now,
            hellos: VecDeque::new(),
            commands: VecDeque::new(),
        }
    }

    pub(super) fn poll_timeout(&self) -> Instant {
        let ask = (!self.asked.is_empty() || !self.answering.is_empty()).then(|| self.ask_at());
        let tell = self.secrets.as_ref().map(|_| self.secrets_at);
        ask.into_iter().chain(tell).fold(self.hello_at, Instant::min)
    }

    /// When workers may be asked next; or again, as what they are asked or say may be lost.
    fn ask_at(&self) -> Instant {
        let wait = if self.answering.is_empty() {
            ASK_EVERY
        } else {
            self.every
        };
        self.asked_at.map_or(Instant::ZERO, |at| at + wait)
    }

    /// A HELLO came. One of an earlier life, which may be a copy, does not keep a later one from being answered.
    pub(super) fn asked(&mut self, from: PeerId, salt: Salt) {
        let later = |of: &PeerId| of.node == from.node && of.incarnation > from.incarnation;
        if self.asked.iter().any(|(of, _)| later(of)) {
            return;
        }
        self.asked.retain(|(of, _)| of.node != from.node);
        if self.asked.len() < NODE_COUNT_MAX {
            self.asked.push((from, salt));
        }
    }

    /// A worker says where its streams are.
    pub(super) fn numbers(&mut self, round: u32, worker: WorkerId, numbers: StreamNumbers) {
        let place = self.numbers.get_mut(usize::from(worker.0));
        if let Some(place) = place.filter(|_| round == self.round && !self.answering.is_empty()) {
            *place = Some(numbers);
        }
    }

    pub(super) fn set_secrets(&mut self, secrets: Secrets, now: Instant) {
        self.secrets = Some(secrets);
        self.secrets_number = self.secrets_number.wrapping_add(1).max(1);
        self.applied.fill(false);
        self.secrets_at = now;
    }

    pub(super) fn applied(&mut self, worker: WorkerId, number: u32) {
        if let Some(place) = self.applied.get_mut(usize::from(worker.0))
            && number == self.secrets_number
        {
            *place = true;
        }
        if self.applied.iter().all(|applied| *applied) {
            self.secrets = None;
        }
    }

    pub(super) fn secrets(&self) -> (u32, usize) {
        (self.secrets_number, self.applied.iter().filter(|a| **a).count())
    }

    fn hello(&self, echo: Salt, numbers: Vec<StreamNumbers>) -> Hello {
        Hello {
            salt: self.salt,
            suite: self.suite,
            capabilities: CAPABILITIES,
            echo,
            numbers,
        }
    }

    fn for_workers(&mut self, command: impl Fn(u32) -> Option<SyncCommand>) {
        for w in 0..self.numbers.len() as u32 {
            if let Some(command) = command(w) {
                self.commands.push_back((WorkerId(w as u8), command));
            }
        }
    }

    /// Does what is due.
    pub(super) fn advance(&mut self, now: Instant, receiver: &Receiver) {
        if now >= self.hello_at {
            self.hello_at = now + self.every;
            for node in receiver.ungreeted() {
                let hello = self.hello([0; SALT_LEN], Vec::new());
                self.hellos.push_back((node, hello));
            }
        }
        if !self.answering.is_empty() && self.numbers.iter().all(Option::is_some) {
            let numbers: Vec<StreamNumbers> = self.numbers.iter().copied().flatten().collect();
            for (of, salt) in core::mem::take(&mut self.answering) {
                let hello = self.hello(salt, numbers.clone());
                self.hellos.push_back((of.node, hello));
            }
        }
        let waits = !self.asked.is_empty() || !self.answering.is_empty();
        if waits && now >= self.ask_at() {
            if self.answering.is_empty() {
                self.answering = core::mem::take(&mut self.asked);
                self.round = self.round.wrapping_add(1);
                self.numbers.fill(None);
            }
            self.asked_at = Some(now);
            let round = self.round;
            let missing: Vec<bool> = self.numbers.iter().map(Option::is_none).collect();
            self.for_workers(|w| missing[w as usize].then_some(SyncCommand::Numbers(round)));
        }
        if let Some(secrets) = self.secrets.clone()
            && now >= self.secrets_at
        {
            self.secrets_at = now + self.every;
            let (number, applied) = (self.secrets_number, self.applied.clone());
            self.for_workers(|w| {
                (!applied[w as usize]).then(|| SyncCommand::Secrets(number, secrets.clone()))
            });
        }
    }

    pub(super) fn poll_command(&mut self) -> Option<(WorkerId, SyncCommand)> {
        self.commands.pop_front()
    }

    pub(super) fn poll_hello(&mut self) -> Option<(NodeId, Hello)> {
        self.hellos.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Incarnation;
    use crate::sync::seal::{AeadKey, Crypto, SECRET_LEN, Secret};
    use alloc::boxed::Box;
    use alloc::sync::Arc;

    /// Nothing is sealed here.
    #[derive(Debug)]
    struct None_;

    impl Crypto for None_ {
        fn suite(&self) -> Suite {
            Suite::AesGcm
        }
        fn key(&self, _: Suite, _: &Secret, _: &Salt, _: &[u8]) -> Box<dyn AeadKey> {
            unreachable!("a greeting seals nothing itself")
        }
    }

    const EVERY: Duration = Duration::from_millis(100);

    fn ms(n: u64) -> Instant {
        Instant::from_millis(n)
    }

    fn secrets(id: u8) -> Secrets {
        Secrets::new(vec![(id, Secret([id; SECRET_LEN]))]).expect("one")
    }

    fn node(workers: u8) -> (Greeting, Receiver) {
        let sealing = Sealing {
            crypto: Arc::new(None_),
            secrets: secrets(1),
            salt: [1; SALT_LEN],
        };
        let members = [NodeId(1), NodeId(2), NodeId(3)];
        let receiver = Receiver::new(7, NodeId(1), &members, Some(&sealing)).expect("three members");
        (Greeting::new(&sealing, EVERY, workers, ms(1_000)), receiver)
    }

    fn hellos(g: &mut Greeting) -> Vec<(u16, Salt, usize)> {
        core::iter::from_fn(|| g.poll_hello())
            .map(|(to, hello)| (to.0, hello.echo, hello.numbers.len()))
            .collect()
    }

    fn commands(g: &mut Greeting) -> Vec<(u8, u32)> {
        core::iter::from_fn(|| g.poll_command())
            .map(|(w, command)| match command {
                SyncCommand::Numbers(round) => (w.0, round),
                SyncCommand::Secrets(number, _) => (w.0, number),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    fn life(node: u16, incarnation: u64) -> PeerId {
        PeerId {
            node: NodeId(node),
            incarnation: Incarnation(incarnation),
        }
    }

    /// What one asks who has died, and somebody says again, does not displace what its next life asks.
    #[test]
    fn an_earlier_life_does_not_keep_a_later_one_from_its_answer() {
        let (mut g, receiver) = node(1);
        g.advance(ms(1_000), &receiver);
        hellos(&mut g);
        for (incarnation, salt) in [(8, 8), (9, 9), (8, 8), (7, 7)] {
            g.asked(life(2, incarnation), [salt; SALT_LEN]);
        }
        g.advance(ms(1_001), &receiver);
        g.numbers(1, WorkerId(0), NUMBERS);
        g.advance(ms(1_002), &receiver);
        assert_eq!(hellos(&mut g), [(2, [9; SALT_LEN], 1)]);
        // Once that is answered any may ask again.
        g.asked(life(2, 8), [8; SALT_LEN]);
        g.advance(ms(1_010), &receiver);
        g.numbers(2, WorkerId(0), NUMBERS);
        g.advance(ms(1_011), &receiver);
        assert_eq!(hellos(&mut g), [(2, [8; SALT_LEN], 1)]);
    }

    const NUMBERS: StreamNumbers = StreamNumbers { live: 5, bulk: 6 };

    #[test]
    fn who_is_not_greeted_is_asked_once_a_heartbeat() {
        let (mut g, receiver) = node(1);
        for beat in 0..3 {
            let at = ms(1_000 + 100 * beat);
            assert_eq!(g.poll_timeout(), at);
            g.advance(at, &receiver);
            g.advance(at, &receiver);
            assert_eq!(hellos(&mut g), [(2, [0; SALT_LEN], 0), (3, [0; SALT_LEN], 0)]);
        }
    }

    #[test]
    fn an_answer_waits_for_all_workers_and_is_no_older_than_the_question() {
        let (mut g, receiver) = node(2);
        g.advance(ms(1_000), &receiver);
        hellos(&mut g);
        g.asked(life(2, 9), [2; SALT_LEN]);
        assert!(g.poll_timeout() <= ms(1_001));
        g.advance(ms(1_001), &receiver);
        assert_eq!(commands(&mut g), [(0, 1), (1, 1)]);
        g.numbers(1, WorkerId(0), NUMBERS);
        g.numbers(0, WorkerId(1), NUMBERS);
        g.numbers(1, WorkerId(9), NUMBERS);
        // Another one asks meanwhile: what the workers say now may be older than that.
        g.asked(life(3, 9), [3; SALT_LEN]);
        g.advance(ms(1_050), &receiver);
        assert_eq!((hellos(&mut g), commands(&mut g)), (vec![], vec![]));
        // What the second worker said was lost: it is asked again, and the first one is not.
        g.advance(ms(1_101), &receiver);
        hellos(&mut g);
        assert_eq!(commands(&mut g), [(1, 1)]);
        g.numbers(1, WorkerId(1), NUMBERS);
        g.advance(ms(1_102), &receiver);
        assert_eq!(hellos(&mut g), [(2, [2; SALT_LEN], 2)]);
        // No more often than workers are to be asked.
        assert_eq!(commands(&mut g), []);
        g.advance(ms(1_106), &receiver);
        assert_eq!(commands(&mut g), [(0, 2), (1, 2)]);
        for w in [0, 1] {
            g.numbers(2, WorkerId(w), NUMBERS);
        }
        g.advance(ms(1_107), &receiver);
        assert_eq!(hellos(&mut g), [(3, [3; SALT_LEN], 2)]);
        // Answers to nothing.
        g.numbers(2, WorkerId(0), NUMBERS);
        g.advance(ms(1_150), &receiver);
        assert_eq!((hellos(&mut g), commands(&mut g)), (vec![], vec![]));
    }

    #[test]
    fn who_asks_without_end_is_answered_in_bounds() {
        let (mut g, receiver) = node(1);
        let mut answers = 0;
        for at in 0..1_000u64 {
            for n in 0..100u16 {
                g.asked(life(n, 9), [at as u8; SALT_LEN]);
            }
            g.advance(ms(1_000 + at), &receiver);
            for (w, round) in commands(&mut g) {
                g.numbers(round, WorkerId(w), NUMBERS);
            }
            answers += hellos(&mut g)
                .iter()
                .filter(|(_, echo, _)| *echo != [0; SALT_LEN])
                .count();
            assert!(g.asked.len() <= NODE_COUNT_MAX && g.answering.len() <= NODE_COUNT_MAX);
        }
        assert!((1_000..=NODE_COUNT_MAX * 200).contains(&answers), "{answers}");
    }

    #[test]
    fn secrets_are_told_until_all_workers_have_applied_them() {
        let (mut g, receiver) = node(3);
        assert_eq!(g.secrets(), (0, 3));
        g.advance(ms(1_000), &receiver);
        hellos(&mut g);
        g.set_secrets(secrets(2), ms(1_010));
        assert_eq!(g.poll_timeout(), ms(1_010));
        g.advance(ms(1_010), &receiver);
        assert_eq!(commands(&mut g), [(0, 1), (1, 1), (2, 1)]);
        g.applied(WorkerId(0), 1);
        g.applied(WorkerId(1), 7);
        g.applied(WorkerId(200), 1);
        assert_eq!(g.secrets(), (1, 1));
        g.advance(ms(1_110), &receiver);
        assert_eq!(commands(&mut g), [(1, 1), (2, 1)]);
        // Others come before these are applied by all: only those count.
        g.set_secrets(secrets(3), ms(1_120));
        g.applied(WorkerId(1), 1);
        g.advance(ms(1_120), &receiver);
        assert_eq!(commands(&mut g), [(0, 2), (1, 2), (2, 2)]);
        for w in 0..3 {
            g.applied(WorkerId(w), 2);
        }
        assert_eq!(g.secrets(), (2, 3));
        g.advance(ms(1_300), &receiver);
        assert_eq!(commands(&mut g), []);
    }
}
