//! The probe: a static program without a libc whose first act is to read the clock.
//!
//! It is assembled into the bench itself and written out with an ELF header in front, so no compiler but
//! ours is needed. Arguments: the path of a fifo, and a name of seven digits. It writes one record of 48
//! bytes there and waits for ever; with a third argument it exits instead.
#![allow(unsafe_code)]

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;
use std::os::fd::AsFd;

/// The name under which a floor says when it began.
pub const BEGINNING: u32 = 9_999_999;

#[cfg(target_arch = "x86_64")]
std::arch::global_asm!(
    ".pushsection .rodata.probe, \"a\"",
    ".globl supervise_bench_probe",
    ".globl supervise_bench_probe_end",
    "supervise_bench_probe:",
    "mov rbx, rsp", // argc, argv[0], argv[1], argv[2], …
    "sub rsp, 64",
    "mov eax, 228", // clock_gettime(CLOCK_MONOTONIC, sp)
    "mov edi, 1",
    "mov rsi, rsp",
    "syscall",
    "mov eax, 228", // clock_gettime(CLOCK_PROCESS_CPUTIME_ID, sp + 32)
    "mov edi, 2",
    "lea rsi, [rsp + 32]",
    "syscall",
    "mov eax, 39", // getpid
    "syscall",
    "mov [rsp + 16], rax",
    "mov rax, [rbx + 24]", // the eight bytes of the name
    "mov rax, [rax]",
    "mov [rsp + 24], rax",
    "mov eax, 2", // open(fifo, O_WRONLY)
    "mov rdi, [rbx + 16]",
    "mov esi, 1",
    "xor edx, edx",
    "syscall",
    "mov edi, eax",
    "mov eax, 1", // write
    "mov rsi, rsp",
    "mov edx, 48",
    "syscall",
    "cmp qword ptr [rbx], 4",
    "jae 3f",
    "2:",
    "mov eax, 34", // pause
    "syscall",
    "jmp 2b",
    "3:",
    "mov eax, 231", // exit_group(0)
    "xor edi, edi",
    "syscall",
    "supervise_bench_probe_end:",
    ".popsection",
);

#[cfg(target_arch = "x86_64")]
fn code() -> &'static [u8] {
    unsafe extern "C" {
        static supervise_bench_probe: u8;
        static supervise_bench_probe_end: u8;
    }
    let (start, end) = (&raw const supervise_bench_probe, &raw const supervise_bench_probe_end);
    // SAFETY: both symbols bound one read-only block of bytes, defined above.
    unsafe { std::slice::from_raw_parts(start, end.addr() - start.addr()) }
}

/// An ELF file of one segment: header, program header, code (elf(5)).
fn program() -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    let code = code();
    let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0];
    file.extend([0; 8]);
    for half in [2u16, 62] {
        file.extend(half.to_le_bytes()); // ET_EXEC, EM_X86_64
    }
    file.extend(1u32.to_le_bytes());
    for word in [BASE + HEADERS, 64, 0] {
        file.extend(word.to_le_bytes()); // entry, program headers, no sections
    }
    file.extend(0u32.to_le_bytes());
    for half in [64u16, 56, 1, 64, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    let size = HEADERS + code.len() as u64;
    for word in [1u32, 5] {
        file.extend(word.to_le_bytes()); // PT_LOAD, to be read and executed
    }
    for word in [0, BASE, BASE, size, size, 4096] {
        file.extend(word.to_le_bytes());
    }
    file.extend(code);
    file
}

/// Seven digits, so that with its NUL it fills eight bytes.
pub fn name(number: u32) -> String {
    format!("{number:07}")
}

/// What a probe said.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    /// Which.
    pub number: u32,
    /// Its pid.
    pub pid: i32,
    /// Nanoseconds of CLOCK_MONOTONIC at its first instruction.
    pub at_ns: u64,
    /// Nanoseconds of processor time it had used by then, since it was cloned.
    pub used_ns: u64,
}

/// A probe on disk, and the fifo it writes to.
pub struct Probe {
    /// The program.
    pub program: PathBuf,
    /// The fifo.
    pub fifo: PathBuf,
    end: File,
}

impl Probe {
    /// Writes both to a directory that every user may enter.
    pub fn new(directory: &Path, name: &str) -> io::Result<Self> {
        let path = directory.join("probe");
        if !path.exists() {
            std::fs::write(&path, program())?;
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755))?;
        }
        let fifo = directory.join(name);
        nix::unistd::mkfifo(&fifo, Mode::from_bits_truncate(0o666))?;
        std::fs::set_permissions(&fifo, PermissionsExt::from_mode(0o666))?;
        let end = OpenOptions::new().read(true).write(true).open(&fifo)?;
        Ok(Self { program: path, fifo, end })
    }

    /// The next record; an error where none comes within twenty seconds.
    pub fn next(&mut self) -> io::Result<Record> {
        let mut polled = [PollFd::new(self.end.as_fd(), PollFlags::POLLIN)];
        if poll(&mut polled, PollTimeout::from(20_000u16))? == 0 {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "a probe did not start within 20 s"));
        }
        let mut bytes = [0; 48];
        self.end.read_exact(&mut bytes)?;
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap_or_default());
        let number = std::str::from_utf8(&bytes[24..31]).ok().and_then(|text| text.parse().ok());
        let number = number.ok_or_else(|| io::Error::other("a record without a number"))?;
        let time = |at: usize| word(at) * 1_000_000_000 + word(at + 8);
        Ok(Record { number, pid: word(16) as i32, at_ns: time(0), used_ns: time(32) })
    }

    /// So many records, by number.
    pub fn take(&mut self, count: usize) -> io::Result<Vec<Record>> {
        let mut all = (0..count).map(|_| self.next()).collect::<io::Result<Vec<_>>>()?;
        all.sort_by_key(|record| record.number);
        Ok(all)
    }
}

/// Writes a record of this process's own.
pub fn say(fifo: &OsStr, number: u32) -> io::Result<()> {
    let now = supervise::sys::clock::monotonic_ns();
    let mut bytes = Vec::with_capacity(48);
    bytes.extend((now / 1_000_000_000).to_le_bytes());
    bytes.extend((now % 1_000_000_000).to_le_bytes());
    bytes.extend(u64::from(std::process::id()).to_le_bytes());
    bytes.extend(name(number).bytes());
    bytes.extend([0; 17]); // the name's end, and no processor time
    OpenOptions::new().write(true).custom_flags(libc::O_CLOEXEC).open(fifo)?.write_all(&bytes)
}
