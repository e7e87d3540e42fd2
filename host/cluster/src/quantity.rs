//! Kubernetes quantities, in exact integer arithmetic.
//!
//! `100m`, `1.5`, `2Gi`, `1e3`, `500n`: a decimal number and a suffix that is a power of ten (`n u m k M G T P E`), a power of 1024
//! (`Ki Mi Gi Ti Pi Ei`) or a decimal exponent. The grammar is that of `k8s.io/apimachinery/pkg/api/resource`. What is finer than a
//! billionth is rounded up there and here; who asks for a coarser unit says which way to round: requests up, what a node has down, so
//! that nobody is promised what is not there.

use std::{fmt, str::FromStr};

use thiserror::Error;

/// Billionths in one.
const NANO: i128 = 1_000_000_000;
/// The longest text that is read: longer ones have more digits than any amount.
pub const LENGTH_MAX: usize = 64;
/// The most zeros that a suffix or exponent moves the point by; beyond, the amount is out of range whatever its digits are.
const EXPONENT_MAX: u32 = 27;

/// A quantity, in billionths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Quantity(i128);

/// Which way an amount between two whole numbers goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Round {
    /// To the smaller: for what a node has.
    Down,
    /// To the larger: for what a pod asks.
    Up,
}

/// Why a text is no quantity, or not one that can be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum QuantityError {
    /// Not of the form.
    #[error("{0:?} is not a quantity; write a number with a suffix like 100m, 2 or 4Gi")]
    Form(String),
    /// More than can be counted.
    #[error("{0:?} is more than can be counted; write a smaller amount")]
    Range(String),
    /// Less than nothing.
    #[error("{0:?} is less than nothing; write an amount of 0 or more")]
    Negative(String),
}

impl Quantity {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// So many whole units.
    #[must_use]
    pub fn units(units: u64) -> Self {
        Self(i128::from(units) * NANO)
    }

    /// Reads a quantity of 0 or more.
    ///
    /// # Errors
    /// A [`QuantityError`] that quotes the text.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        let quote = || text.chars().take(LENGTH_MAX).collect::<String>();
        if text.len() > LENGTH_MAX {
            return Err(QuantityError::Form(quote()));
        }
        let (negative, rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
        let (whole, rest) = rest.split_at(digits(rest));
        let (part, suffix) = match rest.strip_prefix('.') {
            Some(rest) => rest.split_at(digits(rest)),
            None => ("", rest),
        };
        if whole.is_empty() && part.is_empty() {
            return Err(QuantityError::Form(quote()));
        }
        let unit = Unit::parse(suffix).ok_or_else(|| QuantityError::Form(quote()))?;
        let nanos = unit.nanos(whole, part).ok_or_else(|| QuantityError::Range(quote()))?;
        if negative && nanos > 0 { Err(QuantityError::Negative(quote())) } else { Ok(Self(nanos)) }
    }

    /// The amount in units of `numerator / denominator`: `(1, 1000)` for thousandths, `(1 << 20, 1)` for MiB of an amount in bytes.
    /// None if it does not fit.
    #[must_use]
    pub fn count(self, (numerator, denominator): (u32, u32), round: Round) -> Option<u64> {
        let scaled = self.0.checked_mul(i128::from(denominator))?;
        let unit = i128::from(numerator) * NANO;
        let counted = match round {
            Round::Down => scaled / unit,
            Round::Up => scaled.checked_add(unit - 1)? / unit,
        };
        u64::try_from(counted).ok()
    }

    /// In thousandths: milli-cores.
    #[must_use]
    pub fn milli(self, round: Round) -> Option<u64> {
        self.count((1, 1000), round)
    }

    /// Bytes, in MiB.
    #[must_use]
    pub fn mib(self, round: Round) -> Option<u64> {
        self.count((1 << 20, 1), round)
    }

    /// In whole units.
    #[must_use]
    pub fn whole(self, round: Round) -> Option<u64> {
        self.count((1, 1), round)
    }

    /// The sum of both, at most the largest that can be counted.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// Whether it is nothing.
    #[must_use]
    pub fn is_zero(self) -> bool {
        self.0 == 0
    }
}

/// What a suffix multiplies by.
enum Unit {
    /// A power of ten, possibly negative.
    Ten(i32),
    /// A power of 1024.
    Binary(u32),
}

