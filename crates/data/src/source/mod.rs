//! Where rows come from. Every kind of source is one row of the `match` in [`open`].

mod archive;
mod csv;
mod folder;
mod idx;
mod numpy;
mod stream;

use std::fmt;
use std::path::{Path, PathBuf};

use lepton_tensor::DType;

use crate::cache::Cache;
use crate::labels::{Labels, read_classes};
use crate::options::{DataOptions, Kind, OneOrMany, StoredLayout};
use crate::{DataError, image::is_image};

/// One input of a row, as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Stored {
    /// Name of the input; "" for "the only one".
    pub(crate) name: String,
    pub(crate) dtype: DType,
    /// Extents of one row.
    pub(crate) shape: Vec<usize>,
    /// The axis order, where the kind of source settles it.
    pub(crate) layout: Option<StoredLayout>,
}

impl Stored {
    pub(crate) fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.elements() * self.dtype.size()
    }
}

/// Reads rows in increasing order.
pub(crate) trait RowReader {
    /// Puts the row's bytes, input after input, into `into`, which is empty.
    fn read(&mut self, row: usize, into: &mut Vec<u8>) -> Result<(), DataError>;
}

type Opener = dyn Fn() -> Result<Box<dyn RowReader>, DataError> + Send + Sync;

/// An opened source: what its rows are, and how to read them again and again.
pub(crate) struct Source {
    pub(crate) file: PathBuf,
    pub(crate) rows: usize,
    pub(crate) inputs: Vec<Stored>,
    pub(crate) labels: Option<Labels>,
    /// Every file the rows and labels come from, for the content hash.
    pub(crate) files: Vec<PathBuf>,
    pub(crate) cache: Cache,
    reader: Box<Opener>,
}

impl Source {
    pub(crate) fn reader(&self) -> Result<Box<dyn RowReader>, DataError> {
        (self.reader)()
    }

    pub(crate) fn row_bytes(&self) -> usize {
        self.inputs.iter().map(Stored::bytes).sum()
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Source({}, {} rows)", self.file.display(), self.rows)
    }
}

/// Opens the source that `options.path` names and reads all of it but its rows.
pub(crate) fn open(options: &DataOptions) -> Result<Source, DataError> {
    let Some(path) = options.path.clone() else {
        let message = "the description names no `path`".to_owned();
        return Err(DataError::Options { file: PathBuf::new(), message });
    };
    let kind = match options.kind {
        Some(kind) => kind,
        None => detect(&path)?,
    };
    let source = match kind {
        Kind::Npz | Kind::Npy => numpy::open(&path, kind, options),
        Kind::Folder => folder::open(&path, options),
        Kind::Tar => archive::open(&path, options),
        Kind::Idx => idx::open(&path, options),
        Kind::Csv => csv::open(&path, options),
    }?;
    if source.rows == 0 {
        return Err(DataError::Empty { file: path, hint: String::new() });
    }
    check_extent(&source)?;
    if let Some(labels) = &source.labels
        && labels.rows() != source.rows
    {
        let (rows, given) = (source.rows, labels.rows());
        return Err(DataError::broken(&path, format!("{rows} rows but {given} labels")));
    }
    Ok(source)
}

/// Deflate cannot expand more than this, so a larger claim is a lie.
pub(crate) const MAX_EXPANSION: u64 = 1032;

/// Refuses rows without elements, and more rows than the file could hold, before anything is
/// allocated for them.
fn check_extent(source: &Source) -> Result<(), DataError> {
    if source.row_bytes() == 0 {
        return Err(DataError::broken(&source.file, "its rows have no elements"));
    }
    if u32::try_from(source.rows).is_err() {
        return Err(DataError::options(&source.file, "more than 2³² rows; split the file"));
    }
    if source.file.is_dir() {
        return Ok(());
    }
    let length = source.file.metadata().map_err(DataError::file(&source.file))?.len();
    if source.rows as u64 > length.saturating_mul(MAX_EXPANSION) {
        let message = format!("claims {} rows in {length} bytes: it is cut off", source.rows);
        return Err(DataError::broken(&source.file, message));
    }
    Ok(())
}

fn detect(path: &Path) -> Result<Kind, DataError> {
    let metadata = path.metadata().map_err(DataError::file(path))?;
    if metadata.is_dir() {
        return Ok(Kind::Folder);
    }
    let name = path.file_name().map(|name| name.to_string_lossy().to_ascii_lowercase());
    let name = name.unwrap_or_default();
    let ends = |ends: &[&str]| ends.iter().any(|end| name.ends_with(end));
    Ok(match () {
        () if ends(&[".npz"]) => Kind::Npz,
        () if ends(&[".npy"]) => Kind::Npy,
        () if ends(&[".tar", ".tar.gz", ".tgz"]) => Kind::Tar,
        () if ends(&[".csv", ".csv.gz"]) => Kind::Csv,
        () if ends(&["-ubyte", "-ubyte.gz", ".idx", ".idx.gz"]) => Kind::Idx,
        () if is_image(&name) => {
            let hint = "is a single image; put images into one folder a class";
            return Err(DataError::options(path, hint));
        }
        () => {
            let hint =
                "unknown kind of data; name it with `kind` (npz, npy, folder, tar, idx, csv)";
            return Err(DataError::options(path, hint));
        }
    })
}

/// The name that a single-input source gives its input.
fn only_name(path: &Path, options: &DataOptions) -> Result<String, DataError> {
    match options.input.as_ref().map(OneOrMany::as_slice) {
        None => Ok(String::new()),
        Some([name]) => Ok(name.clone()),
        Some(names) => {
            let message = format!("`input` names {} inputs, this source feeds one", names.len());
            Err(DataError::options(path, message))
        }
    }
}

fn classes(options: &DataOptions) -> Result<Option<Vec<String>>, DataError> {
    options.classes.as_deref().map(read_classes).transpose()
}
