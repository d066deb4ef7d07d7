//! The secrets of a cluster: files that all its nodes have, and nobody else.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use evenkeel_control::{Config, Trust};
use evenkeel_core::sync::seal::{SALT_LEN, SECRET_LEN, Salt, Sealing, Secret, Secrets};
use evenkeel_seal::Ring;
use rustix::fs::OFlags;

use crate::{Refusal, refusal};

/// Longest file that is read.
const LEN_MAX: u64 = 4096;
/// Whoever else may read it is no friend, perhaps.
const OTHERS: u32 = 0o077;

/// Those that a config names; `None`: nodes do not seal what they say.
///
/// # Errors
///
/// A file that cannot be read, that others can read, or that has something else in it.
pub(crate) fn of(config: &Config) -> Result<Option<Secrets>, Refusal> {
    match config.cluster.as_ref().map(|c| &c.trust) {
        Some(Trust::Secrets(files)) => read_all(files).map(Some),
        Some(Trust::Insecure) | None => Ok(None),
    }
}

/// How this life seals: with a salt that no other one has.
pub(crate) fn sealing(secrets: Option<Secrets>) -> Result<Option<Sealing>, Refusal> {
    let Some(secrets) = secrets else { return Ok(None) };
    let mut salt: Salt = [0; SALT_LEN];
    random(&mut salt)?;
    Ok(Some(Sealing {
        crypto: Arc::new(Ring::detect()),
        secrets,
        salt,
    }))
}

fn random(bytes: &mut [u8]) -> Result<(), Refusal> {
    let got = rustix::rand::getrandom(&mut *bytes, rustix::rand::GetRandomFlags::empty());
    match got {
        Ok(n) if n == bytes.len() => Ok(()),
        _ => Err(refusal(
            "the system gives no random numbers",
            "see to its kernel: getrandom(2) must work",
        )),
    }
}

fn read_all(files: &[PathBuf]) -> Result<Secrets, Refusal> {
    let read: Vec<(u8, Secret)> = files.iter().map(|f| read(f)).collect::<Result<_, _>>()?;
    let names = || {
        let names: Vec<String> = files.iter().map(|f| f.display().to_string()).collect();
        names.join(" and ")
    };
    Secrets::new(read).map_err(|e| {
        refusal(
            format!("{}: {e}", names()),
            "make the new one with a number that the old one does not have: `evenkeel secret new FILE --id N`",
        )
    })
}

fn read(path: &Path) -> Result<(u8, Secret), Refusal> {
    let shown = path.display();
    let failed = |e: io::Error| {
        let help =
            "make it with `evenkeel secret new`, copy it to every node, and let the daemon's user read it";
        refusal(format!("cannot read {shown}: {e}"), help)
    };
    // Not waiting: a pipe there would do that until somebody writes to it.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let file = file.map_err(failed)?;
    let about = file.metadata().map_err(failed)?;
    if !about.is_file() {
        return Err(refusal(
            format!("{shown} is no regular file"),
            "name the file that `evenkeel secret new` made",
        ));
    }
    if about.mode() & OTHERS != 0 {
        return Err(refusal(
            format!(
                "{shown} can be read or written by others (mode {:o})",
                about.mode() & 0o777
            ),
            format!("chmod 600 {shown}; and if others have had the time to read it, make another one"),
        ));
    }
    let mut text = Vec::new();
    file.take(LEN_MAX + 1).read_to_end(&mut text).map_err(failed)?;
    parse(&text).map_err(|(line, why)| {
        let at = if line == 0 { String::new() } else { format!(":{line}") };
        let help = "a line of a number from 1 to 255 and 64 hexadecimal digits, as `evenkeel secret new` writes it, and comments behind `#`";
        refusal(format!("{shown}{at}: {why}"), help)
    })
}

/// `Err`: the line, from 1 (0: the whole file), and what is wrong. The secret itself is never shown.
fn parse(text: &[u8]) -> Result<(u8, Secret), (usize, String)> {
    if text.len() as u64 > LEN_MAX {
        return Err((0, format!("it has more than {LEN_MAX} bytes")));
    }
    let text = std::str::from_utf8(text).map_err(|_| (0, "it is no text".to_owned()))?;
    let mut found = None;
    for (n, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if found.is_some() {
            return Err((n, "a second secret: each has a file of its own".to_owned()));
        }
        let mut words = line.split_ascii_whitespace();
        let (Some(id), Some(digits), None) = (words.next(), words.next(), words.next()) else {
            return Err((n, "it has not two words".to_owned()));
        };
        let id: u8 = id.parse().ok().filter(|id| *id > 0).ok_or_else(|| {
            let shown: String = id.chars().take(8).collect();
            (n, format!("the number is \"{}\"", shown.escape_default()))
        })?;
        let secret = secret(digits).ok_or_else(|| {
            let count = digits.chars().count();
            (
                n,
                format!("{count} characters that are not 64 hexadecimal digits"),
            )
        })?;
        found = Some((id, secret));
    }
    found.ok_or_else(|| (0, "there is no secret in it".to_owned()))
}

fn secret(digits: &str) -> Option<Secret> {
    let bytes = digits.as_bytes();
    if bytes.len() != 2 * SECRET_LEN {
        return None;
    }
    let mut secret = [0; SECRET_LEN];
    for (to, pair) in secret.iter_mut().zip(bytes.chunks(2)) {
        let digit = |b: &u8| (*b as char).to_digit(16);
        let both = pair.first().and_then(digit).zip(pair.get(1).and_then(digit));
        *to = both.map(|(high, low)| (high << 4 | low) as u8)?;
    }
    Some(Secret(secret))
}

