//! Encodings of quantised weights against values and hashes that other code computed
//! (`assets/quantised`).

#[path = "../../../tests/src/quantised_models.rs"]
#[expect(unreachable_pub, reason = "public where the tests across crates use it")]
mod quantised_models;

use std::{collections::BTreeMap, fs};

use moeprune_core::{
    Dtype, StoredWeight, TensorBytes,
    encoding::{ModuleTensors, QuantConfig, RowsMut, detect},
};
use safetensors::SafeTensors;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// A checkpoint of `assets/quantised`: its tensors, its config and what is expected of it.
struct Fixture {
    tensors: BTreeMap<String, TensorBytes<'static>>,
    reference: BTreeMap<String, TensorBytes<'static>>,
    config: QuantConfig,
    expected: Value,
}

fn read_tensors(path: &std::path::Path) -> BTreeMap<String, TensorBytes<'static>> {
    let bytes = fs::read(path).expect("it is there");
    let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let tensors = file.tensors().into_iter().map(|(name, view)| {
        let stored = view.dtype().to_string();
        let dtype = Dtype::ALL.into_iter().find(|dtype| dtype.to_string() == stored);
        let dtype = dtype.unwrap_or_else(|| panic!("{stored}"));
        let tensor = TensorBytes::new(dtype, view.shape(), view.data().to_vec());
        (name, tensor.expect("fits"))
    });
    tensors.collect()
}

impl Fixture {
    fn open(name: &str) -> Self {
        let folder = quantised_models::folder(name);
        let config = fs::read_to_string(folder.join("config.json")).expect("it is there");
        let config: Value = serde_json::from_str(&config).expect("JSON");
        let mut tensors = BTreeMap::new();
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("readable").path();
            let file = path.file_name().expect("a name").to_string_lossy().into_owned();
            if file.starts_with("model") && file.ends_with(".safetensors") {
                tensors.extend(read_tensors(&path));
            }
        }
        Self {
            tensors,
            reference: read_tensors(&folder.join("ref.safetensors")),
            config: QuantConfig::from_json(&config["quantization_config"])
                .expect("a config that is understood"),
            expected: quantised_models::expected(name),
        }
    }

    /// The weight of a module, in the encoding that its tensors say.
    fn weight(&self, module: &str) -> StoredWeight<'_> {
        let suffix = |name: &'_ str| name.strip_prefix(module).map(str::to_owned);
        let own: Vec<(String, &TensorBytes<'_>)> = self
            .tensors
            .iter()
            .filter_map(|(name, tensor)| Some((suffix(name)?, tensor)))
            .filter(|(suffix, _)| suffix.starts_with(['.', '_']))
            .collect();
        let headers = own.iter().map(|(suffix, t)| (&suffix[..], t.dtype(), t.shape()));
        let module: ModuleTensors<'_> = headers.collect();
        let encoding = detect(&module, &self.config).expect("a known format");
        let get = |suffix: &str| {
            let found = own.iter().find(|(name, _)| name == suffix);
            found.map(|(_, tensor)| tensor.view()).expect("detection saw it")
        };
        let companions = encoding.companions().iter().map(|c| get(c.suffix)).collect();
        let main = get(encoding.suffix());
        StoredWeight::new(encoding, main, companions).expect("tensors that fit")
    }

    fn check(&self, encoding: &str) {
        let mut decoded = 0;
        for (name, expected) in &self.reference {
            let Some(module) = name.strip_prefix("dequant.") else { continue };
            let weight = self.weight(module);
            assert_eq!(weight.encoding().name(), encoding, "{module}");
            let (got, expected) = (weight.to_f32(), expected.to_f32().expect("f32"));
            // gpt-oss: the first two experts of all.
            let wrong = expected.iter().zip(&got).position(|(e, g)| e.to_bits() != g.to_bits());
            assert!(got.len() >= expected.len() && wrong.is_none(), "{module} at {wrong:?}");
            decoded += 1;
        }
        assert!(decoded > 1, "{decoded} modules");
        let zero = self.expected["zero"].as_object().expect("an object");
        assert!(zero.len() > 1, "{} masks", zero.len());
        for (module, expected) in zero {
            self.check_zeroing(module, expected);
        }
    }

    fn check_zeroing(&self, module: &str, expected: &Value) {
        let weight = self.weight(module);
        let cols = weight.cols();
        let mask = &self.reference[&format!("mask.{module}")];
        let row_of = |row: usize| &mask.bytes()[row * cols.div_ceil(8)..][..cols.div_ceil(8)];
        let marks: Vec<bool> = (0..weight.rows())
            .flat_map(|row| {
                (0..cols).map(move |col| row_of(row)[col / 8] >> (7 - col % 8) & 1 == 1)
            })
            .collect();
        let before = weight.to_f32();
        let all = weight.all();
        let mut main = all.main.to_vec();
        let mut rows = RowsMut {
            first: 0,
            count: all.count,
            shape: all.shape,
            main: &mut main,
            companions: all.companions,
        };
        let unzeroed = weight.encoding().zero_where(&mut rows, &marks);
        assert_eq!(unzeroed.count, 0, "{module}");
        let name = module.to_owned() + weight.encoding().suffix();
        assert_eq!(expected["tensor"], name.as_str());
        assert_eq!(expected["sha256"], hex(&Sha256::digest(&main)), "{name}");
        let main = TensorBytes::new(weight.main().dtype(), weight.main().shape(), main);
        let main = main.expect("the same shape");
        let companions = weight.companions().to_vec();
        let after = StoredWeight::new(weight.encoding().clone(), main, companions).expect("fits");
        assert_eq!(expected["zeros"], after.count_zeros(), "{name}");
        for ((now, was), gone) in after.to_f32().iter().zip(&before).zip(&marks) {
            assert!(if *gone { *now == 0.0 } else { now.to_bits() == was.to_bits() }, "{name}");
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn values_and_zeroed_codes() {
    let encoding = |name: &str| match name {
        "awq_qwen3_moe" => "awq (GEMM)",
        "fp8_channel_glm4_moe" => "fp8 (a scale per channel)",
        "fp8_tensor_mixtral" => "fp8 (a scale per tensor)",
        "gptq_act_qwen3_moe" | "gptq_mixtral" => "gptq (v1)",
        "gptq_v2_qwen3_moe" => "gptq (v2)",
        "int4_pack_asym_qwen3_moe" => "int4 (pack-quantized, asymmetric)",
        "int4_pack_deepseek_v3" => "int4 (pack-quantized, symmetric)",
        "mxfp4_ct_qwen3_moe" => "mxfp4 (compressed-tensors)",
        "mxfp4_gpt_oss" => "mxfp4 (gpt-oss)",
        "nvfp4_ct_qwen3_moe" => "nvfp4 (compressed-tensors)",
        "nvfp4_modelopt_qwen3_moe" => "nvfp4 (Model-Optimizer)",
        _ if name.starts_with("fp8_block") => "fp8 (a scale per block)",
        _ => panic!("{name}: which encoding has it?"),
    };
    for name in quantised_models::names() {
        Fixture::open(&name).check(encoding(&name));
    }
}
