//! What a policy says of itself, checked before anyone relies on it.

use partita_core::model::node::MODELS_MAX;
use partita_core::policy::{Demands, Models, Reads, Shapes, View};
use semver::Version;
use serde::Serialize;

use crate::limits::{READS, TEXT_BYTES};
use crate::text::{clean, is_unsafe};

/// Characters of a name or a version.
const NAME_CHARS: usize = 64;

/// The columns of `wit/policy.wit`, by record, in the order of the package.
pub(crate) const COLUMNS: [(&str, &[&str]); 11] = [
    ("context", &["seed"]),
    ("models", &["gpus", "memory", "slots"]),
    ("shapes", &["model", "gpus", "cpu-capacity", "nodes"]),
    ("profiles", &["model", "size", "compute", "memory", "starts"]),
    ("nodes", &["cpu-free", "cpu-capacity", "memory-free", "memory-capacity", "gpu-pods", "like-pods", "gpu-start"]),
    ("gpus", &["model", "free", "used-slots", "warm-slots", "mig"]),
    ("demands", &["cpu", "memory", "count", "milli", "weight", "model-start", "models", "profile-start", "profiles"]),
    ("candidates", &["node", "gpu", "profile", "slot"]),
    ("movable", &["demand", "node", "gpu", "slot"]),
    ("places", &["kind", "milli", "tier", "use-start"]),
    ("uses", &["gpu", "profile", "slot"]),
];

/// What a policy says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Info {
    /// Lower-case name, words joined by `-`.
    pub name: String,
    /// Semantic version.
    pub version: String,
    /// JSON Schema of the settings; empty for a policy that takes none.
    pub settings_schema: String,
    /// Columns that the answers depend on.
    pub reads: Vec<String>,
}

impl Info {
    /// Checks everything that a policy may not say of itself.
    ///
    /// # Errors
    /// The first thing that is wrong, as a sentence.
    pub(crate) fn check(&self) -> Result<(), String> {
        let word = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        if self.name.len() > NAME_CHARS || !self.name.split('-').all(word) {
            let name = clean(&self.name, NAME_CHARS);
            return Err(format!(
                "its name is `{name}`; a name is lower-case words of letters and digits joined by `-`, at most {NAME_CHARS} long"
            ));
        }
        if self.version.len() > NAME_CHARS || Version::parse(&self.version).is_err() {
            return Err(format!("its version is `{}`; a version is semantic, such as `1.0.0`", clean(&self.version, NAME_CHARS)));
        }
        self.check_schema()?;
        if self.reads.len() > READS {
            return Err(format!("it names {} columns that it reads, and there are fewer than {READS}", self.reads.len()));
        }
        match self.reads.iter().find(|column| !is_column(column)) {
            None => Ok(()),
            Some(column) => Err(format!(
                "it reads `{}`, which is no column of the package; write `table.column` or `table.*`, such as `nodes.cpu-free`",
                clean(column, NAME_CHARS)
            )),
        }
    }

    fn check_schema(&self) -> Result<(), String> {
        let schema = &self.settings_schema;
        if schema.len() > TEXT_BYTES {
            return Err(format!("its settings schema has {} bytes and may have {TEXT_BYTES}", schema.len()));
        }
        if schema.is_empty() {
            return Ok(());
        }
        if let Some(character) = schema.chars().find(|character| is_unsafe(*character) && !matches!(character, '\n' | '\r' | '\t')) {
            return Err(format!("its settings schema holds the control character {}; escape it", character.escape_default()));
        }
        match serde_json::from_str::<serde_json::Value>(schema) {
            Ok(value) if value.is_object() => Ok(()),
            Ok(_) => Err("its settings schema is JSON and no object; a JSON Schema is an object, and no settings is the empty text".into()),
            Err(error) => Err(format!("its settings schema is not JSON: {error}")),
        }
    }

    /// What the core must know of the columns read. Without `demands.weight` a policy sees the asked demand alone, so
    /// that only naming it makes answers depend on the mix.
    #[must_use]
    pub fn reads(&self) -> Reads {
        let names = |wanted: &[&str]| self.reads.iter().any(|column| wanted.contains(&column.as_str()));
        let cluster_wide = |column: &String| column.starts_with("shapes.") || column == "models.gpus" || column == "models.*";
        Reads {
            seed: names(&["context.seed", "context.*"]),
            mix: names(&["demands.weight", "demands.*"]) || self.reads.iter().any(cluster_wide),
        }
    }
}

