//! Packed forms of constants, kept beside a graph.

use lepton_tensor::Storage;

/// A form of a constant in which kernels read it.
#[derive(Clone, Debug)]
pub struct StoredPack {
    /// Which of [`Graph::constants`](crate::Graph::constants).
    pub constant: usize,
    /// The name of the form.
    pub form: String,
    /// Its bytes.
    pub parts: Vec<Storage>,
}

impl PartialEq for StoredPack {
    fn eq(&self, other: &Self) -> bool {
        let alike = |(a, b): (&Storage, &Storage)| a.bytes() == b.bytes();
        (self.constant, &self.form) == (other.constant, &other.form)
            && self.parts.len() == other.parts.len()
            && self.parts.iter().zip(&other.parts).all(alike)
    }
}
