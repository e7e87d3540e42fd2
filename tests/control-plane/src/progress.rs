//! What a build says while it runs: a bar on a terminal, else a line for each program.

use std::{
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

/// Progress of a build, in programs.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    began: Instant,
}

impl Progress {
    pub(crate) fn new(programs: &[&str]) -> Self {
        let progress = Self { bar: io::stderr().is_terminal().then(|| ProgressBar::new(programs.len() as u64)), began: Instant::now() };
        if let Some(bar) = &progress.bar {
            let style = ProgressStyle::with_template("{spinner} {elapsed_precise} [{bar:24}] {pos}/{len} {prefix}: {wide_msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        let list = programs.join(", ");
        progress.say(&format!("building {list}: with nothing in Go's cache, all of them take about ten minutes on two cores"));
        progress
    }

    /// One line that stays.
    pub(crate) fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.println(line),
            // Nobody reads it, then: no reason to stop.
            None => drop(writeln!(io::stderr(), "{line}")),
        }
    }

    pub(crate) fn begin(&self, program: &str) {
        match &self.bar {
            Some(bar) => bar.set_prefix(program.to_owned()),
            None => self.say(&format!("building {program}")),
        }
    }

    /// The compiler's latest line: the name of a package.
    pub(crate) fn package(&self, line: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(line.to_owned());
        }
    }

    pub(crate) fn end(&self, program: &str) {
        if let Some(bar) = &self.bar {
            bar.inc(1);
        }
        self.say(&format!("built {program}, {} s after the start", self.began.elapsed().as_secs()));
    }

    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
