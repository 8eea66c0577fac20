//! A dense row-major tensor.

use std::fmt;

use crate::dtype::{Boolean, Word};
use crate::words::Words;
use crate::{DType, Element, Shape, Storage, bf16, checked_product, f16, small};

/// Why a tensor could not be made or viewed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TensorError {
    /// The bytes do not match the type and shape.
    #[error("a {dtype} tensor of shape {shape:?} needs {expected} bytes, found {found}")]
    Size {
        /// Element type asked for.
        dtype: DType,
        /// Shape asked for.
        shape: Shape,
        /// Bytes it takes.
        expected: usize,
        /// Bytes there are.
        found: usize,
    },
    /// The extents multiply to more than the address space.
    #[error("shape {0:?} has more elements than memory can address")]
    Overflow(Shape),
    /// The element type is not the one asked for.
    #[error("expected a tensor of {expected}, found {found}")]
    Type {
        /// Type asked for.
        expected: DType,
        /// Type it has.
        found: DType,
    },
    /// Numbers that should become strings.
    #[error("numbers are no strings")]
    NoStrings,
}

/// A dense row-major tensor; cloning shares its bytes.
#[derive(Clone)]
pub struct Tensor {
    dtype: DType,
    shape: Shape,
    storage: Storage,
    /// What the elements of a tensor of strings count in; none if all are empty.
    pub(crate) words: Option<Words>,
}

impl Tensor {
    /// A tensor over `storage`, which must hold exactly the bytes that type and shape take.
    ///
    /// Bytes that are not aligned for the type are copied once.
    pub fn new(
        dtype: DType,
        shape: impl Into<Shape>,
        storage: Storage,
    ) -> Result<Self, TensorError> {
        let shape = shape.into();
        let expected = byte_size(dtype, &shape)?;
        if storage.len() != expected {
            let found = storage.len();
            return Err(TensorError::Size { dtype, shape, expected, found });
        }
        let storage = storage.aligned(dtype.size());
        Ok(Tensor { dtype, shape, storage, words: None })
    }

    /// A tensor of zeros.
    pub fn zeros(dtype: DType, shape: impl Into<Shape>) -> Result<Self, TensorError> {
        let shape = shape.into();
        let size = byte_size(dtype, &shape)?;
        Ok(Tensor { dtype, shape, storage: Storage::zeroed(size), words: None })
    }

    /// A tensor holding a copy of `values`.
    pub fn from_slice<T: Element>(
        shape: impl Into<Shape>,
        values: &[T],
    ) -> Result<Self, TensorError> {
        Tensor::new(T::DTYPE, shape, Storage::copied(bytemuck::cast_slice(values)))
    }

    /// A tensor of `bool`.
    pub fn from_bools(
        shape: impl Into<Shape>,
        values: impl IntoIterator<Item = bool>,
    ) -> Result<Self, TensorError> {
        let bytes: Vec<Boolean> = values.into_iter().map(Boolean::from).collect();
        Tensor::from_slice(shape, &bytes)
    }

    /// A tensor without axes.
    pub fn scalar<T: Element>(value: T) -> Self {
        Tensor::from_slice(Vec::new(), &[value]).expect("one element fits no axes")
    }

    /// A tensor with one axis.
    pub fn vector<T: Element>(values: &[T]) -> Self {
        Tensor::from_slice(vec![values.len()], values).expect("length is the shape")
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Extent of each axis.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of axes.
    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.storage.len() / self.dtype.size()
    }

    /// True if there are no elements.
    pub fn is_empty(&self) -> bool {
        self.storage.is_empty()
    }

    /// Little-endian bytes of the elements.
    pub fn bytes(&self) -> &[u8] {
        self.storage.bytes()
    }

