//! Models whose names and shapes are known here.

use std::{fmt, str::FromStr};

use crate::{Error, form::Form};

macro_rules! published {
    ($($model:ident $file:literal $about:literal,)*) => {
        /// A published model whose config, tensor names and shapes are known here.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Published {
            $(#[doc = $about] $model,)*
        }

        impl Published {
            /// Every one.
            pub const ALL: &[Self] = &[$(Self::$model,)*];

            /// Its name, as commands take it, for example `arctic`.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$model => $file,)*
                }
            }

            /// What it is, in a line.
            #[must_use]
            pub fn about(self) -> &'static str {
                match self {
                    $(Self::$model => $about,)*
                }
            }

            fn text(self) -> &'static str {
                match self {
                    $(Self::$model => include_str!(concat!("../published/", $file, ".toml")),)*
                }
            }
        }
    };
}

published! {
    Arctic "arctic" "Snowflake Arctic: 35 layers of 128 experts, 479 billion parameters.",
    Mixtral "mixtral-8x7b" "Mixtral-8x7B: 32 layers of 8 experts, 47 billion parameters.",
    Qwen3 "qwen3-30b-a3b" "Qwen3-30B-A3B: 48 layers of 128 experts, 31 billion parameters.",
    Qwen3Coder "qwen3-coder-480b-a35b" "Qwen3-Coder-480B-A35B: 62 layers of 160 experts.",
    Qwen35 "qwen3.5-35b-a3b" "Qwen3.5-35B-A3B: 40 layers of 256 experts, fused, and a vision tower.",
    Glm45Air "glm-4.5-air" "GLM-4.5-Air: 46 layers, 45 with 128 experts, 110 billion parameters.",
    DeepSeekV3 "deepseek-v3" "DeepSeek-V3 in bf16: 61 layers, 58 with 256 experts, 671 billion parameters.",
    DeepSeekV3Fp8 "deepseek-v3-fp8" "DeepSeek-V3 as released: FP8 in blocks of 128 x 128.",
    KimiK2 "kimi-k2" "Kimi-K2 in bf16: 61 layers, 60 with 384 experts, 1.03 trillion parameters.",
    MiniMaxM2 "minimax-m2" "MiniMax-M2 in bf16: 62 layers of 256 experts, 229 billion parameters.",
    GptOss120b "gpt-oss-120b" "gpt-oss-120b as released: 36 layers of 128 experts in MXFP4.",
    GptOss120bBf16 "gpt-oss-120b-bf16" "gpt-oss-120b in bf16: 117 billion parameters, experts fused and interleaved.",
}

impl Published {
    pub(crate) fn form(self) -> Result<Form, Error> {
        toml::from_str(self.text()).map_err(|e| self.damaged(e))
    }

    pub(crate) fn damaged(self, problem: impl ToString) -> Error {
        Error::BuiltIn { model: self.name(), problem: problem.to_string() }
    }
}

impl fmt::Display for Published {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Published {
    type Err = Error;

    /// Takes a [`name`](Self::name), or `mixtral`, which the first version called Mixtral-8x7B.
    fn from_str(name: &str) -> Result<Self, Error> {
        let name = if name == "mixtral" { Self::Mixtral.name() } else { name };
        let found = Self::ALL.iter().copied().find(|model| model.name() == name);
        found.ok_or_else(|| Error::Unknown { name: name.to_owned() })
    }
}
