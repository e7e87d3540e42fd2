//! Amounts as people write them: cpu, memory, seconds, counts.

use crate::error::Fault;

/// The most cpu of a node or a pod, milli-cores: a million cores, some thousand times the largest machine. Beyond it the unit is wrong.
pub(crate) const CPU_MILLI_MAX: u32 = 1_000_000_000;
/// The most memory of a node or a pod, MiB: 1 PiB.
pub(crate) const MEMORY_MIB_MAX: u32 = 1 << 30;
/// Milliseconds in a second, and milli-cores in a core.
const THOUSAND: u64 = 1000;
/// The longest time that a trace may name: ten years, in seconds. Beyond it a wrong unit is likelier than a wish.
const SECONDS_MAX: u64 = 10 * 366 * 86_400;

/// A decimal number with at most `places` digits after the point, scaled by ten to the `places`.
fn decimal(text: &str, places: usize) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').map_or((text, ""), |(whole, fraction)| (whole, fraction));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || fraction.len() > places || text.ends_with('.') {
        return None;
    }
    format!("{whole}{fraction:0<places$}").parse().ok()
}

/// Cpu in milli-cores: `2`, `0.5` or `500m`.
pub(crate) fn cpu_milli(text: &str) -> Result<u32, Fault> {
    let milli = match text.strip_suffix('m') {
        Some(milli) => decimal(milli, 0),
        None => decimal(text, 3),
    };
    let milli = milli.ok_or_else(|| Fault::new("is not an amount of cpu", "write cores, 2 or 0.5, or milli-cores, 500m").value(text))?;
    let much = || {
        let cores = CPU_MILLI_MAX / THOUSAND as u32;
        Fault::new("is more cpu than any machine has", format!("check the unit; the limit is {cores} cores")).value(text)
    };
    u32::try_from(milli).ok().filter(|milli| *milli <= CPU_MILLI_MAX).ok_or_else(much)
}

/// Which way an amount that is no whole MiB is rounded: what a node has down, what a pod asks up.
#[derive(Clone, Copy)]
pub(crate) enum Round {
    Down,
    Up,
}

/// Memory in MiB: `16Gi`, `512Mi`, `1.5Ti`, `1056270936Ki`, `16G`.
pub(crate) fn memory_mib(text: &str, round: Round) -> Result<u32, Fault> {
    const UNITS: [(&str, u128); 8] = [
        ("Ki", 1 << 10),
        ("Mi", 1 << 20),
        ("Gi", 1 << 30),
        ("Ti", 1 << 40),
        ("k", 1000),
        ("M", 1_000_000),
        ("G", 1_000_000_000),
        ("T", 1_000_000_000_000),
    ];
    let wrong = || Fault::new("is not an amount of memory", "write a number and a unit, such as 512Mi or 16Gi").value(text);
    let (number, unit) = UNITS.iter().find_map(|&(name, unit)| Some((text.strip_suffix(name)?, unit))).ok_or_else(wrong)?;
    let thousandths = decimal(number, 3).ok_or_else(wrong)?;
    let mib = u128::from(THOUSAND) << 20;
    let amount = u128::from(thousandths) * unit;
    let amount = match round {
        Round::Down => amount / mib,
        Round::Up => amount.div_ceil(mib),
    };
    let much = || {
        let tib = MEMORY_MIB_MAX >> 20;
        Fault::new("is more memory than any machine has", format!("check the unit; the limit is {tib}Ti")).value(text)
    };
    u32::try_from(amount).ok().filter(|mib| *mib <= MEMORY_MIB_MAX).ok_or_else(much)
}

/// Seconds, with up to three decimals, in milliseconds.
pub(crate) fn seconds_ms(text: &str) -> Result<u64, Fault> {
    let wrong = || Fault::new("is not a time in seconds", "write seconds since the start, such as 90 or 0.250").value(text);
    let ms = decimal(text, 3).ok_or_else(wrong)?;
    if ms > SECONDS_MAX * THOUSAND {
        return Err(Fault::new("is more than ten years", "write seconds").value(text));
    }
    Ok(ms)
}

