//! Which life of a node this is: every start has a larger incarnation than the one before.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use evenkeel_control::DaemonConfig;
use evenkeel_core::cluster::Incarnation;
use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;
use tracing::warn;

use crate::{Refusal, clock, refusal};

/// The file in the state directory that has the last incarnation.
const FILE: &str = "incarnation";
/// The next one, until it is whole.
const FRESH: &str = "incarnation.new";

/// The lock of the directory.
const STATE_LOCK: &str = "incarnation.lock";
/// Longest file that is read: a number has 20 digits at most.
const LEN_MAX: u64 = 64;
/// A last number that is so far beyond the clock is worth a warning, in microseconds: a day.
const AHEAD_MAX: u64 = 24 * 3600 * 1_000_000;

/// The number of this life: microseconds since 1970, but more than the last one that the state directory remembers, so
/// that a clock that went back does no harm. It is written down before it is used.
///
/// # Errors
///
/// The directory cannot be written, or has something else in the file.
pub(crate) fn incarnation(state: Option<&Path>) -> Result<Incarnation, Refusal> {
    let by_clock = (clock::unix_nanos() / 1000).max(1);
    let Some(state) = state else {
        return Ok(Incarnation(by_clock));
    };
    let path = state.join(FILE);
    let remedy = "the node writes its last incarnation there: give it a directory that it may write, as `state` of [daemon]";
    let failed =
        |what: &str, error: io::Error| refusal(format!("cannot {what} {}: {error}", path.display()), remedy);
    fs::create_dir_all(state).map_err(|e| failed("make the directory of", e))?;
    let unusable = |what: &str| {
        refusal(
            format!("{} {what}", path.display()),
            "remove the file, if this machine's clock is right",
        )
    };
    // Not waiting: a pipe there would do that until somebody writes to it.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(&path);
    let last = match opened {
        Ok(file) => {
            let about = file.metadata().map_err(|e| failed("read", e))?;
            if !about.is_file() {
                return Err(unusable("is no regular file"));
            }
            let mut text = Vec::new();
            let read = file.take(LEN_MAX).read_to_end(&mut text);
            read.map_err(|e| failed("read", e))?;
            let number = std::str::from_utf8(&text)
                .ok()
                .and_then(|t| t.trim().parse().ok());
            number.ok_or_else(|| unusable("has no number in it"))?
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0u64,
        // A socket.
        Err(error) if error.raw_os_error() == Some(Errno::NXIO.raw_os_error()) => {
            return Err(unusable("is no regular file"));
        }
        Err(error) => return Err(failed("read", error)),
    };
    // The number of each life is larger than the one before: nothing comes after the largest.
    let after = last
        .checked_add(1)
        .ok_or_else(|| unusable(&format!("has {last} in it, and no number comes after that")))?;
    if last > by_clock.saturating_add(AHEAD_MAX) {
        warn!(
            last,
            by_clock,
            "the last start was numbered more than a day ahead of this machine's clock: see to the clock, or, if it is right, to {}",
            path.display()
        );
    }
    let next = by_clock.max(after);
    // Whole or not at all: a crash in between leaves the old one.
    let fresh = state.join(FRESH);
    // The directory may belong to the daemon's user, and root follows no link of his.
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("replace", error)),
        _ => {}
    }
    let written = File::create_new(&fresh).and_then(|mut file| {
        writeln!(file, "{next}")?;
        file.sync_all()
    });
    let renamed = written.and_then(|()| fs::rename(&fresh, &path));
    renamed.map_err(|error| {
        // A full disk leaves an empty one.
        let _ = fs::remove_file(&fresh);
        failed("write", error)
    })?;
    Ok(Incarnation(next))
}

/// What of the file system is the daemon's alone, as far as it is there: its control socket, the file of [`incarnation`], the
/// locks of both; and the directories of these that have nothing else in them.
pub(crate) fn belongings(config: &DaemonConfig) -> BTreeSet<PathBuf> {
    let mut all = BTreeSet::from([config.ctl.clone(), lock_of(&config.ctl)]);
    if let Some(state) = &config.state {
        all.extend([state.join(FILE), state.join(FRESH), state.join(STATE_LOCK)]);
    }
    let folders: BTreeSet<_> = all.iter().filter_map(|file| file.parent()).collect();
    let own = folders.into_iter().filter(|folder| {
        let mut entries = fs::read_dir(folder).into_iter().flatten();
        fs::symlink_metadata(folder).is_ok_and(|folder| folder.is_dir())
            && entries.all(|entry| entry.is_ok_and(|entry| all.contains(&entry.path())))
    });
    let own: Vec<_> = own.map(Path::to_path_buf).collect();
    all.extend(own);
    all.retain(|path| fs::symlink_metadata(path).is_ok());
    all
}

