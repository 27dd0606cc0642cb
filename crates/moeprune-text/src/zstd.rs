//! Zstandard, a frame after another.

use std::{
    error,
    io::{self, BufRead, Read},
};

use ruzstd::decoding::{
    BlockDecodingStrategy, FrameDecoder,
    errors::{FrameDecoderError, ReadFrameHeaderError},
};

/// A reader of what `source` holds, packed by zstd: any number of frames, also such that are to be skipped.
pub(crate) struct Zstd<R> {
    source: R,
    frame: FrameDecoder,
    within: bool,
}

impl<R: BufRead> Zstd<R> {
    pub(crate) fn of(source: R) -> Self {
        Self { source, frame: FrameDecoder::new(), within: false }
    }

    /// Goes to the next frame; `false` if there is none.
    fn next_frame(&mut self) -> io::Result<bool> {
        while !self.source.fill_buf()?.is_empty() {
            match self.frame.reset(&mut self.source) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    let mut skipped = (&mut self.source).take(length.into());
                    if io::copy(&mut skipped, &mut io::sink())? < length.into() {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(error) => return Err(broken(error)),
            }
        }
        Ok(false)
    }

    fn check(&self) -> io::Result<()> {
        let stored = self.frame.get_checksum_from_data();
        if stored.is_some() && stored != self.frame.get_calculated_checksum() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the checksum does not fit"));
        }
        Ok(())
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if !self.within {
                self.within = self.next_frame()?;
                if !self.within {
                    return Ok(0);
                }
            }
            while self.frame.can_collect() == 0 && !self.frame.is_finished() {
                let one = BlockDecodingStrategy::UptoBlocks(1);
                self.frame.decode_blocks(&mut self.source, one).map_err(broken)?;
            }
            let length = self.frame.read(buffer)?;
            if length > 0 {
                return Ok(length);
            }
            self.check()?;
            self.within = false;
        }
    }
}

/// The decoder's error; of kind `UnexpectedEof` if that is what lies below it.
fn broken(error: FrameDecoderError) -> io::Error {
    if let FrameDecoderError::WindowSizeTooBig { requested, max } = error {
        let what = format!(
            "it refers back over {requested} bytes, at most {max} are read; unpack it first (zstd -d --long=31)"
        );
        return io::Error::new(io::ErrorKind::Unsupported, what);
    }
    let mut cause: Option<&(dyn error::Error + 'static)> = Some(&error);
    while let Some(below) = cause {
        match below.downcast_ref::<io::Error>() {
            Some(found) if found.raw_os_error().is_some() || is_end(found) => {
                return found
                    .raw_os_error()
                    .map_or_else(|| found.kind().into(), io::Error::from_raw_os_error);
            }
            _ => cause = below.source(),
        }
    }
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
}

fn is_end(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::UnexpectedEof
}