    /// The bytes for writing; copied first if shared.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.storage.make_mut()
    }

    /// The elements, if they are of type `T`.
    pub fn as_slice<T: Element>(&self) -> Result<&[T], TensorError> {
        self.check::<T>()?;
        Ok(bytemuck::cast_slice(self.storage.bytes()))
    }

    /// The elements for writing, if they are of type `T`; copied first if shared.
    pub fn as_mut_slice<T: Element>(&mut self) -> Result<&mut [T], TensorError> {
        self.check::<T>()?;
        Ok(bytemuck::cast_slice_mut(self.storage.make_mut()))
    }

    /// The same elements under another shape of equal size.
    pub fn reshaped(&self, shape: impl Into<Shape>) -> Result<Self, TensorError> {
        let reshaped = Tensor::new(self.dtype, shape, self.storage.clone())?;
        Ok(Tensor { words: self.words.clone(), ..reshaped })
    }

    /// A tensor of `shape` of the elements from number `start` on, which are shared.
    ///
    /// # Errors
    /// Fewer elements than that.
    pub fn part(&self, start: usize, shape: impl Into<Shape>) -> Result<Self, TensorError> {
        let shape = shape.into();
        let bytes = byte_size(self.dtype, &shape)?;
        let offset = start.checked_mul(self.dtype.size());
        let Some(storage) = offset.and_then(|offset| self.storage.part(offset, bytes)) else {
            let found = self.storage.len();
            return Err(TensorError::Size { dtype: self.dtype, shape, expected: bytes, found });
        };
        Ok(Tensor { dtype: self.dtype, shape, storage, words: self.words.clone() })
    }

    /// Every element as `f64` (`bool` as 0 and 1). Integers above 2⁵³ lose low bits. Strings are
    /// their numbers among the words of the tensor, in order.
    pub fn to_f64_vec(&self) -> Vec<f64> {
        macro_rules! cast {
            ($t:ty, $f:expr) => {
                bytemuck::cast_slice::<u8, $t>(self.bytes()).iter().map($f).collect()
            };
        }
        match self.dtype {
            DType::F32 => cast!(f32, |&x| x as f64),
            DType::F64 => cast!(f64, |&x| x),
            DType::F16 => cast!(f16, |x| x.to_f64()),
            DType::BF16 => cast!(bf16, |x| x.to_f64()),
            DType::I8 => cast!(i8, |&x| x as f64),
            DType::I16 => cast!(i16, |&x| x as f64),
            DType::I32 => cast!(i32, |&x| x as f64),
            DType::I64 => cast!(i64, |&x| x as f64),
            DType::U8 => cast!(u8, |&x| x as f64),
            DType::U16 => cast!(u16, |&x| x as f64),
            DType::U32 => cast!(u32, |&x| x as f64),
            DType::U64 => cast!(u64, |&x| x as f64),
            DType::Bool => cast!(Boolean, |x| x.get() as u8 as f64),
            DType::Str => cast!(Word, |x| x.0 as f64),
            coded => self.bytes().iter().map(|&code| small::decode(coded, code)).collect(),
        }
    }

    /// Every element as `i64`; floats are truncated toward zero, `bool` is 0 and 1.
    pub fn to_i64_vec(&self) -> Vec<i64> {
        macro_rules! cast {
            ($t:ty) => {
                bytemuck::cast_slice::<u8, $t>(self.bytes()).iter().map(|&x| x as i64).collect()
            };
        }
        match self.dtype {
            DType::I8 => cast!(i8),
            DType::I16 => cast!(i16),
            DType::I32 => cast!(i32),
            DType::I64 => cast!(i64),
            DType::U8 => cast!(u8),
            DType::U16 => cast!(u16),
            DType::U32 => cast!(u32),
            DType::U64 => cast!(u64),
            _ => self.to_f64_vec().into_iter().map(|x| x as i64).collect(),
        }
    }

    /// A tensor of `dtype` from `f64` values: integers saturate after truncation toward zero, NaN
    /// becomes 0 in integers, `bool` is "not zero".
    pub fn from_f64_slice(
        dtype: DType,
        shape: impl Into<Shape>,
        values: &[f64],
    ) -> Result<Self, TensorError> {
        macro_rules! cast {
            ($f:expr) => {
                Tensor::from_slice(shape, &values.iter().map($f).collect::<Vec<_>>())
            };
        }
        match dtype {
            DType::F32 => cast!(|&x| x as f32),
            DType::F64 => Tensor::from_slice(shape, values),
            DType::F16 => cast!(|&x| f16::from_f64(x)),
            DType::BF16 => cast!(|&x| bf16::from_f64(x)),
            DType::I8 => cast!(|&x| x as i8),
            DType::I16 => cast!(|&x| x as i16),
            DType::I32 => cast!(|&x| x as i32),
            DType::I64 => cast!(|&x| x as i64),
            DType::U8 => cast!(|&x| x as u8),
            DType::U16 => cast!(|&x| x as u16),
            DType::U32 => cast!(|&x| x as u32),
            DType::U64 => cast!(|&x| x as u64),
            DType::Bool => cast!(|&x| Boolean::from(x != 0.0)),
            DType::Str => Err(TensorError::NoStrings),
            coded => {
                let codes: Vec<u8> = values.iter().map(|&x| small::encode(coded, x)).collect();
                Tensor::new(coded, shape, Storage::copied(&codes))
            }
        }
    }

    /// A tensor of an integer `dtype` (or any other, by conversion) from `i64` values, exactly;
    /// values outside the type wrap as in two's complement.
    pub fn from_i64_slice(
        dtype: DType,
        shape: impl Into<Shape>,
        values: &[i64],
    ) -> Result<Self, TensorError> {
        macro_rules! cast {
            ($t:ty) => {
                Tensor::from_slice(shape, &values.iter().map(|&x| x as $t).collect::<Vec<_>>())
            };
        }
        match dtype {
            DType::I8 => cast!(i8),
            DType::I16 => cast!(i16),
            DType::I32 => cast!(i32),
            DType::I64 => Tensor::from_slice(shape, values),
            DType::U8 => cast!(u8),
            DType::U16 => cast!(u16),
            DType::U32 => cast!(u32),
            DType::U64 => cast!(u64),
            short if short.is_coded() && short.is_integer() => {
                let codes: Vec<u8> = values.iter().map(|&x| small::wrap(short, x)).collect();
                Tensor::new(short, shape, Storage::copied(&codes))
            }
            _ => {
                let floats: Vec<f64> = values.iter().map(|&x| x as f64).collect();
                Tensor::from_f64_slice(dtype, shape, &floats)
            }
        }
    }

    fn check<T: Element>(&self) -> Result<(), TensorError> {
        if self.dtype == T::DTYPE {
            Ok(())
        } else {
            Err(TensorError::Type { expected: T::DTYPE, found: self.dtype })
        }
    }
}

