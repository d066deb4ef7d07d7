//! Which life of a node this is: every start has a larger incarnation than the one before.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use evenkeel_core::cluster::Incarnation;
use rustix::fs::{FlockOperation, flock};

use crate::{Refusal, clock, refusal};

/// The file in the state directory that has the last incarnation.
const FILE: &str = "incarnation";

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
    let fresh = state.join(format!("{FILE}.new"));
    let written = File::create(&fresh).and_then(|mut file| {
        writeln!(file, "{next}")?;
        file.sync_all()
    });
    written.map_err(|e| failed("write", e))?;
    fs::rename(&fresh, &path).map_err(|e| failed("write", e))?;
    Ok(Incarnation(next))
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
        let mut path = socket.as_os_str().to_owned();
        path.push(".lock");
        let path = PathBuf::from(path);
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