/// Whether `column` is `table.column` or `table.*` of the package.
fn is_column(column: &str) -> bool {
    let Some((record, field)) = column.split_once('.') else { return false };
    COLUMNS.iter().any(|(name, fields)| *name == record && (field == "*" || fields.contains(&field)))
}

/// In place of the counts of GPUs: a table that is read in part keeps its rows.
static ZEROES: [u32; MODELS_MAX] = [0; MODELS_MAX];

/// The offsets of the one demand that [`project`] leaves: of its models and of its profiles.
pub(crate) type Starts = [[u32; 2]; 2];

/// The question as a policy with `reads` may see it: without the seed unless it reads it; and with the asked demand alone, outside of any
/// mix, and without the shapes and the counts of GPUs, unless it reads the mix or what the cluster is made of. So what is cached cannot
/// depend on what it was not said to depend on, but for the tables of models and profiles, which only grow. No column is copied; `starts`
/// lends the memory for two new ones.
pub(crate) fn project<'a>(view: &View<'a>, demand: u32, reads: Reads, starts: &'a mut Starts) -> (View<'a>, u32) {
    let mut view = *view;
    if !reads.seed {
        view.seed = 0;
    }
    let row = demand as usize;
    if reads.mix || row >= view.demands.cpu.len() {
        return (view, demand);
    }
    view.models = Models { gpus: ZEROES.get(..view.models.gpus.len()).unwrap_or_default(), ..view.models };
    view.shapes = Shapes::default();
    view.demands = alone(&view.demands, row, starts);
    (view, 0)
}

/// The demand in `row` as the only row; no row if there is none. `starts` lends the memory for its offsets.
pub(crate) fn alone<'a>(demands: &Demands<'a>, row: usize, starts: &'a mut Starts) -> Demands<'a> {
    if row >= demands.cpu.len() {
        return Demands::default();
    }
    let one = row..=row;
    let [of_models, of_profiles] = starts;
    let models = span(demands.model_start, row, demands.models, of_models);
    let profiles = span(demands.profile_start, row, demands.profiles, of_profiles);
    Demands {
        cpu: &demands.cpu[one.clone()],
        memory: &demands.memory[one.clone()],
        count: &demands.count[one.clone()],
        milli: &demands.milli[one],
        weight: &[0],
        model_start: of_models,
        models,
        profile_start: of_profiles,
        profiles,
    }
}

/// The demands from row `first` on. `starts` lends the memory for their offsets.
pub(crate) fn behind<'a>(demands: &Demands<'a>, first: usize, starts: &'a mut [Vec<u32>; 2]) -> Demands<'a> {
    let rows = |column: &'a [u32]| column.get(first..).unwrap_or_default();
    let [of_models, of_profiles] = starts;
    let ragged = |offsets: &[u32], values: &'a [u32], own: &'a mut Vec<u32>| -> (&'a [u32], &'a [u32]) {
        let offsets = offsets.get(first..).unwrap_or_default();
        let base = offsets.first().copied().unwrap_or(0);
        own.extend(offsets.iter().map(|offset| offset - base));
        (own, values.get(base as usize..).unwrap_or_default())
    };
    let (model_start, models) = ragged(demands.model_start, demands.models, of_models);
    let (profile_start, profiles) = ragged(demands.profile_start, demands.profiles, of_profiles);
    Demands {
        cpu: rows(demands.cpu),
        memory: rows(demands.memory),
        count: rows(demands.count),
        milli: rows(demands.milli),
        weight: rows(demands.weight),
        model_start,
        models,
        profile_start,
        profiles,
    }
}

