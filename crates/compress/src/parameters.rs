//! Parameters of methods: what there is to choose, and what was chosen.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::CompressError;

/// The value of a parameter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ParameterValue {
    /// Yes or no.
    Flag(bool),
    /// A count.
    Count(u64),
    /// A number.
    Number(f64),
    /// One word of a list.
    Word(String),
}

impl std::fmt::Display for ParameterValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ParameterValue::Flag(value) => write!(f, "{value}"),
            ParameterValue::Count(value) => write!(f, "{value}"),
            ParameterValue::Number(value) => write!(f, "{value}"),
            ParameterValue::Word(value) => f.write_str(value),
        }
    }
}

/// Type, range, default and search grid of a parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Yes or no.
    Flag {
        /// Where nothing is given.
        default: bool,
    },
    /// A count.
    Count {
        /// Least value.
        min: u64,
        /// Greatest value.
        max: u64,
        /// Where nothing is given.
        default: u64,
        /// Values worth trying.
        grid: &'static [u64],
    },
    /// A number.
    Number {
        /// Least value.
        min: f64,
        /// Greatest value.
        max: f64,
        /// Where nothing is given.
        default: f64,
        /// Values worth trying.
        grid: &'static [f64],
    },
    /// One of some words.
    Choice {
        /// The words; all are worth trying.
        words: &'static [&'static str],
        /// Where nothing is given.
        default: &'static str,
    },
}

/// A parameter of a method.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Parameter {
    /// Its name in recipes.
    pub name: &'static str,
    /// What it does.
    pub about: &'static str,
    /// Type, range, default and grid.
    pub kind: Kind,
}

impl Parameter {
    /// The value where nothing is given.
    pub fn default(&self) -> ParameterValue {
        match self.kind {
            Kind::Flag { default } => ParameterValue::Flag(default),
            Kind::Count { default, .. } => ParameterValue::Count(default),
            Kind::Number { default, .. } => ParameterValue::Number(default),
            Kind::Choice { default, .. } => ParameterValue::Word(default.into()),
        }
    }

    /// The values worth trying, in order.
    pub fn grid(&self) -> Vec<ParameterValue> {
        match self.kind {
            Kind::Flag { .. } => [false, true].map(ParameterValue::Flag).to_vec(),
            Kind::Count { grid, .. } => grid.iter().map(|&v| ParameterValue::Count(v)).collect(),
            Kind::Number { grid, .. } => grid.iter().map(|&v| ParameterValue::Number(v)).collect(),
            Kind::Choice { words, .. } => {
                words.iter().map(|&w| ParameterValue::Word(w.into())).collect()
            }
        }
    }

    /// The value as this parameter's type (a whole number may stand for a number), or why it does
    /// not fit.
    fn checked(&self, value: &ParameterValue) -> Result<ParameterValue, String> {
        use ParameterValue as V;
        match (self.kind, value) {
            (Kind::Flag { .. }, V::Flag(_)) => Ok(value.clone()),
            (Kind::Count { min, max, .. }, &V::Count(v)) => {
                let fits = (min..=max).contains(&v);
                fits.then(|| value.clone()).ok_or(format!("{v} is not within {min} to {max}"))
            }
            (Kind::Number { min, max, .. }, &V::Number(v)) => {
                let fits = (min..=max).contains(&v);
                fits.then(|| value.clone()).ok_or(format!("{v} is not within {min} to {max}"))
            }
            (Kind::Number { .. }, &V::Count(v)) => self.checked(&V::Number(v as f64)),
            (Kind::Choice { words, .. }, V::Word(word)) => {
                let known = words.contains(&word.as_str());
                known.then(|| value.clone()).ok_or(format!("`{word}` is none of {words:?}"))
            }
            (Kind::Flag { .. }, _) => Err(format!("{value} is neither true nor false")),
            (Kind::Count { .. }, _) => Err(format!("{value} is not a count")),
            (Kind::Number { .. }, _) => Err(format!("{value} is not a number")),
            (Kind::Choice { words, .. }, _) => Err(format!("{value} is none of {words:?}")),
        }
    }
}

/// Chosen values by name; what is not named has its default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Parameters {
    /// The values.
    pub values: BTreeMap<String, ParameterValue>,
}

impl Parameters {
    /// No choice: every default.
    pub fn new() -> Self {
        Parameters::default()
    }

    /// The same with one more choice.
    pub fn with(mut self, name: &str, value: ParameterValue) -> Self {
        self.values.insert(name.into(), value);
        self
    }

    /// Every parameter of the method with its value, defaults filled in.
    ///
    /// # Errors
    /// Names the method does not know, values outside the range.
    pub(crate) fn complete(
        &self,
        method: &str,
        known: &[Parameter],
    ) -> Result<Complete, CompressError> {
        let refuse = |parameter: &str, why: String| CompressError::Parameter {
            method: method.into(),
            parameter: parameter.into(),
            why,
        };
        for name in self.values.keys() {
            if !known.iter().any(|p| p.name == name) {
                let names: Vec<&str> = known.iter().map(|p| p.name).collect();
                return Err(refuse(name, format!("unknown; there are {names:?}")));
            }
        }
        let value = |p: &Parameter| {
            let given = self.values.get(p.name).cloned().unwrap_or_else(|| p.default());
            let checked = p.checked(&given).map_err(|why| refuse(p.name, why))?;
            Ok((p.name, checked))
        };
        Ok(Complete(known.iter().map(value).collect::<Result<_, CompressError>>()?))
    }
}

/// A checked value for every parameter of a method.
pub(crate) struct Complete(BTreeMap<&'static str, ParameterValue>);

impl Complete {
    /// A flag the method has.
    pub fn flag(&self, name: &str) -> bool {
        matches!(self.0[name], ParameterValue::Flag(true))
    }

    /// A count the method has.
    pub fn count(&self, name: &str) -> usize {
        match self.0[name] {
            ParameterValue::Count(value) => usize::try_from(value).unwrap_or(usize::MAX),
            _ => unreachable!("`{name}` is no count"),
        }
    }

    /// A number the method has.
    pub fn number(&self, name: &str) -> f64 {
        match self.0[name] {
            ParameterValue::Number(value) => value,
            _ => unreachable!("`{name}` is no number"),
        }
    }

    /// A word the method has.
    pub fn word(&self, name: &str) -> &str {
        match &self.0[name] {
            ParameterValue::Word(value) => value,
            _ => unreachable!("`{name}` is no word"),
        }
    }
}
