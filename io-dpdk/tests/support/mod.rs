//! Capture files for the tests, written and read without any code of the project or of libpcap, and the
//! helper binary's runs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, process};

/// A packet: nanoseconds since the epoch, and its bytes.
pub(crate) type Packet = (u64, Vec<u8>);

/// The form of a capture file to write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Format {
    pub(crate) big_endian: bool,
    pub(crate) nanoseconds: bool,
}

/// Little-endian with microseconds, as tcpdump writes here.
pub(crate) const USUAL: Format = Format {
    big_endian: false,
    nanoseconds: false,
};

/// A pcap file of Ethernet frames.
pub(crate) fn pcap_bytes(format: Format, packets: &[Packet]) -> Vec<u8> {
    let u32_bytes = |n: u32| {
        if format.big_endian {
            n.to_be_bytes()
        } else {
            n.to_le_bytes()
        }
    };
    let mut file = Vec::new();
    let magic = if format.nanoseconds {
        0xa1b2_3c4d
    } else {
        0xa1b2_c3d4
    };
    // Version 2.4: two 16-bit numbers, in the order of the file.
    let version = if format.big_endian {
        0x0002_0004
    } else {
        0x0004_0002
    };
    for word in [magic, version, 0, 0, 262_144, 1] {
        file.extend(u32_bytes(word));
    }
    let unit_ns = if format.nanoseconds { 1 } else { 1000 };
    for (time, bytes) in packets {
        let len = u32::try_from(bytes.len()).expect("a packet is short");
        let seconds = u32::try_from(time / 1_000_000_000).expect("before 2106");
        let rest = u32::try_from(time % 1_000_000_000 / unit_ns).expect("less than a second");
        for word in [seconds, rest, len, len] {
            file.extend(u32_bytes(word));
        }
        file.extend(bytes);
    }
    file
}

/// The packets of a pcap file of any form; panics on anything else, or if it is cut.
pub(crate) fn read_pcap(path: &Path) -> Vec<Packet> {
    let file = fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let word = |at: usize, big: bool| {
        let bytes: [u8; 4] = file[at..at + 4].try_into().expect("four bytes");
        if big {
            u32::from_be_bytes(bytes)
        } else {
            u32::from_le_bytes(bytes)
        }
    };
    let big = file[0] == 0xa1;
    let unit_ns = match word(0, big) {
        0xa1b2_c3d4 => 1000,
        0xa1b2_3c4d => 1,
        magic => panic!("{} is no pcap file: magic {magic:#x}", path.display()),
    };
    assert_eq!(word(20, big), 1, "link type of {}", path.display());
    let mut at = 24;
    let mut packets = Vec::new();
    while at < file.len() {
        let len = word(at + 8, big) as usize;
        let time = u64::from(word(at, big)) * 1_000_000_000 + u64::from(word(at + 4, big)) * unit_ns;
        packets.push((time, file[at + 16..at + 16 + len].to_vec()));
        at += 16 + len;
    }
    packets
}

/// Asserts that frames are the same; names the first difference, not megabytes.
pub(crate) fn assert_frames(got: &[Packet], want: &[impl AsRef<[u8]>], case: &str) {
    for (n, ((_, got), want)) in got.iter().zip(want).enumerate() {
        let want = want.as_ref();
        if got != want {
            let at = got.iter().zip(want).position(|(a, b)| a != b);
            panic!(
                "{case}: frame {n} differs at {at:?}, {} bytes for {}",
                got.len(),
                want.len()
            );
        }
    }
    assert_eq!(got.len(), want.len(), "{case}: number of frames");
}

/// A folder of the calling test's own, emptied.
pub(crate) fn folder(test: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{test}-{}", process::id()));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("the target folder is writable");
    folder
}

/// What a run of the helper said.
pub(crate) struct Outcome {
    pub(crate) success: bool,
    pub(crate) stderr: String,
    values: BTreeMap<String, String>,
}

impl Outcome {
    pub(crate) fn text(&self, key: &str) -> &str {
        let said = self.values.get(key);
        said.unwrap_or_else(|| {
            panic!(
                "the helper did not say {key}; it said {:?}\n{}",
                self.values, self.stderr
            )
        })
    }

    pub(crate) fn number(&self, key: &str) -> u64 {
        self.text(key)
            .parse()
            .unwrap_or_else(|_| panic!("{key} is no number: {}", self.text(key)))
    }

    pub(crate) fn said(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    /// The case ran, every buffer came home, and DPDK ended.
    pub(crate) fn clean(&self) -> &Self {
        assert!(self.success, "the helper failed:\n{}", self.stderr);
        if self.said("free_before") {
            assert!(self.number("free_before") > 0, "an empty pool proves nothing");
            assert_eq!(
                self.number("free_before"),
                self.number("free_after"),
                "buffers leaked"
            );
        }
        assert_eq!(self.text("shut_down"), "true");
        self
    }
}

/// The program that runs a case.
pub(crate) fn helper() -> &'static str {
    env!("CARGO_BIN_EXE_evenkeel-dpdk-pcap")
}

/// Runs the helper in a process of its own.
pub(crate) fn run<S: AsRef<str>>(mode: &str, args: &[S]) -> Outcome {
    outcome_of(
        Command::new(helper())
            .arg(mode)
            .args(args.iter().map(AsRef::as_ref)),
    )
}

/// Runs a command that ends in the helper.
pub(crate) fn outcome_of(command: &mut Command) -> Outcome {
    let output = command.output().expect("the helper starts");
    let stdout = String::from_utf8(output.stdout).expect("the helper prints UTF-8");
    let values = stdout
        .lines()
        .filter_map(|line| line.strip_prefix("= ")?.split_once(' '))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    Outcome {
        success: output.status.success(),
        stderr,
        values,
    }
}
