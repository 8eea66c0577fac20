//! Everything that is wrong with a file at once: what cannot be read is left out, and the rest is
//! read on with what the file declares about the values that are missing.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::Hash;

use crate::error::{FormatError, MOST_PROBLEMS};

/// The problems of a graph of a file so far; `Value` is what the file calls its values.
pub struct Problems<Value> {
    /// In the order of the file.
    found: Vec<FormatError>,
    /// The values about which nothing is known for that.
    lost: HashSet<Value>,
}

impl<Value> Default for Problems<Value> {
    fn default() -> Self {
        Problems { found: Vec::new(), lost: HashSet::new() }
    }
}

impl<Value: Eq + Hash> Problems<Value> {
    /// Adds a problem; an error if that is as many as are told.
    pub fn add(&mut self, problem: FormatError) -> Result<(), FormatError> {
        match problem {
            FormatError::Several(inner) => self.found.extend(inner),
            one => self.found.push(one),
        }
        if self.found.len() >= MOST_PROBLEMS { self.all() } else { Ok(()) }
    }

    /// Nothing is known about this value, for a problem that was added.
    pub fn lose(&mut self, value: Value) {
        self.lost.insert(value);
    }

    /// True if any of the values is lost.
    pub fn concern<'a, Name: Eq + Hash + ?Sized + 'a>(
        &self,
        values: impl IntoIterator<Item = &'a Name>,
    ) -> bool
    where
        Value: Borrow<Name>,
    {
        !self.lost.is_empty() && values.into_iter().any(|value| self.lost.contains(value))
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// All there are, as one error.
    pub fn all(&mut self) -> Result<(), FormatError> {
        FormatError::of_all(std::mem::take(&mut self.found))
    }
}
