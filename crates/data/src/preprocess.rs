//! From stored rows to the tensor a model wants: arithmetic, axis order, element type.

use std::path::Path;

use lepton_tensor::{DType, Storage, Tensor, checked_product};

use crate::options::{DataOptions, StoredLayout};
use crate::source::Stored;
use crate::{DataError, InputSpec};

/// What is done to one input.
#[derive(Clone, Debug)]
pub(crate) struct Preprocess {
    stored: Stored,
    spec: InputSpec,
    /// Stored element of each wanted element; `None` where the order stays.
    order: Option<Vec<u32>>,
    arithmetic: Option<Arithmetic>,
}

#[derive(Clone, Debug)]
struct Arithmetic {
    /// Channel of each stored element; empty where there is one.
    channel: Vec<u32>,
    scale: f64,
    mean: Vec<f64>,
    std: Vec<f64>,
    /// The result for each byte, channel after channel, for u8 → f32.
    table: Option<Vec<f32>>,
}

impl Preprocess {
    pub(crate) fn new(
        file: &Path,
        stored: &Stored,
        options: &DataOptions,
    ) -> Result<Self, DataError> {
        let wrong = |message: String| DataError::options(file, message);
        let axes = Axes::of(stored, options).map_err(wrong)?;
        let arithmetic = Arithmetic::new(stored, &axes, options).map_err(wrong)?;
        let dtype = match &options.dtype {
            Some(name) => name.parse().map_err(wrong)?,
            None if arithmetic.is_some() => DType::F32,
            None => stored.dtype,
        };
        let mut arithmetic = arithmetic;
        if let Some(arithmetic) = &mut arithmetic
            && (stored.dtype, dtype) == (DType::U8, DType::F32)
        {
            arithmetic.table = Some(arithmetic.tabulate());
        }
        let (shape, order) = axes.order(options.layout);
        let spec = InputSpec { name: stored.name.clone(), dtype, shape };
        Ok(Preprocess { stored: stored.clone(), spec, order, arithmetic })
    }

    pub(crate) fn spec(&self) -> &InputSpec {
        &self.spec
    }

    /// Turns `rows` stored rows, back to back, into a tensor `[rows, …]`.
    pub(crate) fn apply(&self, bytes: &[u8], rows: usize) -> Tensor {
        let shape: Vec<usize> = [rows].iter().chain(&self.spec.shape).copied().collect();
        let size = self.stored.elements();
        let arithmetic = self.arithmetic.as_ref();
        if let Some((arithmetic, table)) = arithmetic.and_then(|a| Some((a, a.table.as_ref()?))) {
            let value = |row: &[u8], at: usize| {
                let channel = arithmetic.channel.get(at).copied().unwrap_or(0) as usize;
                table[channel * 256 + row[at] as usize]
            };
            let values: Vec<f32> = bytes
                .chunks_exact(size)
                .flat_map(|row| (0..size).map(move |to| value(row, self.source_of(to))))
                .collect();
            return Tensor::from_slice(shape, &values).expect("one value for each element");
        }
        if arithmetic.is_none() && self.spec.dtype == self.stored.dtype {
            let storage = Storage::copied(&self.reordered(bytes, self.stored.dtype.size()));
            return Tensor::new(self.spec.dtype, shape, storage).expect("the bytes are all there");
        }
        let stored = Tensor::new(self.stored.dtype, [rows * size], Storage::copied(bytes))
            .expect("the bytes are all there");
        let mut values = stored.to_f64_vec();
        if let Some(arithmetic) = arithmetic {
            values.chunks_exact_mut(size).for_each(|row| arithmetic.apply(row));
        }
        if self.spec.dtype.is_integer() {
            values.iter_mut().for_each(|value| *value = value.round_ties_even());
        }
        if self.order.is_some() {
            values = values
                .chunks_exact(size)
                .flat_map(|row| (0..size).map(move |to| row[self.source_of(to)]))
                .collect();
        }
        Tensor::from_f64_slice(self.spec.dtype, shape, &values).expect("one value for each element")
    }

    fn source_of(&self, to: usize) -> usize {
        self.order.as_ref().map_or(to, |order| order[to] as usize)
    }

    fn reordered(&self, bytes: &[u8], element: usize) -> Vec<u8> {
        let Some(order) = &self.order else { return bytes.to_vec() };
        bytes
            .chunks_exact(order.len() * element)
            .flat_map(|row| {
                order.iter().flat_map(move |&from| {
                    row[from as usize * element..(from as usize + 1) * element].iter().copied()
                })
            })
            .collect()
    }
}

/// The extents of a row and which axis is the channels.
struct Axes {
    shape: Vec<usize>,
    /// Height, width, channels where the row is an image.
    image: Option<(usize, usize, usize)>,
    stored_layout: StoredLayout,
}

