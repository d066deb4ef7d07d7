//! The loop that every backend shares: receive, decide, carry out.

use alloc::vec::Vec;

use crate::port::{BURST, Frame, Port};
use crate::time::Instant;
use crate::worker::{Verdict, Verdicts, Worker};

/// Buffers of a loop, made once.
#[derive(Debug)]
pub struct StepBuffers<F> {
    frames: Vec<F>,
    verdicts: Verdicts,
}

impl<F> Default for StepBuffers<F> {
    fn default() -> Self {
        StepBuffers {
            frames: Vec::with_capacity(BURST),
            verdicts: Verdicts::default(),
        }
    }
}

/// What a step did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stepped {
    /// Frames received.
    pub received: usize,
    /// Frames originated by the engine.
    pub originated: usize,
}

impl Stepped {
    /// Whether there was nothing to do.
    pub fn is_idle(&self) -> bool {
        *self == Stepped::default()
    }
}

/// One turn of a worker: due timers, one burst, what the engine originates, flush.
pub fn step<P: Port>(
    worker: &mut Worker,
    port: &mut P,
    now: Instant,
    buffers: &mut StepBuffers<P::Frame>,
) -> Stepped {
    if worker.poll_timeout().is_some_and(|due| due <= now) {
        worker.handle_timeout(now);
    }
    let StepBuffers { frames, verdicts } = buffers;
    let received = port.rx_burst(frames);
    worker.handle_burst(now, frames, verdicts);
    for (frame, &verdict) in frames.drain(..).zip(verdicts.as_slice()) {
        match verdict {
            Verdict::Tx(to) => port.tx(to, frame),
            Verdict::Punt => port.punt(frame),
            Verdict::Handoff(to, tag) => port.handoff(to, frame, tag),
            Verdict::Drop(_) | Verdict::Held | Verdict::Answered => port.done(frame, verdict),
        }
    }
    let mut originated = 0;
    while originated < BURST
        && let Some((to, frame)) = worker.poll_transmit(|len| port.alloc(len))
    {
        debug_assert!(!frame.is_empty(), "what is originated has bytes");
        port.tx(to, frame);
        originated += 1;
    }
    port.flush();
    Stepped { received, originated }
}
