//! Operators on tensors of strings.

use std::sync::{Mutex, PoisonError};

use lepton_tensor::{DType, Tensor, broadcast_shapes};
use regex::Regex;

use super::facets::facets;
use super::walk::{broadcast_dims, broadcast_positions};
use crate::dim::Dim;
use crate::error::Problem;
use crate::fact::Fact;
use crate::operator::{Arity, Operands, Operator, Quant};
use crate::{attributes, words};

words! {
    /// What becomes of the letters.
    pub enum Case {
        /// They stay
        Kept = "kept",
        /// Small ones
        Lower = "lower",
        /// Capitals
        Upper = "upper",
    }
}

attributes! {
    /// The strings of x `[C]` or `[1,C]` that are no stop words, in small letters or capitals:
    /// `[K]` or `[1,K]`. Where none is left the result is one empty string.
    pub struct StringNormalizer {
        /// What becomes of the letters.
        pub case: Case = Case::Kept,
        /// True if stop words are compared letter by letter.
        pub case_sensitive: bool = false,
        /// The strings that are left out.
        pub stop_words: Vec<String> = Vec::new(),
    }
}

attributes! {
    /// Each string of a with that of b behind it; a and b broadcast against each other.
    pub struct StringConcat {}
}

attributes! {
    /// The parts of each string of x between delimiters, as Python's `split` gives them: parts
    /// `[…,most parts of a string]`, filled with empty strings, and how many there are `[…]` (i64).
    pub struct StringSplit {
        /// What lies between two parts; empty for runs of white space.
        pub delimiter: String = String::new(),
        /// Most cuts of a string; negative for any number.
        pub most: i64 = -1,
    }
}

attributes! {
    /// Whether each string of x as a whole goes with a pattern in the syntax of RE2: bool.
    pub struct RegexFullMatch {
        /// The pattern.
        pub pattern: String = String::new(),
    }
}

attributes! {
    /// The words of each string of x `[…]`: `[…,most words of a string]`, filled with `fill`. Words
    /// are what goes with `word`, or, where that is empty, what lies between separators.
    pub struct Tokenizer {
        /// A pattern in the syntax of RE2.
        pub word: String = String::new(),
        /// Patterns; one that is empty stands between any two letters.
        pub separators: Vec<String> = Vec::new(),
        /// Words with fewer letters are left out.
        pub shortest: usize = 1,
        /// What stands where a string has no further word.
        pub fill: String = String::new(),
    }
}

fn require_strings(what: &'static str, dtype: DType) -> Result<(), Problem> {
    if dtype == DType::Str { Ok(()) } else { Err(Problem::dtype(what, "str", dtype)) }
}

impl Operator for StringNormalizer {
    facets! {
        arity = Arity::exactly(1),
        stops = "strings are not numbers",
        frozen = "which strings stay depends on them",
        quant = Quant::NotApplicable,
        element_ops = 64,
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        let x = inputs.required(0, "x")?;
        require_strings("x", x.dtype)?;
        let is_row = x.rank() == 2 && (x.dims[0].is(1) || x.dims[0].as_known().is_none());
        if x.rank() != 1 && !is_row {
            return Err(Problem::shape(format!("x must be [C] or [1,C], found {x}")));
        }
        if let Some(known) = &x.constant {
            return Ok(vec![Fact::dense(
                DType::Str,
                self.eval(Operands(&[Some(known)]))?[0].shape(),
            )]);
        }
        let mut dims = vec![Dim::known(1); x.rank()];
        dims[x.rank() - 1] = Dim::unknown();
        Ok(vec![Fact::new(DType::Str, dims)])
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        let x = inputs.required(0, "x")?;
        if x.rank() == 0 || x.shape()[..x.rank() - 1].iter().any(|&extent| extent != 1) {
            return Err(Problem::shape(format!("x must be [C] or [1,C], found {:?}", x.shape())));
        }
        let folded = |word: &str| match self.case_sensitive {
            true => word.to_string(),
            false => word.to_lowercase(),
        };
        let stop_words: Vec<String> = self.stop_words.iter().map(|w| folded(w)).collect();
        let kept = x.strings()?.into_iter().filter(|s| !stop_words.contains(&folded(s)));
        let mut made: Vec<String> = kept
            .map(|s| match self.case {
                Case::Kept => s.to_string(),
                Case::Lower => s.to_lowercase(),
                Case::Upper => s.to_uppercase(),
            })
            .collect();
        if made.is_empty() {
            made.push(String::new());
        }
        let mut shape = vec![1; x.rank()];
        shape[x.rank() - 1] = made.len();
        Ok(vec![Tensor::from_strings(shape, &made)?])
    }
}

