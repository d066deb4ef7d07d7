//! The session record: all that another node needs to forward a connection, and to take it over.

use core::time::Duration;

use crate::conn::{ConnExt, ConnId, ConnInit, ConnTable, TableFull, ext_flag, flag};
use crate::proto::ConnState;
use crate::service::FwdMode;
use crate::tuple::L4Proto;
use crate::xmit::SeqShift;

/// A session: identity, forwarding decision, state, rewrite deltas. No place, worker or queue of its
/// sender is in it: it means the same on every node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionRecord {
    /// Ends, service, real server, protocol state. The ids of service and server are the sender's: on the
    /// wire they are replaced by what they stand for.
    pub conn: ConnInit,
    /// Forwarding mode.
    pub mode: FwdMode,
    /// Time until the session expires without another packet: a duration, as clocks differ.
    pub remaining: Duration,
    /// It was ESTABLISHED once.
    pub was_established: bool,
    /// It was closed by FINs of both sides or by a RST.
    pub was_closed: bool,
    /// The real server's packets do not pass here.
    pub inbound_only: bool,
    /// Shift of sequence numbers, where there is one.
    pub deltas: Option<SeqDeltas>,
    /// Initial sequence numbers, where they are known.
    pub isns: Isns,
    /// Window scales, where they are known.
    pub window_scales: WindowScales,
}

/// What is added to sequence numbers, modulo 2^32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SeqDeltas {
    /// To those of the client.
    pub inbound: u32,
    /// To those of the real server.
    pub outbound: u32,
}

/// Initial sequence numbers as each side chose them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Isns {
    /// The client's.
    pub client: Option<u32>,
    /// The real server's.
    pub server: Option<u32>,
}

/// Window scales (RFC 7323, section 2), 0 to 14.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WindowScales {
    /// The client's.
    pub client: Option<u8>,
    /// The real server's.
    pub server: Option<u8>,
}

/// Why a record cannot become a conn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstallError {
    /// The table is full.
    Full(TableFull),
    /// The side slab is full.
    ExtFull,
    /// A conn holds one of the record's tuples.
    Taken,
    /// The two ends of a side are of different families, one has no port, or both sides have the same ends.
    BadEnds,
    /// The state is not one of the protocol.
    BadState,
    /// Its packets come to another worker, or each direction to another one.
    WrongBucket,
}

impl SessionRecord {
    /// The record of a conn.
    pub(crate) fn of(table: &ConnTable, id: ConnId) -> Option<Self> {
        let view = table.view(id)?;
        let ext = table.ext(id).copied().unwrap_or_default();
        let has = |bit| ext.flags & bit != 0;
        Some(SessionRecord {
            conn: view.init,
            mode: FwdMode::FullNat,
            remaining: Duration::from_millis(view.remaining_ms),
            was_established: view.was_established,
            was_closed: view.was_closed,
            inbound_only: table.meta(id)?.flags & flag::INBOUND_ONLY != 0,
            deltas: has(ext_flag::DELTAS).then_some(SeqDeltas {
                inbound: ext.inbound_delta,
                outbound: ext.outbound_delta,
            }),
            isns: Isns {
                client: has(ext_flag::CLIENT_ISN).then_some(ext.client_isn),
                server: has(ext_flag::SERVER_ISN).then_some(ext.server_isn),
            },
            window_scales: WindowScales {
                client: ext.client_wscale.checked_sub(1),
                server: ext.server_wscale.checked_sub(1),
            },
        })
    }

    /// The rarer state that the record needs, if any.
    pub(super) fn ext(&self) -> Option<ConnExt> {
        let mut ext = ConnExt::default();
        if let Some(d) = self.deltas {
            ext.flags |= ext_flag::DELTAS;
            (ext.inbound_delta, ext.outbound_delta) = (d.inbound, d.outbound);
        }
        if let Some(isn) = self.isns.client {
            ext.flags |= ext_flag::CLIENT_ISN;
            ext.client_isn = isn;
        }
        if let Some(isn) = self.isns.server {
            ext.flags |= ext_flag::SERVER_ISN;
            ext.server_isn = isn;
        }
        let scale = |s: Option<u8>| s.map_or(0, |s| s.min(14) + 1);
        ext.client_wscale = scale(self.window_scales.client);
        ext.server_wscale = scale(self.window_scales.server);
        (ext != ConnExt::default()).then_some(ext)
    }

    /// Makes a conn of the record, if its packets come to this worker (`ours`). It expires after what remains of its time, at most `ttl_max_ms`.
    pub(crate) fn install(
        &self,
        table: &mut ConnTable,
        ours: bool,
        now_tick: u64,
        ttl_max_ms: u64,
    ) -> Result<ConnId, InstallError> {
        let c = &self.conn;
        let mixed = c.client.is_ipv4() != c.vip.is_ipv4() || c.server.is_ipv4() != c.local.is_ipv4();
        // One tuple cannot lead to both directions.
        if mixed
            || c.inbound() == c.outbound()
            || [c.client, c.vip, c.server, c.local]
                .iter()
                .any(|end| end.port() == 0)
        {
            return Err(InstallError::BadEnds);
        }
        let udp_state = matches!(c.state, ConnState::UdpOneWay | ConnState::UdpNormal);
        if udp_state != (c.proto == L4Proto::Udp) {
            return Err(InstallError::BadState);
        }
        if table.lookup(&c.inbound()).is_some() || table.lookup(&c.outbound()).is_some() {
            return Err(InstallError::Taken);
        }
        if !ours {
            return Err(InstallError::WrongBucket);
        }
        let remaining = u64::try_from(self.remaining.as_millis())
            .unwrap_or(u64::MAX)
            .min(ttl_max_ms);
        let id = table
            .insert(c, now_tick + remaining)
            .map_err(InstallError::Full)?;
        if let Some(ext) = self.ext()
            && !table.set_ext(id, ext)
        {
            table.remove(id);
            return Err(InstallError::ExtFull);
        }
        if let Some(meta) = table.meta_mut(id) {
            for (is, bit) in [
                (self.was_established, flag::ESTABLISHED),
                (self.was_closed, flag::CLOSED),
                (self.inbound_only, flag::INBOUND_ONLY),
            ] {
                if is {
                    meta.flags |= bit;
                }
            }
        }
        Ok(id)
    }
}

impl ConnExt {
    /// The shift of the client's segments and that of the real server's.
    pub(crate) fn shifts(&self) -> Option<(SeqShift, SeqShift)> {
        (self.flags & ext_flag::DELTAS != 0).then(|| {
            let (i, o) = (self.inbound_delta, self.outbound_delta);
            (
                SeqShift {
                    seq: i,
                    ack: o.wrapping_neg(),
                },
                SeqShift {
                    seq: o,
                    ack: i.wrapping_neg(),
                },
            )
        })
    }
}
