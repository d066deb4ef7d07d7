//! The section `[daemon]`: where the daemon is asked, what it keeps, and what it says.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::problem::{Code, Findings, shown};
use crate::read::{Key, Need, Schema, Table};
use crate::sections::ALL;
use crate::value::{self, Bad};

/// The section `[daemon]`. Fixed while a node runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DaemonConfig {
    /// Absolute path of the socket that `evenkeel ctl` asks; short enough for one (107 bytes).
    pub ctl: PathBuf,
    /// Where `/metrics` and `/ready` are served; `None`: nowhere.
    pub metrics: Option<SocketAddr>,
    /// Absolute path of the directory that keeps the last incarnation; `None`: it is not kept.
    pub state: Option<PathBuf>,
    /// Name of the user that the daemon becomes once it has what needs more; `None`: it stays who it is.
    pub user: Option<String>,
    /// Longest that a node that ends hands over its sessions; zero: it does not.
    pub drain_limit: Duration,
    /// What is logged.
    pub log: LogConfig,
}

impl Default for DaemonConfig {
    fn default() -> Self {
        DaemonConfig {
            ctl: PathBuf::from("/run/evenkeel/ctl.sock"),
            metrics: None,
            state: None,
            user: None,
            drain_limit: Duration::from_secs(30),
            log: LogConfig::default(),
        }
    }
}

/// The section `[daemon.log]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogConfig {
    /// The form of a line.
    pub format: LogFormat,
    /// What is logged at most.
    pub level: LogLevel,
}

/// The form of a line of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// A JSON object.
    Json,
}

/// What is logged: a level and those above it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// What does not work.
    Error,
    /// What may not work.
    Warn,
    /// What a node does, in large.
    #[default]
    Info,
    /// What a node does.
    Debug,
    /// Every step.
    Trace,
}

/// Longest path of a socket: what `sun_path` holds, less its end.
const SOCKET_PATH_LEN_MAX: usize = 107;
/// Longest path of a directory: room for a file's name below the kernel's bound.
const PATH_LEN_MAX: usize = 1023;
/// Longest name of a user, that of Linux.
const USER_LEN_MAX: usize = 32;
const DRAIN_LIMIT_MAX: Duration = Duration::from_secs(3600);

pub(crate) static DAEMON: Schema = Schema {
    title: "[daemon]",
    keys: &[
        Key("ctl", "\"/run/evenkeel/ctl.sock\""),
        Key("metrics", "\"127.0.0.1:9790\""),
        Key("state", "\"/var/lib/evenkeel\""),
        Key("user", "\"evenkeel\""),
        Key("drain_limit", "\"30s\""),
        Key("log", "[daemon.log]"),
    ],
};
pub(crate) static LOG: Schema = Schema {
    title: "[daemon.log]",
    keys: &[Key("format", "\"text\""), Key("level", "\"info\"")],
};

/// Reads `[daemon]`. What is not there, or could not be read, has its default.
pub(crate) fn read(root: &Table<'_, '_>, findings: &mut Findings) -> DaemonConfig {
    let mut config = DaemonConfig::default();
    let Some(table) = root.table("daemon", &DAEMON, ALL, findings) else {
        return config;
    };
    let socket = |text: &str| path(text, SOCKET_PATH_LEN_MAX, "/run/evenkeel/ctl.sock");
    if let Some(ctl) = table.parsed("ctl", Need::Optional, socket, findings) {
        config.ctl = ctl.value;
    }
    let metrics = table.parsed("metrics", Need::Optional, listener, findings);
    config.metrics = metrics.map(|m| m.value);
    let directory = |text: &str| path(text, PATH_LEN_MAX, "/var/lib/evenkeel");
    let state = table.parsed("state", Need::Optional, directory, findings);
    config.state = state.map(|s| s.value);
    let user = table.parsed("user", Need::Optional, user, findings);
    config.user = user.map(|u| u.value);
    if let Some(limit) = table.duration_in("drain_limit", Duration::ZERO..=DRAIN_LIMIT_MAX, findings) {
        config.drain_limit = limit.value;
    }
    if let Some(log) = table.table("log", &LOG, ALL, findings) {
        config.log = read_log(&log, findings);
    }
    config
}

fn read_log(log: &Table<'_, '_>, findings: &mut Findings) -> LogConfig {
    let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    let format = log.choice("format", Need::Optional, &formats, findings);
    let levels = [
        ("error", LogLevel::Error),
        ("warn", LogLevel::Warn),
        ("info", LogLevel::Info),
        ("debug", LogLevel::Debug),
        ("trace", LogLevel::Trace),
    ];
    let level = log.choice("level", Need::Optional, &levels, findings);
    LogConfig {
        format: format.map_or_else(LogFormat::default, |f| f.value),
        level: level.map_or_else(LogLevel::default, |l| l.value),
    }
}

/// An absolute path.
pub(crate) fn path(text: &str, len_max: usize, example: &str) -> Result<PathBuf, Bad> {
    if text.len() > len_max {
        let message = format!("the path is {} bytes long", text.len());
        return Err(Bad::new(
            Code::BadValue,
            message,
            format!("write {len_max} bytes at most"),
        ));
    }
    if text.chars().any(char::is_control) {
        let message = format!("\"{}\" has control characters", shown(text));
        return Err(Bad::new(
            Code::BadValue,
            message,
            format!("write it without: \"{example}\""),
        ));
    }
    if !text.starts_with('/') {
        let message = format!("\"{}\" is not an absolute path", shown(text));
        let help =
            format!("write it from the root on, as a daemon has no directory of its own: \"{example}\"");
        return Err(Bad::new(Code::BadValue, message, help));
    }
    Ok(PathBuf::from(text))
}

/// Where a server of this host listens: an address of it, or any.
fn listener(text: &str) -> Result<SocketAddr, Bad> {
    let end = value::endpoint(text)?;
    if end.port() == 0 {
        let help = "write a port from 1 to 65535";
        return Err(Bad::new(Code::PortZero, "port 0 cannot be used", help));
    }
    let everybody = matches!(end.ip(), IpAddr::V4(a) if a.is_broadcast());
    if end.ip().is_multicast() || everybody {
        let message = format!("{} is not an address that a host can have", end.ip());
        let help = "write an address of this host, or \"0.0.0.0\" or \"[::]\" for all of them";
        return Err(Bad::new(Code::NotUnicast, message, help));
    }
    Ok(end)
}

fn user(text: &str) -> Result<String, Bad> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let well = !text.is_empty() && text.len() <= USER_LEN_MAX && text.chars().all(plain);
    if well && !text.starts_with('-') {
        return Ok(text.to_owned());
    }
    let message = format!("\"{}\" is not the name of a user", shown(text));
    let help =
        format!("1 to {USER_LEN_MAX} letters (a to z), digits, dots, hyphens and underscores: \"evenkeel\"");
    Err(Bad::new(Code::BadValue, message, help))
}
