//! Links of a node, and its way to another one: cut, heal, disturb, dark, part.
//!
//! Faults overlap. What a link suffers is worked out of all that are in force, so that the end of one leaves the others as they are.

use std::collections::{BTreeMap, BTreeSet};

use evenkeel_io_sim::{Burst, Faults, LbId, LbPort, LinkId, Place, Ppm, World};

use super::refused;
use crate::run::RunError;
use crate::run::build::{self, Built};
use crate::scenario::{Disturbance, Network, Way};

/// What goes wrong in each direction. Nodes are the first ends of their links.
type Both = [Faults; 2];

/// Links and ways that faults have changed.
#[derive(Debug, Default)]
pub(super) struct Links {
    /// As links are without any fault.
    bases: BTreeMap<LinkId, Both>,
    /// By fault: what it does to which links.
    links: BTreeMap<usize, BTreeMap<LinkId, Both>>,
    /// By fault: from which port frames do not pass to which other one.
    parted: BTreeMap<usize, BTreeSet<(Place, Place)>>,
    /// By fault: a bucket that the NICs of a node lose.
    dark: BTreeMap<usize, (LbId, u16)>,
}

impl Links {
    pub(super) fn cut(
        &mut self,
        built: &mut Built,
        fault: usize,
        lb: LbId,
        network: Network,
        way: Way,
    ) -> Result<(), RunError> {
        let cut = Faults {
            cut: true,
            ..Faults::default()
        };
        self.begin(built, fault, lb, network, directed(way, cut))
    }

    /// No fault cuts these links any more; what else they do, they do.
    pub(super) fn heal(&mut self, built: &mut Built, lb: LbId, network: Network) -> Result<(), RunError> {
        for link in links_of(built, lb, network) {
            for links in self.links.values_mut() {
                for faults in links.get_mut(&link).into_iter().flatten() {
                    faults.cut = false;
                }
            }
            self.apply(&mut built.world, link)?;
        }
        Ok(())
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
        self.begin(built, fault, lb, network, directed(way, faults(how)))
    }

    /// Frames are lost but those by which a router finds its next hops.
    pub(super) fn dark(
        &mut self,
        built: &mut Built,
        fault: usize,
        lb: LbId,
        network: Network,
        way: Way,
    ) -> Result<(), RunError> {
        let dark = Faults {
            dark: true,
            ..Faults::default()
        };
        self.begin(built, fault, lb, network, directed(way, dark))
    }

    /// The NICs of a node lose a bucket.
    pub(super) fn dark_bucket(
        &mut self,
        world: &mut World,
        fault: usize,
        lb: LbId,
        bucket: u16,
    ) -> Result<(), RunError> {
        self.dark.insert(fault, (lb, bucket));
        self.apply_dark(world, lb)
    }

    /// Frames of a node do not reach another one, or not those of that one this node.
    pub(super) fn part(
        &mut self,
        world: &mut World,
        fault: usize,
        (lb, to): (LbId, LbId),
        network: Network,
        way: Way,
    ) -> Result<(), RunError> {
        let ends = |lb: LbId| {
            let lb = world.lb(lb);
            let ports = build::networks(network).iter().map(|n| build::PORTS[*n]);
            lb.into_iter()
                .flat_map(move |lb| ports.clone().map(move |port: LbPort| lb.place(port)))
        };
        let mut pairs = BTreeSet::new();
        for (own, other) in ends(lb).zip(ends(to)) {
            if way != Way::In {
                pairs.insert((own, other));
            }
            if way != Way::Out {
                pairs.insert((other, own));
            }
        }
        for (from, to) in &pairs {
            world.part(*from, *to, true).map_err(refused)?;
        }
        self.parted.insert(fault, pairs);
        Ok(())
    }

    /// A fault is over.
    pub(super) fn end(&mut self, built: &mut Built, fault: usize) -> Result<(), RunError> {
        for link in self.links.remove(&fault).unwrap_or_default().into_keys() {
            self.apply(&mut built.world, link)?;
        }
        if let Some((lb, _)) = self.dark.remove(&fault) {
            self.apply_dark(&mut built.world, lb)?;
        }
        for pair in self.parted.remove(&fault).unwrap_or_default() {
            if !self.parted.values().any(|others| others.contains(&pair)) {
                built.world.part(pair.0, pair.1, false).map_err(refused)?;
            }
        }
        Ok(())
    }

    fn begin(
        &mut self,
        built: &mut Built,
        fault: usize,
        lb: LbId,
        network: Network,
        faults: Both,
    ) -> Result<(), RunError> {
        for link in links_of(built, lb, network) {
            self.links.entry(fault).or_default().insert(link, faults);
            self.apply(&mut built.world, link)?;
        }
        Ok(())
    }

    /// Gives a link what all faults that are in force make of it.
    fn apply(&mut self, world: &mut World, link: LinkId) -> Result<(), RunError> {
        let now = world.link(link).map_err(refused)?;
        let base = *self.bases.entry(link).or_insert([now.forth, now.back]);
        let in_force = self.links.values().filter_map(|links| links.get(&link));
        let all = in_force.fold(base, |[forth, back], more| {
            [forth.and(more[0]), back.and(more[1])]
        });
        world.set_faults(link, all).map_err(refused)
    }

    fn apply_dark(&self, world: &mut World, lb: LbId) -> Result<(), RunError> {
        let of_it = self.dark.values().filter(|(of, _)| *of == lb);
        world
            .set_dark_buckets(lb, of_it.map(|(_, bucket)| *bucket).collect())
            .map_err(refused)
    }
}

fn links_of(built: &Built, lb: LbId, network: Network) -> Vec<LinkId> {
    let links = built.links.get(usize::from(lb.0));
    let links = links
        .into_iter()
        .flat_map(|links| build::networks(network).iter().filter_map(|n| links.get(*n)));
    links.copied().collect()
}

/// Whether no link of a node in a network is cut.
pub(super) fn is_well(built: &Built, lb: LbId, network: Network) -> bool {
    let mut links = links_of(built, lb, network).into_iter();
    links.all(|link| built.world.link(link).is_ok_and(|l| !l.forth.cut && !l.back.cut))
}

/// The same both ways, or one way only.
fn directed(way: Way, faults: Faults) -> Both {
    match way {
        Way::Both => [faults; 2],
        Way::Out => [faults, Faults::default()],
        Way::In => [Faults::default(), faults],
    }
}

fn faults(how: &Disturbance) -> Faults {
    let mut faults = Faults {
        // A loss of everything is a cut: it can be healed.
        cut: how.loss_ppm == 1_000_000,
        neighbour_loss: Ppm(how.arp_ppm),
        copies: how.copies,
        duplication: Ppm(how.duplicate_ppm),
        reordering: Ppm(how.reorder_ppm),
        reorder_by: how.reorder_by,
        corruption: Ppm(how.corrupt_ppm),
        delay: how.delay,
        bandwidth: how.bandwidth,
        ..Faults::default()
    };
    match how.burst {
        _ if faults.cut => {}
        Some(len) => faults.burst = Some(Burst::mean(Ppm(how.loss_ppm), len)),
        None => faults.loss = Ppm(how.loss_ppm),
    }
    faults
}
