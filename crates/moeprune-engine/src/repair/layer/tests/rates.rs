//! What is kept in files, by the rates of the machine.

use std::{fs, path::PathBuf, sync::Mutex};

use super::*;
use crate::{
    Progress, Rates, RepairEstimate, RepairTextSize, kept_experts::repaired_parts as parts,
    session::Session, walk::Walker,
};

/// [`Scale`], and per layer whether activations and factors are in files.
#[derive(Debug)]
struct Watched {
    folder: PathBuf,
    in_files: Arc<Mutex<Vec<Holding>>>,
}

impl ExpertRepair for Watched {
    fn repair(&self, layer: &mut LayerToRepair<'_>) -> Result<LayerRepair, StageError> {
        let is_there =
            |name| self.folder.join(format!("{name}-{number:04}", number = layer.layer)).exists();
        let (activations, factors) = (is_there("activations"), is_there("factors"));
        self.in_files.lock().unwrap().push(Holding { activations, factors });
        Scale.repair(layer)
    }

    fn passes(&self) -> RepairPasses {
        RepairPasses { factorisations: 1, sweeps: 2, reads: 3, ..RepairPasses::default() }
    }
}

#[derive(Debug, Default)]
struct Notes(Vec<String>);

impl Progress for Notes {
    fn note(&mut self, line: &str) {
        self.0.push(line.to_owned());
    }
}

/// Repairs all layers at these rates. Returns the new weights per layer.
fn check(rates: Rates, expected: Holding) -> Vec<Vec<u8>> {
    let checkpoint = checkpoint("parity/mixtral");
    let plan = plan(&checkpoint, false);
    let kept = &KeptExperts::new(&checkpoint, &plan);
    let execution = &Execution::cpu().with_rates(rates);
    let tokens = &RepairTokens::of(&calibration(checkpoint.spec().vocab)).unwrap();
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    let in_files = Arc::default();
    let watched = Watched { folder: folder.to_owned(), in_files: Arc::clone(&in_files) };
    let repair = &Stage::<dyn ExpertRepair>::new(Box::new(watched));
    let (wanted, after) = (kept.source(), After::Experts);
    let task = RepairTask { wanted, kept, repair, execution, tokens, after, folder };
    let mut notes = Notes::default();
    task.note_estimate(&mut notes).unwrap();
    let session = &mut Session::in_memory();
    task.all_layers(&mut Walker { session, progress: &mut notes }).unwrap();

    let layers = 0..kept.spec().layers.len();
    assert_eq!(*in_files.lock().unwrap(), vec![expected; layers.len()]);
    let left = |layer| kept.spec().moe_of(layer).map_or(0, |moe| moe.experts);
    let (fitted, all) = (tokens.fitted as u64, tokens.blocks.tokens());
    let block = tokens.blocks.blocks().iter().map(Vec::len).max().unwrap() as u64;
    let text = RepairTextSize { fitted, held_out: all - fitted, block };
    let estimate = RepairEstimate::of(wanted, left, text, repair.passes(), rates);
    assert_eq!(notes.0[0], estimate.note());
    layers.map(|layer| fs::read(parts::file(folder, after, layer)).unwrap()).collect()
}

#[test]
fn what_is_kept_in_files_follows_from_the_rates_and_changes_nothing() {
    let (all, nothing) = (
        Holding { activations: true, factors: true },
        Holding { activations: false, factors: false },
    );
    let kept = check(Rates { disk: 1e18, compute: 1.0 }, all);
    let computed_again = check(Rates { disk: 1.0, compute: 1e18 }, nothing);
    assert!(kept == computed_again);
    assert!(kept.iter().all(|weights| !weights.is_empty()));
}
