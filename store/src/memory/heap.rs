//! jemalloc's heap profiler, switched while the process runs.
//!
//! One lock for the whole process: a dump is one at a time, and never between two halves of a switch. jemalloc writes a dump into a file
//! in memory (`memfd`), so that a full or read-only disk is met by our own writes, which say so, and not inside of the allocator.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _},
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use rustix::fs::{MemfdFlags, memfd_create};
use tikv_jemalloc_ctl::{Access as _, AsName as _, profiling};

use super::{
    dumps::{self, DumpLimits},
    profile::Profile,
};

/// Why there is no profile. The texts of the first three are Kvrocks'.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// The allocator was built without.
    #[error("memory profiling is not supported in this build")]
    Unsupported,
    /// It was switched off for good at the start.
    #[error("jemalloc profiling isn't enabled: MALLOC_CONF says prof:false; restart the store without that")]
    NotEnabled,
    /// Nothing is being sampled.
    #[error("jemalloc profiling is not active, please enable it first")]
    NotActive,
    /// There is nothing to write into.
    #[error("\"{0}\" is not a directory")]
    NotADirectory(PathBuf),
    /// The system does not let the process write there.
    #[error("{path} cannot be written: {why}; name a directory that the store may write to")]
    NotWritable {
        /// The directory.
        path: PathBuf,
        /// The system's reason.
        why: io::Error,
    },
    /// A dump would take the room that writes need.
    #[error(
        "the disk of {path} has {free} bytes free, the dump of {size} bytes would leave less than the {kept} that disk-free-min keeps: free \
         space, or name a directory on another disk"
    )]
    DiskFull {
        /// The directory.
        path: PathBuf,
        /// Bytes free.
        free: u64,
        /// Bytes of the dump.
        size: u64,
        /// Bytes that have to stay free.
        kept: u64,
    },
    /// A dump is longer than allowed.
    #[error(
        "the dump has {size} bytes, profile-size-max allows {limit}: raise it, or KPROFILE MEMORY RESET and sample for a shorter time"
    )]
    TooLarge {
        /// Its bytes.
        size: u64,
        /// What is allowed.
        limit: u64,
    },
    /// jemalloc did not write a profile.
    #[error("jemalloc wrote no profile: {0}; the store goes on, try again")]
    Failed(String),
}

impl From<tikv_jemalloc_ctl::Error> for ProfileError {
    fn from(error: tikv_jemalloc_ctl::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<io::Error> for ProfileError {
    fn from(error: io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

const ACTIVE: &[u8] = b"prof.active\0";
const DUMP: &[u8] = b"prof.dump\0";
const RESET: &[u8] = b"prof.reset\0";
const SAMPLE: &[u8] = b"prof.lg_sample\0";

/// A file in memory, and the path under which jemalloc opens it: it has to live as long as the process, so there is one of them.
struct Staging {
    file: File,
    path: &'static [u8],
}

static STAGING: Mutex<Option<Staging>> = Mutex::new(None);

fn lock() -> MutexGuard<'static, Option<Staging>> {
    STAGING.lock().unwrap_or_else(PoisonError::into_inner)
}

fn check_enabled() -> Result<(), ProfileError> {
    match profiling::prof::read() {
        Ok(true) => Ok(()),
        Ok(false) if built_in() => Err(ProfileError::NotEnabled),
        Ok(false) | Err(_) => Err(ProfileError::Unsupported),
    }
}

fn built_in() -> bool {
    b"config.prof\0".name().read().unwrap_or(false)
}

/// Whether allocations are being sampled.
pub fn is_active() -> Result<bool, ProfileError> {
    match check_enabled() {
        Ok(()) => Ok(ACTIVE.name().read()?),
        Err(ProfileError::NotEnabled) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Begins to sample allocations, or ends it. What is so already stays so.
pub fn set_active(active: bool) -> Result<(), ProfileError> {
    check_enabled()?;
    let _one_at_a_time = lock();
    let was: bool = ACTIVE.name().update(active)?;
    if was != active {
        tracing::info!(active, "heap profiling was switched");
    }
    Ok(())
}

/// Forgets what was sampled; what is allocated from now on is sampled as before.
pub fn reset() -> Result<(), ProfileError> {
    check_enabled()?;
    let _one_at_a_time = lock();
    let interval: usize = SAMPLE.name().read()?;
    RESET.name().write(interval)?;
    Ok(())
}

/// What is allocated now and was sampled, in jemalloc's own form, which `jeprof` reads.
pub fn raw_profile(limits: &DumpLimits) -> Result<Vec<u8>, ProfileError> {
    check_enabled()?;
    let mut staging = lock();
    if !is_active()? {
        return Err(ProfileError::NotActive);
    }
    let staging = match &mut *staging {
        Some(staging) => staging,
        empty => empty.insert(Staging::new()?),
    };
    staging.write(limits.size_max)
}

/// The same, read: stacks and bytes.
pub fn heap_profile(limits: &DumpLimits) -> Result<Profile, ProfileError> {
    let raw = raw_profile(limits)?;
    Profile::of_heap(&raw).ok_or_else(|| ProfileError::Failed("what it wrote has no form that is known".into()))
}

/// Writes jemalloc's own form into a directory as `jeprof.PID.NUMBER.heap`; the oldest such files beyond the limit go. Returns its path.
pub fn dump(directory: &Path, limits: &DumpLimits) -> Result<PathBuf, ProfileError> {
    check_enabled()?;
    if !is_active()? {
        return Err(ProfileError::NotActive);
    }
    dumps::check_directory(directory)?;
    let path = dumps::write(directory, &raw_profile(limits)?, limits)?;
    tracing::info!(path = %path.display(), "a heap profile was written");
    Ok(path)
}

impl Staging {
    fn new() -> io::Result<Self> {
        let file = File::from(memfd_create("heap-profile", MemfdFlags::CLOEXEC)?);
        let path = format!("/proc/self/fd/{}\0", file.as_raw_fd());
        Ok(Self { file, path: Box::leak(path.into_bytes().into_boxed_slice()) })
    }

    fn write(&mut self, size_max: u64) -> Result<Vec<u8>, ProfileError> {
        let path: &'static [u8] = self.path;
        let outcome = DUMP.name().write(path).map_err(ProfileError::from).and_then(|()| self.read(size_max));
        // Its pages are the process' memory.
        self.file.set_len(0)?;
        outcome
    }

    fn read(&mut self, size_max: u64) -> Result<Vec<u8>, ProfileError> {
        let size = self.file.metadata()?.len();
        if size > size_max {
            return Err(ProfileError::TooLarge { size, limit: size_max });
        }
        let mut bytes = Vec::with_capacity(size as usize);
        self.file.rewind()?;
        self.file.read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}
