//! Running a policy without WebAssembly: the same source behind an object-safe trait.

use crate::partitioner::{LayoutQuestion, MoveQuestion, Moves, Partitioner, Plan, Question};
use crate::policy::{Issue, Policy, Refusal, configured};

/// What a policy says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    /// Lower-case name.
    pub name: &'static str,
    /// Semantic version.
    pub version: &'static str,
    /// JSON Schema of the settings; empty for none.
    pub settings_schema: &'static str,
    /// The columns that the answers depend on.
    pub reads: &'static [&'static str],
}

impl Info {
    /// What `P` says of itself.
    #[must_use]
    pub const fn of<P: Policy>() -> Self {
        Self { name: P::NAME, version: P::VERSION, settings_schema: P::SETTINGS_SCHEMA, reads: P::READS }
    }
}

/// A partitioner as a host holds it: the functions of the component, without the component.
pub trait Native {
    /// Says who the policy is.
    fn describe(&self) -> Info;

    /// Checks settings (a JSON document) without applying them.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    fn validate_settings(&self, settings: &str) -> Result<(), Vec<Issue>>;

    /// Applies settings. A policy that was never configured has its default settings.
    ///
    /// # Errors
    /// Everything that is wrong with them; the earlier settings then stay.
    fn configure(&mut self, settings: &str) -> Result<(), Vec<Issue>>;

    /// Writes one score a candidate into `scores`, which is cleared first.
    ///
    /// # Errors
    /// A [`Refusal`] when there is no answer; `scores` is then meaningless.
    fn score(&mut self, question: &Question<'_>, scores: &mut Vec<i32>) -> Result<(), Refusal>;

    /// Cuts idle GPUs for the expected mix.
    ///
    /// # Errors
    /// A [`Refusal`] when there is no answer.
    fn propose_layouts(&mut self, question: &LayoutQuestion<'_>) -> Result<Plan, Refusal>;

    /// Names moves that make room for larger demands.
    ///
    /// # Errors
    /// A [`Refusal`] when there is no answer.
    fn choose_moves(&mut self, question: &MoveQuestion<'_>) -> Result<Moves, Refusal>;
}

/// Any [`Partitioner`] as a [`Native`].
#[derive(Clone, Debug)]
pub struct Adapter<P> {
    policy: Option<P>,
}

impl<P> Default for Adapter<P> {
    fn default() -> Self {
        Self { policy: None }
    }
}

impl<P: Partitioner + Send + 'static> Adapter<P> {
    /// The policy behind the trait, not yet configured.
    #[must_use]
    pub fn boxed() -> Box<dyn Native + Send> {
        Box::new(Self::default())
    }
}

/// The policy in `slot`, made from its default settings if it was never configured.
pub(crate) fn ready<P: Policy>(slot: &mut Option<P>) -> Result<&P, Refusal> {
    if slot.is_none() {
        *slot = Some(configured("").map_err(|issues| {
            let issues: Vec<String> = issues.into_iter().map(|issue| format!("{}: {}", issue.path, issue.message)).collect();
            Refusal::Declined(format!("{} was not configured and its default settings are wrong: {}", P::NAME, issues.join("; ")))
        })?);
    }
    slot.as_ref().ok_or_else(|| Refusal::declined("not configured"))
}

impl<P: Partitioner> Native for Adapter<P> {
    fn describe(&self) -> Info {
        Info::of::<P>()
    }

    fn validate_settings(&self, settings: &str) -> Result<(), Vec<Issue>> {
        configured::<P>(settings).map(drop)
    }

    fn configure(&mut self, settings: &str) -> Result<(), Vec<Issue>> {
        self.policy = Some(configured(settings)?);
        Ok(())
    }

    fn score(&mut self, question: &Question<'_>, scores: &mut Vec<i32>) -> Result<(), Refusal> {
        scores.clear();
        scores.reserve(question.candidates.len());
        ready(&mut self.policy)?.score(question, scores)
    }

    fn propose_layouts(&mut self, question: &LayoutQuestion<'_>) -> Result<Plan, Refusal> {
        ready(&mut self.policy)?.propose_layouts(question)
    }

    fn choose_moves(&mut self, question: &MoveQuestion<'_>) -> Result<Moves, Refusal> {
        ready(&mut self.policy)?.choose_moves(question)
    }
}
