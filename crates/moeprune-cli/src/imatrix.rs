//! An imatrix that is cut along with its model.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use moeprune::{Error, Report, checkpoint::Checkpoint};
use moeprune_files::{Access, Destination, LocalFiles, OutputKind, ReadAt, RunFiles};
use moeprune_gguf::imatrix::{ExpertCut, Imatrix, ImatrixError, cut_experts};

/// What is read, and where what is left of it goes.
#[derive(Debug)]
pub(crate) struct ImatrixCut {
    source: PathBuf,
    out: Destination,
}

impl ImatrixCut {
    /// Of what `--imatrix` and `--imatrix-out` name; `None` if they name nothing.
    pub(crate) fn of(
        (source, out): (Option<&Path>, Option<&Path>),
        files: &mut RunFiles,
    ) -> Result<Option<Self>, Error> {
        let (Some(source), Some(out)) = (source, out) else { return Ok(None) };
        let out = files.claim("--imatrix-out", out, OutputKind::Observation)?;
        Ok(Some(Self { source: source.to_owned(), out }))
    }

    /// Checks, before any work, that it can be cut.
    pub(crate) fn check(&self, checkpoint: &Checkpoint) -> Result<(), Error> {
        if !checkpoint.describes_itself() {
            return Err(Error::Request(format!(
                "an imatrix is cut along with a GGUF model, and {} is {}; leave --imatrix and --imatrix-out out",
                checkpoint.dir().display(),
                checkpoint.container().name()
            )));
        }
        let imatrix = Imatrix::read(&*self.open()?).map_err(|e| self.refuse(&e))?;
        if !imatrix.counts_tokens() {
            return Err(self.refuse(&ImatrixError::OlderForm));
        }
        // As if all experts stayed: whether it is of this model.
        let spec = checkpoint.spec();
        let whole = (0..spec.extra_layers().end).filter_map(|layer| {
            let experts = spec.moe_of(layer)?.experts;
            Some((layer, ExpertCut { experts, kept: (0..experts).collect() }))
        });
        let cuts = whole.collect();
        cut_experts(&*self.open()?, &cuts, &mut io::sink()).map_err(|e| self.refuse(&e))
    }

    /// Writes what is left of the experts that a run kept.
    pub(crate) fn write(self, report: &Report) -> Result<(), Error> {
        let extra = report.extra.iter().flat_map(|extra| &extra.layers);
        let layers = report.layers.iter().chain(extra).filter(|layer| layer.experts_before > 0);
        let cut = |layer: &moeprune::report::LayerReport| {
            let (experts, kept) = (layer.experts_before, layer.kept.clone());
            (layer.index, ExpertCut { experts, kept })
        };
        let cuts: BTreeMap<usize, ExpertCut> = layers.map(cut).collect();
        let file = self.open()?;
        Ok(crate::interrupt::deliver(&self.out, |out| {
            cut_experts(&*file, &cuts, out).map_err(|e| io::Error::other(e.to_string()))
        })?)
    }

    fn open(&self) -> Result<Box<dyn ReadAt>, Error> {
        Ok(LocalFiles::open_file(&self.source, Access::Read)?)
    }

    fn refuse(&self, error: &ImatrixError) -> Error {
        Error::Request(format!("{}: {error}", self.source.display()))
    }
}
