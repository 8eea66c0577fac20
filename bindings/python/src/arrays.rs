//! NumPy arrays as tensors and back, without copying where the memory is laid out alike.

use std::sync::Arc;

use lepton::{DType, Storage, Tensor};
use numpy::npyffi::{self, PY_ARRAY_API};
use numpy::{PyArrayDescr, PyArrayDescrMethods, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::exceptions::PyMemoryError;
use pyo3::prelude::*;
use pyo3::types::PyString;

/// Element types and their NumPy names.
const NAMES: &[(DType, &str)] = &[
    (DType::F32, "float32"),
    (DType::F64, "float64"),
    (DType::F16, "float16"),
    (DType::I8, "int8"),
    (DType::I16, "int16"),
    (DType::I32, "int32"),
    (DType::I64, "int64"),
    (DType::U8, "uint8"),
    (DType::U16, "uint16"),
    (DType::U32, "uint32"),
    (DType::U64, "uint64"),
    (DType::Bool, "bool"),
    (DType::Str, "str"),
];

/// Element types NumPy does not have of its own, and their names in the package `ml_dtypes`.
const SHORT_NAMES: &[(DType, &str)] = &[
    (DType::BF16, "bfloat16"),
    (DType::F8E4M3FN, "float8_e4m3fn"),
    (DType::F8E4M3FNUZ, "float8_e4m3fnuz"),
    (DType::F8E5M2, "float8_e5m2"),
    (DType::F8E5M2FNUZ, "float8_e5m2fnuz"),
    (DType::F8E8M0, "float8_e8m0fnu"),
    (DType::F4E2M1, "float4_e2m1fn"),
    (DType::I4, "int4"),
    (DType::U4, "uint4"),
    (DType::I2, "int2"),
    (DType::U2, "uint2"),
];

/// The name NumPy, or `ml_dtypes`, has for an element type.
pub(crate) fn name(dtype: DType) -> &'static str {
    let mut rows = NAMES.iter().chain(SHORT_NAMES);
    rows.find(|(of, _)| *of == dtype).map_or(dtype.name(), |(_, name)| name)
}

/// Memory of an array, kept alive by a reference to it.
struct Borrowed {
    data: *const u8,
    bytes: usize,
    _array: Py<PyUntypedArray>,
}

// SAFETY: the pointer is only read; whoever writes to the array while a model runs on it races with
// the run as with any other NumPy function that releases the interpreter lock, which NumPy leaves to
// the caller.
unsafe impl Send for Borrowed {}
// SAFETY: as above: the memory is only read.
unsafe impl Sync for Borrowed {}

impl AsRef<[u8]> for Borrowed {
    fn as_ref(&self) -> &[u8] {
        if self.bytes == 0 {
            return &[];
        }
        // SAFETY: `tensor` took pointer and length from a contiguous array that `_array` keeps
        // alive, and NumPy does not move an array's memory while there are other references to it.
        unsafe { std::slice::from_raw_parts(self.data, self.bytes) }
    }
}

/// The element type of an array in this machine's byte order.
fn element_type(descriptor: &Bound<'_, PyArrayDescr>) -> Option<DType> {
    if descriptor.is_native_byteorder() == Some(false) {
        return None;
    }
    Some(match (descriptor.kind(), descriptor.itemsize()) {
        (b'f', 4) => DType::F32,
        (b'f', 8) => DType::F64,
        (b'f', 2) => DType::F16,
        (b'i', 1) => DType::I8,
        (b'i', 2) => DType::I16,
        (b'i', 4) => DType::I32,
        (b'i', 8) => DType::I64,
        (b'u', 1) => DType::U8,
        (b'u', 2) => DType::U16,
        (b'u', 4) => DType::U32,
        (b'u', 8) => DType::U64,
        (b'b', 1) => DType::Bool,
        (b'V' | b'f', 1 | 2) => {
            let name = descriptor.typeobj().name().ok()?;
            return SHORT_NAMES.iter().find(|(_, known)| name == *known).map(|(of, _)| *of);
        }
        _ => return None,
    })
}

/// Bits of the byte that a short signed number lies in and does not use.
fn unused_bits(dtype: DType) -> u32 {
    match dtype {
        DType::I4 => 4,
        DType::I2 => 6,
        _ => 0,
    }
}

/// An array as a tensor over the same memory; `None` where it is not dense, aligned, row-major, in
/// this machine's byte order and of a type that tensors have.
fn viewed(array: &Bound<'_, PyUntypedArray>) -> PyResult<Option<Tensor>> {
    let Some(dtype) = element_type(&array.dtype()) else { return Ok(None) };
    if !array.is_c_contiguous() || !array.is_aligned() {
        return Ok(None);
    }
    let shape = array.shape();
    let bytes = shape.iter().try_fold(dtype.size(), |bytes, &extent| bytes.checked_mul(extent));
    let Some(bytes) = bytes else { return Ok(None) };
    // SAFETY: `array` is a NumPy array, so the object begins with NumPy's public fields.
    let data = unsafe { (*array.as_array_ptr()).fields.data } as *const u8;
    let owner = Arc::new(Borrowed { data, bytes, _array: array.clone().unbind() });
    let storage = match unused_bits(dtype) {
        0 => Storage::shared(owner, 0, bytes),
        unused => {
            // Here the bits above a short number repeat its sign, in `ml_dtypes` they are anything.
            let extend = |byte: &u8| ((byte << unused) as i8 >> unused) as u8;
            let extended: Vec<u8> = (*owner).as_ref().iter().map(extend).collect();
            Some(Storage::copied(&extended))
        }
    };
    let tensor = storage.and_then(|storage| Tensor::new(dtype, shape, storage).ok());
    Ok(tensor)
}

