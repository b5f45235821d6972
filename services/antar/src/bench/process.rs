//! What the kernel says of a process: resident memory and time on the CPU.

use std::fs;

/// The kernel's clock ticks in a second, as `/proc` counts them on Linux (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

/// Resident memory in KiB (`VmRSS`).
pub(crate) fn resident_kib(pid: u32) -> Option<u64> {
    field_kib(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?, "VmRSS:")
}

/// Time on the CPU in seconds, user and system, of a process.
pub(crate) fn cpu_seconds(pid: u32) -> Option<f64> {
    ticks(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?).map(|ticks| ticks as f64 / TICKS_PER_SECOND)
}

fn field_kib(status: &str, name: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix(name))?.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// `utime` and `stime`, the fields 14 and 15. Field 2 is a name in brackets that may hold anything.
fn ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    Some(next()? + next()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_figures_are_read() {
        assert_eq!(field_kib("Name:\tx\nVmRSS:\t    5120 kB\n", "VmRSS:"), Some(5120));
        assert_eq!(field_kib("Name:\tx\n", "VmRSS:"), None);
        assert_eq!(ticks("7 (a ) b) S 1 7 7 0 -1 4194560 100 0 0 0 25 17 0 0 20 0"), Some(42));
        assert_eq!(ticks("nonsense"), None);
    }
}
