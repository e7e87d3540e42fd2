//! Parts of GPUs as people ask for them.

use partita_core::model::{GpuAsk, Isolation, MILLI, node::GPUS_MAX};

use crate::{
    amount::{self, Round},
    error::Fault,
};

/// How a resource of NVIDIA's device plugin begins.
pub(crate) const VENDOR: &str = "nvidia.com/";

/// MIG partitions, `2 x 1g.10gb + 3g.40gb`: the names of profiles with blanks around `x` and `+`, since a name may hold a plus.
pub(crate) fn partitions(text: &str) -> Result<Vec<(String, u32)>, Fault> {
    let wrong = || Fault::new("is no list of MIG partitions", "write profiles as 1g.10gb, or as 2 x 1g.10gb + 3g.40gb").value(text);
    let one = |part: &str| {
        let (count, name) = match part.split_once(" x ") {
            Some((count, name)) => (amount::count32(count.trim(), u32::MAX, "partitions").map_err(|_| wrong())?, name.trim()),
            None => (1, part.trim()),
        };
        let name = amount::name(name).map_err(|_| wrong())?;
        if name.contains(char::is_whitespace) { Err(wrong()) } else { Ok((name.to_owned(), count)) }
    };
    text.split(" + ").map(one).collect()
}

/// Isolation by its name.
pub(crate) fn isolation(text: &str) -> Result<Isolation, Fault> {
    let all = [Isolation::Hardware, Isolation::Memory, Isolation::Shared];
    let wrong = || Fault::new("is no isolation", "write hardware, memory or shared").value(text);
    all.into_iter().find(|one| one.to_string() == text).ok_or_else(wrong)
}

/// Memory that a pod asks for, MiB.
pub(crate) fn memory(text: &str) -> Result<u32, Fault> {
    amount::memory_mib(text, Round::Up)
}

/// Percent of a GPU's compute.
pub(crate) fn percent(text: &str) -> Result<u32, Fault> {
    amount::count32(text, 100, "percent")
}

/// What `count` of an extended resource is: `nvidia.com/gpu`, `nvidia.com/mig-1g.10gb`, or `nvidia.com/gpu-10gb`, a share of 10 GB under
/// MPS, where a GB is 10⁹ bytes.
pub(crate) fn resource(name: &str, count: u32) -> Result<GpuAsk, Fault> {
    let known = "known are nvidia.com/gpu, nvidia.com/mig-<profile> and nvidia.com/gpu-<n>gb";
    let unknown = || Fault::new("is no resource of a GPU", known).value(name);
    let bare = name.strip_prefix(VENDOR).ok_or_else(unknown)?;
    if let Some(profile) = bare.strip_prefix("mig-") {
        return Ok(GpuAsk::Mig { partitions: vec![(profile.to_owned(), count)] });
    }
    if bare == "gpu" {
        let many = || Fault::new("is no number of GPUs", format!("a pod has 1 to {GPUS_MAX}, or no such key")).value(&count.to_string());
        return if (1..=GPUS_MAX).contains(&count) { Ok(GpuAsk::Share { count, milli: MILLI }) } else { Err(many()) };
    }
    let gigabytes = bare.strip_prefix("gpu-").and_then(|size| size.strip_suffix("gb")).ok_or_else(unknown)?;
    let memory_mib = memory(&format!("{gigabytes}G")).map_err(|_| unknown())?;
    if count != 1 {
        return Err(Fault::new("is no number of shares", "a pod has one share under MPS; write 1").value(&count.to_string()));
    }
    Ok(GpuAsk::Mps { memory_mib })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_read_as_they_are_written() {
        let read = |text: &str| partitions(text).map_err(|fault| fault.problem);
        assert_eq!(read("1g.10gb+me"), Ok(vec![("1g.10gb+me".into(), 1)]));
        assert_eq!(read("2 x 1g.10gb + 3g.40gb"), Ok(vec![("1g.10gb".into(), 2), ("3g.40gb".into(), 1)]));
        for text in ["", " ", "2 1g.10gb", "x 1g.10gb", "-1 x 1g.10gb", "1g.10gb + ", "1g.10gb, 3g.40gb", "99999999999 x 1g.10gb"] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn resources_are_those_of_the_device_plugin() {
        assert_eq!(resource("nvidia.com/gpu", 2), Ok(GpuAsk::whole(2)));
        assert_eq!(resource("nvidia.com/mig-1g.10gb.me", 2), Ok(GpuAsk::Mig { partitions: vec![("1g.10gb.me".into(), 2)] }));
        // 10¹⁰ bytes are 9536.7 MiB.
        assert_eq!(resource("nvidia.com/gpu-10gb", 1), Ok(GpuAsk::Mps { memory_mib: 9537 }));
        for (name, count) in
            [("nvidia.com/gpu", 0), ("nvidia.com/gpu", 65), ("nvidia.com/gpu-10gb", 2), ("nvidia.com/gpu-xgb", 1), ("a/gpu", 1)]
        {
            assert!(resource(name, count).is_err(), "{name}");
        }
    }
}
