//! Windows for benches and fuzz targets into what a worker does on its way. Not part of the API.

use crate::conn::{Candidates, ConnId, ConnRef, ConnTable, Hint};
use crate::parse;
use crate::port::{BURST, RxChecksum};
use crate::stats::DropReason;
use crate::tuple::Tuple;

/// What the parser makes of a frame.
#[derive(Clone, Copy, Debug)]
pub struct Probe(parse::Parsed);

impl Probe {
    /// Parses the contiguous head `data` of a frame of `len` bytes.
    #[inline]
    pub fn parse(data: &[u8], len: usize, checksum: RxChecksum) -> Result<Probe, DropReason> {
        let mut parsed = parse::Parsed::NONE;
        parse::parse(data, len, checksum, &mut parsed)?;
        Ok(Probe(parsed))
    }

    /// Its tuple, if it is a packet of a protocol that is balanced.
    pub fn tuple(&self) -> Option<Tuple> {
        matches!(self.0.kind, parse::Kind::Tcp | parse::Kind::Udp)
            .then(|| self.0.key.tuple())
            .flatten()
    }
}

/// Looks a burst up (at most [`BURST`]) in the stages of a worker.
#[inline]
pub fn lookup(table: &ConnTable, probes: &[Probe], found: &mut [Option<ConnId>]) {
    let mut at = [Candidates::default(); BURST];
    let mut hints = [Hint::NONE; BURST];
    for (probe, at) in probes.iter().zip(&mut at) {
        *at = table.candidates(table.hash(&probe.0.key));
        table.prefetch_first(*at);
    }
    let n = probes.len().min(BURST);
    for (&at, hint) in at[..n].iter().zip(&mut hints) {
        *hint = table.hint_first(at);
        if hint.is_none() {
            table.prefetch_second(at);
        }
    }
    for (&at, hint) in at[..n].iter().zip(&mut hints) {
        if hint.is_none() {
            *hint = table.hint_second(at);
        }
    }
    for (((probe, &at), hint), found) in probes.iter().zip(&at).zip(hints).zip(found) {
        let conn = match hint.conn() {
            Some(hint) if table.is(hint, &probe.0.key) => Some(hint),
            None => None,
            _ => table.find(&probe.0.key, at),
        };
        *found = conn.map(ConnRef::id);
    }
}