impl Operator for StringConcat {
    facets! {
        arity = Arity::exactly(2),
        stops = "strings are not numbers",
        frozen = "nothing is removed from tables of strings",
        quant = Quant::NotApplicable,
        element_ops = 64,
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        let (a, b) = (inputs.required(0, "a")?, inputs.required(1, "b")?);
        require_strings("a", a.dtype)?;
        require_strings("b", b.dtype)?;
        Ok(vec![Fact::new(DType::Str, broadcast_dims(&a.dims, &b.dims)?)])
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        let (a, b) = (inputs.required(0, "a")?, inputs.required(1, "b")?);
        let shape = broadcast_shapes(a.shape(), b.shape()).ok_or_else(|| {
            Problem::shape(format!("{:?} and {:?} do not broadcast", a.shape(), b.shape()))
        })?;
        let (x, y) = (a.strings()?, b.strings()?);
        let (at_a, at_b) =
            (broadcast_positions(a.shape(), &shape), broadcast_positions(b.shape(), &shape));
        let joined = at_a.into_iter().zip(at_b).map(|(i, j)| format!("{}{}", x[i], y[j]));
        Ok(vec![Tensor::from_strings(shape, &joined.collect::<Vec<String>>())?])
    }
}

impl StringSplit {
    fn parts<'a>(&self, string: &'a str) -> Vec<&'a str> {
        let most = usize::try_from(self.most).map_or(usize::MAX, |most| most.saturating_add(1));
        if !self.delimiter.is_empty() {
            return string.splitn(most, &self.delimiter).collect();
        }
        let (mut parts, mut rest) = (Vec::new(), string.trim_start());
        while !rest.is_empty() {
            let end = rest.find(char::is_whitespace).filter(|_| parts.len() + 1 < most);
            let (part, after) = rest.split_at(end.unwrap_or(rest.len()));
            parts.push(part);
            rest = after.trim_start();
        }
        parts
    }
}

impl Operator for StringSplit {
    facets! {
        arity = Arity::exactly(1).outputs(1, 2),
        stops = "strings are not numbers",
        frozen = "how many parts there are depends on the strings",
        quant = Quant::NotApplicable,
        element_ops = 64,
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        let x = inputs.required(0, "x")?;
        require_strings("x", x.dtype)?;
        let mut dims = x.dims.clone();
        // Also of a constant: who only reads a model must not pay for its strings.
        dims.push(Dim::unknown());
        Ok(vec![Fact::new(DType::Str, dims), Fact::new(DType::I64, x.dims.clone())])
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        let x = inputs.required(0, "x")?;
        let parts: Vec<Vec<&str>> = x.strings()?.into_iter().map(|s| self.parts(s)).collect();
        let most = parts.iter().map(Vec::len).max().unwrap_or(0);
        let counts: Vec<i64> = parts.iter().map(|parts| parts.len() as i64).collect();
        let mut shape = x.shape().to_vec();
        shape.push(most);
        Tensor::zeros(DType::Str, shape.clone())?;
        let mut filled = Vec::with_capacity(parts.len() * most);
        for mut parts in parts {
            parts.resize(most, "");
            filled.extend(parts);
        }
        let counts = Tensor::from_slice(x.shape(), &counts)?;
        Ok(vec![Tensor::from_strings(shape, &filled)?, counts])
    }
}

impl Tokenizer {
    /// The pattern, and whether it is that of words or of what lies between them.
    fn compiled(&self) -> Result<(Regex, bool), Problem> {
        let bare = |pattern: &String| {
            let made = translated(pattern);
            made[r"\A".len()..made.len() - r"\z".len()].to_string()
        };
        let (pattern, of_words) = match self.separators.iter().any(String::is_empty) {
            _ if !self.word.is_empty() => (bare(&self.word), true),
            true => ("(?s:.)".to_string(), true),
            false => (self.separators.iter().map(bare).collect::<Vec<_>>().join("|"), false),
        };
        let compiled = compiled(&pattern);
        let compiled = compiled.map_err(|why| Problem::attribute("word", why))?;
        Ok((compiled, of_words))
    }

    fn words<'a>(&self, string: &'a str, pattern: &Regex, of_words: bool) -> Vec<&'a str> {
        let long = |word: &&str| !word.is_empty() && word.chars().count() >= self.shortest;
        match of_words {
            true => pattern.find_iter(string).map(|found| found.as_str()).filter(long).collect(),
            false => pattern.split(string).filter(long).collect(),
        }
    }
}

