//! What the daemon has to do with the system that it runs on: the user that it becomes, the service manager that it
//! tells how it is, the cores of its threads.

use std::os::unix::fs::lchown;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::thread::Builder;
use std::time::Duration;

use evenkeel_control::{Config, Driver};
use nix::unistd::{Uid, User, getuid, setgid, setgroups, setuid};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, CpuSet, sched_setaffinity, set_capabilities, set_keep_capabilities,
    set_no_new_privs,
};
use sd_notify::NotifyState;
use tracing::{info, warn};

use crate::health::IN_FLIGHT_MAX;
use crate::lane::Lane;
use crate::{Refusal, admin, refusal};

/// The largest number that a core can have in the kernel's masks and in a config.
const CPU_MAX: u16 = 1023;

/// What a daemon needs after its start: to send and receive frames on interfaces that come back, and to ping.
const KEPT: CapabilitySet = CapabilitySet::NET_RAW;

/// Becomes another user, for good, and keeps [`KEPT`] alone. Threads that are made later are that user too, and
/// `belongings` his: he may ask the daemon, remove its socket, and start it again.
///
/// # Errors
///
/// There is no such user, or this process may not become another one, or give it anything.
pub(crate) fn become_user(name: &str, belongings: impl IntoIterator<Item = PathBuf>) -> Result<(), Refusal> {
    let user = match User::from_name(name) {
        Ok(Some(user)) => user,
        Ok(None) => {
            return Err(refusal(
                format!("there is no user {name}"),
                format!("make one: useradd --system --no-create-home {name}; or correct `user` of [daemon]"),
            ));
        }
        Err(error) => {
            return Err(refusal(
                format!("cannot look up the user {name}: {error}"),
                "see /etc/nsswitch.conf and /etc/passwd",
            ));
        }
    };
    if getuid() == user.uid && !user.uid.is_root() {
        return Ok(());
    }
    let refused = |what: &str, error: &dyn std::fmt::Display| {
        refusal(
            format!("cannot become the user {name}: {what}: {error}"),
            "start as root (with CAP_CHOWN, CAP_SETUID and CAP_SETGID), or without `user` of [daemon]",
        )
    };
    for path in belongings {
        let given = lchown(&path, Some(user.uid.as_raw()), Some(user.gid.as_raw()));
        given.map_err(|e| refused(&format!("giving it {}", path.display()), &e))?;
    }
    set_keep_capabilities(true).map_err(|e| refused("keeping capabilities", &e))?;
    setgroups(&[user.gid]).map_err(|e| refused("its groups", &e))?;
    setgid(user.gid).map_err(|e| refused("its group", &e))?;
    setuid(user.uid).map_err(|e| refused("its number", &e))?;
    let kept = CapabilitySets {
        effective: KEPT,
        permitted: KEPT,
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, kept).map_err(|e| refused("its capabilities", &e))?;
    // Whatever is started from here on gains nothing either.
    set_no_new_privs(true).map_err(|e| refused("giving up new privileges", &e))?;
    if !user.uid.is_root() && setuid(Uid::from_raw(0)).is_ok() {
        return Err(refused("the way back to root is open", &"it must not be"));
    }
    if user.uid.is_root() {
        warn!(
            user = name,
            "root is not dropped, as it is the `user` of [daemon]: name another one"
        );
    } else {
        info!(user = name, uid = user.uid.as_raw(), "root is dropped");
    }
    Ok(())
}

