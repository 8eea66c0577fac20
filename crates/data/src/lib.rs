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
//!
//! ```
//! use lepton_data::{DataOptions, DataSet, Split};
//!
//! # fn main() -> Result<(), lepton_data::DataError> {
//! # let path = std::env::temp_dir().join(format!("lepton-data-{}.csv", std::process::id()));
//! # std::fs::write(&path, "a,b,label\n1,2,0\n3,4,1\n5,6,0\n7,8,1\n").unwrap();
//! let options = DataOptions { split: Some(0.5), ..Default::default() };
//! let data = DataSet::open(&path, &options)?;
//! for batch in data.split(Split::Test)?.batches(32) {
//!     let batch = batch?;
//!     assert_eq!(batch.inputs[0].1.shape(), [2, 2]);
//!     assert_eq!(batch.labels.unwrap().shape(), [2]);
//! }
//! # std::fs::remove_file(&path).unwrap();
//! # Ok(())
//! # }
//! ```

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