impl Unit {
    fn parse(suffix: &str) -> Option<Self> {
        const DECIMAL: [(&str, i32); 10] =
            [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
        const BINARY: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
        if let Some((_, power)) = DECIMAL.iter().find(|known| known.0 == suffix) {
            return Some(Self::Ten(*power));
        }
        if let Some(row) = BINARY.iter().position(|known| *known == suffix) {
            return Some(Self::Binary(row as u32 + 1));
        }
        let exponent = suffix.strip_prefix(['e', 'E'])?;
        let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
            return None;
        }
        // An exponent that does not fit moves every digit out of range, or below a billionth.
        let size: i32 = digits.parse().unwrap_or(i32::MAX);
        Some(Self::Ten(if exponent.starts_with('-') { -size } else { size }))
    }

    /// Billionths of `whole.part` of these units, what is finer rounded up; none if that is too much.
    fn nanos(&self, whole: &str, part: &str) -> Option<i128> {
        let whole = whole.trim_start_matches('0');
        let part = part.trim_end_matches('0');
        if whole.is_empty() && part.is_empty() {
            return Some(0);
        }
        match self {
            Self::Ten(power) => decimal(whole, part, power.saturating_add(9)),
            Self::Binary(power) => {
                // Digits × 1024^power × 10^9 / 10^(digits behind the point), the division last and rounded up.
                let digits = value(whole, part)?;
                let scaled = digits.checked_mul(1i128 << (10 * power))?.checked_mul(NANO)?;
                let divisor = 10i128.checked_pow(part.len() as u32)?;
                Some(scaled.checked_add(divisor - 1)? / divisor)
            }
        }
    }
}

/// The number that the digits before and behind the point make without it.
fn value(whole: &str, part: &str) -> Option<i128> {
    whole.bytes().chain(part.bytes()).try_fold(0i128, |sum, digit| sum.checked_mul(10)?.checked_add(i128::from(digit - b'0')))
}

/// `whole.part` × 10^power, rounded up.
fn decimal(whole: &str, part: &str, power: i32) -> Option<i128> {
    // Texts have at most 64 characters.
    let shift = power.saturating_sub(i32::try_from(part.len()).unwrap_or(i32::MAX));
    if let Ok(up) = u32::try_from(shift) {
        return if up > EXPONENT_MAX { None } else { value(whole, part)?.checked_mul(10i128.pow(up)) };
    }
    // Digits that fall below the unit only matter by being there.
    let digits = whole.len() + part.len();
    let lost = shift.unsigned_abs() as usize;
    let kept = digits.saturating_sub(lost);
    let (front, back) = if kept <= whole.len() { (&whole[..kept], "") } else { (whole, &part[..kept - whole.len()]) };
    // Neither ends nor begins with zeros only, so something was lost unless all of it was zeros in the middle.
    let rest = whole.bytes().chain(part.bytes()).skip(kept).any(|digit| digit != b'0');
    value(front, back)?.checked_add(i128::from(rest))
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        Self::parse(text)
    }
}

