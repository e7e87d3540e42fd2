//! Volumes that are there: which would do for a claim, and on which nodes there are enough of them.
//!
//! Claims are served one after the other, the smallest first, each by the smallest volume that will do: as kube-scheduler does it
//! (`FindMatchingVolume` in `k8s.io/component-helpers/storage/volume`), so that there are enough here exactly where there are enough
//! for it, though a cleverer choice might now and then get by with less. Of volumes of one size the first by name is taken.

use std::collections::BTreeMap;

use partita_core::model::constraints::{NodeTerm, Operator, Requirement};

use super::{Storage, Unsupported, matches_term, selector};
use crate::{
    objects::{Claim, PersistentVolume, full_name},
    quantity::Quantity,
};

/// Names a class where there is no field for it, as in the first Kubernetes that had classes.
const OLD_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

/// The class of a claim; empty if it has none.
pub(super) fn class_of(claim: &Claim) -> &str {
    let old = claim.metadata.annotations.as_ref().and_then(|annotations| annotations.get(OLD_CLASS));
    old.or(claim.spec.value.storage_class_name.as_ref()).map_or("", String::as_str)
}

/// The class of a volume; empty if it has none.
pub(super) fn class_of_volume(volume: &PersistentVolume) -> &str {
    let old = volume.metadata.annotations.as_ref().and_then(|annotations| annotations.get(OLD_CLASS));
    old.unwrap_or(&volume.spec.value.storage_class_name)
}

/// The terms of nodes from which a volume can be reached; none if that is from everywhere.
///
/// A volume looks at labels only: whatever its terms say of fields holds.
pub(super) fn affinity(volume: &PersistentVolume) -> Result<Option<Vec<NodeTerm>>, Unsupported> {
    let whose = format!("volume {}", volume.metadata.name.as_deref().unwrap_or_default());
    if let Some(error) = volume.error() {
        return Err(Unsupported::new(format!("{whose}: {error}"), "create it anew"));
    }
    let Some(required) = volume.spec.value.node_affinity.as_ref().and_then(|affinity| affinity.required.as_ref()) else { return Ok(None) };
    let term = |term| {
        let mut term = selector::node_term(term, &whose)?;
        // No node is without a name.
        term.fields.iter_mut().for_each(|field| (field.operator, field.values) = (Operator::NotIn, vec![String::new()]));
        Ok(term)
    };
    required.node_selector_terms.iter().map(term).collect::<Result<Vec<_>, _>>().map(Some)
}

/// Whether a volume can be reached from the node of this name and with these labels.
fn reaches(volume: &PersistentVolume, node: &str, labels: &BTreeMap<String, String>) -> bool {
    affinity(volume).is_ok_and(|terms| terms.is_none_or(|terms| terms.iter().any(|term| matches_term(term, node, labels))))
}

/// For each of `claims`, which are of one class, the volume that it gets on a node; none where there is none left for it.
pub(super) fn on_node<'s>(claims: &[&Claim], storage: &'s Storage, node: &str, labels: &BTreeMap<String, String>) -> Vec<Option<&'s str>> {
    let supply = Supply::of(claims, storage);
    let reached: Vec<bool> = supply.volumes.iter().map(|volume| reaches(volume, node, labels)).collect();
    let name = |row: usize| supply.volumes[row].metadata.name.as_deref();
    supply.assign(&reached).into_iter().map(|row| row.and_then(name)).collect()
}

/// From which nodes there is a volume for each of `claims`, which are of one class: terms of which one must hold. None if that is from
/// every node; no terms if there is no such node.
///
/// # Errors
/// If a volume that would do says what partita does not understand.
pub(super) fn places(claims: &[&Claim], storage: &Storage) -> Result<Option<Vec<NodeTerm>>, Unsupported> {
    let supply = Supply::of(claims, storage);
    let mut reached = vec![false; supply.volumes.len()];
    let mut by_affinity: BTreeMap<Vec<NodeTerm>, Vec<usize>> = BTreeMap::new();
    for (row, volume) in supply.volumes.iter().enumerate() {
        match affinity(volume)? {
            None => reached[row] = true,
            Some(terms) => by_affinity.entry(terms).or_default().push(row),
        }
    }
    if supply.is_enough(&reached) {
        return Ok(None);
    }
    if !supply.is_enough(&vec![true; reached.len()]) {
        return Ok(Some(Vec::new()));
    }
    let affinities: Vec<_> = by_affinity.into_iter().collect();
    let mut search = Search { supply, affinities: &affinities, reached, steps: STEPS_MAX, joined: 0, found: Vec::new() };
    search.widen(&(0..affinities.len()).collect::<Vec<_>>(), claims.len(), None);
    if search.found.is_empty() && search.steps == 0 {
        let what = format!("its claims of class {} could be served in too many ways to look at all of them", class_of(claims[0]));
        return Err(Unsupported::new(what, "give their volumes fewer kinds of node affinity, or claim fewer volumes in one pod"));
    }
    Ok(Some(merge(search.found)))
}

