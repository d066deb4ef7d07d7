//! Asking a daemon by its control socket.

use std::io;
use std::path::Path;
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::time::timeout;

/// Longest answer that is read.
const REPLY_LEN_MAX: usize = 32 << 20;

/// How something is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// To be shown something.
    Get,
    /// To change something.
    Post,
}

/// What a daemon answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// HTTP's status.
    pub status: u16,
    /// JSON.
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens at the socket, or it is not there, or may not be used.
    #[error("cannot connect: {0}")]
    Connect(#[source] io::Error),
    /// It was cut off, or is no HTTP.
    #[error("no answer: {0}")]
    Broken(String),
    /// It did not come in time.
    #[error("no answer within {} s", .0.as_secs())]
    Late(Duration),
    /// It is longer than 32 MiB.
    #[error("the answer is too long")]
    TooLong,
}

/// Asks the daemon behind `socket` for `path` (which begins with a slash, and may have a query), and waits so long.
///
/// # Errors
///
/// There is no answer. What a daemon refuses is an answer.
pub fn ask(socket: &Path, method: Method, path: &str, limit: Duration) -> Result<Reply, AskError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(AskError::Connect)?;
    let asked = async { timeout(limit, exchange(socket, method, path)).await };
    runtime.block_on(asked).unwrap_or(Err(AskError::Late(limit)))
}

async fn exchange(socket: &Path, method: Method, path: &str) -> Result<Reply, AskError> {
    let broken = |error: &dyn std::error::Error| AskError::Broken(error.to_string());
    let stream = UnixStream::connect(socket).await.map_err(AskError::Connect)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| broken(&e))?;
    let connection = tokio::spawn(connection);
    let request = Request::builder()
        .method(match method {
            Method::Get => "GET",
            Method::Post => "POST",
        })
        .uri(path)
        .header("host", "evenkeel")
        .body(Body::empty())
        .map_err(|e| broken(&e))?;
    let response = sender.send_request(request).await.map_err(|e| broken(&e))?;
    let status = response.status().as_u16();
    let body = Limited::new(response.into_body(), REPLY_LEN_MAX);
    let body = body.collect().await.map_err(|error| {
        if error.downcast_ref::<LengthLimitError>().is_some() {
            AskError::TooLong
        } else {
            AskError::Broken(error.to_string())
        }
    })?;
    connection.abort();
    Ok(Reply {
        status,
        body: body.to_bytes().to_vec(),
    })
}
