//! probe
#[path = "red_team/support.rs"]
#[allow(dead_code, clippy::unwrap_used, reason = "probe")]
mod support;
#[test]
fn probe() {
    for a in ["loop", "recurse", "grow", "trap", "panic", "index", "huge-reply", "log-flood", "impure", "short", "fill"] {
        let mut p = support::attacker(a);
        let mut f = support::ask(&mut p, 1);
        if f.is_ok() {
            f = support::ask(&mut p, 1);
        }
        println!("{a}: {}", f.unwrap_err());
    }
    for p in partita_policies::all() {
        let b = support::host().load_bundled(p.name, "", Default::default()).unwrap().policy.bench().unwrap();
        println!("{} inst {:.0} us", p.name, b.instantiate_us);
        for r in b.rows {
            println!(
                "   {} cand {} fuel {} ({:.1}%) score {:.1} us lower {:.1} us mem {}",
                r.gpus,
                r.candidates,
                r.fuel,
                r.fuel_share * 100.0,
                r.score_us,
                r.lower_us,
                r.memory_bytes
            );
        }
    }
}
