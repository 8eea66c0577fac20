//! Steps that pick and write slices at places that are data.

use lepton_ir::Node;
use lepton_ir::ops::gather::GatherElements;
use lepton_ir::ops::scatter::{GatherND, ScatterElements, ScatterND, ScatterReduction};
use lepton_ir::ops::walk::resolve_axis;
use lepton_kernels::tuples::{Outside, axis_places, pick, put, tuple_places};
use lepton_tensor::DType;

use super::{Choice, Chosen, by_size};
use crate::error::RuntimeError;
use crate::place::{Memory, Place};
use crate::plan::{Builder, Run};

/// How indices become places.
#[derive(Clone)]
enum Places {
    /// Tuples along leading axes of these extents.
    Tuples(Vec<usize>),
    /// One index along an axis: extents before, along and behind it, and how many it takes.
    Axis([usize; 3], usize),
}

/// The indices of a step.
struct Indices {
    place: Place,
    count: usize,
    wide: bool,
    places: Places,
    label: String,
}

impl Indices {
    fn new(builder: &Builder<'_>, node: &Node, places: Places) -> Option<Self> {
        let id = node.inputs[1]?;
        let dtype = builder.graph.fact(id).dtype;
        let wide = match dtype {
            DType::I64 => true,
            DType::I32 => false,
            _ => return None,
        };
        let (place, count) = (builder.place(id), builder.count(id));
        Some(Indices { place, count, wide, places, label: builder.graph.node_label(node) })
    }

    /// The places they lead to.
    fn read(&self, memory: &Memory<'_>) -> Result<Vec<usize>, RuntimeError> {
        // SAFETY: the plan holds so many indices of this type there.
        let found = unsafe {
            match (&self.places, self.wide) {
                (Places::Tuples(extents), true) => {
                    tuple_places(extents, memory.slice::<i64>(self.place, self.count))
                }
                (Places::Tuples(extents), false) => {
                    tuple_places(extents, memory.slice::<i32>(self.place, self.count))
                }
                (Places::Axis(extents, taken), true) => {
                    axis_places(*extents, *taken, memory.slice::<i64>(self.place, self.count))
                }
                (Places::Axis(extents, taken), false) => {
                    axis_places(*extents, *taken, memory.slice::<i32>(self.place, self.count))
                }
            }
        };
        found.map_err(|Outside { index, extent }| RuntimeError::Data {
            node: self.label.clone(),
            why: format!("index {index} is outside an axis of {extent}"),
        })
    }
}

/// The places of tuples of indices into `x`, and the elements of a slice.
fn tuples(builder: &Builder<'_>, node: &Node) -> Option<(Places, usize)> {
    let (x, indices) = (builder.shape(node.inputs[0]?), builder.shape(node.inputs[1]?));
    let count = *indices.last()?;
    let fits = count > 0 && count <= x.len() && !indices.contains(&0);
    fits.then(|| (Places::Tuples(x[..count].to_vec()), x[count..].iter().product()))
}

/// The places of indices along an axis, if the other extents are those of x.
fn along(builder: &Builder<'_>, node: &Node, axis: i64) -> Option<Places> {
    let (x, indices) = (builder.shape(node.inputs[0]?), builder.shape(node.inputs[1]?));
    let axis = resolve_axis(axis, x.len()).ok()?;
    let same = x.len() == indices.len() && (0..x.len()).all(|i| i == axis || x[i] == indices[i]);
    let extents = [x[..axis].iter().product(), *x.get(axis)?, x[axis + 1..].iter().product()];
    (same && !indices.contains(&0)).then(|| Places::Axis(extents, indices[axis]))
}

fn picked(builder: &Builder<'_>, node: &Node, places: Places, length: usize) -> Option<Run> {
    let (x, y) = (node.inputs[0]?, node.outputs[0]?);
    let indices = Indices::new(builder, node, places)?;
    let (from, to) = (builder.place(x), builder.place(y));
    let (count, made) = (builder.count(x), builder.count(y));
    Some(by_size!(builder.graph.fact(x).dtype.size(), T => Box::new(move |memory: &Memory<'_>| {
        let places = indices.read(memory)?;
        // SAFETY: the plan holds these counts of elements of this size there, which are apart.
        let (table, output) =
            unsafe { (memory.slice::<T>(from, count), memory.slice_mut::<T>(to, 0, made)) };
        pick(length, &places, table, output);
        Ok(())
    })))
}