/// In units, with up to nine digits behind the point.
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, part) = (self.0 / NANO, self.0 % NANO);
        if part == 0 {
            return write!(f, "{whole}");
        }
        write!(f, "{whole}.{}", format!("{part:09}").trim_end_matches('0'))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nanos(text: &str) -> i128 {
        Quantity::parse(text).unwrap_or_else(|error| panic!("{error}")).0
    }

    #[test]
    fn every_suffix() {
        for (text, milli) in [
            ("1", 1000),
            ("100m", 100),
            ("1.5", 1500),
            (".5", 500),
            ("2.", 2000),
            ("+3", 3000),
            ("1k", 1_000_000),
            ("1e3", 1_000_000),
            ("1E3", 1_000_000),
            ("1e-3", 1),
            ("1000000u", 1000),
            ("1000000000n", 1000),
            ("1Ki", 1_024_000),
            ("0.5Ki", 512_000),
            ("1.5Mi", 1_572_864_000),
            ("1M", 1_000_000_000),
            ("0", 0),
            ("-0", 0),
            ("0E", 0),
            ("000.000Gi", 0),
            ("0e999999999999", 0),
        ] {
            assert_eq!(nanos(text), milli * 1_000_000, "{text}");
        }
        let powers = ["k", "M", "G", "T", "P", "E"];
        for (row, (decimal, binary)) in powers.iter().zip(["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"]).enumerate() {
            assert_eq!(nanos(&format!("3{decimal}")), 3 * 1000i128.pow(row as u32 + 1) * NANO);
            assert_eq!(nanos(&format!("3{binary}")), 3 * 1024i128.pow(row as u32 + 1) * NANO);
        }
    }

    #[test]
    fn finer_than_a_billionth_is_rounded_up_and_the_caller_chooses_for_the_rest() {
        assert_eq!([nanos("0.1n"), nanos("1e-30"), nanos("1.0000000001"), nanos("0.0000000010")], [1, 1, NANO + 1, 1]);
        let third = Quantity::parse("1.2345").unwrap();
        assert_eq!((third.milli(Round::Up), third.milli(Round::Down)), (Some(1235), Some(1234)));
        let bytes = Quantity::parse("1Gi").unwrap().plus(Quantity::units(1));
        assert_eq!((bytes.mib(Round::Up), bytes.mib(Round::Down), bytes.to_string().as_str()), (Some(1025), Some(1024), "1073741825"));
        assert_eq!((Quantity::ZERO.milli(Round::Up), third.to_string().as_str()), (Some(0), "1.2345"));
    }

    #[test]
    fn what_is_no_quantity_is_quoted() {
        for text in ["", ".", "-", "1.2.3", "1 Gi", "1gi", "1mi", "1K", "ten", "1e", "1e+", "1e1.5", "0x10", "१", "1Gi ", "--1", "∞"] {
            assert_eq!(Quantity::parse(text), Err(QuantityError::Form(text.into())), "{text}");
        }
        assert_eq!(Quantity::parse("-1m"), Err(QuantityError::Negative("-1m".into())));
        for text in ["1e99", "99999999999999999999999999999999999999Ei", "9e2147483647"] {
            assert_eq!(Quantity::parse(text), Err(QuantityError::Range(text.into())), "{text}");
        }
        let long = "1".repeat(LENGTH_MAX + 1);
        assert_eq!(Quantity::parse(&long), Err(QuantityError::Form("1".repeat(LENGTH_MAX))));
        assert_eq!(
            Quantity::parse("9E").unwrap().milli(Round::Up),
            Some(9_000_000_000_000_000_000_000u128).and_then(|n| n.try_into().ok())
        );
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,80}") {
            drop(Quantity::parse(&text));
        }

        #[test]
        fn what_is_printed_is_read_back(nanos in 0..i128::from(u64::MAX) * NANO) {
            prop_assert_eq!(Quantity::parse(&Quantity(nanos).to_string()), Ok(Quantity(nanos)));
        }

        #[test]
        fn a_number_with_a_point_is_the_fraction_that_it_says(whole in 0u32.., part in 0u32..1_000_000_000, digits in 1usize..=9, binary: bool) {
            let part = part % 10u32.pow(digits as u32);
            let text = format!("{whole}.{part:0digits$}{}", if binary { "Mi" } else { "M" });
            let unit: i128 = if binary { 1 << 20 } else { 1_000_000 };
            let scale = 10i128.pow(digits as u32);
            let exact = (i128::from(whole) * scale + i128::from(part)) * unit * NANO;
            prop_assert_eq!(nanos(&text), (exact + scale - 1) / scale);
        }

        #[test]
        fn rounding_brackets(nanos in 0..i128::from(u64::MAX)) {
            let (down, up) = (Quantity(nanos).milli(Round::Down).unwrap(), Quantity(nanos).milli(Round::Up).unwrap());
            prop_assert!(up - down <= 1 && i128::from(down) * 1_000_000 <= nanos && nanos <= i128::from(up) * 1_000_000);
            prop_assert_eq!(up == down, nanos % 1_000_000 == 0);
        }

        #[test]
        fn exponents_are_powers_of_ten(digits in 1u64..1_000_000, power in 0u32..=12) {
            let text = format!("{digits}{}", "0".repeat(power as usize));
            prop_assert_eq!(nanos(&format!("{digits}e{power}")), nanos(&text));
            prop_assert_eq!(nanos(&format!("{text}e-{power}")), nanos(&digits.to_string()));
        }
    }
}
