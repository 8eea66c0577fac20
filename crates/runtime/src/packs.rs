//! Packed weights, shared by every specialisation of a session: they do not depend on shapes.

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use lepton_ir::ValueId;

/// A constant and the name of a form.
type Key = (ValueId, &'static str);

/// Packed forms of constants, by constant and form.
#[derive(Default)]
pub(crate) struct Packs {
    made: Mutex<HashMap<Key, Arc<dyn Any + Send + Sync>>>,
}

impl Packs {
    /// The packed form `form` of `constant`, made by `pack` the first time.
    pub fn get_or_pack<T: Send + Sync + 'static>(
        &self,
        constant: ValueId,
        form: &'static str,
        pack: impl FnOnce() -> T,
    ) -> Arc<T> {
        let mut made = self.made.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(found) = made.get(&(constant, form)).cloned()
            && let Ok(pack) = found.downcast::<T>()
        {
            return pack;
        }
        let pack = Arc::new(pack());
        made.insert((constant, form), pack.clone());
        pack
    }
}
