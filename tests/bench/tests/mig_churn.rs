//! The order of policies under churn, in small; `partita-bench mig-churn` does it in full.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use partita_bench::mig_churn::{Job, RULES, plain, run};
use partita_policy::{Host, HostConfig};
use partita_sim::churn::{ChurnMix, Figures};

fn figures(host: &Host, mix: &str, policy: &'static str) -> Figures {
    let mix = ChurnMix::by_name(mix).unwrap();
    run(host, &Job { mix, rule: plain(policy), gpus: 40, node_gpus: 4, requests: 3000, seeds: 2, native: true }, &|| ()).unwrap().figures
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

/// Moves are the policy's business too, so its two forms must agree on them; and both kinds of move must help.
#[test]
fn moves_help_and_are_the_same_in_both_forms() {
    let mut config = HostConfig::new().unwrap();
    config.compiler.program = env!("CARGO_BIN_EXE_partita-bench").into();
    let host = Host::new(config).unwrap();
    let mix = ChurnMix::by_name("uniform").unwrap();
    let figures = |name: &str, native| {
        let rule = *RULES.iter().find(|rule| rule.name == name).unwrap();
        run(&host, &Job { mix, rule, gpus: 24, node_gpus: 4, requests: 1500, seeds: 1, native }, &|| ()).unwrap().figures
    };
    let plain = figures("fragmentation", true);
    for moving in ["tidy", "2 moves"] {
        let (native, component) = (figures(moving, true), figures(moving, false));
        assert_eq!(native, component);
        assert!(native.in_use.mean > plain.in_use.mean + 0.5, "{moving}: {:?} against {:?}", native.in_use, plain.in_use);
    }
}
