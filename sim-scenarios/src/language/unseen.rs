//! What could never be measured, and faults where there is nothing to meet.

use evenkeel_control::Code;
use evenkeel_control::reading::{Finding, Findings};

use super::sections::Places;
use crate::expect::Metric;
use crate::scenario::{Action, Network, Scenario};

pub(crate) fn scenario(scenario: &Scenario, places: &Places, findings: &mut Findings) {
    let alone = scenario.cluster.nodes.len() == 1;
    let no_fault = scenario.faults.is_empty() && !places.faults_refused;
    for (expect, place) in scenario.expects.iter().zip(&places.expects) {
        let sides = [&expect.comparison.left, &expect.comparison.right];
        let missing = sides
            .into_iter()
            .flat_map(|side| side.metrics())
            .find_map(|metric| Some((metric, why_unseen(metric, alone, no_fault)?)));
        if let Some((metric, (why, help))) = missing {
            let message = format!("`{}` cannot be measured: {why}", metric.name());
            findings.push(Finding::new(Code::NoEffect, place.clone(), message, help));
        }
    }
    for (fault, place) in scenario.faults.iter().zip(&places.faults) {
        let sync = matches!(
            fault.action,
            Action::Cut(_, Network::Sync, _)
                | Action::Heal(_, Network::Sync)
                | Action::Disturb(_, Network::Sync, ..)
        );
        if alone && sync {
            let message = "a single node has no link to other nodes";
            let help = "write `nodes = 2` or more in [cluster], or take another `network`";
            findings.push(Finding::new(Code::NoEffect, place.header.clone(), message, help));
        }
    }
}

/// Why a metric has no value, and what to do about it.
fn why_unseen(metric: Metric, alone: bool, no_fault: bool) -> Option<(&'static str, &'static str)> {
    use Metric as M;
    match metric {
        M::Detection | M::AllTaken | M::Resurrected if no_fault => Some((
            "nothing goes wrong",
            "it counts from the first fault: add a `[[fault]]`",
        )),
        M::Detection | M::AllTaken | M::Converged | M::Unequal if alone => Some((
            "a single node has nobody to take over, nor to be equal with",
            "write `nodes = 2` or more in [cluster]",
        )),
        _ => None,
    }
}
