//! The shared words: data types, shapes, layouts, storage, quantisation parameters.

mod dtype;
mod layout;
mod quantization;
mod shape;
mod small;
mod storage;
mod tensor;
mod words;

pub use dtype::{
    Boolean, DType, E2M1, E4M3Fn, E4M3Fnuz, E5M2, E5M2Fnuz, E8M0, Element, Int2, Int4, Uint2,
    Uint4, Word,
};
pub use half::{bf16, f16};
pub use layout::Layout;
pub use quantization::QuantParams;
pub use shape::{Shape, broadcast_shapes, checked_product, row_major_strides};
pub use storage::Storage;
pub use tensor::{Tensor, TensorError};
