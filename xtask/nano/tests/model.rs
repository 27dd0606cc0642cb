//! The model: what upcycling keeps, what a step changes, and what is written.

use anyhow::Result;
use candle_core::Tensor;
use nano::batch::{Batch, next};
use nano::config::Config;
use nano::corpus::Corpus;
use nano::draw::Draw;
use nano::evaluate::{LONGEST, answers};
use nano::export;
use nano::model::{Model, Sequences};
use nano::tokenizer::Tokenizer;
use nano::train::{Origin, Plan, train};
use safetensors::SafeTensors;
use safetensors::tensor::Dtype;
use std::path::PathBuf;

#[test]
fn upcycling_without_noise_changes_nothing() -> Result<()> {
    let mut draw = Draw::new(1);
    let mut model = Model::dense(Config::tiny(), &mut draw)?;
    let mut sequences = Sequences::new();
    sequences.push(&[5, 9, 200, 31, 31, 7]);
    sequences.push(&[1, 2]);
    let dense = model.forward(&sequences)?;
    assert!(dense.balance.is_none());
    model.upcycle(0.0, &mut draw)?;
    let sparse = model.forward(&sequences)?;
    let gap = (dense.hidden - sparse.hidden)?.abs()?.max_all()?.to_scalar::<f32>()?;
    assert!(gap < 1e-5, "{gap}");
    // One a layer is the least that the load-balancing loss can be.
    let balance = sparse.balance.expect("routers").to_scalar::<f32>()?;
    assert!(balance > 0.9 * Config::tiny().layers as f32, "{balance}");
    Ok(())
}

#[test]
fn upcycled_experts_differ_by_the_noise() -> Result<()> {
    let mut draw = Draw::new(2);
    let mut model = Model::dense(Config::tiny(), &mut draw)?;
    let dense = export::named(&model)?;
    model.upcycle(0.3, &mut draw)?;
    let sparse = export::named(&model)?;
    let name =
        |expert: usize| format!("model.layers.1.block_sparse_moe.experts.{expert}.w2.weight");
    for expert in 0..Config::tiny().experts {
        let added = (&sparse[&name(expert)] - &dense[&name(0)])?;
        let ratio = (size(&added)? / size(&dense[&name(0)])?).sqrt();
        assert!((0.2..0.4).contains(&ratio), "{ratio}");
    }
    Ok(())
}

#[test]
fn the_directory_has_the_names_and_shapes_of_arctic() -> Result<()> {
    let out = scratch("directory");
    let config = Config::tiny();
    let mut draw = Draw::new(3);
    let mut model = Model::dense(config.clone(), &mut draw)?;
    model.upcycle(0.3, &mut draw)?;
    let tokenizer = tokenizer()?;
    export::write(&model, &tokenizer, &out)?;

    let bytes = std::fs::read(out.join("model.safetensors"))?;
    let file = SafeTensors::deserialize(&bytes)?;
    let (d, f) = (config.hidden, config.inner);
    let mut expected = vec![
        ("model.embed_tokens.weight".to_owned(), vec![config.vocabulary, d]),
        ("lm_head.weight".to_owned(), vec![config.vocabulary, d]),
        ("model.norm.weight".to_owned(), vec![d]),
    ];
    let (queries, keys) =
        (config.heads.queries * config.heads.size, config.heads.keys * config.heads.size);
    for layer in 0..config.layers {
        let mut part = |name: String, shape: [usize; 2]| {
            expected.push((format!("model.layers.{layer}.{name}.weight"), shape.to_vec()));
        };
        part("self_attn.q_proj".into(), [queries, d]);
        part("self_attn.k_proj".into(), [keys, d]);
        part("self_attn.v_proj".into(), [keys, d]);
        part("self_attn.o_proj".into(), [d, queries]);
        part("block_sparse_moe.gate".into(), [config.experts, d]);
        for matrix in ["w1", "w2", "w3"] {
            part(format!("residual_mlp.{matrix}"), [d, d]);
        }
        for expert in 0..config.experts {
            part(format!("block_sparse_moe.experts.{expert}.w1"), [f, d]);
            part(format!("block_sparse_moe.experts.{expert}.w2"), [d, f]);
            part(format!("block_sparse_moe.experts.{expert}.w3"), [f, d]);
        }
        for norm in ["input_layernorm", "residual_layernorm", "post_attention_layernorm"] {
            expected.push((format!("model.layers.{layer}.{norm}.weight"), vec![d]));
        }
    }
    assert_eq!(file.len(), expected.len());
    for (name, shape) in expected {
        let tensor = file.tensor(&name)?;
        assert_eq!((tensor.dtype(), tensor.shape()), (Dtype::BF16, shape.as_slice()), "{name}");
    }

    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(out.join("config.json"))?)?;
    for (key, value) in [
        ("model_type", "arctic".into()),
        ("vocab_size", tokenizer.size().into()),
        ("hidden_size", d.into()),
        ("intermediate_size", f.into()),
        ("num_local_experts", config.experts.into()),
        ("num_experts_per_tok", 2.into()),
        ("parallel_attn_mlp_res", true.into()),
        ("bos_token_id", tokenizer.bos.into()),
        ("eos_token_id", tokenizer.eos.into()),
        ("torch_dtype", "bfloat16".into()),
    ] {
        let value: serde_json::Value = value;
        assert_eq!(json[key], value, "{key}");
    }
    let read = Tokenizer::read(&out.join("tokenizer.json"))?;
    assert_eq!(read.json()?, tokenizer.json()?);
    Ok(())
}

