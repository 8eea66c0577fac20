//! The weights of a file in place of a graph's own.

use std::collections::{BTreeMap, HashMap};

use lepton_ir::ops::transpose::Transpose;
use lepton_ir::{Graph, Op, Operands, Users, ValueId};
use lepton_tensor::{DType, Tensor};

use super::names::{is_suffix, nearest, normalised};
use super::read::Weights;
use crate::error::{FormatError, MOST_PROBLEMS};

/// How a tensor of the file becomes a constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fit {
    /// As it is.
    Straight,
    /// With its two axes exchanged: a matrix product takes what a layer has as its transpose.
    Transposed,
}

/// What a weight is: a named constant in floating point, or of 8 bits with more than one element.
pub fn weights_of(graph: &Graph) -> Vec<ValueId> {
    let is_weight = |&id: &ValueId| {
        let Some(tensor) = graph.constant(id) else { return false };
        let bytes = matches!(tensor.dtype(), DType::I8 | DType::U8) && tensor.len() > 1;
        (tensor.dtype().is_float() || bytes) && !graph.value(id).name.is_empty()
    };
    graph.constants().into_iter().filter(is_weight).collect()
}

/// A tensor of the file as the constant it is to replace, or why it does not fit.
fn fit(graph: &Graph, users: &Users, id: ValueId, given: &Tensor) -> Result<Fit, String> {
    let own = graph.constant(id).expect("weights are constants");
    if own.dtype() != given.dtype() && !own.dtype().is_float() {
        return Err(format!("{} does not become {}", given.dtype(), own.dtype()));
    }
    if own.shape() == given.shape() {
        return Ok(Fit::Straight);
    }
    let reversed: Vec<usize> = given.shape().iter().rev().copied().collect();
    let is_product = |&(node, operand): &(lepton_ir::NodeId, usize)| match &graph.node(node).op {
        Op::MatMul(_) => true,
        Op::Gemm(_) => operand < 2,
        _ => false,
    };
    let uses = &users[id.index()];
    let product = !uses.is_empty() && uses.iter().all(is_product);
    match given.rank() == 2 && own.shape() == reversed && product {
        true => Ok(Fit::Transposed),
        false => Err(format!("its extents are {:?}", given.shape())),
    }
}

/// Which constant takes which tensor of the file.
struct Matching<'a> {
    graph: &'a Graph,
    users: Users,
    file: &'a Weights,
    weights: Vec<ValueId>,
    /// The tensor of each weight and how it fits.
    taken: BTreeMap<usize, (usize, Fit)>,
    problems: Vec<String>,
}

