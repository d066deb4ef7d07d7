//! The thread of one worker: a loop around `step`, with the lane to the control side.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use evenkeel_core::port::{Frame, Port};
use evenkeel_core::step::{StepBuffers, step};
use evenkeel_core::sync::SyncCommand;
use evenkeel_core::time::Instant;
use evenkeel_core::worker::{Command, Worker};
use tracing::warn;

use crate::clock;
use crate::lane::{IoCounts, Lane, Seen};

/// Commands, messages, frames of the control side that are taken in one turn, each, at most.
const TURN_COUNT_MAX: usize = 64;
/// Sync frames that are asked for in one turn, at most.
const SYNC_FRAME_COUNT_MAX: usize = 32;
/// Turns without work before a worker that may sleep does so.
const IDLE_TURN_COUNT: u32 = 64;
/// A worker that does not sleep says what became of its interfaces after so many turns.
const NEWS_TURN_COUNT: u64 = 1024;
/// Longest sleep: a beat is due then.
const SLEEP_MAX: Duration = Duration::from_millis(10);

/// What a worker's packet I/O can do beside [`Port`].
pub(crate) trait Wires: Port {
    /// What the worker's thread holds while it runs.
    type Guard;
    /// The calling thread is the worker's.
    fn enter(&self) -> Self::Guard;
    /// Sleeps until a frame, or the worker's bell, or the end of `at_most`. May return earlier.
    fn sleep(&mut self, at_most: Duration, lane: &Lane);
    /// Logs what became of its interfaces since it was asked last. Called before each sleep, and once in a while without.
    fn say_news(&mut self) {}
    /// The station has these addresses on every link, beside those of its interfaces.
    fn set_extra_macs(&mut self, macs: &[[u8; 6]]);
    /// What it counted since it was opened.
    fn counts(&mut self) -> IoCounts {
        IoCounts::default()
    }
}

/// Says that the thread has ended, whyever.
struct Ends<'a>(&'a Lane);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::Release);
        self.0.control_bell.ring();
    }
}

/// Runs a worker until its lane says stop.
pub(crate) fn run<W: Wires>(mut worker: Worker, mut wires: W, lane: &Arc<Lane>, may_sleep: bool) {
    let _ends = Ends(lane);
    let _guard = wires.enter();
    let mut buffers: StepBuffers<W::Frame> = StepBuffers::default();
    let mut idle = 0u32;
    while !lane.stop.load(Ordering::Relaxed) {
        let now = clock::now();
        // One who polls, or is never idle, has news too.
        if lane.beat.fetch_add(1, Ordering::Relaxed) % NEWS_TURN_COUNT == NEWS_TURN_COUNT - 1 {
            wires.say_news();
        }
        let told = hear(&mut worker, &mut wires, lane, now);
        // The table's idea of time follows even while nothing is due.
        worker.handle_timeout(now);
        let stepped = step(&mut worker, &mut wires, now, &mut buffers);
        let said = speak(&mut worker, lane, now);
        if told || said || !stepped.is_idle() {
            idle = 0;
            continue;
        }
        idle = idle.saturating_add(1);
        if !may_sleep || idle < IDLE_TURN_COUNT {
            std::hint::spin_loop();
            continue;
        }
        let due = worker.poll_timeout().map_or(u64::MAX, Instant::as_nanos);
        let left = Duration::from_nanos(due.saturating_sub(clock::now().as_nanos()));
        if left.is_zero() {
            continue;
        }
        lane.worker_bell.lie_down();
        if !lane.has_work() {
            wires.say_news();
            wires.sleep(left.min(SLEEP_MAX), lane);
        }
        lane.worker_bell.get_up();
    }
}

/// Takes in what the control side has for the worker; whether there was anything.
fn hear<W: Wires>(worker: &mut Worker, wires: &mut W, lane: &Lane, now: Instant) -> bool {
    let mut any = false;
    for _ in 0..TURN_COUNT_MAX {
        let Some(command) = lane.commands.pop() else { break };
        any = true;
        if let Command::Sync(SyncCommand::Answer(answering)) = &command {
            let mut macs: Vec<[u8; 6]> = answering
                .addrs
                .iter()
                .filter_map(|(_, mac)| mac.map(|m| m.0))
                .collect();
            macs.sort_unstable();
            macs.dedup();
            wires.set_extra_macs(&macs);
        }
        // The control side believes that it is done.
        if let Err(error) = worker.handle_command(now, command) {
            lane.counters.commands_refused.fetch_add(1, Ordering::Relaxed);
            warn!(%error, "a worker refused a command of the control side: this is a fault of evenkeel, please report it");
        }
        // Each makes room for the events of the next one: a snapshot finds no place without.
        if tell(worker, lane) {
            lane.control_bell.ring();
        }
    }
    for _ in 0..TURN_COUNT_MAX {
        let Some(message) = lane.messages.pop() else { break };
        any = true;
        // What is refused is counted there.
        let _ = worker.handle_sync(now, &message);
    }
    let mut left = false;
    for _ in 0..TURN_COUNT_MAX {
        let Some((port, bytes)) = lane.frames.pop() else {
            break;
        };
        any = true;
        // Without a buffer it is as if it had been lost on the wire.
        if let Some(mut frame) = wires.alloc(bytes.len())
            && let Some(room) = frame.data_mut().get_mut(..bytes.len())
        {
            room.copy_from_slice(&bytes);
            wires.tx(port, frame);
            left = true;
            lane.sent(now, bytes);
        }
    }
    if left {
        wires.flush();
    }
    if let Some(look) = lane.looks.pop() {
        any = true;
        let io = wires.counts();
        look(&Seen { worker, io });
    }
    any
}

