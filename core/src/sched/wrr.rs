//! Weighted round robin, in the smooth form: each turn every server gains its weight in credit, the one
//! with the most credit is taken and pays the sum of all. Conns to a heavy server are spread over the
//! cycle instead of arriving in one run, as with the classic gcd walk.

use alloc::vec::Vec;

use super::CYCLE_LEN_MAX;

/// One whole cycle: each place as often as its weight, divided by the weights' common factor.
pub(super) fn cycle(weights: &[u16]) -> Option<Vec<u16>> {
    let divisor = weights.iter().fold(0, |a, &w| gcd(a, w));
    if divisor == 0 {
        return Some(Vec::new());
    }
    let weights: Vec<i64> = weights.iter().map(|&w| i64::from(w / divisor)).collect();
    let total: i64 = weights.iter().sum();
    if total > CYCLE_LEN_MAX as i64 {
        return None;
    }
    let mut credit = alloc::vec![0i64; weights.len()];
    let mut cycle = Vec::with_capacity(total as usize);
    for _ in 0..total {
        // Ties go to the first place. A server of weight 0 has no credit and is never taken.
        let mut best = (0, i64::MIN);
        for (place, (credit, weight)) in credit.iter_mut().zip(&weights).enumerate() {
            *credit += weight;
            if *weight > 0 && *credit > best.1 {
                best = (place, *credit);
            }
        }
        credit[best.0] -= total;
        cycle.push(best.0 as u16);
    }
    Some(cycle)
}

fn gcd(a: u16, b: u16) -> u16 {
    if b == 0 { a } else { gcd(b, a % b) }
}
