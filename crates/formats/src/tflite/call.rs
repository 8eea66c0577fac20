//! One operator of a file while it is translated: its operands, its options, and the graph.

use lepton_ir::ops::quantize::{DequantizeLinear, QuantizeLinear};
use lepton_ir::ops::unary::{Unary, UnaryFunction};
use lepton_ir::{Fact, Graph, ValueId};
use lepton_tensor::DType;

use super::flat::Table;
use super::read::{Held, Reader};
use super::schema::{Operator, SubGraph, TensorInfo};
use super::tensor::RESOURCE;
use crate::error::FormatError;
use crate::steps::{Budget, Made, Steps, known};

pub use crate::steps::Results;

/// A node of a file, ready to be translated.
pub struct Call<'r, 'a> {
    /// The model.
    pub reader: &'r mut Reader<'a>,
    /// The graph of the file it belongs to.
    pub graph: &'a SubGraph<'a>,
    /// The tensors of that graph.
    pub held: &'r mut Vec<Held>,
    /// The node.
    pub node: &'a Operator<'a>,
    /// Its operator.
    pub operator: String,
    /// Its number and the name of its first result.
    pub label: String,
}

impl Steps for Call<'_, '_> {
    fn graph_ref(&self) -> &Graph {
        &self.reader.graph
    }

    fn graph_mut(&mut self) -> &mut Graph {
        &mut self.reader.graph
    }

    fn budget(&self) -> &Budget {
        &self.reader.budget
    }

    fn node_name(&self) -> String {
        self.result_info(0).map(|info| info.name.clone()).unwrap_or_default()
    }

    fn error(&self, why: impl Into<String>) -> FormatError {
        let (node, operator) = (self.label.clone(), self.operator.clone());
        FormatError::Node { node, operator, why: why.into() }
    }
}

