//! `evenkeel replay`.

use std::fs::{self, Metadata};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;
use evenkeel_control::Problem;
use evenkeel_io_pcap::file::WriteError;
use evenkeel_io_pcap::replay::{
    BadChecksums, CaptureSource, Endpoint, Filter, MapVip, Node, Options, Output, Progress, ReplayError,
    Summary, WORKER_COUNT_MAX, replay_in,
};
use evenkeel_node::memory::LazyMemory;
use indicatif::{ProgressBar, ProgressStyle};

use crate::complaint::Complaint;
use crate::signals::Signals;
use crate::{Exit, config, counted};

/// Put a capture through the engine and say what happened.
///
/// Time comes from the packets, so a replay of hours takes seconds and gives the same result every time. Reads
/// pcap and pcapng, plain or gzip. Described in docs/replay.md.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  A capture of a server, played as if a balancer had stood in front of it:
    evenkeel replay -r server.pcap --config node.toml --map-vip -w out.pcapng
  A capture taken at a balancer, both legs; every connection listed, as JSON:
    evenkeel replay -r lb.pcapng.gz --config node.toml --conns --json
  From and to a pipe:
    tcpdump -w - tcp port 80 | evenkeel replay -r - --config node.toml --map-vip -w - | tshark -r -

Exit codes: 0 fine; 1 refused: arguments, config, not a capture, a file that cannot be read or written;
2 the capture is cut short or corrupt: what could be read was replayed; 130, 143 stopped by SIGINT, SIGTERM.")]
pub(crate) struct Args {
    /// Capture to read; - is standard input
    #[arg(short, long, value_name = "CAPTURE")]
    read: PathBuf,
    /// Config of the node; - is standard input
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Which node of the config's cluster it is, by name or number, whatever `this_node` says; it runs alone
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// Write every packet with its verdict to a pcapng file (.gz: compressed; - is standard output, and the
    /// summary goes to standard error)
    #[arg(short, long, value_name = "OUT")]
    write: Option<PathBuf>,
    /// The capture was not taken at a balancer: its busiest server endpoint (or this one, as
    /// 192.0.2.1:80/tcp) becomes a VIP, and its replies come from the config's real servers
    #[arg(long, value_name = "ENDPOINT", num_args = 0..=1, require_equals = true)]
    map_vip: Option<Option<Endpoint>>,
    /// What to do about wrong checksums: drop the packet, accept it as it is, fix it before the engine sees it.
    /// Default: drop; with --map-vip, those that transmit offload left unfinished are finished
    #[arg(long, value_enum, value_name = "WHAT")]
    bad_checksums: Option<BadChecksumsArg>,
    /// Workers, 1 to 64: results do not depend on it
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=i64::from(WORKER_COUNT_MAX)))]
    workers: u8,
    /// List every connection
    #[arg(long)]
    conns: bool,
    /// Print the summary as one JSON object
    #[arg(long)]
    json: bool,
    /// Seed of the engine's randomness
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Replay only packets that this BPF expression lets through (pcap-filter(7); needs a build with the feature
    /// libpcap)
    #[arg(long, value_name = "EXPR")]
    filter: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum BadChecksumsArg {
    Drop,
    Accept,
    Fix,
}

pub(crate) fn run(mut args: Args) -> Result<Exit, Complaint> {
    check_files(&args)?;
    let to_stdout = args.write.as_deref().is_some_and(is_stdout);
    if to_stdout {
        args.write = Some("-".into());
    }
    let mut config = config::load(&args.config, args.node.as_deref())?;
    config::warn(&config);
    config::warn_of_unresolved(&config);
    // A replay has one node: what others own is not its own.
    config.spec.peer_local_addrs.clear();
    let node = Node {
        steering: config.steering,
        sizes: config.sizes,
        local_port_min: config.local_port_min,
        spec: config.spec,
    };
    let map_vip = args.map_vip.map(|e| e.map_or(MapVip::Busiest, MapVip::Endpoint));
    let options = Options {
        map_vip,
        bad_checksums: match args.bad_checksums {
            Some(BadChecksumsArg::Drop) => BadChecksums::Drop,
            Some(BadChecksumsArg::Accept) => BadChecksums::Accept,
            Some(BadChecksumsArg::Fix) => BadChecksums::Fix,
            None if map_vip.is_some() => BadChecksums::FinishOffload,
            None => BadChecksums::Drop,
        },
        workers: args.workers,
        seed: args.seed,
        conns: args.conns,
        filter: args.filter.as_deref().map(filter).transpose()?,
        output: args.write.map(Output::Path),
    };
    let signals = Signals::listen()?;
    let stop = signals.clone();
    let mut source = CaptureSource::new(args.read).stop_when(move || stop.received().is_some());
    let mut bar = Bar::new(source.file_len());
    // Tables are as large as the config says; a capture fills little of them.
    let result = replay_in(&mut LazyMemory, &mut source, &node, options, &mut |progress| {
        bar.show(progress);
        signals.received().is_none()
    });
    bar.clear();
    let summary = result.map_err(complaint)?;
    let mut out: Box<dyn Write> = if to_stdout {
        Box::new(io::stderr())
    } else {
        Box::new(io::stdout())
    };
    show(&summary, args.json, &mut out).map_err(|error| Complaint::io("cannot write the summary", error))?;
    if let Some(cut) = &summary.capture.cut {
        let _ = writeln!(
            io::stderr(),
            "evenkeel: {}: {cut}",
            Problem::shown_name(&summary.capture.file)
        );
    }
    Ok(match signals.received() {
        Some(signal) if summary.capture.interrupted => Exit::Interrupted(signal),
        _ if summary.capture.cut.is_some() => Exit::CutShort,
        _ => Exit::Fine,
    })
}

/// Writes the summary piece by piece: with every connection in it, it may be long.
fn show(summary: &Summary, json: bool, out: &mut dyn Write) -> io::Result<()> {
    let mut out = BufWriter::new(out);
    if json {
        serde_json::to_writer_pretty(&mut out, summary).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        write!(out, "{summary}")?;
    }
    out.flush()
}

/// Standard input can be read once, and no input may be written over.
fn check_files(args: &Args) -> Result<(), Complaint> {
    if config::is_stdin(&args.read) && config::is_stdin(&args.config) {
        return Err(
            Complaint::new("capture and config cannot both come from standard input")
                .help("give one as a file"),
        );
    }
    let Some(out) = args.write.as_deref() else {
        return Ok(());
    };
    let out = if is_stdout(out) {
        metadata_of(io::stdout())
    } else {
        fs::metadata(out).ok()
    };
    for (input, what) in [(&args.read, "capture"), (&args.config, "config")] {
        let metadata = if config::is_stdin(input) {
            metadata_of(io::stdin())
        } else {
            fs::metadata(input).ok()
        };
        if let (Some(input_is), Some(out)) = (&metadata, &out)
            && input_is.is_file()
            && same_file(input_is, out)
        {
            return Err(
                Complaint::new(format!("-w would write over the {what} {}", input.display()))
                    .help("choose another name for the output"),
            );
        }
    }
    Ok(())
}

/// Whether the output goes where standard output goes, by whatever name: then nothing else may go there.
fn is_stdout(out: &Path) -> bool {
    let named = ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"];
    named.iter().any(|name| out == Path::new(name))
        || match (fs::metadata(out), metadata_of(io::stdout())) {
            // Devices take what comes from both.
            (Ok(a), Some(b)) => a.is_file() && same_file(&a, &b),
            _ => false,
        }
}

/// What an open stream leads to.
#[cfg(unix)]
fn metadata_of(stream: impl std::os::fd::AsFd) -> Option<Metadata> {
    let own = stream.as_fd().try_clone_to_owned().ok()?;
    fs::File::from(own).metadata().ok()
}

#[cfg(not(unix))]
fn metadata_of<T>(_: T) -> Option<Metadata> {
    None
}

/// Whether both are one file, by whatever links.
#[cfg(unix)]
fn same_file(a: &Metadata, b: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

#[cfg(not(unix))]
fn same_file(_: &Metadata, _: &Metadata) -> bool {
    false
}

#[cfg(feature = "libpcap")]
fn filter(expression: &str) -> Result<Filter, Complaint> {
    use evenkeel_io_pcap::file::LinkType;
    use evenkeel_io_pcap::live::BpfFilter;
    let filter = BpfFilter::compile(LinkType::ETHERNET, expression)
        .map_err(|e| Complaint::new(e.to_string()).help("see pcap-filter(7)"))?;
    Ok(Box::new(move |frame| filter.matches(frame)))
}

#[cfg(not(feature = "libpcap"))]
fn filter(_: &str) -> Result<Filter, Complaint> {
    Err(Complaint::new("--filter needs libpcap, and this evenkeel was built without it").help(
        "build it with `cargo build --release -p evenkeel-cli --features libpcap` (Debian: libpcap-dev), or filter \
         the capture before: tcpdump -r CAPTURE -w - EXPR | evenkeel replay -r - ..",
    ))
}

fn complaint(error: ReplayError) -> Complaint {
    match error {
        ReplayError::Write(WriteError::Write { target, source }) => {
            Complaint::io(format!("cannot write {target}"), source)
        }
        ReplayError::Write(WriteError::Create { path, source }) => {
            let folder = path.parent().filter(|f| !f.as_os_str().is_empty() && !f.exists());
            let message = format!("cannot create {}", path.display());
            match folder {
                Some(folder) => {
                    let folder = folder.display();
                    Complaint::new(format!("{message}: there is no directory {folder}"))
                        .help(format!("make it first: mkdir -p {folder}"))
                }
                None => Complaint::io(message, source),
            }
        }
        ReplayError::MapVip(error) => Complaint::new(error.to_string()).help(error.remedy()),
        ReplayError::Spool(error) => Complaint::new(error.to_string()).help("save it to a file first"),
        error => Complaint::new(error.to_string()),
    }
}

/// The progress bar: on a terminal only, and for captures that take a while.
struct Bar(Option<ProgressBar>);

/// Packets between two looks of the bar at its clock.
const BAR_EVERY: u64 = 4096;

impl Bar {
    fn new(len: Option<u64>) -> Self {
        if !io::stderr().is_terminal() {
            return Bar(None);
        }
        let bar = len.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
        let template = match len {
            Some(_) => "{msg} [{bar:40}] {bytes}/{total_bytes} {eta}",
            None => "{spinner} {msg} {bytes}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        Bar(Some(bar))
    }

    fn show(&mut self, progress: Progress) {
        let Some(bar) = &self.0 else { return };
        if progress.packets.is_multiple_of(BAR_EVERY) {
            // A compressed capture is longer than its file.
            if bar.length().is_some_and(|len| progress.bytes > len) {
                bar.set_length(progress.bytes);
            }
            bar.set_position(progress.bytes);
            bar.set_message(format!(
                "{} {}",
                if progress.scanning {
                    "scanning"
                } else {
                    "replaying"
                },
                counted(progress.packets, "packet")
            ));
        }
    }

    fn clear(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
