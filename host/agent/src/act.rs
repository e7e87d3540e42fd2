//! The second half of a pass: GPUs become what they shall be, or what they were.

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use partita_device::{Found, Wish};

use crate::{
    allocate::Answers,
    cdi::Cdi,
    error::AgentError,
    object::Seen,
    offers::Offer,
    pass::Agent,
    users::{Kubelet, STARTING, WRITTEN, is_of},
    wish::{is_done, wishes},
};

impl Agent {
    /// Makes GPUs what they shall be; what could not be done before is tried again if there is a reason to. Returns whether something waits
    /// until the kubelet has let go of it.
    pub(crate) async fn apply(&mut self, seen: &Seen, users: &UsedBy, again: bool) -> Result<bool, AgentError> {
        self.restored.clear();
        let Some(layout) = &self.taken.layout else { return Ok(false) };
        let wishes = wishes(layout, Self::rule(seen));
        let mut draining = false;
        self.more = false;
        let mut changed = false;
        for wish in wishes {
            let Some(row) = self.found.iter().position(|one| one.gpu.info.uuid == wish.gpu) else { continue };
            let known = self.applied.get(&wish.gpu).is_some_and(|known| same(known, &wish));
            if known && (!again || is_done(&wish, &self.found[row])) {
                continue;
            }
            if self.is_held(&self.found[row]) {
                draining = true;
                continue;
            }
            if changed && !known {
                self.more = true;
                break;
            }
            changed |= !known;
            let Some(machine) = &mut self.machine else { break };
            let (users, asked) = (users.clone(), wish.clone());
            let start = Instant::now();
            self.found[row] = machine.with(move |node| node.apply(&asked, &|gpu: &str, mig: Option<&str>| users.of(gpu, mig))).await?;
            self.shared.metrics.changed(start.elapsed());
            self.applied.insert(wish.gpu.clone(), wish);
        }
        Ok(draining)
    }

    /// Gives GPUs back as they were found. Returns whether something waits until the kubelet has let go of it.
    pub(crate) async fn restore(&mut self, users: &UsedBy, again: bool) -> Result<bool, AgentError> {
        self.applied.clear();
        let mut draining = false;
        for row in 0..self.found.len() {
            let uuid = self.found[row].gpu.info.uuid.clone();
            if self.is_held(&self.found[row]) {
                draining = true;
            } else if again && let Some(machine) = &mut self.machine {
                let users = users.clone();
                let asked = uuid.clone();
                let restored = machine.with(move |node| {
                    let found = node.restore(&asked, &|gpu: &str, mig: Option<&str>| users.of(gpu, mig));
                    (found, node.is_restored(&asked))
                });
                let (found, done) = restored.await?;
                self.found[row] = found;
                if done {
                    self.restored.insert(uuid)
                } else {
                    self.restored.remove(&uuid)
                };
            }
        }
        if self.is_left() {
            for resource in std::mem::take(&mut self.advertised) {
                self.plugins.withdraw(&resource).await;
            }
            self.cdi.iter().for_each(Cdi::remove);
        }
        Ok(draining)
    }

    /// Whether nothing of this agent is left on the node, and nobody has anything of it.
    pub(crate) fn is_left(&self) -> bool {
        let restored = self.found.iter().all(|one| self.restored.contains(&one.gpu.info.uuid));
        restored && self.offers.all().next().is_none()
    }

    /// Whether the kubelet could still give away something of a GPU that is not offered any more.
    fn is_held(&self, one: &Found) -> bool {
        let Some(kubelet) = &self.kubelet else { return false };
        let uuid = &one.gpu.info.uuid;
        let is_its = |device: &str| is_of(device, uuid) || one.parts.iter().any(|part| part.uuid.as_deref() == Some(device));
        let mut held = kubelet.held().filter(|(_, device)| is_its(device));
        held.any(|(resource, device)| self.offers.find(resource, device).is_none())
    }

    /// Whether the kubelet does not have yet what it was handed.
    pub(crate) fn is_waiting(&mut self) -> bool {
        let Some(kubelet) = &self.kubelet else { return false };
        let missing = |offer: &&Offer| offer.healthy && !offer.used && !kubelet.holds(&offer.resource, &offer.id);
        let missing: BTreeSet<(String, String)> =
            self.offers.all().filter(missing).map(|offer| (offer.resource.clone(), offer.id.clone())).collect();
        for (_, since) in self.handed.extract_if(.., |device, _| !missing.contains(device)) {
            self.shared.metrics.handed_over(since.elapsed());
        }
        let now = Instant::now();
        let waiting = !missing.is_empty();
        for device in missing {
            self.handed.entry(device).or_insert(now);
        }
        waiting
    }
}

/// Whether two wishes are for the same, whatever their numbers.
fn same(one: &Wish, other: &Wish) -> bool {
    Wish { generation: other.generation, ..one.clone() } == *other
}

/// Who uses what, as far as anybody knows: the kubelet's word, and what was given away up to this moment.
#[derive(Clone)]
pub(crate) struct UsedBy {
    pub(crate) kubelet: Result<Arc<Kubelet>, String>,
    pub(crate) answers: Arc<Answers>,
}

impl UsedBy {
    /// For [`partita_device::Users`].
    pub(crate) fn of(&self, gpu: &str, mig: Option<&str>) -> Result<Vec<String>, String> {
        let kubelet = self.kubelet.as_ref().map_err(Clone::clone)?;
        let (mut users, starts) = match mig {
            Some(mig) => (kubelet.users(mig), self.answers.given().any(|device| device == mig)),
            None => (kubelet.users_of_gpu(gpu), self.answers.given().any(|device| is_of(device, gpu))),
        };
        if starts && users.is_empty() {
            users.push(STARTING.to_owned());
        }
        if users.is_empty() && kubelet.written(mig.unwrap_or(gpu)).next().is_some() {
            users.push(WRITTEN.to_owned());
        }
        Ok(users)
    }
}
