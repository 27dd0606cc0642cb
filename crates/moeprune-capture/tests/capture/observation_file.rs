//! Observations on disk and back.

use std::fs;

use moeprune_capture::{observation_sha256, read_observation, write_observation};
use moeprune_core::{
    AttentionProjection, CorpusTag, InputMoments, LayerObservation, LinearId, MlpProjection,
    Observation, Rendering, RoutingSums, TextFacts, observation::Statistics as _,
};
use proptest::prelude::*;
use safetensors::SafeTensors;
use sha2::{Digest, Sha256};

/// Two layers: a dense one, and one of three experts, top 2, five tokens in two blocks.
pub(crate) fn small() -> Observation {
    let moments =
        |tokens, calls, sums: &[f64]| InputMoments { tokens, calls, sum_squares: sums.to_vec() };
    let query = LinearId::Attention(AttentionProjection::Query);
    let expert = |e| LinearId::Expert(e, MlpProjection::Down);
    Observation {
        model_fingerprint: "abc".into(),
        corpora: vec![CorpusTag {
            name: "a \"text\".jsonl".into(),
            sha256: "12".repeat(32),
            samples: 2,
            sequence_len: 3,
            seed: u64::MAX,
            repeated: 1,
            read: None,
        }],
        layers: vec![
            LayerObservation {
                routing: None,
                inputs: [(query, moments(5, 2, &[0.1, 2.0, 3.5]))].into(),
            },
            LayerObservation {
                routing: Some(RoutingSums {
                    tokens: 5,
                    top_k: 2,
                    counts: vec![5, 4, 1],
                    coactivation: vec![0, 4, 1, 4, 0, 0, 1, 0, 0],
                    gate_sums: vec![2.75, 2.0, 0.25],
                    gated_output_norms: vec![1.0, 1.5, 0.1],
                    output_norms: vec![3.0, 2.5, 0.4],
                    output_peaks: Vec::new(),
                    output_sums: Vec::new(),
                }),
                inputs: [
                    (query, moments(5, 2, &[1.0, 0.0, 1e300])),
                    (expert(2), moments(1, 1, &[f64::MIN_POSITIVE])),
                    (expert(10), moments(0, 0, &[0.0])),
                ]
                .into(),
            },
        ],
    }
}

