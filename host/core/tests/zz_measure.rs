#![allow(clippy::all, clippy::pedantic, missing_docs)]
use partita_core::{layout::*, model::catalog};
use std::time::Instant;
struct R(u64);
impl R {
    fn n(&mut self, m: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 33) as u32) % m
    }
}
#[test]
fn measure() {
    for name in ["A30", "A100-80GB", "H100-80GB", "B200-180GB", "RTX-PRO-6000-Blackwell-96GB"] {
        let grid = catalog::builtin(name).unwrap().grid.unwrap();
        let t = Instant::now();
        let l = Layouts::of(&grid).unwrap();
        let built = t.elapsed();
        let mut plain = grid.clone();
        plain.profiles.retain(|p| p.name.ends_with("gb"));
        let pl = Layouts::of(&plain).unwrap();
        let classes: std::collections::BTreeSet<_> = l.all().map(|s| l.room(s).as_ptr() as usize).collect();
        let fronts = l.all().map(|s| l.most(s).len()).max();
        println!(
            "{name}: {} layouts, {} plain, {} classes, largest front {:?} (empty {}), built {built:?}",
            l.count(),
            pl.count(),
            classes.len(),
            fronts,
            l.most(l.empty()).len()
        );
    }
    let grid = catalog::builtin("H100-80GB").unwrap().grid.unwrap();
    let l = Layouts::of(&grid).unwrap();
    let empty = Occupancy::new(&l, 0, &[], &[]).unwrap();
    let g3 = [empty; 3];
    let w = [Want::same(2, 13, 3)];
    let t = Instant::now();
    for _ in 0..1000 {
        assert!(pack(std::hint::black_box(&g3), &w).is_impossible());
    }
    println!("13x1g.20gb: {:?}", t.elapsed() / 1000);
    let g8 = [empty; 8];
    for (w, n) in [
        (vec![Want::same(0, 1, 8)], "1x1g"),
        (vec![Want::same(2, 4, 8), Want::same(4, 2, 8)], "4x1g2+2x3g"),
        (vec![Want::same(0, 56, 8)], "56x1g"),
        (vec![Want::same(0, 7, 8), Want::same(3, 5, 8), Want::same(4, 6, 8), Want::same(5, 3, 8)], "4 kinds"),
    ] {
        let t = Instant::now();
        let mut r = None;
        for _ in 0..100 {
            r = Some(pack(std::hint::black_box(&g8), &w));
        }
        println!("{n}: {:?} {:?}", t.elapsed() / 100, r.unwrap().plan().map(|p| (p.cost, p.cheapest)));
    }
    // adversarial
    let mut r = R(88172645463325252);
    let mut times: Vec<(u128, String)> = vec![];
    let (mut yes, mut no, mut und) = (0, 0, 0);
    for i in 0..3000 {
        let mut states = vec![];
        for _ in 0..8 {
            let mut s = l.empty();
            for _ in 0..r.n(if i % 3 == 0 { 1 } else { 6 }) {
                let p = r.n(7) as u8;
                let f: Vec<_> = l.feasible(s, p).collect();
                if !f.is_empty() {
                    s = l.with(s, f[r.n(f.len() as u32) as usize]).unwrap();
                }
            }
            let mut keep = vec![];
            let mut warm = vec![];
            for p in l.placements(s) {
                if r.n(2) == 0 { keep.push(p) } else { warm.push(p) }
            }
            states.push(Occupancy::new(&l, 0, &keep, &warm).unwrap());
        }
        let free: u32 = states.iter().map(|o| 8 - l.slots(o.used()).len()).sum();
        let mut left = (free * (80 + r.n(25)) / 100) as i32;
        let mut counts = [0u32; 7];
        let sizes = [1, 1, 2, 2, 4, 4, 8];
        let mut tries = 0;
        while left > 0 && tries < 200 {
            tries += 1;
            let k = r.n(7) as usize;
            if sizes[k] <= left {
                counts[k] += 1;
                left -= sizes[k];
            }
        }
        if i % 2 == 0 {
            counts[0] += counts[1];
            counts[1] = 0;
        }
        let wants: Vec<_> = (0..7).map(|k| Want::same(k as u8, counts[k], 8)).collect();
        let t = Instant::now();
        let v = possible(&states, &wants);
        let d = t.elapsed().as_nanos();
        match v {
            Verdict::Possible(_) => yes += 1,
            Verdict::Impossible => no += 1,
            _ => und += 1,
        }
        let t = Instant::now();
        let p = pack(&states, &wants);
        let d2 = t.elapsed().as_nanos();
        times.push((
            d.max(d2),
            format!(
                "{counts:?} possible {d} pack {d2} {:?}",
                match p {
                    Verdict::Possible(p) => format!("cheapest {}", p.cheapest),
                    Verdict::Impossible => "no".into(),
                    _ => "und".into(),
                }
            ),
        ));
    }
    times.sort();
    println!("yes {yes} no {no} undecided {und}");
    for q in [50, 90, 99] {
        println!("p{q} {} ", times[times.len() * q / 100].0);
    }
    for t in times.iter().rev().take(5) {
        println!("{t:?}");
    }
}
