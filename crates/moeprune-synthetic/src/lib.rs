/*!
Checkpoints of random weights at the true names and shapes of published models.

# Brief overview

A [`Shape`] is a [`Published`] model, whole or reduced ([`Reduction`]: fewer layers, fewer experts,
narrower); [`write_checkpoint`] writes it as a Hugging Face directory that every reader takes for the
real one, and [`write_calibration`] writes tokens to run it on. What sizes and times depend on is
there: shapes, files, routing that is uneven, outliers in rows and columns, experts that nearly
repeat each other. What the model says is noise.

# Example

```
use moeprune_checkpoint::Checkpoint;
use moeprune_synthetic::{Options, Published, Reduction, Shape, write_checkpoint};

let reduction = Reduction { layers: Some(1), experts: Some(4), vocab: Some(64), scale: 128 };
let shape = Shape::new(Published::Arctic, &reduction)?;
let dir = tempfile::tempdir()?;
let out = dir.path().join("arctic-tiny");
write_checkpoint(&out, &shape, &Options::default(), &mut |_| {})?;
assert_eq!(Checkpoint::open(&out)?.spec(), shape.spec());
# Ok::<(), Box<dyn std::error::Error>>(())
```

# Why it is so

Weights depend on the seed and on nothing else: each row can be made alone, so any number of threads
fill files of any size and the bytes are the same. Nothing is held but a piece a thread, so a model
may be larger than memory, and with holes in place of most weights larger than the disk.
*/

// Weights are written at places in files and room is looked up as Unix has it.
#![cfg(unix)]

mod calibration;
mod checkpoint;
mod error;
mod form;
mod headers;
mod published;
mod random;
mod reduction;
mod shape;
mod shaped_tensor;
mod shards;
mod size;
mod source;
mod weights;
mod write;

pub use calibration::{write_calibration, write_calibration_to};
pub use checkpoint::{Options, disk_bytes, write_checkpoint};
pub use error::Error;
pub use published::Published;
pub use reduction::Reduction;
pub use shape::Shape;
pub use write::Step;
