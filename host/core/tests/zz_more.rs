#![allow(clippy::all, clippy::pedantic, missing_docs)]
use partita_core::{layout::*, model::catalog};
use std::time::Instant;
struct R(u64);
impl R { fn n(&mut self, m: u32) -> u32 { self.0 ^= self.0 << 13; self.0 ^= self.0 >> 7; self.0 ^= self.0 << 17; ((self.0 >> 33) as u32) % m } }
#[test]
fn measure() {
    let mut r = R(88172645463325252);
    let l = Layouts::of(&catalog::builtin("H100-80GB").unwrap().grid.unwrap()).unwrap();
    let mut pos = vec![]; let mut und = 0;
    for i in 0..20000 {
        let empty = i % 2 == 0;
        let mut states = vec![];
        for _ in 0..8 {
            let mut s = l.empty();
            for _ in 0..r.n(if empty { 1 } else { 6 }) { let p = r.n(7) as u8; let f: Vec<_> = l.feasible(s, p).collect(); if !f.is_empty() { s = l.with(s, f[r.n(f.len() as u32) as usize]).unwrap(); } }
            let keep: Vec<_> = l.placements(s).filter(|_| r.n(2) == 0).collect();
            states.push(Occupancy::new(&l, 0, &keep, &[]).unwrap());
        }
        let free: u32 = states.iter().map(|o| 8 - l.slots(o.used()).len()).sum();
        let mut left = (free * (75 + r.n(30)) / 100) as i32;
        let mut c = [0u32; 7]; let sizes = [1, 1, 2, 2, 4, 4, 8]; let mut t = 0;
        let w = [1 + r.n(8), 1 + r.n(2), 1 + r.n(6), 1 + r.n(6), 1 + r.n(6), 1 + r.n(6), r.n(2)];
        let sum: u32 = w.iter().sum();
        while left > 0 && t < 200 { t += 1; let mut x = r.n(sum); let mut k = 0; while x >= w[k] { x -= w[k]; k += 1; } if sizes[k] <= left { c[k] += 1; left -= sizes[k]; } }
        let wants: Vec<_> = (0..7).map(|k| Want::same(k as u8, c[k], 8)).collect();
        let t = Instant::now(); let v = possible(&states, &wants); let d = t.elapsed().as_nanos();
        if matches!(v, Verdict::Undecided(_)) { und += 1; println!("{c:?} empty {empty}"); }
        pos.push((d, c, v == Verdict::Impossible));
    }
    pos.sort(); println!("possible p50 {:?} p90 {:?} p99 {:?} p99.9 {:?} max {:?} undecided {und}", pos[10000].0, pos[18000].0, pos[19800].0, pos[19980], pos[19999]);
    let rl = Layouts::of(&catalog::builtin("RTX-PRO-6000-Blackwell-96GB").unwrap().grid.unwrap()).unwrap();
    let g8 = [Occupancy::new(&rl, 0, &[], &[]).unwrap(); 8];
    let mut worst = vec![]; let mut und = 0; let mut no = 0;
    for _ in 0..2000 {
        let mut left = (96 * (70 + r.n(35)) / 100) as i32; let mut c = [0u32; 11]; let mut t = 0;
        let sz = [3,3,3,3,3,6,6,6,6,12,12];
        while left > 0 && t < 100 { t += 1; let k = r.n(11) as usize; if sz[k] <= left { c[k] += 1; left -= sz[k]; } }
        let wants: Vec<_> = (0..11).map(|k| Want::same(k as u8, c[k], 8)).collect();
        let t = Instant::now(); let v = possible(&g8, &wants); let d = t.elapsed().as_nanos();
        match v { Verdict::Impossible => no += 1, Verdict::Undecided(_) => und += 1, _ => {} }
        worst.push((d, c));
    }
    worst.sort(); println!("rtx p50 {:?} p99 {:?} max {:?} no {no} undecided {und}", worst[1000], worst[1980], worst[1999]);
    for wants in [vec![(5u8, 1u32)], vec![(6, 1)], vec![(4, 2), (3, 1)], vec![(2, 4), (0, 3), (4, 1)]] {
        let (mut vt, mut mt, mut n) = (0u128, 0u128, 0); let (mut vmax, mut mmax) = (0, 0); let mut um = 0; let mut found = 0;
        for _ in 0..40 {
            let mut states = vec![]; let mut held = vec![];
            for g in 0..8u8 {
                let mut s = l.empty();
                for _ in 0..12 { let p = [0, 0, 2, 3, 4][r.n(5) as usize] as u8; let f: Vec<_> = l.feasible(s, p).collect(); if !f.is_empty() { s = l.with(s, f[r.n(f.len() as u32) as usize]).unwrap(); } }
                let used: Vec<_> = l.placements(s).filter(|_| r.n(8) != 0).collect();
                for &p in &used { held.push(Held { id: held.len() as u32, gpu: g, placement: p, cost: Some(r.n(100) as u64) }); }
                states.push(Occupancy::new(&l, 0, &used, &[]).unwrap());
            }
            let w: Vec<_> = wants.iter().map(|&(p, c)| Want::same(p, c, 8)).collect();
            let t = Instant::now(); let v = victims(&states, &held, &w); let d = t.elapsed().as_nanos(); vt += d; vmax = vmax.max(d); assert!(v.plan().is_some());
            let t = Instant::now(); let m = moves(&states, &held, &w, 2); let d = t.elapsed().as_nanos(); mt += d; mmax = mmax.max(d); if matches!(m, Verdict::Undecided(_)) { um += 1 } if m.plan().is_some() { found += 1; } n += 1;
        }
        println!("{wants:?}: victims mean {} max {vmax} ns; moves(2) mean {} max {mmax} found {found} undecided {um}", vt / n, mt / n);
    }
    let starts: Vec<u8> = (0..12).collect();
    let p = |n: &str, size: u8, st: &[u8], max: u8| partita_core::model::Profile::new(n, 0, size, 0, st, max);
    for ps in [vec![p("a",1,&starts,12)], vec![p("a",1,&starts,12), p("b",3,&[0,3,6,9],4), p("c", 6, &[0,6], 2)], vec![p("a",1,&starts,3), p("b",1,&starts,2), p("c",2,&starts[..11],2)], vec![p("a",1,&starts,12),p("b",1,&starts,12),p("c",1,&starts,12),p("d",1,&starts,12),p("e",1,&starts,12)],
        (0..16).map(|i| p(&format!("p{i}"), 1, &[i % 12, (i + 1) % 12, (i+5)%12, (i+7)%12], 1)).collect(), (0..8).map(|i| p(&format!("p{i}"), 1, &[0,1,2,3,4], 1)).collect()] {
        let g = partita_core::model::Grid::new(12, 12, ps); let t = Instant::now(); let l = Layouts::of(&g); println!("hostile {:?} {:?}", l.map(|l| (l.count(), l.most(l.empty()).len())).map_err(|e| e.to_string()), t.elapsed());
    }
}
