//! Workloads that come and go: what the generator makes, and what is counted of a run.
#![allow(clippy::unwrap_used, clippy::float_cmp, reason = "a test that panics has failed, as it should; the figures are exact")]

mod common;

use common::{Emptiest, Zeros};
use partita_core::{model::catalog, policy::Partitioner};
use partita_sim::{
    Arrival, Cluster, Contender, Options, RunResult, SimError, Unplaceable, Workload,
    churn::{Churn, ChurnError, ChurnMix, Figures, GPU_SLOTS, LIFETIME_MS, MIXES, MODEL, PROFILES, Played},
    simulate,
};

fn churn(mix: &str) -> Churn {
    Churn::benchmark(ChurnMix::by_name(mix).unwrap(), 1)
}

fn play(cluster: &Cluster, workload: &Workload, options: &Options, policy: &mut dyn Partitioner) -> Result<RunResult, SimError> {
    let mut contenders = [Contender { name: "p".into(), chain: vec![policy] }];
    simulate(cluster, workload, options, &mut contenders, &mut |_, _| {}).map(|mut outcome| outcome.runs.remove(0).result)
}

#[test]
fn slots_are_those_of_the_catalog() {
    let grid = catalog::builtin(MODEL).unwrap().grid.unwrap();
    assert_eq!(u32::from(grid.slots), GPU_SLOTS);
    for (name, slots) in PROFILES {
        assert_eq!(u32::from(grid.profiles[usize::from(grid.resolve(name).unwrap())].size), slots, "{name}");
    }
}

/// Everything within four standard errors of what was asked for; of an exponential the deviation is the mean.
#[test]
fn load_lifetimes_and_shares_are_those_asked_for() {
    for (mix, load) in MIXES.iter().zip([1.0, 0.5, 1.25, 2.0]) {
        let asked = Churn { load, gpus: 102, ..Churn::benchmark(mix, 7) };
        let (cluster, workload) = asked.make().unwrap();
        assert_eq!((cluster.nodes.len(), cluster.gpus(), workload.arrivals.len()), (26, 102, 30_000));
        let count = workload.arrivals.len() as f64;
        let lifetimes: u64 = workload.arrivals.iter().map(|arrival| arrival.lifetime_ms.unwrap()).sum();
        let lifetime = lifetimes as f64 / count / LIFETIME_MS as f64;
        assert!((lifetime - 1.0).abs() < 4.0 / count.sqrt(), "{}: lifetimes {lifetime} of the mean", mix.name);
        let weights = f64::from(mix.weights.iter().sum::<u32>());
        for (row, weight) in mix.weights.iter().enumerate() {
            let share = workload.arrivals.iter().filter(|arrival| arrival.row as usize == row).count() as f64 / count;
            let expected = f64::from(*weight) / weights;
            let error = (expected * (1.0 - expected) / count).sqrt();
            assert!((share - expected).abs() < 4.0 * error, "{}: {share} of {}", mix.name, PROFILES[row].0);
        }
        // Slot-milliseconds asked for over those that there are. Relative to its mean, (slots × lifetime) varies by less than 4, the time
        // until the last arrival by 1 for each request.
        let slots = |arrival: &Arrival| u64::from(PROFILES[arrival.row as usize].1) * arrival.lifetime_ms.unwrap();
        let offered: u64 = workload.arrivals.iter().map(slots).sum();
        let there = workload.arrivals.last().unwrap().at_ms * 102 * u64::from(GPU_SLOTS);
        let measured = offered as f64 / there as f64 / load;
        assert!((measured - 1.0).abs() < 4.0 * (5.0 / count).sqrt(), "{}: {measured} of the load", mix.name);
        assert!(workload.arrivals.is_sorted_by_key(|arrival| arrival.at_ms));
        let told: Vec<u32> = workload.mix.iter().map(|entry| entry.1).collect();
        assert!(told.is_sorted_by(|a, b| a >= b) && told.iter().sum::<u32>() == mix.weights.iter().sum::<u32>(), "{told:?}");
    }
}

#[test]
fn equal_seeds_make_equal_workloads() {
    assert_eq!(churn("bimodal").make(), churn("bimodal").make());
    let other = Churn { seed: 2, ..churn("bimodal") };
    assert_ne!(churn("bimodal").make(), other.make());
    // A load changes when pods come, not what they ask for nor how long they run.
    let stays = |churn: Churn| churn.make().unwrap().1.arrivals.iter().map(|one| (one.row, one.lifetime_ms)).collect::<Vec<_>>();
    assert_eq!(stays(churn("skew-big")), stays(Churn { load: 2.0, ..churn("skew-big") }));
}

