//! What Linux knows of a process.

use std::fs;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// The kernel counts processor time in ticks of this length.
const TICK: Duration = Duration::from_millis(10);

/// The processor time that a process has used, its threads together.
pub(crate) fn processor_time(id: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).expect("the process runs");
    // The name, in parentheses, may hold anything.
    let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u32>().ok()).expect("a number of ticks");
    TICK * (ticks(11) + ticks(12))
}

/// The most memory that it has held, in bytes.
pub(crate) fn peak_memory(id: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).expect("the process runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a line for the peak");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("kilobytes") << 10
}

/// Ends a process in its own order, and by force where that takes too long.
pub(crate) fn stop(mut process: Child) {
    let _ = Command::new("kill").arg(process.id().to_string()).status();
    let began = Instant::now();
    while process.try_wait().expect("the process is ours").is_none() {
        if began.elapsed() > Duration::from_secs(60) {
            let _ = process.kill();
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
}
