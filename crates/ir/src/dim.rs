//! Symbolic extents: polynomials with integer coefficients over named symbols.
//!
//! Two dimensions are equal exactly when their normal forms are, so `2*n + n` and `3*n` agree.
//! Quotients that do not divide evenly become opaque atoms `floor(a/b)`.

use std::collections::HashMap;
use std::fmt;
use std::ops::{Add, Mul, Neg, Sub};
use std::sync::Arc;

/// Something a polynomial treats as a variable.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Atom {
    Symbol(Arc<str>),
    FloorDiv(Arc<(Dim, Dim)>),
    Max(Arc<(Dim, Dim)>),
}

/// A product of atoms (sorted, with repetition) and its coefficient.
type Term = (Vec<Atom>, i64);

/// An extent, or an integer that depends on extents.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Dim {
    /// The part without atoms; most extents have no other, and need no memory.
    constant: i64,
    /// Sorted by atoms, no zero coefficient, no atoms twice, none without atoms; `None` if there are
    /// none, shared by clones.
    terms: Option<Arc<Vec<Term>>>,
}

/// Values of symbols.
pub type Bindings = HashMap<Arc<str>, i64>;

/// Longest polynomial kept; beyond that the result is unknown.
const MAX_TERMS: usize = 64;

impl Dim {
    /// The name of an extent nobody knows before the model runs.
    const UNKNOWN: &'static str = "?";

    /// A known integer.
    pub fn known(value: i64) -> Self {
        Dim { constant: value, terms: None }
    }

    /// The terms with atoms.
    fn terms(&self) -> &[Term] {
        self.terms.as_ref().map_or(&[], |terms| terms)
    }

    /// A named symbol.
    pub fn symbol(name: impl Into<Arc<str>>) -> Self {
        Dim::atom(Atom::Symbol(name.into()))
    }

    /// An extent that depends on data. The graph renames it to a symbol of its own.
    pub fn unknown() -> Self {
        Dim::symbol(Dim::UNKNOWN)
    }

    /// True for the result of [`Dim::unknown`] and anything computed from it.
    pub fn is_unknown(&self) -> bool {
        self.mentions(Dim::UNKNOWN)
    }

    fn atom(atom: Atom) -> Self {
        Dim { constant: 0, terms: Some(Arc::new(vec![(vec![atom], 1)])) }
    }

    /// The integer, if there are no symbols.
    pub fn as_known(&self) -> Option<i64> {
        self.terms.is_none().then_some(self.constant)
    }

    /// The extent, if it is known and not negative.
    pub fn as_usize(&self) -> Option<usize> {
        self.as_known().and_then(|value| usize::try_from(value).ok())
    }

    /// True if it is the known integer `value`.
    pub fn is(&self, value: i64) -> bool {
        self.as_known() == Some(value)
    }

    /// True if the symbol `name` occurs in it.
    pub fn mentions(&self, name: &str) -> bool {
        self.as_known().is_none() && self.symbols().iter().any(|symbol| &**symbol == name)
    }

    /// The symbols in it, sorted, each once.
    pub fn symbols(&self) -> Vec<Arc<str>> {
        let mut found = Vec::new();
        self.collect_symbols(&mut found);
        found.sort();
        found.dedup();
        found
    }

    fn collect_symbols(&self, found: &mut Vec<Arc<str>>) {
        for atom in self.terms().iter().flat_map(|(atoms, _)| atoms) {
            match atom {
                Atom::Symbol(name) => found.push(name.clone()),
                Atom::FloorDiv(pair) | Atom::Max(pair) => {
                    pair.0.collect_symbols(found);
                    pair.1.collect_symbols(found);
                }
            }
        }
    }

    /// The sum of a constant and of terms, in any order, that may lack atoms.
    fn normalised(mut constant: i64, mut terms: Vec<Term>) -> Self {
        terms.sort();
        let mut merged: Vec<Term> = Vec::with_capacity(terms.len());
        for (atoms, value) in terms {
            match merged.last_mut() {
                _ if atoms.is_empty() => constant = constant.saturating_add(value),
                Some(last) if last.0 == atoms => last.1 = last.1.saturating_add(value),
                _ => merged.push((atoms, value)),
            }
        }
        merged.retain(|(_, value)| *value != 0);
        if merged.len() > MAX_TERMS {
            Dim::unknown()
        } else {
            Dim { constant, terms: (!merged.is_empty()).then(|| Arc::new(merged)) }
        }
    }

