//! Looking in: a Unix socket that `evenkeel ctl` asks, and `/metrics`. A thread of its own speaks HTTP, so that what is
//! asked costs the control side no more than a copy of what it knows (`ask`), and a worker a look between two bursts
//! (`conns`).

mod answer;
mod ask;
mod client;
mod conns;
mod gather;
mod http;
mod metrics;
#[cfg(test)]
mod tests;

use std::fs::Permissions;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use evenkeel_control::{Config, DaemonConfig};
use rustix::fs::{Mode, fchmod};
use rustix::io::Errno;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::sync::{mpsc, oneshot};
use tracing::{error, warn};

pub use answer::{
    AlarmStatus, ClusterStatus, Conn, Conns, Counts, Done, Group, PeerStatus, PortStats, Refused,
    Replication, Server, Service, Services, Stats, Status, WorkerStats, WorkerStatus,
};
pub use client::{AskError, Method, Reply, ask};
pub use conns::ConnQuery;

pub(crate) use ask::{ASK_COUNT, Ask, ControlView, able, services};

use crate::io::DriverLook;
use crate::lane::Lane;
use crate::transport::TransportCounters;
use crate::{Refusal, refusal};
use gather::{Facts, Known};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 64;
/// Connections of those who look in, at most.
pub(crate) const CONNECTION_COUNT_MAX: usize = http::CTL_COUNT_MAX + http::METRICS_COUNT_MAX;
/// Who may ask: the daemon's user and group.
const SOCKET_MODE: u32 = 0o660;

/// The file of the socket, which goes with the daemon.
#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Nobody else has it while the lock is held.
        if let Err(error) = std::fs::remove_file(&self.0)
            && error.kind() != io::ErrorKind::NotFound
        {
            // As another user, in a directory that is root's.
            warn!(%error, "the control socket {} stays: the next start replaces it", self.0.display());
        }
    }
}

/// Sockets that nobody serves yet.
#[derive(Debug)]
pub(crate) struct Bound {
    ctl: UnixListener,
    file: SocketFile,
    metrics: Option<TcpListener>,
}

/// What is served, until it is dropped.
#[derive(Debug)]
pub(crate) struct Admin {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    _file: SocketFile,
}

/// Takes the socket and the listener's address. The lock that goes with the socket is held: a socket that is there is
/// a dead daemon's.
///
/// # Errors
///
/// The file is something else, the directory cannot be written, or the address is taken.
pub(crate) fn bind(config: &DaemonConfig) -> Result<Bound, Refusal> {
    let (ctl, file) = bind_ctl(&config.ctl)?;
    let metrics = config.metrics.map(bind_metrics).transpose()?;
    Ok(Bound { ctl, file, metrics })
}

fn bind_ctl(path: &Path) -> Result<(UnixListener, SocketFile), Refusal> {
    let failed = |error: io::Error| {
        refusal(
            format!("cannot make the control socket {}: {error}", path.display()),
            "choose one in a directory that may be written, as `ctl` of [daemon]",
        )
    };
    match std::fs::symlink_metadata(path) {
        Ok(there) if there.file_type().is_socket() => {
            if let Some(why) = in_use(path).map_err(failed)? {
                return Err(refusal(
                    format!("another program listens at {} ({why})", path.display()),
                    "end it, or choose another `ctl` in [daemon]",
                ));
            }
            std::fs::remove_file(path).map_err(failed)?;
        }
        Ok(_) => {
            return Err(refusal(
                format!("{} is there, and is no socket", path.display()),
                "remove it, or choose another `ctl` in [daemon]",
            ));
        }
        Err(_) => {}
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(failed)?;
    // The file has no more rights than these at any time; a umask may take some away, and they are given back.
    fchmod(&socket, Mode::from_raw_mode(SOCKET_MODE)).map_err(|e| failed(e.into()))?;
    socket
        .bind(&SockAddr::unix(path).map_err(failed)?)
        .map_err(failed)?;
    let file = SocketFile(path.to_path_buf());
    std::fs::set_permissions(path, Permissions::from_mode(SOCKET_MODE)).map_err(failed)?;
    socket.listen(BACKLOG).map_err(failed)?;
    socket.set_nonblocking(true).map_err(failed)?;
    Ok((socket.into(), file))
}

/// Whether somebody has a socket that is there, and how that showed. The lock says nothing of programs that are no evenkeel.
fn in_use(path: &Path) -> io::Result<Option<&'static str>> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // One whose backlog is full would be waited for.
    socket.set_nonblocking(true)?;
    match socket.connect(&SockAddr::unix(path)?) {
        Ok(()) => Ok(Some("it takes connections")),
        Err(error) => match Errno::from_io_error(&error) {
            // What a program left that has ended.
            Some(Errno::CONNREFUSED | Errno::NOENT) => Ok(None),
            Some(Errno::AGAIN) => Ok(Some("it takes connections late")),
            Some(Errno::PROTOTYPE) => Ok(Some("of datagrams")),
            _ => Err(error),
        },
    }
}

