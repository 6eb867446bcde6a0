//! ROOT. The memory of this process. Never decides when it is given back.

/// Gives the pages that the allocator holds free back to the system (malloc_trim(3)); true where there were
/// any. Elsewhere than with glibc this does nothing.
pub fn give_back() -> bool {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim only touches what is free, and takes the allocator's locks itself.
    return unsafe { libc::malloc_trim(0) } == 1;
    #[cfg(not(target_env = "gnu"))]
    false
}