    /// All terms, the constant one first, if it is not zero.
    fn parts(&self) -> impl Iterator<Item = (&[Atom], i64)> {
        let constant = (self.constant != 0).then_some((&[][..], self.constant));
        constant.into_iter().chain(self.terms().iter().map(|(atoms, value)| (&atoms[..], *value)))
    }

    /// The quotient rounded toward minus infinity. Division by zero is unknown.
    pub fn floor_div(&self, divisor: &Dim) -> Dim {
        if let (Some(a), Some(b)) = (self.as_known(), divisor.as_known()) {
            return a.checked_div_euclid(b).map_or_else(Dim::unknown, Dim::known);
        }
        if divisor.is(1) {
            return self.clone();
        }
        self.exact_div(divisor)
            .unwrap_or_else(|| Dim::atom(Atom::FloorDiv(Arc::new((self.clone(), divisor.clone())))))
    }

    /// The quotient rounded toward plus infinity.
    pub fn ceil_div(&self, divisor: &Dim) -> Dim {
        -((-self.clone()).floor_div(divisor))
    }

    /// The quotient where the division leaves nothing over for every value of the symbols.
    pub fn exact_div(&self, divisor: &Dim) -> Option<Dim> {
        let mut parts = divisor.parts();
        let (Some((atoms, coefficient)), None) = (parts.next(), parts.next()) else {
            return (self == divisor && !divisor.is(0)).then(|| Dim::known(1));
        };
        let divide = |(have, value): (&[Atom], i64)| {
            let mut rest = have.to_vec();
            for atom in atoms {
                let at = rest.iter().position(|a| a == atom)?;
                rest.remove(at);
            }
            (value.checked_rem(coefficient)? == 0).then(|| (rest, value / coefficient))
        };
        Some(Dim::normalised(0, self.parts().map(divide).collect::<Option<Vec<_>>>()?))
    }

    /// The larger of two.
    pub fn larger(&self, other: &Dim) -> Dim {
        match (self.as_known(), other.as_known()) {
            (Some(a), Some(b)) => Dim::known(a.max(b)),
            _ if self == other => self.clone(),
            _ => Dim::atom(Atom::Max(Arc::new((self.clone(), other.clone())))),
        }
    }

    /// The smaller of two.
    pub fn smaller(&self, other: &Dim) -> Dim {
        -((-self.clone()).larger(&-other.clone()))
    }

    /// The dimension with symbols replaced by their values; others stay.
    pub fn bind(&self, bindings: &Bindings) -> Dim {
        if self.as_known().is_some() {
            return self.clone();
        }
        let mut sum = Dim::known(self.constant);
        for (atoms, value) in self.terms() {
            let mut product = Dim::known(*value);
            for atom in atoms {
                product = product * bind_atom(atom, bindings);
            }
            sum = sum + product;
        }
        sum
    }
}

fn bind_atom(atom: &Atom, bindings: &Bindings) -> Dim {
    match atom {
        Atom::Symbol(name) => {
            bindings.get(name).map_or_else(|| Dim::atom(atom.clone()), |&v| Dim::known(v))
        }
        Atom::FloorDiv(pair) => pair.0.bind(bindings).floor_div(&pair.1.bind(bindings)),
        Atom::Max(pair) => pair.0.bind(bindings).larger(&pair.1.bind(bindings)),
    }
}

impl From<usize> for Dim {
    fn from(value: usize) -> Self {
        Dim::known(i64::try_from(value).unwrap_or(i64::MAX))
    }
}

impl Add for Dim {
    type Output = Dim;
    fn add(self, other: Dim) -> Dim {
        let constant = self.constant.saturating_add(other.constant);
        if self.terms.is_none() && other.terms.is_none() {
            return Dim::known(constant);
        }
        Dim::normalised(constant, [self.terms(), other.terms()].concat())
    }
}

