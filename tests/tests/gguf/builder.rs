//! GGUF files made by hand, byte by byte.

use std::{fs, path::Path};

/// A file that is being made. Values are little-endian; types are ggml's numbers.
#[derive(Clone, Default)]
pub(crate) struct Builder {
    entries: Vec<(String, Vec<u8>)>,
    tensors: Vec<Tensor>,
    alignment: Option<u64>,
}

#[derive(Clone)]
pub(crate) struct Tensor {
    pub(crate) name: String,
    /// Innermost first, as the file has them.
    pub(crate) dims: Vec<u64>,
    pub(crate) kind: u32,
    pub(crate) data: Vec<u8>,
}

pub(crate) const F32: u32 = 0;
pub(crate) const Q8_0: u32 = 8;

fn text(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes
}

impl Builder {
    /// A small mixture of experts: `layers` layers of `experts` experts, two of them per token, width 32.
    pub(crate) fn mixture(layers: u32, experts: u32) -> Self {
        let mut made = Self::default();
        made.string("general.architecture", "llama")
            .number("llama.block_count", layers)
            .number("llama.context_length", 64)
            .number("llama.embedding_length", 32)
            .number("llama.expert_count", experts)
            .number("llama.expert_used_count", 2);
        made.values("token_embd.weight", &[32, 16]).values("output_norm.weight", &[32]);
        for layer in 0..layers {
            made.layer(layer, u64::from(experts));
        }
        made
    }

    /// The tensors of a layer.
    pub(crate) fn layer(&mut self, layer: u32, experts: u64) -> &mut Self {
        let name = |rest: &str| format!("blk.{layer}.{rest}");
        self.values(&name("attn_norm.weight"), &[32])
            .values(&name("attn_q.weight"), &[32, 32])
            .values(&name("attn_k.weight"), &[32, 16])
            .values(&name("attn_v.weight"), &[32, 16])
            .values(&name("attn_output.weight"), &[32, 32])
            .values(&name("ffn_norm.weight"), &[32])
            .values(&name("ffn_gate_inp.weight"), &[32, experts])
            .blocks(&name("ffn_gate_exps.weight"), &[32, 64, experts], Q8_0, (32, 34))
            .blocks(&name("ffn_up_exps.weight"), &[32, 64, experts], Q8_0, (32, 34))
            .blocks(&name("ffn_down_exps.weight"), &[64, 32, experts], Q8_0, (32, 34))
    }

    pub(crate) fn entry(&mut self, key: &str, kind: u32, value: &[u8]) -> &mut Self {
        let mut bytes = text(key);
        bytes.extend(kind.to_le_bytes());
        bytes.extend(value);
        self.entries.retain(|(other, _)| other != key);
        self.entries.push((key.to_owned(), bytes));
        self
    }

    pub(crate) fn number(&mut self, key: &str, value: u32) -> &mut Self {
        self.entry(key, 4, &value.to_le_bytes())
    }

    pub(crate) fn string(&mut self, key: &str, value: &str) -> &mut Self {
        self.entry(key, 8, &text(value))
    }

    pub(crate) fn aligned(&mut self, alignment: u32) -> &mut Self {
        self.alignment = Some(alignment.into());
        self.number("general.alignment", alignment)
    }

    /// A tensor of F32 numbers that tell the tensor and the place.
    pub(crate) fn values(&mut self, name: &str, dims: &[u64]) -> &mut Self {
        let seed: u32 = name.bytes().map(u32::from).sum();
        let count = dims.iter().product::<u64>();
        let value = |at: u64| (seed % 97) as f32 / 97.0 + (at * 37 % 101) as f32 / 101.0;
        let data = (0..count).flat_map(|at| value(at).to_le_bytes()).collect();
        self.tensor(Tensor { name: name.into(), dims: dims.into(), kind: F32, data })
    }

    /// A tensor of any bytes, in blocks of `elements` elements and `bytes` bytes.
    pub(crate) fn blocks(
        &mut self,
        name: &str,
        dims: &[u64],
        kind: u32,
        (elements, bytes): (u64, u64),
    ) -> &mut Self {
        let count = dims.iter().product::<u64>() / elements * bytes;
        let seed: u64 = name.bytes().map(u64::from).sum();
        let data = (0..count).map(|at| ((at * 31 + seed) % 251) as u8).collect();
        self.tensor(Tensor { name: name.into(), dims: dims.into(), kind, data })
    }

