//! An opened data set, its parts, and the batches they yield.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lepton_tensor::{DType, Tensor};

use crate::cache::CACHE_BYTES;
use crate::preprocess::Preprocess;
use crate::select::{self, SplitOrigin};
use crate::source::{self, RowReader, Source};
use crate::{DataError, DataOptions, describe};

/// A part of the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// Every row.
    All,
    /// Rows for calibration, tuning and training.
    Train,
    /// Rows for evaluation, which nothing else may see.
    Test,
}

/// Name, element type and shape of one row of an input.
#[derive(Clone, Debug, PartialEq)]
pub struct InputSpec {
    /// Name of the model input; "" for "the only one".
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Extents of one row, without the batch axis.
    pub shape: Vec<usize>,
}

/// Some rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// Name and `[N, …]` tensor of each input, in the order of [`Subset::inputs`].
    pub inputs: Vec<(String, Tensor)>,
    /// `[N]` class indices (i64) or `[N, …]` targets (f32), where the data has labels.
    pub labels: Option<Tensor>,
}

#[derive(Debug)]
struct Part {
    source: Source,
    plans: Vec<Preprocess>,
    options: DataOptions,
}

impl Part {
    fn open(options: DataOptions) -> Result<Self, DataError> {
        let source = source::open(&options)?;
        let file = &source.file;
        let changes = [
            ("scale", options.scale.is_some()),
            ("mean", options.mean.is_some()),
            ("std", options.std.is_some()),
            ("layout", options.layout.is_some()),
        ];
        let change = changes.iter().find(|(_, set)| *set);
        if let (Some((key, _)), 2..) = (change, source.inputs.len()) {
            let message = format!("`{key}` needs a single input; choose one with `array`");
            return Err(DataError::options(file, message));
        }
        let plans = source.inputs.iter().map(|input| Preprocess::new(file, input, &options));
        let plans = plans.collect::<Result<_, _>>()?;
        Ok(Part { source, plans, options })
    }
}

/// An opened data set: the parts that train and test are taken from.
#[derive(Clone, Debug)]
pub struct DataSet {
    file: PathBuf,
    parts: Parts,
}

#[derive(Clone, Debug)]
enum Parts {
    One(Arc<Part>, SplitOrigin),
    Tables { train: Option<Arc<Part>>, test: Option<Arc<Part>> },
}

impl DataSet {
    /// Opens a source, or a `.toml` description of one; `options` go before what the description
    /// says.
    ///
    /// # Errors
    /// Every error of a description, of options that do not fit, and of a broken or empty source.
    /// Rows are read later, so a broken row shows in [`Subset::batches`].
    pub fn open(path: &Path, options: &DataOptions) -> Result<Self, DataError> {
        let is_description = path.extension().is_some_and(|extension| extension == "toml");
        let description = match is_description {
            true => describe::read(path)?,
            false => {
                let base = DataOptions { path: Some(path.to_owned()), ..Default::default() };
                describe::Description { base, train: None, test: None }
            }
        };
        let part = |table: &DataOptions| {
            Part::open(description.base.overridden_by(table).overridden_by(options)).map(Arc::new)
        };
        let parts = match (&description.train, &description.test) {
            (None, None) => {
                let part = part(&DataOptions::default())?;
                let origin = origin(path, part.options.split)?;
                Parts::One(part, origin)
            }
            (train, test) => {
                if description.base.overridden_by(options).split.is_some() {
                    let message = "`split` divides one source; it has [train] and [test] already";
                    return Err(DataError::options(path, message));
                }
                let train = train.as_ref().map(part).transpose()?;
                let test = test.as_ref().map(part).transpose()?;
                if let (Some(train), Some(test)) = (&train, &test) {
                    fit_together(path, train, test)?;
                }
                Parts::Tables { train, test }
            }
        };
        Ok(DataSet { file: path.to_owned(), parts })
    }

