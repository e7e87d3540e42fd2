//! Crowds: the pods that a selector of somebody's constraints matches. Each selector is looked up once, each pod carries the crowds that it
//! belongs to, and who asks about neighbours asks for a number.

use std::collections::BTreeMap;

use super::requirement::Test;
use crate::model::constraints::{PodSelector, Requirement};

/// A crowd; numbers only grow, and a selector keeps its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct CrowdId(u32);

impl CrowdId {
    pub(super) fn index(self) -> usize {
        self.0 as usize
    }
}

/// Conditions on labels, all of which must hold.
type Labels = Vec<(String, Test<String>)>;

#[derive(Clone, Debug)]
enum Who {
    /// Those that a selector matches.
    Selected(Selected),
    /// Those who belong to all of these.
    All(Vec<CrowdId>),
}

#[derive(Clone, Debug)]
struct Selected {
    /// None matches nobody.
    labels: Option<Labels>,
    /// Sorted.
    namespaces: Vec<String>,
    /// Namespaces with such labels, too. None adds none.
    namespace_labels: Option<Labels>,
}

#[derive(Clone, Debug)]
struct Crowd {
    who: Who,
    /// Pods whose constraints name it. Only then it is looked for.
    users: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Selector(PodSelector),
    All(Vec<CrowdId>),
}

/// All crowds, and the namespaces that some of them are told by.
#[derive(Clone, Debug, Default)]
pub(crate) struct Crowds {
    known: Vec<Crowd>,
    ids: BTreeMap<Key, CrowdId>,
    /// Crowds in use by the namespaces that they name.
    named: BTreeMap<String, Vec<CrowdId>>,
    /// Crowds in use that may have pods of any namespace.
    anywhere: Vec<CrowdId>,
    /// Labels of the namespaces told of.
    namespaces: BTreeMap<String, BTreeMap<String, String>>,
}

impl Crowds {
    /// The crowd of a selector.
    pub(super) fn of(&mut self, selector: &PodSelector) -> CrowdId {
        self.intern(Key::Selector(selector.clone()), || {
            let mut namespaces = selector.namespaces.clone();
            namespaces.sort_unstable();
            namespaces.dedup();
            Who::Selected(Selected {
                labels: selector.labels.as_deref().and_then(labels),
                namespaces,
                namespace_labels: selector.namespace_labels.as_deref().and_then(labels),
            })
        })
    }

    /// The pods that belong to all of some crowds.
    pub(super) fn all(&mut self, mut members: Vec<CrowdId>) -> CrowdId {
        members.sort_unstable();
        members.dedup();
        if let [one] = members.as_slice() { *one } else { self.intern(Key::All(members.clone()), || Who::All(members)) }
    }

    fn intern(&mut self, key: Key, who: impl FnOnce() -> Who) -> CrowdId {
        if let Some(&id) = self.ids.get(&key) {
            return id;
        }
        let id = CrowdId(self.known.len() as u32);
        self.known.push(Crowd { who: who(), users: 0 });
        self.ids.insert(key, id);
        id
    }

    /// One pod more names the crowd. True if it is the first: then all pods have to be looked at.
    pub(super) fn take_up(&mut self, id: CrowdId) -> bool {
        self.known[id.index()].users += 1;
        let first = self.known[id.index()].users == 1;
        if first {
            self.list(id, Vec::push);
        }
        first
    }

    /// One pod fewer names it. After the last nobody is looked for any more.
    pub(super) fn let_go(&mut self, id: CrowdId) {
        self.known[id.index()].users -= 1;
        if self.known[id.index()].users == 0 {
            self.list(id, |list, id| list.retain(|&other| other != id));
        }
    }

    /// Enters a crowd into the lists by which it is found, or takes it out.
    fn list(&mut self, id: CrowdId, change: impl Fn(&mut Vec<CrowdId>, CrowdId)) {
        let Some(namespaces) = self.namespaces_of(id) else { return change(&mut self.anywhere, id) };
        for namespace in namespaces {
            let list = self.named.entry(namespace.clone()).or_default();
            change(list, id);
            if list.is_empty() {
                self.named.remove(&namespace);
            }
        }
    }

    /// The namespaces where a crowd has all its pods; none if those depend on labels of namespaces.
    fn namespaces_of(&self, id: CrowdId) -> Option<Vec<String>> {
        match &self.known[id.index()].who {
            Who::Selected(selected) => selected.namespace_labels.is_none().then(|| selected.namespaces.clone()),
            Who::All(members) => {
                let each = members.iter().map(|&member| self.namespaces_of(member)).collect::<Option<Vec<_>>>()?;
                each.into_iter().next()
            }
        }
    }

    /// The crowds in use that a pod belongs to, sorted.
    pub(super) fn matching(&self, namespace: &str, labels: &BTreeMap<String, String>) -> Vec<CrowdId> {
        let named = self.named.get(namespace).map_or(&[][..], Vec::as_slice);
        let mut found: Vec<CrowdId> =
            named.iter().chain(&self.anywhere).copied().filter(|&id| self.matches(id, namespace, labels)).collect();
        found.sort_unstable();
        found
    }

    /// Whether a pod belongs to a crowd.
    pub(super) fn matches(&self, id: CrowdId, namespace: &str, labels: &BTreeMap<String, String>) -> bool {
        match &self.known[id.index()].who {
            Who::All(members) => members.iter().all(|&member| self.matches(member, namespace, labels)),
            Who::Selected(selected) => {
                self.reaches(selected, namespace) && selected.labels.as_ref().is_some_and(|tests| hold(tests, labels))
            }
        }
    }

    /// Whether a selector looks at pods of a namespace. An empty list of conditions on the namespace's labels means every namespace; any
    /// other only those told of.
    fn reaches(&self, selected: &Selected, namespace: &str) -> bool {
        selected.namespaces.binary_search_by(|one| one.as_str().cmp(namespace)).is_ok()
            || selected
                .namespace_labels
                .as_ref()
                .is_some_and(|tests| tests.is_empty() || self.namespaces.get(namespace).is_some_and(|labels| hold(tests, labels)))
    }

    /// The labels of a namespace; none if it is gone. True if that may change who belongs to a crowd.
    pub(super) fn set_namespace(&mut self, name: &str, labels: Option<BTreeMap<String, String>>) -> bool {
        let changed = self.namespaces.get(name) != labels.as_ref();
        match labels {
            Some(labels) => drop(self.namespaces.insert(name.to_owned(), labels)),
            None => drop(self.namespaces.remove(name)),
        }
        changed && !self.anywhere.is_empty()
    }
}

/// None if one of the conditions is one that nothing meets.
fn labels(requirements: &[Requirement]) -> Option<Labels> {
    requirements.iter().map(|one| Some((one.key.clone(), Test::of(one, str::to_owned)?))).collect()
}

fn hold(tests: &Labels, labels: &BTreeMap<String, String>) -> bool {
    tests.iter().all(|(key, test)| test.holds(labels.get(key).map(String::as_str), |value| value.parse().ok()))
}
