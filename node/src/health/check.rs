//! One check of one server: what is done, and what came of it.

use std::error::Error;
use std::io;
use std::net::SocketAddr;

use evenkeel_control::{HealthCheck, HealthConfig, show_duration};
use tokio::net::{TcpSocket, TcpStream};

use super::{http, icmp, udp};

/// What came of a check. The text says it for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The server lives.
    Success(String),
    /// It does not, or it is not reached.
    Failure(String),
    /// This host could not ask: it has no socket or no local port left. That says nothing of the server.
    NotMade(String),
}

impl Outcome {
    pub(super) fn failure(error: &dyn Error) -> Self {
        Outcome::Failure(text(error))
    }

    pub(super) fn not_made(error: io::Error) -> Self {
        Outcome::NotMade(format!("no socket for the check: {error}"))
    }
}

/// An error with what it comes of.
pub(super) fn text(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        // Many say what their cause says.
        if !text.ends_with(&cause) {
            text += ": ";
            text += &cause;
        }
        source = error.source();
    }
    text
}

/// Checks the server at `addr` once. `token` is this check's alone.
pub(super) async fn run(addr: SocketAddr, health: &HealthConfig, token: u64) -> Outcome {
    let to = SocketAddr::new(addr.ip(), health.port.unwrap_or(addr.port()));
    let check = async {
        match &health.check {
            HealthCheck::Tcp => match connect(to).await {
                Ok(_) => Outcome::Success("connected".into()),
                Err(outcome) => outcome,
            },
            HealthCheck::Http { path, host, status } => http::check(to, path, host.as_deref(), *status).await,
            HealthCheck::Udp { send, expect } => udp::check(to, send, expect.as_deref()).await,
            HealthCheck::Icmp => icmp::check(to.ip(), token).await,
        }
    };
    match tokio::time::timeout(health.timeout, check).await {
        Ok(outcome) => outcome,
        Err(_) => Outcome::Failure(format!("no answer within {}", show_duration(health.timeout))),
    }
}

/// Opens a connection; what is left of it is reset when it is dropped, so that no check leaves a TIME-WAIT.
pub(super) async fn connect(to: SocketAddr) -> Result<TcpStream, Outcome> {
    let socket = if to.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    };
    let socket = socket.map_err(Outcome::not_made)?;
    socket.set_zero_linger().map_err(Outcome::not_made)?;
    let stream = match socket.connect(to).await {
        Ok(stream) => stream,
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
            return Err(Outcome::not_made(error));
        }
        Err(error) => return Err(Outcome::failure(&error)),
    };
    // A port that nobody listens at, of this very host, can be the one that the kernel chose to ask from:
    // a simultaneous open with itself (RFC 9293, 3.5).
    if stream.local_addr().ok() == Some(to) {
        return Err(Outcome::Failure("nobody listens".into()));
    }
    Ok(stream)
}
