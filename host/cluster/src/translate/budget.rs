//! Disruption budgets: which pods count in which, and how many of those may be stopped.

use std::collections::BTreeMap;

use partita_core::model::constraints::Requirement;

use super::{Unsupported, selector};
use crate::objects::{self, full_name};

/// Stands for the budgets of a pod that has several: the API server evicts no such pod. Announce it to the core once, with 0 allowed.
pub const SEVERAL_BUDGETS: &str = "several budgets";

/// What a budget allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// Its name, `namespace/name`.
    pub budget: String,
    /// How many of its pods may be stopped now: none while the number is about an older version of the budget, as for the API server.
    pub pods: u32,
    /// What of it is not understood.
    pub odd: Option<Unsupported>,
}

/// The disruption budgets of a cluster.
#[derive(Clone, Debug, Default)]
pub struct Budgets {
    /// By namespace and name: which pods.
    known: BTreeMap<String, BTreeMap<String, Option<Vec<Requirement>>>>,
}

impl Budgets {
    /// Takes in a budget. One whose selector is not understood covers every pod of its namespace, which errs on the side of its owner.
    pub fn insert(&mut self, budget: &objects::Budget) -> Allowed {
        let name = full_name(&budget.metadata);
        let whose = format!("disruption budget {name}");
        let unread = |error: &String| Unsupported::new(format!("{whose} cannot be read: {error}"), "write it anew");
        let selector = budget.spec.value.selector.as_ref();
        let pods = match &budget.spec.error {
            Some(error) => Err(unread(error)),
            None => selector.map(|of| selector::labels(of, &whose)).transpose(),
        };
        let (pods, odd) = match pods {
            Ok(pods) => (pods, None),
            Err(error) => (Some(Vec::new()), Some(error)),
        };
        let namespace = budget.metadata.namespace.clone().unwrap_or_default();
        self.known.entry(namespace).or_default().insert(name.clone(), pods);
        let status = &budget.status.value;
        let current = status.observed_generation >= budget.metadata.generation.unwrap_or(0);
        let allowed = if current { u32::try_from(status.disruptions_allowed.max(0)).unwrap_or(u32::MAX) } else { 0 };
        Allowed { budget: name, pods: allowed, odd }
    }

    /// Forgets a budget. Returns its name.
    pub fn remove(&mut self, namespace: &str, name: &str) -> String {
        let full = format!("{namespace}/{name}");
        if let Some(here) = self.known.get_mut(namespace) {
            here.remove(&full);
            if here.is_empty() {
                self.known.remove(namespace);
            }
        }
        full
    }

    /// The budgets in which a pod of these labels counts, sorted; with [`SEVERAL_BUDGETS`] if they are more than one.
    #[must_use]
    pub fn of(&self, namespace: &str, labels: &BTreeMap<String, String>) -> Vec<String> {
        let counts = |pods: &Option<Vec<Requirement>>| {
            pods.as_ref().is_some_and(|all| all.iter().all(|one| selector::meets(one, labels.get(&one.key).map(String::as_str))))
        };
        let here = self.known.get(namespace).into_iter().flatten();
        let mut names: Vec<String> = here.filter(|(_, pods)| counts(pods)).map(|(name, _)| name.clone()).collect();
        if names.len() > 1 {
            names.push(SEVERAL_BUDGETS.to_owned());
            names.sort_unstable();
        }
        names
    }
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value, reason = "json! makes values")]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn budget(name: &str, selector: Value, status: &Value) -> objects::Budget {
        let text = json!({"metadata": {"name": name, "namespace": "n", "generation": 2}, "spec": {"selector": selector}, "status": status});
        serde_json::from_value(text).unwrap()
    }

    #[test]
    fn pods_count_where_the_selector_says() {
        let mut budgets = Budgets::default();
        let status = json!({"disruptionsAllowed": 3, "observedGeneration": 2});
        assert_eq!(budgets.insert(&budget("all", json!({}), &status)), Allowed { budget: "n/all".into(), pods: 3, odd: None });
        budgets.insert(&budget("none", Value::Null, &status));
        let labels = |app: &str| [("app".to_owned(), app.to_owned())].into();
        assert_eq!(budgets.of("n", &labels("a")), ["n/all"]);
        assert!(budgets.of("m", &labels("a")).is_empty());
        budgets.insert(&budget("a", json!({"matchLabels": {"app": "a"}}), &status));
        assert_eq!(budgets.of("n", &labels("a")), ["n/a", "n/all", SEVERAL_BUDGETS]);
        assert_eq!(budgets.of("n", &labels("b")), ["n/all"]);
        assert_eq!(budgets.remove("n", "all"), "n/all");
        assert_eq!(budgets.of("n", &labels("a")), ["n/a"]);
    }

    #[test]
    fn a_number_about_an_older_budget_allows_nothing() {
        let allowed = |status: Value| Budgets::default().insert(&budget("b", json!({}), &status)).pods;
        assert_eq!(allowed(json!({"disruptionsAllowed": 3, "observedGeneration": 1})), 0);
        assert_eq!(allowed(json!({"disruptionsAllowed": -1, "observedGeneration": 2})), 0);
        assert_eq!(allowed(json!({})), 0);
    }

    #[test]
    fn a_selector_that_is_not_understood_protects_the_whole_namespace() {
        let mut budgets = Budgets::default();
        let odd = json!({"matchExpressions": [{"key": "k", "operator": "Near"}]});
        let odd = budgets.insert(&budget("odd", odd, &json!({}))).odd;
        assert!(odd.unwrap().to_string().contains("disruption budget n/odd"));
        assert_eq!(budgets.of("n", &BTreeMap::new()), ["n/odd"]);
    }
}