fn bind_metrics(addr: SocketAddr) -> Result<TcpListener, Refusal> {
    let failed = |error: io::Error| {
        let help = match error.kind() {
            io::ErrorKind::AddrInUse => {
                "another program has this port, maybe another evenkeel: end it, or choose another `metrics` in [daemon]"
            }
            io::ErrorKind::AddrNotAvailable => {
                "no interface of this machine has this address: add it, or correct `metrics` of [daemon]"
            }
            _ => "choose another `metrics` in [daemon]",
        };
        refusal(format!("cannot serve metrics at {addr}: {error}"), help)
    };
    // With SO_REUSEADDR: connections of a daemon that has just ended do not hold the port.
    let listener = TcpListener::bind(addr).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

impl Bound {
    /// Serves, on a thread of its own.
    ///
    /// # Errors
    ///
    /// The system gives no thread, or no more files.
    pub(crate) fn serve(
        self,
        config: &Config,
        lanes: Vec<Arc<Lane>>,
        asks: mpsc::Sender<Ask>,
        transport: Option<Arc<TransportCounters>>,
        driver: Option<Arc<dyn DriverLook>>,
    ) -> io::Result<Admin> {
        self.serve_within(config, lanes, asks, transport, driver, ask::ANSWER_TIME)
    }

    fn serve_within(
        self,
        config: &Config,
        lanes: Vec<Arc<Lane>>,
        asks: mpsc::Sender<Ask>,
        transport: Option<Arc<TransportCounters>>,
        driver: Option<Arc<dyn DriverLook>>,
        within: Duration,
    ) -> io::Result<Admin> {
        let known = Arc::new(Known {
            facts: Facts::of(config),
            lanes,
            asks,
            transport,
            driver,
            counters: Default::default(),
            within,
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (stop, stopped) = oneshot::channel();
        let Bound { ctl, file, metrics } = self;
        let (ctl, metrics) = {
            // What the runtime refuses is found before there is a thread.
            let _within = runtime.enter();
            let ctl = tokio::net::UnixListener::from_std(ctl)?;
            (ctl, metrics.map(tokio::net::TcpListener::from_std).transpose()?)
        };
        let thread = Builder::new().name("admin".to_string()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = stopped => (),
                    () = run(ctl, metrics, known) => (),
                }
            });
        })?;
        Ok(Admin {
            stop: Some(stop),
            thread: Some(thread),
            _file: file,
        })
    }
}

async fn run(ctl: tokio::net::UnixListener, metrics: Option<tokio::net::TcpListener>, known: Arc<Known>) {
    let counters = &known.counters;
    let asked = http::serve(
        ctl,
        http::ctl(Arc::clone(&known)),
        http::CTL_COUNT_MAX,
        &counters.ctl_refused,
    );
    let watched = async {
        match metrics {
            Some(listener) => {
                let router = http::watched(Arc::clone(&known));
                let refused = &counters.metrics_refused;
                http::serve(listener, router, http::METRICS_COUNT_MAX, refused).await;
            }
            None => std::future::pending().await,
        }
    };
    tokio::join!(asked, watched);
}

impl Drop for Admin {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            error!("the thread of the control socket ended by a fault of its own");
        }
    }
}
