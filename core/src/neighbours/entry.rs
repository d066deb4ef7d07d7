//! What is known of one neighbour, and how that changes.

use core::fmt;
use core::time::Duration;

use crate::time::Instant;
use crate::wire::MacAddr;

/// A question is repeated after this long (RFC 4861, RETRANS_TIMER).
pub const RETRANS_TIME: Duration = Duration::from_secs(1);
/// Questions to all hosts without an answer after which a neighbour is taken for gone (RFC 4861,
/// MAX_MULTICAST_SOLICIT).
pub const MULTICAST_ASK_COUNT: u8 = 3;
/// Questions to the address that is known, before all are asked (RFC 4861, MAX_UNICAST_SOLICIT).
pub const UNICAST_ASK_COUNT: u8 = 3;
/// How long an answer holds, on average (RFC 4861, REACHABLE_TIME); it is spread by half to both sides.
pub const REACHABLE_TIME: Duration = Duration::from_secs(30);
/// How long after that the neighbour is asked whether it is still there (RFC 4861, DELAY_FIRST_PROBE_TIME).
pub const STALE_TIME: Duration = Duration::from_secs(5);
/// How long one that does not answer is left alone.
pub const FAILED_TIME: Duration = Duration::from_secs(5);
/// A link-layer address that nobody asked for replaces the known one only if that is as old as this: who says
/// another one with every frame does not change what workers read with every frame.
pub const LOCK_TIME: Duration = Duration::from_secs(1);

/// What is known of a neighbour: states of RFC 4861, 7.3.2, for both families.
///
/// Two things differ. Nobody tells here which neighbours are in use, as that would cost every packet something, and
/// so all are taken for used: there is no `DELAY`, and what is stale is probed after [`STALE_TIME`]. And one that
/// does not answer at its address is asked for among all hosts before it is given up (RFC 7048, 3).
///
/// | state | answered | told | doubted | time up | unanswered |
/// |---|---|---|---|---|---|
/// | incomplete | reachable | stale | | asks again | failed |
/// | reachable | | stale | stale | stale | |
/// | stale | | stale | | probe | |
/// | probe | reachable | stale | | asks again | failed |
/// | failed | | stale | | incomplete, or forgotten | |
///
/// *Told* is a link-layer address that nobody asked for, *doubted* one that does not replace the known one. Who is
/// wanted on demand is forgotten when the time of `failed` is up, and asked for with the next packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NeighbourState {
    /// Asked for, and not known.
    Incomplete,
    /// It answered lately.
    Reachable,
    /// It was known or told once.
    Stale,
    /// Known once, and asked for again.
    Probe,
    /// It does not answer, and is left alone for a while.
    Failed,
}

impl NeighbourState {
    /// Every state.
    pub const ALL: [NeighbourState; 5] = [
        NeighbourState::Incomplete,
        NeighbourState::Reachable,
        NeighbourState::Stale,
        NeighbourState::Probe,
        NeighbourState::Failed,
    ];

    /// Name in listings.
    pub const fn name(self) -> &'static str {
        match self {
            NeighbourState::Incomplete => "incomplete",
            NeighbourState::Reachable => "reachable",
            NeighbourState::Stale => "stale",
            NeighbourState::Probe => "probe",
            NeighbourState::Failed => "failed",
        }
    }

    /// Whether a question is out.
    pub(super) const fn is_asking(self) -> bool {
        matches!(self, NeighbourState::Incomplete | NeighbourState::Probe)
    }

    /// Questions of this state at most.
    const fn ask_count_max(self) -> u8 {
        match self {
            NeighbourState::Incomplete => MULTICAST_ASK_COUNT,
            NeighbourState::Probe => UNICAST_ASK_COUNT + MULTICAST_ASK_COUNT,
            _ => 0,
        }
    }
}

impl fmt::Display for NeighbourState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What happens to a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EntryEvent {
    /// It answered what it was asked.
    Answered,
    /// Unasked, somebody told a link-layer address of it, which is taken.
    Told,
    /// Somebody told another link-layer address than the known one, which is not taken.
    Doubted,
    /// The time of its state is up.
    TimeUp,
    /// So it is, and it was asked often enough.
    Unanswered,
}

/// The table of the picture at [`NeighbourState`]. What has no line stays as it is.
pub(super) const fn next_state(state: NeighbourState, event: EntryEvent) -> NeighbourState {
    use EntryEvent::{Answered, Doubted, TimeUp, Told, Unanswered};
    use NeighbourState::{Failed, Incomplete, Probe, Reachable, Stale};
    match (state, event) {
        (Incomplete | Probe, Answered) => Reachable,
        (Incomplete | Probe, Unanswered) => Failed,
        (Incomplete | Reachable | Probe | Failed, Told) => Stale,
        (Reachable, Doubted | TimeUp) => Stale,
        (Stale, TimeUp) => Probe,
        // Of those that are wanted always; others are forgotten.
        (Failed, TimeUp) => Incomplete,
        _ => state,
    }
}

/// What is known of a neighbour.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) state: NeighbourState,
    /// Known while it is reachable, stale or probed.
    pub(super) mac: Option<MacAddr>,
    /// When that changed.
    pub(super) changed_at: Instant,
    /// Since when it is in its state.
    pub(super) since: Instant,
    /// When the time of its state, or of the last question, is up.
    pub(super) due: Instant,
    /// Questions in this state.
    pub(super) asked: u8,
    /// Wanted always, not on demand.
    pub(super) permanent: bool,
}

impl Entry {
    /// Whether it was asked as often as it is in its state.
    pub(super) fn is_asked_enough(&self) -> bool {
        self.state.is_asking() && self.asked >= self.state.ask_count_max()
    }

    /// Where the next question goes, if not to all hosts.
    pub(super) fn ask_at(&self) -> Option<MacAddr> {
        self.mac.filter(|_| self.asked <= UNICAST_ASK_COUNT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write;
    use std::string::String;

    /// The whole table.
    #[test]
    fn neighbour_states() {
        use EntryEvent::{Answered, Doubted, TimeUp, Told, Unanswered};
        let mut table = String::new();
        for state in NeighbourState::ALL {
            write!(table, "{:10}", state.name()).expect("a string");
            for event in [Answered, Told, Doubted, TimeUp, Unanswered] {
                let next = next_state(state, event);
                let text = if next == state { "." } else { next.name() };
                write!(table, " {text:10}").expect("a string");
            }
            table.truncate(table.trim_end().len());
            table.push('\n');
        }
        // answered, told, doubted, time up, unanswered
        assert_eq!(
            table,
            "\
incomplete reachable  stale      .          .          failed
reachable  .          stale      stale      stale      .
stale      .          .          .          probe      .
probe      reachable  stale      .          .          failed
failed     .          stale      .          incomplete .
"
        );
    }
}
