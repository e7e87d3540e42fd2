//! What people and programs see: tables, JSON, errors, colours.

use std::{
    env,
    io::{self, IsTerminal, Write},
    sync::atomic::{AtomicBool, Ordering},
};

use anyhow::Result;
use comfy_table::{Attribute, Cell, CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;

static COLORS: AtomicBool = AtomicBool::new(false);

/// Whether the terminal behind standard output wants colours (<https://no-color.org>).
pub(crate) fn terminal_wants_color() -> bool {
    io::stdout().is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Switches colours on or off for everything that follows.
pub(crate) fn colors(on: bool) {
    COLORS.store(on, Ordering::Relaxed);
}

/// Text in bold, where there are colours.
pub(crate) fn bold(text: &str) -> String {
    if COLORS.load(Ordering::Relaxed) { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() }
}

/// A table without frame, as kubectl prints them.
pub(crate) struct Rows {
    table: Table,
    right: Vec<bool>,
}

impl Rows {
    /// An empty table; a title that begins with `>` makes its column flush right.
    pub(crate) fn new(titles: &[&str]) -> Self {
        let mut table = Table::new();
        // Rows wrap to the width of a terminal; elsewhere a row stays a line, for grep and awk.
        let arrangement = if io::stdout().is_terminal() { ContentArrangement::Dynamic } else { ContentArrangement::Disabled };
        table.load_style(presets::NOTHING).set_content_arrangement(arrangement);
        if COLORS.load(Ordering::Relaxed) {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        let right: Vec<bool> = titles.iter().map(|title| title.starts_with('>')).collect();
        let cell = |(title, &right): (&&str, &bool)| aligned(title.trim_start_matches('>'), right).add_attribute(Attribute::Bold);
        table.set_header(titles.iter().zip(&right).map(cell));
        Self { table, right }
    }

    /// Adds a row.
    pub(crate) fn push(&mut self, cells: impl IntoIterator<Item = String>) {
        let row: Vec<Cell> = cells.into_iter().zip(&self.right).map(|(text, &right)| aligned(&text, right)).collect();
        self.table.add_row(row);
    }

    /// Prints it.
    pub(crate) fn print(&self) -> Result<()> {
        line(&self.table.trim_fmt())
    }
}

fn aligned(text: &str, right: bool) -> Cell {
    Cell::new(text).set_alignment(if right { CellAlignment::Right } else { CellAlignment::Left })
}

/// Prints a line.
pub(crate) fn line(text: &str) -> Result<()> {
    writeln!(io::stdout().lock(), "{text}")?;
    Ok(())
}

/// Prints a value as JSON.
pub(crate) fn json(value: &impl Serialize) -> Result<()> {
    line(&serde_json::to_string_pretty(value)?)
}

/// Prints a value as JSON on one line.
pub(crate) fn json_line(value: &impl Serialize) -> Result<()> {
    line(&serde_json::to_string(value)?)
}

/// Prints an error and its causes in one line to standard error.
pub(crate) fn error(error: &anyhow::Error) {
    // Nothing can be done if even that fails.
    drop(writeln!(io::stderr().lock(), "error: {error:#}"));
}
