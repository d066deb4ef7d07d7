//! A datagram, and the answer to it.

use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::UdpSocket;

use super::check::Outcome;

/// Bytes of an answer that are looked at: more than can be expected.
const ANSWER_LEN_MAX: usize = 2048;
/// Bytes of an unexpected answer that are shown.
const SHOWN_LEN_MAX: usize = 16;

/// Sends `send` to `to` and awaits a datagram that begins with `expect`. The socket is connected: what others send is
/// not heard, and a port that is closed is told at once.
pub(super) async fn check(to: SocketAddr, send: &[u8], expect: Option<&[u8]>) -> Outcome {
    let any = match to {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = match UdpSocket::bind(any).await {
        Ok(socket) => socket,
        Err(error) => return Outcome::not_made(error),
    };
    if let Err(error) = socket.connect(to).await {
        return Outcome::failure(&error);
    }
    // As with TCP: the port asked may be the one that is asked from.
    if socket.local_addr().ok() == Some(to) {
        return Outcome::Failure("nobody listens".into());
    }
    if let Err(error) = socket.send(send).await {
        return Outcome::failure(&error);
    }
    let mut answer = [0; ANSWER_LEN_MAX];
    let answer = match socket.recv(&mut answer).await {
        Ok(n) => answer.get(..n).unwrap_or(&answer),
        Err(error) => return Outcome::failure(&error),
    };
    match expect {
        Some(expect) if !answer.starts_with(expect) => {
            Outcome::Failure(format!("the answer begins with {}", shown(answer)))
        }
        _ => Outcome::Success(format!("an answer of {} bytes", answer.len())),
    }
}

/// The first bytes, as the config would write them.
fn shown(bytes: &[u8]) -> String {
    let mut text = String::from("hex");
    for byte in bytes.iter().take(SHOWN_LEN_MAX) {
        // Writing to a string does not fail.
        let _ = write!(text, ":{byte:02x}");
    }
    text
}
