//! Which name of a file may mean which name of a graph.

/// So many names are looked at for those that are near another.
const COMPARED: usize = 1000;
/// Bytes of a name that count for how near it is.
const COUNTED_BYTES: usize = 128;

/// The name in lower case with one mark between its parts, without what tools put before it.
pub fn normalised(name: &str) -> String {
    let lower = name.to_lowercase();
    let parts = lower.split(['/', '.', ':', '_', '\\']).filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join(".")
}

/// True if one normalised name is the end of the other, whole parts of it.
pub fn is_suffix(a: &str, b: &str) -> bool {
    let (long, short) = if a.len() >= b.len() { (a, b) } else { (b, a) };
    let Some(before) = long.strip_suffix(short) else { return false };
    !short.is_empty() && (before.is_empty() || before.ends_with('.'))
}

/// Changes of one byte that make one name of the other (Levenshtein 1966).
fn distance(a: &str, b: &str) -> usize {
    let cut = |name: &str| name.as_bytes()[..name.len().min(COUNTED_BYTES)].to_vec();
    let (a, b) = (cut(a), cut(b));
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut before = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let changed = before + usize::from(x != y);
            before = row[j + 1];
            row[j + 1] = changed.min(before + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// Up to three of `names` that are nearest to `name`; of equally near ones the first.
pub fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let own = normalised(name);
    let mut all: Vec<(usize, &str)> =
        names.take(COMPARED).map(|other| (distance(&own, &normalised(other)), other)).collect();
    all.sort_by_key(|(apart, _)| *apart);
    all.into_iter().take(3).map(|(_, other)| other).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_by_their_parts() {
        assert_eq!(normalised("/model/Layer_0:weight"), "model.layer.0.weight");
        assert!(is_suffix("model.layer.0.weight", "layer.0.weight"));
        assert!(!is_suffix("model.sublayer.0.weight", "layer.0.weight"));
        assert!(!is_suffix("", "weight"));
        assert_eq!(distance("kitten", "sitting"), 3);
        let names = ["fc1.weight", "fc2.weight", "conv.bias", "head"];
        assert_eq!(nearest("fc2.weights", names.into_iter())[0], "fc2.weight");
    }
}