/// The same terms, sorted, those on one label in one.
fn merge(terms: Vec<NodeTerm>) -> Vec<NodeTerm> {
    let (mut rest, mut values) = (Vec::new(), BTreeMap::<String, Vec<String>>::new());
    for term in terms {
        match term.labels.as_slice() {
            [one] if term.fields.is_empty() && one.operator == Operator::In => {
                values.entry(one.key.clone()).or_default().extend(one.values.iter().cloned());
            }
            _ => rest.push(term),
        }
    }
    rest.extend(values.into_iter().map(|(key, mut values)| {
        values.sort_unstable();
        values.dedup();
        NodeTerm { labels: vec![Requirement { key, operator: Operator::In, values }], fields: Vec::new() }
    }));
    rest.sort_unstable();
    rest.dedup();
    rest
}

/// Volumes that would do for some claims of one class, wherever they are.
struct Supply<'s> {
    /// The smallest first.
    volumes: Vec<&'s PersistentVolume>,
    /// Claims by their row, the smallest first, with the rows of the volumes that would do. For one for which a volume is set aside, that is
    /// the only one.
    wanted: Vec<(usize, Vec<usize>)>,
}

impl<'s> Supply<'s> {
    fn of(claims: &[&Claim], storage: &'s Storage) -> Self {
        let of_use = |volume: &&PersistentVolume| claims.iter().any(|claim| serves(volume, claim, storage));
        let class = claims.first().map_or("", |claim| class_of(claim));
        let mut volumes: Vec<&PersistentVolume> = storage.volumes_of(class).filter(of_use).collect();
        volumes.sort_by_cached_key(|volume| capacity(volume));
        let wanted = |(row, claim): (usize, &&Claim)| {
            let mut rows: Vec<usize> = (0..volumes.len()).filter(|&row| serves(volumes[row], claim, storage)).collect();
            if let Some(aside) = rows.iter().copied().find(|&row| is_for(volumes[row], claim, storage)) {
                rows = vec![aside];
            }
            (row, rows)
        };
        let mut wanted: Vec<(usize, Vec<usize>)> = claims.iter().enumerate().map(wanted).collect();
        wanted.sort_by_cached_key(|(row, _)| asked(claims[*row]));
        Self { volumes, wanted }
    }

    /// The row of the volume of each claim, of those that are reached.
    fn assign(&self, reached: &[bool]) -> Vec<Option<usize>> {
        let (mut given, mut taken) = (vec![None; self.wanted.len()], Vec::new());
        for (claim, rows) in &self.wanted {
            given[*claim] = rows.iter().copied().find(|row| reached[*row] && !taken.contains(row));
            taken.extend(given[*claim]);
        }
        given
    }

    fn is_enough(&self, reached: &[bool]) -> bool {
        self.assign(reached).iter().all(Option::is_some)
    }
}

/// How many sets of affinities are looked at for the claims of a pod. Volumes that lie on one node each need one step a node, and those that
/// are reached by zones a few; what takes more are volumes that differ in many labels, where the sets found first must do.
const STEPS_MAX: usize = 10_000;
/// How many terms sets of several affinities may come to: each is compared with every node.
const JOINED_MAX: usize = 256;

/// A search for what a node must reach: some of the affinities that volumes have, no more than are needed.
struct Search<'a> {
    supply: Supply<'a>,
    /// Affinities, with the rows of the volumes that have them.
    affinities: &'a [(Vec<NodeTerm>, Vec<usize>)],
    /// Which volumes are reached where the search is.
    reached: Vec<bool>,
    /// How many more sets are looked at.
    steps: usize,
    /// How many of `found` come from several affinities.
    joined: usize,
    /// What is enough.
    found: Vec<NodeTerm>,
}

