//! Rows already read, so that the next pass need not read and decode them again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The most bytes of rows a source keeps. CIFAR-10's test set takes 31 MB; of larger sets the rows
/// read first stay, the rest is read again in each pass.
pub const CACHE_BYTES: usize = 64 << 20;

/// Stored rows by index.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    rows: HashMap<u32, Arc<[u8]>>,
    bytes: usize,
}

impl Cache {
    pub(crate) fn get(&self, row: u32) -> Option<Arc<[u8]>> {
        // A panic elsewhere cannot leave the map half changed.
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.rows.get(&row).cloned()
    }

    /// Keeps a row if there is room.
    pub(crate) fn put(&self, row: u32, bytes: &[u8]) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.bytes + bytes.len() <= CACHE_BYTES && !state.rows.contains_key(&row) {
            state.bytes += bytes.len();
            state.rows.insert(row, bytes.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_is_bounded() {
        let cache = Cache::default();
        let block = vec![1; CACHE_BYTES / 4];
        (0..6).for_each(|row| cache.put(row, &block));
        let kept = (0..6).filter(|&row| cache.get(row).is_some()).count();
        assert_eq!(kept, 4);
        cache.put(0, &block);
        assert!(cache.get(0).is_some() && cache.get(5).is_none());
    }
}