fn lock_of(socket: &Path) -> PathBuf {
    let mut path = socket.as_os_str().to_owned();
    path.push(".lock");
    PathBuf::from(path)
}

/// That no other process runs with the same control socket, or the same state, for as long as it is kept.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// That of a control socket.
    ///
    /// # Errors
    ///
    /// Another process has it; or the directory cannot be written.
    pub(crate) fn take(socket: &Path) -> Result<Self, Refusal> {
        let what = format!("the control socket {}", socket.display());
        Self::take_of(&lock_of(socket), &what, "ctl", "a control socket in a directory")
    }

    /// That of a state directory: two nodes with the same numbers of their lives would be taken for one.
    ///
    /// # Errors
    ///
    /// As [`Lock::take`].
    pub(crate) fn take_state(state: &Path) -> Result<Self, Refusal> {
        let what = format!("the state directory {}", state.display());
        Self::take_of(&state.join(STATE_LOCK), &what, "state", "a directory")
    }

    /// The lock at `path` of `what`, which the config has as `key`, and which is to be `wanted` that may be written.
    fn take_of(path: &Path, what: &str, key: &str, wanted: &str) -> Result<Self, Refusal> {
        let failed = |error: &io::Error| {
            refusal(
                format!("cannot take the lock {}: {error}", path.display()),
                format!("choose {wanted} that may be written, as `{key}` of [daemon]"),
            )
        };
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(|e| failed(&e))?;
        }
        // As above: a link there may lead to a file that is not the daemon's, a pipe to nobody.
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
        let options = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .custom_flags(flags)
            .open(path);
        let mut file = options.map_err(|e| failed(&e))?;
        let about = file.metadata().map_err(|e| failed(&e))?;
        if !about.is_file() {
            return Err(failed(&io::Error::other("it is no regular file")));
        }
        if let Err(error) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
            return Err(match error {
                Errno::WOULDBLOCK => {
                    let owner = fs::read_to_string(path).unwrap_or_default();
                    taken(owner.trim(), what, key)
                }
                // A file system without locks, or whose server gives none.
                _ => unlockable(path, error, key),
            });
        }
        let told = file
            .set_len(0)
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        told.map_err(|e| failed(&e))?;
        Ok(Lock { _file: file })
    }
}

fn taken(owner: &str, what: &str, key: &str) -> Refusal {
    // It is there before its number is in the file.
    let who = match owner {
        "" => String::new(),
        owner => format!(" (process {owner})"),
    };
    refusal(
        format!("another evenkeel{who} runs with {what}"),
        format!("end it first, or give this one another `{key}` in [daemon]"),
    )
}