/// Makes a new secret in a file that is not there yet, for its owner alone. Returns its number: `id`, or a drawn one, which hardly is that of
/// the secret before it.
///
/// # Errors
///
/// The file is there already, or cannot be written.
pub fn make(path: &Path, id: Option<u8>) -> Result<u8, Refusal> {
    let mut bytes = [0; SECRET_LEN + 1];
    random(&mut bytes)?;
    let drawn = bytes[SECRET_LEN] % 255 + 1;
    let id = id.unwrap_or(drawn);
    let digits: String = bytes[..SECRET_LEN].iter().map(|b| format!("{b:02x}")).collect();
    let text = format!(
        "# A secret of Evenkeel's nodes: the same file on each of them, for the daemon alone. Number, secret.\n{id} {digits}\n"
    );
    let shown = path.display();
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    let mut file: File = made.map_err(|e| {
        let help = if e.kind() == io::ErrorKind::AlreadyExists {
            "it is not replaced: write the new one beside it, so that nodes can accept both for a while"
        } else {
            "name a file in a folder that is there and that you may write to"
        };
        refusal(format!("cannot make {shown}: {e}"), help)
    })?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    written.map_err(|e| {
        // Half of one is none.
        let _ = fs::remove_file(path);
        refusal(
            format!("cannot write {shown}: {e}"),
            "see to the room on its disk",
        )
    })?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("evenkeel-secrets-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir(&path).expect("room");
            Folder(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn what_is_made_is_read_and_kept_from_others() {
        let folder = Folder::new("made");
        let files = [folder.0.join("old"), folder.0.join("new")];
        assert_eq!(make(&files[0], Some(7)), Ok(7));
        let drawn = make(&files[1], None).expect("it is not there");
        let mode = fs::metadata(&files[0]).expect("it is there").mode();
        assert_eq!(mode & 0o777, 0o600);
        let text = fs::read_to_string(&files[1]).expect("text");
        assert_ne!(
            text.lines().last(),
            fs::read_to_string(&files[0]).expect("text").lines().last()
        );
        let again = make(&files[0], Some(7)).expect_err("it is there");
        assert!(again.help.contains("not replaced"), "{again:?}");
        if drawn != 7 {
            let both = read_all(&files).expect("two numbers");
            assert_eq!(both.ids().collect::<Vec<_>>(), [7, drawn]);
        }
        let same = read_all(&[files[0].clone(), files[0].clone()]).expect_err("one number");
        assert!(same.message.contains("the number 7"), "{same:?}");
        fs::set_permissions(&files[0], fs::Permissions::from_mode(0o640)).expect("its owner's");
        let open = read(&files[0]).expect_err("the group reads it");
        assert!(
            open.message.contains("640") && open.help.contains("chmod 600"),
            "{open:?}"
        );
    }

    #[test]
    fn what_is_no_secret_is_refused_with_its_line_and_never_shown() {
        let digits = "0123456789abcdefABCDEF".repeat(3)[..64].to_owned();
        let good = format!("# of the test\n\n 255 {digits} \n");
        assert_eq!(parse(good.as_bytes()).map(|(id, _)| id), Ok(255));
        let bad = |text: &str| parse(text.as_bytes()).expect_err(text);
        let said = [
            bad(""),
            bad("# nothing\n"),
            bad(&format!("0 {digits}\n")),
            bad(&format!("\n256 {digits}\n")),
            bad(&format!("\u{1b}[2J {digits}\n")),
            bad(&format!("1 {}\n", &digits[1..])),
            bad(&format!("1 {}g\n", &digits[1..])),
            bad(&format!("1 {digits} more\n")),
            bad(&digits),
            bad(&format!("1 {digits}\n2 {digits}\n")),
            bad(&format!("1 {digits}\n{}", "#".repeat(5_000))),
        ];
        let page: Vec<String> = said.iter().map(|(line, why)| format!("{line}: {why}")).collect();
        assert!(
            page.iter()
                .all(|line| !line.contains("abcdef") && !line.contains('\u{1b}')),
            "{page:?}"
        );
        assert_eq!(
            page,
            [
                "0: there is no secret in it",
                "0: there is no secret in it",
                "1: the number is \"0\"",
                "2: the number is \"256\"",
                "1: the number is \"\\u{1b}[2J\"",
                "1: 63 characters that are not 64 hexadecimal digits",
                "1: 64 characters that are not 64 hexadecimal digits",
                "1: it has not two words",
                "1: it has not two words",
                "2: a second secret: each has a file of its own",
                "0: it has more than 4096 bytes",
            ]
        );
        assert_eq!(parse(b"1 \xff").expect_err("no text").0, 0);
    }

    #[test]
    fn what_is_no_file_is_refused() {
        let folder = Folder::new("none");
        for path in [folder.0.clone(), folder.0.join("none"), "/dev/null".into()] {
            let refused = read(&path).expect_err("it is none");
            assert!(
                refused.message.contains(&path.display().to_string()),
                "{refused:?}"
            );
        }
        assert!(make(&folder.0.join("no/such"), None).is_err());
    }
}