impl Operator for Tokenizer {
    facets! {
        arity = Arity::exactly(1),
        stops = "strings are not numbers",
        frozen = "how many words there are depends on the strings",
        quant = Quant::NotApplicable,
        element_ops = 64,
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        let x = inputs.required(0, "x")?;
        require_strings("x", x.dtype)?;
        self.compiled()?;
        let mut dims = x.dims.clone();
        // Also of a constant: who only reads a model must not pay for its strings.
        dims.push(Dim::unknown());
        Ok(vec![Fact::new(DType::Str, dims)])
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        let x = inputs.required(0, "x")?;
        let (pattern, of_words) = self.compiled()?;
        let words = |string| self.words(string, &pattern, of_words);
        let rows: Vec<Vec<&str>> = x.strings()?.into_iter().map(words).collect();
        let most = rows.iter().map(Vec::len).max().unwrap_or(0);
        let mut shape = x.shape().to_vec();
        shape.push(most);
        Tensor::zeros(DType::Str, shape.clone())?;
        let mut filled = Vec::with_capacity(rows.len() * most);
        for mut row in rows {
            row.resize(most, &self.fill);
            filled.extend(row);
        }
        Ok(vec![Tensor::from_strings(shape, &filled)?])
    }
}

/// So many patterns are kept compiled.
const KEPT_PATTERNS: usize = 64;

/// The pattern, compiled once for all runs; the one that was asked for last is the last of those
/// that are kept.
fn compiled(pattern: &str) -> Result<Regex, String> {
    static KEPT: Mutex<Vec<(String, Regex)>> = Mutex::new(Vec::new());
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    let found = match kept.iter().position(|(own, _)| own == pattern) {
        Some(place) => kept.remove(place),
        None => (pattern.to_string(), Regex::new(pattern).map_err(|error| error.to_string())?),
    };
    let made = found.1.clone();
    if kept.len() >= KEPT_PATTERNS {
        kept.remove(0);
    }
    kept.push(found);
    Ok(made)
}

/// A pattern of RE2 in the syntax of the `regex` crate: classes of RE2 are those of ASCII.
fn translated(pattern: &str) -> String {
    let mut made = String::from(r"\A(?:");
    let mut letters = pattern.chars();
    while let Some(letter) = letters.next() {
        if letter != '\\' {
            made.push(letter);
            continue;
        }
        match letters.next() {
            Some('d') => made.push_str("[0-9]"),
            Some('D') => made.push_str("[^0-9]"),
            Some('w') => made.push_str("[0-9A-Za-z_]"),
            Some('W') => made.push_str("[^0-9A-Za-z_]"),
            Some('s') => made.push_str(r"[\t\n\f\r ]"),
            Some('S') => made.push_str(r"[^\t\n\f\r ]"),
            Some('b') => made.push_str(r"(?-u:\b)"),
            other => {
                made.push('\\');
                made.extend(other);
            }
        }
    }
    made.push_str(r")\z");
    made
}

impl RegexFullMatch {
    fn compiled(&self) -> Result<Regex, Problem> {
        compiled(&translated(&self.pattern)).map_err(|why| Problem::attribute("pattern", why))
    }
}

impl Operator for RegexFullMatch {
    facets! {
        arity = Arity::exactly(1),
        stops = "strings are not numbers",
        frozen = "nothing is removed from tables of strings",
        quant = Quant::NotApplicable,
        element_ops = 64,
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        let x = inputs.required(0, "x")?;
        require_strings("x", x.dtype)?;
        self.compiled()?;
        Ok(vec![Fact::new(DType::Bool, x.dims.clone())])
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        let x = inputs.required(0, "x")?;
        let pattern = self.compiled()?;
        let found = x.strings()?.into_iter().map(|string| pattern.is_match(string));
        Ok(vec![Tensor::from_bools(x.shape(), found)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(pattern: &str, string: &str) -> bool {
        let op = RegexFullMatch { pattern: pattern.into() };
        let x = Tensor::from_strings([1], &[string]).unwrap();
        op.eval(Operands(&[Some(&x)])).unwrap()[0].to_i64_vec() == [1]
    }

    #[test]
    fn patterns_hold_for_whole_strings_and_ascii_classes() {
        assert!(full("a|ab", "ab") && !full("a", "ab"));
        assert!(full(r"[\d.]+", "1.5") && !full(r"\d", "٣"));
        assert!(full(r"\w+ \\d", r"word \d"));
        let broken = RegexFullMatch { pattern: "(".into() };
        assert!(broken.infer(Operands(&[Some(&Fact::dense(DType::Str, &[1]))])).is_err());
    }

    #[test]
    fn white_space_splits_as_in_python() {
        let split = |most| StringSplit { most, ..StringSplit::default() };
        assert_eq!(split(-1).parts("  a b\t c "), ["a", "b", "c"]);
        assert_eq!(split(1).parts("a b  c "), ["a", "b  c "]);
        assert!(split(-1).parts("  ").is_empty());
    }
}
