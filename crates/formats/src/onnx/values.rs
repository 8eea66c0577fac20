//! Rows for operators that make, convert, order or resize values, and for layers with state.

use lepton_ir::Attribute;
use lepton_tensor::Tensor;

use super::NoExternalData;
use super::call::{Call, Results};
use super::tensor::{self, dtype_of};

/// Conversion to the type that attribute `to` numbers.
pub fn cast(call: &mut Call<'_>) -> Results {
    let to = dtype_of(call.int("to", 0) as i32).map_err(|why| call.error(why))?;
    let op = call.op("Cast", &[("to", Attribute::Text(to.name().to_string()))])?;
    let x = call.input(0);
    call.emit(op, &[x])
}

/// A tensor of one repeated value; 0.0 where none is given.
pub fn constant_of_shape(call: &mut Call<'_>) -> Results {
    let given = call.attribute("value").and_then(|a| a.t.clone());
    let value = match given {
        Some(proto) => tensor::read(&proto, &NoExternalData)?,
        None => Tensor::vector(&[0f32]),
    };
    let op = call.op("ConstantOfShape", &[("value", Attribute::Tensor(value))])?;
    let shape = call.input(0);
    call.emit(op, &[shape])
}

/// Normalisation over the trailing axes.
pub fn layer_norm(call: &mut Call<'_>) -> Results {
    if call.result_count() > 1 {
        return Err(call.error("only its first result is supported"));
    }
    let attributes = [
        ("axis", Attribute::Int(call.int("axis", -1))),
        ("epsilon", Attribute::Float(call.float("epsilon", 1e-5))),
    ];
    let op = call.op("LayerNormalization", &attributes)?;
    let inputs = call.inputs.clone();
    call.emit(op, &inputs)
}

/// One triangle of each matrix.
pub fn trilu(call: &mut Call<'_>) -> Results {
    let op = call.op("Trilu", &[("upper", Attribute::Int(call.int("upper", 1)))])?;
    let inputs = call.inputs.clone();
    call.emit(op, &inputs)
}

/// Running sums.
pub fn cum_sum(call: &mut Call<'_>) -> Results {
    let attributes = [
        ("exclusive", Attribute::Int(call.int("exclusive", 0))),
        ("reverse", Attribute::Int(call.int("reverse", 0))),
    ];
    let op = call.op("CumSum", &attributes)?;
    let inputs = call.inputs.clone();
    call.emit(op, &inputs)
}

/// Where the largest or smallest element is.
pub fn arg(call: &mut Call<'_>) -> Results {
    let least = call.proto.op_type.as_deref() == Some("ArgMin");
    let attributes = [
        ("function", Attribute::Text(if least { "min" } else { "max" }.to_string())),
        ("axis", Attribute::Int(call.int("axis", 0))),
        ("keep_dims", Attribute::Int(call.int("keepdims", 1))),
        ("last", Attribute::Int(call.int("select_last_index", 0))),
    ];
    let op = call.op("Arg", &attributes)?;
    let x = call.input(0);
    call.emit(op, &[x])
}

/// Recurrent layers with the usual activations.
pub fn recurrent(call: &mut Call<'_>) -> Results {
    let name = call.proto.op_type.clone().unwrap_or_default();
    for unsupported in ["activations", "clip", "activation_alpha", "input_forget"] {
        if call.has(unsupported) && call.int(unsupported, 1) != 0 {
            return Err(call.error(format!("attribute `{unsupported}` is not supported")));
        }
    }
    if call.int("layout", 0) != 0 || call.input(4).is_some() || call.input(7).is_some() {
        return Err(call.error("layout 1, sequence lengths and peepholes are not supported"));
    }
    let direction = call.text("direction", "forward");
    let mut attributes = vec![("direction", Attribute::Text(direction))];
    if name == "GRU" {
        let before = call.int("linear_before_reset", 0);
        attributes.push(("linear_before_reset", Attribute::Int(before)));
    }
    let op = call.op(&name, &attributes)?;
    let inputs = call.inputs.clone();
    call.emit(op, &inputs)
}
