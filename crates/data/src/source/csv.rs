//! Lines of numbers, with one column of labels or none.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use csv::{Reader, ReaderBuilder, StringRecord, Trim};
use lepton_tensor::DType;

use super::stream;
use super::{RowReader, Source, Stored, classes, only_name};
use crate::labels::Labels;
use crate::{DataError, DataOptions};

/// Columns taken for the label where the options name none.
const LABELS: [&str; 5] = ["label", "labels", "class", "target", "y"];

/// Which columns are what.
struct Columns {
    header: bool,
    /// Name of every column; its index where there is no header.
    names: Vec<String>,
    features: Vec<usize>,
    label: Option<usize>,
}

type Lines = Reader<Box<dyn Read>>;

fn lines(file: &Path, header: bool) -> Result<Lines, DataError> {
    let reader = stream::open(file).map_err(DataError::file(file))?;
    Ok(ReaderBuilder::new().has_headers(header).trim(Trim::All).from_reader(reader))
}

fn next(file: &Path, lines: &mut Lines, record: &mut StringRecord) -> Result<bool, DataError> {
    lines.read_record(record).map_err(|error| {
        // The crate's message names the line and both numbers of fields.
        DataError::broken(file, format!("{error}"))
    })
}

fn line(record: &StringRecord) -> usize {
    record.position().map_or(0, |position| position.line() as usize)
}

pub(super) fn open(path: &Path, options: &DataOptions) -> Result<Source, DataError> {
    let columns = columns(path, options)?;
    let (mut texts, mut at, mut rows) = (Vec::new(), Vec::new(), 0);
    let mut reader = lines(path, columns.header)?;
    let mut record = StringRecord::new();
    while next(path, &mut reader, &mut record)? {
        rows += 1;
        if let Some(label) = columns.label {
            texts.push(record[label].to_owned());
            at.push(line(&record) as u32);
        }
    }
    let labels = match columns.label {
        None => None,
        Some(label) => {
            let place = |row: usize| (at[row] as usize, column_name(&columns.names[label]));
            Some(Labels::from_texts(path, &texts, classes(options)?, place)?)
        }
    };
    let stored = Stored {
        name: only_name(path, options)?,
        dtype: DType::F32,
        shape: vec![columns.features.len()],
        layout: None,
    };
    let (file, columns) = (path.to_owned(), Arc::new(columns));
    Ok(Source {
        file: path.to_owned(),
        rows,
        inputs: vec![stored],
        labels,
        files: vec![path.to_owned()],
        cache: Default::default(),
        reader: Box::new(move || {
            let lines = lines(&file, columns.header)?;
            let (file, columns) = (file.clone(), columns.clone());
            Ok(Box::new(CsvRows { lines, record: StringRecord::new(), next: 0, file, columns }))
        }),
    })
}

fn column_name(name: &str) -> String {
    format!("column `{name}`")
}

fn columns(path: &Path, options: &DataOptions) -> Result<Columns, DataError> {
    let mut first = StringRecord::new();
    if !next(path, &mut lines(path, false)?, &mut first)? {
        return Err(DataError::Empty { file: path.to_owned(), hint: " (an empty file)".into() });
    }
    let header =
        options.header.unwrap_or_else(|| first.iter().all(|field| field.parse::<f64>().is_err()));
    let names: Vec<String> = match header {
        true => first.iter().map(str::to_owned).collect(),
        false => (0..first.len()).map(|index| index.to_string()).collect(),
    };
    let find = |key: &str, wanted: &String| {
        let by_name = names.iter().position(|name| name == wanted);
        let by_index = || wanted.parse().ok().filter(|&index: &usize| index < names.len());
        by_name.or_else(by_index).ok_or_else(|| {
            let known = names.join(", ");
            DataError::options(path, format!("`{key}`: no column `{wanted}`; there are: {known}"))
        })
    };
    let find_all = |key: &str, wanted: &Option<Vec<String>>| {
        wanted.iter().flatten().map(|name| find(key, name)).collect::<Result<Vec<_>, _>>()
    };
    let is_label = |name: &String| LABELS.contains(&name.to_ascii_lowercase().as_str());
    let label = match &options.label_column {
        Some(name) => Some(find("label_column", name)?),
        None if header => names.iter().position(is_label),
        None => None,
    };
    let dropped = find_all("drop", &options.drop)?;
    let mut features = find_all("columns", &options.columns)?;
    if options.columns.is_none() {
        features = (0..names.len()).filter(|&column| Some(column) != label).collect();
    }
    features.retain(|column| !dropped.contains(column));
    if features.is_empty() {
        return Err(DataError::options(path, "no column is left as a feature"));
    }
    Ok(Columns { header, names, features, label })
}

struct CsvRows {
    lines: Lines,
    record: StringRecord,
    /// Index of the row that comes next.
    next: usize,
    file: PathBuf,
    columns: Arc<Columns>,
}

impl RowReader for CsvRows {
    fn read(&mut self, row: usize, into: &mut Vec<u8>) -> Result<(), DataError> {
        while self.next <= row {
            if !next(&self.file, &mut self.lines, &mut self.record)? {
                let message = "the file is shorter than when it was opened";
                return Err(DataError::broken(&self.file, message));
            }
            self.next += 1;
        }
        for &column in &self.columns.features {
            let text = self.record.get(column).unwrap_or("");
            let message = match text.parse::<f32>() {
                Ok(value) if value.is_finite() => {
                    into.extend(value.to_le_bytes());
                    continue;
                }
                Ok(value) => format!("the value is {value}"),
                Err(_) if text.is_empty() => "the value is missing".to_owned(),
                Err(_) => format!("`{text}` is not a number; leave the column out with `drop`"),
            };
            let (file, row) = (self.file.clone(), line(&self.record));
            let column = column_name(&self.columns.names[column]);
            return Err(DataError::Value { file, row, column, message });
        }
        Ok(())
    }
}