    pub(crate) fn tensor(&mut self, tensor: Tensor) -> &mut Self {
        self.tensors.retain(|other| other.name != tensor.name);
        self.tensors.push(tensor);
        self
    }

    /// Without the tensor of this name.
    pub(crate) fn without(&mut self, name: &str) -> &mut Self {
        self.tensors.retain(|other| other.name != name);
        self
    }

    /// The same with so many experts under `kept` in each layer, as a converter would make it.
    pub(crate) fn cut(&self, experts: u64, kept: &[usize]) -> Self {
        let mut cut = self.clone();
        cut.number_in_place("llama.expert_count", kept.len() as u32);
        for tensor in &mut cut.tensors {
            let by_expert =
                ["exps", "exp_probs", "ffn_gate_inp."].iter().any(|n| tensor.name.contains(n));
            let last = tensor.dims.last_mut().expect("has dimensions");
            if by_expert && *last == experts && !tensor.name.contains("norm") {
                let size = tensor.data.len() / experts as usize;
                let part = |&e: &usize| tensor.data[e * size..(e + 1) * size].to_vec();
                tensor.data = kept.iter().flat_map(part).collect();
                *last = kept.len() as u64;
            }
        }
        cut
    }

    /// Changes a number where it stands.
    pub(crate) fn number_in_place(&mut self, key: &str, value: u32) -> &mut Self {
        let entry = self.entries.iter_mut().find(|(other, _)| other == key).expect("is there");
        let at = entry.1.len() - 4;
        entry.1[at..].copy_from_slice(&value.to_le_bytes());
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let alignment = self.alignment.unwrap_or(32) as usize;
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(3_u32.to_le_bytes());
        bytes.extend((self.tensors.len() as u64).to_le_bytes());
        bytes.extend((self.entries.len() as u64).to_le_bytes());
        self.entries.iter().for_each(|(_, entry)| bytes.extend(entry));
        let mut offset = 0_u64;
        for tensor in &self.tensors {
            bytes.extend(text(&tensor.name));
            bytes.extend((tensor.dims.len() as u32).to_le_bytes());
            tensor.dims.iter().for_each(|dim| bytes.extend(dim.to_le_bytes()));
            bytes.extend(tensor.kind.to_le_bytes());
            bytes.extend(offset.to_le_bytes());
            offset += tensor.data.len().next_multiple_of(alignment) as u64;
        }
        let pad = |bytes: &mut Vec<u8>| bytes.resize(bytes.len().next_multiple_of(alignment), 0);
        pad(&mut bytes);
        for tensor in &self.tensors {
            bytes.extend(&tensor.data);
            pad(&mut bytes);
        }
        bytes
    }

    pub(crate) fn write(&self, path: &Path) {
        fs::write(path, self.bytes()).expect("writes");
    }

    /// The same in several files, each with so many tensors, under the names of a set; returns the names.
    pub(crate) fn split(&self, folder: &Path, stem: &str, each: usize) -> Vec<String> {
        self.split_from(folder, stem, each, 0)
    }

    /// The same with so many files before them that have no tensors.
    pub(crate) fn split_from(
        &self,
        folder: &Path,
        stem: &str,
        each: usize,
        empty: usize,
    ) -> Vec<String> {
        let before = std::iter::repeat_n(&[][..], empty);
        let parts: Vec<&[Tensor]> = before.chain(self.tensors.chunks(each)).collect();
        let count = parts.len();
        let mut names = Vec::new();
        for (number, tensors) in parts.into_iter().enumerate() {
            let mut part = Self { tensors: tensors.to_vec(), ..Self::default() };
            if number == 0 {
                part.entries.clone_from(&self.entries);
            }
            part.entry("split.no", 2, &(number as u16).to_le_bytes())
                .entry("split.count", 2, &(count as u16).to_le_bytes())
                .entry("split.tensors.count", 5, &(self.tensors.len() as i32).to_le_bytes());
            let name = format!("{stem}-{:05}-of-{count:05}.gguf", number + 1);
            part.write(&folder.join(&name));
            names.push(name);
        }
        names
    }
}
