//! Tensors: every encoding ONNX has for the element types Lepton has, and back.

use std::sync::Arc;

use bytes::Bytes;
use lepton_tensor::{DType, Storage, Tensor, checked_product};

use super::proto::{StringStringEntryProto, TensorProto};
use super::{ExternalData, check_external_path, wire};
use crate::error::{FormatError, at_most};
use crate::limits;

/// ONNX's number of each element type.
const TYPES: &[(i32, DType)] = &[
    (1, DType::F32),
    (2, DType::U8),
    (3, DType::I8),
    (4, DType::U16),
    (5, DType::I16),
    (6, DType::I32),
    (7, DType::I64),
    (8, DType::Str),
    (9, DType::Bool),
    (10, DType::F16),
    (11, DType::F64),
    (12, DType::U32),
    (13, DType::U64),
    (16, DType::BF16),
    (17, DType::F8E4M3FN),
    (18, DType::F8E4M3FNUZ),
    (19, DType::F8E5M2),
    (20, DType::F8E5M2FNUZ),
    (21, DType::U4),
    (22, DType::I4),
    (23, DType::F4E2M1),
    (24, DType::F8E8M0),
    (25, DType::U2),
    (26, DType::I2),
];

/// The element type of that number.
pub fn dtype_of(number: i32) -> Result<DType, String> {
    let found = TYPES.iter().find(|(n, _)| *n == number).map(|(_, dtype)| *dtype);
    found.ok_or_else(|| format!("element type number {number} is not supported"))
}

/// ONNX's number of an element type; it has one for each.
pub fn number_of(dtype: DType) -> i32 {
    TYPES.iter().find(|(_, d)| *d == dtype).map_or(0, |(number, _)| *number)
}

/// A tensor with its bytes.
pub fn write(name: &str, tensor: &Tensor) -> TensorProto {
    let strings = tensor.strings().unwrap_or_default();
    let is_text = tensor.dtype() == DType::Str;
    TensorProto {
        dims: tensor.shape().iter().map(|&extent| extent as i64).collect(),
        data_type: Some(number_of(tensor.dtype())),
        name: Some(name.to_string()).filter(|name| !name.is_empty()),
        string_data: strings.iter().map(|s| Bytes::copy_from_slice(s.as_bytes())).collect(),
        raw_data: (!is_text).then(|| match tensor.dtype().bits() {
            bits @ (2 | 4) => packed(tensor.bytes(), bits).into(),
            _ => Bytes::copy_from_slice(tensor.bytes()),
        }),
        ..TensorProto::default()
    }
}

/// Reads a tensor; raw bytes are shared, not copied, where they are aligned.
pub fn read(proto: &TensorProto, external: &dyn ExternalData) -> Result<Tensor, FormatError> {
    let name = proto.name.as_deref().unwrap_or_default();
    let fail = |why: String| FormatError::tensor(name, why);
    at_most("rank of a tensor", proto.dims.len(), limits::RANK)?;
    let dtype = dtype_of(proto.data_type.unwrap_or(0)).map_err(fail)?;
    let shape: Option<Vec<usize>> = proto.dims.iter().map(|&d| usize::try_from(d).ok()).collect();
    let shape = shape.ok_or_else(|| fail(format!("negative extent in {:?}", proto.dims)))?;
    if dtype == DType::Str {
        return read_strings(proto, shape).map_err(fail);
    }
    let storage = if proto.data_location == Some(1) {
        shared(load_external(&proto.external_data, external).map_err(fail)?)
    } else if let Some(raw) = &proto.raw_data {
        shared(raw.clone())
    } else {
        let count = checked_product(&shape).ok_or_else(|| fail("too many elements".into()))?;
        let count = if dtype.bits() < 8 { count.div_ceil(8 / dtype.bits()) } else { count };
        Storage::copied(&typed_bytes(proto, dtype, count).map_err(fail)?)
    };
    if dtype.bits() < 8 {
        let count = checked_product(&shape).ok_or_else(|| fail("too many elements".into()))?;
        let codes = unpacked(storage.bytes(), dtype, count);
        let codes = codes.ok_or_else(|| fail("it has too few or too many bytes".into()))?;
        return Tensor::new(dtype, shape, Storage::copied(&codes))
            .map_err(|error| fail(error.to_string()));
    }
    Tensor::new(dtype, shape, storage).map_err(|error| fail(error.to_string()))
}

fn read_strings(proto: &TensorProto, shape: Vec<usize>) -> Result<Tensor, String> {
    if proto.data_location == Some(1) || proto.raw_data.is_some() {
        return Err("strings must be in the field for strings".into());
    }
    let text = |bytes: &Bytes| std::str::from_utf8(bytes).map(str::to_string);
    let strings = proto.string_data.iter().map(text).collect::<Result<Vec<String>, _>>();
    let strings = strings.map_err(|error| format!("a string is not UTF-8: {error}"))?;
    Tensor::from_strings(shape, &strings).map_err(|error| error.to_string())
}

/// Elements of `bits` bits as a file has them: the first in the lowest bits of a byte.
fn packed(codes: &[u8], bits: usize) -> Vec<u8> {
    let mask = (1u8 << bits) - 1;
    let byte = |codes: &[u8]| {
        codes.iter().enumerate().fold(0, |sum, (i, code)| sum | (code & mask) << (i * bits))
    };
    codes.chunks(8 / bits).map(byte).collect()
}