fn unlockable(path: &Path, error: Errno, key: &str) -> Refusal {
    refusal(
        format!("cannot lock {}: {}", path.display(), io::Error::from(error)),
        format!("choose a directory on a local file system, as `{key}` of [daemon]"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_locked_is_not_said_to_be_anothers() {
        let why = unlockable(Path::new("/run/a.lock"), Errno::NOLCK, "ctl");
        assert!(
            why.message
                .starts_with("cannot lock /run/a.lock: No locks available"),
            "{why:?}"
        );
        assert!(
            why.help.contains("local file system") && why.help.contains("`ctl`"),
            "{why:?}"
        );
        assert!(
            taken("", "it", "ctl")
                .message
                .starts_with("another evenkeel runs with it")
        );
        assert!(
            taken("7", "it", "ctl")
                .message
                .starts_with("another evenkeel (process 7) runs with it")
        );
    }

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("evenkeel-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        folder
    }

    #[test]
    fn every_life_has_a_larger_number_whatever_the_clock_says() {
        let state = folder("incarnation");
        let first = incarnation(Some(&state)).expect("a directory that can be made");
        let second = incarnation(Some(&state)).expect("as before");
        assert!(second > first);
        // A clock that went back.
        let far = u64::MAX / 2;
        fs::write(state.join(FILE), format!("{far}\n")).expect("written");
        assert_eq!(
            incarnation(Some(&state)).expect("as before"),
            Incarnation(far + 1)
        );
        fs::write(state.join(FILE), "no number").expect("written");
        assert!(
            incarnation(Some(&state))
                .expect_err("nonsense")
                .message
                .contains("no number in it")
        );
        // It would be the same at each start from here on.
        fs::write(state.join(FILE), "18446744073709551615\n").expect("written");
        let refused = incarnation(Some(&state)).expect_err("nothing comes after it");
        assert!(refused.message.contains("no number comes after"), "{refused:?}");
        assert!(refused.help.contains("remove the file"), "{refused:?}");
        let _ = fs::remove_dir_all(&state);
    }

    #[test]
    fn what_is_no_regular_file_has_no_number() {
        let state = folder("fifo");
        fs::create_dir_all(&state).expect("made");
        let file = state.join(FILE);
        let refused = || incarnation(Some(&state)).expect_err("no regular file").message;
        fs::create_dir(&file).expect("made");
        assert!(refused().contains("is no regular file"), "{}", refused());
        fs::remove_dir(&file).expect("empty");
        let _socket = std::os::unix::net::UnixListener::bind(&file).expect("bound");
        assert!(refused().contains("is no regular file"), "{}", refused());
        fs::remove_file(&file).expect("there");
        let pipe = std::process::Command::new("mkfifo").arg(&file).status();
        assert!(pipe.expect("coreutils").success());
        assert!(refused().contains("is no regular file"), "{}", refused());
        fs::rename(&file, state.join(STATE_LOCK)).expect("in the same directory");
        let refused = Lock::take_state(&state).expect_err("a pipe");
        assert!(refused.message.contains("it is no regular file"), "{refused:?}");
        let _ = fs::remove_dir_all(&state);
    }

    #[test]
    fn no_link_is_followed() {
        let folder = folder("link");
        fs::create_dir_all(&folder).expect("made");
        let other = folder.join("other");
        fs::write(&other, "kept").expect("written");
        std::os::unix::fs::symlink(&other, folder.join(FRESH)).expect("a link");
        incarnation(Some(&folder)).expect("the link is replaced");
        std::os::unix::fs::symlink(&other, folder.join("ctl.sock.lock")).expect("a link");
        let refused = Lock::take(&folder.join("ctl.sock")).expect_err("a link");
        assert!(refused.message.contains("cannot take the lock"), "{refused:?}");
        assert_eq!(fs::read_to_string(&other).expect("there"), "kept");
        let _ = fs::remove_dir_all(&folder);
    }

    #[test]
    fn a_directory_with_something_else_in_it_is_not_the_daemons() {
        let folder = folder("belongings");
        let text = format!(
            "[daemon]\nctl = \"{0}/run/ctl.sock\"\nstate = \"{0}/state\"\n[[port]]\nname = \"p\"\nmac = \"02:00:00:00:00:01\"\n\
             [[service]]\nname = \"s\"\nvip = \"192.0.2.1:1\"\nprotocol = \"tcp\"\nlocal_addresses = [\"192.0.2.2\"]\n\
             [[service.server]]\naddress = \"192.0.2.3:1\"\n",
            folder.display()
        );
        let config = evenkeel_control::parse("test", &text)
            .expect("a good config")
            .daemon;
        assert_eq!(belongings(&config), BTreeSet::new(), "there is nothing");
        let _lock = Lock::take(&config.ctl).expect("free");
        let state = config.state.as_deref().expect("it has one");
        let _state_lock = Lock::take_state(state).expect("free");
        incarnation(config.state.as_deref()).expect("a directory that can be made");
        let names = |folder: &Path| -> Vec<String> {
            let all = belongings(&config);
            let rest = all
                .iter()
                .map(|path| path.strip_prefix(folder).expect("below it"));
            rest.map(|path| path.display().to_string()).collect()
        };
        assert_eq!(
            names(&folder),
            [
                "run",
                "run/ctl.sock.lock",
                "state",
                "state/incarnation",
                "state/incarnation.lock"
            ]
        );
        fs::write(folder.join("run/other.sock"), "").expect("written");
        assert_eq!(
            names(&folder),
            [
                "run/ctl.sock.lock",
                "state",
                "state/incarnation",
                "state/incarnation.lock"
            ]
        );
        let _ = fs::remove_dir_all(&folder);
    }

    #[test]
    fn a_second_one_is_told_who_has_the_lock() {
        let folder = folder("lock");
        let socket = folder.join("ctl.sock");
        let first = Lock::take(&socket).expect("free");
        let refused = Lock::take(&socket).expect_err("taken");
        assert!(
            refused
                .message
                .contains(&format!("process {}", std::process::id())),
            "{}",
            refused.message
        );
        drop(first);
        Lock::take(&socket).expect("free again");
        let _ = fs::remove_dir_all(&folder);
    }
}
