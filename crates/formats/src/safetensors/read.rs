//! From bytes to tensors by their names. The crate `safetensors` reads the header and checks the
//! offsets; how much of it is taken is checked before.

use std::sync::Arc;

use bytes::Bytes;
use lepton_tensor::{DType, Storage, Tensor};
use safetensors::{Dtype, SafeTensors};

use crate::error::{FormatError, at_most};
use crate::limits;

/// Tensors by their names, sorted.
pub type Weights = Vec<(String, Tensor)>;

/// The element types that Lepton has too.
pub const TYPES: &[(Dtype, DType)] = &[
    (Dtype::BOOL, DType::Bool),
    (Dtype::U8, DType::U8),
    (Dtype::I8, DType::I8),
    (Dtype::F8_E5M2, DType::F8E5M2),
    (Dtype::F8_E4M3, DType::F8E4M3FN),
    (Dtype::I16, DType::I16),
    (Dtype::U16, DType::U16),
    (Dtype::F16, DType::F16),
    (Dtype::BF16, DType::BF16),
    (Dtype::I32, DType::I32),
    (Dtype::U32, DType::U32),
    (Dtype::F32, DType::F32),
    (Dtype::F64, DType::F64),
    (Dtype::I64, DType::I64),
    (Dtype::U64, DType::U64),
];

/// Bytes before the header: its length.
const LENGTH_BYTES: usize = 8;

fn damaged(why: impl Into<String>) -> FormatError {
    FormatError::Damaged { format: "safetensors", offset: 0, why: why.into() }
}

/// The tensors of a file, which share its bytes where these are aligned.
///
/// # Errors
/// Bytes that are no safetensors, more tensors than [`limits::VALUES`], a header of more than
/// [`limits::HEADER_BYTES`], an element type that Lepton does not have.
pub fn read(bytes: Bytes) -> Result<Weights, FormatError> {
    let length = bytes.first_chunk::<LENGTH_BYTES>().map(|length| u64::from_le_bytes(*length));
    let length = length.ok_or_else(|| damaged("it is shorter than eight bytes"))?;
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    at_most("bytes of a header", length, limits::HEADER_BYTES)?;
    let file = SafeTensors::deserialize(&bytes).map_err(|error| damaged(error.to_string()))?;
    at_most("number of tensors", file.len(), limits::VALUES)?;
    let mut found = Weights::with_capacity(file.len());
    for (name, view) in file.iter() {
        at_most("bytes of a name", name.len(), limits::NAME_BYTES)?;
        at_most("rank of a tensor", view.shape().len(), limits::RANK)?;
        let dtype = TYPES.iter().find(|(own, _)| *own == view.dtype()).map(|(_, dtype)| *dtype);
        let Some(dtype) = dtype else {
            let why = format!("element type {:?} is not supported", view.dtype());
            return Err(FormatError::tensor(name, why));
        };
        let own = bytes.slice_ref(view.data());
        let length = own.len();
        let storage = Storage::shared(Arc::new(own), 0, length).expect("the range is the whole");
        let tensor = Tensor::new(dtype, view.shape(), storage);
        let tensor = tensor.map_err(|error| FormatError::tensor(name, error.to_string()))?;
        found.push((name.to_string(), tensor));
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: &[u8]) -> Bytes {
        let length = (header.len() as u64).to_le_bytes();
        [&length[..], header.as_bytes(), data].concat().into()
    }

    #[test]
    fn tensors_have_their_names() {
        let header = r#"{"b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},
            "a":{"dtype":"I8","shape":[1,3],"data_offsets":[8,11]}}"#;
        let data = [1f32.to_le_bytes(), (-2f32).to_le_bytes()].concat();
        let found = read(file(header, &[data, vec![1, 2, 255]].concat())).unwrap();
        let expected = [
            ("a".to_string(), Tensor::from_slice([1, 3], &[1i8, 2, -1]).unwrap()),
            ("b".to_string(), Tensor::vector(&[1f32, -2.0])),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn what_is_wrong_is_told() {
        let told = |bytes: Bytes| read(bytes).unwrap_err().to_string();
        assert!(told(Bytes::from_static(b"abc")).contains("shorter than eight bytes"));
        let long = [u64::MAX.to_le_bytes().as_slice(), b"{}"].concat();
        assert!(told(long.into()).contains("limit"));
        let outside = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
        assert!(told(file(outside, &[0; 4])).contains("safetensors"));
        let wrong = r#"{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}"#;
        assert!(told(file(wrong, &[0; 8])).contains("safetensors"));
        let small = r#"{"a":{"dtype":"F8_E8M0","shape":[2],"data_offsets":[0,2]}}"#;
        assert!(told(file(small, &[0; 2])).contains("tensor `a`: element type"));
    }
}
