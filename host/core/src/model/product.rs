//! GPU models by the names that drivers and labels give them.
//!
//! NVML says `NVIDIA A100-SXM4-80GB`, GPU feature discovery labels a node `NVIDIA-A100-SXM4-80GB`, and both mean what the core knows as
//! `A100-80GB`, as does `NVIDIA-A100-PCIE-80GB`: products that are cut alike are one model. So a pod that names a model means all of
//! them.

use super::{GpuModel, Grid, catalog};

/// How far the memory of a product may be from that in the name of its model, in hundredths: drivers keep up to 4 % for themselves, and
/// names round.
const TOLERANCE: u64 = 5;

/// The model of a product, from its name, its memory in MiB (0 where unknown), and what its driver says of its profiles.
///
/// A product that the core does not know is a model of its own, under its own name, cut by MIG only if its driver said how.
#[must_use]
pub fn describe(product: &str, memory_mib: u32, grid: Option<&Grid>) -> GpuModel {
    if let Some(grid) = grid {
        return GpuModel { name: plain(product), memory_mib, grid: Some(grid.clone()) };
    }
    match known(product, memory_mib).and_then(catalog::builtin) {
        Some(model) if model.memory_mib == 0 => GpuModel { memory_mib, ..model },
        Some(model) => model,
        None => GpuModel { name: plain(product), memory_mib, grid: None },
    }
}

/// The name under which the core knows the model of a product, else the product's own name in its plain form.
#[must_use]
pub fn name(product: &str) -> String {
    known(product, 0).map_or_else(|| plain(product), str::to_owned)
}

/// `NVIDIA A100-SXM4-80GB` and `NVIDIA-A100-SXM4-80GB` as `A100-SXM4-80GB`.
fn plain(product: &str) -> String {
    let joined = product.split([' ', '-', '_']).filter(|word| !word.is_empty()).collect::<Vec<_>>().join("-");
    let bare = ["NVIDIA-", "Tesla-"].iter().fold(joined.as_str(), |name, maker| name.strip_prefix(maker).unwrap_or(name));
    bare.to_owned()
}

/// The model that the core has for a product.
fn known(product: &str, memory_mib: u32) -> Option<&'static str> {
    let product = plain(product);
    if let Some(same) = catalog::names().find(|name| *name == product) {
        return Some(same);
    }
    let words: Vec<&str> = product.split('-').collect();
    let says = words.iter().find_map(|word| word.strip_suffix("GB").or(word.strip_suffix('G'))?.parse::<u64>().ok());
    // The product's words include those of the model, its memory aside; of several models the one that shares most words.
    let mut best: Option<(usize, u64, &'static str)> = None;
    for name in catalog::names() {
        let (family, gb) = split(name);
        let shared = family.split('-').count();
        let all_there = family.split('-').all(|word| words.iter().any(|other| other.eq_ignore_ascii_case(word)));
        let far = match (gb, memory_mib) {
            (Some(gb), 1..) => (gb * 1024).abs_diff(memory_mib.into()) * 100 / (gb * 1024),
            (Some(gb), 0) => u64::from(says.is_some_and(|says| says != gb)) * 100,
            (None, _) => 0,
        };
        let better = best.is_none_or(|(most, least, _)| (shared, least) > (most, far));
        if all_there && far <= TOLERANCE && better {
            best = Some((shared, far, name));
        }
    }
    let (shared, far, name) = best?;
    // Without a word on memory, a family with several sizes stays unknown.
    let rival = |other: &&str| {
        let (family, gb) = split(other);
        family == split(name).0 && gb != split(name).1
    };
    let undecided = memory_mib == 0 && says.is_none() && catalog::names().any(|other| rival(&other));
    (shared > 0 && far <= TOLERANCE && !undecided).then_some(name)
}

/// `H100-NVL-94GB` as `H100-NVL` and 94.
fn split(name: &str) -> (&str, Option<u64>) {
    match name.rsplit_once('-') {
        Some((family, last)) => match last.strip_suffix("GB").and_then(|gb| gb.parse().ok()) {
            Some(gb) => (family, Some(gb)),
            None => (name, None),
        },
        None => (name, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_of_one_model() {
        for (product, memory_mib, model) in [
            ("NVIDIA A100-SXM4-80GB", 81_920, "A100-80GB"),
            ("NVIDIA-A100-PCIE-80GB", 0, "A100-80GB"),
            ("NVIDIA A100-SXM4-40GB", 40_960, "A100-40GB"),
            ("NVIDIA-A100-PCIE-40GB", 40_960, "A100-40GB"),
            ("NVIDIA H100 80GB HBM3", 81_559, "H100-80GB"),
            ("NVIDIA H100 PCIe", 81_559, "H100-80GB"),
            ("NVIDIA H100 NVL", 95_830, "H100-NVL-94GB"),
            ("NVIDIA-H200", 143_771, "H200-141GB"),
            ("NVIDIA H20", 97_871, "H20-96GB"),
            ("NVIDIA GH200 480GB", 97_871, "GH200-96GB"),
            ("NVIDIA-B200", 183_359, "B200-180GB"),
            ("NVIDIA A30", 24_576, "A30"),
            ("Tesla-T4", 15_360, "T4"),
            ("NVIDIA RTX PRO 6000 Blackwell Server Edition", 97_887, "RTX-PRO-6000-Blackwell-96GB"),
            ("A100-80GB", 0, "A100-80GB"),
        ] {
            assert_eq!(describe(product, memory_mib, None).name, model, "{product}");
        }
    }

    #[test]
    fn what_is_not_known_is_a_model_of_its_own_without_mig() {
        for (product, memory_mib, name) in [
            ("NVIDIA L40S", 46_068, "L40S"),
            // A size that was never published: not the 80 GB model with a few GB less.
            ("NVIDIA A100-SXM-64GB", 65_536, "A100-SXM-64GB"),
            ("NVIDIA A100-SXM-64GB", 0, "A100-SXM-64GB"),
            ("NVIDIA H20", 0, "H20"),
            ("", 0, ""),
        ] {
            assert_eq!(describe(product, memory_mib, None), GpuModel { name: name.into(), memory_mib, grid: None }, "{product}");
        }
        assert_eq!((name("NVIDIA-A100-SXM4-80GB").as_str(), name("NVIDIA L40S").as_str()), ("A100-80GB", "L40S"));
    }

    #[test]
    fn a_driver_knows_better() {
        let grid = catalog::builtin("A30").unwrap().grid.unwrap();
        let model = describe("NVIDIA A31", 1, Some(&grid));
        assert_eq!(model, GpuModel { name: "A31".into(), memory_mib: 1, grid: Some(grid) });
    }
}
