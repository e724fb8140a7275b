//! The threads of the engine, none of which may end before it is told to.

use std::any::Any;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use tokio::sync::watch;

/// The running threads.
pub(super) struct Threads {
    stop: Arc<AtomicBool>,
    handles: Vec<JoinHandle<()>>,
    failed: watch::Sender<Option<String>>,
}

impl Threads {
    /// None yet.
    pub(super) fn new() -> Self {
        Self { stop: Arc::default(), handles: Vec::new(), failed: watch::channel(None).0 }
    }

    /// Starts a thread whose work goes on until the flag it is handed is set. A thread that ends in any other way, be it by an
    /// error, a panic or of its own accord, has failed.
    pub(super) fn spawn<E: std::fmt::Display>(
        &mut self,
        name: String,
        work: impl FnOnce(&AtomicBool) -> Result<(), E> + Send + 'static,
    ) -> io::Result<()> {
        let (stop, failed, thread) = (self.stop.clone(), self.failed.clone(), name.clone());
        let run = move || {
            // Nothing that the work has touched is used after it: the process ends.
            let reason = match panic::catch_unwind(AssertUnwindSafe(|| work(&stop))) {
                Ok(Ok(())) if stop.load(Ordering::Relaxed) => return,
                Ok(Ok(())) => format!("thread {thread} has ended by itself"),
                Ok(Err(error)) => error.to_string(),
                Err(panic) => format!("thread {thread} has panicked: {}", message(&*panic)),
            };
            tracing::error!(thread, reason, "a thread of the engine has failed");
            failed.send_if_modified(|first| first.is_none() && first.replace(reason).is_none());
        };
        self.handles.push(thread::Builder::new().name(name).spawn(run)?);
        Ok(())
    }

    /// Completes when a thread has failed, with the reason.
    pub(super) fn failure(&self) -> impl Future<Output = String> + use<> {
        let mut failure = self.failed.subscribe();
        async move {
            match failure.wait_for(Option::is_some).await {
                Ok(reason) => reason.clone().unwrap_or_default(),
                // The threads have been stopped, and none has failed.
                Err(_) => std::future::pending().await,
            }
        }
    }

    /// Lets every thread commit and close, and waits for them. Gives the reason of the first that has failed, then or before.
    pub(super) fn stop(self) -> Option<String> {
        self.stop.store(true, Ordering::Relaxed);
        for handle in self.handles {
            handle.thread().unpark();
            // What it had to say, panics too, it has said.
            let _ = handle.join();
        }
        self.failed.borrow().clone()
    }
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    fn until_stopped(stop: &AtomicBool) -> Result<(), Infallible> {
        while !stop.load(Ordering::Relaxed) {
            thread::park_timeout(std::time::Duration::from_millis(1));
        }
        Ok(())
    }

    async fn failure_beside_a_good_thread<E: std::fmt::Display + 'static>(work: fn(&AtomicBool) -> Result<(), E>) -> String {
        let mut threads = Threads::new();
        threads.spawn("good".to_owned(), until_stopped).unwrap();
        threads.spawn("bad".to_owned(), work).unwrap();
        let reason = threads.failure().await;
        assert_eq!(threads.stop().as_deref(), Some(&*reason));
        reason
    }

    #[tokio::test]
    async fn every_end_before_the_stop_is_a_failure() {
        assert_eq!(failure_beside_a_good_thread(|_| Err("the disk is gone")).await, "the disk is gone");
        assert_eq!(failure_beside_a_good_thread(|_| Ok::<_, Infallible>(())).await, "thread bad has ended by itself");
        let panics = |_: &AtomicBool| -> Result<(), Infallible> { panic!("at offset {}", 7) };
        assert_eq!(failure_beside_a_good_thread(panics).await, "thread bad has panicked: at offset 7");
    }

    #[test]
    fn an_end_that_was_asked_for_is_none() {
        let mut threads = Threads::new();
        threads.spawn("good".to_owned(), until_stopped).unwrap();
        assert_eq!(threads.stop(), None);
    }

    #[test]
    fn a_last_commit_that_fails_is_told() {
        let mut threads = Threads::new();
        let fails_at_the_end = |stop: &AtomicBool| until_stopped(stop).map_err(|_| "").and(Err("no room"));
        threads.spawn("bad".to_owned(), fails_at_the_end).unwrap();
        assert_eq!(threads.stop().as_deref(), Some("no room"));
    }
}
