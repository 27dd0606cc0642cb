//! Whole pages: what they say, what they must not contain, and what is refused.

#[path = "../examples/made_up/comparison.rs"]
mod made_up;

use made_up::comparison;
use moeprune_page::{
    AnswerTexts, Comparison, Cut, Divergence, Error, Estimate, LayerPicture, UNPRUNED, render,
};
use proptest::prelude::*;

/// The page without its style and with images named, for neither is read by people.
fn body(page: &str) -> String {
    let (before, rest) = page.split_once("<style>").unwrap();
    let (_, after) = rest.split_once("</style>").unwrap();
    let mut text = before.to_owned();
    for (index, part) in after.split("data:image/png;base64,").enumerate() {
        let rest = if index == 0 { part } else { part.split_once('"').unwrap().1 };
        text.push_str(if index == 0 { "" } else { "IMAGE\"" });
        text.push_str(rest);
    }
    text.replace("><", ">\n<")
}

fn cut(criterion: &str, expert_share: f64, parameters: u64, accuracy: Option<f64>) -> Cut {
    Cut {
        criterion: criterion.into(),
        expert_share,
        total_share: 0.0,
        experts_kept: 3,
        experts: 4,
        parameters,
        bytes: 2 * parameters,
        accuracy: accuracy.map(|mean| Estimate { mean, stderr: Some(0.0125) }),
        perplexity: None,
        divergence: None,
        texts: None,
        seconds: 1.25,
        layer_sparsity: vec![],
        kept: vec![],
    }
}

fn small() -> Comparison {
    Comparison {
        model: "small".into(),
        cuts: vec![
            cut(UNPRUNED, 0.0, 4_000_000, Some(0.5)),
            cut("one", 0.25, 3_000_000, Some(0.4)),
            cut("two", 0.25, 3_000_000, Some(0.375)),
        ],
        layers: vec![LayerPicture {
            layer: 1,
            experts: 3,
            distances: vec![0.0, 0.5, 0.25, 0.5, 0.0, 1.0, 0.25, 1.0, 0.0],
            clusters: vec![vec![0, 2], vec![1]],
            load: vec![0.5, 0.25, 0.25],
        }],
        ..comparison(0, 0)
    }
}

#[test]
fn a_small_page() {
    insta::assert_snapshot!(body(&render(&small()).unwrap()));
}

#[test]
fn what_is_measured_beside_accuracy_has_columns() {
    let mut made = small();
    made.cuts[1].divergence = Some(Divergence { kl: 0.0321, kl_stderr: None, agreement: 0.875 });
    made.cuts[2].texts =
        Some(AnswerTexts { ended: None, looping: 0.0625, distinct_4: Some(0.9375) });
    let page = render(&made).unwrap();
    for expected in ["KL to the original", "0.032", "87.5", "loops", "6.3", "distinct-4", "93.8"] {
        assert!(page.contains(expected), "no {expected}");
    }
    assert!(!page.contains(">ended"), "a column of nothing");
    let whole = render(&small()).unwrap();
    assert!(!whole.contains("KL to the original") && !whole.contains("loops"));
}

#[test]
fn json_and_back_gives_the_same_bytes() {
    let made = comparison(3, 8);
    let page = render(&made).unwrap();
    assert_eq!(render(&made).unwrap(), page);
    let read: Comparison = serde_json::from_str(&serde_json::to_string(&made).unwrap()).unwrap();
    assert_eq!(read, made);
    assert_eq!(render(&read).unwrap(), page);
}

#[test]
fn a_large_page_stays_small_and_needs_nothing_else() {
    let page = render(&comparison(35, 128)).unwrap();
    assert!(page.len() < 4_000_000, "{} bytes", page.len());
    for reference in ["http:", "https:", "//", "@import", "url(", "<script", "<iframe", "src="] {
        // A `//` may be in an image's base64.
        let text = if reference == "//" { body(&page) } else { page.clone() };
        assert!(!text.contains(reference), "{reference}");
    }
    assert!(page.contains("default-src 'none'"));
    assert_eq!(page.matches("<details class=\"layer\"").count(), 35);
    assert_eq!(page.matches("<details class=\"layer\" open>").count(), 1);
}

