//! The allocator's settings of a process that moves frames.
//!
//! Owns one call. Frames of a quarter of a mebibyte come and go thousands of times a second; with glibc's defaults each
//! is mapped, faulted in page by page and unmapped again, which costs a receiver about a tenth of its time.

/// Keeps freed frame buffers in the process: blocks up to 4 MiB come from the heap, and up to 16 MiB of free heap (a
/// bulk window and what the lanes hold) stay.
pub(super) fn keep_buffers() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        const BLOCK: libc::c_int = 4 * 1024 * 1024;
        const FREE: libc::c_int = 16 * 1024 * 1024;
        // SAFETY: mallopt takes two integers, changes thresholds of the allocator and touches no memory of ours.
        #[allow(unsafe_code)]
        let _ = unsafe {
            (libc::mallopt(libc::M_MMAP_THRESHOLD, BLOCK), libc::mallopt(libc::M_TRIM_THRESHOLD, FREE))
        };
    }
}
