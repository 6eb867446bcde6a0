//! ROOT. What the limits of an incarnation have done to it, in words. Never reads a group.

use crate::sys::cgroup::Strain;
use crate::unit::size_text;

/// Why the kernel ended processes of it; None where it did not.
pub(super) fn out_of_memory(strain: &Strain) -> Option<String> {
    if strain.killed == 0 {
        return None;
    }
    let had = strain.most_memory.map(|bytes| format!("it had come to {}", about(bytes)));
    Some(match (strain.by_its_limit, strain.memory_limit, had) {
        (true, Some(limit), Some(had)) => format!("{had}, and `memory-max` is {}", size_text(limit)),
        (true, Some(limit), None) => format!("it had come to `memory-max`, which is {}", size_text(limit)),
        // The group above is another's: a container's, a slice's, or that of the unit that supervise itself is.
        (_, _, had) => {
            let had = had.map(|had| format!(" ({had})")).unwrap_or_default();
            format!("there was none left in the machine, or in what supervise as a whole may use{had}")
        }
    })
}

/// What an incarnation that lives suffers from: what an operator would not see otherwise.
pub(super) fn complaints(strain: &Strain) -> Vec<String> {
    let killed = out_of_memory(strain).map(|why| {
        let (count, them) = times(strain.killed, "process", "processes");
        let remedy = if strain.by_its_limit && strain.memory_limit.is_some() {
            "a higher `memory-max`, or fewer workers"
        } else {
            "fewer workers, or limits for others; the kernel's log (`dmesg`) says what else ran"
        };
        format!("the kernel has ended {count} {them} of it for want of memory: {why}\nhint: {remedy}")
    });
    killed.into_iter().chain(refused(strain)).collect()
}

fn refused(strain: &Strain) -> Option<String> {
    if strain.refused == 0 {
        return None;
    }
    let (count, them) = times(strain.refused, "time", "times");
    let so_often = format!("the kernel has refused it new processes or threads, {count} {them}");
    // Before Linux 6.11 a limit further up counts here as well.
    Some(match (strain.process_limit, strain.most_processes) {
        (Some(limit), most) if most.is_none_or(|most| most >= limit) => format!(
            "{so_often}: `pids-max` is {limit}\nhint: a higher `pids-max`, if it is meant to have that many"
        ),
        (_, most) => {
            let had = most.map(|most| format!(" (it had {most} at most)")).unwrap_or_default();
            format!(
                "{so_often}: what supervise as a whole may have is used up{had}\nhint: under systemd `TasksMax=` of its \
                 unit; in a container its limit of processes"
            )
        }
    })
}

fn times(count: u64, one: &'static str, many: &'static str) -> (u64, &'static str) {
    (count, if count == 1 { one } else { many })
}

/// A number of bytes as people say it.
fn about(bytes: u64) -> String {
    let units = [("G", 30_u32), ("M", 20), ("K", 10)];
    let Some((unit, shift)) = units.into_iter().find(|(_, shift)| bytes >> shift > 0) else {
        return bytes.to_string();
    };
    let tenths = (u128::from(bytes) * 10) >> shift;
    if tenths % 10 == 0 {
        format!("{}{unit}", tenths / 10)
    } else {
        format!("{}.{}{unit}", tenths / 10, tenths % 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_limits_have_done_is_said_with_its_numbers() {
        let none = Strain::default();
        assert_eq!((out_of_memory(&none), complaints(&none)), (None, Vec::new()));
        let own = Strain {
            killed: 2,
            by_its_limit: true,
            most_memory: Some(31_352_832),
            memory_limit: Some(30 << 20),
            ..none
        };
        assert_eq!(
            complaints(&own),
            [
                "the kernel has ended 2 processes of it for want of memory: it had come to 29.9M, and `memory-max` is \
              30M\nhint: a higher `memory-max`, or fewer workers"
            ]
        );
        let old = Strain { most_memory: None, killed: 1, ..own };
        assert_eq!(out_of_memory(&old).unwrap(), "it had come to `memory-max`, which is 30M");
        let machine = Strain { killed: 1, most_memory: Some(3 << 30), ..none };
        assert_eq!(
            complaints(&machine),
            [
                "the kernel has ended 1 process of it for want of memory: there was none left in the machine, or in what \
              supervise as a whole may use (it had come to 3G)\nhint: fewer workers, or limits for others; the kernel's \
              log (`dmesg`) says what else ran"
            ]
        );
        let forks = Strain { refused: 141, most_processes: Some(40), process_limit: Some(40), ..none };
        assert_eq!(
            complaints(&forks),
            [
                "the kernel has refused it new processes or threads, 141 times: `pids-max` is 40\nhint: a higher `pids-max`, \
              if it is meant to have that many"
            ]
        );
        let above = Strain { refused: 1, most_processes: Some(12), ..forks };
        assert_eq!(
            complaints(&above),
            [
                "the kernel has refused it new processes or threads, 1 time: what supervise as a whole may have is used up \
              (it had 12 at most)\nhint: under systemd `TasksMax=` of its unit; in a container its limit of processes"
            ]
        );
        // What does not tell its peak is believed to have come to its own limit.
        let old = complaints(&Strain { most_processes: None, ..forks });
        assert!(old[0].contains("`pids-max` is 40"), "{old:?}");
    }
}
