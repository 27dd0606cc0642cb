//! Whether a comparison holds together, before anything of it is drawn.

use crate::{AnswerTexts, Comparison, Cut, Divergence, Error, Estimate, FORMAT, LayerPicture};

/// How far from 1 the shares of a layer's load may add up: they are sums of many roundings.
const LOAD_TOLERANCE: f64 = 1e-3;
/// The widest layer that is drawn; of more, a picture would have less than a tenth of a pixel each.
const MOST_EXPERTS: usize = 4096;

/// Checks that every number can be what it is said to be, and every list is as long as the others
/// need it to be.
pub(crate) fn check(comparison: &Comparison) -> Result<(), Error> {
    if comparison.format != FORMAT {
        return Err(Error::Format { found: comparison.format, supported: FORMAT });
    }
    check_layers(&comparison.layers)?;
    let unpruned = comparison.cuts.iter().filter(|cut| cut.is_unpruned()).count();
    if unpruned > 1 {
        return Err(Error::SeveralUnpruned(unpruned));
    }
    let mut decoder_layers = None;
    for (index, cut) in comparison.cuts.iter().enumerate() {
        let name = format!("cut {index} ({})", cut.criterion);
        check_cut(&name, cut)?;
        check_kept(&name, cut, &comparison.layers)?;
        if !cut.layer_sparsity.is_empty() {
            // Every cut is of the same model: the first that says how deep it is binds the rest.
            let expected = *decoder_layers.get_or_insert(cut.layer_sparsity.len());
            let what = || format!("the sparsity per layer of {name}");
            check_length(what, expected, cut.layer_sparsity.len())?;
        }
    }
    Ok(())
}

fn check_cut(name: &str, cut: &Cut) -> Result<(), Error> {
    check_share(|| format!("the share of experts of {name}"), cut.expert_share)?;
    check_share(|| format!("the total sparsity of {name}"), cut.total_share)?;
    if let Some(Estimate { mean, stderr }) = cut.accuracy {
        check_share(|| format!("the accuracy of {name}"), mean)?;
        if let Some(stderr) = stderr {
            check_share(|| format!("the standard error of {name}"), stderr)?;
        }
    }
    if let Some(perplexity) = cut.perplexity {
        let what = || format!("the perplexity of {name}");
        check_range(what, perplexity, |value| value > 0.0, "above 0")?;
    }
    check_beside(name, cut)?;
    let what = || format!("the time of {name}");
    check_range(what, cut.seconds, |value| value >= 0.0, "0 seconds or more")?;
    for (layer, &share) in cut.layer_sparsity.iter().enumerate() {
        check_share(|| format!("the sparsity of layer {layer} of {name}"), share)?;
    }
    if cut.experts_kept > cut.experts {
        return Err(Error::OutOfRange {
            what: format!("the number of experts kept by {name}"),
            value: cut.experts_kept as f64,
            expected: "at most the number there are",
        });
    }
    Ok(())
}

fn check_beside(name: &str, cut: &Cut) -> Result<(), Error> {
    if let Some(Divergence { kl, agreement, .. }) = cut.divergence {
        let what = || format!("the divergence of {name}");
        check_range(what, kl, |value| value >= 0.0, "0 nats or more")?;
        check_share(|| format!("the agreement of {name}"), agreement)?;
    }
    let Some(AnswerTexts { ended, looping, distinct_4 }) = cut.texts else { return Ok(()) };
    let shares = [("ended", ended), ("looping", Some(looping)), ("distinct_4", distinct_4)];
    for (measure, share) in shares {
        share.map_or(Ok(()), |share| check_share(|| format!("{measure} of {name}"), share))?;
    }
    Ok(())
}

