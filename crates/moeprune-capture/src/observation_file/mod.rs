/*!
The observation file: an [`Observation`](moeprune_core::Observation) on disk.

# Format, version 1

The file is a safetensors file, so anything that opens one can look into it. The words MUST and MAY
below are meant as requirements.

## Metadata

The header's `__metadata__` MUST hold these keys, each once; a reader MAY ignore others.

| key | value |
|---|---|
| `format` | `moeprune-observation` |
| `version` | `1`; a reader MUST refuse any other |
| `model_fingerprint` | the model the sums belong to |
| `corpora` | a JSON array, one object per text: `name`, `sha256`, `samples`, `sequence_len`, `seed`, `repeated` if that is not 1, and `read` if it is known: `format`, `files`, `documents` and `tokens` of the text, `asked_len` if blocks are shorter than asked for, `rendering` of conversations |
| `layers` | the number of decoder layers `L`, at most 4096, in decimal without leading zeros |

## Tensors

Names MUST be of the forms below, `{l}` counting from 0 to `L − 1` in decimal without leading zeros;
a reader MUST refuse any other name and any name that occurs twice. With `n` experts and `f` input
features:

| name | type, shape | sum over the tokens of |
|---|---|---|
| `layer.{l}.routing.tokens` | U64 `[]` | 1 |
| `layer.{l}.routing.top_k` | U64 `[]` | (not a sum: experts a token goes through) |
| `layer.{l}.routing.counts` | U64 `[n]` | 1, for each expert chosen |
| `layer.{l}.routing.coactivation` | U64 `[n, n]` | 1, for each pair of experts chosen together |
| `layer.{l}.routing.gate_sums` | F64 `[n]` | the gate weight |
| `layer.{l}.routing.gated_output_norms` | F64 `[n]` | gate weight × L2 norm of the expert's output; where the gate multiplies the expert's input, the norm alone |
| `layer.{l}.routing.output_norms` | F64 `[n]` | the L2 norm of the expert's output |
| `layer.{l}.routing.output_peaks` | F64 `[n]` | (a maximum: the largest magnitude in any output of the expert) |
| `layer.{l}.routing.output_sums` | F64 `[n, h]` | the expert's output, `h` values |
| `layer.{l}.input.{site}.tokens` | U64 `[]` | 1, for each token that reached the Linear |
| `layer.{l}.input.{site}.calls` | U64 `[]` | (over blocks: those of which a token did) |
| `layer.{l}.input.{site}.sum_squares` | F64 `[f]` | the squared input, feature by feature |

`{site}` is the [name](moeprune_core::LinearId) of a Linear that is an
[input site](moeprune_core::LinearShape::reads). A layer MAY lack its routing tensors, and any
site; where one tensor of a group is there, the whole group MUST be, `coactivation`, `gate_sums`,
`gated_output_norms`, `output_norms`, `output_peaks` and `output_sums` excepted: each of these MAY be
missing. The tensors of a group are the rows of its [table](moeprune_core::observation::Statistics), and
those that MAY be missing are the rows that a later revision of the table brought, and those that only
a run of the model shows: an observation from an imatrix has none of the latter. (A reader of before
there were such observations refuses a file without the first four.)

## Values

* Counts MUST NOT exceed the tokens they count; counts MUST sum to `tokens · top_k`, pairs to
  `tokens · top_k · (top_k − 1)`; the pairs MUST be symmetric with a zero diagonal.
* Floating-point sums MUST be finite and, but for `output_sums`, not negative.
* A site with tokens MUST have at most one call per token; none says that calls are not known. One without
  tokens MUST be all zero.

## Bytes

A writer MUST put tensors in the order of the table, layer by layer, sites in the order of
`LinearId`, metadata keys in the order above, without white space in the header but the spaces that
pad it to a multiple of 8 bytes, so that equal observations are equal files. A reader MUST NOT rely
on the order.

# Parts

A part of an observation, over a range of the blocks of one text, is a file of the same form with these differences.
Its `format` is `moeprune-observation-part`. In place of `corpora` its metadata has `corpus`, the one text as a whole
with the samples of all parts; `part`, `I/N`; `blocks`, a JSON array of the first block, counted from 0, and the one after
the last, which MUST be those of this part of the samples ([`PartOf::range`](moeprune_core::PartOf::range)); and
`compute`, the type that was computed in; and `sha256` of all tensors' bytes, which a reader of sums MUST compare. Sums that are F64 in an observation (not `output_peaks`, a maximum) are U64 with
one more, innermost dimension of 3: a [`WideSum`](moeprune_core::observation::WideSum), lowest word first.

# Why it is so

Sums are kept in f64 and counts in 64 bits, so that files of different texts add up without loss.
The header is written here and not by the safetensors crate, which keeps metadata in a hash map:
with more than one key, its files differ from run to run.
*/

mod check;
mod container;
mod merge;
mod name;
mod part;
mod read;
mod write;

pub use merge::merge_parts;
pub use part::{
    ObservationPart, PartHead, read_part, read_part_head, write_part, write_part_by_layer,
    write_part_to,
};
pub use read::read_observation;
pub use write::{observation_sha256, write_observation, write_observation_to};

const FORMAT: &str = "moeprune-observation";
const PART_FORMAT: &str = "moeprune-observation-part";
const VERSION: &str = "1";
