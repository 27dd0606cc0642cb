//! What is said of serving and of a run's cost before it: engines, numbers of experts, bytes, passes.

use std::path::{Path, PathBuf};

use moeprune::{
    Estimate, Estimates, FromRecipe as _, Pipeline, Rates, Recipe, TextSize, Work,
    checkpoint::{Checkpoint, Family},
    core::{ModelSpec, Sparsity},
    recipe::Statistics,
    serving::{Declared, Engine, EngineContainer, Multiple, Serving, Verdict, WeightForm, YesNo},
};

fn assets() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets")
}

fn open(model: &str) -> Checkpoint {
    Checkpoint::open(&assets().join(model)).unwrap()
}

fn engine(name: &str) -> Engine {
    Engine::built_in().into_iter().find(|engine| engine.name == name).unwrap()
}

#[test]
fn every_family_has_an_answer_with_a_source() {
    let engines = Engine::built_in();
    let names: Vec<&str> = engines.iter().map(|engine| engine.name.as_str()).collect();
    assert_eq!(names, ["transformers", "vLLM", "SGLang", "llama.cpp"]);
    for engine in &engines {
        assert!(!engine.version.is_empty());
        for family in Family::builtins() {
            let answer = engine.families.get(family.name()).unwrap_or_else(|| {
                let (name, family) = (&engine.name, family.name());
                panic!("engines/: {name} says nothing of {family}; write loads = \"unknown\"")
            });
            assert!(answer.loads.answer == YesNo::Unknown || answer.loads.source.is_some());
        }
        for form in WeightForm::ALL {
            let name = &engine.name;
            assert!(engine.forms.contains_key(&form), "{name} says nothing of {form}");
        }
    }
}

#[test]
fn what_is_known_of_arctic_and_dots() {
    let check = |name: &str, family: &str, loads: YesNo, until: Option<&str>| {
        let answer = &engine(name).families[family];
        assert_eq!((answer.loads.answer, answer.until.as_deref()), (loads, until), "{name}");
    };
    check("transformers", "arctic", YesNo::No, None);
    check("vLLM", "arctic", YesNo::No, Some("0.28.0"));
    check("vLLM", "dots1", YesNo::No, Some("0.23.0"));
    check("SGLang", "dots1", YesNo::Unknown, None);
    check("llama.cpp", "arctic", YesNo::Yes, None);
    assert_eq!(engine("vLLM").counts.expert_parallel.answer, Multiple::Any);
    assert_eq!(engine("SGLang").counts.expert_parallel.answer, Multiple::Divides);
    assert_eq!(engine("llama.cpp").container, EngineContainer::Gguf);
}

fn with_experts(counts: &[usize]) -> ModelSpec {
    let mut spec = open("parity/mixtral").spec().clone();
    let layer = spec.layers[0].clone();
    spec.layers.clear();
    for &count in counts {
        let mut layer = layer.clone();
        if let moeprune::core::FeedForward::Moe(moe) = &mut layer.feed_forward {
            moe.experts = count;
        }
        spec.layers.push(layer);
    }
    spec
}

#[test]
fn verdicts_go_by_the_numbers_of_experts() {
    let plain = Declared::of_type("mixtral");
    let check = |name: &str, counts: &[usize], loads: YesNo, note: &str| {
        let verdict = Verdict::of(&engine(name), &with_experts(counts), &plain);
        assert_eq!(verdict.loads, loads, "{name} {counts:?}");
        let notes = verdict.notes.join("; ");
        assert!(notes.contains(note) && notes.is_empty() == note.is_empty(), "{notes}");
    };
    check("transformers", &[8, 8], YesNo::Yes, "");
    check("transformers", &[8, 6], YesNo::No, "different numbers of experts");
    check("vLLM", &[8, 8], YesNo::Yes, "");
    check("vLLM", &[6, 6], YesNo::Yes, "");
    check("vLLM", &[1000, 1000], YesNo::Yes, "the Triton kernel does not take 1000 experts");
    check("vLLM", &[8, 4], YesNo::No, "one number for all layers");
    check("llama.cpp", &[1024], YesNo::Yes, "");
    check("llama.cpp", &[1025], YesNo::No, "at most 1024 experts");
    let mut unheard_of = with_experts(&[8]);
    unheard_of.family = "unheard_of".into();
    for engine in Engine::built_in() {
        assert_eq!(Verdict::of(&engine, &unheard_of, &plain).loads, YesNo::Unknown);
    }
}