fn check_kept(name: &str, cut: &Cut, layers: &[LayerPicture]) -> Result<(), Error> {
    if cut.kept.is_empty() || layers.is_empty() {
        return Ok(());
    }
    check_length(|| format!("the kept experts of {name}"), layers.len(), cut.kept.len())?;
    for (picture, kept) in layers.iter().zip(&cut.kept) {
        let what = || format!("the kept experts of layer {} of {name}", picture.layer);
        let times = count(what, picture.experts, kept)?;
        if let Some(expert) = times.iter().position(|&times| times > 1) {
            return Err(Error::NotOnce { what: what(), expert, times: times[expert] });
        }
    }
    Ok(())
}

fn check_layers(layers: &[LayerPicture]) -> Result<(), Error> {
    for pair in layers.windows(2) {
        if pair[1].layer <= pair[0].layer {
            return Err(Error::LayerOrder { layer: pair[1].layer, before: pair[0].layer });
        }
    }
    for picture in layers {
        let LayerPicture { layer, experts, .. } = *picture;
        if experts > MOST_EXPERTS {
            return Err(Error::OutOfRange {
                what: format!("the number of experts of layer {layer}"),
                value: experts as f64,
                expected: "at most 4096 to be drawn",
            });
        }
        if !picture.distances.is_empty() {
            let what = || format!("the distances of layer {layer}");
            check_length(what, experts * experts, picture.distances.len())?;
        }
        for (index, &value) in picture.distances.iter().enumerate() {
            let (a, b) = (index / experts, index % experts);
            if a != b && !value.is_finite() {
                let what = format!("the distance of experts {a} and {b} of layer {layer}");
                return Err(Error::NotFinite { what, value });
            }
        }
        check_clusters(picture)?;
        check_load(picture)?;
    }
    Ok(())
}

fn check_clusters(picture: &LayerPicture) -> Result<(), Error> {
    if picture.clusters.is_empty() {
        return Ok(());
    }
    let what = || format!("the clusters of layer {}", picture.layer);
    let members: Vec<usize> = picture.clusters.concat();
    check_length(what, picture.experts, members.len())?;
    let times = count(what, picture.experts, &members)?;
    match times.iter().position(|&times| times != 1) {
        Some(expert) => Err(Error::NotOnce { what: what(), expert, times: times[expert] }),
        None => Ok(()),
    }
}

fn check_load(picture: &LayerPicture) -> Result<(), Error> {
    if picture.load.is_empty() {
        return Ok(());
    }
    let layer = picture.layer;
    check_length(|| format!("the load of layer {layer}"), picture.experts, picture.load.len())?;
    for (expert, &share) in picture.load.iter().enumerate() {
        check_share(|| format!("the load of expert {expert} of layer {layer}"), share)?;
    }
    let sum: f64 = picture.load.iter().sum();
    let what = || format!("the sum of the loads of layer {layer}");
    check_range(what, sum, |sum| sum == 0.0 || (sum - 1.0).abs() <= LOAD_TOLERANCE, "1, or 0")
}

/// How often each expert is named.
fn count(what: impl Fn() -> String, experts: usize, named: &[usize]) -> Result<Vec<usize>, Error> {
    if let Some(&expert) = named.iter().find(|&&expert| expert >= experts) {
        return Err(Error::NoSuchExpert { what: what(), expert, experts });
    }
    let mut times = vec![0; experts];
    for &expert in named {
        times[expert] += 1;
    }
    Ok(times)
}

fn check_length(what: impl Fn() -> String, expected: usize, got: usize) -> Result<(), Error> {
    if got == expected { Ok(()) } else { Err(Error::Length { what: what(), expected, got }) }
}

fn check_share(what: impl Fn() -> String, value: f64) -> Result<(), Error> {
    check_range(what, value, |value| (0.0..=1.0).contains(&value), "between 0 and 1")
}

fn check_range(
    what: impl Fn() -> String,
    value: f64,
    allowed: impl Fn(f64) -> bool,
    expected: &'static str,
) -> Result<(), Error> {
    if !value.is_finite() {
        return Err(Error::NotFinite { what: what(), value });
    }
    if allowed(value) { Ok(()) } else { Err(Error::OutOfRange { what: what(), value, expected }) }
}
