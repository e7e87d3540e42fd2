//! Random numbers that are the same on every machine: whole numbers all the way, no floating-point function.

/// The generator `SplitMix64` (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014).
pub(crate) struct SplitMix64(pub(crate) u64);

impl SplitMix64 {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, by multiplication (the bias is below 2^-32 here).
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// A row of `weights`, each as likely as it weighs.
    pub(crate) fn weighted(&mut self, weights: impl Iterator<Item = u64> + Clone) -> usize {
        let mut left = self.below(weights.clone().sum());
        for (row, weight) in weights.enumerate() {
            if left < weight {
                return row;
            }
            left -= weight;
        }
        0
    }

    /// An exponentially distributed number of this mean, to the nearest; the mean stays below 2^56, so that nothing overflows.
    ///
    /// Von Neumann's method ("Various techniques used in connection with random digits", 1951) compares numbers where others take a
    /// logarithm, whose last digit differs between machines. The descending run that begins with u ends after an odd number of draws with
    /// probability e^-u; if it does, u is the part of the result below 1, and otherwise the result is larger by 1.
    pub(crate) fn exponential(&mut self, mean: u64) -> u64 {
        let mut whole: u128 = 0;
        loop {
            let first = self.next();
            let (mut last, mut odd) = (first, true);
            loop {
                let next = self.next();
                if next >= last {
                    break;
                }
                (last, odd) = (next, !odd);
            }
            if odd {
                let mean = u128::from(mean);
                return (whole * mean + ((u128::from(first) * mean + (1 << 63)) >> 64)) as u64;
            }
            whole += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mean, variance and the share above the mean, each within four of its standard errors.
    #[test]
    fn exponential_numbers_are_distributed_so() {
        const DRAWS: usize = 100_000;
        let mut random = SplitMix64(3);
        let draws: Vec<f64> = (0..DRAWS).map(|_| random.exponential(1_000_000) as f64 / 1e6).collect();
        let moment = |power: i32| draws.iter().map(|draw| draw.powi(power)).sum::<f64>() / DRAWS as f64;
        let error = |variance: f64| 4.0 * (variance / DRAWS as f64).sqrt();
        // The moments are the factorials: 1, 2, 6, 24; the squared draws vary by 24 - 2 * 2.
        assert!((moment(1) - 1.0).abs() < error(1.0), "{}", moment(1));
        assert!((moment(2) - 2.0).abs() < error(20.0), "{}", moment(2));
        for above in [0.1, 1.0, 2.5] {
            let (share, expected) = (draws.iter().filter(|draw| **draw > above).count() as f64 / DRAWS as f64, (-above).exp());
            assert!((share - expected).abs() < error(expected * (1.0 - expected)), "{share} above {above}, not {expected}");
        }
    }

    #[test]
    fn weights_are_kept() {
        let mut random = SplitMix64(5);
        let mut counts = [0u32; 3];
        for _ in 0..10_000 {
            counts[random.weighted([1, 0, 3].into_iter())] += 1;
        }
        assert!((counts[0].cast_signed() - 2500).abs() < 4 * 44 && counts[1] == 0, "{counts:?}");
    }
}
