//! The numbers as tables.

use super::{
    ceiling::Ceiling,
    outcome::{Measured, Outcome, Timed},
    pipeline_bench::PipelineRun,
    projection::Projection,
};
use moeprune::Error;
use moeprune_cli::{bytes, seconds, table};

pub(super) fn show(outcome: &Outcome) -> Result<(), Error> {
    let Outcome { machine, layer, .. } = outcome;
    line!("{} on {}; {}", outcome.command.join(" "), machine.device_name, machine.device)?;
    line!(
        "layer: {} experts of {} x {}, {}; {} tokens, {} block{} together; ratios: {}",
        layer.experts,
        layer.hidden,
        layer.expert_inner,
        bytes(layer.bytes),
        layer.tokens,
        layer.micro_batch,
        if layer.micro_batch == 1 { "" } else { "s" },
        layer.allocation
    )?;
    parts(outcome)?;
    ceilings(outcome)?;
    whole("From disk", &outcome.whole)?;
    match &outcome.from_memory {
        Measured::Measured(run) => whole("From host memory", run)?,
        Measured::Skipped(why) => line!("From host memory: skipped: {why}\n")?,
    }
    targets(outcome)?;
    peer(outcome)?;
    projection(&outcome.projection)
}

fn parts(outcome: &Outcome) -> Result<(), Error> {
    let rows: Vec<Vec<String>> = outcome
        .parts
        .iter()
        .map(|part| {
            let overlapped = match &part.overlapped {
                Some(timed) => rate(timed.rate, part.unit),
                None => "-".into(),
            };
            let Timed { work, seconds, rate: alone } = part.alone;
            vec![
                part.name.into(),
                amount(work, part.unit),
                format!("{seconds:.3}"),
                rate(alone, part.unit),
                overlapped,
            ]
        })
        .collect();
    line!("\n{}", table(&["step", "work", "s alone", "alone", "overlapped"], &rows))?;
    line!(
        "alone: each step waits for the one before. overlapped: what of it there is in \
         `pruning and writing` from disk, over that step's seconds. FLOP are of Linears; what \
         attention multiplies besides is not counted.\n"
    )
}

fn ceilings(outcome: &Outcome) -> Result<(), Error> {
    let all = &outcome.ceilings;
    let products = all.products.iter().map(|product| &product.ceiling);
    let links = [&all.to_device, &all.to_host].into_iter().flatten();
    let rows: Vec<Vec<String>> = std::iter::once(&all.copy)
        .chain(links)
        .chain(products)
        .chain([&all.disk_read, &all.disk_write])
        .map(|ceiling: &Ceiling| {
            vec![ceiling.name.clone(), rate(ceiling.rate, ceiling.unit), ceiling.how.clone()]
        })
        .collect();
    line!("{}", table(&["ceiling", "rate", "how"], &rows))
}

fn whole(title: &str, run: &PipelineRun) -> Result<(), Error> {
    let mut rows: Vec<Vec<String>> =
        run.steps.iter().map(|step| vec![step.name.clone(), seconds(step.seconds)]).collect();
    rows.push(vec!["all, durable".into(), seconds(run.seconds)]);
    line!(
        "{title} ({}): {} to {}, {} experts kept",
        run.from,
        bytes(run.bytes_before),
        bytes(run.bytes_after),
        run.experts_kept
    )?;
    line!("{}", table(&["pass", "time"], &rows))
}

fn targets(outcome: &Outcome) -> Result<(), Error> {
    let rows: Vec<Vec<String>> = outcome
        .targets
        .iter()
        .map(|target| {
            let aim = format!("{} {:.2}", if target.at_most { "≤" } else { "≥" }, target.target);
            let met = if target.met { "met" } else { "missed" };
            vec![target.name.clone(), format!("{:.2}", target.got), aim, met.into()]
        })
        .collect();
    line!("{}", table(&["target of a true layer on an H100", "got", "aim", ""], &rows))?;
    if !outcome.layer.is_true_size {
        line!("The layer is a reduced one: the targets are not of it.\n")?;
    }
    Ok(())
}

fn peer(outcome: &Outcome) -> Result<(), Error> {
    match &outcome.peer {
        Measured::Skipped(why) => line!("PyTorch: skipped: {why}"),
        Measured::Measured(peer) => {
            let ratios: Vec<String> =
                peer.pairs.iter().map(|[ours, torch]| format!("{:.1}", torch / ours)).collect();
            line!(
                "PyTorch: Wanda of {} x {} bf16 by the published operations takes {:.1} times as \
                 long (median; pair by pair {}); {}; {}",
                peer.rows,
                peer.cols,
                peer.ratio,
                ratios.join(" "),
                peer.torch,
                peer.masks
            )
        }
    }
}

fn projection(projection: &Projection) -> Result<(), Error> {
    let Projection { label, formula, layers, tokens, passes, terms, .. } = projection;
    line!("\nAll of Arctic, {layers} layers, {tokens} tokens, {passes} passes: {label}.")?;
    let rows: Vec<Vec<String>> = terms
        .iter()
        .map(|term| {
            vec![
                term.name.into(),
                amount(term.work, term.unit),
                rate(term.rate, term.unit),
                seconds(term.seconds),
            ]
        })
        .collect();
    line!("\n{}", table(&["term", "work", "rate", "time"], &rows))?;
    line!(
        "{formula}: from {} (all hidden behind the longest) to {} (none hidden)",
        seconds(projection.longest_seconds),
        seconds(projection.sum_seconds)
    )
}

fn amount(work: u64, unit: &str) -> String {
    if unit == "B" { bytes(work) } else { format!("{}{unit}", metric(work as f64)) }
}

fn rate(rate: f64, unit: &str) -> String {
    if unit == "B" {
        format!("{}/s", bytes(rate as u64))
    } else {
        format!("{}{unit}/s", metric(rate))
    }
}

fn metric(value: f64) -> String {
    let units = [(1e15, " P"), (1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")];
    match units.into_iter().find(|(size, _)| value >= *size) {
        Some((size, unit)) => format!("{:.2}{unit}", value / size),
        None => format!("{value:.0} "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_and_rates_have_units() {
        assert_eq!(amount(27_300_000_000, "B"), "27.30 GB");
        assert_eq!(amount(4_200_000_000_000, "FLOP"), "4.20 TFLOP");
        assert_eq!(rate(989e12, "FLOP"), "989.00 TFLOP/s");
        assert_eq!(rate(3.35e12, "B"), "3.35 TB/s");
        assert_eq!(amount(12, "FLOP"), "12 FLOP");
    }
}
