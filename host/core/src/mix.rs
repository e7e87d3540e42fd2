//! What to expect: the mix of demands that a workload consists of.
//!
//! The rule is that of FGD (USENIX ATC'23, "Beware of Fragmentation"): the most frequent pod types until they cover 95 % of the pods. A
//! type is (cpu, GPU share, count, models); memory is not part of it, so the demands of a mix ask for none, nor for anything else.

use std::collections::BTreeMap;

use crate::model::{Demand, GpuAsk};

/// Hundredths of the pods that the mix covers.
const COVERED: u64 = 95;

/// The most types of a mix. The largest of the published traces has 127; a policy looks at each for every node it is asked about, and what
/// a workload of so many rare types asks next cannot be expected anyway.
pub const TYPES_MAX: usize = 512;

/// Pod types and their number of pods, the most frequent first.
pub type Mix = Vec<(Demand, u32)>;

/// A pod type in the order that breaks ties between equally frequent ones: the larger first.
type Type<'a> = (u32, u32, u32, &'a str, String);

/// The mix of the `pods`, each a demand and its models as the trace spells them: two spellings are two types, as they are in FGD.
pub fn expected<'a>(pods: impl Iterator<Item = (&'a Demand, &'a str)>) -> Mix {
    let mut types: BTreeMap<Type<'a>, (u32, &'a Demand)> = BTreeMap::new();
    let mut pods_count: u64 = 0;
    for (demand, spelling) in pods {
        let (milli, count, profile) = match &demand.gpu {
            GpuAsk::None => (0, 0, String::new()),
            GpuAsk::Share { count, milli } => (*milli, *count, String::new()),
            other => (0, 1, other.to_string()),
        };
        types.entry((demand.cpu_milli, milli, count, spelling, profile)).or_insert((0, demand)).0 += 1;
        pods_count += 1;
    }
    let mut types: Vec<_> = types.into_iter().collect();
    types.sort_by(|(kind, (count, _)), (other, (others, _))| (others, other).cmp(&(count, kind)));
    let mut covered = 0;
    let mut mix = Mix::new();
    for (_, (count, demand)) in types {
        // The type that crosses the line is still in.
        if covered * 100 >= pods_count * COVERED || mix.len() == TYPES_MAX {
            break;
        }
        covered += u64::from(count);
        mix.push((
            Demand { cpu_milli: demand.cpu_milli, gpu: demand.gpu.clone(), models: demand.models.clone(), ..Demand::default() },
            count,
        ));
    }
    mix
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demand(cpu_milli: u32, memory_mib: u32, milli: u32) -> Demand {
        Demand { cpu_milli, memory_mib, gpu: GpuAsk::Share { count: 1, milli }, models: Vec::new(), ..Demand::default() }
    }

    #[test]
    fn the_most_frequent_types_until_95_percent_are_covered_ties_to_the_larger() {
        let pods: Vec<(Demand, u32)> =
            vec![(demand(1, 5, 500), 10), (demand(1, 6, 500), 8), (demand(2, 5, 100), 1), (demand(1, 5, 900), 1)];
        let all: Vec<&Demand> = pods.iter().flat_map(|(demand, count)| std::iter::repeat_n(demand, *count as usize)).collect();
        let mix = expected(all.iter().map(|demand| (*demand, "")));
        // 18 of 20 are 90 %, so one of the two others is in: the one with more cpu. Memory makes no type.
        assert_eq!(mix, [(demand(1, 0, 500), 18), (demand(2, 0, 100), 1)]);
    }

    #[test]
    fn a_mix_has_a_bounded_length() {
        let pods: Vec<Demand> = (0..2000).map(|cpu| demand(cpu, 0, 1)).collect();
        let mix = expected(pods.iter().map(|demand| (demand, "")));
        assert_eq!((mix.len(), mix[0].0.cpu_milli), (TYPES_MAX, 1999));
    }

    #[test]
    fn the_mix_of_nothing_is_empty() {
        assert!(expected(std::iter::empty()).is_empty());
    }
}
