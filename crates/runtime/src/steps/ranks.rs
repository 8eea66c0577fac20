//! Steps that put the first of the elements along an axis in order.

use lepton_ir::Node;
use lepton_ir::ops::order::TopK;
use lepton_ir::ops::walk::resolve_axis;
use lepton_kernels::ranks::{first_in_order, place};

use super::{Choice, Chosen, is_f32, over_rows};
use crate::place::Memory;
use crate::plan::Builder;

/// Work of an element that is read, in multiply–adds that take as long.
const VISIT: usize = 16;

/// The largest or smallest f32 along an axis.
pub(crate) fn top(builder: &mut Builder<'_>, node: &Node, op: &TopK) -> Choice {
    let &[Some(values), Some(positions)] = node.outputs.as_slice() else { return Ok(None) };
    let Some(x) = node.inputs[0].filter(|_| is_f32(builder, node, 0)) else { return Ok(None) };
    let (shape, made) = (builder.shape(x), builder.shape(values));
    let Ok(axis) = resolve_axis(op.axis, shape.len()) else { return Ok(None) };
    let (Some(&extent), Some(&wanted)) = (shape.get(axis), made.get(axis)) else {
        return Ok(None);
    };
    if wanted > extent || u32::try_from(extent).is_err() {
        return Ok(None);
    }
    let inner: usize = shape[axis + 1..].iter().product();
    let lines = shape[..axis].iter().product::<usize>() * inner;
    let (from, to, at) = (builder.place(x), builder.place(values), builder.place(positions));
    let (count, largest) = (builder.count(x), op.largest);
    let run = Box::new(move |memory: &Memory<'_>| {
        over_rows(memory, lines, count * VISIT, |range| {
            let (mut all, mut keys) = (Vec::new(), vec![0; wanted]);
            for line in range {
                let (o, i) = (line / inner, line % inner);
                // SAFETY: the plan holds these counts of f32 and i64 there; each line writes
                // elements of its own, apart from x.
                unsafe {
                    let x = &memory.slice::<f32>(from, count)[o * extent * inner..][i..];
                    let line = (0..extent).map(|e| x[e * inner]);
                    first_in_order(line, largest, &mut all, &mut keys);
                    for (rank, &key) in keys.iter().enumerate() {
                        let place_of = (o * wanted + rank) * inner + i;
                        memory.write::<f32>(to).add(place_of).write(x[place(key) * inner]);
                        memory.write::<i64>(at).add(place_of).write(place(key) as i64);
                    }
                }
            }
        });
        Ok(())
    });
    Ok(Some(Chosen::new("ranks", run)))
}