impl Matching<'_> {
    fn name(&self, weight: usize) -> &str {
        &self.graph.value(self.weights[weight]).name
    }

    fn shape(&self, weight: usize) -> &[usize] {
        self.graph.constant(self.weights[weight]).map_or(&[], Tensor::shape)
    }

    fn fit(&self, weight: usize, tensor: usize) -> Result<Fit, String> {
        fit(self.graph, &self.users, self.weights[weight], &self.file[tensor].1)
    }

    /// Weights and tensors of the same name.
    fn same_names(&mut self) {
        let places: HashMap<&str, usize> =
            self.file.iter().enumerate().map(|(i, (name, _))| (name.as_str(), i)).collect();
        for weight in 0..self.weights.len() {
            let Some(&tensor) = places.get(self.name(weight)) else { continue };
            match self.fit(weight, tensor) {
                Ok(fit) => drop(self.taken.insert(weight, (tensor, fit))),
                Err(why) => {
                    let (name, shape) = (self.name(weight), self.shape(weight));
                    self.problems.push(format!("`{name}` {shape:?}: {why} in the file"));
                    self.taken.insert(weight, (tensor, Fit::Straight));
                }
            }
        }
    }

    /// Of what is left, pairs of which one name ends as the other and that fit, if neither has
    /// another partner.
    fn same_ends(&mut self) {
        let free = |taken: &BTreeMap<usize, (usize, Fit)>| {
            let used: Vec<usize> = taken.values().map(|(tensor, _)| *tensor).collect();
            let weights = (0..self.weights.len()).filter(|w| !taken.contains_key(w));
            let tensors = (0..self.file.len()).filter(|t| !used.contains(t));
            (weights.collect::<Vec<_>>(), tensors.collect::<Vec<_>>())
        };
        let (weights, tensors) = free(&self.taken);
        // What ends alike has the same last part.
        let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_string();
        let mut ends: HashMap<String, Vec<(usize, String)>> = HashMap::new();
        for &tensor in &tensors {
            let name = normalised(&self.file[tensor].0);
            ends.entry(last(&name)).or_default().push((tensor, name));
        }
        let mut partners: BTreeMap<usize, Vec<(usize, Fit)>> = BTreeMap::new();
        let mut wanted: HashMap<usize, usize> = HashMap::new();
        for &weight in &weights {
            let own = normalised(self.name(weight));
            let candidates = ends.get(&last(&own)).map_or(&[][..], Vec::as_slice);
            for (tensor, _) in candidates.iter().filter(|(_, name)| is_suffix(&own, name)) {
                if let Ok(fit) = self.fit(weight, *tensor) {
                    partners.entry(weight).or_default().push((*tensor, fit));
                    *wanted.entry(*tensor).or_default() += 1;
                }
            }
        }
        for (weight, found) in partners {
            if let [(tensor, fit)] = found[..]
                && wanted[&tensor] == 1
            {
                self.taken.insert(weight, (tensor, fit));
            }
        }
    }

    /// A square matrix of a product beside others that had to be transposed says nothing about
    /// itself.
    fn square(&mut self) {
        let transposes = self.taken.values().any(|(_, fit)| *fit == Fit::Transposed);
        if !transposes {
            return;
        }
        let of_product = |id: ValueId| {
            let is = |&(node, _): &(lepton_ir::NodeId, usize)| {
                matches!(self.graph.node(node).op, Op::MatMul(_))
            };
            self.users[id.index()].iter().any(is)
        };
        let unclear = self.taken.keys().filter(|&&weight| {
            matches!(self.shape(weight), [a, b] if a == b) && of_product(self.weights[weight])
        });
        let told = unclear.map(|&weight| {
            let (name, shape) = (self.name(weight), self.shape(weight));
            format!("`{name}` {shape:?} is square and others are transposed: it may be, too")
        });
        let told: Vec<String> = told.collect();
        self.problems.extend(told);
    }

    /// What is left on either side.
    fn left(&mut self) {
        let mut told = Vec::new();
        let file_names = || self.file.iter().map(|(name, _)| name.as_str());
        let is_near = |names: Vec<&str>| match names.is_empty() {
            true => String::new(),
            false => format!("; nearest: {}", names.join(", ")),
        };
        for weight in (0..self.weights.len()).filter(|w| !self.taken.contains_key(w)) {
            if told.len() >= MOST_PROBLEMS {
                break;
            }
            let (name, shape) = (self.name(weight), self.shape(weight));
            // Factors of formulas are single numbers, too, and no file has them.
            if shape.iter().product::<usize>() <= 1 {
                continue;
            }
            let near = is_near(nearest(name, file_names()));
            told.push(format!("`{name}` {shape:?} of the model is not in the file{near}"));
        }
        let mut used = vec![false; self.file.len()];
        self.taken.values().for_each(|(tensor, _)| used[*tensor] = true);
        for (tensor, (name, given)) in self.file.iter().enumerate() {
            // Counters of the training, which no graph needs.
            let counter = given.dtype().is_integer() && given.len() <= 1;
            if used[tensor] || counter || told.len() >= 2 * MOST_PROBLEMS {
                continue;
            }
            let names = (0..self.weights.len()).map(|weight| self.name(weight));
            let near = is_near(nearest(name, names));
            let shape = given.shape();
            told.push(format!("`{name}` {shape:?} of the file is not in the model{near}"));
        }
        self.problems.extend(told);
    }
}

/// The tensor as a constant of that type.
fn converted(given: &Tensor, fit: Fit, dtype: DType) -> Result<Tensor, FormatError> {
    let failed = |error: String| FormatError::Weights(vec![error]);
    let turned = match fit {
        Fit::Straight => given.clone(),
        Fit::Transposed => {
            let op: Op = Transpose { permutation: vec![1, 0] }.into();
            let made = op.eval(Operands(&[Some(given)])).map_err(|e| failed(e.to_string()))?;
            made.into_iter().next().expect("it has one result")
        }
    };
    if turned.dtype() == dtype {
        return Ok(turned);
    }
    let made = Tensor::from_f64_slice(dtype, turned.shape(), &turned.to_f64_vec());
    made.map_err(|error| failed(error.to_string()))
}

/// The graph with its weights replaced by those of a file. Weights are the named constants in
/// floating point, and of 8 bits with more than one element; every one of more than one element gets
/// another tensor, and every tensor of the file has its place, but for integers of one element.
///
/// A weight takes the tensor of its name; what is left takes the tensor whose name, in lower case
/// and with the parts between `/`, `.`, `:` and `_`, ends as its own, if it fits and neither has
/// another partner. A tensor fits if its extents are the same, or the other way round where only
/// matrix products use the weight. Its elements are converted to a weight in floating point.
///
/// # Errors
/// [`FormatError::Weights`] with all names that do not fit, their extents and the nearest names.
pub fn replace(graph: &mut Graph, file: &Weights) -> Result<(), FormatError> {
    let mut matching = Matching {
        graph,
        users: graph.users(),
        file,
        weights: weights_of(graph),
        taken: BTreeMap::new(),
        problems: Vec::new(),
    };
    matching.same_names();
    matching.same_ends();
    matching.square();
    matching.left();
    if !matching.problems.is_empty() {
        matching.problems.truncate(2 * MOST_PROBLEMS);
        return Err(FormatError::Weights(matching.problems));
    }
    let Matching { taken, weights, .. } = matching;
    for (weight, (tensor, fit)) in taken {
        let id = weights[weight];
        let dtype = graph.fact(id).dtype;
        graph.set_constant(id, converted(&file[tensor].1, fit, dtype)?);
    }
    Ok(graph.verify()?)
}
