//! HTTP around the answers. Whoever asks has little time and little room: a head of [`HEAD_LEN_MAX`] bytes within
//! [`HEAD_TIME`], one request a connection, [`REQUEST_TIME`] for all of it, and so many connections at a time.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use evenkeel_core::cluster::NodeCommand;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::answer::{Conns, Done, Refused, Replication, Services, Stats, Status};
use super::ask::{self, Ask, Silence, Unable};
use super::conns::ConnQuery;
use super::gather::{Known, not_ready};
use super::metrics;

/// Connections to the control socket at a time: fewer than looks may wait for a worker.
pub(super) const CTL_COUNT_MAX: usize = 8;
/// Connections to `/metrics`, `/ready` and `/live` at a time.
pub(super) const METRICS_COUNT_MAX: usize = 32;
/// Questions for each of these that are answered at a time.
const ANSWER_COUNT: usize = 2;
/// Of those connections, so many are for `/metrics` at most: who asks beyond that is told so at once, and others find room.
pub(super) const METRICS_SHARE: usize = 12;
/// The same, for `/ready` and for `/live`, each.
pub(super) const PROBE_SHARE: usize = 8;
// Some are left whose head is still to come.
const _: () = assert!(METRICS_SHARE + 2 * PROBE_SHARE < METRICS_COUNT_MAX);
/// Longest request line and headers together.
const HEAD_LEN_MAX: usize = 16 << 10;
const HEADER_COUNT_MAX: usize = 64;
/// So long the head may take to come.
pub(super) const HEAD_TIME: Duration = Duration::from_secs(2);
/// So long a connection lives.
pub(super) const REQUEST_TIME: Duration = Duration::from_secs(10);

/// Something that gives connections.
pub(super) trait Listen {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    fn accepted(&self) -> impl Future<Output = io::Result<Self::Stream>>;
}

impl Listen for UnixListener {
    type Stream = UnixStream;
    async fn accepted(&self) -> io::Result<UnixStream> {
        self.accept().await.map(|(stream, _)| stream)
    }
}

impl Listen for TcpListener {
    type Stream = TcpStream;
    async fn accepted(&self) -> io::Result<TcpStream> {
        self.accept().await.map(|(stream, _)| stream)
    }
}

/// Answers for ever, at most `most` connections at a time; others are closed, and counted.
pub(super) async fn serve<L: Listen>(listener: L, router: Router, most: usize, refused: &AtomicU64) {
    let mut open = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accepted() => accepted,
            Some(_) = open.join_next(), if !open.is_empty() => continue,
        };
        let Ok(stream) = accepted else {
            // Out of file descriptors, say: not for ever.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        // Those that ended just now do not count.
        while open.try_join_next().is_some() {}
        if open.len() >= most {
            refused.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        let service = TowerToHyperService::new(router.clone());
        open.spawn(async move {
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIME)
                .max_buf_size(HEAD_LEN_MAX)
                .max_headers(HEADER_COUNT_MAX)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            // Whatever went wrong, the other end knows.
            let _ = timeout(REQUEST_TIME, connection).await;
        });
    }
}

/// An error as an answer.
struct Failed(StatusCode, Refused);

impl Failed {
    fn new(status: StatusCode, error: impl Into<String>, help: impl Into<String>) -> Self {
        let (error, help) = (error.into(), help.into());
        Failed(status, Refused { error, help })
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        (self.0, Json(self.1)).into_response()
    }
}

impl From<Silence> for Failed {
    fn from(silence: Silence) -> Self {
        let error = match silence {
            Silence::Busy => "too much is asked at the same time",
            Silence::Late => "a thread of the daemon did not answer within a second",
        };
        Failed::new(
            StatusCode::SERVICE_UNAVAILABLE,
            error,
            "ask again; if that does not help, `evenkeel ctl stats` names the workers that do not answer",
        )
    }
}

impl From<Unable> for Failed {
    fn from(unable: Unable) -> Self {
        let (error, help) = match unable {
            Unable::Alone => (
                "this node is in no cluster",
                "there is nobody to hand over to or to take over from: see [cluster] in docs/config.md",
            ),
            Unable::Ending => (
                "this node was asked to end",
                "start it again: a node that ends takes no commands",
            ),
            Unable::NoRouter => (
                "this cluster has no virtual router",
                "every node that serves answers for the VIPs: drain the others instead, `evenkeel ctl drain` there",
            ),
            Unable::NotServing => (
                "this node does not serve",
                "wait until it is ready, or undrain it: `evenkeel ctl status` says how far it is",
            ),
        };
        Failed::new(StatusCode::CONFLICT, error, help)
    }
}

fn misread(rejection: &QueryRejection) -> Failed {
    Failed::new(
        StatusCode::BAD_REQUEST,
        rejection.body_text(),
        "see docs/ctl.md for what may be asked",
    )
}

type Shared = State<Arc<Known>>;
type Answer<T> = Result<Json<T>, Failed>;

/// What the control socket answers.
pub(super) fn ctl(known: Arc<Known>) -> Router {
    let command = |command, done| {
        post(move |State(known): Shared| async move { command_of(&known, command, done).await })
    };
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/services", get(services))
        .route("/v1/conns", get(conns))
        .route("/v1/replication", get(replication))
        .route("/v1/stats", get(stats))
        .route(
            "/v1/drain",
            command(
                NodeCommand::Drain,
                "this node hands over its sessions and addresses",
            ),
        )
        .route(
            "/v1/undrain",
            command(NodeCommand::Undrain, "this node serves again"),
        )
        .route(
            "/v1/promote",
            command(
                NodeCommand::Promote,
                "this node becomes master of the virtual router, unless another one was promoted",
            ),
        )
        .route(
            "/v1/demote",
            command(
                NodeCommand::Demote,
                "this node's priority is that of its config again",
            ),
        )
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .with_state(known)
}

