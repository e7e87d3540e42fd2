//! The measure of the openb benchmark: how much of the GPUs is allocated when a given share of the capacity has been asked for.

/// State after one arrival, both in the same unit of GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Asked for by all arrivals so far, placed or not.
    pub requested: u64,
    /// Allocated now.
    pub used: u64,
}

/// Hundredths of a percent of `capacity` that `part` is, rounded, halves up; 0 of nothing.
#[must_use]
pub fn basis_points(part: u64, capacity: u64) -> u64 {
    ratio(part, 10_000, capacity)
}

/// `part` × `scale` / `capacity`, rounded, halves up; 0 of nothing.
fn ratio(part: u64, scale: u128, capacity: u64) -> u64 {
    if capacity == 0 {
        return 0;
    }
    ((2 * u128::from(part) * scale + u128::from(capacity)) / (2 * u128::from(capacity))) as u64
}

/// The mean allocated percentage, each rounded to two places, over the arrivals after which the requested share of `capacity` rounds to
/// each whole percent: (percent, mean), by percent.
#[must_use]
pub fn allocation(steps: &[Step], capacity: u64) -> Vec<(u64, f64)> {
    let mut means: Vec<(u64, f64)> = Vec::new();
    let mut sum: u64 = 0;
    let mut count: u64 = 0;
    for (row, step) in steps.iter().enumerate() {
        let percent = ratio(step.requested, 100, capacity);
        sum += basis_points(step.used, capacity);
        count += 1;
        // What is requested only grows, so equal percentages are adjacent.
        if steps.get(row + 1).is_none_or(|next| ratio(next.requested, 100, capacity) != percent) {
            means.push((percent, sum as f64 / count as f64 / 100.0));
            (sum, count) = (0, 0);
        }
    }
    means
}

/// The mean allocated percentage when `percent` of the capacity has been asked for; none if no arrival falls there.
#[must_use]
pub fn allocation_at(means: &[(u64, f64)], percent: u64) -> Option<f64> {
    means.binary_search_by_key(&percent, |entry| entry.0).ok().map(|row| means[row].1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_are_averaged_by_the_rounded_share_requested() {
        let step = |requested, used| Step { requested, used };
        // Of 1,000: 994 → 99 %, 995 and 1004 → 100 % (halves go up), 1005 → 101 %.
        let means = allocation(&[step(994, 994), step(995, 995), step(1004, 995), step(1004, 998), step(1005, 998)], 1000);
        assert_eq!(means.iter().map(|entry| entry.0).collect::<Vec<_>>(), [99, 100, 101]);
        assert_eq!(allocation_at(&means, 100), Some(99.6));
        assert_eq!(allocation_at(&means, 98), None);
    }

    #[test]
    fn percentages_are_rounded_to_two_places_and_nothing_is_divided_by_zero() {
        assert_eq!(basis_points(1, 3), 3333);
        assert_eq!(basis_points(2, 3), 6667);
        assert_eq!(basis_points(5, 0), 0);
        assert!(allocation(&[], 5).is_empty());
    }
}