fn written(builder: &Builder<'_>, node: &Node, places: Places, length: usize) -> Option<Run> {
    let (x, updates, y) = (node.inputs[0]?, node.inputs[2]?, node.outputs[0]?);
    let indices = Indices::new(builder, node, places)?;
    let taken = builder.count(updates);
    let tuple = match &indices.places {
        Places::Tuples(extents) => extents.len(),
        Places::Axis(..) => 1,
    };
    if taken != indices.count / tuple * length {
        return None;
    }
    let places = [x, updates, y].map(|id| builder.place(id));
    let count = builder.count(x);
    Some(by_size!(builder.graph.fact(x).dtype.size(), T => Box::new(move |memory: &Memory<'_>| {
        let found = indices.read(memory)?;
        // SAFETY: the plan holds these counts of elements of this size there; the result is apart
        // from the operands.
        let (table, updates, output) = unsafe {
            (memory.slice::<T>(places[0], count),
             memory.slice::<T>(places[1], taken),
             memory.slice_mut::<T>(places[2], 0, count))
        };
        output.copy_from_slice(table);
        put(length, &found, updates, output);
        Ok(())
    })))
}

fn chosen(kernel: &'static str, run: Option<Run>) -> Choice {
    Ok(run.map(|run| Chosen::new(kernel, run)))
}

/// One element of each of `outer` rows of `extent` elements, all at the same index.
pub(crate) fn column(
    builder: &Builder<'_>,
    node: &Node,
    [outer, extent]: [usize; 2],
) -> Option<Run> {
    let (x, y) = (node.inputs[0]?, node.outputs[0]?);
    let indices = Indices::new(builder, node, Places::Tuples(vec![extent]))?;
    let (from, to) = (builder.place(x), builder.place(y));
    Some(by_size!(builder.graph.fact(x).dtype.size(), T => Box::new(move |memory: &Memory<'_>| {
        let place = indices.read(memory)?[0];
        // SAFETY: the plan holds rows of elements of this size and one result for each there.
        let (table, output) = unsafe {
            (memory.slice::<T>(from, outer * extent), memory.slice_mut::<T>(to, 0, outer))
        };
        let rows = table.chunks_exact(extent);
        output.iter_mut().zip(rows).for_each(|(to, row)| *to = row[place]);
        Ok(())
    })))
}

/// Slices at tuples of indices.
pub(crate) fn gather_tuples(builder: &mut Builder<'_>, node: &Node, op: &GatherND) -> Choice {
    let found = if op.batch_dims == 0 { tuples(builder, node) } else { None };
    chosen("gather", found.and_then(|(places, length)| picked(builder, node, places, length)))
}

/// Elements at indices along an axis.
pub(crate) fn gather_elements(
    builder: &mut Builder<'_>,
    node: &Node,
    op: &GatherElements,
) -> Choice {
    let found = along(builder, node, op.axis);
    chosen("gather", found.and_then(|places| picked(builder, node, places, 1)))
}

/// Slices written at tuples of indices.
pub(crate) fn scatter_tuples(builder: &mut Builder<'_>, node: &Node, op: &ScatterND) -> Choice {
    let replaces = op.reduction == ScatterReduction::Replace;
    let found = if replaces { tuples(builder, node) } else { None };
    chosen("scatter", found.and_then(|(places, length)| written(builder, node, places, length)))
}

/// Elements written at indices along an axis.
pub(crate) fn scatter_elements(
    builder: &mut Builder<'_>,
    node: &Node,
    op: &ScatterElements,
) -> Choice {
    let replaces = op.reduction == ScatterReduction::Replace;
    let found = if replaces { along(builder, node, op.axis) } else { None };
    chosen("scatter", found.and_then(|places| written(builder, node, places, 1)))
}