impl Search<'_> {
    /// Adds affinities of the rows `open`, `left` at most, since each claim takes one volume. `terms` are what those chosen so far come to:
    /// a node that meets one of them reaches the volumes of all.
    fn widen(&mut self, open: &[usize], left: usize, terms: Option<&[NodeTerm]>) {
        let mut short = Vec::new();
        for &row in open {
            if self.steps == 0 || self.joined >= JOINED_MAX {
                return;
            }
            self.steps -= 1;
            let more = &self.affinities[row].0;
            let both = terms.map_or_else(|| more.clone(), |terms| join(terms, more));
            if both.is_empty() {
                continue;
            }
            self.reach(row, true);
            if self.supply.is_enough(&self.reached) {
                self.joined += if terms.is_some() { both.len() } else { 0 };
                self.found.extend(both);
            } else {
                short.push((row, both));
            }
            self.reach(row, false);
        }
        if left > 1 {
            let rows: Vec<usize> = short.iter().map(|(row, _)| *row).collect();
            for (at, (row, both)) in short.iter().enumerate() {
                self.reach(*row, true);
                self.widen(&rows[at + 1..], left - 1, Some(both));
                self.reach(*row, false);
            }
        }
    }

    fn reach(&mut self, affinity: usize, reached: bool) {
        for &volume in &self.affinities[affinity].1 {
            self.reached[volume] = reached;
        }
    }
}

/// Terms of which one holds where one of each of both lists does.
fn join(some: &[NodeTerm], others: &[NodeTerm]) -> Vec<NodeTerm> {
    some.iter().flat_map(|one| others.iter().filter_map(|other| join_terms(one, other))).collect()
}

/// A term that holds where both hold; none if that is nowhere.
fn join_terms(one: &NodeTerm, other: &NodeTerm) -> Option<NodeTerm> {
    let empty = |term: &NodeTerm| term.labels.is_empty() && term.fields.is_empty();
    if empty(one) || empty(other) {
        return None;
    }
    let apart = |(one, other): (&Requirement, &Requirement)| {
        one.key == other.key
            && (one.operator, other.operator) == (Operator::In, Operator::In)
            && !one.values.iter().any(|value| other.values.contains(value))
    };
    if one.labels.iter().flat_map(|one| other.labels.iter().map(move |other| (one, other))).any(apart) {
        return None;
    }
    let union = |one: &[Requirement], other: &[Requirement]| {
        let mut all = [one, other].concat();
        all.sort_unstable();
        all.dedup();
        all
    };
    Some(NodeTerm { labels: union(&one.labels, &other.labels), fields: union(&one.fields, &other.fields) })
}

fn capacity(volume: &PersistentVolume) -> Quantity {
    volume.spec.value.capacity.get("storage").and_then(|text| Quantity::parse(text).ok()).unwrap_or_default()
}

fn asked(claim: &Claim) -> Option<Quantity> {
    claim.spec.value.resources.requests.get("storage").map_or(Some(Quantity::ZERO), |text| Quantity::parse(text).ok())
}

/// Whether a volume is set aside for this very claim, or promised to it.
fn is_for(volume: &PersistentVolume, claim: &Claim, storage: &Storage) -> bool {
    match &volume.spec.value.claim_ref {
        Some(of) => {
            Some(&of.namespace) == claim.metadata.namespace.as_ref()
                && Some(&of.name) == claim.metadata.name.as_ref()
                && (of.uid.is_empty() || Some(&of.uid) == claim.metadata.uid.as_ref())
        }
        None => storage.promised(&full_name(&volume.metadata)) == Some(&full_name(&claim.metadata)),
    }
}

/// Whether a volume that is there would do for a claim.
fn serves(volume: &PersistentVolume, claim: &Claim, storage: &Storage) -> bool {
    let (has, wants) = (&volume.spec.value, &claim.spec.value);
    let block = |mode: &Option<String>| mode.as_deref() == Some("Block");
    let attributes = |name: &Option<String>| name.clone().unwrap_or_default();
    let fits = volume.metadata.deletion_timestamp.is_none()
        && volume.error().is_none()
        && class_of_volume(volume) == class_of(claim)
        && block(&has.volume_mode) == block(&wants.volume_mode)
        && attributes(&has.volume_attributes_class_name) == attributes(&wants.volume_attributes_class_name)
        && asked(claim).is_some_and(|asked| capacity(volume) >= asked);
    // Who set it aside is trusted with the rest.
    fits && (is_for(volume, claim, storage) || (is_free(volume, storage) && selects(claim, volume) && offers(volume, claim)))
}

fn is_free(volume: &PersistentVolume, storage: &Storage) -> bool {
    let kept = volume.spec.value.claim_ref.is_some() || storage.promised(&full_name(&volume.metadata)).is_some();
    volume.status.value.phase == "Available" && !kept
}

fn offers(volume: &PersistentVolume, claim: &Claim) -> bool {
    claim.spec.value.access_modes.iter().all(|mode| volume.spec.value.access_modes.contains(mode))
}

fn selects(claim: &Claim, volume: &PersistentVolume) -> bool {
    let Some(of) = &claim.spec.value.selector else { return true };
    let label = |key: &str| volume.metadata.labels.as_ref()?.get(key).map(String::as_str);
    selector::labels(of, "a claim").is_ok_and(|all| all.iter().all(|one| selector::meets(one, label(&one.key))))
}
