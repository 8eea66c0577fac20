//! The keys of a data description: one struct for TOML, the command line, Python and the server.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What the source is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Arrays in a zip archive.
    Npz,
    /// One array.
    Npy,
    /// Images in one sub-folder a class.
    Folder,
    /// Images in a tar archive, compressed or not.
    Tar,
    /// MNIST's format, compressed or not.
    Idx,
    /// Numbers as text, compressed or not.
    Csv,
}

/// The order of the axes of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoredLayout {
    /// Channels first.
    Nchw,
    /// Channels last.
    Nhwc,
}

/// Which channels an image gives, in which order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Channels {
    /// Red, green, blue.
    Rgb,
    /// Blue, green, red.
    Bgr,
    /// One channel: 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601).
    Grey,
}

/// One value, or a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany<T> {
    /// One for all.
    One(T),
    /// One each.
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    /// The values as a slice; a single value is a slice of one.
    pub fn as_slice(&self) -> &[T] {
        match self {
            OneOrMany::One(value) => std::slice::from_ref(value),
            OneOrMany::Many(values) => values,
        }
    }
}

/// A number, or a quotient as text: `"1/255"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Factor {
    /// The number itself.
    Number(f64),
    /// A numerator, `/`, a denominator.
    Quotient(String),
}

impl Factor {
    /// The number, or `None` where the text is no quotient of finite numbers.
    pub fn value(&self) -> Option<f64> {
        let value = match self {
            Factor::Number(value) => *value,
            Factor::Quotient(text) => {
                let (numerator, denominator) = text.split_once('/')?;
                let number = |text: &str| text.trim().parse::<f64>().ok();
                number(numerator)? / number(denominator)?
            }
        };
        value.is_finite().then_some(value)
    }
}

macro_rules! options {
    ($($(#[$doc:meta])* $key:ident: $type:ty,)*) => {
        /// How to read a source. Every key is optional; no key means "as it is stored".
        ///
        /// The order of preprocessing: decode → `channels` → `resize` → `crop` → `scale` →
        /// `mean`, `std` (`(value · scale − mean) / std`) → `layout` → `dtype`.
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct DataOptions {
            $(
                $(#[$doc])*
                #[serde(skip_serializing_if = "Option::is_none")]
                pub $key: Option<$type>,
            )*
        }

        /// A TOML description: the keys, and tables that override them for a part.
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        pub(crate) struct DescriptionFile {
            $($key: Option<$type>,)*
            train: Option<DataOptions>,
            test: Option<DataOptions>,
        }

        impl DescriptionFile {
            /// The keys outside tables, `[train]`, `[test]`.
            pub(crate) fn parts(self) -> (DataOptions, Option<DataOptions>, Option<DataOptions>) {
                (DataOptions { $($key: self.$key,)* }, self.train, self.test)
            }
        }

        impl DataOptions {
            /// Every key.
            pub const KEYS: &'static [&'static str] = &[$(stringify!($key)),*];

            /// These options, with those that `over` sets in their place.
            pub fn overridden_by(&self, over: &DataOptions) -> DataOptions {
                DataOptions { $($key: over.$key.clone().or_else(|| self.$key.clone()),)* }
            }
        }
    };
}

options! {
    /// The source; in a TOML file relative to that file.
    path: PathBuf,
    /// What the source is; found from its name and first bytes otherwise.
    kind: Kind,
    /// Name of the model input the rows feed (a list for several arrays). Default: the array's
    /// name, or "" for "the only input".
    input: OneOrMany<String>,
    /// Arrays of an `.npz` that are inputs. Default: all numeric arrays that are not labels.
    array: OneOrMany<String>,
    /// Array of an `.npz`, or file (`.npy` or IDX, relative like `path`), that holds the labels.
    /// Default: the array `labels`; for `train-images-idx3…` the file `train-labels-idx1…`.
    labels: String,
    /// File with one class name a line, in the order of the class indices.
    classes: PathBuf,
    /// Regular expression whose first group is the label within an archived image's name.
    /// Default: `_([^_/]*)\.[^./]*$`, as in `00012_cat.jpg`.
    label_pattern: String,
    /// Axis order the arrays are stored in. Images are decoded as nhwc; for arrays it is found
    /// from an axis of 1, 3 or 4 where that is unambiguous.
    stored_layout: StoredLayout,
    /// Axis order wanted. Rows of two axes get a channel axis of 1.
    layout: StoredLayout,
    /// Element type wanted ("f32", "i8", …; floats are rounded to integers, halves to even, and
    /// saturate). Default: f32 where `scale`, `mean` or `std` is set, else the stored type.
    dtype: String,
    /// Factor applied first, such as `"1/255"`.
    scale: Factor,
    /// Subtracted next: one number, or one a channel (or column).
    mean: OneOrMany<f64>,
    /// Divided by last: one number, or one a channel (or column).
    std: OneOrMany<f64>,
    /// Size to resize images to: a number for the shorter side, or `[height, width]`. Bilinear
    /// with the filter widened when shrinking, as Pillow's `BILINEAR`.
    resize: OneOrMany<usize>,
    /// Size to cut from the centre: a number for a square, or `[height, width]`.
    crop: OneOrMany<usize>,
    /// Channels of the decoded image. Default: those it has.
    channels: Channels,
    /// True where the first line of a text file names the columns. Default: where none of its
    /// fields is a number.
    header: bool,
    /// Columns that are features, by name or by index from 0. Default: all but the label.
    columns: Vec<String>,
    /// Column that is the label, by name or by index from 0. Default: the one called label,
    /// labels, class, target or y, in any case.
    label_column: String,
    /// Columns to leave out, by name or by index from 0.
    drop: Vec<String>,
    /// Share of the rows that is for training (calibration, tuning), drawn by `seed`; the rest is
    /// for testing.
    split: f64,
    /// Use at most this many rows: the first, or with `shuffle` any.
    limit: usize,
    /// Take rows in random order (by `seed`), within what a buffer of 64 MiB holds.
    shuffle: bool,
    /// Seed of `split` and `shuffle`. Default 0.
    seed: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotients_are_exact() {
        assert_eq!(Factor::Quotient("1/255".into()).value(), Some(1.0 / 255.0));
        assert_eq!(Factor::Quotient("1 / 0".into()).value(), None);
        assert_eq!(Factor::Quotient("one".into()).value(), None);
        assert_eq!(Factor::Number(0.5).value(), Some(0.5));
    }

    #[test]
    fn overriding_keeps_what_is_not_set() {
        let base = DataOptions { limit: Some(5), seed: Some(1), ..Default::default() };
        let over = DataOptions { seed: Some(2), ..Default::default() };
        let both = base.overridden_by(&over);
        assert_eq!((both.limit, both.seed), (Some(5), Some(2)));
        assert!(DataOptions::KEYS.contains(&"label_column"));
    }
}
