//! Numbers for people.

/// A count with its thousands apart.
pub(super) fn count(number: usize) -> String {
    thousands(&number.to_string())
}

/// Digits with their thousands apart.
pub(super) fn thousands(digits: &str) -> String {
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (row, digit) in digits.chars().enumerate() {
        if row > 0 && (digits.len() - row).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A count with its noun.
pub(super) fn plural(number: usize, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
}

/// A percentage.
pub(super) fn percent(value: f64) -> String {
    format!("{value:.1} %")
}

/// A duration in the unit that keeps it short.
pub(super) fn duration(seconds: f64) -> String {
    match seconds {
        s if s <= 0.0 => "0 s".to_owned(),
        s if s < 10.0 => format!("{s:.1} s"),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.1} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3600.0),
        s => format!("{:.1} d", s / 86_400.0),
    }
}

/// A time of the machine.
pub(super) fn micros(us: f64) -> String {
    match us {
        us if us < 10.0 => format!("{us:.1} µs"),
        us if us < 1000.0 => format!("{us:.0} µs"),
        us if us < 1e6 => format!("{:.1} ms", us / 1e3),
        us => format!("{:.1} s", us / 1e6),
    }
}

/// The unit in which durations up to `seconds` are best drawn, and its length in seconds.
pub(super) fn unit(seconds: f64) -> (&'static str, f64) {
    match seconds {
        s if s < 300.0 => ("seconds", 1.0),
        s if s < 3.0 * 3600.0 => ("minutes", 60.0),
        s if s < 4.0 * 86_400.0 => ("hours", 3600.0),
        _ => ("days", 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_have_their_unit() {
        assert_eq!([0, 999, 1000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!((plural(1, "pod", "pods"), plural(0, "pod", "pods")), ("1 pod".into(), "0 pods".into()));
        assert_eq!([0.0, 0.25, 59.4, 846.0, 13_837.0, 400_000.0].map(duration), ["0 s", "0.2 s", "59 s", "14.1 min", "3.8 h", "4.6 d"]);
        assert_eq!([0.34, 76.3, 1500.0, 2e6].map(micros), ["0.3 µs", "76 µs", "1.5 ms", "2.0 s"]);
        assert_eq!(unit(70_000.0), ("hours", 3600.0));
    }
}