#[test]
fn names_are_shown_and_do_nothing() {
    let hostile = "</title></style><script>alert(1)</script><img src=x onerror=\"a\">&'\u{202e}\0";
    let mut made = comparison(2, 4);
    for text in [&mut made.model, &mut made.tool, &mut made.family, &mut made.device] {
        hostile.clone_into(text);
    }
    made.observed = vec![hostile.into()];
    for text in [&mut made.task, &mut made.data, &mut made.metric] {
        *text = Some(hostile.into());
    }
    for cut in made.cuts.iter_mut().skip(1) {
        cut.criterion = hostile.into();
    }
    let page = render(&made).unwrap();
    assert!(!page.contains("<script") && !page.contains("<img"));
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
    // Only the page's own: one of each, and no attribute ends early.
    assert_eq!(
        page.matches("</title></head>").count() + page.matches("</style></head>").count(),
        1
    );
    assert!(!page.contains("onerror=\""));

    let long = "x".repeat(1_000_000);
    made.cuts[1].criterion.clone_from(&long);
    made.model = long;
    assert!(render(&made).unwrap().len() < 40_000_000);
}

#[test]
fn what_was_not_measured_is_said() {
    let empty = Comparison {
        observed: vec![],
        task: None,
        data: None,
        documents: None,
        metric: None,
        cuts: vec![],
        layers: vec![],
        ..comparison(0, 0)
    };
    let page = render(&empty).unwrap();
    for sentence in [
        "Neither accuracy nor perplexity was measured.",
        "The comparison holds no cuts.",
        "No sparsity per layer was recorded.",
        "No layer was pictured.",
    ] {
        assert!(page.contains(sentence), "{sentence}");
    }
    let bare = |experts, load| LayerPicture {
        layer: experts,
        experts,
        distances: vec![],
        clusters: vec![],
        load,
    };
    let layers = vec![bare(0, vec![]), bare(3, vec![0.0; 3])];
    let page = render(&Comparison { layers, cuts: vec![cut("x", 0.5, 0, None)], ..empty }).unwrap();
    for sentence in [
        "How alike the experts are was not measured.",
        "How tokens were routed was not measured.",
        "No token was routed in this layer.",
    ] {
        assert!(page.contains(sentence), "{sentence}");
    }
}

#[test]
fn extremes_are_drawn() {
    let mut made = small();
    made.cuts[0].perplexity = Some(f64::MAX);
    made.cuts[1].perplexity = Some(f64::MIN_POSITIVE);
    made.cuts[1].parameters = u64::MAX;
    made.cuts[2].parameters = 0;
    made.cuts[2].seconds = f64::MAX;
    made.cuts[2].accuracy = Some(Estimate { mean: 1.0, stderr: Some(1.0) });
    made.layers[0].distances =
        vec![0.0, f64::MAX, f64::MIN, f64::MAX, 0.0, 1.0, f64::MIN, 1.0, 0.0];
    let page = render(&made).unwrap();
    assert!(page.contains("1.80e308"));
    assert!(!page.contains("NaN") && !page.contains("inf<") && !page.contains("\"inf"));

    let alone = LayerPicture {
        layer: 0,
        experts: 1,
        distances: vec![0.0],
        clusters: vec![vec![0]],
        load: vec![1.0],
    };
    let page = render(&Comparison { cuts: vec![], layers: vec![alone], ..small() }).unwrap();
    assert!(page.contains("There are no two experts to compare."));
    let alike = |experts, distances| LayerPicture {
        layer: 0,
        experts,
        distances,
        clusters: vec![],
        load: vec![],
    };
    let layers = vec![alike(2, vec![0.5; 4])];
    let page = render(&Comparison { cuts: vec![], layers, ..small() }).unwrap();
    assert!(page.contains("All pairs are equally far apart: 0.500."));
}

