//! ROOT. The memory of this process. Never decides when it is given back.
//!
//! Sources: malloc_trim(3), dl_iterate_phdr(3), madvise(2).

/// Gives back what is not needed any more after a start: the pages that the allocator holds free, and the
/// program's own pages that were read so far. Those that are needed again come back from the page cache by
/// themselves. Elsewhere than with glibc this does nothing.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim only touches what is free, and takes the allocator's locks itself; the callback has the
    // type that is asked for and uses nothing of the caller's.
    unsafe {
        libc::malloc_trim(0);
        libc::dl_iterate_phdr(Some(program::forget_pages), std::ptr::null_mut());
    }
}

#[cfg(target_env = "gnu")]
mod program {
    const PAGE: usize = 4096;

    /// Has the kernel forget which pages of the program's code and constants were looked at. Returns other than 0 so
    /// that no object behind the first, the program itself, is visited.
    pub(super) unsafe extern "C" fn forget_pages(
        object: *mut libc::dl_phdr_info,
        _size: usize,
        _data: *mut libc::c_void,
    ) -> libc::c_int {
        // SAFETY: dl_iterate_phdr passes an object that is valid during the call, with `dlpi_phnum` headers.
        let (base, headers) = unsafe {
            let object = &*object;
            (
                object.dlpi_addr as usize,
                std::slice::from_raw_parts(object.dlpi_phdr, object.dlpi_phnum.into()),
            )
        };
        for header in headers {
            // What can be written holds what this process has written: relocations, for a start.
            if header.p_type != libc::PT_LOAD || header.p_flags & libc::PF_W != 0 {
                continue;
            }
            let start = (base + header.p_vaddr as usize).next_multiple_of(PAGE);
            let end = (base + header.p_vaddr as usize + header.p_memsz as usize) / PAGE * PAGE;
            if start < end {
                // SAFETY: a part of a private map of the program's file that nobody can write: whoever reads it
                // again reads the same from the file. A failure changes nothing.
                unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED) };
            }
        }
        1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static CONSTANT: [u8; 3 * 4096] = [7; 3 * 4096];

    #[test]
    fn code_and_constants_are_as_before() {
        let sum = || std::hint::black_box(&CONSTANT).iter().map(|byte| u64::from(*byte)).sum::<u64>();
        let before = sum();
        give_back();
        assert_eq!(sum(), before);
    }
}
