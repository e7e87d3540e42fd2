//! Consolidation: MIG partitions move to where their going and coming together leave the most room.
//!
//! A move gains the room that the GPU it leaves wins, less the room that the GPU it goes to loses (module `mig` says what room is). Moves are
//! chosen one after another, the one that gains most first, each on the GPUs as the moves before it leave them. To stay within its fuel on
//! a large cluster the policy looks at the pods whose going gains most, and at one GPU of each state as a place to go.

use partita_sdk::{MoveQuestion, Moves};

use crate::mig::{Rooms, slots};

/// The most pods that are looked at closely for each move.
const PODS_MAX: usize = 64;
/// The most states of GPUs that are looked at as places to go for each move.
const STATES_MAX: usize = 256;
/// What a move must gain, in thousandths of the room of one average partition: a restart is not worth a trifle.
const GAIN_MIN: i64 = 1000;

/// A pod with one MIG partition.
struct Pod {
    row: u32,
    demand: usize,
    node: usize,
    gpu: usize,
    mask: u32,
}

/// The cluster as the moves chosen so far leave it.
struct Scene<'q> {
    question: &'q MoveQuestion<'q>,
    rooms: &'q Rooms,
    used: Vec<u32>,
    cpu: Vec<u32>,
    memory: Vec<u32>,
    node_of: Vec<usize>,
}

/// A place to go: GPU, mask of the slots, and what it gains.
struct Place {
    gpu: usize,
    mask: u32,
    gain: i64,
}

/// The moves that gain most, at most as many as asked for.
pub(crate) fn choose(rooms: &Rooms, question: &MoveQuestion<'_>) -> Moves {
    let view = &question.view;
    let mut scene = Scene {
        question,
        rooms,
        used: view.gpus.used_slots.to_vec(),
        cpu: view.nodes.cpu_free.to_vec(),
        memory: view.nodes.memory_free.to_vec(),
        node_of: view.node_rows().enumerate().flat_map(|(row, node)| node.gpu_rows().map(move |_| row)).collect(),
    };
    let mut pods: Vec<Pod> = (0..question.pods.demand.len()).filter_map(|row| scene.pod(row)).collect();
    let mut moves = Moves::default();
    while moves.pod.len() < question.changes {
        let Some((index, place)) = scene.best(&pods) else { break };
        let pod = pods.swap_remove(index);
        moves.take(pod.row, scene.node_of[place.gpu] as u32);
        scene.apply(&pod, &place);
    }
    moves
}

impl Scene<'_> {
    /// A pod that has one partition; others stay where they are.
    fn pod(&self, row: usize) -> Option<Pod> {
        let pods = &self.question.pods;
        let (demand, gpu, slot) = (pods.demand[row] as usize, pods.gpu[row] as usize, pods.slot[row]);
        let asked = self.question.view.demand(demand);
        if asked.count() != 1 || !asked.is_mig() || slot == partita_sdk::NONE {
            return None;
        }
        let size = self.size_on(demand, gpu)?;
        Some(Pod { row: row as u32, demand, node: pods.node[row] as usize, gpu, mask: slots(size, slot) })
    }

    /// Slots of the demand's profile on a GPU.
    fn size_on(&self, demand: usize, gpu: usize) -> Option<u32> {
        self.profile_on(demand, gpu).map(|profile| self.question.view.profile(profile).size())
    }

    fn profile_on(&self, demand: usize, gpu: usize) -> Option<usize> {
        let view = &self.question.view;
        let model = view.gpu(gpu).model();
        let profiles = view.demand(demand).profiles();
        profiles.iter().map(|&profile| profile as usize).find(|&profile| view.profile(profile).model() == model)
    }

    /// The room of a GPU with these slots taken, comparable between models.
    fn room(&self, gpu: usize, used: u32) -> i64 {
        self.rooms.share(self.question.view.gpu(gpu).model(), used)
    }

    /// What a GPU gains when a pod goes.
    fn leaving(&self, pod: &Pod) -> i64 {
        let used = self.used[pod.gpu];
        self.room(pod.gpu, used & !pod.mask) - self.room(pod.gpu, used)
    }

    /// The move that gains most, if one gains enough.
    fn best(&self, pods: &[Pod]) -> Option<(usize, Place)> {
        let mut order: Vec<(i64, usize)> = pods.iter().enumerate().map(|(index, pod)| (-self.leaving(pod), index)).collect();
        order.sort_unstable();
        order.truncate(PODS_MAX);
        let places = self.places();
        let best = order.iter().filter_map(|&(loss, index)| Some((index, self.place(&pods[index], -loss, &places)?)));
        // Of equal gains the first.
        best.fold(
            None,
            |best: Option<(usize, Place)>, next| {
                if best.as_ref().is_some_and(|best| best.1.gain >= next.1.gain) { best } else { Some(next) }
            },
        )
    }

    /// GPUs to go to: of each state two on different nodes, since the pod's own node is none.
    fn places(&self) -> Vec<usize> {
        let mut states: Vec<((u32, u32), usize, usize)> = Vec::new();
        let mut places = Vec::new();
        for gpu in (0..self.used.len()).filter(|&gpu| self.used[gpu] != 0 && self.question.view.gpu(gpu).is_mig()) {
            let state = (self.question.view.gpu(gpu).model(), self.used[gpu]);
            if let Some((_, count, node)) = states.iter_mut().find(|known| known.0 == state) {
                if *count == 1 && *node != self.node_of[gpu] {
                    *count = 2;
                    places.push(gpu);
                }
            } else if states.len() < STATES_MAX {
                states.push((state, 1, self.node_of[gpu]));
                places.push(gpu);
            }
        }
        places
    }

    /// Where a pod goes best, if that gains enough.
    fn place(&self, pod: &Pod, gain: i64, places: &[usize]) -> Option<Place> {
        let view = &self.question.view;
        let asked = view.demand(pod.demand);
        let mut best: Option<Place> = None;
        for &gpu in places {
            let node = self.node_of[gpu];
            if node == pod.node || self.cpu[node] < asked.cpu() || self.memory[node] < asked.memory() {
                continue;
            }
            let Some(profile) = self.profile_on(pod.demand, gpu) else { continue };
            let (profile, used) = (view.profile(profile), self.used[gpu]);
            let before = self.room(gpu, used);
            for start in (0..16).filter(|start| profile.starts() & 1 << start != 0) {
                let mask = slots(profile.size(), start);
                let gain = gain - (before - self.room(gpu, used | mask));
                if used & mask == 0 && gain >= GAIN_MIN && best.as_ref().is_none_or(|best| gain > best.gain) {
                    best = Some(Place { gpu, mask, gain });
                }
            }
        }
        best
    }

    fn apply(&mut self, pod: &Pod, place: &Place) {
        let asked = self.question.view.demand(pod.demand);
        let to = self.node_of[place.gpu];
        self.used[pod.gpu] &= !pod.mask;
        self.used[place.gpu] |= place.mask;
        self.cpu[to] -= asked.cpu();
        self.memory[to] -= asked.memory();
        self.cpu[pod.node] += asked.cpu();
        self.memory[pod.node] += asked.memory();
    }
}
