//! ROOT. The clocks. Never decides what time means.

/// Nanoseconds of CLOCK_MONOTONIC (clock_gettime(2)).
pub fn monotonic_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` has room for what clock_gettime writes; this clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    (time.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(time.tv_nsec as u64)
}

/// Milliseconds of CLOCK_MONOTONIC.
pub fn monotonic_ms() -> u64 {
    monotonic_ns() / 1_000_000
}

/// Nanoseconds of CLOCK_REALTIME since 1970.
pub fn realtime_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` has room for what clock_gettime writes; this clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut time) };
    (time.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(time.tv_nsec as u64)
}

/// A moment as the clocks of this place show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Local {
    /// 1 to 12.
    pub month: u32,
    /// 1 to 31.
    pub day: u32,
    /// 0 to 23.
    pub hour: u32,
    /// 0 to 59.
    pub minute: u32,
    /// 0 to 60.
    pub second: u32,
}

/// What the clocks here show at `seconds` since 1970 (localtime_r(3)); UTC where nothing says where we are.
pub fn local(seconds: u64) -> Local {
    let seconds = libc::time_t::try_from(seconds).unwrap_or(0);
    // SAFETY: an all-zero tm is a valid one.
    let mut time: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to values of this function, alive across the call.
    unsafe { libc::localtime_r(&raw const seconds, &raw mut time) };
    let number = |value: libc::c_int| u32::try_from(value).unwrap_or(0);
    Local {
        month: number(time.tm_mon) + 1,
        day: number(time.tm_mday),
        hour: number(time.tm_hour),
        minute: number(time.tm_min),
        second: number(time.tm_sec),
    }
}
