//! What several runs of one experiment say together: a mean, and how far it may be off.

use serde::Serialize;

/// The mean of runs that differ in their random numbers only, and how sure it is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// Mean of the runs, in their unit.
    pub mean: f64,
    /// Half the width of the 95 % confidence interval by Student's t, in the same unit; none with fewer than two runs.
    pub margin: Option<f64>,
}

impl Estimate {
    /// Of the results of independent runs. Of none, the mean is 0.
    #[must_use]
    pub fn of(results: &[f64]) -> Self {
        let count = results.len() as f64;
        let mean = if results.is_empty() { 0.0 } else { results.iter().sum::<f64>() / count };
        let margin = (results.len() > 1).then(|| {
            let squares: f64 = results.iter().map(|result| (result - mean) * (result - mean)).sum();
            let freedom = results.len() - 1;
            student_t(freedom) * (squares / freedom as f64 / count).sqrt()
        });
        Self { mean, margin }
    }
}

/// What Student's t exceeds in size with a probability of 5 %, by degrees of freedom from 1: NIST/SEMATECH e-Handbook of Statistical
/// Methods, 1.3.6.7.2.
const STUDENT_T: [f64; 9] = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262];
/// The same of the normal distribution.
const NORMAL: f64 = 1.959_964;

/// What Student's t with so many degrees of freedom exceeds in size with a probability of 5 %: from the table, and beyond it by the
/// expansion 26.7.5 of Abramowitz and Stegun, "Handbook of Mathematical Functions", which is right to four places there.
fn student_t(freedom: usize) -> f64 {
    if let Some(value) = freedom.checked_sub(1).and_then(|row| STUDENT_T.get(row)) {
        return *value;
    }
    let (z, square, inverse) = (NORMAL, NORMAL * NORMAL, 1.0 / freedom as f64);
    let terms = [
        z * (square + 1.0) / 4.0,
        z * ((5.0 * square + 16.0) * square + 3.0) / 96.0,
        z * (((3.0 * square + 19.0) * square + 17.0) * square - 15.0) / 384.0,
    ];
    z + inverse * (terms[0] + inverse * (terms[1] + inverse * terms[2]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn student_t_is_that_of_the_tables() {
        let published = [(1, 12.706), (9, 2.262), (10, 2.228), (11, 2.201), (19, 2.093), (30, 2.042), (100, 1.984), (1_000_000, 1.960)];
        for (freedom, value) in published {
            assert!((student_t(freedom) - value).abs() < 6e-4, "{freedom}: {} instead of {value}", student_t(freedom));
        }
        assert!((1..200).all(|freedom| student_t(freedom) > student_t(freedom + 1)));
    }

    #[test]
    fn an_estimate_by_hand() {
        // Mean 4, squared differences 4 + 0 + 4 over 2, over 3: 4.303 * sqrt(4 / 3) = 4.9687.
        let estimate = Estimate::of(&[2.0, 4.0, 6.0]);
        assert!((estimate.mean - 4.0).abs() < 1e-12 && (estimate.margin.unwrap() - 4.9687).abs() < 1e-4, "{estimate:?}");
        assert_eq!(Estimate::of(&[7.0]), Estimate { mean: 7.0, margin: None });
        assert_eq!(Estimate::of(&[]), Estimate { mean: 0.0, margin: None });
        assert_eq!(Estimate::of(&[7.0, 7.0]).margin, Some(0.0));
    }
}