impl Axes {
    fn of(stored: &Stored, options: &DataOptions) -> Result<Axes, String> {
        let shape = stored.shape.clone();
        let layout = stored.layout.or(options.stored_layout);
        let per_channel = [&options.mean, &options.std]
            .into_iter()
            .flatten()
            .any(|values| values.as_slice().len() > 1);
        let needed = options.layout.is_some() || (per_channel && shape.len() == 3);
        let (image, stored_layout) = match *shape {
            [height, width] => (Some((height, width, 1)), StoredLayout::Nhwc),
            [a, b, c] => {
                let small = |extent: usize| matches!(extent, 1 | 3 | 4);
                let layout = match (layout, small(a), small(c)) {
                    (Some(layout), ..) => Some(layout),
                    (None, false, true) => Some(StoredLayout::Nhwc),
                    (None, true, false) => Some(StoredLayout::Nchw),
                    _ => None,
                };
                match layout {
                    Some(StoredLayout::Nhwc) => (Some((a, b, c)), StoredLayout::Nhwc),
                    Some(StoredLayout::Nchw) => (Some((b, c, a)), StoredLayout::Nchw),
                    None if needed => {
                        return Err(format!(
                            "cannot tell which axis of {shape:?} is the channels; add \
                             stored_layout = \"nhwc\" or \"nchw\""
                        ));
                    }
                    None => (None, StoredLayout::Nhwc),
                }
            }
            _ => (None, StoredLayout::Nhwc),
        };
        if options.layout.is_some() && image.is_none() {
            return Err(format!("`layout` is for rows of two or three axes, this has {shape:?}"));
        }
        Ok(Axes { shape, image, stored_layout })
    }

    /// Shape and element order of the wanted layout.
    fn order(&self, wanted: Option<StoredLayout>) -> (Vec<usize>, Option<Vec<u32>>) {
        let (Some(wanted), Some((height, width, channels))) = (wanted, self.image) else {
            return (self.shape.clone(), None);
        };
        let (h, w, c) = (height as u32, width as u32, channels as u32);
        let shape = match wanted {
            StoredLayout::Nhwc => vec![height, width, channels],
            StoredLayout::Nchw => vec![channels, height, width],
        };
        let order = match (self.stored_layout, wanted) {
            (from, to) if from == to || channels == 1 => None,
            (StoredLayout::Nhwc, _) => {
                Some((0..c).flat_map(|ch| (0..h * w).map(move |at| at * c + ch)).collect())
            }
            (StoredLayout::Nchw, _) => {
                Some((0..h * w).flat_map(|at| (0..c).map(move |ch| ch * h * w + at)).collect())
            }
        };
        (shape, order)
    }

    /// How many channels (or columns) there are, and the one of each stored element.
    fn channels(&self) -> (usize, Vec<u32>) {
        let elements = checked_product(&self.shape).unwrap_or(0);
        match (self.image, &*self.shape) {
            (Some((.., 1)), _) => (1, Vec::new()),
            (Some((.., channels)), _) => {
                let plane = elements / channels;
                let channel = |at: usize| match self.stored_layout {
                    StoredLayout::Nhwc => at % channels,
                    StoredLayout::Nchw => at / plane,
                };
                (channels, (0..elements).map(|at| channel(at) as u32).collect())
            }
            (None, [columns]) => (*columns, (0..*columns as u32).collect()),
            _ => (1, Vec::new()),
        }
    }
}

impl Arithmetic {
    fn new(stored: &Stored, axes: &Axes, options: &DataOptions) -> Result<Option<Self>, String> {
        if options.scale.is_none() && options.mean.is_none() && options.std.is_none() {
            return Ok(None);
        }
        let (count, channel) = axes.channels();
        let each = |key: &str, values: Option<&[f64]>, default: f64| {
            let values = values.unwrap_or(std::slice::from_ref(&default)).to_vec();
            if values.iter().any(|value| !value.is_finite()) {
                return Err(format!("`{key}` holds a value that is not a finite number"));
            }
            if values.len() != 1 && values.len() != count {
                return Err(format!(
                    "`{key}` has {} values; `{}` has {count} channels",
                    values.len(),
                    stored.name
                ));
            }
            Ok(values)
        };
        let scale = match &options.scale {
            None => 1.0,
            Some(factor) => factor.value().ok_or_else(|| {
                format!("`scale` is neither a number nor a quotient like \"1/255\": {factor:?}")
            })?,
        };
        let mean = each("mean", options.mean.as_ref().map(|m| m.as_slice()), 0.0)?;
        let std = each("std", options.std.as_ref().map(|s| s.as_slice()), 1.0)?;
        if std.contains(&0.0) {
            return Err("`std` is 0".to_owned());
        }
        let single = mean.len() == 1 && std.len() == 1;
        let channel = if single { Vec::new() } else { channel };
        Ok(Some(Arithmetic { channel, scale, mean, std, table: None }))
    }

    fn value(&self, value: f64, channel: usize) -> f64 {
        let pick = |values: &[f64]| values[if values.len() == 1 { 0 } else { channel }];
        (value * self.scale - pick(&self.mean)) / pick(&self.std)
    }

    fn apply(&self, row: &mut [f64]) {
        for (at, value) in row.iter_mut().enumerate() {
            *value = self.value(*value, self.channel.get(at).copied().unwrap_or(0) as usize);
        }
    }

