//! `fragmentation`, the default policy: the place that costs the least of what the expected mix could use.
//!
//! Shares, whole GPUs and pods without GPU are scored by one of two rules, chosen by the setting `scoring`: usable capacity (the default,
//! module `usable`) or the published fragmentation gradient descent (module `fgd`). MIG partitions have a rule of their own (module
//! `mig`). All of them look at what the place leaves for the mix that the host expects; what they derive from the mix is kept until it
//! changes (module `memo`).

mod fgd;
mod memo;
mod mig;
mod moves;
mod tables;
mod taking;
mod usable;

use std::cell::RefCell;

use partita_sdk::{Issue, Kind, MoveQuestion, Moves, Partitioner, Policy, Question, Refusal};
use serde::Deserialize;

use memo::Memo;
use mig::Rooms;
use tables::Tables;
use usable::Value;

/// The rule for shares, whole GPUs and pods without GPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scoring {
    /// Usable capacity at the price of its model.
    #[default]
    Usable,
    /// Fragmentation gradient descent.
    Fgd,
}

/// The settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The rule for everything but MIG partitions.
    pub scoring: Scoring,
}

/// The policy.
#[derive(Debug)]
pub struct Fragmentation {
    scoring: Scoring,
    // Scratch memory: derived from the question, and derived anew when the question differs.
    value: RefCell<Memo<Value>>,
    tables: RefCell<Memo<Tables>>,
    rooms: RefCell<Memo<Rooms>>,
}

impl Policy for Fragmentation {
    type Settings = Settings;
    const NAME: &str = "fragmentation";
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    const SETTINGS_SCHEMA: &str = r#"{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "type": "object",
  "additionalProperties": false,
  "properties": {
    "scoring": {
      "description": "The rule for everything but MIG partitions: usable capacity at the price of its model, or fragmentation gradient descent (USENIX ATC'23).",
      "enum": ["usable", "fgd"],
      "default": "usable"
    }
  }
}"#;
    const READS: &[&str] = &[
        "models.gpus",
        "models.slots",
        "shapes.*",
        "profiles.*",
        "nodes.cpu-free",
        "nodes.cpu-capacity",
        "nodes.memory-free",
        "nodes.gpu-start",
        "gpus.model",
        "gpus.free",
        "gpus.used-slots",
        "gpus.mig",
        "demands.*",
        "places.kind",
        "places.milli",
        "uses.*",
    ];

    fn new(settings: Settings) -> Result<Self, Vec<Issue>> {
        Ok(Self { scoring: settings.scoring, value: RefCell::default(), tables: RefCell::default(), rooms: RefCell::default() })
    }
}

impl Partitioner for Fragmentation {
    fn score(&self, question: &Question<'_>, scores: &mut Vec<i32>) -> Result<(), Refusal> {
        let view = &question.view;
        if question.asked().is_mig() {
            let mut memo = self.rooms.borrow_mut();
            let rooms = memo.of(view, Rooms::of);
            if question.candidates.rows().all(|place| place.kind() == Kind::Mig) {
                question.candidates.by_node().for_each(|places| rooms.score_node(view, &places, scores));
            } else {
                question.candidates.by_node().for_each(|places| rooms.score_parts(view, &places, scores));
            }
        } else if self.scoring == Scoring::Fgd {
            let mut memo = self.tables.borrow_mut();
            let tables = memo.of(view, Tables::of);
            question.candidates.by_node().for_each(|places| fgd::score_node(tables, question, &places, scores));
        } else {
            let mut memo = self.value.borrow_mut();
            memo.of(view, Value::of).score(question, scores);
        }
        Ok(())
    }

    fn choose_moves(&self, question: &MoveQuestion<'_>) -> Result<Moves, Refusal> {
        let mut memo = self.rooms.borrow_mut();
        Ok(moves::choose(memo.of(&question.view, Rooms::of), question))
    }
}

partita_sdk::export_partitioner!(Fragmentation);