    /// The rows of a part.
    ///
    /// Without `[train]`/`[test]` tables and without `split`, half of the rows are for training;
    /// [`Subset::split_origin`] says so.
    pub fn split(&self, split: Split) -> Result<Subset, DataError> {
        let (part, origin) = match (&self.parts, split) {
            (Parts::One(part, origin), _) => (part, *origin),
            (Parts::Tables { train: Some(part), .. }, Split::Train)
            | (Parts::Tables { test: Some(part), .. }, Split::Test)
            | (Parts::Tables { train: Some(part), test: None }, Split::All)
            | (Parts::Tables { train: None, test: Some(part) }, Split::All) => {
                (part, SplitOrigin::Tables)
            }
            (Parts::Tables { .. }, Split::All) => {
                let message = "has separate [train] and [test] rows; ask for one of them";
                return Err(DataError::options(&self.file, message));
            }
            (Parts::Tables { .. }, Split::Train) => {
                let message =
                    "has no [train] table; add one with the rows to calibrate and tune on";
                return Err(DataError::options(&self.file, message));
            }
            (Parts::Tables { .. }, Split::Test) => {
                let message = "has no [test] table; add one with the rows to evaluate on";
                return Err(DataError::options(&self.file, message));
            }
        };
        let rows = select::rows(part.source.rows, split, origin, &part.options);
        if rows.is_empty() {
            let hint = format!(" left for {split:?} by `split` and `limit`");
            return Err(DataError::Empty { file: self.file.clone(), hint });
        }
        let names = part.plans.iter().map(|plan| plan.spec().name.clone()).collect();
        Ok(Subset { part: part.clone(), rows: Arc::new(rows), names, origin })
    }
}

fn origin(path: &Path, split: Option<f64>) -> Result<SplitOrigin, DataError> {
    match split {
        None => Ok(SplitOrigin::Assumed),
        Some(share) if (0.0..=1.0).contains(&share) => Ok(SplitOrigin::Share(share)),
        Some(share) => {
            let message = format!("`split` is {share}; it is the share for training, 0 to 1");
            Err(DataError::options(path, message))
        }
    }
}

/// Train and test must not be the same rows, and must call classes by the same index.
fn fit_together(path: &Path, train: &Part, test: &Part) -> Result<(), DataError> {
    let rows = |part: &Part| {
        let DataOptions { path, array, .. } = part.options.clone();
        (path.and_then(|path| path.canonicalize().ok()), array)
    };
    if rows(train) == rows(test) {
        let message = "[train] and [test] are the same rows; use `split = 0.8` to divide them";
        return Err(DataError::options(path, message));
    }
    let classes = |part: &Part| part.source.labels.as_ref().and_then(|l| l.classes.clone());
    if let (Some(a), Some(b)) = (classes(train), classes(test))
        && a != b
    {
        let message = "[train] and [test] have different classes; list them in a `classes` file";
        return Err(DataError::options(path, message));
    }
    Ok(())
}

/// The rows of one part, which can be read as often as wanted.
#[derive(Clone, Debug)]
pub struct Subset {
    part: Arc<Part>,
    rows: Arc<Vec<u32>>,
    names: Vec<String>,
    origin: SplitOrigin,
}

impl Subset {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Never true: a part without rows cannot be opened.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// What the batches feed.
    pub fn inputs(&self) -> Vec<InputSpec> {
        let named = |(plan, name): (&Preprocess, &String)| InputSpec {
            name: name.clone(),
            ..plan.spec().clone()
        };
        self.part.plans.iter().zip(&self.names).map(named).collect()
    }

    /// `count` rows drawn by `seed`, and the others; each in the order they are stored. `None`
    /// where a part would be empty.
    pub fn divide(&self, count: usize, seed: u64) -> Option<(Self, Self)> {
        let mut rows = self.rows.to_vec();
        if count == 0 || count >= rows.len() {
            return None;
        }
        select::shuffle(&mut rows, &mut select::random(seed, 4));
        let mut rest = rows.split_off(count);
        rows.sort_unstable();
        rest.sort_unstable();
        let with = |rows: Vec<u32>| Subset { rows: Arc::new(rows), ..self.clone() };
        Some((with(rows), with(rest)))
    }

