//! Tables as CSV or as one JSON object a line, with one strictness for both.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use crate::error::{Fault, InputError};

/// A column that a table may have.
#[derive(Clone, Copy)]
pub(crate) struct Column {
    pub(crate) name: &'static str,
    pub(crate) required: bool,
}

pub(crate) const fn required(name: &'static str) -> Column {
    Column { name, required: true }
}

pub(crate) const fn optional(name: &'static str) -> Column {
    Column { name, required: false }
}

/// How a table is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notation {
    Csv,
    JsonLines,
}

/// One row: its values by the position of their column in the list of known columns.
pub(crate) struct Row<'a> {
    pub(crate) line: u64,
    columns: &'a [Column],
    values: &'a [String],
}

impl Row<'_> {
    /// The value of column `index`; empty when the table or the row lacks it.
    pub(crate) fn text(&self, index: usize) -> &str {
        &self.values[index]
    }

    /// The value of column `index` through `read`, which sees an empty text where there is no value.
    pub(crate) fn read<T>(&self, index: usize, read: impl FnOnce(&str) -> Result<T, Fault>) -> Result<T, Fault> {
        read(self.text(index)).map_err(|fault| fault.column(self.columns[index].name))
    }

    /// Like [`Row::read`], none for an empty value.
    pub(crate) fn maybe<T>(&self, index: usize, read: impl FnOnce(&str) -> Result<T, Fault>) -> Result<Option<T>, Fault> {
        if self.text(index).is_empty() { Ok(None) } else { self.read(index, read).map(Some) }
    }
}

/// Reads the rows of `text` and gives each to `each`.
pub(crate) fn rows(
    file: &str,
    text: &str,
    notation: Notation,
    columns: &[Column],
    rows_max: usize,
    mut each: impl FnMut(&Row<'_>) -> Result<(), Fault>,
) -> Result<(), InputError> {
    let mut count = 0;
    let mut each = |line: u64, values: &[String]| {
        count += 1;
        if count > rows_max {
            return Err(Fault::new(format!("is row {count}"), format!("the limit is {rows_max} rows; split the file")).at(file, line));
        }
        each(&Row { line, columns, values }).map_err(|fault| fault.at(file, line))
    };
    match notation {
        Notation::Csv => csv_rows(file, text, columns, &mut each),
        Notation::JsonLines => json_rows(file, text, columns, &mut each),
    }
}

type Each<'a> = dyn FnMut(u64, &[String]) -> Result<(), InputError> + 'a;

fn csv_rows(file: &str, text: &str, columns: &[Column], each: &mut Each<'_>) -> Result<(), InputError> {
    let mut reader = csv::ReaderBuilder::new().flexible(true).trim(csv::Trim::All).from_reader(text.as_bytes());
    let broken = |error: &csv::Error, line: u64| Fault::new(format!("is no CSV: {error}"), "").at(file, line);
    let mut cursor = Cursor { bytes: text.as_bytes(), offset: 0, line: 1 };
    let line = cursor.record_at(0);
    let header = reader.headers().map_err(|error| broken(&error, line))?.clone();
    let places = header_places(&header, columns).map_err(|fault| fault.at(file, line))?;
    let mut values = vec![String::new(); columns.len()];
    let mut record = csv::StringRecord::new();
    loop {
        let line = cursor.record_at(reader.position().byte());
        if !reader.read_record(&mut record).map_err(|error| broken(&error, line))? {
            return Ok(());
        }
        if record.len() != header.len() {
            let problem = format!("has {} values for {} columns", record.len(), header.len());
            return Err(Fault::new(problem, "give each column a value, empty where there is none").at(file, line));
        }
        for (value, place) in record.iter().zip(&places) {
            values[*place].clear();
            values[*place].push_str(value);
        }
        each(line, &values)?;
    }
}

/// Finds the line of a record: the reader's own count is that of the end of the record before, blank lines not passed yet.
struct Cursor<'a> {
    bytes: &'a [u8],
    offset: usize,
    line: u64,
}