fn byte_size(dtype: DType, shape: &[usize]) -> Result<usize, TensorError> {
    checked_product(shape)
        .and_then(|count| count.checked_mul(dtype.size()))
        .filter(|&size| size <= isize::MAX as usize)
        .ok_or_else(|| TensorError::Overflow(shape.to_vec()))
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:?}", self.dtype, self.shape)?;
        match self.strings() {
            _ if self.len() > 8 => {}
            Ok(strings) => write!(f, " {strings:?}")?,
            Err(_) => write!(f, " {:?}", self.to_f64_vec())?,
        }
        Ok(())
    }
}

/// Equal type, shape and bits: NaN equals the same NaN, 0.0 differs from −0.0.
impl PartialEq for Tensor {
    fn eq(&self, other: &Self) -> bool {
        if self.dtype != other.dtype || self.shape != other.shape {
            return false;
        }
        match self.dtype {
            DType::Str => self.strings() == other.strings(),
            _ => self.bytes() == other.bytes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_checked() {
        assert!(Tensor::new(DType::F32, [2, 2], Storage::zeroed(15)).is_err());
        assert!(Tensor::zeros(DType::F32, [usize::MAX, 3]).is_err());
        assert_eq!(Tensor::zeros(DType::F32, [0, 3]).unwrap().len(), 0);
    }

    #[test]
    fn conversions_round_trip() {
        for &dtype in DType::ALL.iter().filter(|&&dtype| dtype != DType::Str) {
            // Powers of two have no zero.
            let zero = if dtype == DType::F8E8M0 { 2.0 } else { 0.0 };
            let t = Tensor::from_f64_slice(dtype, [3], &[zero, 1.0, zero]).unwrap();
            assert_eq!(t.to_f64_vec(), [zero, 1.0, zero]);
            assert_eq!(t.to_i64_vec(), [zero as i64, 1, zero as i64]);
        }
    }

    #[test]
    fn unaligned_bytes_are_copied() {
        let owner: std::sync::Arc<dyn AsRef<[u8]> + Send + Sync> =
            std::sync::Arc::new(vec![0u8; 64]);
        for offset in 0..8 {
            let storage = Storage::shared(owner.clone(), offset, 8).unwrap();
            let t = Tensor::new(DType::F64, [1], storage).unwrap();
            assert_eq!(t.as_slice::<f64>().unwrap(), [0.0]);
        }
    }

    #[test]
    fn wrong_types_are_named() {
        let error = Tensor::scalar(1i64).as_slice::<f32>().unwrap_err();
        assert_eq!(error.to_string(), "expected a tensor of f32, found i64");
    }
}