/// Kernels for one form of weights matter to models in that form alone.
#[test]
fn verdicts_go_by_the_form_of_weights() {
    let check = |quant_method: &str, expected: bool| {
        let declared = Declared::of_type("mixtral").with_weights(quant_method);
        let notes =
            Verdict::of(&engine("vLLM"), &with_experts(&[6, 6]), &declared).notes.join("; ");
        let said = notes.contains("FP8 blocks does not take 6 experts: a multiple of 4");
        assert_eq!(said, expected, "{quant_method}: {notes}");
    };
    check("fp8", true);
    check("mxfp4", false);
}

#[test]
fn quantised_models_have_the_answer_of_their_form() {
    let check = |model: &str, expected: WeightForm, loads: YesNo, note: &str| {
        let checkpoint = open(&format!("quantised/{model}"));
        assert_eq!(WeightForm::of(&checkpoint).into_iter().collect::<Vec<_>>(), [expected]);
        for cut in Serving::of(&checkpoint).cuts {
            let of = |name: &str| cut.engines.iter().find(|v| v.engine == name).unwrap();
            let transformers = of("transformers");
            let notes = transformers.notes.join("; ");
            assert_eq!(transformers.loads, loads, "{model}: {notes}");
            assert!(notes.contains(note), "{model}: {notes}");
            assert!(cut.sentences().iter().any(|sentence| sentence.contains(note)), "{model}");
            for other in ["vLLM", "SGLang", "llama.cpp"] {
                assert_eq!(of(other).loads, YesNo::Unknown, "{model}: {other}");
                assert!(of(other).notes.join("; ").contains("not looked at"), "{model}: {other}");
            }
        }
    };
    use YesNo::{No, Yes};
    check("awq_qwen3_moe", WeightForm::Awq, No, "random, without an error");
    check("gptq_act_qwen3_moe", WeightForm::Gptq, No, "random, without an error");
    check("fp8_channel_glm4_moe", WeightForm::Fp8MixedChannel, No, "load wrong, without");
    check("fp8_tensor_mixtral", WeightForm::Fp8Tensor, No, "fails when it runs");
    check("int4_pack_asym_qwen3_moe", WeightForm::Int4Asymmetric, No, "conversion error");
    check("int4_pack_deepseek_v3", WeightForm::Int4Packed, Yes, "in bf16 only");
    check("mxfp4_ct_qwen3_moe", WeightForm::Mxfp4, Yes, "in bf16 only");
    check("mxfp4_gpt_oss", WeightForm::Mxfp4Fused, Yes, "");
    check("nvfp4_ct_qwen3_moe", WeightForm::Nvfp4CompressedTensors, No, "loads wrong");
    check("nvfp4_modelopt_qwen3_moe", WeightForm::Nvfp4Modelopt, No, "it is refused");
    assert_eq!(WeightForm::of(&open("parity/mixtral")).len(), 0);
}

#[test]
fn verdicts_go_by_model_type_where_it_differs_from_its_family() {
    let spec = open("parity/deepseek_v3").spec().clone();
    let check = |name: &str, model_type: &str, loads: YesNo, note: &str| {
        let verdict = Verdict::of(&engine(name), &spec, &Declared::of_type(model_type));
        let notes = verdict.notes.join("; ");
        assert_eq!((verdict.loads, notes.contains(note)), (loads, true), "{name}: {notes}");
        assert_eq!(notes.contains("kimi"), !note.is_empty(), "{name}: {notes}");
    };
    check("transformers", "kimi_k2", YesNo::No, "kimi_k2 is not a type of transformers");
    check("transformers", "deepseek_v3", YesNo::Yes, "");
    check("vLLM", "kimi_k2", YesNo::Yes, "");
}

#[test]
fn sentences_stand_alone() {
    let mut cut = Serving::of(&open("nano")).cuts.remove(0);
    let check = |cut: &moeprune::serving::Cut, expected: &str| {
        let sentences = cut.sentences();
        assert!(sentences[0].starts_with(expected), "{sentences:?}");
    };
    cut.engines.iter_mut().for_each(|verdict| verdict.loads = YesNo::No);
    check(&cut, "Engines that do not load it: transformers ");
    cut.engines.iter_mut().for_each(|verdict| verdict.loads = YesNo::Unknown);
    check(&cut, "Whether these engines load it is not known: transformers ");
}

