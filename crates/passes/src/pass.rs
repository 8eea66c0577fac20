//! What a pass is, and running a list of them with the verifier between.

use lepton_ir::{Graph, GraphError, Node, NodeId, Users, ValueId};

/// Something went wrong inside a pass; always a defect of the pass, never of the model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PassError {
    /// A node could not be built.
    #[error("pass `{pass}`: {error}")]
    Build {
        /// The pass.
        pass: &'static str,
        /// What was refused.
        error: GraphError,
    },
    /// The graph is not valid after the pass.
    #[error("pass `{pass}` left an invalid graph: {error}")]
    Invalid {
        /// The pass.
        pass: &'static str,
        /// The broken invariant.
        error: GraphError,
    },
}

/// One rewriting of a graph.
pub struct Pass {
    /// Its name in errors and reports.
    pub name: &'static str,
    /// Rewrites the graph and says how many places it changed.
    pub run: fn(&mut Graph) -> Result<usize, GraphError>,
}

/// Most times a pipeline starts again because something still changes.
const MAX_ROUNDS: usize = 32;

/// Runs the passes in order, again and again until none changes anything; the graph is verified
/// after each pass that did.
pub fn run_pipeline(passes: &[Pass], graph: &mut Graph) -> Result<(), PassError> {
    for _ in 0..MAX_ROUNDS {
        let mut changes = 0;
        for pass in passes {
            let build = |error| PassError::Build { pass: pass.name, error };
            let changed = (pass.run)(graph).map_err(build)?;
            if changed == 0 {
                continue;
            }
            changes += changed;
            graph.sort().map_err(build)?;
            graph.remove_dead();
            graph.verify().map_err(|error| PassError::Invalid { pass: pass.name, error })?;
        }
        if changes == 0 {
            break;
        }
    }
    Ok(())
}

/// The node that makes `value`, if `value` has exactly one use and is no output: then it may be
/// merged into its user.
pub(crate) fn sole_producer<'a>(
    graph: &'a Graph,
    users: &Users,
    value: ValueId,
) -> Option<(NodeId, &'a Node)> {
    let alone = users[value.index()].len() == 1 && !graph.outputs().contains(&value);
    if alone { graph.producer(value) } else { None }
}
