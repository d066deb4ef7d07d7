//! A daemon is put together here, in an order in which nothing is half started: first all that may be refused, then
//! threads, and then it says that it is ready.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{Builder, JoinHandle};

use evenkeel_control::{Config, Driver, Idle};
use evenkeel_core::cluster::{Control, Incarnation, NodeId, PeerId};
use evenkeel_core::port::WorkerId;
use evenkeel_core::sync::codec::BULK_FRAME_LEN_MAX;
use evenkeel_core::sync::seal::Sealing;
use evenkeel_core::sync::{ClusterSizes, ClusterWorkerConfig};
use evenkeel_core::worker::{BucketMap, Command, HoldConfig, Worker, WorkerConfig};
use tokio::sync::mpsc;
use tracing::{error, info, warn};

use crate::control::{ControlSide, Ended, Parts, Signals};
use crate::health::{CheckSpec, Checks};
use crate::identity::{Lock, belongings, incarnation};
use crate::io::DriverLook;
use crate::io::station::Station;
use crate::lane::{ControlBell, Lane};
use crate::memory::{MappedMemory, Pages};
use crate::ports::{Ports, Watch};
use crate::reload::{Fresh, Read, ReadAll, Reader, Reload};
use crate::start::Start;
use crate::system::Manager;
use crate::telling::Names;
use crate::{Refusal, admin, clock, kernel, refusal, system, transport, worker};

/// What checks have found out and waits.
const HEALTH_EVENT_COUNT: usize = 256;

/// Runs a node until it is asked to end. SIGHUP makes it `reload` its config.
///
/// # Errors
///
/// Why it cannot start; nothing has begun then.
pub fn run(config: Config, reload: Reload) -> Result<Ended, Refusal> {
    begin(config, reload).map_err(Refusal::for_want_of_files)
}

fn begin(config: Config, reload: Reload) -> Result<Ended, Refusal> {
    system::have_files(&config)?;
    system::check_cores(&config.io.cores)?;
    kernel::check_addresses(&config)?;
    let start = Start::watch().map_err(|e| limits("cannot watch the start", &e))?;
    let _lock = Lock::take(&config.daemon.ctl)?;
    let state = config.daemon.state.as_deref();
    let _state_lock = state.map(Lock::take_state).transpose()?;
    let life = incarnation(state)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| limits("cannot start the runtime", &e))?;
    runtime.block_on(assemble(config, reload, life, start))
}

fn limits(what: &str, error: &std::io::Error) -> Refusal {
    refusal(
        format!("{what}: {error}"),
        "see the limits of this process (ulimit -a) and of its cgroup",
    )
}

