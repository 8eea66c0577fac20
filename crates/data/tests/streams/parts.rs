//! Descriptions, splits, order, cache and hash, on sources made here.

use std::path::PathBuf;

use crate::folder::Folder;
use lepton_data::{DataOptions, DataSet, Factor, Split, SplitOrigin, Subset, write_npz};
use lepton_tensor::Tensor;

fn counting(folder: &Folder, name: &str, rows: u32) -> PathBuf {
    let path = folder.path().join(name);
    let x = Tensor::vector(&(0..rows).collect::<Vec<_>>());
    let labels = Tensor::vector(&(0..rows).map(|row| (row % 3) as u8).collect::<Vec<_>>());
    write_npz(&path, [("x", &x), ("labels", &labels)]).unwrap();
    path
}

fn values(batches: lepton_data::Batches) -> Vec<i64> {
    batches.flat_map(|batch| batch.unwrap().inputs[0].1.to_i64_vec()).collect()
}

fn part(folder: &Folder, toml: &str, split: Split) -> Result<Subset, String> {
    let path = folder.file("data.toml", toml);
    let open = || DataSet::open(&path, &DataOptions::default())?.split(split);
    open().map_err(|error| error.to_string())
}

#[test]
fn tables_name_their_own_rows() {
    let folder = Folder::new();
    counting(&folder, "a.npz", 10);
    counting(&folder, "b.npz", 4);
    let toml = "scale = 2\n[train]\npath = \"a.npz\"\nlimit = 3\n[test]\npath = \"b.npz\"";
    let train = part(&folder, toml, Split::Train).unwrap();
    assert_eq!(values(train.batches(2)), [0, 2, 4]);
    assert_eq!(train.split_origin(), SplitOrigin::Tables);
    assert_eq!(values(part(&folder, toml, Split::Test).unwrap().batches(9)), [0, 2, 4, 6]);
    assert!(part(&folder, toml, Split::All).unwrap_err().contains("ask for one of them"));
    let same = "path = \"a.npz\"\n[train]\n[test]\nlimit = 3";
    assert!(part(&folder, same, Split::Test).unwrap_err().contains("are the same rows"));
    let divided = "split = 0.5\n[test]\npath = \"b.npz\"";
    assert!(
        part(&folder, divided, Split::Test).unwrap_err().contains("`split` divides one source")
    );
    let only = "[test]\npath = \"b.npz\"";
    assert!(part(&folder, only, Split::Train).unwrap_err().contains("has no [train] table"));
    assert_eq!(part(&folder, only, Split::All).unwrap().len(), 4);
    assert!(part(&folder, "limit = 3", Split::All).unwrap_err().contains("names no `path`"));
}

#[test]
fn a_share_divides_one_source() {
    let folder = Folder::new();
    counting(&folder, "a.npz", 100);
    let toml = "path = \"a.npz\"\nsplit = 0.75\nseed = 5";
    let of = |split| values(part(&folder, toml, split).unwrap().batches(7));
    let (train, test) = (of(Split::Train), of(Split::Test));
    assert_eq!((train.len(), test.len()), (75, 25));
    assert!(train.iter().all(|row| !test.contains(row)));
    assert!(
        part(&folder, "path = \"a.npz\"\nsplit = 2", Split::All).unwrap_err().contains("0 to 1")
    );
    let none = part(&folder, "path = \"a.npz\"\nsplit = 0", Split::Train).unwrap_err();
    assert!(none.contains("no rows left for Train"), "{none}");
    let assumed = part(&folder, "path = \"a.npz\"", Split::Train).unwrap();
    assert_eq!((assumed.len(), assumed.split_origin()), (50, SplitOrigin::Assumed));
}

#[test]
fn shuffling_permutes_rows_with_their_labels() {
    let folder = Folder::new();
    let path = counting(&folder, "a.npz", 50);
    let set = DataSet::open(&path, &DataOptions::default()).unwrap();
    let all = set.split(Split::All).unwrap();
    let plain = values(all.batches(8));
    assert_eq!(plain, (0..50).collect::<Vec<_>>());
    let mut shuffled = values(all.shuffled_batches(8, 1));
    assert_eq!(shuffled, values(all.shuffled_batches(8, 1)));
    assert_ne!(shuffled, values(all.shuffled_batches(8, 2)));
    assert_ne!(shuffled, plain);
    for batch in all.shuffled_batches(8, 1) {
        let batch = batch.unwrap();
        let rows = batch.inputs[0].1.to_i64_vec();
        let labels: Vec<i64> = rows.iter().map(|row| row % 3).collect();
        assert_eq!(batch.labels.unwrap().to_i64_vec(), labels);
    }
    shuffled.sort_unstable();
    assert_eq!(shuffled, plain);
}

#[test]
fn options_go_before_the_description() {
    let folder = Folder::new();
    counting(&folder, "a.npz", 10);
    let path = folder.file("data.toml", "path = \"a.npz\"\nscale = 2\nlimit = 2");
    let over =
        DataOptions { limit: Some(3), scale: Some(Factor::Number(3.0)), ..Default::default() };
    let subset = DataSet::open(&path, &over).unwrap().split(Split::All).unwrap();
    assert_eq!(values(subset.batches(5)), [0, 3, 6]);
}

#[test]
fn the_hash_knows_content_options_and_rows_but_not_places() {
    let (here, there) = (Folder::new(), Folder::new());
    let hash = |folder: &Folder, options: &DataOptions| {
        let path = folder.path().join("a.npz");
        let subset = DataSet::open(&path, options).unwrap().split(Split::Train).unwrap();
        subset.content_hash().unwrap()
    };
    counting(&here, "a.npz", 10);
    counting(&there, "a.npz", 10);
    let plain = DataOptions::default();
    let first = hash(&here, &plain);
    assert_eq!(first.len(), 64);
    assert_eq!(first, hash(&there, &plain));
    assert_ne!(first, hash(&here, &DataOptions { seed: Some(1), ..plain.clone() }));
    assert_ne!(first, hash(&here, &DataOptions { limit: Some(2), ..plain.clone() }));
    counting(&there, "a.npz", 11);
    assert_ne!(first, hash(&there, &plain));
}

#[test]
fn two_inputs_take_no_arithmetic() {
    let folder = Folder::new();
    let path = folder.path().join("a.npz");
    let x = Tensor::vector(&[1u8, 2]);
    write_npz(&path, [("a", &x), ("b", &x)]).unwrap();
    let scaled = DataOptions { scale: Some(Factor::Number(3.0)), ..Default::default() };
    let error = DataSet::open(&path, &scaled).unwrap_err().to_string();
    assert!(error.contains("`scale` needs a single input"), "{error}");
    let typed = DataOptions { dtype: Some("i64".into()), ..Default::default() };
    let subset = DataSet::open(&path, &typed).unwrap().split(Split::All).unwrap();
    let batch = subset.batches(2).next().unwrap().unwrap();
    assert_eq!(batch.inputs[1].1, Tensor::vector(&[1i64, 2]));
}
