//! Disruption budgets: which pods count in which, and how many of each may be stopped now.

use partita_core::{model::Terms, state::Event};

use super::{Scheduler, running::REFUSED};
use crate::{
    objects::Budget,
    translate::{Allowed, SEVERAL_BUDGETS},
};

impl Scheduler {
    pub(super) fn see_budget(&mut self, name: &str, object: Option<Budget>) {
        let Some((namespace, short)) = name.split_once('/') else { return };
        let same = if let Some(object) = object {
            let Allowed { pods, odd, .. } = self.budgets.insert(&object);
            if let Some(odd) = odd {
                tracing::warn!(budget = name, "{odd}");
            }
            self.allowed.insert(name.to_owned(), pods);
            let selector = object.spec.value.selector;
            self.selectors.insert(name.to_owned(), selector.clone()) == Some(selector)
        } else {
            self.budgets.remove(namespace, short);
            self.allowed.remove(name);
            self.selectors.remove(name);
            false
        };
        if self.complete {
            self.tell_budget(name);
            if !same {
                self.retell_terms(namespace);
            }
        }
    }

    /// Tells the core of all budgets.
    pub(super) fn tell_budgets(&mut self) {
        // The API server evicts nobody who counts in several.
        self.apply(Event::Budget(SEVERAL_BUDGETS.to_owned(), Some(0)));
        self.apply(Event::Budget(REFUSED.to_owned(), Some(0)));
        for name in self.allowed.keys().cloned().collect::<Vec<_>>() {
            self.tell_budget(&name);
        }
    }

    fn tell_budget(&mut self, name: &str) {
        self.apply(Event::Budget(name.to_owned(), self.allowed.get(name).copied()));
    }

    /// Who counts in a budget of this namespace changed.
    fn retell_terms(&mut self, namespace: &str) {
        // Names begin with their namespace, so those of one namespace lie together: `0` comes after `/`.
        let (from, to) = (format!("{namespace}/"), format!("{namespace}0"));
        let none = std::collections::BTreeMap::new();
        let mut changed = Vec::new();
        for (name, entry) in self.pods.range(from..to) {
            let (Some(id), Some(spec)) = (entry.id, &entry.spec) else { continue };
            let mut budgets = self.budgets.of(namespace, entry.object.metadata.labels.as_ref().unwrap_or(&none));
            if entry.refused_to_stop {
                budgets.push(REFUSED.to_owned());
                budgets.sort_unstable();
            }
            if spec.terms.budgets != budgets {
                changed.push((name.clone(), id, Terms { budgets, ..spec.terms.clone() }));
            }
        }
        for (name, id, terms) in changed {
            if let Some(spec) = self.pods.get_mut(&name).and_then(|entry| entry.spec.as_mut()) {
                spec.terms.clone_from(&terms);
            }
            self.apply(Event::PodTerms(id, terms));
        }
    }
}