async fn unknown() -> Failed {
    Failed::new(
        StatusCode::NOT_FOUND,
        "there is nothing at this path",
        "GET /v1/status, services, conns, replication or stats; POST /v1/drain, undrain, promote or demote",
    )
}

async fn wrong_method() -> Failed {
    Failed::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "this path is asked in another way",
        "GET what is shown, POST what is changed: see docs/ctl.md",
    )
}

async fn status(State(known): Shared) -> Json<Status> {
    Json(known.status().await)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ServicesQuery {
    #[serde(default)]
    conns: bool,
}

async fn services(
    State(known): Shared,
    query: Result<Query<ServicesQuery>, QueryRejection>,
) -> Answer<Services> {
    let query = query.map_err(|e| misread(&e))?;
    Ok(Json(known.services(query.conns).await?))
}

async fn conns(State(known): Shared, query: Result<Query<ConnQuery>, QueryRejection>) -> Answer<Conns> {
    let query = query.map_err(|e| misread(&e))?;
    let page = known.conns(&query).await;
    let page = page.map_err(|bad| Failed::new(StatusCode::BAD_REQUEST, bad.error, bad.help))?;
    Ok(Json(page?))
}

async fn replication(State(known): Shared) -> Answer<Replication> {
    Ok(Json(known.replication().await?))
}

async fn stats(State(known): Shared) -> Json<Stats> {
    Json(known.stats().await)
}

async fn command_of(known: &Known, command: NodeCommand, done: &str) -> Answer<Done> {
    ask::control(&known.asks, known.within, |answer| Ask::Command(command, answer)).await??;
    Ok(Json(Done {
        done: done.to_string(),
    }))
}

/// How many may ask for one page at a time, so that those who ask for another have their answer meanwhile.
#[derive(Debug)]
struct Share {
    /// Of who asks.
    places: Semaphore,
    /// Of who is answered.
    answers: Semaphore,
}

impl Share {
    fn new(places: usize) -> Self {
        Share {
            places: Semaphore::new(places),
            answers: Semaphore::new(ANSWER_COUNT),
        }
    }

    /// Until this question may be answered; `None`: too many wait for that.
    async fn enter(&self) -> Option<[SemaphorePermit<'_>; 2]> {
        let place = self.places.try_acquire().ok()?;
        let answer = self.answers.acquire().await.ok()?;
        Some([place, answer])
    }
}

/// What is served beside `/metrics`, and how many of it at a time.
#[derive(Clone)]
struct Watched {
    known: Arc<Known>,
    metrics: Arc<Share>,
    ready: Arc<Share>,
    live: Arc<Share>,
}

impl Watched {
    fn too_many(&self) -> (StatusCode, String) {
        self.known
            .counters
            .metrics_refused
            .fetch_add(1, Ordering::Relaxed);
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "too many ask for this at the same time\n".to_string(),
        )
    }
}

/// What the listener for Prometheus and for load balancers before this one answers.
pub(super) fn watched(known: Arc<Known>) -> Router {
    let share = |places| Arc::new(Share::new(places));
    Router::new()
        .route("/metrics", get(metrics_page))
        .route("/ready", get(ready))
        .route("/live", get(live))
        .fallback(|| async { (StatusCode::NOT_FOUND, "there is /metrics, /ready and /live\n") })
        .with_state(Watched {
            known,
            metrics: share(METRICS_SHARE),
            ready: share(PROBE_SHARE),
            live: share(PROBE_SHARE),
        })
}

async fn metrics_page(State(watched): State<Watched>, headers: HeaderMap) -> Response {
    let Some(_entered) = watched.metrics.enter().await else {
        return watched.too_many().into_response();
    };
    let begun = Instant::now();
    let (gathered, services) = tokio::join!(watched.known.gather(), watched.known.known_services());
    let services = services.unwrap_or_default();
    let seconds = begun.elapsed().as_secs_f64();
    let accepts = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let open_metrics = accepts.is_some_and(|accepts| accepts.contains("application/openmetrics-text"));
    let kind = if open_metrics {
        metrics::OPEN_METRICS
    } else {
        metrics::TEXT
    };
    match metrics::text(&watched.known, &gathered, &services, seconds, open_metrics) {
        Some(text) => ([(header::CONTENT_TYPE, kind)], text).into_response(),
        None => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn ready(State(watched): State<Watched>) -> (StatusCode, String) {
    let Some(_entered) = watched.ready.enter().await else {
        return watched.too_many();
    };
    let control = watched.known.control().await.ok();
    match not_ready(control.as_ref()) {
        None => (StatusCode::OK, "ready\n".to_string()),
        Some(because) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {because}\n")),
    }
}

async fn live(State(watched): State<Watched>) -> (StatusCode, String) {
    let Some(_entered) = watched.live.enter().await else {
        return watched.too_many();
    };
    let gathered = watched.known.gather().await;
    let silent = gathered.workers.iter().position(Option::is_none);
    match (gathered.control, silent) {
        (Some(_), None) => (StatusCode::OK, "live\n".to_string()),
        (None, _) => (
            StatusCode::SERVICE_UNAVAILABLE,
            "the control side does not answer\n".to_string(),
        ),
        (_, Some(worker)) => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("worker {worker} does not answer\n"),
        ),
    }
}