impl Cursor<'_> {
    fn record_at(&mut self, byte: u64) -> u64 {
        let ends_before = |offset: usize| (offset as u64) < byte;
        while let Some(&passed) = self.bytes.get(self.offset)
            && (ends_before(self.offset) || matches!(passed, b'\n' | b'\r'))
        {
            self.line += u64::from(passed == b'\n');
            self.offset += 1;
        }
        self.line
    }
}

/// The position among the known `columns` of each column of the header.
fn header_places(header: &csv::StringRecord, columns: &[Column]) -> Result<Vec<usize>, Fault> {
    let mut places = Vec::with_capacity(columns.len());
    for name in header {
        let place = place_of(name, columns)?;
        if places.contains(&place) {
            return Err(Fault::new("is there twice", "keep one of the columns").column(name));
        }
        places.push(place);
    }
    let missing = columns.iter().enumerate().find(|(place, column)| column.required && !places.contains(place));
    match missing {
        Some((_, column)) => {
            Err(Fault::new("is missing from the header", format!("needed are {}", listed(columns, true))).column(column.name))
        }
        None => Ok(places),
    }
}

fn place_of(name: &str, columns: &[Column]) -> Result<usize, Fault> {
    let unknown = || Fault::new("is no column of this format", format!("known are {}", listed(columns, false))).value(name);
    columns.iter().position(|column| column.name == name).ok_or_else(unknown)
}

fn listed(columns: &[Column], only_required: bool) -> String {
    let names: Vec<&str> = columns.iter().filter(|column| column.required || !only_required).map(|column| column.name).collect();
    names.join(", ")
}

fn json_rows(file: &str, text: &str, columns: &[Column], each: &mut Each<'_>) -> Result<(), InputError> {
    let mut values = vec![String::new(); columns.len()];
    for (row, line_text) in text.lines().enumerate() {
        let line = row as u64 + 1;
        if line_text.trim().is_empty() {
            continue;
        }
        json_row(line_text, columns, &mut values).map_err(|fault| fault.at(file, line))?;
        each(line, &values)?;
    }
    Ok(())
}

fn json_row(text: &str, columns: &[Column], values: &mut [String]) -> Result<(), Fault> {
    let no_object = |error: &serde_json::Error| {
        let detail = error.to_string();
        let detail = detail.rsplit_once(" at line ").map_or(detail.as_str(), |(detail, _)| detail);
        let remedy = "write one JSON object a line, such as {\"name\":\"a\",\"cpu\":\"2\",...}";
        Fault::new(format!("character {}: is no JSON object: {detail}", error.column()), remedy).value(text)
    };
    let object: Object = serde_json::from_str(text).map_err(|error| no_object(&error))?;
    values.iter_mut().for_each(String::clear);
    let mut seen = vec![false; columns.len()];
    for (name, value) in object.0 {
        let place = place_of(&name, columns)?;
        if std::mem::replace(&mut seen[place], true) {
            return Err(Fault::new("is there twice", "keep one of the keys").column(&name));
        }
        values[place] = scalar(&value).map_err(|fault| fault.column(&name))?;
    }
    match columns.iter().zip(&seen).find(|(column, seen)| column.required && !**seen) {
        Some((column, _)) => Err(Fault::new("is missing", format!("needed are {}", listed(columns, true))).column(column.name)),
        None => Ok(()),
    }
}

/// A JSON value as the text that a CSV field would have: a list of names is joined by `|`.
fn scalar(value: &Value) -> Result<String, Fault> {
    match value {
        Value::Null => Ok(String::new()),
        Value::String(text) => Ok(text.trim().to_owned()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Array(list) if list.iter().all(Value::is_string) => Ok(list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("|")),
        Value::Bool(value) => Ok(value.to_string()),
        Value::Array(_) | Value::Object(_) => {
            Err(Fault::new("is no text, number or list of texts", "write a plain value").value(&value.to_string()))
        }
    }
}

/// A JSON object with its keys in order and repeats kept, so that a key given twice can be refused.
struct Object(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Object(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}
