//! The machine a measurement holds for.

use std::collections::BTreeSet;
use std::fs;

use serde::{Deserialize, Serialize};

/// What decides how fast a model runs here, and nothing that changes from run to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Name of the processor, "unknown" where the system does not say.
    pub cpu: String,
    /// Architecture, as Rust names it ("x86_64", "aarch64").
    pub arch: String,
    /// Hardware threads this process may use.
    pub threads: usize,
    /// Physical cores, where the system says.
    pub cores: Option<usize>,
    /// Instruction-set extensions that matter here and are present, in the order of
    /// [`Machine::host`]'s list.
    pub features: Vec<String>,
    /// Memory in bytes, where the system says.
    pub memory_bytes: Option<u64>,
    /// Operating system, as Rust names it.
    pub os: String,
    /// Release of the kernel, where the system says.
    pub kernel: Option<String>,
}

impl Machine {
    /// This machine.
    pub fn host() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        Machine {
            cpu: cpu_name(&cpuinfo).unwrap_or_else(|| "unknown".to_owned()),
            arch: std::env::consts::ARCH.to_owned(),
            threads: std::thread::available_parallelism().map_or(1, |n| n.get()),
            cores: physical_cores(&cpuinfo),
            features: features(),
            memory_bytes: memory_bytes(),
            os: std::env::consts::OS.to_owned(),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
                .ok()
                .map(|release| release.trim().to_owned()),
        }
    }

    /// The canonical JSON of the machine: one line, fields in the order of the struct.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("strings and numbers are always JSON")
    }

    /// 16 hexadecimal digits that stand for this machine where times are remembered. The kernel's
    /// release is left out: an update of the system does not make a machine another.
    pub fn fingerprint(&self) -> String {
        let timeless = Machine { kernel: None, ..self.clone() };
        blake3::hash(timeless.to_json().as_bytes()).to_hex()[..16].to_owned()
    }
}

fn fields<'a>(cpuinfo: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    cpuinfo
        .lines()
        .filter_map(|line| line.split_once(':'))
        .filter(move |(key, _)| key.trim() == name)
        .map(|(_, value)| value.trim())
}

/// The processor's name; on Arm, where there is none, its implementer and part numbers.
fn cpu_name(cpuinfo: &str) -> Option<String> {
    if let Some(name) = fields(cpuinfo, "model name").next() {
        return Some(name.to_owned());
    }
    let implementer = fields(cpuinfo, "CPU implementer").next()?;
    let part = fields(cpuinfo, "CPU part").next()?;
    Some(format!("implementer {implementer} part {part}"))
}

fn physical_cores(cpuinfo: &str) -> Option<usize> {
    let sockets = fields(cpuinfo, "physical id");
    let cores: BTreeSet<_> = sockets.zip(fields(cpuinfo, "core id")).collect();
    (!cores.is_empty()).then_some(cores.len())
}

fn memory_bytes() -> Option<u64> {
    let meminfo = fs::read_to_string("/proc/meminfo").ok()?;
    let total = fields(&meminfo, "MemTotal").next()?;
    let kibibytes: u64 = total.strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

macro_rules! present {
    ($detect:ident: $($name:tt)*) => {
        [$(($name, std::arch::$detect!($name))),*]
            .into_iter()
            .filter(|(_, present)| *present)
            .map(|(name, _)| name.to_owned())
            .collect()
    };
}

#[cfg(target_arch = "x86_64")]
fn features() -> Vec<String> {
    present! { is_x86_feature_detected:
        "sse4.2" "f16c" "fma" "avx" "avx2" "avxvnni" "avx512f" "avx512bw" "avx512dq" "avx512vl"
        "avx512vbmi" "avx512vnni" "avx512bf16" "avx512fp16"
    }
}

#[cfg(target_arch = "aarch64")]
fn features() -> Vec<String> {
    present! { is_aarch64_feature_detected:
        "neon" "fp16" "dotprod" "bf16" "i8mm" "sve" "sve2"
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn features() -> Vec<String> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_stable_and_round_trips() {
        let machine = Machine::host();
        assert_eq!(machine, Machine::host());
        assert!(machine.threads >= 1);
        let back: Machine = serde_json::from_str(&machine.to_json()).unwrap();
        assert_eq!(back.fingerprint(), machine.fingerprint());
        let other = Machine { threads: machine.threads + 1, ..machine.clone() };
        assert_ne!(other.fingerprint(), machine.fingerprint());
        let updated = Machine { kernel: Some("next".into()), ..machine.clone() };
        assert_eq!(updated.fingerprint(), machine.fingerprint());
    }

    #[test]
    fn cpuinfo_is_understood() {
        let x86 = "processor\t: 0\nmodel name\t: Some CPU @ 2GHz\nphysical id\t: 0\ncore id\t: 0\n\n\
                   processor\t: 1\nmodel name\t: Some CPU @ 2GHz\nphysical id\t: 0\ncore id\t: 0\n";
        assert_eq!(cpu_name(x86).unwrap(), "Some CPU @ 2GHz");
        assert_eq!(physical_cores(x86), Some(1));
        let arm = "processor : 0\nCPU implementer : 0x41\nCPU part : 0xd40\n";
        assert_eq!(cpu_name(arm).unwrap(), "implementer 0x41 part 0xd40");
        assert_eq!(physical_cores(arm), None);
        assert_eq!(cpu_name(""), None);
    }
}