    /// True where rows have labels.
    pub fn has_labels(&self) -> bool {
        self.part.source.labels.is_some()
    }

    /// Fails, saying how to name them, where there are no labels.
    pub fn require_labels(&self) -> Result<(), DataError> {
        if self.has_labels() {
            return Ok(());
        }
        let hint = "name them with `labels` (arrays, IDX), `label_column` (CSV), `label_pattern` \
                    (archive) or sub-folders (images)";
        Err(DataError::MissingLabels { file: self.part.source.file.clone(), hint: hint.into() })
    }

    /// Names of the classes in the order of their index, where known.
    pub fn classes(&self) -> Option<&[String]> {
        self.part.source.labels.as_ref()?.classes.as_deref()
    }

    /// How train and test were told apart.
    pub fn split_origin(&self) -> SplitOrigin {
        self.origin
    }

    /// The same rows, named for a model with these inputs: names that match stay, a single input
    /// feeds a single input whatever it is called.
    pub fn for_inputs(&self, names: &[&str]) -> Result<Self, DataError> {
        if names.iter().all(|name| self.names.iter().any(|own| own == name)) {
            return Ok(self.clone());
        }
        if let ([_], [name]) = (&*self.names, names) {
            return Ok(Subset { names: vec![(*name).to_owned()], ..self.clone() });
        }
        let message = format!(
            "feeds `{}`, the model wants `{}`; match them with `array` and `input`",
            self.names.join("`, `"),
            names.join("`, `")
        );
        Err(DataError::options(&self.part.source.file, message))
    }

    /// The rows in batches of `size` (the last may be smaller), in random order if the options say
    /// `shuffle`.
    ///
    /// After an error the iterator ends.
    ///
    /// # Panics
    /// If `size` is 0.
    pub fn batches(&self, size: usize) -> Batches {
        let options = &self.part.options;
        let seed = (options.shuffle == Some(true)).then(|| options.seed.unwrap_or(0));
        self.batches_with(size, seed)
    }

    /// The rows in batches, in an order drawn by `seed` within what a buffer of [`CACHE_BYTES`]
    /// holds; another seed for each epoch of a training.
    ///
    /// # Panics
    /// If `size` is 0.
    pub fn shuffled_batches(&self, size: usize, seed: u64) -> Batches {
        self.batches_with(size, Some(seed))
    }

    fn batches_with(&self, size: usize, seed: Option<u64>) -> Batches {
        assert!(size > 0, "a batch holds at least one row");
        Batches {
            subset: self.clone(),
            size,
            next: 0,
            random: seed.map(|seed| select::random(seed, 3)),
            reader: None,
            window: VecDeque::new(),
            failed: false,
        }
    }

    /// 64 hexadecimal digits (BLAKE3) that stand for these rows: the bytes of the files, the
    /// options but for paths, and which rows.
    pub fn content_hash(&self) -> Result<String, DataError> {
        let mut hasher = blake3::Hasher::new();
        let pathless = DataOptions { path: None, classes: None, ..self.part.options.clone() };
        hasher.update(serde_json::to_string(&pathless).expect("options are JSON").as_bytes());
        for row in self.rows.iter() {
            hasher.update(&row.to_le_bytes());
        }
        let classes = self.part.options.classes.iter();
        for path in self.part.source.files.iter().chain(classes) {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
            hasher.update(name.unwrap_or_default().as_bytes());
            let mut file = File::open(path).map_err(DataError::file(path))?;
            io::copy(&mut file, &mut hasher).map_err(DataError::file(path))?;
        }
        Ok(hasher.finalize().to_hex().to_string())
    }
}

