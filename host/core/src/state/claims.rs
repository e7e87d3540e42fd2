//! Claims: who gets a place as soon as those who hold it have left.
//!
//! A pod for which room is made does not have it yet: its victims take their time to stop, those that move too. Until then it has a claim,
//! and the node knows what it has left *now* and what it will have left *later*, when those who leave have left and those who have a claim
//! have come. What anybody else is given must fit now and later.

use std::borrow::Cow;

use serde::Serialize;

use super::{Cluster, Entry, GpuFault, Grant, Room};
use crate::model::{NodeId, PodId};

/// Why a pod has a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// Pods were stopped or moved for it.
    RoomMade,
    /// It waited long: the place is kept free for it as those there end by themselves.
    Reserved,
}

/// A place that a pod will have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Claim {
    /// The node.
    pub node: NodeId,
    /// What of its GPUs.
    pub grant: Grant,
    /// Who must have left before, sorted.
    pub waits_for: Vec<PodId>,
    /// When the claim ends, milliseconds; none if only its pod can end it.
    pub until_ms: Option<u64>,
    /// Why it has it.
    pub why: Why,
}

/// Claims as they were before one was tried.
pub(crate) struct ClaimsBefore {
    all: Vec<(PodId, Claim)>,
    given_up: u64,
}

impl Cluster {
    /// All claims, by pod.
    pub fn claims(&self) -> impl Iterator<Item = (PodId, &Claim)> {
        self.claims.iter().map(|(&pod, claim)| (pod, claim))
    }

    /// The claim of a pod.
    #[must_use]
    pub fn claim_of(&self, pod: PodId) -> Option<&Claim> {
        self.claims.get(&pod)
    }

