//! A GET over HTTP/1.1, of whose answer only the head is read.

use std::net::SocketAddr;
use std::pin::pin;

use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, USER_AGENT};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;

use super::check::{Outcome, connect};

/// Longest head of an answer, in bytes.
const HEAD_LEN_MAX: usize = 16 << 10;
/// Most header fields of an answer.
const FIELD_COUNT_MAX: usize = 128;

/// Asks `to` for `path`, and whether the status is one of `status`, first to last.
pub(super) async fn check(to: SocketAddr, path: &str, host: Option<&str>, status: (u16, u16)) -> Outcome {
    let host = host.map_or_else(|| to.to_string(), str::to_owned);
    let request = Request::builder()
        .method(Method::GET)
        .uri(path)
        .header(HOST, host)
        .header(USER_AGENT, "evenkeel-health")
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new());
    let request = match request {
        Ok(request) => request,
        Err(error) => return Outcome::NotMade(format!("no request can be made of the config: {error}")),
    };
    let stream = match connect(to).await {
        Ok(stream) => stream,
        Err(outcome) => return outcome,
    };
    let mut client = http1::Builder::new();
    client.max_buf_size(HEAD_LEN_MAX).max_headers(FIELD_COUNT_MAX);
    let (mut sender, connection) = match client.handshake(TokioIo::new(stream)).await {
        Ok(made) => made,
        Err(error) => return Outcome::failure(&error),
    };
    let mut answer = pin!(sender.send_request(request));
    let answer = tokio::select! {
        answer = &mut answer => answer,
        // The end of the connection ends the request too, well or badly: it knows better how.
        _ = connection => answer.await,
    };
    match answer {
        Ok(answer) => {
            let code = answer.status().as_u16();
            if (status.0..=status.1).contains(&code) {
                Outcome::Success(format!("status {code}"))
            } else {
                Outcome::Failure(format!("status {code}"))
            }
        }
        Err(error) => Outcome::failure(&error),
    }
}
