//! The order of policies under churn, in small; `partita-bench mig-churn` does it in full.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use partita_bench::mig_churn::{Job, run};
use partita_core::Reuse;
use partita_policy::{Host, HostConfig};
use partita_sim::churn::{ChurnMix, Figures};

fn figures(host: &Host, mix: &str, policy: &'static str) -> Figures {
    let mix = ChurnMix::by_name(mix).unwrap();
    run(
        host,
        &Job { mix, name: policy, policy, reuse: Reuse::Free, moves: 0, gpus: 40, node_gpus: 4, requests: 3000, seeds: 2, native: true },
        &|| (),
    )
    .unwrap()
    .figures
}

/// The differences at this size are 3 to 5 points and 15 to 20; those of equal policies on two seeds would be none.
#[test]
fn fragmentation_accepts_more_than_first_fit_and_spreading_is_far_below() {
    let host = Host::new(HostConfig::new().unwrap()).unwrap();
    for mix in ["uniform", "bimodal"] {
        let [ours, first_fit, spread] = ["fragmentation", "first-fit", "spread"].map(|policy| figures(&host, mix, policy));
        assert!(ours.in_use.mean > first_fit.in_use.mean + 1.5, "{mix}: {:?} against {:?}", ours.in_use, first_fit.in_use);
        assert!(ours.accepted.mean > first_fit.accepted.mean + 1.0, "{mix}: {:?} against {:?}", ours.accepted, first_fit.accepted);
        assert!(spread.in_use.mean < first_fit.in_use.mean - 10.0, "{mix}: {:?} against {:?}", spread.in_use, first_fit.in_use);
    }
}
