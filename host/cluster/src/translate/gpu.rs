//! What a pod asks of GPUs: resources of its containers, and annotations that say more.

use std::collections::BTreeMap;

use partita_core::model::{Demand, GpuAsk, Isolation, ProfileName, demand::PARTITIONS_MAX};

use super::{Unsupported, keys, quote, requests::Asked};
use crate::{
    models,
    quantity::{Quantity, Round},
};

/// What the pod asks of GPUs, taken out of `asked`, and the models that will do.
///
/// # Errors
/// If it asks in two ways at once, or for what cannot be.
pub(super) fn take(asked: &mut Asked, annotations: &BTreeMap<String, String>) -> Result<(GpuAsk, Vec<String>), Unsupported> {
    let mine: Vec<String> = asked.keys().filter(|name| is_gpu(name)).cloned().collect();
    let mine: Vec<(String, Quantity)> = mine.into_iter().filter_map(|name| asked.remove_entry(&name)).collect();
    let models = models_of(annotations)?;
    let (first, amount) = match mine.split_first() {
        None => return none(annotations, models),
        Some(((first, amount), rest)) => {
            let both_mig = first.starts_with(keys::MIG_PREFIX);
            if let Some((other, _)) = rest.iter().find(|(name, _)| !(both_mig && name.starts_with(keys::MIG_PREFIX))) {
                let what = format!("it asks for GPUs in two ways, {first} and {other}");
                return Err(Unsupported::new(what, "ask in one way, or with two pods"));
            }
            (first.as_str(), *amount)
        }
    };
    if first != keys::GPU {
        no_annotations(annotations, first)?;
    }
    let ask = if first.starts_with(keys::MIG_PREFIX) {
        let partitions = mine.iter().map(|(name, amount)| Ok((profile(name), count(name, *amount, PARTITIONS_MAX)?)));
        GpuAsk::Mig { partitions: partitions.collect::<Result<_, Unsupported>>()? }
    } else if first == keys::WHOLE_GPU {
        GpuAsk::whole(count(first, amount, u32::MAX)?)
    } else if first == keys::GPU {
        count(first, amount, 1)?;
        floor(annotations)?
    } else {
        count(first, amount, 1)?;
        GpuAsk::Mps { memory_mib: gigabytes(first)? }
    };
    Ok((ask, models))
}

/// The resources by which a pod asks for GPUs and parts of them, and how many of each.
pub(super) fn resources(asked: &Asked) -> Vec<(String, u32)> {
    let count = |amount: &Quantity| amount.whole(Round::Down).map_or(u32::MAX, |count| u32::try_from(count).unwrap_or(u32::MAX));
    asked.iter().filter(|(name, _)| is_gpu(name)).map(|(name, amount)| (name.clone(), count(amount))).collect()
}

/// Whether a resource is a GPU or a part of one, which the core counts by GPU.
pub(crate) fn is_gpu(resource: &str) -> bool {
    resource == keys::WHOLE_GPU || resource == keys::GPU || resource.starts_with(keys::MIG_PREFIX) || is_mps(resource)
}

fn is_mps(resource: &str) -> bool {
    let gb = resource.strip_prefix(keys::MPS_PREFIX).and_then(|size| size.strip_suffix("gb"));
    gb.is_some_and(|gb| !gb.is_empty() && gb.bytes().all(|digit| digit.is_ascii_digit()))
}

/// The one name of a profile, whatever way it was written; as written where it is none of NVIDIA's.
fn profile(resource: &str) -> String {
    let bare = resource.strip_prefix(keys::MIG_PREFIX).unwrap_or(resource);
    ProfileName::parse(resource).map_or_else(|_| bare.to_owned(), |name| name.to_string())
}

fn count(resource: &str, amount: Quantity, most: u32) -> Result<u32, Unsupported> {
    let whole = amount.whole(Round::Down).filter(|&whole| Quantity::units(whole) == amount);
    let fits = whole.and_then(|whole| u32::try_from(whole).ok()).filter(|&whole| whole <= most);
    fits.ok_or_else(|| {
        let range = if most == u32::MAX { "a whole number".to_owned() } else { format!("a whole number up to {most}") };
        Unsupported::new(format!("it asks for {amount} of {resource}"), format!("ask for {range}"))
    })
}

fn gigabytes(resource: &str) -> Result<u32, Unsupported> {
    let digits = resource.trim_start_matches(keys::MPS_PREFIX).trim_end_matches("gb");
    let mib = digits.parse::<u32>().ok().and_then(|gb| gb.checked_mul(1024)).filter(|&mib| mib > 0);
    mib.ok_or_else(|| Unsupported::new(format!("it asks for {}", quote(resource)), "ask for a share of 1 GB or more that a GPU can have"))
}

