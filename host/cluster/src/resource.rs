//! Under which resource the kubelet must have what a pod was given.
//!
//! A device plugin offers devices under the name of a resource, and the kubelet gives a pod devices of the names that its spec asks for. One
//! partition can be asked for by several names: by its profile however that is spelled, or as any part of a GPU.

use partita_core::{
    model::MILLI,
    state::{Grant, Models, Node, Use},
};

use crate::translate::keys;

/// For each part of a grant the resource that it answers, of those that the pod asks for, with how many of each; none for a part that answers
/// none of them.
pub(crate) fn answered(asks: &[(String, u32)], grant: &Grant, node: &Node, models: &Models) -> Vec<Option<String>> {
    let mut left: Vec<(&String, u32)> = asks.iter().map(|(name, count)| (name, *count)).collect();
    let one = |&(gpu, used): &(u8, Use)| {
        let (name, count) = left.iter_mut().find(|(name, count)| *count > 0 && answers(name, gpu, used, node, models))?;
        *count -= 1;
        Some((*name).clone())
    };
    grant.0.iter().map(one).collect()
}

/// Whether a part of a GPU is what a resource means.
fn answers(resource: &str, gpu: u8, used: Use, node: &Node, models: &Models) -> bool {
    let meant = match used {
        Use::Partition(place) => {
            let grid = node.room.gpus.get(usize::from(gpu)).and_then(|gpu| models.grid(gpu.model));
            let profile = resource.strip_prefix(keys::MIG_PREFIX);
            profile.zip(grid).is_some_and(|(profile, grid)| grid.resolve(profile).is_ok_and(|row| row == place.profile))
        }
        Use::Mps(memory_mib) => {
            let gb = resource.strip_prefix(keys::MPS_PREFIX).and_then(|size| size.strip_suffix("gb")?.parse::<u32>().ok());
            gb.and_then(|gb| gb.checked_mul(1024)) == Some(memory_mib)
        }
        Use::Share(milli) => milli == MILLI && resource == keys::WHOLE_GPU,
    };
    meant || resource == keys::GPU
}

#[cfg(test)]
mod tests {
    use partita_core::{
        model::{Cut, GpuSpec, NodeId, NodeSpec, Placement, catalog},
        state::{Cluster, Event},
    };

    use super::*;

    #[test]
    fn a_part_is_named_as_its_pod_spells_it() {
        let mut cluster = Cluster::default();
        let model = catalog::builtin("A100-80GB").unwrap();
        let grid = model.grid.clone().unwrap();
        cluster.apply(Event::ModelSeen(model)).unwrap();
        let gpus = vec![GpuSpec::new("A100-80GB", Cut::Mig); 2];
        cluster.apply(Event::NodeAdded(NodeId(0), NodeSpec { name: "n".into(), gpus, ..NodeSpec::default() })).unwrap();
        let place = |name: &str, start| Use::Partition(Placement { profile: grid.resolve(name).unwrap(), start });
        let names = |asks: &[(&str, u32)], parts: &[(u8, Use)]| {
            let asks: Vec<(String, u32)> = asks.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
            let named = answered(&asks, &Grant(parts.to_vec()), cluster.node(NodeId(0)).unwrap(), cluster.models());
            named.into_iter().map(Option::unwrap_or_default).collect::<Vec<_>>()
        };
        let (small, media, whole) = (place("1g.10gb", 3), place("1g.10gb+me", 0), place("7g.80gb", 0));
        assert_eq!(names(&[("nvidia.com/mig-7g.79gb", 1)], &[(0, whole)]), ["nvidia.com/mig-7g.79gb"]);
        let two = [("nvidia.com/mig-1g.10gb", 1), ("nvidia.com/mig-1g.10gb.me", 1)];
        assert_eq!(names(&two, &[(0, media), (0, small)]), ["nvidia.com/mig-1g.10gb.me", "nvidia.com/mig-1g.10gb"]);
        // One profile in two spellings: each as often as it is asked for.
        let both = [("nvidia.com/mig-7g.79gb", 1), ("nvidia.com/mig-7g.80gb", 1)];
        assert_eq!(names(&both, &[(0, whole), (1, whole)]), ["nvidia.com/mig-7g.79gb", "nvidia.com/mig-7g.80gb"]);
        for used in [small, Use::Mps(10_000), Use::Share(250), Use::Share(MILLI)] {
            assert_eq!(names(&[("partita.dev/gpu", 1)], &[(0, used)]), ["partita.dev/gpu"]);
        }
        assert_eq!(names(&[("nvidia.com/gpu-10gb", 1)], &[(0, Use::Mps(10_240))]), ["nvidia.com/gpu-10gb"]);
        assert_eq!(names(&[("nvidia.com/gpu", 1)], &[(0, Use::Share(MILLI)), (1, Use::Share(MILLI))]), ["nvidia.com/gpu", ""]);
        for (resource, used) in [("nvidia.com/gpu", small), ("nvidia.com/gpu", Use::Share(500)), ("nvidia.com/gpu-9gb", Use::Mps(10_240))] {
            assert_eq!(names(&[(resource, 1)], &[(0, used)]), [""]);
        }
    }
}
