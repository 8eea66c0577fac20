//! Steps of tree ensembles.

use lepton_ir::Node;
use lepton_ir::ops::trees::{TreeAggregate, TreeEnsemble};
use lepton_kernels::trees::{Collect, Forest, Leaves, Side, Test, TreeNode, evaluate};

use super::{Choice, Chosen, is_f32, over_rows};
use crate::place::Memory;
use crate::plan::Builder;

/// Work of a visit to a node, in multiply–adds that take as long.
const VISIT: usize = 24;

/// The largest f32 that is at most `limit`, or with `below` less than it; not a number where there
/// is none.
fn rounded_down(limit: f64, below: bool) -> f32 {
    let near = limit as f32;
    let over = f64::from(near) > limit || below && f64::from(near) == limit;
    match over {
        true if near == f32::NEG_INFINITY => f32::NAN,
        true => near.next_down(),
        false => near,
    }
}

fn side(place: i64) -> Option<Side> {
    match usize::try_from(place) {
        Ok(node) => Some(Side::Node(node)),
        Err(_) => usize::try_from(-(place.checked_add(1)?)).ok().map(Side::Leaf),
    }
}

/// The nodes as tests that hold or do not: what is above a limit is what is not at most it.
fn nodes(op: &TreeEnsemble) -> Option<Vec<TreeNode>> {
    let splits = op.splits.to_f64_vec();
    let sets = op.sets.to_f64_vec();
    let mut sets = sets.split(|v| v.is_nan()).map(<[f64]>::to_vec);
    let node = |(index, &feature): (usize, &usize)| {
        let (mode, split) = (*op.modes.get(index)?, *splits.get(index)?);
        let exact = split as f32;
        let test = match mode {
            0 | 3 => Test::AtMost(rounded_down(split, false)),
            1 | 2 => Test::AtMost(rounded_down(split, true)),
            4 | 5 if f64::from(exact) == split => Test::Equal(exact),
            4 | 5 => Test::AtMost(f32::NAN),
            6 => Test::Member(sets.next().unwrap_or_default()),
            _ => return None,
        };
        let missing = op.missing_true.get(index) == Some(&1);
        let [yes, no] = [side(*op.true_sides.get(index)?)?, side(*op.false_sides.get(index)?)?];
        Some(match mode {
            // What is not a number is not equal, so that it takes the true side.
            5 => TreeNode { feature, test, missing_holds: false, sides: [no, yes] },
            2 | 3 => TreeNode { feature, test, missing_holds: !missing, sides: [no, yes] },
            _ => TreeNode { feature, test, missing_holds: missing, sides: [yes, no] },
        })
    };
    op.features.iter().enumerate().map(node).collect()
}

/// The trees as they are walked; `None` for those that only the interpreter walks.
fn forest(op: &TreeEnsemble, width: usize) -> Option<Forest> {
    let wide = op.leaf_weights.to_f64_vec();
    let weights: Vec<f32> = wide.iter().map(|&weight| weight as f32).collect();
    if weights.iter().zip(&wide).any(|(&short, &wide)| f64::from(short) != wide) {
        return None;
    }
    let mut starts = op.leaf_starts.clone();
    starts.push(weights.len());
    let leaves = Leaves { starts, targets: op.leaf_targets.clone(), weights };
    let collect = match op.aggregate {
        TreeAggregate::Sum => Collect::Sum,
        TreeAggregate::Average => Collect::Mean,
        TreeAggregate::Min => Collect::Min,
        TreeAggregate::Max => Collect::Max,
    };
    let roots: Option<Vec<Side>> = op.roots.iter().map(|&root| side(root)).collect();
    Forest::new(&nodes(op)?, &roots?, leaves, [width, op.targets], collect, op.base.clone())
}

/// Rows of f32 down trees.
pub(crate) fn ensemble(builder: &mut Builder<'_>, node: &Node, op: &TreeEnsemble) -> Choice {
    let (Some(x), Some(y)) = (node.inputs[0], node.outputs[0]) else { return Ok(None) };
    let &[rows, width] = builder.shape(x).as_slice() else { return Ok(None) };
    if !is_f32(builder, node, 0) || op.targets == 0 {
        return Ok(None);
    }
    let prepared = builder.packs.get_or_pack(y, "forest", || (width, forest(op, width)));
    if prepared.1.is_none() || prepared.0 != width {
        return Ok(None);
    }
    let (from, to, targets) = (builder.place(x), builder.place(y), op.targets);
    let run = Box::new(move |memory: &Memory<'_>| {
        let Some(forest) = &prepared.1 else { return Ok(()) };
        over_rows(memory, rows, rows * forest.visits() * VISIT, |range| {
            // SAFETY: the plan holds rows of f32 of these widths; ranges of the output are
            // disjoint and apart from x.
            let (x, output) = unsafe {
                let output =
                    memory.slice_mut::<f32>(to, range.start * targets, range.len() * targets);
                (memory.slice::<f32>(from, rows * width), output)
            };
            evaluate(memory.isa, forest, &x[range.start * width..range.end * width], output);
        });
        Ok(())
    });
    Ok(Some(Chosen::new("trees", run)))
}