async fn assemble(config: Config, reload: Reload, life: Incarnation, start: Start) -> Result<Ended, Refusal> {
    let secrets = crate::secrets::of(&config)?;
    let sealing = crate::secrets::sealing(secrets.clone())?;
    if config.cluster.is_some() && sealing.is_none() {
        warn!(
            "insecure: frames between nodes go in clear, and whoever can send to this node's sync address is believed"
        );
    }
    let signals = Signals::listen().map_err(|e| limits("cannot listen to signals", &e))?;
    let bell = Arc::new(ControlBell::default());
    let lanes: Vec<Arc<Lane>> = (0..config.workers)
        .map(|_| Lane::new(Arc::clone(&bell), BULK_FRAME_LEN_MAX).map(Arc::new))
        .collect::<Result<_, _>>()
        .map_err(|e| limits("cannot make an eventfd", &e))?;
    let net = match &config.cluster {
        Some(cluster) => {
            let own = cluster.node(cluster.config.id).map(|n| n.sync);
            let peers: Vec<(NodeId, SocketAddr)> = cluster
                .nodes
                .iter()
                .filter(|n| n.id != cluster.config.id)
                .map(|n| (n.id, n.sync))
                .collect();
            let me = transport::Member {
                cluster: cluster.config.cluster,
                node: cluster.config.id,
            };
            own.map(|own| transport::open(me, own, &peers)).transpose()?
        }
        None => None,
    };
    let counters = net.as_ref().map(|(_, voice)| Arc::clone(&voice.counters));
    let looked_in = start.make_file(config.daemon.ctl.clone(), || admin::bind(&config.daemon))?;
    let me = config.cluster.as_ref().map(|c| PeerId {
        node: c.config.id,
        incarnation: life,
    });
    let seed = seed()?;
    let buckets = BucketMap::dealt(config.workers.into());
    let workers = (0..config.workers).map(|id| {
        start.doing(format!("the tables of worker {} of {}", id + 1, config.workers));
        make_worker(&config, me, &buckets, seed, id, sealing.clone())
    });
    let workers = workers.collect::<Result<Vec<_>, _>>()?;
    let (events, health) = mpsc::channel(HEALTH_EVENT_COUNT);
    let checks = Checks::spawn(seed, CheckSpec::of(&config), events).map_err(|e| {
        refusal(
            e.to_string(),
            "start with CAP_NET_RAW, or check by another `type` in [service.health]",
        )
    })?;
    let mut threads = spawn(&config, workers, &lanes, &start)?;
    if config.daemon.user.is_some()
        && let Err(why) = (reload.probe)()
    {
        warn!("without root the config cannot be read again, and SIGHUP will change nothing: {why}");
    }
    if config.daemon.user.is_some()
        && let Err(Refusal { message, help }) = crate::secrets::of(&config)
    {
        warn!(
            "without root the secrets cannot be read again, and SIGHUP will change nothing: {message}; {help}"
        );
    }
    // Only now, as the time for which it listens before it serves runs from here.
    let control = match make_control(&config, life, seed, sealing) {
        Ok(control) => control,
        Err(refusal) => {
            threads.end(&lanes);
            return Err(refusal);
        }
    };
    let (asks, asked) = mpsc::channel(admin::ASK_COUNT);
    let driver = threads.driver.take();
    let ports = Arc::new(Ports::of(&config));
    let watch = Watch::start(&config, Arc::clone(&ports), driver.clone(), Arc::clone(&bell));
    let watch = match watch {
        Ok(watch) => watch,
        Err(error) => {
            drop(driver);
            threads.end(&lanes);
            return Err(limits("cannot start the thread that looks at links", &error));
        }
    };
    let admin = match looked_in.serve(&config, lanes.clone(), asks, counters, driver) {
        Ok(admin) => admin,
        Err(error) => {
            drop(watch);
            threads.end(&lanes);
            return Err(limits("cannot start the thread of the control socket", &error));
        }
    };
    // Signals are the control side's from here on.
    drop(start);
    info!(
        node = config.cluster.as_ref().map(|c| c.name.as_str()),
        incarnation = life.0,
        workers = config.workers,
        services = config.spec.services.len(),
        "running"
    );
    let mut side = ControlSide::new(Parts {
        control,
        lanes: lanes.clone(),
        buckets,
        net,
        bell,
        drain_limit: config.daemon.drain_limit,
        names: Names::new(config.cluster.as_ref()),
        secrets,
        manager: Manager::new(),
        reader: Reader::new(held_against_the_machine(reload.read)),
        seed,
        checks,
        health,
        config,
        asks: asked,
        ports,
        driver_words: threads.words.take(),
    });
    let ended = side.run(signals).await;
    drop(admin);
    drop(watch);
    threads.end(&lanes);
    info!(?ended, "ended");
    Ok(ended)
}

/// A config that is read again may have new addresses, and the kernel too: refused as at the start. Its secrets are read with it.
fn held_against_the_machine(mut read: Read) -> ReadAll {
    Box::new(move || {
        let config = read()?;
        let refused = |Refusal { message, help }| format!("{message}; {help}");
        kernel::check_addresses(&config).map_err(refused)?;
        let secrets = crate::secrets::of(&config).map_err(refused)?;
        Ok(Fresh { config, secrets })
    })
}

