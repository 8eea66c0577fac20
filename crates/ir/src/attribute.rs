//! Attributes of operators: one declaration gives the struct, its defaults, its text and its bytes.

use lepton_tensor::{DType, Layout, Tensor};

use crate::error::Problem;
use crate::graph::Graph;

/// A value that the text form and the artefact can hold.
#[derive(Clone, Debug, PartialEq)]
pub enum Attribute {
    /// An integer; `bool` is 0 or 1.
    Int(i64),
    /// A float.
    Float(f32),
    /// A word.
    Text(String),
    /// A list of integers.
    Ints(Vec<i64>),
    /// A list of floats.
    Floats(Vec<f32>),
    /// A list of words.
    Texts(Vec<String>),
    /// A tensor.
    Tensor(Tensor),
    /// A sub-graph.
    Graph(Box<Graph>),
}

impl Attribute {
    /// The word, where it is one; the error says what was found instead.
    pub fn word(&self) -> Result<&str, String> {
        match self {
            Attribute::Text(word) => Ok(word),
            other => Err(format!("expected a word, found {}", other.about())),
        }
    }

    /// What it is, in a few words however large it is.
    fn about(&self) -> String {
        match self {
            Attribute::Int(value) => format!("the integer {value}"),
            Attribute::Float(value) => format!("the float {value}"),
            Attribute::Text(word) if word.len() <= 64 => format!("the word `{word}`"),
            Attribute::Text(_) => "a long word".into(),
            Attribute::Ints(list) => format!("{} integers", list.len()),
            Attribute::Floats(list) => format!("{} floats", list.len()),
            Attribute::Texts(list) => format!("{} words", list.len()),
            Attribute::Tensor(_) => "a tensor".into(),
            Attribute::Graph(_) => "a graph".into(),
        }
    }
}

