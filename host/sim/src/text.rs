//! Files as text: bounded, UTF-8, without NUL.

use std::{fs::File, io::Read, path::Path};

use crate::error::{Fault, InputError, SimError};

/// The largest table or arrivals file, bytes. A million pods of 64 bytes fit; whatever is larger was named by mistake.
pub const TABLE_MAX: usize = 64 << 20;
/// The largest cluster description, bytes: 10,000 nodes written out one by one are 1 MiB, and a name with a count takes one entry. TOML
/// is read into a tree of some fifty times its size.
pub const CLUSTER_MAX: usize = 4 << 20;

/// The bytes of the file at `path`, at most one more than `limit`, so that [`checked`] sees that it is too large.
pub(crate) fn read(path: &Path, limit: usize) -> Result<Vec<u8>, SimError> {
    let fail = |source| SimError::Io { path: path.into(), source };
    let mut bytes = Vec::new();
    File::open(path).map_err(fail)?.take(limit as u64 + 1).read_to_end(&mut bytes).map_err(fail)?;
    Ok(bytes)
}

/// `bytes` as text without a byte order mark, or what is wrong with it.
pub(crate) fn checked<'a>(file: &str, bytes: &'a [u8], limit: usize) -> Result<&'a str, InputError> {
    if bytes.len() > limit {
        let problem = format!("is larger than {} MiB, the limit for this kind of file", limit >> 20);
        return Err(Fault::new(problem, "split it, or check that it is the file meant").at(file, None));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = line_at(bytes, error.valid_up_to());
        Fault::new("is not UTF-8 text here", "save the file as UTF-8").at(file, line)
    })?;
    if let Some(nul) = bytes.iter().position(|&byte| byte == 0) {
        return Err(Fault::new("has a NUL byte here", "give a text file").at(file, line_at(bytes, nul)));
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim().is_empty() {
        return Err(Fault::new("is empty", "see FORMATS.md for what it should hold").at(file, None));
    }
    Ok(text)
}

/// The line, from 1, of byte `offset`.
fn line_at(bytes: &[u8], offset: usize) -> u64 {
    bytes[..offset].split(|&byte| byte == b'\n').count() as u64
}

/// Where the lines of a text end, to find the line of many places.
pub(crate) struct Lines(Vec<usize>);

impl Lines {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self(bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(end, _)| end).collect())
    }

    /// The line, from 1, of byte `offset`.
    pub(crate) fn at(&self, offset: usize) -> u64 {
        1 + self.0.partition_point(|&end| end < offset) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_no_text_is_refused_with_its_line() {
        let message = |bytes: &[u8]| checked("f", bytes, 16).unwrap_err().to_string();
        assert_eq!(message(b"a\nb\xff"), "f:2: is not UTF-8 text here; save the file as UTF-8");
        assert_eq!(message(b"a\n\nb\0"), "f:3: has a NUL byte here; give a text file");
        assert_eq!(message(b" \n"), "f: is empty; see FORMATS.md for what it should hold");
        assert!(message(&[b'a'; 17]).contains("larger than 0 MiB"));
        assert_eq!(checked("f", b"\xef\xbb\xbfa", 16), Ok("a"));
    }
}
