//! The folder `families` of this crate.

/// Every file of the folder.
pub(super) const BUILT_IN: &[&str] = &[
    include_str!("../../families/arctic.toml"),
    include_str!("../../families/deepseek_v2.toml"),
    include_str!("../../families/deepseek_v3.toml"),
    include_str!("../../families/deepseek_v32.toml"),
    include_str!("../../families/dots1.toml"),
    include_str!("../../families/ernie4_5_moe.toml"),
    include_str!("../../families/gemma4.toml"),
    include_str!("../../families/glm4_moe.toml"),
    include_str!("../../families/glm4_moe_lite.toml"),
    include_str!("../../families/glm_moe_dsa.toml"),
    include_str!("../../families/gpt_oss.toml"),
    include_str!("../../families/granitemoe.toml"),
    include_str!("../../families/hunyuan_v1_moe.toml"),
    include_str!("../../families/kimi_linear.toml"),
    include_str!("../../families/lfm2_moe.toml"),
    include_str!("../../families/llama4.toml"),
    include_str!("../../families/minimax_m2.toml"),
    include_str!("../../families/mixtral.toml"),
    include_str!("../../families/nemotron_h.toml"),
    include_str!("../../families/olmoe.toml"),
    include_str!("../../families/phimoe.toml"),
    include_str!("../../families/qwen2_moe.toml"),
    include_str!("../../families/qwen3_5_moe.toml"),
    include_str!("../../families/qwen3_5_moe_text.toml"),
    include_str!("../../families/qwen3_moe.toml"),
    include_str!("../../families/qwen3_next.toml"),
    include_str!("../../families/qwen3_vl_moe.toml"),
];

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::BUILT_IN;

    #[test]
    fn every_file_is_listed() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("families");
        for entry in fs::read_dir(folder).expect("there is a folder") {
            let path = entry.expect("can be listed").path();
            let text = fs::read_to_string(&path).expect("reads");
            assert!(BUILT_IN.contains(&&*text), "{} is not built in", path.display());
        }
    }
}
