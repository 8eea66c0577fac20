//! A recipe: which methods were applied, in which order, with which parameters.

use lepton_ir::Graph;
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::error::CompressError;
use crate::methods::method;
use crate::parameters::Parameters;

/// One method and its parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Name of the method.
    pub method: String,
    /// What was chosen; what is not named has its default.
    #[serde(default)]
    pub parameters: Parameters,
}

/// Methods in order; empty means the model as it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Recipe {
    /// The steps.
    pub steps: Vec<Step>,
}

impl Recipe {
    /// The model as it is.
    pub fn new() -> Self {
        Recipe::default()
    }

    /// The same with one more step.
    pub fn then(mut self, method: &str, parameters: Parameters) -> Self {
        self.steps.push(Step { method: method.into(), parameters });
        self
    }

    /// Applies every step in order.
    ///
    /// # Errors
    /// Methods and parameters that do not exist, and every error of the methods.
    pub fn apply(&self, graph: &Graph, context: &Context<'_>) -> Result<Graph, CompressError> {
        // A recipe that cannot be finished is refused before any work.
        for step in &self.steps {
            let method = method(&step.method)?;
            step.parameters.complete(method.name, method.params)?;
        }
        let mut graph = graph.clone();
        for step in &self.steps {
            graph = method(&step.method)?.apply(&graph, &step.parameters, context)?;
        }
        Ok(graph)
    }
}

/// `static-int8 (calibration=mse) → bf16`
impl std::fmt::Display for Recipe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.steps.is_empty() {
            return f.write_str("as it is");
        }
        for (i, step) in self.steps.iter().enumerate() {
            write!(f, "{}{}", if i == 0 { "" } else { " → " }, step.method)?;
            let values = &step.parameters.values;
            let list: Vec<String> = values.iter().map(|(n, v)| format!("{n}={v}")).collect();
            if !list.is_empty() {
                write!(f, " ({})", list.join(", "))?;
            }
        }
        Ok(())
    }
}
