//! What a piece of work costs: the time that passes, and the time that processors spend on it.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// The cost of one piece of work.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measured {
    passed: Duration,
    this_thread: Duration,
    /// The processor time of the threads that were there.
    pub(crate) all_threads: Duration,
}

impl Measured {
    /// Does the work on this thread.
    pub(crate) fn during(work: impl FnOnce()) -> Self {
        let (began, this_thread, all_threads) = (Instant::now(), this_thread(), all_threads());
        work();
        Self {
            passed: began.elapsed(),
            this_thread: self::this_thread() - this_thread,
            all_threads: self::all_threads() - all_threads,
        }
    }

    /// The medians of the time passed, of this thread's processor time, and of all threads' together.
    pub(crate) fn medians(runs: &[Self]) -> [Duration; 3] {
        [|run: &Self| run.passed, |run: &Self| run.this_thread, |run: &Self| run.all_threads].map(|of| {
            let mut sorted: Vec<_> = runs.iter().map(of).collect();
            sorted.sort();
            sorted[sorted.len() / 2]
        })
    }
}

fn this_thread() -> Duration {
    processor_time(Path::new("/proc/thread-self"))
}

/// Of the threads that live now: those of RocksDB outlive a run.
fn all_threads() -> Duration {
    let tasks = fs::read_dir("/proc/self/task").expect("Linux lists the threads of a process");
    tasks.filter_map(Result::ok).map(|task| processor_time(&task.path())).sum()
}

fn processor_time(task: &Path) -> Duration {
    // A thread may end while it is looked at.
    let schedstat = fs::read_to_string(task.join("schedstat")).unwrap_or_default();
    Duration::from_nanos(schedstat.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0))
}
