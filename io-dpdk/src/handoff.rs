//! Frames from one worker to another: a bounded ring for each receiver.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_queue::ArrayQueue;

/// Why something was not handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The ring is full.
    Full,
    /// The receiver is gone, or never was.
    Gone,
}

/// A ring that many fill and one empties. What is in it when the receiver leaves is dropped, and so is what comes
/// later.
#[derive(Debug)]
pub(crate) struct Ring<T> {
    queue: ArrayQueue<T>,
    is_open: AtomicBool,
}

impl<T> Ring<T> {
    /// A ring for `len` (at least one).
    pub(crate) fn new(len: usize) -> Arc<Ring<T>> {
        Arc::new(Ring {
            queue: ArrayQueue::new(len.max(1)),
            is_open: AtomicBool::new(true),
        })
    }

    /// Hands something over, or drops it and says why.
    pub(crate) fn push(&self, item: T) -> Result<(), Refused> {
        if !self.is_open.load(Ordering::SeqCst) {
            return Err(Refused::Gone);
        }
        self.queue.push(item).map_err(|_| Refused::Full)?;
        if !self.is_open.load(Ordering::SeqCst) {
            // The receiver left meanwhile, and may have looked before this came.
            self.clear();
        }
        Ok(())
    }

    pub(crate) fn pop(&self) -> Option<T> {
        // Looking is cheaper than trying, and there is mostly nothing.
        if self.queue.is_empty() {
            return None;
        }
        self.queue.pop()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The receiver leaves.
    pub(crate) fn close(&self) {
        self.is_open.store(false, Ordering::SeqCst);
        self.clear();
    }

    fn clear(&self) {
        while self.queue.pop().is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    /// Counts how often it was dropped.
    struct Counted(Arc<AtomicUsize>);

    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_full_ring_refuses_and_keeps_what_it_has_in_order() {
        let ring = Ring::new(3);
        let pushed: Vec<_> = (0..5).map(|n| ring.push(n)).collect();
        assert_eq!(
            pushed,
            [Ok(()), Ok(()), Ok(()), Err(Refused::Full), Err(Refused::Full)]
        );
        let popped: Vec<_> = std::iter::from_fn(|| ring.pop()).collect();
        assert_eq!(popped, [0, 1, 2]);
        assert_eq!(ring.push(9), Ok(()));
    }

    #[test]
    fn what_a_receiver_leaves_behind_is_dropped_and_what_comes_later_too() {
        let dropped = Arc::new(AtomicUsize::new(0));
        let ring = Ring::new(8);
        for _ in 0..5 {
            ring.push(Counted(dropped.clone())).expect("room");
        }
        ring.close();
        assert_eq!(dropped.load(Ordering::SeqCst), 5);
        assert_eq!(ring.push(Counted(dropped.clone())).err(), Some(Refused::Gone));
        assert_eq!(dropped.load(Ordering::SeqCst), 6);
        assert!(ring.is_empty());
    }

    #[test]
    fn nothing_is_lost_between_threads_that_push_while_the_receiver_leaves() {
        for _ in 0..20 {
            let dropped = Arc::new(AtomicUsize::new(0));
            let ring = Ring::new(64);
            let made = 4 * 500;
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    let (ring, dropped) = (&ring, &dropped);
                    scope.spawn(move || {
                        for _ in 0..500 {
                            // Whatever came of it: each is dropped once.
                            let _ = ring.push(Counted(dropped.clone()));
                        }
                    });
                }
                let ring = &ring;
                scope.spawn(move || {
                    for _ in 0..300 {
                        drop(ring.pop());
                    }
                    ring.close();
                });
            });
            assert_eq!(dropped.load(Ordering::SeqCst), made);
        }
    }
}