#[test]
fn numbers_out_of_range_are_refused_with_the_range() {
    let asked = churn("uniform");
    for load in [0.0, -1.0, f64::NAN, f64::INFINITY, 10.5] {
        let error = Churn { load, ..asked }.make().unwrap_err();
        assert!(matches!(error, ChurnError::Load(_)) && error.to_string().contains("from 0.01 to 10,"), "{error}");
    }
    assert_eq!(Churn { gpus: 0, ..asked }.make().unwrap_err(), ChurnError::Gpus { gpus: 0, max: 200_000 });
    assert_eq!(
        Churn { gpus: 200_001, ..asked }.make().unwrap_err().to_string(),
        "200001 is no number of GPUs for a cluster; give one from 1 to 200000"
    );
    assert_eq!(Churn { node_gpus: 65, ..asked }.make().unwrap_err(), ChurnError::NodeGpus(65));
    assert_eq!(Churn { requests: 1_000_001, ..asked }.make().unwrap_err(), ChurnError::Requests(1_000_001));
    assert!(Churn { gpus: 1, requests: 1, load: 0.01, ..asked }.make().is_ok());
}

const ONE_A30: &str = "[[node]]\nname = \"n\"\ncpu = 8\nmemory = \"64Gi\"\ngpus = { model = \"A30\", count = 1, cut = \"mig\" }\n";

#[test]
fn what_comes_in_the_warm_up_is_not_counted() {
    let cluster = Cluster::parse("cluster", ONE_A30.as_bytes()).unwrap();
    let rows = "a,0,0,4g.24gb,0,10\nb,0,0,4g.24gb,5,10\nc,0,0,2g.12gb,20,4\nd,0,0,4g.24gb,22,4\ne,0,0,1g.6gb,24,\nf,0,0,1g.6gb,30,\n";
    let rows = rows.replace(",0,0,", ",0,1Mi,");
    let workload = Workload::parse("workload", format!("name,cpu,memory,mig,arrival,lifetime\n{rows}").as_bytes()).unwrap();
    let of = |warm_up| {
        play(&cluster, &workload, &Options { seed: 1, unplaceable: Unplaceable::Drop, warm_up, ..Options::default() }, &mut Zeros)
    };
    // In use: 100 % for 10 s, nothing for 10, half for 4, a quarter for 6.
    let whole = of(0).unwrap();
    assert!((whole.allocated_mean - (1000.0 + 200.0 + 150.0) / 30.0).abs() < 1e-9, "{}", whole.allocated_mean);
    assert!((whole.accepted - 400.0 / 6.0).abs() < 1e-9, "{}", whole.accepted);
    let warm = of(2).unwrap();
    assert!((warm.allocated_mean - (200.0 + 150.0) / 10.0).abs() < 1e-9 && warm.accepted == 75.0, "{warm:?}");
    assert_eq!((of(5).unwrap().accepted, of(5).unwrap().placed), (100.0, 4), "everything else counts all pods");
    let error = of(6).unwrap_err();
    assert!(matches!(error, SimError::WarmUp { warm_up: 6, arrivals: 6 }), "{error}");
}

#[test]
fn what_is_accepted_and_what_is_in_use_agree_and_packing_beats_spreading() {
    let asked = Churn { gpus: 40, requests: 4000, ..churn("uniform") };
    let (cluster, workload) = asked.make().unwrap();
    let packed = play(&cluster, &workload, &asked.options(), &mut Zeros).unwrap();
    assert_eq!(packed.placed + packed.dropped, 4000);
    let spread = play(&cluster, &workload, &asked.options(), &mut Emptiest).unwrap();
    assert!(packed.allocated_mean > spread.allocated_mean + 10.0, "{} {}", packed.allocated_mean, spread.allocated_mean);
    let runs = [(1, &packed), (2, &spread)].map(|(seed, result)| Played::of(seed, result));
    let figures = Figures::of("uniform", "both", runs.to_vec());
    assert_eq!(figures.in_use.mean, f64::midpoint(packed.allocated_mean, spread.allocated_mean));
    assert!(figures.accepted.margin.is_some_and(|margin| margin > 0.0));
}
