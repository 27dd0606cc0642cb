//! Progress on standard error: bars on a terminal, plain lines otherwise.

use std::{
    error::Error,
    io::IsTerminal,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

use moeprune_core::plural;

use crate::{print::say, table::seconds};
use moeprune::Progress;

/// Plain lines come at most this often.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Shows progress to the person at the terminal, or to a log.
#[derive(Debug)]
pub struct Terminal {
    quiet: bool,
    bars: bool,
    step: Option<Step>,
}

#[derive(Debug)]
struct Step {
    name: String,
    unit: String,
    total: u64,
    done: u64,
    began: Instant,
    last_line: Instant,
    bar: Option<ProgressBar>,
}

impl Terminal {
    /// Bars if standard error is a terminal, lines if not, nothing if `quiet`.
    #[must_use]
    pub fn new(quiet: bool) -> Self {
        Self { quiet, bars: std::io::stderr().is_terminal(), step: None }
    }

    /// Prints an error as `message` says it, and what caused it, also when quiet.
    pub fn error(&mut self, message: &str, error: &dyn Error) {
        self.step = None;
        let mut text = format!("error: {message}");
        let mut cause = error.source();
        while let Some(inner) = cause {
            let line = inner.to_string();
            if !text.contains(&line) {
                text += &format!("\n  because: {line}");
            }
            cause = inner.source();
        }
        say(&text);
    }
}

impl Progress for Terminal {
    fn begin(&mut self, step: &str, total: u64, unit: &str) {
        if self.quiet {
            return;
        }
        let bar = self.bars.then(|| {
            let bar = ProgressBar::new(total);
            let template = "{prefix:<22} {bar:28} {percent:>3} %  {msg}  {per_sec}  {eta} left";
            if let Ok(style) =
                ProgressStyle::with_template(&template.replace("{per_sec}", "{rate}"))
            {
                let unit = unit.to_owned();
                bar.set_style(style.with_key(
                    "rate",
                    move |state: &indicatif::ProgressState, w: &mut dyn std::fmt::Write| {
                        let _ = write!(w, "{:.0} {unit}/s", state.per_sec());
                    },
                ));
            }
            bar.set_prefix(step.to_owned());
            bar.enable_steady_tick(Duration::from_millis(250));
            bar
        });
        let now = Instant::now();
        if bar.is_none() {
            say(&format!("{step} ({})", counted(total, unit)));
        }
        self.step = Some(Step {
            name: step.to_owned(),
            unit: unit.to_owned(),
            total,
            done: 0,
            began: now,
            last_line: now,
            bar,
        });
    }

    fn advance(&mut self, done: u64, what: &str) {
        let Some(step) = &mut self.step else { return };
        step.done = done;
        if let Some(bar) = &step.bar {
            bar.set_position(done);
            bar.set_message(what.to_owned());
            return;
        }
        if step.last_line.elapsed() >= LINE_EVERY && done > 0 {
            step.last_line = Instant::now();
            let elapsed = step.began.elapsed().as_secs_f64();
            let rate = done as f64 / elapsed;
            let left = step.total.saturating_sub(done) as f64 / rate;
            let Step { name, unit, total, .. } = step;
            say(&format!(
                "{name}: {what} {done}/{total} {unit}, {rate:.0} {unit}/s, {} left",
                seconds(left)
            ));
        }
    }

    fn end(&mut self) {
        let Some(step) = self.step.take() else { return };
        let elapsed = step.began.elapsed().as_secs_f64();
        if let Some(bar) = &step.bar {
            bar.finish_and_clear();
        }
        let Step { name, unit, total, .. } = &step;
        say(&format!(
            "{name}: {} in {} ({:.0} {unit}/s)",
            counted(*total, unit),
            seconds(elapsed),
            *total as f64 / elapsed.max(1e-9)
        ));
    }

    fn should_stop(&self) -> bool {
        crate::interrupt::asked()
    }

    fn note(&mut self, line: &str) {
        if !self.quiet {
            say(line);
        }
    }
}

/// A number of what steps are counted in, which is named in the plural unless it is a unit.
fn counted(total: u64, unit: &str) -> String {
    match unit.strip_suffix('s') {
        Some(noun) => plural(total, noun),
        None => format!("{total} {unit}"),
    }
}
