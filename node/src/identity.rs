//! Which life of a node this is: every start has a larger incarnation than the one before.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use evenkeel_control::DaemonConfig;
use evenkeel_core::cluster::Incarnation;
use rustix::fs::{FlockOperation, OFlags, flock};

use crate::{Refusal, clock, refusal};

/// The file in the state directory that has the last incarnation.
const FILE: &str = "incarnation";
/// The next one, until it is whole.
const FRESH: &str = "incarnation.new";

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
    let last = match fs::read_to_string(&path) {
        Ok(text) => text.trim().parse::<u64>().map_err(|_| {
            refusal(
                format!("{} has no number in it", path.display()),
                "remove the file, if this machine's clock is right",
            )
        })?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(failed("read", error)),
    };
    let next = by_clock.max(last.saturating_add(1));
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
    written.map_err(|e| failed("write", e))?;
    fs::rename(&fresh, &path).map_err(|e| failed("write", e))?;
    Ok(Incarnation(next))
}

/// What of the file system is the daemon's alone, as far as it is there: its control socket, the lock of that, the file of
/// [`incarnation`]; and the directories of these that have nothing else in them.
pub(crate) fn belongings(config: &DaemonConfig) -> BTreeSet<PathBuf> {
    let mut all = BTreeSet::from([config.ctl.clone(), lock_of(&config.ctl)]);
    if let Some(state) = &config.state {
        all.extend([state.join(FILE), state.join(FRESH)]);
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

/// That no other process runs with the same control socket, for as long as it is kept.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// # Errors
    ///
    /// Another process has it; or the directory cannot be written.
    pub(crate) fn take(socket: &Path) -> Result<Self, Refusal> {
        let path = lock_of(socket);
        let failed = |error: &io::Error| {
            refusal(
                format!("cannot take the lock {}: {error}", path.display()),
                "choose a control socket in a directory that may be written, as `ctl` of [daemon]",
            )
        };
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(|e| failed(&e))?;
        }
        let options = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            // As above: a link there may lead to a file that is not the daemon's.
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(&path);
        let mut file = options.map_err(|e| failed(&e))?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let owner = fs::read_to_string(&path).unwrap_or_default();
            return Err(refusal(
                format!(
                    "another evenkeel (process {}) runs with the control socket {}",
                    owner.trim(),
                    socket.display()
                ),
                "end it first, or give this one another `ctl` in [daemon]",
            ));
        }
        let told = file
            .set_len(0)
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        told.map_err(|e| failed(&e))?;
        Ok(Lock { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            ["run", "run/ctl.sock.lock", "state", "state/incarnation"]
        );
        fs::write(folder.join("run/other.sock"), "").expect("written");
        assert_eq!(
            names(&folder),
            ["run/ctl.sock.lock", "state", "state/incarnation"]
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
