//! UDP: one way until the real server answers.

use super::ConnState;
use crate::tuple::Direction;

/// The state after a datagram: the first answer makes a conn normal, and it stays so.
#[inline]
pub const fn udp_transition(state: ConnState, direction: Direction) -> ConnState {
    match (state, direction) {
        (ConnState::UdpNormal, _) | (_, Direction::Outbound) => ConnState::UdpNormal,
        (_, Direction::Inbound) => ConnState::UdpOneWay,
    }
}