/// A value as a tensor: NumPy arrays over their own memory, everything else through
/// `lepton_ai._arrays.plain`, which knows DLPack, sequences and foreign layouts.
pub(crate) fn tensor(value: &Bound<'_, PyAny>, wanted: DType) -> PyResult<Tensor> {
    if wanted == DType::Str {
        return strings(value);
    }
    if let Ok(array) = value.cast::<PyUntypedArray>()
        && let Some(tensor) = viewed(array)?
    {
        return Ok(tensor);
    }
    let py = value.py();
    let plain = py.import("lepton_ai._arrays")?.getattr("plain")?;
    let array = plain.call1((value, name(wanted)))?.cast_into::<PyUntypedArray>()?;
    viewed(&array)?.ok_or_else(|| {
        let message = format!("arrays of {} are not supported", array.dtype());
        let help = "convert with array.astype(…) to a plain number type".to_owned();
        crate::errors::exception(py, "InputTypeError", message, help)
    })
}

/// Strings, in an array of `str`, `bytes` or objects, or in nested lists, as a tensor of strings.
fn strings(value: &Bound<'_, PyAny>) -> PyResult<Tensor> {
    let py = value.py();
    let listed = py.import("lepton_ai._arrays")?.getattr("strings")?.call1((value,))?;
    let (shape, strings): (Vec<usize>, Vec<String>) = listed.extract()?;
    let made = Tensor::from_strings(shape, &strings);
    made.map_err(|error| crate::errors::raised(py, error.into()))
}

/// Keeps a tensor's memory alive for the array over it.
#[pyclass(frozen, module = "lepton_ai._native")]
struct Buffer {
    _tensor: Tensor,
}

/// A tensor as an array that owns the tensor's memory; strings as an array of objects. Types that need `ml_dtypes` become `float32`
/// where that is not installed, which loses nothing.
pub(crate) fn array(py: Python<'_>, tensor: Tensor) -> PyResult<Bound<'_, PyAny>> {
    if let Ok(strings) = tensor.strings() {
        let objects = py.import("lepton_ai._arrays")?.getattr("objects")?;
        return objects.call1((tensor.shape().to_vec(), strings));
    }
    let short = SHORT_NAMES.iter().any(|(of, _)| *of == tensor.dtype());
    let (mut tensor, descriptor) = match descriptor(py, tensor.dtype()) {
        Ok(descriptor) => (tensor, descriptor),
        Err(_) if short => {
            let values = tensor.to_f64_vec();
            let wide = Tensor::from_f64_slice(DType::F32, tensor.shape(), &values)
                .map_err(|error| crate::errors::raised(py, error.into()))?;
            (wide, numpy::dtype::<f32>(py))
        }
        Err(error) => return Err(error),
    };
    // The array is made over the tensor's bytes: an element must take as many in both.
    assert_eq!(descriptor.itemsize(), tensor.dtype().size(), "bytes of {}", tensor.dtype());
    let mut shape: Vec<npyffi::npy_intp> = tensor.shape().iter().map(|&n| n as isize).collect();
    // Taken for writing, so that memory which a weight or an input shares is copied first.
    let data = tensor.bytes_mut().as_mut_ptr();
    let owner = Bound::new(py, Buffer { _tensor: tensor })?;
    // SAFETY: `shape` and the row-major order say where the elements of `data` are, and `owner`,
    // the array's base, keeps them alive. The first call takes the reference to the descriptor, the
    // second the one to the owner, also when they fail. Nobody else has this memory: see above.
    unsafe {
        let made = PY_ARRAY_API.PyArray_NewFromDescr(
            py,
            npyffi::get_type_object(py, npyffi::NpyTypes::PyArray_Type),
            descriptor.into_dtype_ptr(),
            shape.len() as i32,
            shape.as_mut_ptr(),
            std::ptr::null_mut(),
            data.cast(),
            npyffi::NPY_ARRAY_CARRAY,
            std::ptr::null_mut(),
        );
        let array = Bound::from_owned_ptr_or_err(py, made)?;
        let based = PY_ARRAY_API.PyArray_SetBaseObject(py, made.cast(), owner.into_ptr());
        if based != 0 {
            return Err(PyErr::take(py).unwrap_or_else(|| PyMemoryError::new_err("no base")));
        }
        Ok(array)
    }
}

fn descriptor(py: Python<'_>, dtype: DType) -> PyResult<Bound<'_, PyArrayDescr>> {
    Ok(match dtype {
        DType::F32 => numpy::dtype::<f32>(py),
        DType::F64 => numpy::dtype::<f64>(py),
        DType::I64 => numpy::dtype::<i64>(py),
        other => match NAMES.iter().find(|(of, _)| *of == other) {
            Some((_, name)) => PyArrayDescr::new(py, PyString::new(py, name))?,
            None => PyArrayDescr::new(py, py.import("ml_dtypes")?.getattr(name(other))?)?,
        },
    })
}
