//! Labels: numbers as they are, names as the index of their class.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use lepton_tensor::{DType, Tensor};

use crate::DataError;

/// The labels of every row; they are small, so they stay in memory.
#[derive(Clone, Debug)]
pub(crate) struct Labels {
    values: Vec<f64>,
    /// Extents of one row's label: none for a class.
    shape: Vec<usize>,
    integer: bool,
    /// Names of the classes in the order of their index, where known.
    pub(crate) classes: Option<Vec<String>>,
}

impl Labels {
    /// From an array of which the first axis is the rows; axes of 1 after it are dropped.
    pub(crate) fn from_tensor(
        file: &Path,
        tensor: &Tensor,
        classes: Option<Vec<String>>,
    ) -> Result<Self, DataError> {
        let mut shape = tensor.shape().get(1..).unwrap_or(&[]).to_vec();
        while shape.last() == Some(&1) {
            shape.pop();
        }
        let integer = !tensor.dtype().is_float();
        let labels = Labels { values: tensor.to_f64_vec(), shape, integer, classes };
        let width = labels.width();
        labels.check(file, |at| (at / width, "labels".to_owned()))
    }

    /// From text: all integers or all numbers as they are; names by `classes`, or sorted. `place`
    /// tells the row and column to name in an error.
    pub(crate) fn from_texts(
        file: &Path,
        texts: &[String],
        classes: Option<Vec<String>>,
        place: impl Fn(usize) -> (usize, String),
    ) -> Result<Self, DataError> {
        let value_error = |at: usize, message: String| {
            let (row, column) = place(at);
            DataError::Value { file: file.to_owned(), row, column, message }
        };
        if let Some(at) = texts.iter().position(|text| text.is_empty()) {
            return Err(value_error(at, "the label is missing".to_owned()));
        }
        let integers: Option<Vec<f64>> =
            texts.iter().map(|text| text.parse::<i64>().ok().map(|value| value as f64)).collect();
        if let Some(values) = integers {
            return Labels { values, shape: vec![], integer: true, classes }.check(file, place);
        }
        let numbers: Option<Vec<f64>> = texts.iter().map(|text| text.parse().ok()).collect();
        if let Some(values) = numbers {
            return Labels { values, shape: vec![], integer: false, classes }.check(file, place);
        }
        let classes = classes.unwrap_or_else(|| {
            let distinct: BTreeSet<&String> = texts.iter().collect();
            distinct.into_iter().cloned().collect()
        });
        let index = |(at, text): (usize, &String)| {
            let found = classes.iter().position(|class| class == text);
            found.map(|index| index as f64).ok_or_else(|| {
                value_error(at, format!("label `{text}` is none of the {} classes", classes.len()))
            })
        };
        let values = texts.iter().enumerate().map(index).collect::<Result<_, _>>()?;
        Ok(Labels { values, shape: vec![], integer: true, classes: Some(classes) })
    }

    fn check(
        self,
        file: &Path,
        place: impl Fn(usize) -> (usize, String),
    ) -> Result<Self, DataError> {
        let count = self.classes.as_ref().map(Vec::len);
        for (at, value) in self.values.iter().enumerate() {
            let message = match count {
                _ if !value.is_finite() => format!("the label is {value}"),
                Some(count) if self.integer && !(0.0..count as f64).contains(value) => {
                    format!("label {value} is outside the {count} classes")
                }
                _ => continue,
            };
            let (row, column) = place(at);
            return Err(DataError::Value { file: file.to_owned(), row, column, message });
        }
        Ok(self)
    }

    pub(crate) fn rows(&self) -> usize {
        self.values.len() / self.width()
    }

    fn width(&self) -> usize {
        self.shape.iter().product::<usize>().max(1)
    }

    /// The labels of `rows`, `[N, …]`: i64 where they are classes, else f32.
    pub(crate) fn gather(&self, rows: &[u32]) -> Tensor {
        let width = self.width();
        let values: Vec<f64> = rows
            .iter()
            .flat_map(|&row| &self.values[row as usize * width..(row as usize + 1) * width])
            .copied()
            .collect();
        let dtype = if self.integer { DType::I64 } else { DType::F32 };
        let shape: Vec<usize> = [rows.len()].iter().chain(&self.shape).copied().collect();
        Tensor::from_f64_slice(dtype, shape, &values).expect("one value for each element")
    }
}

/// Reads the class names, one a line.
pub(crate) fn read_classes(file: &Path) -> Result<Vec<String>, DataError> {
    let mut text = String::new();
    let opened = File::open(file).map_err(DataError::file(file))?;
    opened.take(16 << 20).read_to_string(&mut text).map_err(DataError::file(file))?;
    let classes: Vec<String> = text.lines().map(|line| line.trim().to_owned()).collect();
    if classes.is_empty() {
        return Err(DataError::Empty { file: file.to_owned(), hint: " (of class names)".into() });
    }
    Ok(classes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(labels: &[&str], classes: Option<&[&str]>) -> Result<Vec<f64>, String> {
        let owned = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
        Labels::from_texts(Path::new("f"), &owned(labels), classes.map(owned), |at| {
            (at, "label".into())
        })
        .map(|labels| labels.values)
        .map_err(|error| error.to_string())
    }

    #[test]
    fn text_becomes_indices_or_numbers() {
        assert_eq!(texts(&["2", "0"], None).unwrap(), [2.0, 0.0]);
        assert_eq!(texts(&["2.5", "0"], None).unwrap(), [2.5, 0.0]);
        assert_eq!(texts(&["dog", "cat", "dog"], None).unwrap(), [1.0, 0.0, 1.0]);
        assert_eq!(texts(&["dog", "cat"], Some(&["dog", "cat"])).unwrap(), [0.0, 1.0]);
    }

    #[test]
    fn bad_labels_are_named() {
        let message = |labels: &[&str], classes| texts(labels, classes).unwrap_err();
        assert_eq!(message(&["1", ""], None), "f: row 1, label: the label is missing");
        assert!(message(&["1.5", "NaN"], None).contains("row 1, label: the label is NaN"));
        assert!(message(&["0", "2"], Some(&["a", "b"])).contains("2 is outside the 2 classes"));
        assert!(message(&["a", "c"], Some(&["a", "b"])).contains("`c` is none of the 2"));
    }

    #[test]
    fn columns_of_one_are_dropped() {
        let tensor = Tensor::from_slice([3, 1], &[4u8, 5, 6]).unwrap();
        let labels = Labels::from_tensor(Path::new("f"), &tensor, None).unwrap();
        assert_eq!(labels.gather(&[2, 0]), Tensor::vector(&[6i64, 4]));
    }
}