/// A part of a GPU, described by annotations.
fn floor(annotations: &BTreeMap<String, String>) -> Result<GpuAsk, Unsupported> {
    let wrong = |key: &str, text: &str, remedy: &str| Unsupported::new(format!("its annotation {key} is {}", quote(text)), remedy);
    let memory = annotations.get(keys::MEMORY).map(|text| {
        let mib = Quantity::parse(text).ok().and_then(|amount| amount.mib(Round::Up)).and_then(|mib| u32::try_from(mib).ok());
        mib.filter(|&mib| mib > 0).ok_or_else(|| wrong(keys::MEMORY, text, "write an amount like 10Gi"))
    });
    let compute = annotations.get(keys::COMPUTE).map(|text| {
        let percent = text.strip_suffix('%').unwrap_or(text).parse::<u32>().ok();
        percent.filter(|percent| (1..=100).contains(percent)).ok_or_else(|| wrong(keys::COMPUTE, text, "write percent, 1 to 100"))
    });
    let isolation = annotations.get(keys::ISOLATION).map(|text| match text.as_str() {
        "hardware" => Ok(Isolation::Hardware),
        "memory" => Ok(Isolation::Memory),
        "shared" => Ok(Isolation::Shared),
        _ => Err(wrong(keys::ISOLATION, text, "write hardware, memory or shared")),
    });
    let (memory, compute, isolation) = (memory.transpose()?, compute.transpose()?, isolation.transpose()?);
    if memory.is_none() && compute.is_none() {
        let what = format!("it asks for {} without saying how much of one", keys::GPU);
        return Err(Unsupported::new(what, format!("add the annotation {} or {}", keys::MEMORY, keys::COMPUTE)));
    }
    // Who names no memory needs the least that can be asked for.
    Ok(GpuAsk::Floor { memory_mib: memory.unwrap_or(1), compute: compute.unwrap_or(0), isolation: isolation.unwrap_or_default() })
}

fn models_of(annotations: &BTreeMap<String, String>) -> Result<Vec<String>, Unsupported> {
    let Some(text) = annotations.get(keys::MODELS) else { return Ok(Vec::new()) };
    let names: Vec<String> = text.split([',', '|']).map(str::trim).filter(|name| !name.is_empty()).map(models::name).collect();
    if names.is_empty() {
        let what = format!("its annotation {} is {}", keys::MODELS, quote(text));
        return Err(Unsupported::new(what, "name models, such as A100-80GB, H100-80GB"));
    }
    Ok(names)
}

fn none(annotations: &BTreeMap<String, String>, models: Vec<String>) -> Result<(GpuAsk, Vec<String>), Unsupported> {
    no_annotations(annotations, "no GPU")?;
    if models.is_empty() {
        return Ok((GpuAsk::None, models));
    }
    let what = format!("its annotation {} names GPU models, but it asks for no GPU", keys::MODELS);
    Err(Unsupported::new(what, "ask for a GPU, or take out the annotation"))
}

/// Annotations that describe a part of a GPU mean nothing where something else is asked for: somebody forgot one of the two.
fn no_annotations(annotations: &BTreeMap<String, String>, asked: &str) -> Result<(), Unsupported> {
    match [keys::MEMORY, keys::COMPUTE, keys::ISOLATION].into_iter().find(|key| annotations.contains_key(*key)) {
        Some(key) => {
            let what = format!("its annotation {key} describes a part of a GPU, but it asks for {asked}");
            Err(Unsupported::new(what, format!("ask for {}: 1, or take out the annotation", keys::GPU)))
        }
        None => Ok(()),
    }
}

