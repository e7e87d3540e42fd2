//! From wide scores to the answer's range.

/// Bits of a number that survive below its leading one.
const MANTISSA: u32 = 14;

/// Brings any score into the range of an answer, keeping its order: what is equal stays equal, what is larger never becomes smaller.
///
/// The host wants scores within [`SCORE_MAX`](crate::SCORE_MAX), and an exact rule has often many more levels than that. The magnitude is
/// rounded towards zero like a small floating-point number with 14 bits below its leading one; so numbers up to 32,767 are kept apart
/// exactly and larger ones merge when they differ by less than 1 in 16,384.
#[must_use]
pub fn compress(score: i64) -> i32 {
    let magnitude = score.unsigned_abs();
    let bits = u64::BITS - magnitude.leading_zeros();
    let level = match bits.checked_sub(MANTISSA + 1) {
        // The leading one of `magnitude >> shift` counts as one step of the exponent, so levels go on without a gap.
        Some(shift) => (shift << MANTISSA) + (magnitude >> shift) as u32,
        None => magnitude as u32,
    };
    if score < 0 { -level.cast_signed() } else { level.cast_signed() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::SCORE_MAX;

    /// Numbers of every magnitude alike.
    fn score() -> impl Strategy<Value = i64> {
        (any::<i64>(), 0..64u32).prop_map(|(number, shift)| number >> shift)
    }

    proptest! {
        #[test]
        fn the_order_is_kept(a in score(), b in score()) {
            let (low, high) = (a.min(b), a.max(b));
            prop_assert!(compress(low) <= compress(high), "{low} and {high}");
        }

        #[test]
        fn neighbours_keep_their_order(a in score()) {
            prop_assert!(compress(a) <= compress(a.saturating_add(1)));
        }

        #[test]
        fn answers_lie_in_the_range(a in score()) {
            prop_assert!(compress(a).abs() <= SCORE_MAX);
            prop_assert_eq!(compress(a), if a == i64::MIN { compress(a) } else { -compress(-a) });
        }

        #[test]
        fn what_differs_by_more_than_one_in_16384_stays_apart(a in 1..i64::MAX / 2) {
            prop_assert!(compress(a + a / (1 << MANTISSA) + 1) > compress(a), "{a}");
        }
    }

    #[test]
    fn small_numbers_are_kept() {
        for number in -32_767..=32_767i32 {
            assert_eq!(compress(number.into()), number);
        }
        assert_eq!((compress(32_768), compress(32_769), compress(32_770)), (32_768, 32_768, 32_769));
    }

    #[test]
    fn the_largest_numbers_fit() {
        assert_eq!((compress(i64::MAX), compress(i64::MIN)), (48 * 16_384 + 32_767, -(49 * 16_384 + 16_384)));
    }
}
