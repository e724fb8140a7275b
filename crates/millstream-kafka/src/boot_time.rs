//! The clock by which it is told how old a proof of membership is.

use std::time::Duration;

use millstream::clock::BootTime;

/// The moment now.
pub fn boot_time() -> BootTime {
    // Elsewhere the monotonic clock goes on while the machine sleeps, or there is none that does.
    #[cfg(target_os = "linux")]
    const CLOCK: rustix::time::ClockId = rustix::time::ClockId::Boottime;
    #[cfg(not(target_os = "linux"))]
    const CLOCK: rustix::time::ClockId = rustix::time::ClockId::Monotonic;
    let now = rustix::time::clock_gettime(CLOCK);
    BootTime::of_millis(0) + Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}