/// `None`: the node is in no cluster.
fn make_control(
    config: &Config,
    life: Incarnation,
    seed: u64,
    sealing: Option<Sealing>,
) -> Result<Option<Control>, Refusal> {
    let Some(cluster) = &config.cluster else {
        return Ok(None);
    };
    let members = cluster.config.clone();
    let made = Control::new(members, life, config.workers, seed, clock::now(), sealing);
    made.map(Some).map_err(|errors| {
        let all: Vec<_> = errors.iter().map(ToString::to_string).collect();
        refusal(all.join("; "), "correct [cluster]; `evenkeel check` says where")
    })
}

/// What all randomness of this life comes from.
fn seed() -> Result<u64, Refusal> {
    let mut bytes = [0; 8];
    let got = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    got.map_err(|e| limits("the system gives no random numbers", &e.into()))?;
    Ok(u64::from_ne_bytes(bytes))
}

pub(crate) fn make_worker(
    config: &Config,
    me: Option<PeerId>,
    buckets: &BucketMap,
    seed: u64,
    id: u8,
    sealing: Option<Sealing>,
) -> Result<Worker, Refusal> {
    let mut memory = MappedMemory::reserve(config.sizes, Pages::Huge)
        .map_err(|e| refusal(e.to_string(), "lower `conns_v4` and `conns_v6` of [table]"))?;
    let cluster = config.cluster.as_ref().zip(me);
    let worker_config = WorkerConfig {
        id: WorkerId(id),
        buckets: buckets.clone(),
        steering: Arc::clone(&config.steering),
        sizes: config.sizes,
        local_port_min: config.local_port_min,
        seed,
        hold: Some(HoldConfig::default()),
        cluster: cluster.map(|(c, id)| ClusterWorkerConfig {
            id,
            cluster: c.config.cluster,
            sizes: ClusterSizes::default(),
            sealing,
        }),
    };
    let mut worker = Worker::new(worker_config, &mut memory).map_err(|_| {
        refusal(
            "there is no memory for the tables",
            "lower `conns_v4` and `conns_v6` of [table]",
        )
    })?;
    worker
        .handle_command(clock::now(), Command::SetSnapshot(Arc::clone(&config.snapshot)))
        .map_err(|e| refusal(e.to_string(), "this is a fault of evenkeel: please report it"))?;
    Ok(worker)
}

/// The threads of all workers, and what is to be ended after them.
struct Threads {
    handles: Vec<JoinHandle<()>>,
    /// For the threads that look at it, which end before them.
    driver: Option<Arc<dyn DriverLook>>,
    /// Puts into the log what the driver says.
    words: Option<Box<dyn FnMut()>>,
    after: Option<Box<dyn FnOnce()>>,
}

impl Threads {
    /// Ends them.
    fn end(self, lanes: &[Arc<Lane>]) {
        stop(lanes);
        for handle in self.handles {
            if handle.join().is_err() {
                error!("a worker ended by a fault of its own");
            }
        }
        // What ends now is to be held by nobody.
        drop(self.driver);
        if let Some(after) = self.after {
            after();
        }
    }
}

fn stop(lanes: &[Arc<Lane>]) {
    for lane in lanes {
        lane.stop.store(true, Ordering::Relaxed);
        lane.worker_bell.ring();
    }
}

/// Opens the interfaces and starts the threads of all workers.
fn spawn(
    config: &Config,
    workers: Vec<Worker>,
    lanes: &[Arc<Lane>],
    start: &Start,
) -> Result<Threads, Refusal> {
    let devices = config.spec.ports.iter().zip(&config.io.devices);
    let devices = devices.map(|(port, device)| {
        device.name.clone().ok_or_else(|| {
            refusal(
                format!("port {} has no device", port.name),
                format!(
                    "name its interface: device = \"eth0\" with the [[port]] {}",
                    port.name
                ),
            )
        })
    });
    let devices = devices.collect::<Result<Vec<_>, Refusal>>()?;
    match config.io.driver {
        Driver::Pcap => spawn_pcap(config, &devices, workers, lanes, start),
        Driver::Dpdk => {
            start.doing(format!("DPDK, with {} MiB of memory", config.io.dpdk.memory_mib));
            spawn_dpdk(config, &devices, workers, lanes)
        }
    }
}