#[test]
fn the_file_is_as_documented() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("observation.safetensors");
    let observation = small();
    write_observation(&observation, &path).unwrap();
    let bytes = fs::read(&path).unwrap();
    let header_len = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    assert_eq!(header_len % 8, 0);
    let header = std::str::from_utf8(&bytes[8..8 + header_len]).unwrap();
    insta::assert_snapshot!(header.trim_end().replace("},", "},\n"), @r#"
    {"__metadata__":{"format":"moeprune-observation","version":"1","model_fingerprint":"abc","corpora":"[{\"name\":\"a \\\"text\\\".jsonl\",\"sha256\":\"1212121212121212121212121212121212121212121212121212121212121212\",\"samples\":2,\"sequence_len\":3,\"seed\":18446744073709551615}]","layers":"2"},
    "layer.0.input.attention.query.tokens":{"dtype":"U64","shape":[],"data_offsets":[0,8]},
    "layer.0.input.attention.query.calls":{"dtype":"U64","shape":[],"data_offsets":[8,16]},
    "layer.0.input.attention.query.sum_squares":{"dtype":"F64","shape":[3],"data_offsets":[16,40]},
    "layer.1.routing.tokens":{"dtype":"U64","shape":[],"data_offsets":[40,48]},
    "layer.1.routing.top_k":{"dtype":"U64","shape":[],"data_offsets":[48,56]},
    "layer.1.routing.counts":{"dtype":"U64","shape":[3],"data_offsets":[56,80]},
    "layer.1.routing.coactivation":{"dtype":"U64","shape":[3,3],"data_offsets":[80,152]},
    "layer.1.routing.gate_sums":{"dtype":"F64","shape":[3],"data_offsets":[152,176]},
    "layer.1.routing.gated_output_norms":{"dtype":"F64","shape":[3],"data_offsets":[176,200]},
    "layer.1.routing.output_norms":{"dtype":"F64","shape":[3],"data_offsets":[200,224]},
    "layer.1.input.attention.query.tokens":{"dtype":"U64","shape":[],"data_offsets":[224,232]},
    "layer.1.input.attention.query.calls":{"dtype":"U64","shape":[],"data_offsets":[232,240]},
    "layer.1.input.attention.query.sum_squares":{"dtype":"F64","shape":[3],"data_offsets":[240,264]},
    "layer.1.input.expert.2.down.tokens":{"dtype":"U64","shape":[],"data_offsets":[264,272]},
    "layer.1.input.expert.2.down.calls":{"dtype":"U64","shape":[],"data_offsets":[272,280]},
    "layer.1.input.expert.2.down.sum_squares":{"dtype":"F64","shape":[1],"data_offsets":[280,288]},
    "layer.1.input.expert.10.down.tokens":{"dtype":"U64","shape":[],"data_offsets":[288,296]},
    "layer.1.input.expert.10.down.calls":{"dtype":"U64","shape":[],"data_offsets":[296,304]},
    "layer.1.input.expert.10.down.sum_squares":{"dtype":"F64","shape":[1],"data_offsets":[304,312]}}
    "#);

    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let counts = tensors.tensor("layer.1.routing.counts").unwrap();
    assert_eq!(counts.data(), [5_u64, 4, 1].map(u64::to_le_bytes).as_flattened());
    assert_eq!(read_observation(&path).unwrap(), observation);
    assert_eq!(observation_sha256(&observation), format!("{:x}", Sha256::digest(&bytes)));
    insta::assert_snapshot!(observation_sha256(&observation), @"96004ff232c7d1e28f28c4b25e3bdbd0b3ba4e56343f012ca2ac1543f7b779ac");
}

/// [`small`] with every row of every table.
fn full() -> Observation {
    let mut full = small();
    let routing = full.layers[1].routing.as_mut().unwrap();
    routing.output_peaks = vec![1.5, 0.25, 4.0];
    routing.output_sums = vec![0.5, -1.0, 2.0, -0.0, 1e-300, 7.0];
    full
}

#[test]
fn equal_observations_are_equal_files_of_every_version() {
    insta::assert_snapshot!(observation_sha256(&full()), @"39a62ef5bc307674d9d7aeeea8f824d280670d9209e8f9f5178684d41165a346");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("observation");
    write_observation(&full(), &path).unwrap();
    assert_eq!(read_observation(&path).unwrap(), full());
}

#[test]
fn rows_that_came_later_may_be_missing_and_no_others() {
    let later = |name: &str| RoutingSums::ROWS.iter().find(|row| row.name == name).unwrap();
    for (name, may_be_missing) in [("output_peaks", true), ("output_sums", true), ("counts", false)]
    {
        assert_eq!(later(name).may_be_missing(), may_be_missing, "{name}");
    }
    let mut added = small();
    added.add(&full()).unwrap();
    let routing = added.layers[1].routing.as_ref().unwrap();
    assert!(routing.output_peaks.is_empty() && routing.output_sums.is_empty());
}

#[test]
fn a_file_is_replaced_whole_and_nothing_is_left_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("observation");
    fs::write(&path, "something else").unwrap();
    write_observation(&small(), &path).unwrap();
    assert_eq!(read_observation(&path).unwrap(), small());

    // What cannot be written leaves what was there.
    let mut broken = small();
    broken.layers[0].inputs.values_mut().next().unwrap().sum_squares[1] = f64::NAN;
    let error = write_observation(&broken, &path).unwrap_err().to_string();
    assert!(error.contains("`layer.0.input.attention.query.sum_squares`"), "{error}");
    assert_eq!(read_observation(&path).unwrap(), small());
    assert!(write_observation(&small(), folder.path().join("none/observation")).is_err());
    assert!(write_observation(&small(), folder.path()).is_err());
    assert!(write_observation(&small(), "/").is_err());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_bare_file_name_is_in_the_current_folder() {
    let name = format!("observation-{}.tmp", std::process::id());
    write_observation(&small(), &name).unwrap();
    assert_eq!(read_observation(&name).unwrap(), small());
    fs::remove_file(name).unwrap();
}

