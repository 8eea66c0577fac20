//! Which rows a part of the data has, and in which order they come.

use oorandom::Rand64;

use crate::{DataOptions, Split};

/// How train and test were told apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SplitOrigin {
    /// By `[train]` and `[test]` tables.
    Tables,
    /// By the `split` key: this share is for training.
    Share(f64),
    /// Not told: half of the rows each, drawn by the seed.
    Assumed,
}

impl SplitOrigin {
    fn train_share(self) -> Option<f64> {
        match self {
            SplitOrigin::Tables => None,
            SplitOrigin::Share(share) => Some(share),
            SplitOrigin::Assumed => Some(0.5),
        }
    }
}

/// A permutation in place (Fisher and Yates).
pub(crate) fn shuffle<T>(items: &mut [T], random: &mut Rand64) {
    for i in (1..items.len()).rev() {
        items.swap(i, random.rand_range(0..i as u64 + 1) as usize);
    }
}

pub(crate) fn random(seed: u64, purpose: u64) -> Rand64 {
    Rand64::new(u128::from(seed) << 64 | u128::from(purpose))
}

/// The rows of a part in the order they are stored.
pub(crate) fn rows(
    total: usize,
    split: Split,
    origin: SplitOrigin,
    options: &DataOptions,
) -> Vec<u32> {
    let seed = options.seed.unwrap_or(0);
    let mut rows: Vec<u32> = (0..total as u32).collect();
    if let Some(share) = origin.train_share()
        && split != Split::All
    {
        shuffle(&mut rows, &mut random(seed, 1));
        let for_training = (total as f64 * share).round() as usize;
        rows = match split {
            Split::Train => rows[..for_training].to_vec(),
            _ => rows[for_training..].to_vec(),
        };
        rows.sort_unstable();
    }
    if let Some(limit) = options.limit
        && limit < rows.len()
    {
        if options.shuffle == Some(true) {
            shuffle(&mut rows, &mut random(seed, 2));
        }
        rows.truncate(limit);
        rows.sort_unstable();
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn train_and_test_are_disjoint_and_together_all() {
        let options = DataOptions { seed: Some(3), ..Default::default() };
        let part = |split| rows(101, split, SplitOrigin::Share(0.8), &options);
        let (train, test) = (part(Split::Train), part(Split::Test));
        assert_eq!((train.len(), test.len()), (81, 20));
        let mut both = [train.clone(), test].concat();
        both.sort_unstable();
        assert_eq!(both, part(Split::All));
        assert_eq!(train, part(Split::Train));
        let other = DataOptions { seed: Some(4), ..Default::default() };
        assert_ne!(train, rows(101, Split::Train, SplitOrigin::Share(0.8), &other));
    }

    #[test]
    fn limits_take_the_first_or_any() {
        let mut options = DataOptions { limit: Some(5), ..Default::default() };
        assert_eq!(rows(100, Split::All, SplitOrigin::Tables, &options), [0, 1, 2, 3, 4]);
        options.shuffle = Some(true);
        let any = rows(100, Split::All, SplitOrigin::Tables, &options);
        assert!(any.len() == 5 && any.is_sorted() && any[4] > 4, "{any:?}");
    }
}
