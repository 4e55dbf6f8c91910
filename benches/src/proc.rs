//! Reads the kernel's figures on a process.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// The processor time that all threads of a process have used so far.
pub fn cpu_time(pid: u32) -> Result<Duration> {
    let mut nanoseconds = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let times = fs::read_to_string(thread?.path().join("schedstat"))?;
        nanoseconds += times.split(' ').next().unwrap_or_default().parse::<u64>()?;
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// The time that a processor has been busy so far, with any process.
pub fn busy_time(cpu: usize) -> Result<Duration> {
    /// The kernel reports hundredths of a second, independent of its clock.
    const TICK: Duration = Duration::from_millis(10);
    let stat = fs::read_to_string("/proc/stat")?;
    let times = stat.lines().find_map(|line| line.strip_prefix(&format!("cpu{cpu} ")));
    let times = times.with_context(|| format!("no processor {cpu}"))?.split(' ').map(str::parse);
    let times = times.collect::<Result<Vec<u32>, _>>()?;
    // user, nice, system, idle, waiting, interrupts, soft interrupts, stolen; guests are counted with the user.
    let [user, nice, system, _, _, interrupts, soft, stolen, ..] = times.as_slice() else {
        bail!("cannot read /proc/stat: {stat}")
    };
    Ok(TICK * (user + nice + system + interrupts + soft + stolen))
}

/// The memory that a process has resident, in bytes.
pub fn resident(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
    Ok(kilobytes.context("no VmRSS")?.parse::<u64>()? * 1024)
}