/// Gives the control side what the worker has for it; whether there was anything.
fn speak(worker: &mut Worker, lane: &Lane, now: Instant) -> bool {
    let mut any = false;
    for _ in 0..SYNC_FRAME_COUNT_MAX {
        let Some(mut buffer) = lane.sync_buffers.pop() else {
            // They wait in the engine, which bounds and repairs them.
            lane.counters.sync_waits.fetch_add(1, Ordering::Relaxed);
            break;
        };
        let Some(to) = worker.poll_sync(now, &mut buffer) else {
            let _ = lane.sync_buffers.push(buffer);
            break;
        };
        any = true;
        // There are as many places as buffers.
        let _ = lane.sync.push((to, buffer));
    }
    any |= tell(worker, lane);
    if any {
        lane.control_bell.ring();
    }
    any
}

/// Tells the control side what happened in the worker; whether there was anything.
fn tell(worker: &mut Worker, lane: &Lane) -> bool {
    let mut any = false;
    while let Some(event) = worker.poll_event() {
        any = true;
        lane.event(event);
    }
    any
}

#[cfg(test)]
mod tests {
    use evenkeel_core::conn::{HeapMemory, TableSizes};
    use evenkeel_core::hash::MICROSOFT_KEY;
    use evenkeel_core::lport::Steering;
    use evenkeel_core::port::{HandoffTag, HeapFrame, PortId, WorkerId};
    use evenkeel_core::service::{Snapshot, SnapshotSpec};
    use evenkeel_core::worker::{BucketMap, WorkerConfig};

    use super::*;

    /// Wires without a frame, for so many polls.
    struct Silence {
        lane: Arc<Lane>,
        polls: u32,
        polls_max: u32,
        falls: bool,
        /// At which poll it slept, and how long it might have.
        sleeps: Arc<std::sync::Mutex<Vec<(u32, Duration)>>>,
        /// How often it was asked for news.
        news: Arc<std::sync::atomic::AtomicU64>,
    }

    impl Port for Silence {
        type Frame = HeapFrame;

        fn rx_burst(&mut self, _: &mut Vec<HeapFrame>) -> usize {
            assert!(!self.falls, "as a worker with a fault does");
            self.polls += 1;
            if self.polls == self.polls_max {
                self.lane.stop.store(true, Ordering::Relaxed);
            }
            0
        }

        fn alloc(&mut self, len: usize) -> Option<HeapFrame> {
            Some(HeapFrame::zeroed(PortId(0), len))
        }

        fn tx(&mut self, _: PortId, _: HeapFrame) {}

        fn punt(&mut self, _: HeapFrame) {}

        fn handoff(&mut self, _: WorkerId, _: HeapFrame, _: HandoffTag) {}

        fn flush(&mut self) {}
    }

    impl Wires for Silence {
        type Guard = ();

        fn enter(&self) {}

        fn sleep(&mut self, at_most: Duration, _: &Lane) {
            self.sleeps
                .lock()
                .expect("one thread")
                .push((self.polls, at_most));
        }

        fn say_news(&mut self) {
            self.news.fetch_add(1, Ordering::Relaxed);
        }

        fn set_extra_macs(&mut self, _: &[[u8; 6]]) {}
    }

    fn worker() -> Worker {
        let config = WorkerConfig {
            id: WorkerId(0),
            buckets: BucketMap::dealt(1),
            steering: Arc::new(Steering::new(&MICROSOFT_KEY, 64).expect("full rank")),
            sizes: TableSizes {
                conns_v4: 64,
                conns_v6: 64,
                exts: 1,
            },
            local_port_min: 1024,
            seed: 1,
            hold: None,
            cluster: None,
        };
        Worker::new(config, &mut HeapMemory).expect("a small one")
    }

