//! By what the files of a model are known again.

use std::fs;

use moeprune_checkpoint::{Checkpoint, ContentHash};
use moeprune_core::Dtype;

use crate::fixture::{Model, planned};

fn hashes(model: &Model, whole: bool) -> Vec<ContentHash> {
    Checkpoint::open(&model.dir)
        .expect("opens")
        .with_whole_hashes(whole)
        .content_hashes()
        .expect("hashes")
}

#[test]
fn copies_have_the_same_hashes_and_others_have_not() {
    for name in ["mixtral", "mixtral_sharded"] {
        let (model, copy) = (Model::copy_of(name), Model::copy_of(name));
        let first = hashes(&model, false);
        assert_eq!(first, hashes(&copy, false));
        assert_eq!(first, hashes(&copy, true));
        assert_eq!(first[0].name, "config.json");
        let weights = first.iter().filter(|file| file.name.ends_with(".safetensors"));
        let weights: Vec<_> = weights.map(|file| file.name.clone()).collect();
        assert!(!weights.is_empty());
        for name in weights {
            let mut bytes = fs::read(copy.path(&name)).expect("reads");
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
            fs::write(copy.path(&name), &bytes).expect("writes");
            for (was, is) in first.iter().zip(hashes(&copy, false)) {
                assert_eq!(was.sampled == is.sampled, was.name != name);
                assert_eq!(was.whole == is.whole, was.name != name);
            }
            bytes[last] ^= 1;
            fs::write(copy.path(&name), &bytes).expect("writes");
        }
        assert_eq!(first, hashes(&copy, false));
    }
}

/// A change that no sampled block has shows in the hash of the whole, which is not made of a large model
/// unless it is asked for.
#[test]
fn what_samples_do_not_show() {
    let long = 1 << 27;
    let spare = (planned("spare", Dtype::U8, &[long]), vec![0; long]);
    let model = Model::tiny(&[spare], 1 << 30);
    let path = model.path("model.safetensors");
    let mut bytes = fs::read(&path).expect("reads");
    let (sampled, whole) = (hashes(&model, false), hashes(&model, true));
    assert!(sampled.iter().all(|file| file.whole.is_none()));
    assert!(whole.iter().all(|file| file.whole.is_some()));
    // Between the first two blocks, of which the second is at a fifteenth of the file.
    let between = bytes.len() / 20;
    bytes[between] ^= 1;
    fs::write(&path, &bytes).expect("writes");
    assert_eq!(hashes(&model, false), sampled);
    assert_ne!(hashes(&model, true), whole);
}
