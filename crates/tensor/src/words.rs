//! Strings as elements: a tensor of strings holds numbers of entries in a list of words.

use std::sync::Arc;

use crate::{DType, Shape, Storage, Tensor, TensorError, dtype::Word};

/// Every word of a tensor once, in order, the empty one first. So an element is a number, equal
/// strings are equal numbers, smaller strings are smaller numbers, and 0 is the empty string.
pub(crate) type Words = Arc<[Box<str>]>;

/// The words of these strings.
fn words_of<'a>(strings: impl Iterator<Item = &'a str>) -> Words {
    let mut all: Vec<&str> = strings.chain([""]).collect();
    all.sort_unstable();
    all.dedup();
    all.into_iter().map(Box::from).collect()
}

/// The number of a word that is in the list.
fn number_of(words: &Words, string: &str) -> Word {
    let found = words.binary_search_by(|word| word.as_ref().cmp(string));
    // 2³² words of one tensor take more memory than their numbers can count.
    Word(found.map_or(0, |at| u32::try_from(at).unwrap_or(0)))
}

impl Tensor {
    /// A tensor of strings.
    pub fn from_strings<S: AsRef<str>>(
        shape: impl Into<Shape>,
        strings: &[S],
    ) -> Result<Self, TensorError> {
        let words = words_of(strings.iter().map(AsRef::as_ref));
        Tensor::in_words(shape, strings, words)
    }

    fn in_words<S: AsRef<str>>(
        shape: impl Into<Shape>,
        strings: &[S],
        words: Words,
    ) -> Result<Self, TensorError> {
        let numbers: Vec<Word> = strings.iter().map(|s| number_of(&words, s.as_ref())).collect();
        let storage = Storage::copied(bytemuck::cast_slice(&numbers));
        let mut tensor = Tensor::new(DType::Str, shape, storage)?;
        tensor.words = Some(words);
        Ok(tensor)
    }

    /// The elements of a tensor of strings.
    pub fn strings(&self) -> Result<Vec<&str>, TensorError> {
        let words = self.words.as_deref().unwrap_or(&[]);
        let word = |number: &Word| words.get(number.0 as usize).map_or("", |word| word.as_ref());
        Ok(self.as_slice::<Word>()?.iter().map(word).collect())
    }

    /// The same tensors, those of strings over one list of words: what then moves and compares
    /// their elements as numbers moves and compares strings.
    pub fn with_shared_words(tensors: &[&Tensor]) -> Result<Vec<Tensor>, TensorError> {
        let mut strings = Vec::with_capacity(tensors.len());
        for tensor in tensors {
            let is_text = tensor.dtype() == DType::Str;
            strings.push(if is_text { tensor.strings()? } else { Vec::new() });
        }
        let words = words_of(strings.iter().flatten().copied());
        let shared = |(tensor, strings): (&&Tensor, &Vec<&str>)| match tensor.dtype() {
            DType::Str => Tensor::in_words(tensor.shape(), strings, words.clone()),
            _ => Ok((*tensor).clone()),
        };
        tensors.iter().zip(&strings).map(shared).collect()
    }

    /// The tensor with the words of `other`, if it is one of strings that has none of its own: one
    /// whose elements were moved there from `other` as numbers.
    pub fn with_words_of(mut self, other: &Tensor) -> Tensor {
        if self.dtype() == DType::Str && self.words.is_none() {
            self.words = other.words.clone();
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_come_back_and_compare_as_strings() {
        let a = Tensor::from_strings([2, 2], &["b", "", "zebra", "b"]).unwrap();
        assert_eq!(a.strings().unwrap(), ["b", "", "zebra", "b"]);
        assert_eq!(a.reshaped([4]).unwrap().strings().unwrap()[2], "zebra");
        let b = Tensor::from_strings([2, 2], &["b", "", "zebra", "b"]).unwrap();
        assert_eq!(a, b);
        assert_ne!(a, Tensor::from_strings([2, 2], &["b", "", "zebra", "c"]).unwrap());
        assert_eq!(Tensor::zeros(DType::Str, [2]).unwrap().strings().unwrap(), ["", ""]);
        assert!(Tensor::scalar(1.0f32).strings().is_err());
    }

    #[test]
    fn shared_words_keep_order_and_equality() {
        let a = Tensor::from_strings([2], &["dog", "cat"]).unwrap();
        let b = Tensor::from_strings([2], &["ape", "dog"]).unwrap();
        let n = Tensor::scalar(3i64);
        let shared = Tensor::with_shared_words(&[&a, &n, &b]).unwrap();
        assert_eq!((&shared[0], &shared[1], &shared[2]), (&a, &n, &b));
        assert_eq!(shared[0].bytes()[..4], shared[2].bytes()[4..]);
        let moved = Tensor::new(DType::Str, [2], Storage::copied(shared[2].bytes())).unwrap();
        assert_eq!(moved.with_words_of(&shared[0]), b);
    }
}