/// The part of `values` that `starts` gives to `row`; `alone` becomes the offsets of a table of that row alone.
fn span<'a>(starts: &[u32], row: usize, values: &'a [u32], alone: &mut [u32; 2]) -> &'a [u32] {
    let (start, end) = (starts[row], starts[row + 1]);
    *alone = [0, end - start];
    &values[start as usize..end as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(change: impl FnOnce(&mut Info)) -> Result<(), String> {
        let mut info = Info {
            name: "best-fit".into(),
            version: "1.0.0".into(),
            settings_schema: r#"{"type": "object"}"#.into(),
            reads: vec!["nodes.cpu-free".into(), "gpus.*".into()],
        };
        change(&mut info);
        info.check()
    }

    #[test]
    fn honest_descriptions_pass() {
        assert_eq!(info(|_| ()), Ok(()));
        assert_eq!(info(|info| info.settings_schema.clear()), Ok(()));
        assert_eq!(info(|info| info.reads.clear()), Ok(()));
    }

    #[test]
    fn each_wrong_part_is_named() {
        let error = |change: fn(&mut Info)| info(change).unwrap_err();
        assert!(error(|info| info.name = "Best Fit".into()).contains("`Best Fit`"));
        assert!(error(|info| info.name = "a--b".into()).contains("`a--b`"));
        assert!(error(|info| info.name = "a\x1b[2J".into()).contains(r"a\u{1b}[2J"));
        assert!(error(|info| info.name = "a".repeat(65)).contains("at most 64"));
        assert!(error(|info| info.version = "1".into()).contains("`1`"));
        assert!(error(|info| info.settings_schema = "[]".into()).contains("no object"));
        assert!(error(|info| info.settings_schema = "{".into()).contains("not JSON"));
        assert!(error(|info| info.settings_schema = "{\"\u{202e}\": 1}".into()).contains(r"\u{202e}"));
        assert!(error(|info| info.settings_schema = " ".repeat(TEXT_BYTES + 1)).contains("bytes"));
        assert!(error(|info| info.reads = vec!["nodes.name".into()]).contains("`nodes.name`"));
        assert!(error(|info| info.reads = vec!["nodes".into()]).contains("`nodes`"));
        assert!(error(|info| info.reads = vec!["gpus.*".into(); 129]).contains("129"));
    }

    #[test]
    fn the_columns_are_those_of_the_package() {
        let wit = include_str!("../../../wit/policy.wit");
        let start = wit.find("enum column {").unwrap();
        let cases = &wit[start..start + wit[start..].find("\n  }").unwrap()];
        let named: Vec<String> =
            cases.lines().skip(1).map(str::trim).filter(|line| !line.starts_with("///")).map(|line| line.replace(',', "")).collect();
        let flat = |(table, columns): (&str, &[&str])| columns.iter().map(|column| format!("{table}-{column}")).collect::<Vec<_>>();
        let ours: Vec<String> = COLUMNS.into_iter().flat_map(flat).collect();
        assert_eq!(named, ours);
    }

    #[test]
    fn seed_and_mix_are_recognised() {
        let reads = |columns: &[&str]| {
            let reads = columns.iter().map(|column| (*column).to_owned()).collect();
            Info { name: String::new(), version: String::new(), settings_schema: String::new(), reads }.reads()
        };
        assert_eq!(reads(&["nodes.*", "demands.cpu"]), Reads { seed: false, mix: false });
        assert_eq!(reads(&["context.seed", "demands.weight"]), Reads { seed: true, mix: true });
        assert_eq!(reads(&["context.*", "demands.*"]), Reads { seed: true, mix: true });
    }

    #[test]
    fn a_policy_sees_nothing_of_the_mix_and_the_seed_that_it_does_not_read() {
        let demands = Demands {
            cpu: &[1, 2, 3],
            memory: &[4, 5, 6],
            count: &[1, 2, 1],
            milli: &[500, 1000, 0],
            weight: &[7, 8, 9],
            model_start: &[0, 1, 3, 3],
            models: &[0, 1, 2],
            profile_start: &[0, 0, 0, 2],
            profiles: &[3, 4],
        };
        let models = Models { gpus: &[10, 20, 30], memory: &[1, 2, 3], slots: &[0, 7, 8] };
        let view = View { seed: 42, models, demands, ..View::default() };
        let mut starts = Starts::default();
        let (seen, row) = project(&view, 1, Reads { seed: false, mix: false }, &mut starts);
        assert_eq!((seen.seed, row), (0, 0));
        assert_eq!((seen.demands.cpu, seen.demands.count, seen.demands.weight), (&[2][..], &[2][..], &[0][..]));
        assert_eq!((seen.models.gpus, seen.models.memory), (&[0, 0, 0][..], &[1, 2, 3][..]));
        assert_eq!((seen.demands.models, seen.demands.model_start), (&[1, 2][..], &[0, 2][..]));
        assert_eq!((seen.demands.profiles, seen.demands.profile_start), (&[][..], &[0, 0][..]));
        let (seen, _) = project(&view, 2, Reads { seed: false, mix: false }, &mut starts);
        assert_eq!((seen.demands.profiles, seen.demands.profile_start), (&[3, 4][..], &[0, 2][..]));
        assert_eq!((seen.demands.models, seen.demands.model_start), (&[][..], &[0, 0][..]));
        let (seen, row) = project(&view, 1, Reads { seed: true, mix: true }, &mut starts);
        assert_eq!((seen.seed, row, seen.demands.weight), (42, 1, &[7, 8, 9][..]));
        assert_eq!((seen.models.gpus, seen.demands.profiles), (&[10, 20, 30][..], &[3, 4][..]));
    }
}
