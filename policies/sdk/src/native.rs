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

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::columns::Candidates;

    #[derive(Default, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Settings {
        score: i32,
    }

    struct Constant(i32);

    impl Policy for Constant {
        type Settings = Settings;
        const NAME: &str = "constant";
        const VERSION: &str = "2.0.0";
        const READS: &[&str] = &["nodes.*"];
        fn new(settings: Settings) -> Result<Self, Vec<Issue>> {
            if settings.score < 0 { Err(vec![Issue::new("/score", "at least 0")]) } else { Ok(Self(settings.score)) }
        }
    }

    impl Partitioner for Constant {
        fn score(&self, question: &Question<'_>, scores: &mut Vec<i32>) -> Result<(), Refusal> {
            scores.resize(question.candidates.len(), self.0);
            Ok(())
        }
    }

    fn scores(policy: &mut dyn Native) -> Vec<i32> {
        let candidates = Candidates { node: &[0, 1], ..Candidates::default() };
        let mut scores = vec![99];
        policy.score(&Question { view: crate::View::default(), demand: 0, candidates }, &mut scores).unwrap();
        scores
    }

    #[test]
    fn an_unconfigured_policy_has_its_default_settings() {
        assert_eq!(scores(&mut *Adapter::<Constant>::boxed()), [0, 0]);
    }

    #[test]
    fn settings_are_applied_whole_or_not_at_all() {
        let mut policy = Adapter::<Constant>::boxed();
        assert_eq!(policy.configure(r#"{"score": 3}"#), Ok(()));
        assert_eq!(policy.configure(r#"{"score": -1}"#), Err(vec![Issue::new("/score", "at least 0")]));
        assert_eq!(policy.validate_settings(r#"{"score": 5}"#), Ok(()));
        assert_eq!(scores(&mut *policy), [3, 3]);
    }

    #[test]
    fn what_is_not_overridden_is_declined() {
        let mut policy = Adapter::<Constant>::boxed();
        let question = LayoutQuestion { view: crate::View::default(), changes: 4 };
        assert_eq!(policy.propose_layouts(&question), Err(Refusal::Declined("constant proposes no layouts".into())));
        let question = MoveQuestion { view: question.view, pods: crate::Movable::default(), changes: 4 };
        assert_eq!(policy.choose_moves(&question), Err(Refusal::Declined("constant chooses no moves".into())));
        assert_eq!((policy.describe().name, policy.describe().version, policy.describe().reads), ("constant", "2.0.0", &["nodes.*"][..]));
    }
}