impl<'a> Call<'_, 'a> {
    fn index(&self, operand: usize) -> Option<i32> {
        self.node.inputs.get(operand).copied().filter(|&index| index >= 0)
    }

    /// True if the operand is there.
    pub fn has(&self, operand: usize) -> bool {
        self.index(operand).is_some()
    }

    /// The declaration of an operand.
    pub fn info(&self, operand: usize) -> Result<&'a TensorInfo, FormatError> {
        let missing = || self.error(format!("input {operand} is missing"));
        self.reader.info(self.graph, self.index(operand).ok_or_else(missing)?)
    }

    /// The declaration of a result.
    pub fn result_info(&self, result: usize) -> Result<&'a TensorInfo, FormatError> {
        let missing = || self.error(format!("result {result} is missing"));
        let index = self.node.outputs.get(result).copied().ok_or_else(missing)?;
        self.reader.info(self.graph, index)
    }

    /// The declaration of a tensor that only says how what is computed within is quantised.
    pub fn intermediate(&self, number: usize) -> Result<&'a TensorInfo, FormatError> {
        let missing = || self.error(format!("intermediate tensor {number} is missing"));
        let index = self.node.intermediates.get(number).copied().ok_or_else(missing)?;
        self.reader.info(self.graph, index)
    }

    /// An operand's elements as the file has them: integers where it is quantised.
    pub fn stored(&mut self, operand: usize) -> Made {
        let missing = || self.error(format!("input {operand} is missing"));
        let index = self.index(operand).ok_or_else(missing)?;
        self.reader.value(self.graph, self.held, index)
    }

    /// What an operand stands for: reals where it is quantised.
    pub fn real(&mut self, operand: usize) -> Made {
        let stored = self.stored(operand)?;
        let info = self.info(operand)?;
        if !info.is_quantised() {
            return Ok(stored);
        }
        let index = self.node.inputs[operand] as usize;
        if let Some(real) = self.held[index].real {
            return Ok(real);
        }
        let real = self.dequantised(stored, info, i64::from(info.axis))?;
        self.held[index].real = Some(real);
        Ok(real)
    }

    /// The reals that integers stand for; steps of slices are along `axis`.
    pub fn dequantised(&mut self, stored: ValueId, info: &TensorInfo, axis: i64) -> Made {
        if !info.is_quantised() {
            return Ok(stored);
        }
        let (scale, zero) = (info.scales(), info.zeros()?);
        let (scale, zero) = (self.constant(scale), self.constant(zero));
        let op = DequantizeLinear { axis };
        // No name: it is another value than the tensor of the file.
        let made = self.graph_mut().add_node("", op, &[Some(stored), Some(scale), Some(zero)])?;
        Ok(made[0])
    }

    /// [`Call::real`] of an operand that may be absent.
    pub fn optional(&mut self, operand: usize) -> Result<Option<ValueId>, FormatError> {
        if self.has(operand) { self.real(operand).map(Some) } else { Ok(None) }
    }

    /// All operands.
    pub fn reals(&mut self) -> Results {
        (0..self.node.inputs.len()).map(|operand| self.real(operand)).collect()
    }

    /// The state that an operand holds, as an input of the graph.
    pub fn state(&mut self, operand: usize) -> Made {
        let info = self.info(operand)?;
        let index = self.node.inputs[operand] as usize;
        if let Some(value) = self.held[index].stored {
            return Ok(value);
        }
        let value = self.reader.state(&info.name, info.fact(&info.name)?)?;
        self.held[index].stored = Some(value);
        self.real(operand)
    }

    /// The next value of the state that an operand holds.
    pub fn keep(&mut self, operand: usize, next: ValueId) -> Result<(), FormatError> {
        let info = self.info(operand)?;
        let next = self.as_declared(next, info)?;
        self.reader.keep(info.name.clone(), next);
        Ok(())
    }

    /// Lets the first result name a variable.
    pub fn name_variable(&mut self, variable: usize) -> Result<(), FormatError> {
        self.result_info(0)?;
        self.held[self.node.outputs[0] as usize].variable = Some(variable);
        Ok(())
    }

    /// The variable that an operand names.
    pub fn variable_of(&self, operand: usize) -> Result<usize, FormatError> {
        let index = self.index(operand).and_then(|index| self.held.get(index as usize));
        let found = index.and_then(|held| held.variable);
        found.ok_or_else(|| self.error("its operand names no variable of this graph"))
    }

    /// What is known about a value.
    pub fn fact(&self, value: ValueId) -> &Fact {
        self.reader.graph.fact(value)
    }

    /// Number of axes of a value.
    pub fn rank(&self, value: ValueId) -> usize {
        self.fact(value).rank()
    }

    /// The integers of an operand, which must be known.
    pub fn known(&mut self, operand: usize) -> Result<Vec<i64>, FormatError> {
        let found = self.known_or_none(operand)?;
        found.ok_or_else(|| self.error(format!("input {operand} must be a constant")))
    }

    /// The integers of an operand, if they are known.
    pub fn known_or_none(&mut self, operand: usize) -> Result<Option<Vec<i64>>, FormatError> {
        let value = self.stored(operand)?;
        Ok(known(&self.reader.graph, value).map(|tensor| tensor.to_i64_vec()))
    }

    /// The integers of an operand as i64, as a constant where they are known.
    pub fn long(&mut self, operand: usize) -> Made {
        let value = self.stored(operand)?;
        match known(&self.reader.graph, value) {
            Some(tensor) if tensor.rank() <= 1 => {
                let integers = tensor.to_i64_vec();
                Ok(self.integers(&integers))
            }
            _ => self.cast(value, DType::I64),
        }
    }

    fn option<T>(
        &self,
        default: T,
        read: impl Fn(&Table<'a>) -> Result<T, FormatError>,
    ) -> Result<T, FormatError> {
        self.node.options.as_ref().map_or(Ok(default), read)
    }

    /// An integer among the options.
    pub fn int(&self, field: usize, default: i32) -> Result<i32, FormatError> {
        self.option(default, |table| table.i32(field, default))
    }

    /// A small integer among the options: a word.
    pub fn word(&self, field: usize) -> Result<i8, FormatError> {
        self.option(0, |table| table.i8(field, 0))
    }

    /// A real among the options.
    pub fn float(&self, field: usize, default: f32) -> Result<f32, FormatError> {
        self.option(default, |table| table.f32(field, default))
    }

    /// A truth among the options.
    pub fn flag(&self, field: usize) -> Result<bool, FormatError> {
        self.option(false, |table| table.bool(field, false))
    }

    /// A text among the options; empty where it is absent.
    pub fn text(&self, field: usize) -> Result<String, FormatError> {
        self.option(String::new(), |table| table.text(field))
    }

    /// A list of integers among the options; empty where it is absent.
    pub fn ints(&self, field: usize) -> Result<Vec<i64>, FormatError> {
        let list = self.option(Vec::new(), |table| table.vector(field)?.i32s())?;
        Ok(list.into_iter().map(i64::from).collect())
    }

    /// A positive extent among the options.
    pub fn extent(&self, field: usize, default: i32) -> Result<usize, FormatError> {
        let found = self.int(field, default)?;
        let extent = usize::try_from(found).ok().filter(|extent| (1..1 << 24).contains(extent));
        extent.ok_or_else(|| self.error(format!("{found} where an extent is needed")))
    }

    /// A known scalar operand as an axis of a tensor of `rank` axes.
    pub fn axis_operand(&mut self, operand: usize, rank: usize) -> Result<usize, FormatError> {
        match self.known(operand)?[..] {
            [axis] => self.axis_of(axis, rank),
            _ => Err(self.error(format!("input {operand} must be one axis"))),
        }
    }

    /// The activation with that number among the options.
    pub fn activation(&self, field: usize) -> Result<Unary, FormatError> {
        match self.word(field)? {
            0 => Ok(Unary::default()),
            1 => Ok(Unary::new(UnaryFunction::Relu)),
            2 => Ok(Unary::with(UnaryFunction::Clip, -1.0, 1.0)),
            3 => Ok(Unary::with(UnaryFunction::Clip, 0.0, 6.0)),
            4 => Ok(Unary::new(UnaryFunction::Tanh)),
            number => Err(self.error(format!("unknown activation number {number}"))),
        }
    }

    /// `x` after the activation with that number among the options.
    pub fn activated(&mut self, x: ValueId, field: usize) -> Made {
        let op = self.activation(field)?;
        if op.function == UnaryFunction::Identity { Ok(x) } else { self.emit_one(op, &[Some(x)]) }
    }

    /// Takes the results of the node, reals where they are to be quantised, in their order.
    pub fn finish(&mut self, results: Vec<ValueId>) -> Result<(), FormatError> {
        let names_variable = |index: &&i32| {
            self.reader.info(self.graph, **index).is_ok_and(|info| info.kind == RESOURCE)
        };
        let wanted = self.node.outputs.iter().filter(|index| !names_variable(index)).count();
        if results.len() < wanted {
            let why = format!("only {} of its results are supported", results.len());
            return Err(self.error(why));
        }
        for (position, (&index, result)) in self.node.outputs.iter().zip(results).enumerate() {
            if index < 0 {
                continue;
            }
            let info = self.result_info(position)?;
            let value = self.as_declared(result, info)?;
            if self.reader.graph.value(value).name.is_empty() {
                let name = self.reader.fresh_name(&info.name);
                self.reader.graph.set_value_name(value, name);
            }
            self.held[index as usize] = Held { stored: Some(value), ..Held::default() };
        }
        Ok(())
    }

    /// The value with the element type that is declared for it, quantised where it says so.
    fn as_declared(&mut self, value: ValueId, info: &TensorInfo) -> Made {
        let (found, declared) = (self.dtype(value), info.dtype()?);
        if !info.is_quantised() || !found.is_float() {
            return self.cast(value, declared);
        }
        let (scale, zero) = (info.scales(), info.zeros()?);
        let (scale, zero) = (self.constant(scale), self.constant(zero));
        let op = QuantizeLinear { axis: i64::from(info.axis), dtype: declared };
        self.emit_one(op, &[Some(value), Some(scale), Some(zero)])
    }
}