#[cfg(feature = "libpcap")]
fn spawn_pcap(
    config: &Config,
    devices: &[String],
    workers: Vec<Worker>,
    lanes: &[Arc<Lane>],
    start: &Start,
) -> Result<Threads, Refusal> {
    let wires = crate::io::pcap::open(config, devices, lanes, start)?;
    let handles = start_threads(config, workers, wires, lanes)?;
    Ok(Threads {
        handles,
        driver: None,
        words: None,
        after: None,
    })
}

#[cfg(not(feature = "libpcap"))]
fn spawn_pcap(
    _: &Config,
    _: &[String],
    _: Vec<Worker>,
    _: &[Arc<Lane>],
    _: &Start,
) -> Result<Threads, Refusal> {
    Err(refusal(
        "this evenkeel was built without libpcap",
        "build it with `cargo build --release -p evenkeel-cli --features libpcap` (Debian: libpcap-dev)",
    ))
}

#[cfg(feature = "dpdk")]
fn spawn_dpdk(
    config: &Config,
    devices: &[String],
    workers: Vec<Worker>,
    lanes: &[Arc<Lane>],
) -> Result<Threads, Refusal> {
    let (wires, running) = crate::io::dpdk::open(config, devices, lanes)?;
    let handles = start_threads(config, workers, wires, lanes)?;
    let driver = running.look();
    let words = running.words();
    let after = Box::new(move || running.end());
    Ok(Threads {
        handles,
        driver: Some(driver),
        words: Some(words),
        after: Some(after),
    })
}

#[cfg(not(feature = "dpdk"))]
fn spawn_dpdk(_: &Config, _: &[String], _: Vec<Worker>, _: &[Arc<Lane>]) -> Result<Threads, Refusal> {
    Err(refusal(
        "this evenkeel was built without DPDK",
        "build it with `cargo build --release -p evenkeel-cli --features dpdk` (Debian: libdpdk-dev), or take \
         `driver = \"pcap\"` in [io]",
    ))
}

#[cfg_attr(
    not(any(feature = "libpcap", feature = "dpdk")),
    allow(dead_code, reason = "there is no driver to start")
)]
fn start_threads<D: crate::io::station::Driver + Send + 'static>(
    config: &Config,
    workers: Vec<Worker>,
    drivers: Vec<D>,
    lanes: &[Arc<Lane>],
) -> Result<Vec<JoinHandle<()>>, Refusal> {
    // All that needs more is had by now.
    if let Some(user) = &config.daemon.user {
        system::become_user(user, belongings(&config.daemon))?;
    }
    let macs: Vec<[u8; 6]> = config.spec.ports.iter().map(|port| port.mac.0).collect();
    let wires = drivers
        .into_iter()
        .map(|driver| Station::new(driver, macs.clone()));
    let may_sleep = config.io.idle == Idle::Sleep;
    let mut threads = Vec::with_capacity(workers.len());
    for (n, ((worker, wires), lane)) in workers.into_iter().zip(wires).zip(lanes).enumerate() {
        let cpu = config.io.cores.get(n).copied();
        let own = Arc::clone(lane);
        let thread = Builder::new().name(format!("worker-{n}")).spawn(move || {
            if let Some(cpu) = cpu {
                system::pin(n, cpu);
            }
            worker::run(worker, wires, &own, may_sleep);
        });
        match thread {
            Ok(thread) => threads.push(thread),
            Err(e) => {
                // Those that run already end by themselves.
                stop(lanes);
                return Err(limits("cannot start a thread", &e));
            }
        }
    }
    Ok(threads)
}