impl Neg for Dim {
    type Output = Dim;
    fn neg(mut self) -> Dim {
        self.constant = self.constant.saturating_neg();
        for (_, value) in self.terms.iter_mut().flat_map(Arc::make_mut) {
            *value = value.saturating_neg();
        }
        self
    }
}

impl Sub for Dim {
    type Output = Dim;
    fn sub(self, other: Dim) -> Dim {
        self + -other
    }
}

impl Mul for Dim {
    type Output = Dim;
    fn mul(self, other: Dim) -> Dim {
        if let (Some(a), Some(b)) = (self.as_known(), other.as_known()) {
            return Dim::known(a.saturating_mul(b));
        }
        let count = self.parts().count() * other.parts().count();
        if count > MAX_TERMS {
            return Dim::unknown();
        }
        let mut terms = Vec::with_capacity(count);
        for (a, x) in self.parts() {
            for (b, y) in other.parts() {
                let mut atoms: Vec<Atom> = a.iter().chain(b).cloned().collect();
                atoms.sort();
                terms.push((atoms, x.saturating_mul(y)));
            }
        }
        Dim::normalised(0, terms)
    }
}

impl fmt::Display for Atom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Atom::Symbol(name) => write_symbol(f, name),
            Atom::FloorDiv(pair) => write!(f, "floor({}, {})", pair.0, pair.1),
            Atom::Max(pair) => write!(f, "max({}, {})", pair.0, pair.1),
        }
    }
}

/// Plain identifiers as they are, anything else in quotes.
fn write_symbol(f: &mut fmt::Formatter<'_>, name: &str) -> fmt::Result {
    let plain = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_' || c == '?')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '?' | '.'))
        && !matches!(name, "floor" | "max");
    if plain { f.write_str(name) } else { write!(f, "{name:?}") }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Symbols first, the constant last, as people write it.
        let parts: Vec<_> = self.parts().collect();
        if parts.is_empty() {
            return f.write_str("0");
        }
        for (position, &(atoms, value)) in parts.iter().rev().enumerate() {
            let magnitude = value.unsigned_abs();
            match (position, value < 0) {
                (0, true) => f.write_str("-")?,
                (0, false) => {}
                (_, true) => f.write_str("-")?,
                (_, false) => f.write_str("+")?,
            }
            if atoms.is_empty() {
                write!(f, "{magnitude}")?;
                continue;
            }
            if magnitude != 1 {
                write!(f, "{magnitude}*")?;
            }
            for (i, atom) in atoms.iter().enumerate() {
                write!(f, "{}{atom}", if i == 0 { "" } else { "*" })?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn n() -> Dim {
        Dim::symbol("n")
    }

    #[test]
    fn normal_forms_decide_equality() {
        assert_eq!(n() + n(), n() * Dim::known(2));
        assert_eq!(n() - n(), Dim::known(0));
        assert_eq!((n() + Dim::known(1)) * n(), n() * n() + n());
        assert_eq!((n() * Dim::known(4)).floor_div(&Dim::known(2)), n() * Dim::known(2));
        assert_eq!((n() * Dim::symbol("m")).exact_div(&n()), Some(Dim::symbol("m")));
        assert_eq!((n() + Dim::known(1)).exact_div(&Dim::known(2)), None);
    }

    #[test]
    fn binding_evaluates_quotients() {
        let half = (n() + Dim::known(1)).floor_div(&Dim::known(2));
        let bindings = Bindings::from([("n".into(), 7)]);
        assert_eq!(half.to_string(), "floor(n+1, 2)");
        assert_eq!(half.bind(&bindings), Dim::known(4));
        assert_eq!(n().ceil_div(&Dim::known(2)).bind(&bindings), Dim::known(4));
        assert_eq!(n().larger(&Dim::known(9)).bind(&bindings), Dim::known(9));
    }

    #[test]
    fn unknown_spreads() {
        assert!((Dim::unknown() + Dim::known(1)).is_unknown());
        assert!(!n().is_unknown());
        assert!(Dim::known(3).floor_div(&Dim::known(0)).is_unknown());
    }
}
