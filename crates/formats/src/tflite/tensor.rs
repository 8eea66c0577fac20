//! Tensors: element types, contents, and what integers stand for.

use std::sync::Arc;

use bytes::Bytes;
use lepton_ir::{Dim, Fact};
use lepton_tensor::{DType, Storage, Tensor, checked_product};

use super::schema::TensorInfo;
use crate::error::FormatError;

/// TensorFlow Lite's number of each element type.
const TYPES: &[(i8, DType)] = &[
    (0, DType::F32),
    (1, DType::F16),
    (2, DType::I32),
    (3, DType::U8),
    (4, DType::I64),
    (6, DType::Bool),
    (7, DType::I16),
    (9, DType::I8),
    (10, DType::F64),
    (12, DType::U64),
    (15, DType::U32),
    (16, DType::U16),
    (17, DType::I4),
    (18, DType::BF16),
    (19, DType::I2),
    (20, DType::U4),
    (21, DType::F8E4M3FN),
    (22, DType::F8E5M2),
];

/// The number of the type of what names a variable.
pub const RESOURCE: i8 = 13;

/// The element type of that number.
pub fn dtype_of(kind: i8) -> Result<DType, String> {
    let found = TYPES.iter().find(|(number, _)| *number == kind).map(|(_, dtype)| *dtype);
    found.ok_or_else(|| match kind {
        5 => "element type `string` is not supported".to_string(),
        8 | 11 => "complex numbers are not supported".to_string(),
        RESOURCE => "it names a variable and holds no elements".to_string(),
        14 => "lists of tensors (element type `variant`) are not supported".to_string(),
        _ => format!("element type number {kind} is not supported"),
    })
}

impl TensorInfo {
    /// Its element type.
    pub fn dtype(&self) -> Result<DType, FormatError> {
        dtype_of(self.kind).map_err(|why| FormatError::tensor(&self.name, why))
    }

    /// True if its integers stand for reals.
    pub fn is_quantised(&self) -> bool {
        use DType as D;
        let integer = dtype_of(self.kind).is_ok_and(|dtype| {
            matches!(dtype, D::I8 | D::U8 | D::I16 | D::I32 | D::I4 | D::U4 | D::I2)
        });
        integer && self.scale.iter().any(|scale| *scale != 0.0)
    }

    /// True if its bytes stand for reals, in steps of one scale.
    pub fn is_byte(&self) -> bool {
        let short = matches!(self.dtype(), Ok(DType::U8 | DType::I8));
        short && self.is_quantised() && self.scale.len() == 1
    }

    /// Its declared extents.
    pub fn extents(&self) -> Result<Vec<usize>, FormatError> {
        let extent = |&extent: &i32| usize::try_from(extent).ok();
        let shape: Option<Vec<usize>> = self.shape.iter().map(extent).collect();
        shape.ok_or_else(|| FormatError::tensor(&self.name, "it has a negative extent"))
    }

    /// What is known about it as an input: extents that may be any get a symbol each.
    pub fn fact(&self, name: &str) -> Result<Fact, FormatError> {
        let declared = match self.signature.len() == self.shape.len() {
            true => &self.signature,
            false => &self.shape,
        };
        let dim = |(axis, &extent): (usize, &i32)| match extent {
            0.. => Dim::known(i64::from(extent)),
            _ => Dim::symbol(format!("{name}.{axis}")),
        };
        Ok(Fact::new(self.dtype()?, declared.iter().enumerate().map(dim).collect()))
    }

    /// The tensor with the elements in `bytes`, which are shared where they are aligned.
    pub fn tensor(&self, bytes: Bytes) -> Result<Tensor, FormatError> {
        let fail = |why: String| FormatError::tensor(&self.name, why);
        if self.is_sparse {
            return Err(fail("sparse weights; convert the model with dense ones".into()));
        }
        let (dtype, shape) = (self.dtype()?, self.extents()?);
        let count = checked_product(&shape).ok_or_else(|| fail("too many elements".into()))?;
        let storage = match dtype.bits() {
            bits @ (2 | 4) if bytes.len() == count.div_ceil(8 / bits) => {
                Storage::copied(&unpacked(&bytes, dtype, count))
            }
            _ => {
                let length = bytes.len();
                Storage::shared(Arc::new(bytes), 0, length).expect("the range is the whole")
            }
        };
        Tensor::new(dtype, shape, storage).map_err(|error| fail(error.to_string()))
    }

    /// The steps as a tensor: a scalar, or one per slice.
    pub fn scales(&self) -> Tensor {
        match self.scale.as_slice() {
            [scale] => Tensor::scalar(*scale),
            scales => Tensor::vector(scales),
        }
    }

    /// The integers that stand for zero, as many as steps.
    pub fn zeros(&self) -> Result<Tensor, FormatError> {
        let fail = |why: String| FormatError::tensor(&self.name, why);
        let zeros = match self.zero.len() {
            count if count == self.scale.len() => self.zero.clone(),
            0 => vec![0; self.scale.len()],
            1 => vec![self.zero[0]; self.scale.len()],
            _ => return Err(fail("it has not as many zero points as scales".into())),
        };
        let shape = if zeros.len() == 1 { Vec::new() } else { vec![zeros.len()] };
        let tensor = Tensor::from_i64_slice(self.dtype()?, shape, &zeros);
        tensor.map_err(|error| fail(error.to_string()))
    }
}

/// One element per byte, signed ones with their sign; the first is in the lowest bits.
fn unpacked(bytes: &[u8], dtype: DType, count: usize) -> Vec<u8> {
    let bits = dtype.bits();
    let unused = 8 - bits;
    let code = |i: usize| {
        let raw = bytes[i * bits / 8] >> (i * bits % 8) << unused;
        if dtype.is_signed_integer() { (raw as i8 >> unused) as u8 } else { raw >> unused }
    };
    (0..count).map(code).collect()
}
