/*!
Blocks of ggml, in which GGUF files store quantised weights: so many elements of a row share so many
bytes, scales included.

A file per kind of block: `q4_0`, `q4_1`, `q5_0`, `q5_1`, `q8_0` of 32 elements, `mxfp4`, and
the k-quants of 256, whose scales of groups are quantised as well: `q2_k`, `q3_k`, `q4_k`, `q5_k`,
`q6_k`, `q8_k`. To decode another, add its file and a line to `decoder`.

Weights are read, not zeroed: most kinds have no code that is zero in every block.
*/

mod blocks;
mod mxfp4;
mod q2_k;
mod q3_k;
mod q4_0;
mod q4_1;
mod q4_k;
mod q5_0;
mod q5_1;
mod q5_k;
mod q6_k;
mod q8_0;
mod q8_k;

use std::ops::Range;

use super::{
    Encoding, Rows, RowsMut, SharedEncoding,
    config::QuantConfig,
    form::{Format, Held, Misfit, Recognised, StoredForm},
    module::ModuleTensors,
};
use crate::{Dtype, Error, GgmlType, TensorBytes};

/// Decodes whole blocks to the elements that they hold.
type Decode = fn(&[u8], &mut [f32]);

/// The most elements of a block that is decoded.
const MOST_ELEMENTS: usize = 256;

/// Blocks of one kind.
#[derive(Debug, Clone, Copy)]
pub struct GgmlBlocks {
    kind: GgmlType,
    name: &'static str,
    decode: Decode,
}

pub(super) const FORMAT: Format =
    Format { codes: &[".weight"], companions: &[], form, shape: |_| None, encoding: recognise };

fn form(held: &Held<'_>) -> Option<Result<StoredForm, Misfit>> {
    let (main, Dtype::Ggml(kind), _) = held.main else { return None };
    let form = StoredForm::Codes(kind.to_string().into());
    Some(held.check(main, held.expected).map(|()| form))
}

fn recognise(module: &ModuleTensors<'_>, _: &QuantConfig) -> Option<Recognised> {
    let Dtype::Ggml(kind) = module.dtype(".weight")? else { return None };
    Some(of(kind))
}

/// The encoding of a tensor in blocks.
///
/// # Errors
/// [`Error::NotDecoded`] of a kind that is not decoded.
pub fn of(kind: GgmlType) -> Result<SharedEncoding, Error> {
    let name = kind.name().zip(decoder(kind));
    let (name, decode) = name.ok_or_else(|| Error::NotDecoded(format!("{kind} of GGUF")))?;
    Ok(SharedEncoding::new(GgmlBlocks { kind, name, decode }))
}

fn decoder(kind: GgmlType) -> Option<Decode> {
    Some(match kind.name()? {
        "Q4_0" => q4_0::decode,
        "Q4_1" => q4_1::decode,
        "Q5_0" => q5_0::decode,
        "Q5_1" => q5_1::decode,
        "Q8_0" => q8_0::decode,
        "Q2_K" => q2_k::decode,
        "Q3_K" => q3_k::decode,
        "Q4_K" => q4_k::decode,
        "Q5_K" => q5_k::decode,
        "Q6_K" => q6_k::decode,
        "Q8_K" => q8_k::decode,
        "MXFP4" => mxfp4::decode,
        _ => return None,
    })
}

impl Encoding for GgmlBlocks {
    fn name(&self) -> &'static str {
        self.name
    }

    fn dtype(&self) -> Dtype {
        Dtype::Ggml(self.kind)
    }

    fn shape(&self, main: &[usize], _: &[TensorBytes<'_>]) -> Result<Vec<usize>, Error> {
        Ok(main.to_vec()) // whose rows are whole blocks, as of every tensor of this type
    }

    fn row_bytes(&self, cols: usize) -> Option<usize> {
        Some(cols / self.kind.block_elements() * self.kind.block_bytes())
    }

    fn decode(&self, rows: Rows<'_>, columns: Range<usize>, out: &mut [f32]) {
        let (elements, size) = (self.kind.block_elements(), self.kind.block_bytes());
        let row_bytes = rows.cols() / elements * size;
        for (row, out) in out.chunks_exact_mut(columns.len().max(1)).enumerate() {
            let bytes = &rows.main[row * row_bytes..][..row_bytes];
            let (mut at, mut out) = (columns.start, out);
            while at < columns.end {
                let (bytes, within) = (&bytes[at / elements * size..], at % elements);
                let whole = (columns.end - at) / elements * elements;
                let decoded = match within == 0 && whole > 0 {
                    true => {
                        (self.decode)(bytes, &mut out[..whole]);
                        whole
                    }
                    false => {
                        let mut block = [0.0; MOST_ELEMENTS];
                        (self.decode)(&bytes[..size], &mut block[..elements]);
                        let count = (elements - within).min(out.len());
                        out[..count].copy_from_slice(&block[within..within + count]);
                        count
                    }
                };
                at += decoded;
                out = out.split_at_mut(decoded).1;
            }
        }
    }

    fn zeroes(&self) -> Result<(), Error> {
        Err(Error::NotZeroed(self.name))
    }

    fn zero(&self, _: &mut RowsMut<'_>, _: usize, _: usize) -> bool {
        false
    }
}
