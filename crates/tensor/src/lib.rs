//! The shared words: data types, shapes, layouts, storage, quantisation parameters.

mod dtype;
mod layout;
mod quantization;
mod shape;
mod storage;
mod tensor;

pub use dtype::{Boolean, DType, Element};
pub use half::{bf16, f16};
pub use layout::Layout;
pub use quantization::QuantParams;
pub use shape::{Shape, broadcast_shapes, checked_product, row_major_strides};
pub use storage::Storage;
pub use tensor::{Tensor, TensorError};
