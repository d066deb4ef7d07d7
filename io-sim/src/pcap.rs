//! A capture of every port, in a file of its own that Wireshark opens.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use evenkeel_core::time::Instant;
use evenkeel_io_pcap::file::{CaptureWriter, OutPacket, PacketDirection};

use crate::ids::Place;
use crate::observe::{Direction, Tap};

/// Files at most.
pub const FILE_COUNT_MAX: usize = 256;

/// Writes the frames of each port to `FOLDER/NAME.pcapng`. The clock of the world is taken for the Unix epoch's.
#[derive(Debug)]
pub struct PcapTap {
    folder: PathBuf,
    names: BTreeMap<Place, String>,
    /// Names of addresses, for each file.
    addrs: Vec<(IpAddr, String)>,
    writers: BTreeMap<Place, CaptureWriter>,
    failed: Option<String>,
}

impl PcapTap {
    /// Of the ports in `names`, at most [`FILE_COUNT_MAX`] of them ([`crate::World::port_names`] has them all). The
    /// folder is there.
    pub fn new(folder: impl AsRef<Path>, names: impl IntoIterator<Item = (Place, String)>) -> Self {
        PcapTap {
            folder: folder.as_ref().to_owned(),
            names: names.into_iter().take(FILE_COUNT_MAX).collect(),
            addrs: Vec::new(),
            writers: BTreeMap::new(),
            failed: None,
        }
    }

    /// Whose each of these addresses is stands in each file, too.
    pub fn with_addresses(mut self, addrs: impl IntoIterator<Item = (IpAddr, String)>) -> Self {
        self.addrs = addrs.into_iter().collect();
        self
    }

    fn write(&mut self, now: Instant, at: Place, direction: Direction, data: &[u8]) -> Result<(), String> {
        let Some(name) = self.names.get(&at) else {
            return Ok(());
        };
        if !self.writers.contains_key(&at) {
            let path = self.folder.join(format!("{name}.pcapng"));
            let mut writer = CaptureWriter::create(path, &[name]).map_err(|e| e.to_string())?;
            let addrs = self.addrs.iter().map(|(addr, name)| (*addr, name.as_str()));
            writer.names(addrs).map_err(|e| e.to_string())?;
            self.writers.insert(at, writer);
        }
        let Some(writer) = self.writers.get_mut(&at) else {
            return Ok(());
        };
        let packet = OutPacket {
            time_ns: now.as_nanos(),
            interface: 0,
            data,
            orig_len: u32::try_from(data.len()).unwrap_or(u32::MAX),
            comment: None,
            direction: match direction {
                Direction::In => PacketDirection::Received,
                Direction::Out => PacketDirection::Sent,
            },
        };
        writer.write(&packet).map_err(|e| e.to_string())
    }
}

impl Tap for PcapTap {
    fn frame(&mut self, now: Instant, at: Place, direction: Direction, data: &[u8]) {
        if self.failed.is_none()
            && let Err(e) = self.write(now, at, direction, data)
        {
            self.failed = Some(e);
        }
    }

    fn finish(&mut self) -> Result<(), String> {
        for (_, writer) in std::mem::take(&mut self.writers) {
            if let Err(e) = writer.finish() {
                self.failed.get_or_insert(e.to_string());
            }
        }
        self.failed.take().map_or(Ok(()), Err)
    }
}
