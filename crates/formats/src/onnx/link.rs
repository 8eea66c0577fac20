//! Attributes that ONNX and Lepton both have, and how a value goes from one to the other.

use lepton_ir::{Attribute, Op};
use lepton_tensor::{DType, Tensor};

use super::NoExternalData;
use super::call::Call;
use super::ops::Row;
use super::proto::AttributeProto;
use super::tensor::{self, dtype_of, number_of};
use crate::error::FormatError;
use crate::steps::Steps;

/// Kind of an attribute, and ONNX's default. Lepton's default is the same.
#[derive(Clone, Copy)]
pub enum Form {
    /// An integer, or 0 and 1 for a truth value.
    Int(i64),
    /// An integer without a default, always written.
    Required,
    /// A float.
    Float(f32),
    /// A list of integers, empty where absent.
    Ints,
    /// Any word, empty where absent.
    Text,
    /// A list of any words, empty where absent.
    Texts,
    /// ONNX's word and Lepton's; the first is the default.
    Words(&'static [(&'static str, &'static str)]),
    /// An element type, a number in ONNX; without a default it is always written.
    Type(Option<DType>),
    /// A tensor; one 0.0 where absent.
    Tensor,
}

/// One attribute.
pub struct Link {
    /// ONNX's name.
    pub onnx: &'static str,
    /// Lepton's name.
    pub lepton: &'static str,
    /// What it is.
    pub form: Form,
}

/// The value of an attribute that ONNX does not have.
#[derive(Clone, Copy)]
pub enum Fixed {
    /// An integer or truth value.
    Int(i64),
    /// A word.
    Word(&'static str),
}

/// A line of the table.
pub const fn link(onnx: &'static str, lepton: &'static str, form: Form) -> Link {
    Link { onnx, lepton, form }
}

/// The words for padding.
pub const AUTO_PAD: &[(&str, &str)] = &[
    ("NOTSET", "explicit"),
    ("SAME_UPPER", "same_upper"),
    ("SAME_LOWER", "same_lower"),
    ("VALID", "valid"),
];

impl Fixed {
    fn attribute(self) -> Attribute {
        match self {
            Fixed::Int(v) => Attribute::Int(v),
            Fixed::Word(v) => Attribute::Text(v.to_string()),
        }
    }
}

impl Call<'_> {
    /// An error if the node has an attribute that nobody looks at.
    pub fn check_attributes(&self, links: &[Link], also: &[&str]) -> Result<(), FormatError> {
        for attribute in &self.proto.attribute {
            let name = attribute.name.as_deref().unwrap_or_default();
            if !links.iter().any(|link| link.onnx == name) && !also.contains(&name) {
                return Err(self.error(format!("attribute `{name}` is not supported")));
            }
        }
        Ok(())
    }

    /// The Lepton attribute for a line of the table; `None` where both have their default.
    fn linked(&self, link: &Link) -> Result<Option<Attribute>, FormatError> {
        let Some(given) = self.attribute(link.onnx) else { return Ok(None) };
        let fail = |why: String| self.error(format!("attribute `{}`: {why}", link.onnx));
        Ok(match link.form {
            Form::Int(default) => given.i.filter(|i| *i != default).map(Attribute::Int),
            Form::Required => given.i.map(Attribute::Int),
            Form::Float(default) => given.f.filter(|f| *f != default).map(Attribute::Float),
            Form::Ints => {
                Some(Attribute::Ints(given.ints.clone())).filter(|_| !given.ints.is_empty())
            }
            Form::Text => {
                Some(self.text(link.onnx, "")).filter(|text| !text.is_empty()).map(Attribute::Text)
            }
            Form::Texts => {
                let list = self.texts(link.onnx);
                Some(list).filter(|list| !list.is_empty()).map(Attribute::Texts)
            }
            Form::Words(words) => {
                let text = self.text(link.onnx, words[0].0);
                let found = words.iter().find(|(word, _)| *word == text || text.is_empty());
                let (_, word) = found.ok_or_else(|| fail(format!("unknown word `{text}`")))?;
                Some(Attribute::Text(word.to_string()))
            }
            Form::Type(default) => match given.i.unwrap_or(0) {
                0 if default.is_some() => None,
                number => {
                    let dtype = dtype_of(number.try_into().unwrap_or(i32::MAX)).map_err(fail)?;
                    Some(Attribute::Text(dtype.name().to_string()))
                }
            },
            Form::Tensor => match &given.t {
                None => None,
                Some(proto) => Some(Attribute::Tensor(tensor::read(proto, &NoExternalData)?)),
            },
        })
    }

