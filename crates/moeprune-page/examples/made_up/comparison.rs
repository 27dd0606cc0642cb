//! A comparison as a run would leave it, of a model that does not exist.

use moeprune_page::{Comparison, Cut, Estimate, FORMAT, LayerPicture, UNPRUNED};

const CRITERIA: [&str; 4] =
    ["mean distance to the cluster", "routing load", "nearest to the mean, then Wanda", "random"];
const SHARES: [f64; 4] = [0.125, 0.25, 0.375, 0.5];

/// Numbers that look random and are always the same.
struct Noise(u64);

impl Noise {
    /// From 0 to below 1.
    fn next(&mut self) -> f64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as f64 / (1_u64 << 31) as f64
    }
}

/// A comparison of four criteria at four sizes.
pub(crate) fn comparison(layers: usize, experts: usize) -> Comparison {
    let mut noise = Noise(7);
    let pictures: Vec<_> = (0..layers).map(|layer| picture(layer, experts, &mut noise)).collect();
    let expert = 3 * 1024 * 512_u64;
    let rest = 40_000_000 + 9_000_000 * layers as u64;
    let all = layers as u64 * experts as u64;
    let unpruned = Cut {
        criterion: UNPRUNED.into(),
        expert_share: 0.0,
        total_share: 0.0,
        experts_kept: all,
        experts: all,
        parameters: rest + expert * all,
        bytes: 2 * (rest + expert * all),
        accuracy: Some(Estimate { mean: 0.6125, stderr: Some(0.0134) }),
        perplexity: Some(6.318),
        divergence: None,
        texts: None,
        seconds: 0.0,
        layer_sparsity: vec![0.0; layers],
        kept: vec![(0..experts).collect(); layers],
    };
    let mut cuts = vec![unpruned];
    for (harm, criterion) in CRITERIA.into_iter().enumerate() {
        for share in SHARES {
            cuts.push(cut(criterion, harm, share, &pictures, &cuts[0], &mut noise));
        }
    }
    Comparison {
        format: FORMAT,
        tool: "moeprune 0.1.0".into(),
        model: "Example-MoE-A1B".into(),
        family: "mixtral".into(),
        observed: vec!["GSM8K training questions with answers".into(), "WikiText-2".into()],
        task: Some("gsm8k_cot".into()),
        data: Some("GSM8K, test".into()),
        documents: Some(1319),
        metric: Some("strict-match".into()),
        device: "NVIDIA H100".into(),
        cuts,
        layers: pictures,
    }
}

fn cut(
    criterion: &str,
    harm: usize,
    share: f64,
    pictures: &[LayerPicture],
    unpruned: &Cut,
    noise: &mut Noise,
) -> Cut {
    let wanda = criterion.ends_with("Wanda");
    let kept: Vec<Vec<usize>> =
        pictures.iter().map(|it| survivors(it, harm, share, noise)).collect();
    let experts_kept: u64 = kept.iter().map(|kept| kept.len() as u64).sum();
    let per_expert = 3 * 1024 * 512;
    let of_experts = unpruned.parameters - per_expert * (unpruned.experts - experts_kept);
    let total_share = if wanda { share + 0.1 } else { 0.0 };
    let asked = (unpruned.parameters as f64 * (1.0 - total_share)) as u64;
    let parameters = if wanda { of_experts.min(asked) } else { of_experts };
    let lost = share * share * (0.35 + 0.3 * harm as f64) + 0.02 * noise.next();
    let mean = ((0.6125 - lost) * 1319.0).round() / 1319.0;
    let removed = 1.0 - parameters as f64 / unpruned.parameters as f64;
    let depth = pictures.len() as f64;
    Cut {
        criterion: criterion.into(),
        expert_share: share,
        total_share,
        experts_kept,
        parameters,
        bytes: 2 * of_experts,
        accuracy: Some(Estimate { mean, stderr: Some((mean * (1.0 - mean) / 1318.0).sqrt()) }),
        perplexity: Some(6.318 * (4.0 * lost).exp()),
        divergence: None,
        texts: None,
        seconds: 30.0 + 2000.0 * noise.next(),
        layer_sparsity: (0..pictures.len())
            .map(|layer| {
                let tilt = if wanda { 0.3 * (layer as f64 / depth - 0.5) } else { 0.0 };
                removed * (1.0 + tilt) + if wanda { 0.01 * noise.next() } else { 0.0 }
            })
            .collect(),
        kept,
        ..unpruned.clone()
    }
}

/// By load, or by chance within the clusters.
fn survivors(picture: &LayerPicture, harm: usize, share: f64, noise: &mut Noise) -> Vec<usize> {
    let keep = picture.experts - (picture.experts as f64 * share).round() as usize;
    let mut order: Vec<(f64, usize)> = (picture.load.iter().enumerate())
        .map(|(expert, load)| match harm {
            0 => (-load * (0.6 + noise.next()), expert),
            1 => (-load, expert),
            _ => (noise.next(), expert),
        })
        .collect();
    order.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut kept: Vec<usize> = order.into_iter().take(keep).map(|(_, expert)| expert).collect();
    kept.sort_unstable();
    kept
}

fn picture(layer: usize, experts: usize, noise: &mut Noise) -> LayerPicture {
    let places: Vec<usize> = (0..experts)
        .map(|_| (noise.next() * noise.next() * experts as f64 * 0.45) as usize)
        .collect();
    let mut clusters = vec![Vec::new(); experts];
    for (expert, &place) in places.iter().enumerate() {
        clusters[place].push(expert);
    }
    clusters.retain(|cluster| !cluster.is_empty());
    clusters.sort();
    let mut distances = vec![0.0; experts * experts];
    for a in 0..experts {
        for b in 0..a {
            let near = if places[a] == places[b] { 0.25 } else { 0.62 };
            let between = 0.12 * ((places[a] * 7 + places[b] * 7) % 5) as f64 / 5.0;
            let distance = near + between + 0.12 * noise.next();
            distances[a * experts + b] = distance;
            distances[b * experts + a] = distance;
        }
    }
    let weights: Vec<f64> = (0..experts).map(|_| (2.2 * noise.next()).exp()).collect();
    let sum: f64 = weights.iter().sum();
    let load = weights.iter().map(|weight| weight / sum).collect();
    LayerPicture { layer, experts, distances, clusters, load }
}
