//! Links of a node: cut, heal, disturb.

use std::collections::BTreeMap;

use evenkeel_io_sim::{Cut, Faults, LbId, LinkId, Ppm};

use super::refused;
use crate::run::RunError;
use crate::run::build::{self, Built};
use crate::scenario::{Disturbance, Network, Way};

/// Links that faults have changed, as they were: by fault.
#[derive(Debug, Default)]
pub(super) struct Links(BTreeMap<usize, Vec<(LinkId, Faults)>>);

impl Links {
    pub(super) fn cut(
        &mut self,
        built: &mut Built,
        fault: usize,
        lb: LbId,
        network: Network,
        way: Way,
    ) -> Result<(), RunError> {
        self.change(built, fault, lb, network, |faults| faults.cut = cut(way))
    }

    pub(super) fn heal(
        &mut self,
        built: &mut Built,
        fault: usize,
        lb: LbId,
        network: Network,
    ) -> Result<(), RunError> {
        self.change(built, fault, lb, network, |faults| faults.cut = Cut::None)
    }

    pub(super) fn disturb(
        &mut self,
        built: &mut Built,
        fault: usize,
        lb: LbId,
        network: Network,
        way: Way,
        how: &Disturbance,
    ) -> Result<(), RunError> {
        self.change(built, fault, lb, network, |faults| disturb(faults, way, how))
    }

    /// What a fault has changed is as it was.
    pub(super) fn restore(&mut self, built: &mut Built, fault: usize) -> Result<(), RunError> {
        let mut links = self.0.remove(&fault).unwrap_or_default().into_iter();
        links.try_for_each(|(link, faults)| built.world.set_faults(link, faults).map_err(refused))
    }

    /// Changes the links of a node in some networks, and remembers how they were.
    fn change(
        &mut self,
        built: &mut Built,
        fault: usize,
        lb: LbId,
        network: Network,
        change: impl Fn(&mut Faults),
    ) -> Result<(), RunError> {
        let Some(links) = built.links.get(usize::from(lb.0)) else {
            return Ok(());
        };
        for link in build::networks(network).iter().filter_map(|n| links.get(*n)) {
            let before = built.world.link(*link).map_err(refused)?.faults;
            self.0.entry(fault).or_default().push((*link, before));
            let mut faults = before;
            change(&mut faults);
            built.world.set_faults(*link, faults).map_err(refused)?;
        }
        Ok(())
    }
}

/// Whether no link of a node in a network is cut.
pub(super) fn is_well(built: &Built, lb: LbId, network: Network) -> bool {
    let links = built.links.get(usize::from(lb.0));
    let mut links = links
        .into_iter()
        .flat_map(|links| build::networks(network).iter().filter_map(|n| links.get(*n)));
    links.all(|link| built.world.link(*link).is_ok_and(|l| l.faults.cut == Cut::None))
}

/// Nodes are the first ends of their links.
fn cut(way: Way) -> Cut {
    match way {
        Way::Both => Cut::Both,
        Way::Out => Cut::Forth,
        Way::In => Cut::Back,
    }
}

fn disturb(faults: &mut Faults, way: Way, disturbance: &Disturbance) {
    // A loss of everything in one direction is a cut; other disturbances meet both.
    if disturbance.loss_ppm == 1_000_000 {
        faults.cut = cut(way);
    } else {
        faults.loss = Ppm(faults.loss.0.max(disturbance.loss_ppm));
    }
    if disturbance.duplicate_ppm > 0 {
        faults.duplication = Ppm(disturbance.duplicate_ppm);
        faults.copies = disturbance.copies;
    }
    if disturbance.reorder_ppm > 0 {
        faults.reordering = Ppm(disturbance.reorder_ppm);
        faults.reorder_by = disturbance.reorder_by;
    }
}
