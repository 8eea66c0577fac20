//! Packed weights, shared by every specialisation of a session: they do not depend on shapes.

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use lepton_ir::{Dim, Graph, StoredPack, ValueId};
use lepton_kernels::stored::Pack;
use lepton_tensor::Storage;

/// Stands for what the passes and the packed forms of this version make of a graph: what was
/// prepared under another key is made again.
pub const PREPARED_KEY: &str = concat!("lepton-", env!("CARGO_PKG_VERSION"), "/2");

/// A constant and the name of a form.
type Key = (ValueId, &'static str);

struct Made {
    pack: Arc<dyn Any + Send + Sync>,
    /// What gives its bytes, where it can be kept.
    stored: Option<fn(&(dyn Any + Send + Sync)) -> Vec<Storage>>,
}

/// The bytes of a pack of that type.
fn stored<T: Pack>(pack: &(dyn Any + Send + Sync)) -> Vec<Storage> {
    pack.downcast_ref::<T>().map_or_else(Vec::new, T::stored)
}

/// Packed forms of constants, by constant and form.
#[derive(Default)]
pub(crate) struct Packs {
    /// What they are specialisations of; `None` for a part of a graph.
    graph: Option<Arc<Graph>>,
    made: Mutex<HashMap<Key, Made>>,
    /// Forms that came with the model, in the order of the constants.
    given: Vec<(ValueId, StoredPack)>,
    /// Those of the graph that a graph of one node is taken from.
    outer: Option<Outer>,
}

/// Packs of a graph for a part of it.
struct Outer {
    packs: Arc<Packs>,
    /// What the first values of the part are called in the graph.
    names: Vec<Option<ValueId>>,
}

/// True if extents are open, but for a first one that is a symbol.
fn has_open(dims: &[Dim]) -> bool {
    let of_batch =
        |dim: &Dim| dim.symbols().first().is_some_and(|s| *dim == Dim::symbol(s.clone()));
    let rest = if dims.first().is_some_and(of_batch) { &dims[1..] } else { dims };
    rest.iter().any(|dim| dim.as_known().is_none())
}

impl Packs {
    /// No packs yet, for specialisations of a graph.
    pub fn of(graph: &Arc<Graph>) -> Self {
        Packs { graph: Some(graph.clone()), ..Packs::default() }
    }

    /// Packs some of which came with the model.
    pub fn given(graph: &Arc<Graph>, packs: &[StoredPack]) -> Self {
        let constants = graph.constants();
        let named = |pack: &StoredPack| Some((*constants.get(pack.constant)?, pack.clone()));
        let mut given: Vec<(ValueId, StoredPack)> = packs.iter().filter_map(named).collect();
        given.sort_by_key(|(constant, _)| *constant);
        Packs { given, ..Packs::of(graph) }
    }

    /// True if specialisations differ in more than the batch of a value: it has other open extents than a
    /// first one that is a symbol, as a batch is.
    pub fn is_open(&self, value: ValueId) -> bool {
        let (packs, name) = self.outside(value).unwrap_or((self, value));
        let graph = packs.graph.as_ref().filter(|_| packs.is_shared(name));
        graph.is_none_or(|graph| has_open(&graph.fact(name).dims))
    }

    /// True for values that are the same in every specialisation. What one of them made for itself may go
    /// by the number of something else in another, so its packs are not kept.
    fn is_shared(&self, value: ValueId) -> bool {
        self.graph.as_ref().is_none_or(|graph| value.index() < graph.value_count())
    }

    /// Packs of a part of a graph, for any number of plans of the part: those of constants that all
    /// specialisations of the graph share are kept with the graph's. `names` tells what the first
    /// values of the part are called in the graph.
    pub fn within(packs: Arc<Packs>, names: Vec<Option<ValueId>>) -> Self {
        Packs { outer: Some(Outer { packs, names }), ..Packs::default() }
    }

    /// Where the packs of a constant are kept, if that is with an outer graph, and its name there.
    fn outside(&self, constant: ValueId) -> Option<(&Packs, ValueId)> {
        let outer = self.outer.as_ref()?;
        let name = outer.names.get(constant.index()).copied().flatten()?;
        outer.packs.is_shared(name).then_some((&*outer.packs, name))
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
        if let Some((outer, name)) = self.outside(constant) {
            return outer.get_or_load(name, form, order, pack);
        }
        self.get_or_make((constant, form), Some(stored::<T>), || {
            let first = self.given.partition_point(|(of, _)| *of < constant);
            let own = self.given[first..].iter().take_while(|(of, _)| *of == constant);
            let given = own.map(|(_, pack)| pack).find(|pack| pack.form == form);
            given.and_then(|given| T::load(order, &given.parts)).unwrap_or_else(pack)
        })
    }

    /// The same for a form that is never kept.
    pub fn get_or_pack<T: Send + Sync + 'static>(
        &self,
        constant: ValueId,
        form: &'static str,
        pack: impl FnOnce() -> T,
    ) -> Arc<T> {
        let (packs, name) = self.outside(constant).unwrap_or((self, constant));
        packs.get_or_make((name, form), None, pack)
    }

    fn get_or_make<T: Send + Sync + 'static>(
        &self,
        key: Key,
        stored: Option<fn(&(dyn Any + Send + Sync)) -> Vec<Storage>>,
        make: impl FnOnce() -> T,
    ) -> Arc<T> {
        if !self.is_shared(key.0) {
            return Arc::new(make());
        }
        let mut made = self.lock();
        if let Some(found) = made.get(&key)
            && let Ok(pack) = found.pack.clone().downcast::<T>()
        {
            return pack;
        }
        let pack = Arc::new(make());
        made.insert(key, Made { pack: pack.clone(), stored });
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
                let parts = made.stored?(&*made.pack);
                Some(StoredPack { constant, form: form.to_string(), parts })
            })
            .collect();
        packs.sort_by(|a, b| (a.constant, &a.form).cmp(&(b.constant, &b.form)));
        packs
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Made>> {
        self.made.lock().unwrap_or_else(|e| e.into_inner())
    }
}
