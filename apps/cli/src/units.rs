//! Numbers with units on the command line.

use std::time::Duration;

const DURATIONS: &[(&str, f64)] =
    &[("us", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];

const BYTES: &[(&str, f64)] = &[
    ("B", 1.0),
    ("KB", 1e3),
    ("MB", 1e6),
    ("GB", 1e9),
    ("KiB", 1024.0),
    ("MiB", 1048576.0),
    ("GiB", 1073741824.0),
];

fn number(text: &str, units: &[(&str, f64)]) -> Result<f64, String> {
    let names: Vec<&str> = units.iter().map(|(name, _)| *name).collect();
    let expected =
        || format!("expected a number and one of {}, such as 2{}", names.join(", "), names[1]);
    let at = text.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(expected)?;
    let (number, unit) = text.split_at(at);
    let factor = units.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit));
    let value: f64 = number.trim().parse().map_err(|_| expected())?;
    let value = value * factor.ok_or_else(expected)?.1;
    if value.is_finite() && value >= 0.0 { Ok(value) } else { Err(expected()) }
}

/// `800us`, `2ms`, `1.5s`, `10m`, `1h`.
pub fn duration(text: &str) -> Result<Duration, String> {
    Duration::try_from_secs_f64(number(text, DURATIONS)?).map_err(|error| error.to_string())
}

/// `300KB`, `2.5MiB`, or plain bytes.
pub fn bytes(text: &str) -> Result<u64, String> {
    text.parse().or_else(|_| Ok(number(text, BYTES)?.round() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read_and_mistakes_named() {
        assert_eq!(duration("800us"), Ok(Duration::from_micros(800)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(bytes("300KB"), Ok(300_000));
        assert_eq!(bytes("1kib"), Ok(1024));
        assert_eq!(bytes("77"), Ok(77));
        for wrong in ["", "5", "ms", "-1s", "5parsec", "nans"] {
            assert!(duration(wrong).is_err(), "{wrong:?}");
        }
    }
}
