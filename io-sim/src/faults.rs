//! What goes wrong in one direction of a link, and what several faults at a time make together.

use std::time::Duration;

use crate::link::Ppm;
use crate::random::{Purpose, Streams};

/// What goes wrong in one direction of a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Nothing is carried. What is on its way arrives.
    pub cut: bool,
    /// Frames lost, each by itself.
    pub loss: Ppm,
    /// Frames lost one after the other.
    pub burst: Option<Burst>,
    /// Frames of ARP and neighbour discovery lost; others are not touched.
    pub neighbour_loss: Ppm,
    /// All frames are lost but those by which a router finds out whether its next hops are there: ARP, neighbour
    /// discovery and echoes.
    pub dark: bool,
    /// Frames that arrive this often more than once: how many copies more, and how likely.
    pub copies: u8,
    /// See `copies`.
    pub duplication: Ppm,
    /// Frames that are late by a span from zero to `reorder_by`, and overtaken meanwhile.
    pub reordering: Ppm,
    /// See `reordering`.
    pub reorder_by: Duration,
    /// Frames with a bit flipped anywhere, of which Ethernet's check sequence knew nothing: what a memory of a switch does, for
    /// what the sequence finds is lost. One bit, which every sum over it finds; of two in a frame the sums of IP, TCP
    /// and UDP miss one pair in 32, and whoever relies on these has lost.
    pub corruption: Ppm,
    /// Added to the link's own delay.
    pub delay: Duration,
    /// No more bits a second than these, 1 at least; `None`: as the link has.
    pub bandwidth: Option<u64>,
}

/// Loss by two states (Gilbert 1960, Elliott 1963): frames are lost in the bad one only, all of `loss`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Burst {
    /// Of frames in the good state: how likely the bad one begins with it.
    pub enter: Ppm,
    /// Of frames in the bad state: how likely the good one begins with it.
    pub leave: Ppm,
    /// Of frames in the bad state: how likely it is lost.
    pub loss: Ppm,
}

impl Burst {
    /// In which `share` of frames is lost, below all of them, `len` one after the other in the mean (1 at least).
    pub fn mean(share: Ppm, len: u32) -> Self {
        let leave = u64::from(1_000_000 / len.max(1)).max(1);
        let lost = u64::from(share.0.min(999_999));
        // Of the chain's balance: entering / (entering + leaving) is the share.
        let enter = (lost * leave).div_ceil(1_000_000 - lost).min(1_000_000);
        Burst {
            enter: Ppm(enter as u32),
            leave: Ppm(leave as u32),
            loss: Ppm(1_000_000),
        }
    }
}

/// How likely one of two independent things is.
fn either(a: Ppm, b: Ppm) -> Ppm {
    let (a, b) = (u64::from(a.0.min(1_000_000)), u64::from(b.0.min(1_000_000)));
    Ppm((a + b - a * b / 1_000_000) as u32)
}

impl Faults {
    /// Both at a time. The order does not matter: losses are independent, delays add up, the smaller bandwidth holds, and of
    /// bursts, copies and lateness the worse ones.
    #[must_use]
    pub fn and(self, other: Faults) -> Faults {
        let bandwidth = match (self.bandwidth, other.bandwidth) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        Faults {
            cut: self.cut || other.cut,
            loss: either(self.loss, other.loss),
            burst: self.burst.max(other.burst),
            neighbour_loss: either(self.neighbour_loss, other.neighbour_loss),
            dark: self.dark || other.dark,
            copies: self.copies.max(other.copies),
            duplication: either(self.duplication, other.duplication),
            reordering: either(self.reordering, other.reordering),
            reorder_by: self.reorder_by.max(other.reorder_by),
            corruption: either(self.corruption, other.corruption),
            delay: self.delay.saturating_add(other.delay),
            bandwidth,
        }
    }
}

/// Why a frame does not arrive, if it does not; `bad`: the state of bursts.
pub(crate) fn lost(
    faults: &Faults,
    bad: &mut bool,
    (streams, entity, n): (&Streams, u64, u64),
    frame: &[u8],
) -> Option<&'static str> {
    if let Some(burst) = faults.burst {
        let turns = if *bad { burst.leave } else { burst.enter };
        *bad ^= streams.happens(entity, Purpose::Burst, n, turns);
        if *bad && streams.happens(entity, Purpose::BurstLoss, n, burst.loss) {
            return Some("link-burst");
        }
    } else {
        *bad = false;
    }
    if streams.happens(entity, Purpose::Loss, n, faults.loss) {
        return Some("link-loss");
    }
    if faults.neighbour_loss.0 > 0
        && kind(frame) == Kind::Neighbour
        && streams.happens(entity, Purpose::NeighbourLoss, n, faults.neighbour_loss)
    {
        return Some("link-neighbour-loss");
    }
    if faults.dark && kind(frame) == Kind::Other {
        return Some("link-dark");
    }
    None
}

