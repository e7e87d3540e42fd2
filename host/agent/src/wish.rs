//! From a `GpuNode`'s `spec` to what each GPU shall be.

use partita_core::model::Cut;
use partita_device::{Found, PartState, Wish, mig::Spec};
use partita_kube::crd::{DesiredGpu, DesiredPartition, GpuNodeSpec};

/// How the operator lets the agent cut, by the node's label `partita.dev/partitioning`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rule {
    /// Partitions are what they are, and are handed to the kubelet. No label, or one that nobody knows.
    #[default]
    Fixed,
    /// By MIG.
    Mig,
    /// By MPS.
    Mps,
    /// By time-slicing.
    TimeSlicing,
    /// Any way.
    Auto,
    /// partita leaves the node: what it made goes, what it found stays.
    Off,
}

impl Rule {
    /// The values of the label, for people.
    pub const NAMES: &'static str = "mig, mps, time-slicing, auto or off";

    /// From the label's value.
    #[must_use]
    pub fn of(label: Option<&str>) -> Self {
        match label {
            Some("mig") => Self::Mig,
            Some("mps") => Self::Mps,
            Some("time-slicing") => Self::TimeSlicing,
            Some("auto") => Self::Auto,
            Some("off") => Self::Off,
            _ => Self::Fixed,
        }
    }

    /// Whether a GPU may be made so. Whole is always allowed: it is what is left when the last partition goes.
    #[must_use]
    pub fn allows(self, gpu: &DesiredGpu) -> bool {
        let whole = gpu.cut == Cut::Shares && gpu.partitions.iter().all(is_whole);
        match self {
            Self::Fixed | Self::Off => false,
            Self::Auto => true,
            Self::Mig => whole || gpu.cut == Cut::Mig,
            Self::Mps => whole || gpu.cut == Cut::Mps,
            Self::TimeSlicing => gpu.cut == Cut::Shares,
        }
    }
}

/// Whether a share is a whole GPU.
#[must_use]
pub fn is_whole(one: &DesiredPartition) -> bool {
    one.milli == Some(1000)
}

/// What each GPU of a layout shall be, as far as the operator allows.
#[must_use]
pub fn wishes(spec: &GpuNodeSpec, rule: Rule) -> Vec<Wish> {
    spec.gpus.iter().filter(|gpu| rule.allows(gpu)).map(|gpu| wish(spec, gpu)).collect()
}

/// What one GPU of a layout shall be.
#[must_use]
pub fn wish(spec: &GpuNodeSpec, gpu: &DesiredGpu) -> Wish {
    let part = |one: &DesiredPartition| Some(Spec { profile: one.profile.clone()?, start: one.start? });
    Wish {
        gpu: gpu.uuid.clone(),
        generation: (spec.term, spec.generation),
        cut: gpu.cut,
        partitions: if gpu.cut == Cut::Mig { gpu.partitions.iter().filter_map(part).collect() } else { Vec::new() },
        shares: if gpu.cut == Cut::Mps { gpu.partitions.iter().filter_map(|one| one.memory_mib).collect() } else { Vec::new() },
        time_sliced: gpu.cut == Cut::Shares && !gpu.partitions.iter().all(is_whole),
        may_switch: true,
    }
}

/// Whether nothing is left to do on a GPU, as far as can be seen: it is as it shall be, and there is nothing to say.
#[must_use]
pub fn is_done(wish: &Wish, found: &Found) -> bool {
    let quiet = found.unusable.is_none() && found.notes.is_empty() && found.parts.iter().all(|part| part.state == PartState::Ready);
    quiet && is_met(wish, found)
}

/// Whether a GPU is cut or shared as it shall be: nothing is missing, and nothing is left over.
#[must_use]
pub fn is_met(wish: &Wish, found: &Found) -> bool {
    let is_cut = found.gpu.is_cut();
    match wish.cut {
        Cut::Mig => {
            let there = || found.parts.iter().filter(|part| part.uuid.is_some());
            let is_there = |spec: &Spec| there().any(|part| part.spec.as_ref() == Some(spec));
            is_cut && there().count() == wish.partitions.len() && wish.partitions.iter().all(is_there)
        }
        Cut::Mps => {
            let serves = |state: &PartState| *state == PartState::Ready;
            !is_cut && found.sharing.as_ref().is_some_and(|sharing| serves(&sharing.state) && sharing.shares == wish.shares)
        }
        Cut::Shares => !is_cut && found.sharing.is_none(),
    }
}

/// Whether a layout may follow the one that was taken last: (term, generation) never fall.
#[must_use]
pub fn follows(spec: &GpuNodeSpec, taken: (i64, i64)) -> bool {
    (spec.term, spec.generation) >= taken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layout_is_a_wish_for_each_gpu() {
        let part =
            |profile: &str, start| DesiredPartition { profile: Some(profile.into()), start: Some(start), ..DesiredPartition::default() };
        let share = |milli| DesiredPartition { milli: Some(milli), ..DesiredPartition::default() };
        let gpu = |uuid: &str, cut, partitions| DesiredGpu { uuid: uuid.into(), index: 0, cut, partitions };
        let gpus = vec![
            gpu("a", Cut::Mig, vec![part("1g.10gb", 3)]),
            gpu("b", Cut::Shares, vec![share(1000)]),
            gpu("c", Cut::Shares, vec![share(250)]),
        ];
        let spec = GpuNodeSpec { term: 2, generation: 7, gpus, ..GpuNodeSpec::default() };
        let named = |label: Option<&str>| wishes(&spec, Rule::of(label)).into_iter().map(|wish| wish.gpu).collect::<Vec<_>>();
        assert_eq!(named(Some("mig")), ["a", "b"]);
        assert_eq!(named(Some("mps")), ["b"]);
        assert_eq!(named(Some("time-slicing")), ["b", "c"]);
        assert_eq!(named(Some("auto")), ["a", "b", "c"]);
        assert_eq!([named(Some("off")), named(None), named(Some("what"))], [Vec::<String>::new(), Vec::new(), Vec::new()]);
        let wishes = wishes(&spec, Rule::Auto);
        assert_eq!((wishes[0].generation, wishes[0].cut), ((2, 7), Cut::Mig));
        assert_eq!(wishes[0].partitions, [Spec { profile: "1g.10gb".into(), start: 3 }]);
        assert_eq!((wishes[1].cut, wishes[1].partitions.len()), (Cut::Shares, 0));
        assert!(follows(&spec, (2, 7)) && follows(&spec, (1, 99)) && !follows(&spec, (2, 8)) && !follows(&spec, (3, 0)));
    }
}
