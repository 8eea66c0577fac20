//! Packed weights that can be kept in a file and used from there.

use lepton_tensor::Storage;

/// A packed form of weights that is nothing but bytes and what follows from its order.
pub trait Pack: Sized + Send + Sync + 'static {
    /// What determines the sizes of the form.
    type Order;

    /// The bytes, in the order in which [`Pack::load`] wants them; shared, not copied, where large.
    fn stored(&self) -> Vec<Storage>;

    /// The form of that order with these bytes. `None` where their number or length is
    /// another: what is in them can only make numbers wrong, never reads out of bounds.
    fn load(order: &Self::Order, stored: &[Storage]) -> Option<Self>;
}

/// A form that some weights do not have, which is kept as well.
impl<T: Pack> Pack for Option<T> {
    type Order = T::Order;

    fn stored(&self) -> Vec<Storage> {
        self.as_ref().map_or_else(Vec::new, Pack::stored)
    }

    fn load(order: &Self::Order, stored: &[Storage]) -> Option<Self> {
        if stored.is_empty() { Some(None) } else { T::load(order, stored).map(Some) }
    }
}

/// Groups of one order, and how many.
impl<T: Pack> Pack for Vec<T> {
    type Order = (usize, T::Order);

    fn stored(&self) -> Vec<Storage> {
        self.iter().flat_map(Pack::stored).collect()
    }

    fn load((groups, order): &Self::Order, stored: &[Storage]) -> Option<Self> {
        let each = stored.len().checked_div(*groups)?;
        if each == 0 || each * groups != stored.len() {
            return None;
        }
        stored.chunks_exact(each).map(|part| T::load(order, part)).collect()
    }
}