fn sites() -> impl Strategy<Value = LinearId> {
    prop_oneof![
        Just("attention.query".to_owned()),
        Just("attention.output".to_owned()),
        Just("router".to_owned()),
        Just("residual.down".to_owned()),
        Just("dense.gate".to_owned()),
        Just("shared.0.gate".to_owned()),
        (0_usize..300).prop_map(|e| format!("expert.{e}.gate")),
    ]
    .prop_map(|name| name.parse().unwrap())
}

fn moments() -> impl Strategy<Value = InputMoments> {
    (prop::collection::vec(0.0..1e9_f64, 0..6), 0_u64..1000, 1_u64..1000).prop_map(
        |(sums, tokens, calls)| match tokens {
            0 => InputMoments::new(sums.len()),
            _ => InputMoments { tokens, calls: calls.min(tokens), sum_squares: sums },
        },
    )
}

fn routing() -> impl Strategy<Value = RoutingSums> {
    (1_usize..9, any::<prop::sample::Index>(), prop::collection::vec(any::<u8>(), 0..40)).prop_map(
        |(n, k, tokens)| {
            let k = k.index(n) + 1;
            let mut sums = RoutingSums::new(n, k);
            for token in tokens {
                sums.tokens += 1;
                let chosen = |i: usize| (usize::from(token) + i) % n;
                for i in 0..k {
                    sums.counts[chosen(i)] += 1;
                    sums.gate_sums[chosen(i)] += f64::from(token) / 255.0;
                    sums.output_norms[chosen(i)] += f64::from(token);
                    for j in (0..k).filter(|&j| j != i) {
                        sums.coactivation[chosen(i) * n + chosen(j)] += 1;
                    }
                }
            }
            sums
        },
    )
}

fn observations() -> impl Strategy<Value = Observation> {
    let inputs = prop::collection::btree_map(sites(), moments(), 0..6);
    let layer = (prop::option::of(routing()), inputs)
        .prop_map(|(routing, inputs)| LayerObservation { routing, inputs });
    let rendering = (prop::option::of(any::<String>()), prop::option::of(any::<String>()))
        .prop_map(|(template, system)| Rendering { template, tools: system.clone(), system });
    let read =
        (any::<String>(), any::<u64>(), prop::option::of(1_u64..), prop::option::of(rendering));
    let read = read.prop_map(|(format, count, asked_len, rendering)| TextFacts {
        format,
        files: count,
        documents: count,
        tokens: count,
        short: count,
        asked_len,
        rendering,
    });
    let tag = (any::<String>(), any::<u64>(), any::<u64>(), prop::option::of(read));
    let tag = tag.prop_map(|(name, samples, seed, read)| CorpusTag {
        name,
        sha256: "00".into(),
        samples,
        sequence_len: 1,
        seed,
        repeated: 1,
        read,
    });
    (any::<String>(), prop::collection::vec(tag, 0..3), prop::collection::vec(layer, 0..12))
        .prop_map(|(model_fingerprint, corpora, layers)| Observation {
            model_fingerprint,
            corpora,
            layers,
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_written_is_read(observation in observations()) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("observation");
        write_observation(&observation, &path).unwrap();
        prop_assert_eq!(read_observation(&path).unwrap(), observation.clone());
        let bytes = fs::read(&path).unwrap();
        prop_assert!(SafeTensors::deserialize(&bytes).is_ok());
        prop_assert_eq!(observation_sha256(&observation), format!("{:x}", Sha256::digest(&bytes)));
    }
}
