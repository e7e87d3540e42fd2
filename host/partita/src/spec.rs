//! How a policy is named on the command line: `NAME` or `FILE.wasm`, with settings after a colon.

use std::{fmt, path::PathBuf, str::FromStr};

use serde_json::{Map, Value};

/// A policy with its settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PolicySpec {
    pub source: Source,
    /// A JSON object, or nothing for the defaults.
    pub settings: String,
    /// As the user wrote it, for tables.
    pub label: String,
}

/// Where a policy comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Bundled(String),
    File(PathBuf),
}

impl FromStr for PolicySpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, settings) = split(text);
        if name.is_empty() {
            return Err("a policy needs a name or a file".into());
        }
        // A name is a single lower-case word; whatever has a dot or a slash is a file.
        let is_file = name.contains(['/', '.', '\\']);
        let source = if is_file { Source::File(PathBuf::from(name)) } else { Source::Bundled(name.to_owned()) };
        if let Source::Bundled(name) = &source
            && partita_policy::bundled::by_name(name).is_none()
        {
            let known: Vec<&str> = partita_policy::bundled::all().iter().map(|policy| policy.name).collect();
            let hint = match name.split_once(':') {
                Some((_, settings)) => format!("settings are KEY=VALUE, and {settings:?} is not"),
                None => format!("a file needs a path such as ./{name}"),
            };
            return Err(format!("no bundled policy is called {name}; there are {}; {hint}", known.join(", ")));
        }
        Ok(Self { source, settings: settings.map(parse_settings).transpose()?.unwrap_or_default(), label: text.to_owned() })
    }
}

impl fmt::Display for PolicySpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.label)
    }
}

/// Splits at the colon before the first `=`; a colon in a file's path stays part of it.
fn split(text: &str) -> (&str, Option<&str>) {
    let upto = text.find('=').unwrap_or(text.len());
    match text[..upto].rfind(':') {
        Some(colon) if upto < text.len() => (&text[..colon], Some(&text[colon + 1..])),
        _ => (text, None),
    }
}

/// `a=1,b=text` → `{"a":1,"b":"text"}`: a value that is JSON stays what it is, everything else is a string.
fn parse_settings(text: &str) -> Result<String, String> {
    let mut object = Map::new();
    for pair in text.split(',') {
        let Some((key, value)) = pair.split_once('=') else {
            return Err(format!("the setting {pair:?} has no value; write KEY=VALUE, comma-separated"));
        };
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
        if object.insert(key.to_owned(), value).is_some() {
            return Err(format!("the setting {key} is given twice"));
        }
    }
    Ok(Value::Object(object).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<PolicySpec, String> {
        text.parse()
    }

    #[test]
    fn names_files_and_settings_are_told_apart() {
        let plain = parse("first-fit").unwrap();
        assert_eq!((plain.source, plain.settings.as_str()), (Source::Bundled("first-fit".into()), ""));
        let set = parse("fragmentation:scoring=fgd,step=320").unwrap();
        assert_eq!((set.source, set.settings.as_str()), (Source::Bundled("fragmentation".into()), r#"{"scoring":"fgd","step":320}"#));
        let file = parse("C:/odd:name/mine.wasm:a=true").unwrap();
        assert_eq!((file.source, file.settings.as_str()), (Source::File("C:/odd:name/mine.wasm".into()), r#"{"a":true}"#));
        assert_eq!(parse("./first-fit").unwrap().source, Source::File("./first-fit".into()));
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_a_remedy() {
        for (text, words) in [
            ("", "needs a name"),
            (":a=1", "needs a name"),
            ("frist-fit", "there are"),
            ("fragmentation:fgd", "KEY=VALUE"),
            ("first-fit:a=1,a=2", "given twice"),
            ("first-fit:a=1,b", "KEY=VALUE"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
