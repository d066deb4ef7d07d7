//! Coordinates, axes and words of the pictures. Lengths are whole tenths of a pixel: nothing is rounded in two ways.

use std::fmt;

/// Width of every picture, of the labels at its left, and of what is free at its right, in pixels.
pub(super) const WIDTH: u64 = 1_080;
pub(super) const LEFT: u64 = 150;
pub(super) const RIGHT: u64 = 16;

/// Tenths of a pixel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Px(pub(super) u64);

impl fmt::Display for Px {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 % 10 {
            0 => write!(f, "{}", self.0 / 10),
            tenth => write!(f, "{}.{tenth}", self.0 / 10),
        }
    }
}

/// A time axis.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis {
    pub(super) from_ns: u64,
    pub(super) to_ns: u64,
}

impl Axis {
    pub(super) fn x(&self, ns: u64) -> Px {
        let into = u128::from(ns.clamp(self.from_ns, self.to_ns) - self.from_ns);
        let whole = u128::from((self.to_ns - self.from_ns).max(1));
        let width = u128::from((WIDTH - LEFT - RIGHT) * 10);
        Px(LEFT * 10 + (into * width / whole) as u64)
    }

    pub(super) fn has(&self, ns: u64) -> bool {
        (self.from_ns..=self.to_ns).contains(&ns)
    }

    /// Round times, twelve at most.
    pub(super) fn ticks(&self) -> Vec<u64> {
        let step = round_step((self.to_ns - self.from_ns).div_ceil(12));
        let first = self.from_ns.div_ceil(step) * step;
        (0..)
            .map(|n| first + n * step)
            .take_while(|t| *t <= self.to_ns)
            .take(13)
            .collect()
    }
}

/// The smallest of 1, 2, 5, 10, 20, .. that is not below `least`.
pub(super) fn round_step(least: u64) -> u64 {
    let mut step: u64 = 1;
    for factor in [2, 5, 2].into_iter().cycle() {
        if step >= least.max(1) || step > u64::MAX / 10 {
            break;
        }
        // 1, 2, 5, 10: by 2, by 5 / 2, by 2.
        step = if factor == 5 { step * 5 / 2 } else { step * 2 };
    }
    step
}

/// `23.2041 s`: a time in a run, with as many digits as it has, six at most.
pub(super) fn at(ns: u64) -> String {
    let digits = format!("{:06}", ns % 1_000_000_000 / 1_000);
    let digits = digits.trim_end_matches('0');
    let point = if digits.is_empty() { "" } else { "." };
    format!("{}{point}{digits} s", ns / 1_000_000_000)
}

/// `512 ms`, `1.25 s`, `80 us`: three digits that matter.
pub(super) fn span(ns: u64) -> String {
    let (unit, name) = match ns {
        0..1_000 => return format!("{ns} ns"),
        1_000..1_000_000 => (1_000, "us"),
        1_000_000..1_000_000_000 => (1_000_000, "ms"),
        _ => (1_000_000_000, "s"),
    };
    let hundredths = ns * 100 / unit;
    match hundredths {
        0..1_000 => format!("{}.{:02} {name}", hundredths / 100, hundredths % 100),
        1_000..10_000 => format!("{}.{} {name}", hundredths / 100, hundredths % 100 / 10),
        _ => format!("{} {name}", count(hundredths / 100)),
    }
}

/// `12,345`.
pub(super) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1 connection`, `3 connections`.
pub(super) fn counted(n: u64, what: &str) -> String {
    format!("{} {what}{}", count(n), if n == 1 { "" } else { "s" })
}

/// `99.91 %`, never rounded up to all.
pub(super) fn percent(part: u64, whole: u64) -> String {
    let hundredths = u128::from(part) * 10_000 / u128::from(whole.max(1));
    match (hundredths % 100, hundredths / 100) {
        (0, whole) => format!("{whole} %"),
        (part, whole) => format!("{whole}.{part:02} %"),
    }
}

/// Text that fits into so many pixels, in the size of bars; `None`: not even its beginning does.
pub(super) fn fitting(text: &str, px: u64) -> Option<String> {
    let room = (px.saturating_sub(8) * 10 / 66) as usize;
    let len = text.chars().count();
    if len <= room {
        return Some(text.to_owned());
    }
    (room >= 5).then(|| text.chars().take(room - 1).chain(['…']).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_people_read_them() {
        assert_eq!(
            [at(0), at(23_204_100_000), at(1_000)],
            ["0 s", "23.2041 s", "0.000001 s"]
        );
        let spans = [
            999,
            80_000,
            1_254_000,
            512_345_678,
            1_250_000_000,
            60_000_000_000,
            3_600_000_000_000,
        ];
        let told = [
            "999 ns", "80.0 us", "1.25 ms", "512 ms", "1.25 s", "60.0 s", "3,600 s",
        ];
        assert_eq!(spans.map(span), told);
        assert_eq!(
            [count(7), count(1_234), count(1_234_567)],
            ["7", "1,234", "1,234,567"]
        );
        assert_eq!(
            [percent(9_999, 10_000), percent(1, 1), percent(1, 3)],
            ["99.99 %", "100 %", "33.33 %"]
        );
        assert_eq!(
            [1, 2, 3, 6, 11, 49, 99].map(round_step),
            [1, 2, 5, 10, 20, 50, 100]
        );
        assert_eq!([Px(1_505).to_string(), Px(20).to_string()], ["150.5", "2"]);
    }

    #[test]
    fn an_axis_has_its_ends_at_its_ends_and_round_ticks() {
        let axis = Axis {
            from_ns: 1_500_000_000,
            to_ns: 61_000_000_000,
        };
        assert_eq!(
            (axis.x(0), axis.x(u64::MAX)),
            (Px(LEFT * 10), Px((WIDTH - RIGHT) * 10))
        );
        let ticks: Vec<_> = axis.ticks().into_iter().map(|t| t / 1_000_000_000).collect();
        assert_eq!(ticks, [5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55, 60]);
        assert_eq!(fitting("sessions", 40).as_deref(), None);
        assert_eq!(fitting("sessions of node 1", 90).as_deref(), Some("sessions of…"));
    }
}
