//! SIGINT and SIGTERM.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};

use crate::complaint::Complaint;

/// SIGINT and SIGTERM: the first one stops what runs where it is, a second one ends the process.
#[derive(Clone, Debug)]
pub(crate) struct Signals(Arc<AtomicUsize>);

impl Signals {
    /// Listens from now on.
    pub(crate) fn listen() -> Result<Self, Complaint> {
        let received = Arc::new(AtomicUsize::new(0));
        let again = Arc::new(AtomicBool::new(false));
        let failed = |e| Complaint::io("cannot listen for signals", e);
        for signal in [SIGINT, SIGTERM] {
            use signal_hook::flag;
            flag::register_conditional_shutdown(signal, 128 + signal, again.clone()).map_err(failed)?;
            flag::register(signal, again.clone()).map_err(failed)?;
            flag::register_usize(signal, received.clone(), signal as usize).map_err(failed)?;
        }
        Ok(Signals(received))
    }

    /// The signal that came, if one did.
    pub(crate) fn received(&self) -> Option<u8> {
        u8::try_from(self.0.load(Ordering::Relaxed))
            .ok()
            .filter(|&signal| signal != 0)
    }
}