/// Whether a thread can be kept on each of these cores.
///
/// # Errors
///
/// One is not there, or not for this process.
pub(crate) fn check_cores(cores: &[u16]) -> Result<(), Refusal> {
    if cores.is_empty() {
        return Ok(());
    }
    // Only trying tells: the mask that this process was given leaves out isolated cores, on which it may run all the same.
    let looked = std::thread::scope(|scope| {
        let look = || -> (Option<u16>, Vec<u16>) {
            let missing = cores.iter().copied().find(|&cpu| !try_pin(cpu));
            let usable = missing.map_or_else(Vec::new, |_| (0..=CPU_MAX).filter(|&c| try_pin(c)).collect());
            (missing, usable)
        };
        let thread = Builder::new().name("cores".to_owned()).spawn_scoped(scope, look);
        thread.map(|thread| thread.join().unwrap_or_default())
    });
    match looked {
        Ok((None, _)) => Ok(()),
        Ok((Some(cpu), usable)) => Err(refusal(
            format!("no thread can be kept on core {cpu}: it is not there, or not for this process"),
            format!(
                "write others as `cores` of [io]: this process may use {}; or leave `cores` out",
                ranges(&usable)
            ),
        )),
        Err(error) => Err(refusal(
            format!("cannot start a thread: {error}"),
            "see the limits of this process (ulimit -a) and of its cgroup",
        )),
    }
}

fn try_pin(cpu: u16) -> bool {
    let mut set = CpuSet::new();
    set.set(cpu.into());
    sched_setaffinity(None, &set).is_ok()
}

/// Numbers in ascending order as the system writes them: `0-3,8`.
fn ranges(numbers: &[u16]) -> String {
    let mut all: Vec<(u16, u16)> = Vec::new();
    for &n in numbers {
        match all.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(n) => *last = n,
            _ => all.push((n, n)),
        }
    }
    let all: Vec<String> = all
        .into_iter()
        .map(|(first, last)| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        })
        .collect();
    all.join(",")
}

/// Files that a node has open at most, by its config: sockets, eventfds and all. Rather too many than too few.
fn files_needed(config: &Config) -> u64 {
    /// Standard ones, runtimes, signals, locks, what libraries hold, a config that is read again.
    const OWN: usize = 48;
    /// Of a worker: its bell, and room.
    const OF_WORKER: usize = 2;
    /// Of an interface and a worker: a socket and an eventfd, or what a driver of DPDK has for a queue.
    const OF_QUEUE: usize = 3;
    /// Of another node: a socket and its copy, connections in both directions.
    const OF_PEER: usize = 8;
    /// Of DPDK by itself, and of its buses.
    const OF_DPDK: usize = 64;
    let (workers, ports) = (usize::from(config.workers), config.spec.ports.len());
    let peers = config.cluster.as_ref().map_or(0, |c| c.nodes.len());
    let checked = config.spec.services.iter().zip(&config.health);
    let checks: usize = checked
        .filter(|(_, health)| health.is_some())
        .map(|(service, _)| service.servers.len())
        .sum();
    let dpdk = match config.io.driver {
        Driver::Dpdk => OF_DPDK + 2 * ports,
        Driver::Pcap => 0,
    };
    let all = OWN
        + admin::CONNECTION_COUNT_MAX
        + workers * (OF_WORKER + ports * OF_QUEUE)
        + peers * OF_PEER
        + checks.min(IN_FLIGHT_MAX)
        + dpdk;
    all as u64
}

/// Takes as many open files as the system gives, and sees whether they are enough.
///
/// # Errors
///
/// They are not.
pub(crate) fn have_files(config: &Config) -> Result<(), Refusal> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let most = Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        };
        // If not, what there is may do.
        let _ = setrlimit(Resource::Nofile, most);
    }
    enough_files(getrlimit(Resource::Nofile).current, files_needed(config))
}

/// `have`: `None` is without a limit.
fn enough_files(have: Option<u64>, needed: u64) -> Result<(), Refusal> {
    match have {
        Some(have) if have < needed => Err(refusal(
            format!("this process may have {have} files open, and this config needs up to {needed}"),
            format!(
                "raise the limit: LimitNOFILE={needed} or more in the service, `ulimit -n {needed}` in a shell"
            ),
        )),
        _ => Ok(()),
    }
}

/// Keeps the calling thread on one core. It could be had at the start; the system may have taken it away since.
pub(crate) fn pin(worker: usize, cpu: u16) {
    let mut set = CpuSet::new();
    set.set(cpu.into());
    if let Err(error) = sched_setaffinity(None, &set) {
        warn!(worker, cpu, %error, "cannot be pinned to its core");
    }
}

