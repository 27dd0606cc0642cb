/*!
Headers of GGUF files, the format of llama.cpp and ggml: which tensors are where, and what is said of
the model.

# Brief overview

[`Header::read`] reads what comes before the tensors, in pieces, from any
[`ReadAt`](moeprune_files::ReadAt). A [`Header`] has [`Entries`], the key-value pairs, and a
[`TensorInfo`] per tensor: name, type, shape and the bytes of the file that it is. [`Header::new`] lays
tensors out for a file that is to be written, and [`Header::to_bytes`] is what that file begins with.
[`open_set`] opens a model that is split over several files and holds them against each other.
[`imatrix`] reads and cuts importance matrices, which come in this format and in an older one.

# Example

```
use moeprune_core::Dtype;
use moeprune_files::{Files, MemoryFiles};
use moeprune_gguf::{Entries, Header, NewTensor, Value};

let mut entries = Entries::new();
entries.push("general.architecture", Value::String(b"llama"))?;
entries.push("llama.expert_count", Value::U32(8))?;
let router = NewTensor {
    name: "blk.0.ffn_gate_inp.weight".to_owned(),
    dtype: Dtype::F32,
    shape: vec![8, 16],
};
let header = Header::new(3, entries, vec![router])?;
let mut file = header.to_bytes();
file.resize(header.data_end() as usize, 0);

let mut files = MemoryFiles::new("example");
files.insert("model.gguf", file);
let file = files.open("model.gguf".as_ref())?.expect("is there");
let read = Header::read(&*file)?;
assert_eq!(read.entries().number("llama.expert_count")?, Some(8));
assert_eq!(read.tensors()[0].shape, [8, 16]);
assert_eq!(read, header);
# Ok::<(), Box<dyn std::error::Error>>(())
```

# What is read

Versions 2 and 3 of the format, little-endian. Version 1 and big-endian files are refused by name.

*Entries are carried as they are.* Each keeps its bytes, its place and its type, so that a header that
nothing was changed in is written back byte for byte (padding is zeros). Values that ggml itself does not take,
such as arrays of arrays, are carried if their size can be told.

*Counts are checked before memory is taken for them*, against what is left of the file.

*Every byte of the data belongs to one tensor.* Tensors that overlap, holes between them and data behind the last are
refused, as ggml refuses the first two. Padding below the alignment is none of these.

*Types that are not known are sized by the file.* A tensor of such a type has as many bytes as are a
multiple of its number of rows and leave less than the alignment up to the next tensor. If there is no such
number of bytes, or several, the tensor is refused.
*/

mod cursor;
mod entries;
mod error;
mod header;
pub mod imatrix;
mod split;
mod value;

pub use self::{
    entries::Entries,
    error::Error,
    header::{Header, NewTensor, TensorInfo},
    split::{SetFile, SplitName, open_set},
    value::{Array, Value, ValueType},
};
