//! TCP as a balancer in the middle sees it. The states and edges are those of LVS (IPVS), which DPVS
//! shares, so that an operator's reading of `ipvsadm` carries over.
//!
//! ```text
//!          client SYN            client ACK
//!   NONE ─────────────> SYN_RECV ──────────> ESTABLISHED ── FIN of client ──> CLOSE_WAIT ─┐
//!                          │                     │  │                                     │ FIN of server
//!                          │ RST of server       │  └───── FIN of server ──> FIN_WAIT ────┤ FIN of client
//!                          └──────> CLOSE <──────┘ any RST                                └──> TIME_WAIT
//! ```

use super::ConnState;
use super::ConnState::{
    Close as CL, CloseWait as CW, Established as ES, FinWait as FW, LastAck as LA, Listen as LI,
    SynRecv as SR, SynSent as SS, TimeWait as TW,
};

/// What a segment is to the state machine, in order of precedence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpEvent {
    /// SYN or SYN-ACK.
    Syn = 0,
    /// FIN.
    Fin = 1,
    /// ACK, with data or without.
    Ack = 2,
    /// RST.
    Rst = 3,
}

/// Whose segment it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpSide {
    /// From the client.
    Inbound = 0,
    /// From the real server.
    Outbound = 1,
    /// From the client, and the real server's segments do not pass here (direct routing, tunnels).
    InboundOnly = 2,
}

const TCP_STATES: usize = 11;

#[rustfmt::skip]
const TABLE: [[[ConnState; TCP_STATES]; 4]; 3] = [
    [   // inbound
    //           NO  ES  SS  SR  FW  TW  CL  CW  LA  LI  SA
    /* SYN */  [ SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SR ],
    /* FIN */  [ CL, CW, SS, TW, TW, TW, CL, CW, LA, LI, TW ],
    /* ACK */  [ CL, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES ],
    /* RST */  [ CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, SR ],
    ],
    [   // outbound
    /* SYN */  [ SS, ES, SS, SR, SS, SS, SS, SS, SS, LI, SR ],
    /* FIN */  [ TW, FW, SS, TW, FW, TW, CL, TW, LA, LI, TW ],
    /* ACK */  [ ES, ES, SS, ES, FW, TW, CL, CW, LA, ES, ES ],
    /* RST */  [ CL, CL, SS, CL, CL, TW, CL, CL, CL, CL, CL ],
    ],
    [   // inbound, and outbound is not seen
    /* SYN */  [ SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SR ],
    /* FIN */  [ CL, FW, SS, TW, FW, TW, CL, CW, LA, LI, TW ],
    /* ACK */  [ CL, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES ],
    /* RST */  [ CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, CL ],
    ],
];

/// The state after a segment. A state that is not TCP's stays as it is.
#[inline]
pub const fn tcp_transition(state: ConnState, side: TcpSide, event: TcpEvent) -> ConnState {
    if (state as usize) < TCP_STATES {
        TABLE[side as usize][event as usize][state as usize]
    } else {
        state
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;
    use core::fmt::Write;

    const SIDES: [TcpSide; 3] = [TcpSide::Inbound, TcpSide::Outbound, TcpSide::InboundOnly];
    const EVENTS: [TcpEvent; 4] = [TcpEvent::Syn, TcpEvent::Fin, TcpEvent::Ack, TcpEvent::Rst];

    /// Every (state, event) pair on one page: a changed edge shows in review.
    #[test]
    fn whole_transition_table() {
        let mut page = String::new();
        for side in SIDES {
            for event in EVENTS {
                writeln!(page, "{side:?} {event:?}").expect("a string grows");
                for state in &ConnState::ALL[..TCP_STATES] {
                    let next = tcp_transition(*state, side, event);
                    let mark = if next == *state { " (stays)" } else { "" };
                    writeln!(page, "    {:<12} -> {}{mark}", state.name(), next.name())
                        .expect("a string grows");
                }
            }
        }
        insta::assert_snapshot!(page);
    }

    fn walk(steps: &[(TcpSide, TcpEvent)]) -> ConnState {
        steps.iter().fold(ConnState::None, |state, &(side, event)| {
            tcp_transition(state, side, event)
        })
    }

    #[test]
    fn a_whole_connection_closed_by_either_side() {
        use TcpEvent::*;
        use TcpSide::*;
        let open = [(Inbound, Syn), (Outbound, Syn), (Inbound, Ack)];
        assert_eq!(walk(&open[..2]), SR, "a SYN-ACK does not establish");
        assert_eq!(walk(&open), ES);
        let by_client = [&open[..], &[(Inbound, Fin)]].concat();
        assert_eq!(walk(&by_client), CW);
        let by_client = [
            &by_client[..],
            &[(Outbound, Ack), (Outbound, Fin), (Inbound, Ack)],
        ]
        .concat();
        assert_eq!(walk(&by_client), TW);
        let by_server = [&open[..], &[(Outbound, Fin), (Inbound, Ack)]].concat();
        assert_eq!(walk(&by_server), FW);
        assert_eq!(
            walk(&[&by_server[..], &[(Inbound, Fin), (Outbound, Ack)]].concat()),
            TW
        );
        assert_eq!(walk(&[(Inbound, Syn), (Outbound, Rst)]), CL, "refused");
        assert_eq!(walk(&[&open[..], &[(Inbound, Rst)]].concat()), CL);
    }

    #[test]
    fn states_of_udp_are_left_alone() {
        for side in SIDES {
            for event in EVENTS {
                assert_eq!(
                    tcp_transition(ConnState::UdpNormal, side, event),
                    ConnState::UdpNormal
                );
            }
        }
    }
}
