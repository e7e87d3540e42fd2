//! A report on a module, for `policy check` and for the status of an upload: how far it comes, and all that was learnt on the way.

use serde::Serialize;

use crate::check::Shape;
use crate::describe::Info;
use crate::host::{Host, Loading, Stage};
use crate::text::chain;

/// What became of one stage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It passed.
    Ok,
    /// It refused the module; why and what to do.
    Failed(String),
    /// An earlier stage failed.
    Skipped,
}

/// One stage of a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StageReport {
    /// The stage.
    pub stage: Stage,
    /// What became of it.
    pub outcome: Outcome,
}

/// What a host makes of a module.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Bytes of the file.
    pub bytes: usize,
    /// Every stage, in order.
    pub stages: Vec<StageReport>,
    /// What the static checks saw, if they passed.
    pub shape: Option<Shape>,
    /// Bytes of machine code, if it compiled.
    pub artifact_bytes: Option<usize>,
    /// What the policy says of itself, if it came so far.
    pub info: Option<Info>,
}

impl Report {
    /// Whether the host would load the module.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.stages.iter().all(|stage| stage.outcome == Outcome::Ok)
    }

    /// The stage that failed and its message.
    #[must_use]
    pub fn failure(&self) -> Option<(Stage, &str)> {
        self.stages.iter().find_map(|stage| match &stage.outcome {
            Outcome::Failed(message) => Some((stage.stage, message.as_str())),
            Outcome::Ok | Outcome::Skipped => None,
        })
    }
}

impl Host {
    /// Takes `component` through every stage of [`Host::load`] with `settings` and the host's limits, and reports instead of failing.
    #[must_use]
    pub fn inspect(&self, component: &[u8], settings: &str) -> Report {
        let mut loading = Loading::new(self, "module under inspection", component, settings, self.ceiling());
        let failure = loading.all().err().map(|reason| (loading.stage, chain(&reason)));
        let outcome = |stage: Stage| match &failure {
            Some((failed, message)) if *failed == stage => Outcome::Failed(message.clone()),
            Some((failed, _)) if (*failed as usize) < stage as usize => Outcome::Skipped,
            _ => Outcome::Ok,
        };
        let stages = Stage::ALL.into_iter().map(|stage| StageReport { stage, outcome: outcome(stage) }).collect();
        Report { bytes: component.len(), stages, shape: loading.shape, artifact_bytes: loading.artifact_bytes, info: loading.info }
    }
}
