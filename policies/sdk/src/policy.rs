//! What both kinds of strategy share: who the policy is, and its settings.

use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Why a policy gives no answer. Every case leads to the fallback policy; only the count differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The policy has no opinion on this question. A normal answer.
    Declined(String),
    /// The question has a shape that the policy does not understand.
    Unsupported(String),
}

impl Refusal {
    /// Declines with `reason`, a sentence for the operator.
    #[must_use]
    pub fn declined(reason: impl Into<String>) -> Self {
        Self::Declined(reason.into())
    }
}

/// One thing wrong with the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// JSON pointer (RFC 6901) to the offending value; empty for the whole document.
    pub path: String,
    /// What is wrong and what would be right.
    pub message: String,
}

impl Issue {
    /// An issue with the value at `path`.
    #[must_use]
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into() }
    }
}

/// Settings of a policy that takes none: the empty text or an empty JSON object.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoSettings {}

/// Who a policy is, and how it is made from its settings.
pub trait Policy: Sized {
    /// The settings as a JSON document. Mark the struct `#[serde(default, deny_unknown_fields)]`, so that a misspelt name is an issue and
    /// a missing one takes its default.
    type Settings: DeserializeOwned + Default;
    /// Lower-case name, words joined by `-`.
    const NAME: &str;
    /// Semantic version of the policy: `env!("CARGO_PKG_VERSION")`.
    const VERSION: &str;
    /// JSON Schema of the settings; empty for a policy that takes none.
    const SETTINGS_SCHEMA: &str = "";
    /// The columns that the answers depend on, as `table.column` in the spelling of the WIT package (`nodes.cpu-free`) or `table.*`. A
    /// column read but not named gives stale answers; naming `context.seed` switches caching off.
    const READS: &[&str];

    /// Makes the policy.
    ///
    /// # Errors
    /// Everything that is wrong with the settings beyond their types, such as a number out of range.
    fn new(settings: Self::Settings) -> Result<Self, Vec<Issue>>;
}

/// Makes policy `P` from the text of its settings; the empty text stands for the defaults.
///
/// # Errors
/// An issue when the text is no JSON document of the right shape, or what [`Policy::new`] finds.
pub fn configured<P: Policy>(settings: &str) -> Result<P, Vec<Issue>> {
    let settings = if settings.trim().is_empty() { P::Settings::default() } else { parse(settings).map_err(|issue| vec![issue])? };
    P::new(settings)
}

fn parse<S: DeserializeOwned>(text: &str) -> Result<S, Issue> {
    let mut json = serde_json::Deserializer::from_str(text);
    let settings =
        serde_path_to_error::deserialize(&mut json).map_err(|error| Issue::new(pointer(error.path()), error.inner().to_string()))?;
    json.end().map_err(|error| Issue::new("", error.to_string()))?;
    Ok(settings)
}

/// The JSON pointer of `path`.
fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    let mut pointer = String::new();
    for segment in path {
        let key = match segment {
            Segment::Seq { index } => index.to_string(),
            Segment::Map { key } => key.replace('~', "~0").replace('/', "~1"),
            // A variant's name is the key of its value in serde's usual form.
            Segment::Enum { variant } => variant.clone(),
            Segment::Unknown => continue,
        };
        pointer.push('/');
        pointer.push_str(&key);
    }
    pointer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Settings {
        step: u32,
        nested: Nested,
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Nested {
        limits: Vec<u8>,
    }

    #[derive(Debug, PartialEq)]
    struct Stepped(Settings);

    impl Policy for Stepped {
        type Settings = Settings;
        const NAME: &str = "stepped";
        const VERSION: &str = "1.2.3";
        const READS: &[&str] = &[];
        fn new(settings: Settings) -> Result<Self, Vec<Issue>> {
            if settings.step > 1000 { Err(vec![Issue::new("/step", "at most 1000")]) } else { Ok(Self(settings)) }
        }
    }

    fn issues(text: &str) -> Vec<Issue> {
        configured::<Stepped>(text).unwrap_err()
    }

    #[test]
    fn an_empty_text_and_an_empty_object_are_the_defaults() {
        assert_eq!(configured::<Stepped>(" "), Ok(Stepped(Settings::default())));
        assert_eq!(configured::<Stepped>("{}"), Ok(Stepped(Settings::default())));
        assert_eq!(configured::<Stepped>(r#"{"step": 7}"#), Ok(Stepped(Settings { step: 7, ..Settings::default() })));
    }

    #[test]
    fn an_issue_points_at_the_value() {
        assert_eq!(issues(r#"{"nested": {"limits": [1, 300]}}"#)[0].path, "/nested/limits/1");
        assert_eq!(issues(r#"{"step": 1001}"#), [Issue::new("/step", "at most 1000")]);
        let unknown = issues(r#"{"stepp": 1}"#);
        assert!(unknown[0].message.contains("unknown field `stepp`, expected `step` or `nested`"), "{unknown:?}");
        assert_eq!(issues("{} {}")[0].path, "");
        assert_eq!(issues("nonsense").len(), 1);
    }
}
