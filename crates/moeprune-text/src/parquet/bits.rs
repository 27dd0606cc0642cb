//! Numbers of few bits: runs and packed groups (levels, indices), and differences.
//!
//! Decoders hold places, not bytes: they are called with the page that they were made for.

use super::thrift::Broken;

fn byte(bytes: &[u8], at: &mut usize) -> Result<u8, Broken> {
    let byte = *bytes.get(*at).ok_or(Broken::End)?;
    *at += 1;
    Ok(byte)
}

pub(super) fn varint(bytes: &[u8], at: &mut usize) -> Result<u64, Broken> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = byte(bytes, at)?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(Broken::because("a number of more than 64 bits"))
}

/// `width` bits, at most 64, from bit `bit` on, the lowest first.
fn packed(bytes: &[u8], bit: usize, width: u32) -> Result<u64, Broken> {
    let mut value = 0_u128;
    let (first, shift) = (bit / 8, bit % 8);
    for n in 0..(shift + width as usize).div_ceil(8) {
        value |= u128::from(*bytes.get(first + n).ok_or(Broken::End)?) << (8 * n);
    }
    let value = (value >> shift) as u64;
    Ok(if width == 64 { value } else { value & ((1 << width) - 1) })
}

/// Runs of one value and groups of eight values of a fixed number of bits.
#[derive(Debug, Clone)]
pub(super) struct Runs {
    at: usize,
    end: usize,
    width: u32,
    left: u64,
    /// The value of a run, or the bit at which the next packed value begins.
    run: Option<u32>,
    bit: usize,
}

impl Runs {
    /// Of values of `width` bits in bytes `at..end`.
    pub(super) fn new(at: usize, end: usize, width: u32) -> Result<Self, Broken> {
        match width {
            0..=32 => Ok(Self { at, end, width, left: 0, run: None, bit: 0 }),
            _ => Err(Broken::because(format!("values of {width} bits"))),
        }
    }

    pub(super) fn next(&mut self, page: &[u8]) -> Result<u32, Broken> {
        let bytes = page.get(..self.end).ok_or(Broken::End)?;
        while self.left == 0 {
            self.next_run(bytes)?;
        }
        self.left -= 1;
        match self.run {
            Some(value) => Ok(value),
            None => {
                let value = packed(bytes, self.bit, self.width)?;
                self.bit += self.width as usize;
                Ok(value as u32)
            }
        }
    }

    fn next_run(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        let header = varint(bytes, &mut self.at)?;
        if header & 1 == 0 {
            self.left = header >> 1;
            let mut value = 0_u32;
            for n in 0..self.width.div_ceil(8) {
                value |= u32::from(byte(bytes, &mut self.at)?) << (8 * n);
            }
            self.run = Some(value);
        } else {
            let groups = header >> 1;
            let length = groups.checked_mul(self.width.into()).ok_or(Broken::End)?;
            let length = usize::try_from(length).map_err(|_| Broken::End)?;
            self.left = groups.checked_mul(8).ok_or(Broken::End)?;
            self.bit = self.at.checked_mul(8).ok_or(Broken::End)?;
            self.at = self.at.saturating_add(length); // the last group may be cut: values are checked as they are read
            self.run = None;
        }
        Ok(())
    }
}

/// Integers as differences in blocks of miniblocks.
#[derive(Debug, Clone)]
pub(super) struct Differences {
    at: usize,
    /// Values that are still to come.
    left: u64,
    value: i64,
    first: bool,
    block: u64,
    per_miniblock: u64,
    least: i64,
    widths: Vec<u8>,
    miniblock: usize,
    in_miniblock: u64,
    bit: usize,
}

impl Differences {
    /// Of at most `most` values from byte `at` on.
    pub(super) fn new(page: &[u8], mut at: usize, most: u64) -> Result<Self, Broken> {
        let block = varint(page, &mut at)?;
        let miniblocks = varint(page, &mut at)?;
        let count = varint(page, &mut at)?;
        let value = zigzag(varint(page, &mut at)?);
        let fits = matches!(miniblocks, 1..=256)
            && block % 128 == 0
            && matches!(block, 1..=1_048_576)
            && block % miniblocks == 0
            && (block / miniblocks) % 32 == 0;
        if !fits {
            return Err(Broken::because(format!("blocks of {block} differences in {miniblocks}")));
        }
        if count > most {
            return Err(Broken::because(format!("{count} values where {most} are expected")));
        }
        Ok(Self {
            at,
            left: count,
            value,
            first: true,
            block,
            per_miniblock: block / miniblocks,
            least: 0,
            widths: Vec::new(),
            miniblock: 0,
            in_miniblock: 0,
            bit: 0,
        })
    }

    pub(super) fn next(&mut self, page: &[u8]) -> Result<i64, Broken> {
        self.left = self.left.checked_sub(1).ok_or(Broken::End)?;
        if std::mem::take(&mut self.first) {
            return Ok(self.value);
        }
        if self.in_miniblock == 0 {
            self.next_miniblock(page)?;
        }
        let width = u32::from(self.widths[self.miniblock]);
        let difference = packed(page, self.bit, width)?.cast_signed();
        self.bit += width as usize;
        self.in_miniblock -= 1;
        if self.in_miniblock == 0 {
            self.miniblock += 1;
        }
        self.value = self.value.wrapping_add(self.least).wrapping_add(difference);
        Ok(self.value)
    }

    fn next_miniblock(&mut self, page: &[u8]) -> Result<(), Broken> {
        if self.miniblock == self.widths.len() {
            self.least = zigzag(varint(page, &mut self.at)?);
            let count = (self.block / self.per_miniblock) as usize;
            let widths = page.get(self.at..self.at + count).ok_or(Broken::End)?;
            self.widths = widths.to_vec();
            self.at += count;
            self.miniblock = 0;
        }
        let width = self.widths[self.miniblock];
        if width > 64 {
            return Err(Broken::because(format!("differences of {width} bits")));
        }
        self.bit = self.at.checked_mul(8).ok_or(Broken::End)?;
        self.at += usize::from(width) * self.per_miniblock as usize / 8;
        self.in_miniblock = self.per_miniblock;
        Ok(())
    }

    /// Where what follows begins, once all values were read.
    pub(super) fn end(mut self, page: &[u8]) -> Result<usize, Broken> {
        while self.left > 0 {
            self.next(page)?;
        }
        Ok(self.at)
    }
}

fn zigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -((value & 1).cast_signed())
}
