//! What pages are packed with. Memory is taken as data comes, not for what a header says.

use std::io::Read;

use super::thrift::Broken;
use crate::zstd::Zstd;

/// What the pages of a column are packed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Codec {
    None,
    Snappy,
    Gzip,
    Brotli,
    /// LZ4 as Hadoop frames it, or as its blocks are: files have both under this number.
    Lz4,
    Lz4Raw,
    Zstd,
}

/// Larger pages are refused; usual ones have a megabyte.
const LARGEST: usize = 1 << 30;

impl Codec {
    pub(super) fn of(number: i64) -> Result<Self, Broken> {
        Ok(match number {
            0 => Self::None,
            1 => Self::Snappy,
            2 => Self::Gzip,
            4 => Self::Brotli,
            5 => Self::Lz4,
            6 => Self::Zstd,
            7 => Self::Lz4Raw,
            3 => {
                return Err(Broken::because(
                    "pages packed by LZO, which is not read; write the file again with zstd",
                ));
            }
            _ => {
                return Err(Broken::because(format!(
                    "pages packed by codec {number}, which is not known"
                )));
            }
        })
    }

    /// Unpacks a page that must then have `size` bytes.
    pub(super) fn unpack(self, packed: &[u8], size: usize) -> Result<Vec<u8>, Broken> {
        if size > LARGEST {
            return Err(Broken::because(format!(
                "a page of {size} bytes; the most that is read is {LARGEST}"
            )));
        }
        let unpacked = match self {
            Self::None => packed.to_vec(),
            Self::Snappy => {
                let says = snap::raw::decompress_len(packed).map_err(|e| bad("Snappy", e))?;
                at_most(packed, says, 64)?;
                snap::raw::Decoder::new().decompress_vec(packed).map_err(|e| bad("Snappy", e))?
            }
            Self::Gzip => read(flate2::read::MultiGzDecoder::new(packed), size, "gzip")?,
            Self::Brotli => {
                read(brotli_decompressor::Decompressor::new(packed, 1 << 14), size, "Brotli")?
            }
            Self::Lz4 => match hadoop_lz4(packed, size) {
                Some(unpacked) => unpacked,
                None => lz4(packed, size)?,
            },
            Self::Lz4Raw => lz4(packed, size)?,
            Self::Zstd => read(Zstd::of(packed), size, "zstd")?,
        };
        match unpacked.len() == size {
            true => Ok(unpacked),
            false => Err(Broken::because(format!(
                "a page that unpacks to {} bytes where its header says {size}",
                unpacked.len()
            ))),
        }
    }
}

fn bad(codec: &str, error: impl std::fmt::Display) -> Broken {
    Broken::because(format!("a page that {codec} does not unpack: {error}"))
}

/// Checks that `packed` may become `size` bytes: a byte of the format gives at most `ratio`.
fn at_most(packed: &[u8], size: usize, ratio: usize) -> Result<(), Broken> {
    match size <= packed.len().saturating_mul(ratio) {
        true => Ok(()),
        false => Err(Broken::because(format!(
            "a page of {} bytes that is to become {size}",
            packed.len()
        ))),
    }
}

fn read(reader: impl Read, size: usize, codec: &str) -> Result<Vec<u8>, Broken> {
    let mut unpacked = Vec::new();
    reader.take(size as u64 + 1).read_to_end(&mut unpacked).map_err(|error| bad(codec, error))?;
    Ok(unpacked)
}

fn lz4(packed: &[u8], size: usize) -> Result<Vec<u8>, Broken> {
    if size == 0 {
        return Ok(Vec::new());
    }
    at_most(packed, size, 256)?;
    lz4_flex::block::decompress(packed, size).map_err(|error| bad("LZ4", error))
}

/// Blocks, each after its size unpacked and packed in big-endian order; `None` if that does not come out.
fn hadoop_lz4(mut packed: &[u8], size: usize) -> Option<Vec<u8>> {
    let mut unpacked = Vec::new();
    while !packed.is_empty() {
        let (sizes, rest) = packed.split_first_chunk::<8>()?;
        let [a, b, c, d, e, f, g, h] = *sizes;
        let expected = u32::from_be_bytes([a, b, c, d]) as usize;
        let length = u32::from_be_bytes([e, f, g, h]) as usize;
        let block = rest.get(..length)?;
        if expected > size - unpacked.len() {
            return None;
        }
        unpacked.extend(lz4(block, expected).ok()?);
        packed = &rest[length..];
    }
    (unpacked.len() == size).then_some(unpacked)
}