#[test]
fn a_draft_does_not_change_the_greedy_answer() -> Result<()> {
    let corpus = Corpus::new(5);
    let tokenizer = tokenizer()?;
    let mut draw = Draw::new(4);
    let model = Model::dense(Config::tiny(), &mut draw)?;
    // An untrained model never agrees with a worked answer for long.
    let problem = &corpus.test[0];
    let mut tokens = vec![tokenizer.bos];
    tokens.extend(tokenizer.encode(&problem.prompt())?);
    let prompt = tokens.len();
    while tokens.len() < prompt + LONGEST {
        let mut sequences = Sequences::new();
        sequences.push(&tokens);
        let output = model.forward(&sequences)?;
        let token = model.likeliest(&output, &[tokens.len() as u32 - 1])?[0];
        tokens.push(token);
        if token == tokenizer.eos {
            break;
        }
    }
    let answer = answers(&model, &tokenizer, std::slice::from_ref(problem))?;
    assert_eq!(answer, [tokenizer.decode(&tokens[prompt..])?]);
    Ok(())
}

#[test]
fn batches_predict_what_comes_next() -> Result<()> {
    let corpus = Corpus::new(6);
    let tokenizer = tokenizer()?;
    let mut problems = corpus.training();
    let mut draw = Draw::new(5);
    for _ in 0..20 {
        let Batch { sequences, positions, targets } =
            next(&mut problems, &tokenizer, 600, 256, &mut draw)?;
        assert!(sequences.tokens.len() >= 400);
        for (&position, target) in positions.iter().zip(targets) {
            assert_eq!(sequences.tokens[position as usize + 1], target);
            assert!(!sequences.starts.contains(&(position as usize + 1)));
        }
    }
    Ok(())
}

#[test]
fn training_twice_writes_the_same_bytes() -> Result<()> {
    let weights = |name: &str| -> Result<Vec<u8>> {
        let plan = Plan {
            config: Config { positions: 256, ..Config::tiny() },
            seed: 11,
            origin: Origin::Upcycled { steps: 4, rate: 1e-3, noise: 0.3 },
            steps: 4,
            warmup: 2,
            batch: 300,
            rate: 1e-3,
            tokenizer_problems: 1000,
            glance: 4,
            glance_every: 100,
            test: 4,
            out: scratch(name),
        };
        train(&plan, drop)?;
        Ok(std::fs::read(plan.out.join("model.safetensors"))?)
    };
    assert!(weights("once")? == weights("again")?);
    Ok(())
}

fn tokenizer() -> Result<Tokenizer> {
    let corpus = Corpus::new(1);
    let texts = corpus.training().take(1000).map(|problem| problem.text());
    Tokenizer::train(texts, Config::tiny().vocabulary)
}

fn scratch(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("nano-{name}"))
}

fn size(tensor: &Tensor) -> Result<f32> {
    Ok(tensor.sqr()?.sum_all()?.to_scalar()?)
}