/// A whole number up to `max`.
pub(crate) fn count(text: &str, max: u64, unit: &str) -> Result<u64, Fault> {
    let wrong = || Fault::new(format!("is not a whole number of {unit}"), format!("write 0 to {max}")).value(text);
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    let number: u64 = text.parse().map_err(|_| wrong())?;
    if number > max {
        return Err(Fault::new(format!("is too large for {unit}"), format!("the limit is {max}")).value(text));
    }
    Ok(number)
}

/// [`count`] that fits 32 bits.
pub(crate) fn count32(text: &str, max: u32, unit: &str) -> Result<u32, Fault> {
    count(text, max.into(), unit).map(|number| number as u32)
}

/// A signed number of 32 bits.
pub(crate) fn signed(text: &str, what: &str) -> Result<i32, Fault> {
    text.parse().map_err(|_| Fault::new(format!("is not a {what}"), "write a whole number, such as 0 or 1000").value(text))
}

/// Yes or no.
pub(crate) fn flag(text: &str) -> Result<bool, Fault> {
    text.parse().map_err(|_| Fault::new("is neither true nor false", "write true or false").value(text))
}

/// A name: what people and reports call a thing.
pub(crate) fn name(text: &str) -> Result<&str, Fault> {
    if text.is_empty() {
        return Err(Fault::new("is empty", "give it a name"));
    }
    if text.len() > NAME_MAX {
        return Err(Fault::new("is too long for a name", format!("the limit is {NAME_MAX} bytes")).value(text));
    }
    if text.trim() != text || text.chars().any(char::is_control) {
        return Err(Fault::new("has control characters, or blanks around it", "remove them").value(text));
    }
    Ok(text)
}

/// The longest name, in bytes: that of Kubernetes.
const NAME_MAX: usize = 253;

/// GPU models as `A30|T4`; sorted, each once.
pub(crate) fn models(text: &str) -> Result<Vec<String>, Fault> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let one = |model: &str| name(model).map(str::to_owned).map_err(|fault| fault.value(text));
    let mut models = text.split('|').map(one).collect::<Result<Vec<_>, _>>()?;
    models.sort_unstable();
    models.dedup();
    Ok(models)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_as_people_write_them() {
        let cpu = [("2", 2000), ("0.5", 500), ("500m", 500), ("0", 0), ("1.125", 1125), ("1000000", CPU_MILLI_MAX)];
        for (text, milli) in cpu {
            assert_eq!(cpu_milli(text), Ok(milli), "{text}");
        }
        let memory = [("16Gi", 16_384), ("512Mi", 512), ("1.5Ti", 1_572_864), ("0Mi", 0), ("1024Ki", 1), ("1024Ti", MEMORY_MIB_MAX)];
        for (text, mib) in memory {
            assert_eq!(memory_mib(text, Round::Up), Ok(mib), "{text}");
        }
        assert_eq!((memory_mib("1Ki", Round::Up), memory_mib("1Ki", Round::Down)), (Ok(1), Ok(0)));
        assert_eq!(memory_mib("1G", Round::Down), Ok(953));
        assert_eq!((seconds_ms("90"), seconds_ms("0.25"), seconds_ms("1.001")), (Ok(90_000), Ok(250), Ok(1001)));
        assert_eq!(signed("-5", "priority"), Ok(-5));
        assert_eq!(models("T4|A30|T4"), Ok(vec!["A30".to_owned(), "T4".to_owned()]));
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        for text in ["", "-1", "1e3", "2.", ".5", "1.0001", "five", "5 ", "0.5m", "99999999999999999999", "1000000.001", "1000000001m", "∞"]
        {
            assert!(cpu_milli(text).is_err(), "{text}");
        }
        for text in ["", "16", "Gi", "16GiB", "-1Gi", "1024.001Ti", "9999999Ti", "1 Gi"] {
            assert!(memory_mib(text, Round::Up).is_err(), "{text}");
        }
        for text in ["", "-1", "1.0001", "NaN", "316224001"] {
            assert!(seconds_ms(text).is_err(), "{text}");
        }
        for text in ["", "+1", "1.0", "99999999999999999999", "11"] {
            assert!(count(text, 10, "GPUs").is_err(), "{text}");
        }
        assert!(models("A30||T4").is_err() && models("|").is_err());
        assert!(name("").is_err() && name(" a").is_err() && name("a\u{7}").is_err() && name(&"x".repeat(254)).is_err());
    }
}