/// What is wrong with a demand, in the words of a refusal.
pub(super) fn validated(demand: Demand) -> Result<Demand, Unsupported> {
    demand.validated().map_err(|error| Unsupported::new(format!("it {error}"), "change what it asks for"))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Pairs<'a> = &'a [(&'a str, &'a str)];

    fn ask(resources: Pairs<'_>, annotations: Pairs<'_>) -> Result<(GpuAsk, Vec<String>), String> {
        let mut asked: Asked = resources.iter().map(|(name, text)| ((*name).to_owned(), Quantity::parse(text).unwrap())).collect();
        let annotations = annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let taken = take(&mut asked, &annotations).map_err(|error| error.to_string());
        assert!(asked.keys().all(|name| !is_gpu(name)), "{asked:?}");
        taken
    }

    #[test]
    fn every_way_to_ask() {
        let floor = |memory_mib, compute, isolation| GpuAsk::Floor { memory_mib, compute, isolation };
        let mig =
            |parts: &[(&str, u32)]| GpuAsk::Mig { partitions: parts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect() };
        let cases: [(Pairs<'_>, Pairs<'_>, GpuAsk); 11] = [
            (&[("cpu", "1")], &[], GpuAsk::None),
            (&[("nvidia.com/gpu", "2")], &[], GpuAsk::whole(2)),
            (&[("nvidia.com/mig-1g.10gb", "3")], &[], mig(&[("1g.10gb", 3)])),
            (&[("nvidia.com/mig-1g.10gb.me", "1"), ("nvidia.com/mig-3g.40gb", "1")], &[], mig(&[("1g.10gb+me", 1), ("3g.40gb", 1)])),
            (&[("nvidia.com/mig-new.1", "1")], &[], mig(&[("new.1", 1)])),
            (&[("nvidia.com/gpu-10gb", "1")], &[], GpuAsk::Mps { memory_mib: 10_240 }),
            // Not ours: a resource of some other plugin.
            (&[("nvidia.com/gpu-huge", "1"), ("nvidia.com/gpu.shared", "1")], &[], GpuAsk::None),
            (&[("partita.dev/gpu", "1")], &[(keys::MEMORY, "10Gi")], floor(10_240, 0, Isolation::Shared)),
            (&[("partita.dev/gpu", "1")], &[(keys::MEMORY, "1M"), (keys::COMPUTE, "30")], floor(1, 30, Isolation::Shared)),
            (&[("partita.dev/gpu", "1")], &[(keys::COMPUTE, "100%"), (keys::ISOLATION, "memory")], floor(1, 100, Isolation::Memory)),
            (&[("partita.dev/gpu", "1")], &[(keys::MEMORY, "1Gi"), (keys::ISOLATION, "hardware")], floor(1024, 0, Isolation::Hardware)),
        ];
        for (resources, annotations, expected) in cases {
            assert_eq!(ask(resources, annotations), Ok((expected, Vec::new())), "{resources:?}");
        }
        let models = ask(&[("nvidia.com/gpu", "1")], &[(keys::MODELS, "NVIDIA-A100-SXM4-80GB | H100-80GB,L40S,")]).unwrap().1;
        assert_eq!(models, ["A100-80GB", "H100-80GB", "L40S"]);
    }

    #[test]
    fn what_cannot_be_is_refused_with_a_remedy() {
        let one = [("partita.dev/gpu", "1")];
        let cases: [(Pairs<'_>, Pairs<'_>, &str); 13] = [
            (&[("nvidia.com/gpu", "1"), ("nvidia.com/mig-1g.10gb", "1")], &[], "in two ways, nvidia.com/gpu and nvidia.com/mig-1g.10gb"),
            (&[("nvidia.com/gpu-10gb", "1"), ("nvidia.com/gpu-5gb", "1")], &[], "in two ways"),
            (&[("nvidia.com/gpu", "500m")], &[], "ask for a whole number"),
            (&[("nvidia.com/gpu", "5G")], &[], "ask for a whole number"),
            (&[("nvidia.com/gpu-10gb", "2")], &[], "a whole number up to 1"),
            (&[("nvidia.com/gpu-0gb", "1")], &[], "1 GB or more"),
            (&[("nvidia.com/mig-1g.10gb", "200")], &[], "a whole number up to 127"),
            (&one, &[], "without saying how much"),
            (&one, &[(keys::MEMORY, "lots")], "partita.dev/memory is \"lots\"; write an amount like 10Gi"),
            (&one, &[(keys::COMPUTE, "101")], "1 to 100"),
            (&one, &[(keys::MEMORY, "1Gi"), (keys::ISOLATION, "strong")], "hardware, memory or shared"),
            (&[("nvidia.com/gpu", "1")], &[(keys::MEMORY, "1Gi")], "but it asks for nvidia.com/gpu"),
            (&[], &[(keys::MODELS, "A30")], "but it asks for no GPU"),
        ];
        for (resources, annotations, words) in cases {
            let error = ask(resources, annotations).unwrap_err();
            assert!(error.contains(words), "{resources:?} {annotations:?}: {error}");
        }
        assert!(ask(&[("nvidia.com/gpu", "1")], &[(keys::MODELS, " ,")]).unwrap_err().contains("name models"));
    }
}
