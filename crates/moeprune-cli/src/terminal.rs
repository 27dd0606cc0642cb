//! Progress on standard error: bars on a terminal, plain lines otherwise, or JSON.

use std::{
    error::Error,
    io::IsTerminal,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

use moeprune_core::plural;
use serde_json::json;

use crate::{
    log::{is_json, say, say_error, say_step},
    table::seconds,
};
use moeprune::Progress;

/// Plain lines come at most this often.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// JSON comes at most this often.
const JSON_EVERY: Duration = Duration::from_secs(1);

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
    /// Bars if standard error is a terminal, lines if not, JSON if the command line said so, nothing if `quiet`.
    #[must_use]
    pub fn new(quiet: bool) -> Self {
        Self { quiet, bars: !is_json() && std::io::stderr().is_terminal(), step: None }
    }

    /// Prints an error as `message` says it, and what caused it, also when quiet.
    pub fn error(&mut self, message: &str, error: &dyn Error) {
        self.step = None;
        let mut causes: Vec<String> = Vec::new();
        let mut cause = error.source();
        while let Some(inner) = cause {
            let line = inner.to_string();
            if !message.contains(&line) && !causes.iter().any(|cause| cause.contains(&line)) {
                causes.push(line);
            }
            cause = inner.source();
        }
        say_error(message, &causes);
    }
}

impl Step {
    /// Seconds since it began, units done in one, and the seconds that are left at that rate; `None` before anything
    /// is done.
    fn pace(&self) -> (f64, Option<(f64, f64)>) {
        let elapsed = self.began.elapsed().as_secs_f64();
        let rate = self.done as f64 / elapsed.max(1e-9);
        let left = self.total.saturating_sub(self.done) as f64 / rate;
        (elapsed, (self.done > 0).then_some((rate, left)))
    }

    /// What the step does, as a line of JSON.
    fn say_json(&self, kind: &str, what: &str) {
        let (elapsed, pace) = self.pace();
        let rounded = |number: f64| (number * 1e3).round() / 1e3;
        let mut fields = json!({
            "step": self.name, "done": self.done, "total": self.total, "unit": self.unit,
            "seconds": rounded(elapsed),
        });
        if let Some((rate, left)) = pace {
            fields["rate"] = json!(rounded(rate));
            fields["seconds_left"] = json!(rounded(left));
        }
        if !what.is_empty() {
            fields["what"] = what.into();
        }
        say_step(kind, fields);
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
        if bar.is_none() && !is_json() {
            say(&format!("{step} ({})", counted(total, unit)));
        }
        let step = Step {
            name: step.to_owned(),
            unit: unit.to_owned(),
            total,
            done: 0,
            began: now,
            last_line: now,
            bar,
        };
        if is_json() {
            step.say_json("begin", "");
        }
        self.step = Some(step);
    }

    fn advance(&mut self, done: u64, what: &str) {
        let Some(step) = &mut self.step else { return };
        step.done = done;
        if let Some(bar) = &step.bar {
            bar.set_position(done);
            bar.set_message(what.to_owned());
            return;
        }
        if is_json() {
            if step.last_line.elapsed() >= JSON_EVERY {
                step.last_line = Instant::now();
                step.say_json("update", what);
            }
            return;
        }
        if step.last_line.elapsed() >= LINE_EVERY
            && let (_, Some((rate, left))) = step.pace()
        {
            step.last_line = Instant::now();
            let Step { name, unit, total, .. } = step;
            say(&format!(
                "{name}: {what} {done}/{total} {unit}, {rate:.0} {unit}/s, {} left",
                seconds(left)
            ));
        }
    }

    fn end(&mut self) {
        let Some(mut step) = self.step.take() else { return };
        if is_json() {
            step.done = step.total;
            step.say_json("end", "");
            return;
        }
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
