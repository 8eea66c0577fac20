//! Data sets as streams of named tensors in bounded memory.
//!
//! A [`DataSet`] is opened from a file, a folder, or a TOML description that names a source and its
//! preprocessing. A [`Subset`] of it (all, train or test) yields the same batches every time it is
//! asked. Rows are read as they are needed; what was read once is kept in a cache of at most
//! [`CACHE_BYTES`].
//!
//! | source | rows are |
//! |---|---|
//! | `.npz`, `.npy` | slices of the arrays along their first axis |
//! | folder | images, classed by the name of their sub-folder |
//! | `.tar`, `.tar.gz` | images, classed by a part of their name |
//! | IDX (`….gz` or not) | images of the MNIST family |
//! | `.csv`, `.csv.gz` | lines of numbers, one column of them the label |

#![forbid(unsafe_code)]

mod cache;
mod dataset;
mod describe;
mod error;
mod image;
mod labels;
mod npy;
mod npz;
mod options;
mod preprocess;
mod resize;
mod select;
mod source;

pub use cache::CACHE_BYTES;
pub use dataset::{Batch, Batches, DataSet, InputSpec, Split, Subset};
pub use error::DataError;
pub use npz::{MAX_ARRAY_BYTES, read_npz, write_npz};
pub use options::{Channels, DataOptions, Factor, Kind, OneOrMany, StoredLayout};
pub use select::SplitOrigin;
