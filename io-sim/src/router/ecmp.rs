//! Which of several equal next hops a flow is sent to.

/// Next hops of a group at most.
pub(super) const MEMBER_COUNT_MAX: usize = 64;
/// Buckets of a resilient group at most.
pub(super) const BUCKET_COUNT_MAX: u32 = 65_536;

/// How flows are dealt to the next hops that are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ecmp {
    /// The hash modulo their number: whenever it changes, most flows move.
    Modulo,
    /// By a table of so many buckets, as switches and Linux' next-hop groups of type `resilient` have: the buckets of one that is
    /// gone are dealt to the others, and one that is new takes its share of theirs. No other flow moves. (Linux waits until
    /// a bucket is idle before it moves to a new one; this table does not.)
    Resilient(u32),
}

/// The next hops of a group, and who has which flows.
#[derive(Debug)]
pub(super) struct Dealer {
    kind: Ecmp,
    alive: Vec<bool>,
    /// Of a resilient group: the member of each bucket. Empty while there is none.
    table: Vec<u16>,
}

impl Dealer {
    /// None of `members` is there yet.
    pub(super) fn new(kind: Ecmp, members: usize) -> Self {
        Dealer {
            kind,
            alive: vec![false; members],
            table: Vec::new(),
        }
    }

    pub(super) fn alive(&self) -> &[bool] {
        &self.alive
    }

    /// The next hop of a flow; `None`: there is none.
    pub(super) fn member(&self, hash: u64) -> Option<usize> {
        match self.kind {
            Ecmp::Modulo => {
                let there = self.alive.iter().filter(|a| **a).count() as u64;
                let nth = hash.checked_rem(there)? as usize;
                let mut live = (0..).zip(&self.alive).filter(|(_, alive)| **alive);
                live.nth(nth).map(|(member, _)| member)
            }
            Ecmp::Resilient(_) => {
                let bucket = hash.checked_rem(self.table.len() as u64)? as usize;
                self.table.get(bucket).copied().map(usize::from)
            }
        }
    }

    /// A next hop is there, or is gone. `false`: that is no news.
    pub(super) fn set(&mut self, member: usize, alive: bool) -> bool {
        match self.alive.get_mut(member) {
            Some(known) if *known != alive => *known = alive,
            _ => return false,
        }
        if let Ecmp::Resilient(buckets) = self.kind {
            let member = member as u16;
            if alive {
                self.take(member, buckets as usize);
            } else {
                self.give(member);
            }
        }
        true
    }

    /// Members that are there with the number of their buckets, by number.
    fn loads(&self) -> Vec<(u16, usize)> {
        let mut loads: Vec<(u16, usize)> = (0..)
            .zip(&self.alive)
            .filter_map(|(member, alive)| alive.then_some((member, 0)))
            .collect();
        for owner in &self.table {
            if let Some(load) = loads.iter_mut().find(|(member, _)| member == owner) {
                load.1 += 1;
            }
        }
        loads
    }

    /// The new one takes its share, each bucket of the one that has the most.
    fn take(&mut self, member: u16, buckets: usize) {
        let mut loads = self.loads();
        if loads.len() == 1 {
            self.table = vec![member; buckets];
            return;
        }
        let share = buckets / loads.len();
        loads.retain(|(other, _)| *other != member);
        for _ in 0..share {
            let Some(richest) = loads
                .iter_mut()
                .max_by_key(|(other, load)| (*load, std::cmp::Reverse(*other)))
            else {
                return;
            };
            richest.1 -= 1;
            if let Some(bucket) = self.table.iter_mut().rev().find(|owner| **owner == richest.0) {
                *bucket = member;
            }
        }
    }

    /// What it had goes to the others, each bucket to the one that has the fewest.
    fn give(&mut self, member: u16) {
        let mut loads = self.loads();
        if loads.is_empty() {
            self.table.clear();
            return;
        }
        for owner in self.table.iter_mut().filter(|owner| **owner == member) {
            if let Some(poorest) = loads.iter_mut().min_by_key(|(other, load)| (*load, *other)) {
                poorest.1 += 1;
                *owner = poorest.0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dealt(dealer: &Dealer) -> Vec<Option<usize>> {
        (0..12_000u64)
            .map(|hash| dealer.member(hash.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
            .collect()
    }

    fn moved(before: &[Option<usize>], after: &[Option<usize>]) -> usize {
        before.iter().zip(after).filter(|(b, a)| b != a).count()
    }

    #[test]
    fn modulo_moves_most_flows_whenever_a_member_comes_or_goes() {
        let mut dealer = Dealer::new(Ecmp::Modulo, 4);
        assert_eq!(dealer.member(7), None);
        for member in 0..3 {
            assert!(dealer.set(member, true));
        }
        assert!(!dealer.set(2, true), "that is no news");
        let three = dealt(&dealer);
        dealer.set(3, true);
        let four = dealt(&dealer);
        assert!(moved(&three, &four) > 8_000, "{}", moved(&three, &four));
        assert!((0..4).all(|m| four.iter().filter(|to| **to == Some(m)).count() > 2_500));
        dealer.set(1, false);
        assert!(dealt(&dealer).iter().all(|to| *to != Some(1)));
    }

    #[test]
    fn a_resilient_group_moves_what_it_must_and_no_more() {
        let mut dealer = Dealer::new(Ecmp::Resilient(120), 4);
        assert_eq!(dealer.member(7), None);
        for member in 0..4 {
            dealer.set(member, true);
            let loads = dealer.loads();
            assert!(loads.iter().all(|l| l.1 == 120 / loads.len()), "{loads:?}");
        }
        let four = dealt(&dealer);
        dealer.set(1, false);
        let three = dealt(&dealer);
        for (before, after) in four.iter().zip(&three) {
            assert!(
                *before == Some(1) || before == after,
                "a flow of a living member moved"
            );
            assert_ne!(*after, Some(1));
        }
        assert!(dealer.loads().iter().all(|l| l.1 == 40));
        dealer.set(1, true);
        let again = dealt(&dealer);
        for (before, after) in three.iter().zip(&again) {
            assert!(
                *after == Some(1) || before == after,
                "a flow moved to an old member"
            );
        }
        assert!(dealer.loads().iter().all(|l| l.1 == 30));
        for member in 0..4 {
            dealer.set(member, false);
        }
        assert_eq!(dealer.member(7), None);
    }
}