    /// Runs a worker without frames; when it slept, and how often it said its news.
    fn run_idle(polls_max: u32, may_sleep: bool) -> (Vec<(u32, Duration)>, u64) {
        let lane = Arc::new(Lane::new(Arc::default(), 64).expect("an eventfd"));
        let (sleeps, news) = (Arc::default(), Arc::default());
        let wires = Silence {
            lane: Arc::clone(&lane),
            polls: 0,
            polls_max,
            falls: false,
            sleeps: Arc::clone(&sleeps),
            news: Arc::clone(&news),
        };
        run(worker(), wires, &lane, may_sleep);
        assert_eq!(
            lane.beat.load(Ordering::Relaxed),
            u64::from(polls_max),
            "it turned"
        );
        assert!(lane.ended.load(Ordering::Acquire));
        let slept = sleeps.lock().expect("it has ended").clone();
        (slept, news.load(Ordering::Relaxed))
    }

    #[test]
    fn idle_it_pauses_first_and_then_sleeps_with_a_bound() {
        let (slept, news) = run_idle(IDLE_TURN_COUNT + 10, true);
        assert_eq!(
            slept.first().map(|s| s.0),
            Some(IDLE_TURN_COUNT),
            "it paused before"
        );
        assert_eq!(
            slept.len(),
            10,
            "and sleeps after each turn from then on, but for the last one"
        );
        assert_eq!(news, 10, "said before each");
        assert!(
            slept.iter().all(|s| s.1 <= SLEEP_MAX && !s.1.is_zero()),
            "{slept:?}"
        );
    }

    #[test]
    fn polling_it_never_sleeps_and_says_its_news_all_the_same() {
        assert_eq!(run_idle(3 * NEWS_TURN_COUNT as u32 - 1, false), (Vec::new(), 2));
    }

    /// A worker that did not turn for a while, and configs that changed more often meanwhile than it keeps events.
    #[test]
    fn the_newest_of_many_snapshots_is_in_force() {
        let lane = Arc::new(Lane::new(Arc::default(), 64).expect("an eventfd"));
        let snapshots: Vec<_> = (0..50)
            .map(|_| {
                Snapshot::new(&SnapshotSpec::default())
                    .map(Arc::new)
                    .expect("an empty one")
            })
            .collect();
        for snapshot in &snapshots {
            assert!(lane.command(Command::SetSnapshot(Arc::clone(snapshot))));
        }
        let mut wires = Silence {
            lane: Arc::clone(&lane),
            polls: 0,
            polls_max: u32::MAX,
            falls: false,
            sleeps: Arc::default(),
            news: Arc::default(),
        };
        let mut worker = worker();
        assert!(hear(&mut worker, &mut wires, &lane, Instant::ZERO));
        let in_force = |s: &Arc<Snapshot>| Arc::ptr_eq(worker.snapshot(), s);
        assert!(snapshots.last().is_some_and(in_force));
        let released = std::iter::from_fn(|| lane.events.pop());
        let released = released.filter(|e| matches!(e, evenkeel_core::worker::Event::SnapshotReleased(_)));
        assert_eq!(released.count(), 50, "each made way for the next one");
    }

    #[test]
    fn a_command_that_a_worker_refuses_is_counted_and_the_next_one_taken() {
        let lane = Arc::new(Lane::new(Arc::default(), 64).expect("an eventfd"));
        let mut wires = Silence {
            lane: Arc::clone(&lane),
            polls: 0,
            polls_max: u32::MAX,
            falls: false,
            sleeps: Arc::default(),
            news: Arc::default(),
        };
        let mut worker = worker();
        let snapshot = Snapshot::new(&SnapshotSpec::default())
            .map(Arc::new)
            .expect("an empty one");
        // There is no cluster.
        assert!(lane.command(Command::Sync(SyncCommand::Create(None))));
        assert!(lane.command(Command::SetSnapshot(Arc::clone(&snapshot))));
        assert!(hear(&mut worker, &mut wires, &lane, Instant::ZERO));
        assert_eq!(lane.counters.commands_refused.load(Ordering::Relaxed), 1);
        assert!(Arc::ptr_eq(worker.snapshot(), &snapshot));
    }

    #[test]
    fn a_worker_that_falls_says_so() {
        let lane = Arc::new(Lane::new(Arc::default(), 64).expect("an eventfd"));
        let own = Arc::clone(&lane);
        let thread = std::thread::spawn(move || {
            let wires = Silence {
                lane: Arc::clone(&own),
                polls: 0,
                polls_max: u32::MAX,
                falls: true,
                sleeps: Arc::default(),
                news: Arc::default(),
            };
            run(worker(), wires, &own, true);
        });
        assert!(thread.join().is_err());
        assert!(lane.ended.load(Ordering::Acquire));
    }
}