    /// The operator of a row with the node's attributes.
    pub fn built(&self, row: &Row) -> Result<Op, FormatError> {
        let mut attributes = Vec::with_capacity(row.links.len() + row.fixed.len());
        for (name, value) in row.fixed {
            attributes.push((*name, value.attribute()));
        }
        for link in row.links {
            attributes.extend(self.linked(link)?.map(|value| (link.lepton, value)));
        }
        self.op(row.operator, &attributes)
    }
}

/// ONNX's numbers for the kinds of attributes.
const FLOAT: i32 = 1;
const INT: i32 = 2;
const STRING: i32 = 3;
const TENSOR: i32 = 4;
const GRAPH: i32 = 5;
const FLOATS: i32 = 6;
const INTS: i32 = 7;
const STRINGS: i32 = 8;

fn named(name: &str, r#type: i32) -> AttributeProto {
    let name = Some(name.to_string());
    AttributeProto { name, r#type: Some(r#type), ..AttributeProto::default() }
}

/// An integer attribute.
pub fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto { i: Some(value), ..named(name, INT) }
}

/// A float attribute.
pub fn float(name: &str, value: f32) -> AttributeProto {
    AttributeProto { f: Some(value), ..named(name, FLOAT) }
}

/// A list of integers.
pub fn ints(name: &str, values: Vec<i64>) -> AttributeProto {
    AttributeProto { ints: values, ..named(name, INTS) }
}

/// A word.
pub fn word(name: &str, value: &str) -> AttributeProto {
    AttributeProto { s: Some(value.as_bytes().to_vec().into()), ..named(name, STRING) }
}

/// A list of words.
pub fn words(name: &str, values: &[&str]) -> AttributeProto {
    let strings = values.iter().map(|value| value.as_bytes().to_vec().into()).collect();
    AttributeProto { strings, ..named(name, STRINGS) }
}

/// A list of floats.
pub fn floats(name: &str, values: Vec<f32>) -> AttributeProto {
    AttributeProto { floats: values, ..named(name, FLOATS) }
}

/// A tensor.
pub fn tensor_attribute(name: &str, value: &Tensor) -> AttributeProto {
    AttributeProto { t: Some(Box::new(tensor::write("", value))), ..named(name, TENSOR) }
}

/// A graph.
pub fn graph(name: &str, value: super::proto::GraphProto) -> AttributeProto {
    AttributeProto { g: Some(Box::new(value)), ..named(name, GRAPH) }
}

/// True if the operator is the one of this row: by name and by the fixed attributes.
pub fn matches(row: &Row, op: &Op) -> bool {
    if row.operator != op.name() {
        return false;
    }
    let fixed: Vec<_> = row.fixed.iter().map(|(n, v)| (*n, v.attribute())).collect();
    let Ok(expected) = Op::from_parts(row.operator, &fixed) else { return false };
    let (expected, found) = (expected.attributes(), op.attributes());
    let same = |name: &str| find(&expected, name) == find(&found, name);
    row.fixed.iter().all(|(name, _)| same(name))
}

fn find<'a>(list: &'a [(&'static str, Attribute)], name: &str) -> Option<&'a Attribute> {
    list.iter().find(|(n, _)| *n == name).map(|(_, value)| value)
}

/// The ONNX attributes of an operator of this row, and the name of one that ONNX does not have.
pub fn unlinked(row: &Row, op: &Op) -> (Vec<AttributeProto>, Option<&'static str>) {
    let given = op.attributes();
    let mut written = Vec::new();
    for link in row.links {
        written.extend(write_link(link, find(&given, link.lepton)));
    }
    let known = |name: &str| {
        row.links.iter().any(|l| l.lepton == name) || row.fixed.iter().any(|f| f.0 == name)
    };
    (written, given.iter().map(|(name, _)| *name).find(|name| !known(name)))
}

fn write_link(link: &Link, value: Option<&Attribute>) -> Option<AttributeProto> {
    let name = link.onnx;
    match (link.form, value) {
        (Form::Required, value) => match value {
            Some(Attribute::Int(v)) => Some(int(name, *v)),
            _ => Some(int(name, 0)),
        },
        (Form::Type(None), value) => match value {
            Some(Attribute::Text(text)) => Some(int(name, type_number(text))),
            _ => Some(int(name, type_number(DType::F32.name()))),
        },
        (_, None) => None,
        (_, Some(Attribute::Int(v))) => Some(int(name, *v)),
        (_, Some(Attribute::Float(v))) => Some(float(name, *v)),
        (_, Some(Attribute::Ints(v))) => Some(ints(name, v.clone())),
        (Form::Words(words), Some(Attribute::Text(text))) => {
            let found = words.iter().find(|(_, lepton)| lepton == text);
            found.map(|(onnx, _)| word(name, onnx))
        }
        (Form::Text, Some(Attribute::Text(text))) => Some(word(name, text)),
        (_, Some(Attribute::Texts(list))) => {
            Some(words(name, &list.iter().map(String::as_str).collect::<Vec<&str>>()))
        }
        (Form::Type(_), Some(Attribute::Text(text))) => Some(int(name, type_number(text))),
        (_, Some(Attribute::Tensor(v))) => Some(tensor_attribute(name, v)),
        (_, Some(other)) => unreachable!("no link has the kind of {other:?}"),
    }
}

fn type_number(name: &str) -> i64 {
    name.parse().map_or(0, |dtype| number_of(dtype) as i64)
}

#[cfg(test)]
mod tests {
    use super::super::ops::ROWS;
    use super::*;

    /// Leaving an attribute out must mean the same in both.
    #[test]
    fn defaults_agree() {
        for row in ROWS {
            for link in row.links {
                let value = match link.form {
                    Form::Int(v) => Attribute::Int(v),
                    Form::Required => Attribute::Int(0),
                    Form::Float(v) => Attribute::Float(v),
                    Form::Ints => Attribute::Ints(Vec::new()),
                    Form::Text => Attribute::Text(String::new()),
                    Form::Texts => Attribute::Texts(Vec::new()),
                    Form::Words(words) => Attribute::Text(words[0].1.to_string()),
                    Form::Type(v) => Attribute::Text(v.unwrap_or(DType::F32).name().to_string()),
                    Form::Tensor => Attribute::Tensor(Tensor::vector(&[0f32])),
                };
                let made = Op::from_parts(row.operator, &[(link.lepton, value)]);
                let made = made.unwrap_or_else(|why| panic!("{} {}: {why}", row.name, link.onnx));
                assert_eq!(made.attributes(), [], "{} {}", row.name, link.onnx);
            }
        }
    }
}