    /// What a node will have left, for a pod that would have others go: once everybody has left who was told to, and those have come for
    /// whom they leave. Places kept for pods of lower priority count as free; what is kept for others is out of reach,
    /// since nobody can tell what is left of them until those there end by themselves. None where that is not even free yet.
    #[must_use]
    pub(crate) fn after_leaving(&self, id: NodeId, priority: i32) -> Option<Cow<'_, Room>> {
        let node = self.node(id)?;
        let (mut made, mut kept) = (Vec::new(), Vec::new());
        for &pod in &node.claims {
            let (claim, known) = (self.claims.get(&pod)?, self.pod(pod)?);
            let entry = self.demands.get(known.demand);
            match claim.why {
                Why::RoomMade => made.push((pod, claim, entry)),
                Why::Reserved if known.spec.priority >= priority => kept.push((claim, entry)),
                Why::Reserved => {}
            }
        }
        if made.is_empty() && kept.is_empty() && !node.pods.iter().any(|&pod| self.leaves(pod, id)) {
            return Some(Cow::Borrowed(&node.room));
        }
        let mut room = node.room.clone();
        self.vacate(id, &mut room, |pod| self.leaves(pod, id));
        for (pod, claim, entry) in made {
            room.take(&self.models, entry, &claim.grant, pod)?;
        }
        for (claim, entry) in kept {
            room.take_plain(entry)?;
            for &(index, _) in &claim.grant.0 {
                if let Some(gpu) = room.gpus.get_mut(usize::from(index)) {
                    gpu.fault = Some(GpuFault::Kept);
                }
            }
        }
        Some(Cow::Owned(room))
    }

    /// What a node will have left once those have ended, too, for whom pods with a kept place wait.
    #[must_use]
    pub(crate) fn after_ending(&self, id: NodeId) -> Option<Cow<'_, Room>> {
        let node = self.node(id)?;
        node.later.last().map(Cow::Borrowed).or_else(|| self.after_leaving(id, i32::MIN))
    }

    /// The claims that a new one of a pod on a node may cost, to be put back if it comes to nothing: those on the node, and its own.
    #[must_use]
    pub(crate) fn claims_at_stake(&self, id: NodeId, pod: PodId) -> ClaimsBefore {
        let on_node = self.node(id).map_or(&[][..], |node| &node.claims);
        let own = Some(pod).filter(|pod| !on_node.contains(pod));
        let all = on_node.iter().copied().chain(own).filter_map(|pod| Some((pod, self.claims.get(&pod)?.clone()))).collect();
        ClaimsBefore { all, given_up: self.given_up }
    }

    /// Puts claims back as they were, in place of the one that `pod` got.
    pub(crate) fn put_back(&mut self, pod: PodId, before: ClaimsBefore) {
        self.drop_claim(pod);
        for (pod, claim) in before.all {
            let node = claim.node;
            if let Some(Some(known)) = self.nodes.get_mut(node.index())
                && !self.claims.contains_key(&pod)
            {
                known.claims.push(pod);
                self.claims.insert(pod, claim);
                self.touch(node);
            }
        }
        // Nothing is free that was not before.
        self.given_up = before.given_up;
    }

    /// Those who must have left before a new claim with this grant can be met, beside those told to go for it: who is leaving and uses a GPU of
    /// the grant, or everybody who is leaving where anything else is short without them; and of a place that is kept, those for whom others
    /// with kept places wait.
    #[must_use]
    pub(crate) fn before(&self, id: NodeId, entry: &Entry, grant: &Grant, why: Why, goes: &[PodId]) -> Vec<PodId> {
        let Some(node) = self.node(id) else { return Vec::new() };
        if why == Why::Reserved {
            return self.awaited_on(id);
        }
        let leaving: Vec<PodId> = node.pods.iter().copied().filter(|&pod| self.leaves(pod, id)).collect();
        let place =
            |pod: &PodId| self.pod(*pod).and_then(|pod| pod.leaving.as_ref().filter(|place| place.node == id).or(pod.placed.as_ref()));
        let shares =
            |pod: &PodId| place(pod).is_some_and(|place| place.grant.0.iter().any(|part| grant.0.iter().any(|own| own.0 == part.0)));
        let needed: Vec<PodId> = leaving.iter().copied().filter(shares).collect();
        let mut who: Vec<PodId> = needed.iter().chain(goes).copied().collect();
        who.sort_unstable();
        who.dedup();
        let mut room = Room { gpus: Vec::new(), stock: node.room.stock.clone(), ..node.room };
        for pod in who.iter().filter_map(|&pod| self.pod(pod)) {
            room.give_back_plain(self.demands.get(pod.demand));
        }
        if room.fits_plain(entry) { needed } else { leaving }
    }

    /// Those who will have left a node before a claim on it that is made now can be met, sorted.
    #[must_use]
    pub(crate) fn awaited_on(&self, id: NodeId) -> Vec<PodId> {
        let Some(node) = self.node(id) else { return Vec::new() };
        let awaited = |pod| node.claims.iter().filter_map(|claimant| self.claims.get(claimant)).any(|claim| claim.waits_for.contains(&pod));
        node.pods.iter().copied().filter(|&pod| self.leaves(pod, id) || awaited(pod)).collect()
    }

    /// Whether a pod is on its way from a node.
    #[must_use]
    pub(crate) fn leaves(&self, pod: PodId, node: NodeId) -> bool {
        self.pod(pod).is_some_and(|pod| {
            pod.leaving.as_ref().is_some_and(|place| place.node == node)
                || pod.placed.as_ref().is_some_and(|place| place.node == node && place.stopping)
        })
    }

    /// Gives a claim to a pod, in place of the one that it has. Kept places that no longer fit beside it end. False if it does not fit even
    /// later; then the pod has none.
    pub(crate) fn claim(&mut self, pod: PodId, claim: Claim) -> bool {
        let node = claim.node;
        self.drop_claim(pod);
        if let Some(one) = self.nodes.get_mut(node.index()).and_then(Option::as_mut) {
            one.claims.push(pod);
            self.claims.insert(pod, claim);
            self.touch(node);
        }
        self.claims.contains_key(&pod)
    }

    /// How many claims ended without their pod getting the place: each may leave room for pods that were looked at before.
    #[must_use]
    pub(crate) fn given_up(&self) -> u64 {
        self.given_up
    }

    /// Takes a claim away. False if the pod has none.
    pub(crate) fn drop_claim(&mut self, pod: PodId) -> bool {
        let Some(claim) = self.claims.remove(&pod) else { return false };
        self.given_up += 1;
        if let Some(node) = self.nodes.get_mut(claim.node.index()).and_then(Option::as_mut) {
            node.claims.retain(|&other| other != pod);
            self.touch(claim.node);
        }
        true
    }

    /// Ends the claims whose time is over.
    pub(crate) fn expire_claims(&mut self) {
        let over = |claim: &Claim| claim.until_ms.is_some_and(|until| until <= self.now_ms);
        let gone: Vec<PodId> = self.claims.iter().filter(|(_, claim)| over(claim)).map(|(&pod, _)| pod).collect();
        for pod in gone {
            self.drop_claim(pod);
            // It had its chance; the next one comes after as long a wait as the first.
            if let Some(Some(pod)) = self.pods.get_mut(pod.index()) {
                pod.waits_since_ms = self.now_ms;
            }
        }
    }

    /// Nobody waits for `pod` any longer: it has left that node, or is gone.
    pub(crate) fn left(&mut self, pod: PodId, from: Option<NodeId>) {
        for claim in self.claims.values_mut().filter(|claim| from.is_none_or(|node| node == claim.node)) {
            claim.waits_for.retain(|&other| other != pod);
        }
    }

    /// Notes that a node changed, and what it means for later.
    pub(crate) fn touch(&mut self, id: NodeId) {
        self.journal.changed(id);
        while let Some(node) = self.node(id) {
            if node.claims.is_empty() {
                if let Some(Some(node)) = self.nodes.get_mut(id.index()) {
                    node.later.clear();
                }
                return;
            }
            match self.rebuilt(id) {
                Ok(rooms) => {
                    if let Some(Some(node)) = self.nodes.get_mut(id.index()) {
                        node.later = rooms;
                    }
                    return;
                }
                // The claim no longer fits, since somebody came whom nobody decided on: it ends, the pod waits on.
                Err(pod) => {
                    self.claims.remove(&pod);
                    self.given_up += 1;
                    if let Some(Some(node)) = self.nodes.get_mut(id.index()) {
                        node.claims.retain(|&other| other != pod);
                    }
                }
            }
        }
    }

    /// What a node with claims will have left, or the first claim that does not fit. See [`Node::later`](super::Node::later).
    fn rebuilt(&self, id: NodeId) -> Result<Vec<Room>, PodId> {
        let Some(node) = self.node(id) else { return Err(PodId(u32::MAX)) };
        let mut rooms = Vec::new();
        let mut room = node.room.clone();
        let ending = self.awaited_on(id);
        let made = || node.claims.iter().filter_map(|pod| self.claims.get(pod)).filter(|claim| claim.why == Why::RoomMade);
        let makes_room = |pod| made().any(|claim| claim.waits_for.contains(&pod));
        let (leaving, ending): (Vec<PodId>, Vec<PodId>) = ending.into_iter().partition(|&pod| self.leaves(pod, id) || makes_room(pod));
        for (why, gone) in [(Why::RoomMade, leaving), (Why::Reserved, ending)] {
            self.vacate(id, &mut room, |pod| gone.binary_search(&pod).is_ok());
            let mut met = 0;
            for &pod in &node.claims {
                let (Some(claim), Some(known)) = (self.claims.get(&pod), self.pod(pod)) else { return Err(pod) };
                if claim.why == why {
                    room.take(&self.models, self.demands.get(known.demand), &claim.grant, pod).ok_or(pod)?;
                    met += 1;
                }
            }
            if met > 0 {
                rooms.push(room.clone());
            }
        }
        Ok(rooms)
    }

    /// Takes out of `room` what those pods of a node use that `goes` says.
    fn vacate(&self, id: NodeId, room: &mut Room, goes: impl Fn(PodId) -> bool) {
        let Some(node) = self.node(id) else { return };
        for &number in node.pods.iter().filter(|&&pod| goes(pod)) {
            let Some(pod) = self.pod(number) else { continue };
            let entry = self.demands.get(pod.demand);
            // Of a pod that moves within the node only the place that it leaves.
            let moves = pod.leaving.as_ref().filter(|place| place.node == id);
            if let Some(place) = moves.or(pod.placed.as_ref().filter(|place| place.node == id)) {
                room.give_back(&self.models, entry, &place.grant, number);
            }
        }
    }
}