/// Named attributes, in the order of declaration; those at their default are left out.
pub type Attributes = Vec<(&'static str, Attribute)>;

/// A Rust type that an attribute can be.
pub trait AttributeValue: Sized {
    /// As an attribute.
    fn to_attribute(&self) -> Attribute;
    /// From an attribute; the error says what was expected.
    fn from_attribute(attribute: &Attribute) -> Result<Self, String>;
}

macro_rules! attribute_values {
    ($($rust:ty, $variant:ident, $what:literal, $to:expr, $from:expr;)*) => {$(
        impl AttributeValue for $rust {
            fn to_attribute(&self) -> Attribute {
                Attribute::$variant($to(self))
            }
            fn from_attribute(attribute: &Attribute) -> Result<Self, String> {
                match attribute {
                    Attribute::$variant(value) => $from(value),
                    other => Err(format!(concat!("expected ", $what, ", found {}"), other.about())),
                }
            }
        }
    )*};
}

fn to_usizes(values: &[i64]) -> Result<Vec<usize>, String> {
    values.iter().map(to_usize).collect()
}

fn to_usize(value: &i64) -> Result<usize, String> {
    usize::try_from(*value).map_err(|_| format!("expected a count, found {value}"))
}

attribute_values! {
    i64, Int, "an integer", |v: &i64| *v, |v: &i64| Ok(*v);
    usize, Int, "an integer", |v: &usize| *v as i64, to_usize;
    bool, Int, "0 or 1", |v: &bool| *v as i64, |v: &i64| Ok(*v != 0);
    f32, Float, "a float", |v: &f32| *v, |v: &f32| Ok(*v);
    String, Text, "a word", |v: &String| v.clone(), |v: &String| Ok(v.clone());
    DType, Text, "an element type", |v: &DType| v.to_string(), |v: &String| v.parse();
    Layout, Text, "a layout", |v: &Layout| v.to_string(), |v: &String| v.parse();
    Vec<i64>, Ints, "integers", |v: &Vec<i64>| v.clone(), |v: &Vec<i64>| Ok(v.clone());
    Vec<usize>, Ints, "integers", |v: &Vec<usize>| v.iter().map(|&x| x as i64).collect(),
        |v: &Vec<i64>| to_usizes(v);
    Vec<f32>, Floats, "floats", |v: &Vec<f32>| v.clone(), |v: &Vec<f32>| Ok(v.clone());
    Vec<String>, Texts, "words", |v: &Vec<String>| v.clone(), |v: &Vec<String>| Ok(v.clone());
    Tensor, Tensor, "a tensor", |v: &Tensor| v.clone(), |v: &Tensor| Ok(v.clone());
    Graph, Graph, "a graph", |v: &Graph| Box::new(v.clone()), |v: &Graph| Ok(v.clone());
}

/// An attribute that may be absent: it is left out where it is `None`.
impl<T: AttributeValue> AttributeValue for Option<T> {
    fn to_attribute(&self) -> Attribute {
        self.as_ref().map_or(Attribute::Ints(Vec::new()), T::to_attribute)
    }

    fn from_attribute(attribute: &Attribute) -> Result<Self, String> {
        T::from_attribute(attribute).map(Some)
    }
}

/// Declares an operator's struct; every field needs a default.
///
/// ```
/// lepton_ir::attributes! {
///     /// Documentation of the operator.
///     pub struct Roll {
///         /// Axis; negative counts from the back.
///         pub axis: i64 = -1,
///     }
/// }
/// assert_eq!(Roll::default().axis, -1);
/// ```
#[macro_export]
macro_rules! attributes {
    ($(#[$doc:meta])* pub struct $name:ident {
        $($(#[$field_doc:meta])* pub $field:ident : $type:ty = $default:expr),* $(,)?
    }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)*
        }

        impl Default for $name {
            fn default() -> Self {
                $name { $($field: $default),* }
            }
        }

        impl $crate::attribute::HasAttributes for $name {
            fn to_attributes(&self) -> $crate::attribute::Attributes {
                #[allow(unused_mut)]
                let mut list = $crate::attribute::Attributes::new();
                $({
                    let default: $type = $default;
                    if self.$field != default {
                        list.push((
                            stringify!($field),
                            $crate::attribute::AttributeValue::to_attribute(&self.$field),
                        ));
                    }
                })*
                list
            }

            fn from_attributes(
                given: &[(&str, $crate::attribute::Attribute)],
            ) -> Result<Self, $crate::error::Problem> {
                #[allow(unused_mut)]
                let mut made = $name::default();
                for (name, _value) in given {
                    match *name {
                        $(stringify!($field) => {
                            made.$field =
                                $crate::attribute::AttributeValue::from_attribute(_value)
                                    .map_err(|why| $crate::error::Problem::attribute(*name, why))?;
                        })*
                        _ => return Err($crate::attribute::unknown_attribute(
                            name, &[$(stringify!($field)),*],
                        )),
                    }
                }
                Ok(made)
            }
        }
    };
}

/// Declares an enum of words that can be an attribute.
#[macro_export]
macro_rules! words {
    ($(#[$doc:meta])* pub enum $name:ident {
        $($(#[$variant_doc:meta])* $variant:ident = $text:literal),* $(,)?
    }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            /// Every member, in order.
            pub const ALL: &'static [$name] = &[$($name::$variant),*];

            /// Its name in the text form.
            pub fn word(self) -> &'static str {
                match self { $($name::$variant => $text),* }
            }

            /// The member of that name.
            pub fn from_word(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|member| member.word() == word)
            }
        }

        impl $crate::attribute::AttributeValue for $name {
            fn to_attribute(&self) -> $crate::attribute::Attribute {
                $crate::attribute::Attribute::Text(self.word().to_string())
            }

            fn from_attribute(
                attribute: &$crate::attribute::Attribute,
            ) -> Result<Self, String> {
                let word = attribute.word()?;
                Self::from_word(word).ok_or_else(|| {
                    format!("unknown word `{word}`; known: {}", [$($text),*].join(", "))
                })
            }
        }
    };
}

/// Implemented by [`attributes!`]: to and from named attributes.
pub trait HasAttributes: Sized {
    /// The attributes that are not at their default.
    fn to_attributes(&self) -> Attributes;
    /// The operator with the given attributes; unknown names are refused.
    fn from_attributes(given: &[(&str, Attribute)]) -> Result<Self, Problem>;
}

/// The error for a name that no attribute has.
pub fn unknown_attribute(name: &str, known: &[&str]) -> Problem {
    let list = if known.is_empty() { "none".to_string() } else { known.join(", ") };
    Problem::attribute(name, format!("unknown; known: {list}"))
}
