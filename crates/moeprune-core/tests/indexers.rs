//! What an indexer of keys lists.

use moeprune_core::{AttentionSpec, LatentAttention, LightningIndexer};

const LATENT: LatentAttention = LatentAttention {
    heads: 2,
    query_rank: Some(7),
    kv_rank: 5,
    nope_dim: 3,
    rope_dim: 4,
    value_dim: 6,
    rotary: None,
    biases: false,
    indexer: None,
};

#[test]
fn it_stays_as_it_is() {
    let indexer = LightningIndexer { heads: 3, dim: 6, top_k: 2, rotary: None, shared: false };
    let parts = |indexer| {
        let latent = LatentAttention { indexer, ..LATENT };
        AttentionSpec::Latent(latent).parts(5, 8)
    };
    let without = parts(None);
    let shared = LightningIndexer { shared: true, ..indexer.clone() };
    assert_eq!(parts(Some(shared)), without);
    let own = parts(Some(indexer)).split_off(without.len());
    assert!(own.iter().all(|part| !part.prunable && part.reads.is_none()));
    let shown: Vec<String> =
        own.iter().map(|part| format!("{} {:?}", part.id, part.shape)).collect();
    assert_eq!(
        shown,
        [
            "layer 5 attention.indexer_query [18, 7]",
            "layer 5 attention.indexer_key [6, 8]",
            "layer 5 attention.indexer_weights [3, 8]",
            "layer 5 attention.indexer_key_norm [6]",
            "layer 5 attention.indexer_key_norm_bias [6]",
        ]
    );
}