/// Iterator over the batches of a [`Subset`].
pub struct Batches {
    subset: Subset,
    size: usize,
    /// Position in the subset's rows of the next row to read.
    next: usize,
    random: Option<oorandom::Rand64>,
    reader: Option<Box<dyn RowReader>>,
    /// Rows read but not yet handed out.
    window: VecDeque<(u32, Arc<[u8]>)>,
    failed: bool,
}

impl Batches {
    fn read_row(&mut self) -> Result<(), DataError> {
        let source = &self.subset.part.source;
        let row = self.subset.rows[self.next];
        self.next += 1;
        if let Some(bytes) = source.cache.get(row) {
            self.window.push_back((row, bytes));
            return Ok(());
        }
        let reader = match &mut self.reader {
            Some(reader) => reader,
            none => none.insert(source.reader()?),
        };
        let mut bytes = Vec::with_capacity(source.row_bytes());
        reader.read(row as usize, &mut bytes)?;
        check_finite(source, row, &bytes)?;
        source.cache.put(row, &bytes);
        self.window.push_back((row, bytes.into()));
        Ok(())
    }

    /// Rows that are read ahead: a batch, or for shuffling what the buffer holds.
    fn window_rows(&self) -> usize {
        match self.random {
            None => self.size,
            Some(_) => (CACHE_BYTES / self.subset.part.source.row_bytes().max(1)).max(self.size),
        }
    }

    fn next_batch(&mut self) -> Result<Option<Batch>, DataError> {
        if self.window.len() < self.size && self.next < self.subset.len() {
            let rows = self.window_rows();
            while self.window.len() < rows && self.next < self.subset.len() {
                self.read_row()?;
            }
            if let Some(random) = &mut self.random {
                select::shuffle(self.window.make_contiguous(), random);
            }
        }
        let taken: Vec<_> = self.window.drain(..self.size.min(self.window.len())).collect();
        if taken.is_empty() {
            return Ok(None);
        }
        let part = &self.subset.part;
        let mut start = 0;
        let mut inputs = Vec::new();
        for (stored, (plan, name)) in
            part.source.inputs.iter().zip(part.plans.iter().zip(&self.subset.names))
        {
            let end = start + stored.bytes();
            let mut bytes = Vec::with_capacity(stored.bytes() * taken.len());
            taken.iter().for_each(|(_, row)| bytes.extend_from_slice(&row[start..end]));
            inputs.push((name.clone(), plan.apply(&bytes, taken.len())));
            start = end;
        }
        let rows: Vec<u32> = taken.iter().map(|(row, _)| *row).collect();
        let labels = part.source.labels.as_ref().map(|labels| labels.gather(&rows));
        Ok(Some(Batch { inputs, labels }))
    }
}

impl Iterator for Batches {
    type Item = Result<Batch, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let batch = self.next_batch().transpose();
        self.failed = matches!(batch, Some(Err(_)));
        batch
    }
}

/// Floating-point inputs must be finite; one NaN would poison every statistic taken from them.
fn check_finite(source: &Source, row: u32, bytes: &[u8]) -> Result<(), DataError> {
    let mut start = 0;
    for input in &source.inputs {
        let end = start + input.bytes();
        if input.dtype.is_float() {
            let storage = lepton_tensor::Storage::copied(&bytes[start..end]);
            let tensor = Tensor::new(input.dtype, [input.elements()], storage)
                .map_err(|error| DataError::broken(&source.file, error))?;
            let values = tensor.to_f64_vec();
            if let Some(at) = values.iter().position(|value| !value.is_finite()) {
                let array = if input.name.is_empty() { "array" } else { &input.name };
                return Err(DataError::Value {
                    file: source.file.clone(),
                    row: row as usize,
                    column: format!("`{array}` element {at}"),
                    message: format!("the value is {}", values[at]),
                });
            }
        }
        start = end;
    }
    Ok(())
}