    fn tabulate(&self) -> Vec<f32> {
        let channels = self.mean.len().max(self.std.len());
        (0..channels)
            .flat_map(|channel| (0..256).map(move |byte| (byte, channel)))
            .map(|(byte, channel)| self.value(f64::from(byte), channel) as f32)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{Factor, OneOrMany};

    fn stored(dtype: DType, shape: &[usize]) -> Stored {
        Stored { name: "x".into(), dtype, shape: shape.to_vec(), layout: None }
    }

    fn plan(stored: &Stored, options: &DataOptions) -> Result<Preprocess, String> {
        Preprocess::new(Path::new("f"), stored, options).map_err(|error| error.to_string())
    }

    fn normalised() -> DataOptions {
        DataOptions {
            layout: Some(StoredLayout::Nchw),
            scale: Some(Factor::Quotient("1/255".into())),
            mean: Some(OneOrMany::Many(vec![0.0, 0.5, 1.0])),
            std: Some(OneOrMany::Many(vec![1.0, 0.5, 0.25])),
            ..Default::default()
        }
    }

    #[test]
    fn channels_last_to_first_with_a_mean_each() {
        let bytes: Vec<u8> = (0..24).map(|i| i * 10).collect();
        let expected = |row: usize, channel: usize, at: usize| {
            let value = f64::from(bytes[row * 12 + at * 3 + channel]) / 255.0;
            ((value - [0.0, 0.5, 1.0][channel]) / [1.0, 0.5, 0.25][channel]) as f32
        };
        let tensor = plan(&stored(DType::U8, &[2, 2, 3]), &normalised()).unwrap().apply(&bytes, 2);
        assert_eq!(tensor.shape(), [2, 3, 2, 2]);
        let values = tensor.as_slice::<f32>().unwrap();
        for (i, &value) in values.iter().enumerate() {
            let wanted = expected(i / 12, i / 4 % 3, i % 4);
            assert!((value - wanted).abs() <= 1e-6, "{i}: {value} {wanted}");
        }
        // The general path must give the same numbers as the table.
        let floats: Vec<f64> = bytes.iter().map(|&byte| f64::from(byte)).collect();
        let options = DataOptions { dtype: Some("f32".into()), ..normalised() };
        let plan = plan(&stored(DType::F64, &[2, 2, 3]), &options).unwrap();
        assert_eq!(plan.apply(Tensor::vector(&floats).bytes(), 2), tensor);
    }

    #[test]
    fn axis_orders_are_inverse_and_nothing_else_changes() {
        let to = |layout, shape: &[usize], bytes: &[u8]| {
            let options = DataOptions { layout: Some(layout), ..Default::default() };
            plan(&stored(DType::U8, shape), &options).unwrap().apply(bytes, 1)
        };
        let bytes: Vec<u8> = (0..30).collect();
        let first = to(StoredLayout::Nchw, &[2, 5, 3], &bytes);
        assert_eq!(first.shape(), [1, 3, 2, 5]);
        assert_eq!(first.bytes()[..11], [0, 3, 6, 9, 12, 15, 18, 21, 24, 27, 1]);
        let back = to(StoredLayout::Nhwc, &[3, 2, 5], first.bytes());
        assert_eq!((back.shape(), back.bytes()), (&[1, 2, 5, 3][..], &bytes[..]));
        assert_eq!(to(StoredLayout::Nchw, &[5, 6], &bytes).shape(), [1, 1, 5, 6]);
    }

    #[test]
    fn integers_are_rounded_and_saturate() {
        let options = DataOptions {
            mean: Some(OneOrMany::One(128.0)),
            dtype: Some("i8".into()),
            ..Default::default()
        };
        let tensor = plan(&stored(DType::U8, &[3]), &options).unwrap().apply(&[0, 128, 255], 1);
        assert_eq!(tensor, Tensor::from_slice([1, 3], &[-128i8, 0, 127]).unwrap());
        let halves = DataOptions { scale: Some(Factor::Number(0.5)), ..options };
        let tensor = plan(&stored(DType::U8, &[2]), &halves).unwrap().apply(&[1, 255], 1);
        assert_eq!(tensor.to_i64_vec(), [-128, 0]);
    }

    #[test]
    fn wrong_options_say_what_is_needed() {
        let error =
            |shape: &[usize], options| plan(&stored(DType::U8, shape), &options).unwrap_err();
        let layout = DataOptions { layout: Some(StoredLayout::Nchw), ..Default::default() };
        assert!(error(&[3, 5, 3], layout.clone()).contains("stored_layout"));
        assert!(error(&[7], layout).contains("two or three axes"));
        assert!(error(&[5, 5, 4], normalised()).contains("3 values; `x` has 4 channels"));
        let zero = DataOptions { std: Some(OneOrMany::One(0.0)), ..Default::default() };
        assert!(error(&[7], zero).contains("`std` is 0"));
        let dtype = DataOptions { dtype: Some("float".into()), ..Default::default() };
        assert!(error(&[7], dtype).contains("unknown element type"));
    }
}