#[test]
fn usual_cuts() {
    let check = |model: &str, expected: &[(usize, &[usize], &[usize])]| {
        let serving = Serving::of(&open(model));
        let got: Vec<_> = serving
            .cuts
            .iter()
            .map(|cut| (cut.experts[0], &*cut.parallel.experts, &*cut.parallel.tensors))
            .collect();
        assert_eq!(got, expected, "{model}");
        serving
    };
    let nano = check(
        "nano",
        &[
            (32, &[2, 4, 8, 16, 32], &[2, 4]),
            (24, &[2, 4, 8], &[2, 4]),
            (16, &[2, 4, 8, 16], &[2, 4]),
        ],
    );
    assert_eq!((nano.groups, nano.extra), (None, None));
    // Four groups of three experts: those that can go are one of each, for a share of a quarter and for one of a half.
    let grouped = check("parity/deepseek_v3", &[(12, &[2, 4], &[2, 4]), (8, &[2, 4, 8], &[2, 4])]);
    assert!(grouped.impossible.is_empty());
    assert!(grouped.groups.unwrap().sentence().contains("a multiple of 4 experts, at least 8"));
    assert!(grouped.extra.unwrap().sentence().contains("lose experts with the decoder"));
}

/// What is promised of bytes is what is written, up to headers and padding.
#[test]
fn bytes_are_those_of_the_parts_that_stay() {
    for model in [
        "nano",
        "parity/mixtral_fused",
        "parity/gpt_oss",
        "parity/gpt_oss_mxfp4",
        "parity/deepseek_v3",
    ] {
        let checkpoint = open(model);
        let serving = Serving::of(&checkpoint);
        let (whole, cut) = (&serving.cuts[0], &serving.cuts[1]);
        assert_eq!(whole.weight_bytes, checkpoint.weight_bytes(), "{model}");
        let of_experts = checkpoint.tensors().filter(|tensor| {
            let role = tensor.name.contains("experts") && !tensor.name.contains("shared");
            role || tensor.name.contains("gate.weight") || tensor.name.contains("router")
        });
        let bytes: u64 = of_experts.map(|tensor| tensor.bytes).sum();
        let saved = (whole.weight_bytes - cut.weight_bytes) as f64;
        let expected = bytes as f64 * cut.removed;
        assert!((saved - expected).abs() < 0.02 * expected, "{model}: {saved} {expected}");
    }
}

fn work_of(recipe: &Recipe) -> Option<Work> {
    let (model, rates) = (open("nano"), Rates::default());
    let pipeline = Pipeline::from_recipe(recipe).unwrap();
    Estimates::of(&model, recipe, &pipeline, rates).unwrap().prune.map(|prune| prune.work)
}

/// Passes are those that README.md says.
#[test]
fn passes_of_recipes() {
    let check = |change: fn(&mut Recipe), passes: u64| {
        let mut recipe = Recipe::arctic();
        change(&mut recipe);
        assert_eq!(work_of(&recipe).unwrap().passes, passes);
    };
    check(|_| {}, 4);
    check(|recipe| recipe.weights.allocation = "uniform".into(), 3);
    check(|recipe| recipe.weights.statistics = Statistics::Stored, 1);
    check(|recipe| recipe.sparsity = recipe.experts.sparsity, 1);
    check(|recipe| recipe.experts.sparsity = Sparsity::ZERO, 3);
    check(|recipe| recipe.weights.scorer = "magnitude".into(), 1);
    check(|recipe| recipe.experts.criterion = "reconstruction".into(), 5);
    let mut searched = Recipe::arctic();
    searched.experts.criterion = "exhaustive".into();
    assert_eq!(work_of(&searched), None);
}

/// docs/performance.md: the model is read once to observe, the kept part three times, and written once.
#[test]
fn reading_and_writing_of_the_default_recipe() {
    let work = work_of(&Recipe::arctic()).unwrap();
    let whole = open("nano").weight_bytes();
    assert_eq!(work.read, whole + 3 * work.written);
    assert!(work.written < whole && work.written > whole * 4 / 5, "{work:?}");
}

#[test]
fn time_follows_the_formula() {
    let model = open("nano");
    let work = Work::observing(&model);
    let text = |tokens| TextSize { tokens, block: 100 };
    let of = |tokens, rates| Estimate::of(&model, work, text(tokens), rates).seconds;
    let only_disk = of(0, Rates { disk: 1e6, compute: 1e9 });
    assert!((only_disk - model.weight_bytes() as f64 / 1e6).abs() < 1e-9);
    let active = moeprune::engine::active_parameters(model.spec());
    let only_compute = of(1000, Rates { disk: 1e300, compute: 1e9 });
    assert!((only_compute - 1000.0 * 2.0 * active / 1e9).abs() < 1e-9);
    // Two of 32 experts, routers and everything else: far less than all, more than what all tokens share.
    let counts = moeprune::core::ParameterCounts::of(model.spec());
    let routers = 4 * 32 * 128;
    let expected = (counts.linears - counts.experts + counts.experts / 16 + routers) as f64;
    assert_eq!(active, expected);
}