/// What a comparison is refused for, after a change to one that is not.
fn refused(change: impl FnOnce(&mut Comparison)) -> String {
    let mut made = small();
    made.cuts[1].kept = vec![vec![0, 1]];
    made.cuts[1].layer_sparsity = vec![0.0, 0.25];
    made.cuts[2].layer_sparsity = vec![0.0, 0.25];
    render(&made).unwrap();
    change(&mut made);
    render(&made).unwrap_err().to_string()
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let errors = [
        refused(|it| it.format = 2),
        refused(|it| it.cuts[2].criterion = UNPRUNED.into()),
        refused(|it| it.cuts[1].accuracy = Some(Estimate { mean: f64::NAN, stderr: None })),
        refused(|it| it.cuts[1].accuracy = Some(Estimate { mean: 0.5, stderr: Some(-0.1) })),
        refused(|it| it.cuts[1].perplexity = Some(f64::INFINITY)),
        refused(|it| it.cuts[1].perplexity = Some(0.0)),
        refused(|it| {
            it.cuts[1].divergence =
                Some(Divergence { kl: f64::NAN, kl_stderr: None, agreement: 1.0 });
        }),
        refused(|it| {
            it.cuts[1].texts =
                Some(AnswerTexts { ended: Some(1.5), looping: 0.0, distinct_4: None });
        }),
        refused(|it| it.cuts[1].expert_share = 1.5),
        refused(|it| it.cuts[1].total_share = f64::NAN),
        refused(|it| it.cuts[1].seconds = -1.0),
        refused(|it| it.cuts[1].experts_kept = 5),
        refused(|it| it.cuts[1].layer_sparsity[1] = 1.01),
        refused(|it| it.cuts[2].layer_sparsity.push(0.0)),
        refused(|it| it.cuts[1].kept.push(vec![])),
        refused(|it| it.cuts[1].kept[0][1] = 3),
        refused(|it| it.cuts[1].kept[0][1] = 0),
        refused(|it| it.layers[0].experts = 4),
        refused(|it| it.layers[0].experts = usize::MAX),
        refused(|it| it.layers[0].distances[1] = f64::NAN),
        refused(|it| it.layers[0].clusters[0][1] = 1),
        refused(|it| it.layers[0].clusters.truncate(1)),
        refused(|it| it.layers[0].load.truncate(2)),
        refused(|it| it.layers[0].load[0] = 0.25),
        refused(|it| it.layers[0].load[0] = f64::NEG_INFINITY),
        refused(|it| it.layers.push(it.layers[0].clone())),
    ];
    insta::assert_snapshot!(errors.join("\n"));
    let wrong = Comparison { format: 0, ..small() };
    assert!(matches!(render(&wrong), Err(Error::Format { found: 0, supported: 1 })));
}

fn number() -> impl Strategy<Value = f64> {
    prop_oneof![4 => 0.0..=1.0_f64, 1 => any::<f64>(), 1 => Just(0.0), 1 => Just(1.0)]
}

prop_compose! {
    fn any_cut()(
        criterion in prop_oneof![Just("a".to_owned()), Just("none".to_owned()), any::<String>()],
        shares in (number(), number()),
        counts in (any::<u64>(), any::<u64>(), any::<u64>()),
        accuracy in proptest::option::of((number(), proptest::option::of(number()))),
        perplexity in proptest::option::of(prop_oneof![any::<f64>(), 1.0..50.0_f64]),
        divergence in proptest::option::of((number(), number())),
        texts in proptest::option::of((proptest::option::of(number()), number())),
        layer_sparsity in proptest::collection::vec(number(), 0..3),
        kept in proptest::collection::vec(proptest::collection::vec(0..4_usize, 0..4), 0..3),
    ) -> Cut {
        Cut {
            criterion,
            expert_share: shares.0,
            total_share: shares.1,
            experts_kept: counts.0.min(counts.1),
            experts: counts.1,
            parameters: counts.2,
            bytes: counts.0,
            accuracy: accuracy.map(|(mean, stderr)| Estimate { mean, stderr }),
            perplexity,
            divergence: divergence
                .map(|(kl, agreement)| Divergence { kl, kl_stderr: None, agreement }),
            texts: texts
                .map(|(ended, looping)| AnswerTexts { ended, looping, distinct_4: ended }),
            seconds: shares.0,
            layer_sparsity,
            kept,
        }
    }
}

prop_compose! {
    fn any_layer()(
        experts in 0..4_usize,
        numbers in proptest::collection::vec(number(), 16),
        parts in (any::<bool>(), any::<bool>(), any::<bool>()),
        off in 0..40_usize,
    ) -> LayerPicture {
        let wanted = |there, length| if there { length } else { 0 };
        LayerPicture {
            layer: 0,
            experts,
            // Now and then one is missing.
            distances: numbers[..wanted(parts.0, experts * experts).saturating_sub(off / 39)].to_vec(),
            clusters: if parts.1 { (0..experts).map(|expert| vec![expert]).collect() } else { vec![] },
            load: vec![1.0 / experts.max(1) as f64; wanted(parts.2, experts)],
        }
    }
}

proptest! {
    #[test]
    fn nothing_panics(
        cuts in proptest::collection::vec(any_cut(), 0..5),
        layers in proptest::collection::vec(any_layer(), 0..2),
    ) {
        if let Ok(page) = render(&Comparison { cuts, layers, ..comparison(0, 0) }) {
            prop_assert!(page.ends_with("</html>"));
            prop_assert!(!page.contains("<script"));
        }
    }
}
