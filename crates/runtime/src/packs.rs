//! Packed weights, shared by every specialisation of a session: they do not depend on shapes.

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use lepton_ir::{StoredPack, ValueId};
use lepton_kernels::stored::Pack;
use lepton_tensor::Storage;

/// Stands for what the passes and the packed forms of this version make of a graph: what was
/// prepared under another key is made again.
pub const PREPARED_KEY: &str = concat!("lepton-", env!("CARGO_PKG_VERSION"), "/1");

/// A constant and the name of a form.
type Key = (ValueId, &'static str);

struct Made {
    pack: Arc<dyn Any + Send + Sync>,
    /// Its bytes.
    stored: Vec<Storage>,
}

/// Packed forms of constants, by constant and form.
#[derive(Default)]
pub(crate) struct Packs {
    made: Mutex<HashMap<Key, Made>>,
    /// Forms that came with the model.
    given: HashMap<(ValueId, String), Vec<Storage>>,
}

impl Packs {
    /// Packs some of which came with the model.
    pub fn given(constants: &[ValueId], packs: &[StoredPack]) -> Self {
        let given = packs.iter().filter_map(|pack| {
            let constant = *constants.get(pack.constant)?;
            Some(((constant, pack.form.clone()), pack.parts.clone()))
        });
        Packs { made: Mutex::default(), given: given.collect() }
    }

    /// The packed form `form` of `constant`: the one that came with the model if it fits `order`,
    /// else made by `pack` the first time.
    pub fn get_or_load<T: Pack>(
        &self,
        constant: ValueId,
        form: &'static str,
        order: &T::Order,
        pack: impl FnOnce() -> T,
    ) -> Arc<T> {
        let mut made = self.lock();
        if let Some(found) = made.get(&(constant, form))
            && let Ok(pack) = found.pack.clone().downcast::<T>()
        {
            return pack;
        }
        let given = self.given.get(&(constant, form.to_string()));
        let pack = given.and_then(|parts| T::load(order, parts)).unwrap_or_else(pack);
        let (stored, pack) = (pack.stored(), Arc::new(pack));
        made.insert((constant, form), Made { pack: pack.clone(), stored });
        pack
    }

    /// Drops the forms that nobody will ask for.
    pub fn forget(&self, unused: impl Fn(ValueId, &str) -> bool) {
        self.lock().retain(|(constant, form), _| !unused(*constant, form));
    }

    /// The forms made so far that can be kept, in the order of the constants.
    pub fn stored(&self, constants: &[ValueId]) -> Vec<StoredPack> {
        let made = self.lock();
        let mut packs: Vec<StoredPack> = made
            .iter()
            .filter_map(|((constant, form), made)| {
                let constant = constants.iter().position(|id| id == constant)?;
                Some(StoredPack { constant, form: form.to_string(), parts: made.stored.clone() })
            })
            .collect();
        packs.sort_by(|a, b| (a.constant, &a.form).cmp(&(b.constant, &b.form)));
        packs
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Made>> {
        self.made.lock().unwrap_or_else(|e| e.into_inner())
    }
}