/// Flips a bit of a frame: which one, `draw` says.
pub(crate) fn flip(frame: &mut [u8], draw: u64) {
    let bits = frame.len() as u64 * 8;
    let at = draw.checked_rem(bits).unwrap_or(0);
    if let Some(byte) = frame.get_mut((at / 8) as usize) {
        *byte ^= 1 << (at % 8);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// ARP, or a message of neighbour discovery.
    Neighbour,
    /// An echo request or its reply, of either family.
    Echo,
    Other,
}

/// What a frame is, behind VLAN tags, too.
fn kind(frame: &[u8]) -> Kind {
    let be16 = |at: usize| Some(u16::from_be_bytes(*frame.get(at..)?.first_chunk()?));
    let mut at = 12;
    while matches!(be16(at), Some(0x8100 | 0x88a8)) {
        at += 4;
    }
    let ip = at + 2;
    let byte = |at: usize| frame.get(at).copied();
    match be16(at) {
        Some(0x0806) => Kind::Neighbour,
        Some(0x0800) if byte(ip + 9) == Some(1) => {
            let header = usize::from(byte(ip).unwrap_or(0) & 0x0f) * 4;
            match byte(ip + header) {
                Some(0 | 8) => Kind::Echo,
                _ => Kind::Other,
            }
        }
        Some(0x86dd) if byte(ip + 6) == Some(58) => match byte(ip + 40) {
            Some(133..=137) => Kind::Neighbour,
            Some(128 | 129) => Kind::Echo,
            _ => Kind::Other,
        },
        _ => Kind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_together_do_not_depend_on_their_order() {
        let a = Faults {
            loss: Ppm(500_000),
            burst: Some(Burst::mean(Ppm(10_000), 5)),
            delay: Duration::from_millis(2),
            bandwidth: Some(1_000),
            copies: 1,
            duplication: Ppm(100),
            ..Faults::default()
        };
        let b = Faults {
            cut: true,
            loss: Ppm(500_000),
            delay: Duration::from_millis(3),
            bandwidth: Some(500),
            corruption: Ppm(7),
            copies: 3,
            ..Faults::default()
        };
        assert_eq!(a.and(b), b.and(a));
        assert_eq!(a.and(Faults::default()), a);
        let both = a.and(b);
        assert!(both.cut && both.loss == Ppm(750_000) && both.copies == 3);
        assert_eq!(
            (both.delay, both.bandwidth),
            (Duration::from_millis(5), Some(500))
        );
        assert_eq!(both.burst, a.burst);
    }

    #[test]
    fn bursts_are_as_long_and_lose_as_much_as_they_are_said_to() {
        let (share, len) = (Ppm(50_000), 20);
        let faults = Faults {
            burst: Some(Burst::mean(share, len)),
            ..Faults::default()
        };
        let streams = Streams::new(3);
        let (mut bad, mut lost_frames, mut bursts, mut before) = (false, 0u64, 0u64, false);
        for n in 0..400_000 {
            let is_lost = lost(&faults, &mut bad, (&streams, 1, n), b"").is_some();
            lost_frames += u64::from(is_lost);
            bursts += u64::from(is_lost && !before);
            before = is_lost;
        }
        assert!(
            (17_000..23_000).contains(&lost_frames),
            "{lost_frames} of 400,000 at 5 %"
        );
        assert!(
            (18..=22).contains(&(lost_frames / bursts)),
            "{lost_frames} in {bursts}"
        );
    }

    fn frame(kind: u16, head: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend(kind.to_be_bytes());
        frame.extend(head);
        frame.resize(80, 0);
        frame
    }

    #[test]
    fn what_frames_are_is_seen_behind_tags() {
        let mut v4 = [0u8; 21];
        (v4[0], v4[9]) = (0x45, 1);
        let mut echo = v4;
        echo[20] = 8;
        let mut unreachable = v4;
        unreachable[20] = 3;
        let mut v6 = [0u8; 41];
        v6[6] = 58;
        let v6 = |message| {
            let mut v6 = v6;
            v6[40] = message;
            frame(0x86dd, &v6)
        };
        for (frame, want) in [
            (frame(0x0806, &[]), Kind::Neighbour),
            (frame(0x0800, &echo), Kind::Echo),
            (frame(0x0800, &unreachable), Kind::Other),
            (v6(135), Kind::Neighbour),
            (v6(129), Kind::Echo),
            (v6(1), Kind::Other),
            (frame(0x88cc, &[]), Kind::Other),
        ] {
            assert_eq!(kind(&frame), want);
            let mut tagged = frame.clone();
            tagged.splice(12..12, [0x81, 0, 0, 7]);
            assert_eq!(kind(&tagged), want);
            for len in 0..frame.len() {
                kind(&frame[..len]);
            }
        }
        let (streams, mut bad) = (Streams::new(1), false);
        let mut why = |faults: &Faults, frame: &[u8]| lost(faults, &mut bad, (&streams, 1, 1), frame);
        let dark = Faults {
            dark: true,
            ..Faults::default()
        };
        assert_eq!(why(&dark, &v6(129)), None);
        assert_eq!(why(&dark, &v6(1)), Some("link-dark"));
        let deaf = Faults {
            neighbour_loss: Ppm(1_000_000),
            ..Faults::default()
        };
        assert_eq!(why(&deaf, &v6(129)), None);
        assert_eq!(why(&deaf, &v6(136)), Some("link-neighbour-loss"));
    }

    #[test]
    fn corruption_changes_one_bit_anywhere() {
        let streams = Streams::new(1);
        let mut seen = [0u8; 100];
        for n in 0..8_000 {
            let mut frame = [0u8; 100];
            flip(&mut frame, streams.draw(1, Purpose::Flips, n));
            assert_eq!(frame.iter().map(|b| b.count_ones()).sum::<u32>(), 1);
            seen.iter_mut().zip(frame).for_each(|(seen, b)| *seen |= b);
        }
        assert!(seen.iter().all(|b| b.count_ones() >= 6), "{seen:?}");
        flip(&mut [], 5);
    }
}
