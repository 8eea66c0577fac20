//! Which core a thread runs on. A thread that wakes may be put on the core of whoever woke it, where it
//! would wait while another core is idle.

#[cfg(target_os = "linux")]
mod system {
    use rustix::thread::{sched_getaffinity, sched_getcpu, sched_setaffinity};

    /// The number of the core this thread runs on.
    pub fn current() -> usize {
        sched_getcpu()
    }

    /// Moves this thread to another core, if it runs on `core` and may run on others. Which ones it may
    /// run on stays as it is.
    pub fn leave(core: usize) {
        if core != sched_getcpu() {
            return;
        }
        let Ok(allowed) = sched_getaffinity(None) else { return };
        let mut others = allowed;
        others.unset(core);
        // Without other cores this is refused.
        if sched_setaffinity(None, &others).is_ok() {
            let _ = sched_setaffinity(None, &allowed);
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    /// Not known on this system.
    pub fn current() -> usize {
        usize::MAX
    }

    /// Left to this system.
    pub fn leave(_core: usize) {}
}

pub(crate) use system::{current, leave};

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_thread_leaves_a_core_and_may_come_back() {
        let allowed = || rustix::thread::sched_getaffinity(None).unwrap();
        let before = allowed();
        leave(usize::MAX);
        let core = current();
        leave(core);
        // It may have been moved before it was asked to, or back since.
        assert_eq!(allowed(), before);
    }
}
