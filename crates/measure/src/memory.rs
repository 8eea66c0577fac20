//! Resident memory of this process, from `/proc` where there is one.

use std::fs;

/// The most bytes this process has had in memory, since the start or since the last successful
/// [`reset_peak_resident`]. `None` where the system does not say: report "unavailable".
pub fn peak_resident_bytes() -> Option<u64> {
    status_field("VmHWM:")
}

/// The bytes this process has in memory now. `None` where the system does not say.
pub fn resident_bytes() -> Option<u64> {
    status_field("VmRSS:")
}

/// Lets the peak start again from the current size. False where the system does not allow it; the
/// peak then still counts from the start of the process.
pub fn reset_peak_resident() -> bool {
    // proc(5): writing 5 resets the peak resident set size ("high water mark").
    fs::write("/proc/self/clear_refs", "5").is_ok()
}

fn status_field(name: &str) -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_peak_sees_a_large_allocation() {
        let before = peak_resident_bytes().expect("Linux has /proc");
        let block = std::hint::black_box(vec![1u8; 96 << 20]);
        let after = peak_resident_bytes().expect("Linux has /proc");
        assert!(after >= before.max(90 << 20), "{before} → {after}, {} bytes", block.len());
        drop(block);
        if reset_peak_resident() {
            assert!(peak_resident_bytes().expect("as before") < after);
        }
    }
}