/// One element per byte, signed ones with their sign; `None` if there are not `count`.
fn unpacked(bytes: &[u8], dtype: DType, count: usize) -> Option<Vec<u8>> {
    let bits = dtype.bits();
    if bytes.len() != count.div_ceil(8 / bits) {
        return None;
    }
    let unused = 8 - bits;
    let code = |i: usize| {
        let raw = bytes[i * bits / 8] >> (i * bits % 8) << unused;
        if dtype.is_signed_integer() { (raw as i8 >> unused) as u8 } else { raw >> unused }
    };
    Some((0..count).map(code).collect())
}

fn shared(bytes: Bytes) -> Storage {
    let length = bytes.len();
    Storage::shared(Arc::new(bytes), 0, length).expect("the range is the whole")
}

/// The little-endian bytes of `count` elements in the fields for elements of one type.
fn typed_bytes(proto: &TensorProto, dtype: DType, count: usize) -> Result<Vec<u8>, String> {
    let width = dtype.size();
    match dtype {
        DType::F32 => fixed(&proto.float_data, width, count),
        DType::F64 => fixed(&proto.double_data, width, count),
        DType::I64 => varints(&proto.int64_data, width, count),
        DType::U64 | DType::U32 => varints(&proto.uint64_data, width, count),
        DType::I32 | DType::F16 | DType::BF16 | DType::U16 | DType::I16 => {
            varints(&proto.int32_data, width, count)
        }
        DType::I8 | DType::U8 | DType::Bool => varints(&proto.int32_data, 1, count),
        coded if coded.is_coded() => varints(&proto.int32_data, 1, count),
        other => Err(format!("element type {other} is not supported")),
    }
}

fn wrong_count(found: usize, count: usize) -> String {
    format!("holds {found} elements, its shape has {count}")
}

/// Elements of `width` bytes each, as they are.
fn fixed(runs: &[Bytes], width: usize, count: usize) -> Result<Vec<u8>, String> {
    let length: usize = runs.iter().map(Bytes::len).sum();
    match Some(length) == count.checked_mul(width) {
        true => Ok(runs.concat()),
        false => Err(wrong_count(length / width, count)),
    }
}

/// The lowest `width` bytes of each of the integers.
fn varints(runs: &[Bytes], width: usize, count: usize) -> Result<Vec<u8>, String> {
    // The last byte of each is the only one below 128.
    let found: usize = runs.iter().map(|run| run.iter().filter(|b| **b < 0x80).count()).sum();
    if found != count {
        return Err(wrong_count(found, count));
    }
    let mut bytes = Vec::with_capacity(count * width);
    for mut run in runs.iter().map(|run| &run[..]) {
        while !run.is_empty() {
            bytes.extend_from_slice(&wire::varint(&mut run)?.to_le_bytes()[..width]);
        }
    }
    Ok(bytes)
}

fn load_external(
    entries: &[StringStringEntryProto],
    external: &dyn ExternalData,
) -> Result<Bytes, String> {
    let find = |key: &str| {
        let entry = entries.iter().find(|entry| entry.key.as_deref() == Some(key));
        entry.and_then(|entry| entry.value.as_deref())
    };
    let number = |key: &str| -> Result<Option<u64>, String> {
        let parse = |text: &str| text.parse().map_err(|_| format!("external data {key} `{text}`"));
        find(key).map(parse).transpose()
    };
    let location = find("location").ok_or("external data without a location")?;
    check_external_path(location)?;
    external.load(location, number("offset")?.unwrap_or(0), number("length")?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NoExternalData;

    #[test]
    fn every_encoding_gives_the_same_tensor() {
        let float = TensorProto { dims: vec![2], data_type: Some(1), ..TensorProto::default() };
        let bytes: Vec<u8> = [1.0f32, -2.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        let runs: Vec<Bytes> = bytes.chunks(4).map(Bytes::copy_from_slice).collect();
        let typed = TensorProto { float_data: runs, ..float.clone() };
        let raw = TensorProto { raw_data: Some(bytes.into()), ..float.clone() };
        let want = Tensor::vector(&[1.0f32, -2.0]);
        assert_eq!(read(&typed, &NoExternalData).unwrap(), want);
        assert_eq!(read(&raw, &NoExternalData).unwrap(), want);
        let mut packed = Vec::new();
        [-3i64, 4].iter().for_each(|&v| prost::encoding::encode_varint(v as u64, &mut packed));
        let int32_data = vec![packed.into()];
        let negative = TensorProto { int32_data, data_type: Some(3), ..float };
        assert_eq!(read(&negative, &NoExternalData).unwrap(), Tensor::vector(&[-3i8, 4]));
    }

    #[test]
    fn short_elements_are_packed_and_unpacked() {
        for dtype in [DType::I4, DType::U4, DType::I2, DType::U2, DType::F4E2M1] {
            let low = if dtype.is_signed_integer() { -1.0 } else { 0.0 };
            let tensor = Tensor::from_f64_slice(dtype, [5], &[1.0, low, 0.0, 1.0, 1.0]).unwrap();
            let proto = write("t", &tensor);
            let bytes = proto.raw_data.as_ref().unwrap().len();
            assert_eq!(bytes, (5 * dtype.bits()).div_ceil(8));
            assert_eq!(read(&proto, &NoExternalData).unwrap(), tensor);
            let long = TensorProto { dims: vec![9], ..proto };
            assert!(read(&long, &NoExternalData).is_err());
        }
    }

    #[test]
    fn sizes_that_do_not_agree_are_refused() {
        let huge = TensorProto {
            dims: vec![1 << 40, 1 << 40],
            data_type: Some(1),
            ..TensorProto::default()
        };
        assert!(read(&huge, &NoExternalData).is_err());
        let short = TensorProto { dims: vec![3], float_data: vec![vec![0; 4].into()], ..huge };
        assert!(read(&short, &NoExternalData).is_err());
    }
}
