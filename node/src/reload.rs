//! The config is read again by a thread of its own: a long one takes its time, a pipe that nobody writes to takes for ever, and
//! the control thread has leases to keep meanwhile. One is read at a time; who asks while it is has it read once more after that.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Builder;

use evenkeel_control::Config;
use evenkeel_core::sync::seal::Secrets;
use tokio::sync::oneshot;

/// Reads the config, with the ids that it gave before; or says why it cannot be used.
pub(crate) type Read = Box<dyn FnMut() -> Result<Config, String> + Send>;

/// A config, and what stands in the files that it names.
pub(crate) struct Fresh {
    pub(crate) config: Config,
    pub(crate) secrets: Option<Secrets>,
}

/// As [`Read`], with its files.
pub(crate) type ReadAll = Box<dyn FnMut() -> Result<Fresh, String> + Send>;

/// How a node comes to its config again. What goes wrong is said in one line, with the remedy.
pub struct Reload {
    /// Called on a thread of its own. It may take as long as it likes, and is called once at a time.
    pub read: Read,
    /// Whether it can be read at all by who this process is now: asked once root is dropped.
    pub probe: Box<dyn Fn() -> Result<(), String>>,
}

/// Who reads it.
pub(crate) struct Reader {
    /// Each thread has it for as long as it reads.
    read: Arc<Mutex<ReadAll>>,
    /// What the thread that reads now is going to say.
    under_way: Option<oneshot::Receiver<Result<Fresh, String>>>,
    /// Somebody asked since that thread began.
    again: bool,
}

impl Reader {
    pub(crate) fn new(read: ReadAll) -> Self {
        Reader {
            read: Arc::new(Mutex::new(read)),
            under_way: None,
            again: false,
        }
    }

    /// Has it read; `false`: it is being read, and is read once more after that, however often that is asked for.
    pub(crate) fn ask(&mut self) -> bool {
        if self.under_way.is_some() {
            self.again = true;
            return false;
        }
        let (done, under_way) = oneshot::channel();
        self.under_way = Some(under_way);
        let read = Arc::clone(&self.read);
        // Nobody waits for its end: a thread that reads for ever must not keep the node from ending.
        let thread = Builder::new().name("config".to_owned()).spawn(move || {
            // One that fell left nothing behind but what it had read.
            let mut read = read.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = done.send(read());
        });
        if let Err(error) = thread {
            let (done, failed) = oneshot::channel();
            let _ = done.send(Err(format!(
                "there is no thread to read it: {error}; see the limits of this process (ulimit -u)"
            )));
            self.under_way = Some(failed);
        }
        true
    }

    /// Until it has been read, or could not be. For ever while nobody asks for that. Nothing is lost if it is dropped before.
    pub(crate) async fn done(&mut self) -> Result<Fresh, String> {
        let Some(under_way) = &mut self.under_way else {
            return std::future::pending().await;
        };
        let read = under_way.await;
        self.under_way = None;
        if std::mem::take(&mut self.again) {
            self.ask();
        }
        let fell =
            || Err("the thread that read it fell: this is a fault of evenkeel, please report it".to_owned());
        read.unwrap_or_else(|_| fell())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;
    use std::process::Command;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// A pipe with a name, which goes with the test.
    struct Fifo(PathBuf);

    impl Fifo {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("evenkeel-{name}-{}", std::process::id()));
            let _ = fs::remove_file(&path);
            let made = Command::new("mkfifo").arg(&path).status().expect("mkfifo runs");
            assert!(made.success());
            Fifo(path)
        }
    }

    impl Drop for Fifo {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }

    /// It says what it read as what is wrong, as no config is needed here; and counts how often it began.
    fn reader(fifo: &Fifo) -> (Reader, Arc<AtomicUsize>) {
        let begun = Arc::new(AtomicUsize::new(0));
        let (path, count) = (fifo.0.clone(), Arc::clone(&begun));
        let read = move || {
            count.fetch_add(1, Ordering::SeqCst);
            Err(fs::read_to_string(&path).expect("a pipe"))
        };
        (Reader::new(Box::new(read)), begun)
    }

    async fn waits(reader: &mut Reader) -> bool {
        tokio::select! {
            biased;
            _ = reader.done() => false,
            () = std::future::ready(()) => true,
        }
    }

    async fn said(reader: &mut Reader) -> String {
        reader.done().await.err().unwrap_or_default()
    }

    #[tokio::test]
    async fn a_pipe_that_never_answers_holds_nobody_up_and_who_asks_meanwhile_has_one_more() {
        let fifo = Fifo::new("reload");
        let (mut reader, begun) = reader(&fifo);
        assert!(waits(&mut reader).await, "nobody asked");
        assert!(reader.ask());
        for _ in 0..3 {
            assert!(!reader.ask(), "one at a time");
            assert!(waits(&mut reader).await);
        }
        fs::write(&fifo.0, "one").expect("somebody reads");
        assert_eq!(said(&mut reader).await, "one");
        fs::write(&fifo.0, "two").expect("somebody reads again");
        assert_eq!(said(&mut reader).await, "two");
        assert!(waits(&mut reader).await, "once more, and not for each who asked");
        assert_eq!(begun.load(Ordering::SeqCst), 2);
        assert!(reader.ask());
        fs::write(&fifo.0, "three").expect("somebody reads");
        assert_eq!(said(&mut reader).await, "three");
    }

    #[tokio::test]
    async fn a_thread_that_falls_is_said_and_the_next_one_reads() {
        let mut falls = true;
        let read = move || {
            assert!(!std::mem::take(&mut falls), "as a thread with a fault does");
            Err("read".to_owned())
        };
        let mut reader = Reader::new(Box::new(read));
        assert!(reader.ask());
        assert!(said(&mut reader).await.contains("fell"));
        assert!(reader.ask());
        assert_eq!(said(&mut reader).await, "read");
    }
}
