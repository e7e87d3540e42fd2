//! Tables on standard output and JSON files beside them.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;

/// Renders a table without frame; every column but the first and a last one of prose (its title begins with `<`) is flush right.
#[must_use]
pub fn render(titles: &[&str], rows: &[Vec<String>]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    let prose = titles.iter().position(|title| title.starts_with('<'));
    let cells = |texts: &mut dyn Iterator<Item = String>| -> Vec<Cell> {
        let align = |row| if row == 0 || Some(row) == prose { CellAlignment::Left } else { CellAlignment::Right };
        texts.enumerate().map(|(row, text)| Cell::new(text).set_alignment(align(row))).collect()
    };
    table.set_header(cells(&mut titles.iter().map(|title| title.trim_start_matches('<').to_owned())));
    for row in rows {
        table.add_row(cells(&mut row.iter().cloned()));
    }
    table.trim_fmt()
}

/// Writes `value` as JSON to `path`, making its folder.
///
/// # Errors
/// If the file cannot be written.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let write = || -> Result<()> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        Ok(fs::write(path, serde_json::to_string_pretty(value)? + "\n")?)
    };
    write().with_context(|| format!("{} cannot be written", path.display()))
}