/// Tells the service manager, if there is one: that the node runs, that it ends, and that all workers beat.
pub(crate) struct Manager {
    /// It wants to hear so often that we live.
    interval: Option<Duration>,
    fed_at: u64,
    /// The beats of all workers when it was fed.
    beats: Vec<u64>,
}

impl Manager {
    pub(crate) fn new() -> Self {
        // Half of the time after which it would kill us.
        let interval = sd_notify::watchdog_enabled().map(|after| after / 2);
        Manager {
            interval,
            fed_at: 0,
            beats: Vec::new(),
        }
    }

    pub(crate) fn ready(&self) {
        Self::tell(&[NotifyState::Ready]);
    }

    pub(crate) fn stopping(&self) {
        Self::tell(&[NotifyState::Stopping]);
    }

    fn tell(state: &[NotifyState<'_>]) {
        if let Err(error) = sd_notify::notify(state) {
            warn!(%error, "the service manager cannot be told");
        }
    }

    /// How long the control thread may sleep at most.
    pub(crate) fn interval(&self) -> Option<Duration> {
        self.interval
    }

    /// Feeds the watchdog, if it is time and every worker has turned since it was fed last.
    pub(crate) fn feed<'a>(&mut self, now_ns: u64, lanes: impl Iterator<Item = &'a Lane>) -> bool {
        let Some(interval) = self.interval else {
            return false;
        };
        let due = self.fed_at.saturating_add(interval.as_nanos() as u64);
        if self.fed_at != 0 && now_ns < due {
            return false;
        }
        let beats: Vec<u64> = lanes.map(|lane| lane.beat.load(Ordering::Relaxed)).collect();
        let first = self.beats.len() != beats.len();
        let all = beats.iter().zip(&self.beats).all(|(now, then)| now != then);
        if !first && !all {
            return false;
        }
        self.beats = beats;
        self.fed_at = now_ns;
        Self::tell(&[NotifyState::Watchdog]);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn the_watchdog_is_fed_only_while_every_worker_beats() {
        let lanes: Vec<Lane> = (0..2)
            .map(|_| Lane::new(Arc::default(), 64).expect("made"))
            .collect();
        let mut manager = Manager {
            interval: Some(Duration::from_nanos(100)),
            fed_at: 0,
            beats: Vec::new(),
        };
        let beat = |n: usize| lanes[n].beat.fetch_add(1, Ordering::Relaxed);
        assert!(manager.feed(1000, lanes.iter()), "the first time");
        beat(0);
        beat(1);
        assert!(!manager.feed(1050, lanes.iter()), "too early");
        assert!(manager.feed(1100, lanes.iter()));
        beat(0);
        assert!(!manager.feed(1300, lanes.iter()), "one stands still");
        beat(0);
        assert!(!manager.feed(5000, lanes.iter()), "still");
        beat(1);
        assert!(manager.feed(5001, lanes.iter()), "as soon as it turns again");
    }

    #[test]
    fn a_core_that_is_not_there_is_refused_with_those_that_are() {
        assert_eq!(check_cores(&[]), Ok(()));
        let refused = check_cores(&[CPU_MAX]).expect_err("no machine has so many");
        assert!(refused.message.contains("core 1023"), "{refused:?}");
        let usable: Vec<u16> = std::thread::spawn(|| (0..=CPU_MAX).filter(|&c| try_pin(c)).collect())
            .join()
            .expect("no panic");
        assert!(
            refused.help.contains(&format!("may use {};", ranges(&usable))),
            "{refused:?}"
        );
        assert_eq!(check_cores(&usable), Ok(()));
        assert_eq!(ranges(&[0, 1, 2, 5, 7, 8]), "0-2,5,7-8");
    }

    #[test]
    fn a_user_that_is_not_there_is_refused() {
        let refused = become_user("no-such-user-of-evenkeel", []).expect_err("nobody");
        assert!(refused.message.contains("there is no user"), "{refused:?}");
    }
}
