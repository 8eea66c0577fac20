//! What is known about a value before the model runs.

use std::fmt;

use lepton_tensor::{DType, Shape, Tensor};

use crate::dim::{Bindings, Dim};
use crate::error::Problem;

/// Longest integer vector whose values are followed symbolically.
const MAX_FOLLOWED: usize = 64;

/// Longest extent a fact may have.
const LARGEST_EXTENT: i64 = 1 << 40;

/// Element type, extents, and as much of the contents as follows from shapes and constants.
#[derive(Clone, PartialEq)]
pub struct Fact {
    /// Element type.
    pub dtype: DType,
    /// Extent of each axis.
    pub dims: Vec<Dim>,
    /// The elements of a small integer tensor (row-major), where they follow from extents: this
    /// is how `Shape → Gather → Concat → Reshape` is seen through.
    pub integers: Option<Vec<Dim>>,
    /// The whole tensor, for constants.
    pub constant: Option<Tensor>,
}

impl Fact {
    /// A value of which only type and extents are known.
    pub fn new(dtype: DType, dims: Vec<Dim>) -> Self {
        Fact { dtype, dims, integers: None, constant: None }
    }

    /// A value of known shape.
    pub fn dense(dtype: DType, shape: &[usize]) -> Self {
        Fact::new(dtype, shape.iter().map(|&extent| Dim::from(extent)).collect())
    }

    /// The fact of a constant.
    pub fn of(tensor: &Tensor) -> Self {
        Fact::holding(tensor.clone())
    }

    /// The fact of a constant, which it takes.
    pub(crate) fn holding(tensor: Tensor) -> Self {
        let mut fact = Fact::dense(tensor.dtype(), tensor.shape());
        if tensor.dtype().is_integer() && tensor.rank() <= 1 && tensor.len() <= MAX_FOLLOWED {
            fact.integers = Some(tensor.to_i64_vec().into_iter().map(Dim::known).collect());
        }
        fact.constant = Some(tensor);
        fact
    }

    /// Adds the elements, unless there are too many, one is unknown, or the rank is above one.
    pub fn with_integers(mut self, integers: Option<Vec<Dim>>) -> Self {
        self.integers = integers.filter(|values| {
            self.dims.len() <= 1
                && values.len() <= MAX_FOLLOWED
                && !values.iter().any(Dim::is_unknown)
        });
        self
    }

    /// An error if a known extent is negative or larger than any tensor: operators count with
    /// extents and need not think of either.
    pub fn check_extents(&self) -> Result<(), Problem> {
        let wrong = |dim: &&Dim| dim.as_known().is_some_and(|v| !(0..=LARGEST_EXTENT).contains(&v));
        match self.dims.iter().find(wrong) {
            Some(dim) => Err(Problem::shape(format!("the extent {dim} of {self} cannot be"))),
            None => Ok(()),
        }
    }

    /// Number of axes.
    pub fn rank(&self) -> usize {
        self.dims.len()
    }

    /// The shape, if every extent is known.
    pub fn shape(&self) -> Option<Shape> {
        self.dims.iter().map(Dim::as_usize).collect()
    }

    /// True if every extent is known.
    pub fn has_shape(&self) -> bool {
        self.dims.iter().all(|dim| dim.as_usize().is_some())
    }

    /// Number of elements, if every extent is known and the product fits.
    pub fn known_count(&self) -> Option<usize> {
        self.dims.iter().try_fold(1usize, |count, dim| count.checked_mul(dim.as_usize()?))
    }

    /// The integers, if all are known.
    pub fn known_integers(&self) -> Option<Vec<i64>> {
        if let Some(values) = &self.integers {
            return values.iter().map(Dim::as_known).collect();
        }
        let tensor = self.constant.as_ref().filter(|t| t.dtype().is_integer())?;
        Some(tensor.to_i64_vec())
    }

    /// Number of elements.
    pub fn count(&self) -> Dim {
        self.dims.iter().cloned().fold(Dim::known(1), |a, b| a * b)
    }

    /// Number of bytes, if every extent is known and the product fits.
    pub fn byte_size(&self) -> Option<usize> {
        self.known_count()?.checked_mul(self.dtype.size())
    }

    /// The fact with symbols replaced by their values.
    pub fn bind(&self, bindings: &Bindings) -> Fact {
        let bind = |dims: &Vec<Dim>| dims.iter().map(|d| d.bind(bindings)).collect();
        Fact {
            dtype: self.dtype,
            dims: bind(&self.dims),
            integers: self.integers.as_ref().map(bind),
            constant: self.constant.clone(),
        }
    }
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[", self.dtype)?;
        for (axis, dim) in self.dims.iter().enumerate() {
            write!(f, "{}{dim}", if axis == 0 { "" } else { "," })?;
        }
        f.write_str("]")
    }
}

impl fmt::Debug for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")?;
        if let Some(values) = &self.integers {
            let text: Vec<String> = values.iter().map(Dim::to_string).collect();
            write!(f, "={{{}}}", text.join(","))?;
        }
        Ok(())
    }
}
