//! The benchmark of a pod's whole way, in small: it measures what it says. Where a machine cannot run containers this says so and passes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::io::{self, Write};

use partita_bench::agent::{self, PARTS, Size};
use partita_policy::{Host, HostConfig};

#[test]
fn every_part_of_the_way_is_measured() {
    let mut config = HostConfig::new().unwrap();
    config.compiler.program = env!("CARGO_BIN_EXE_partita-bench").into();
    let host = Host::new(config).unwrap();
    let figures = match agent::run(Size { rounds: 2, gpus: 1, plain: 2 }, host, &|_| ()).unwrap() {
        Ok(figures) => figures,
        Err(why) => {
            // Past the capture of what tests print, as nobody looks at those that pass.
            io::stderr().write_all(format!("skipped, no real node on this machine: {why}\n").as_bytes()).unwrap();
            return;
        }
    };
    assert!(figures.holds(), "{figures:#?}");
    let [new, free, whole, taken, warm, plain] = &figures.ways[..] else { panic!("{figures:#?}") };
    // Seven of the first profile on an empty GPU, then three larger ones in their place.
    assert_eq!([new, free, whole, taken, warm, plain].map(|sort| sort.pods), [10, 6, 1, 3, 10, 2]);
    for sort in [new, free, whole, taken] {
        let parts: Vec<[f64; 2]> = PARTS.iter().map(|part| sort.part(part).unwrap()).collect();
        assert!(parts.iter().all(|[p50, p99]| p50 <= p99), "{sort:#?}");
        // What is seen one after the other, and what the agent measured of itself.
        assert!([0, 1, 2, 3, 7].into_iter().all(|part: usize| parts[part][0] > 0.0), "{sort:#?}");
    }
    for sort in [warm, plain] {
        assert_eq!(sort.parts.iter().map(|one| one.part).collect::<Vec<_>>(), PARTS[6..], "{sort:#?}");
    }
    let [new, warm, plain] = &figures.bursts[..] else { panic!("{figures:#?}") };
    assert_eq!([new, warm, plain].map(|burst| (burst.pods, burst.made)), [(7, 7), (7, 0), (7, 0)]);
    assert!((1..=7).contains(&new.layouts) && new.gpu.0 > 0 && new.kubelet.0 == 7, "{new:#?}");
    assert_eq!((warm.layouts, plain.layouts), (0, 0));
    let (titles, rows) = figures.parts();
    assert_eq!(rows.len(), PARTS.len() + 1);
    assert!(rows.iter().all(|row| row.len() == titles.len()));
}
