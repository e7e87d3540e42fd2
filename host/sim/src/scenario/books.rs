//! Our own picture of every GPU: what was found there and what the planner's actions made of it. A planner that believes something else
//! is wrong, and that is said instead of drawn.

use partita_core::{
    model::{Cut, Placement, PodId},
    state::{Cluster, Gpu, Grant, Holder, Layout, Use},
};

/// A part of a GPU and who uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Owned {
    pub(super) used: Use,
    pub(super) holder: Option<Holder>,
}

/// One GPU.
#[derive(Clone, Debug)]
pub(super) struct Picture {
    pub(super) cut: Cut,
    pub(super) parts: Vec<Owned>,
    /// Set aside: what was found on it means nothing.
    pub(super) aside: bool,
}

/// The GPUs of each node.
#[derive(Clone, Debug, Default)]
pub(super) struct Books(pub(super) Vec<Vec<Picture>>);

impl Books {
    /// What was found, as the planner took it in.
    pub(super) fn of(cluster: &Cluster) -> Self {
        let picture = |gpu: &Gpu| Picture { cut: gpu.cut(), parts: parts(cluster, gpu), aside: gpu.fault.is_some() };
        Self(cluster.nodes().map(|(_, node)| node.room.gpus.iter().map(picture).collect()).collect())
    }

    /// Lets a pod have what it was given. Says of each use whether it existed; of a share nothing has to exist.
    pub(super) fn give(&mut self, node: usize, grant: &Grant, pod: PodId) -> Vec<Option<bool>> {
        let holder = Some(Holder::Pod(pod));
        let mut give = |&(gpu, used): &(u8, Use)| {
            let parts = &mut self.0[node][usize::from(gpu)].parts;
            let warm = parts.iter_mut().find(|part| **part == Owned { used, holder: None });
            let existed = warm.is_some();
            match warm {
                Some(part) => part.holder = holder,
                None => parts.push(Owned { used, holder }),
            }
            (used.cut() != Cut::Shares).then_some(existed)
        };
        grant.0.iter().map(&mut give).collect()
    }

    /// Takes back what a pod had. Partitions stay, warm.
    pub(super) fn take_back(&mut self, node: usize, grant: &Grant, pod: PodId) {
        for &(gpu, used) in &grant.0 {
            let parts = &mut self.0[node][usize::from(gpu)].parts;
            let Some(row) = parts.iter().position(|part| *part == Owned { used, holder: Some(Holder::Pod(pod)) }) else { continue };
            if used.cut() == Cut::Shares {
                parts.remove(row);
            } else {
                parts[row].holder = None;
            }
        }
    }

    /// Cuts a GPU another way. What was warm there goes; returns how it was cut.
    pub(super) fn cut(&mut self, node: usize, gpu: u8, cut: Cut) -> Cut {
        let gpu = &mut self.0[node][usize::from(gpu)];
        gpu.parts.retain(|part| part.holder.is_some());
        std::mem::replace(&mut gpu.cut, cut)
    }

    /// Destroys a warm part.
    pub(super) fn destroy(&mut self, node: usize, gpu: u8, used: Use) {
        let parts = &mut self.0[node][usize::from(gpu)].parts;
        if let Some(row) = parts.iter().position(|part| *part == Owned { used, holder: None }) {
            parts.remove(row);
        }
    }

    /// The first GPU that the planner sees otherwise, as node and index, with both views.
    pub(super) fn differ(&self, cluster: &Cluster) -> Option<(usize, usize, String)> {
        let rows = self.0.iter().zip(cluster.nodes()).enumerate();
        let gpus = rows.flat_map(|(row, (pictures, (_, node)))| {
            pictures.iter().zip(&node.room.gpus).enumerate().map(move |(gpu, (ours, theirs))| (row, gpu, ours, theirs))
        });
        gpus.filter(|(_, _, ours, _)| !ours.aside).find_map(|(row, gpu, ours, theirs)| {
            let (mut mine, mut believed) = (ours.parts.clone(), parts(cluster, theirs));
            let milli = |parts: &[Owned]| parts.iter().map(|part| if let Use::Share(milli) = part.used { milli } else { 0 }).sum::<u32>();
            let same_shares = || if let Layout::Shares { free } = theirs.layout { milli(&mine) + free == 1000 } else { false };
            if ours.cut == theirs.cut() && ours.cut == Cut::Shares && same_shares() {
                return None;
            }
            mine.sort_unstable();
            believed.sort_unstable();
            let same = ours.cut == theirs.cut() && mine == believed;
            (!same).then(|| (row, gpu, format!("{} with {mine:?}, but the planner sees {} with {believed:?}", ours.cut, theirs.cut())))
        })
    }
}

/// What the planner sees on a GPU; of shares it knows only their sum.
fn parts(cluster: &Cluster, gpu: &Gpu) -> Vec<Owned> {
    match &gpu.layout {
        Layout::Shares { .. } => Vec::new(),
        Layout::Mig(mig) => {
            let layouts = cluster.models().layouts(gpu.model);
            let own = |(placement, holder): (Placement, Option<Holder>)| Owned { used: Use::Partition(placement), holder };
            layouts.map_or_else(Vec::new, |layouts| mig.partitions(layouts).map(|part| own((part.placement, part.holder))).collect())
        }
        Layout::Mps(slices) => slices.all.iter().map(|one| Owned { used: Use::Mps(one.memory_mib), holder: one.holder }).collect(),
    }
}
