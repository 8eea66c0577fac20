//! Transformed weights in files.

use lepton_tensor::Storage;

use super::{PackedWinograd, Tile};
use crate::pack::WeightOrder;
use crate::stored::Pack;

impl Pack for PackedWinograd {
    /// Columns, depth, tile.
    type Order = (usize, usize, Tile);

    fn stored(&self) -> Vec<Storage> {
        self.matrices.stored()
    }

    fn load(&(columns, depth, tile): &Self::Order, stored: &[Storage]) -> Option<Self> {
        let order = (tile.matrices(), WeightOrder::transposed(columns, depth));
        Some(PackedWinograd { tile, matrices: Vec::load(&order, stored)? })
    }
}
