//! The file system under the data directory: its room, whether it can be written, and the reserve file.
//!
//! The reserve is a file of real blocks that nothing needs. It is removed when the disk is nearly full, so that what gives space back
//! (a flush, a drop, an abort, RocksDB's own recovery) still has room to work in, and made again when there is room.

use std::{
    fs::{self, File},
    io::{self, ErrorKind, Write as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use rustix::{
    fs::{FallocateFlags, fallocate, statvfs},
    io::Errno,
};

/// Name of the reserve in the data directory.
pub(crate) const RESERVE_FILE: &str = "RESERVE";
/// Name of the file by which it is found out whether the directory can be written.
pub(crate) const PROBE_FILE: &str = "PROBE";
/// Written at once where the file system cannot allocate blocks without it.
const CHUNK: usize = 1 << 20;

/// Room of a file system, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// Free for this process.
    pub free: u64,
    /// In all.
    pub total: u64,
}

/// Room of the file system that holds the path.
pub(crate) fn space(path: &Path) -> io::Result<Space> {
    let found = statvfs(path)?;
    Ok(Space { free: found.f_bavail.saturating_mul(found.f_frsize), total: found.f_blocks.saturating_mul(found.f_frsize) })
}

/// Bytes free for this process on the file system that holds the path.
pub fn free_space(path: &Path) -> io::Result<u64> {
    Ok(space(path)?.free)
}

/// Whether a file can be made, written and synced there.
pub(crate) fn probe(directory: &Path) -> io::Result<()> {
    let path = directory.join(PROBE_FILE);
    let outcome = File::create(&path).and_then(|mut file| {
        file.write_all(b"probe\n")?;
        file.sync_all()
    });
    let _ = fs::remove_file(&path);
    outcome
}

/// The reserve file.
pub(crate) struct Reserve {
    path: PathBuf,
    bytes: u64,
    held: AtomicBool,
}

impl Reserve {
    /// Looks at what an earlier run left. A part of a reserve is none.
    pub(crate) fn find(directory: &Path, bytes: u64) -> Self {
        let path = directory.join(RESERVE_FILE);
        let held = bytes > 0 && fs::metadata(&path).is_ok_and(|found| found.len() == bytes);
        let reserve = Self { path, bytes, held: AtomicBool::new(held) };
        if !held {
            // One of another size, or half made.
            reserve.remove();
        }
        reserve
    }

    /// Bytes that are wanted and not there.
    pub(crate) fn missing(&self) -> u64 {
        if self.held() { 0 } else { self.bytes }
    }

    /// Whether it is there.
    pub(crate) fn held(&self) -> bool {
        self.held.load(Ordering::Relaxed)
    }

    /// Gives its blocks back; true when there were any.
    pub(crate) fn release(&self) -> bool {
        let held = self.held.swap(false, Ordering::Relaxed);
        if held {
            tracing::warn!(bytes = self.bytes, "the disk is nearly full: the reserve file was removed to make room");
        }
        self.remove();
        held
    }

    /// Makes it, with real blocks. What was made of it is removed again when that fails.
    pub(crate) fn restore(&self) -> io::Result<()> {
        if self.missing() == 0 {
            return Ok(());
        }
        if let Err(error) = allocate(&self.path, self.bytes) {
            self.remove();
            return Err(error);
        }
        self.held.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn remove(&self) {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                tracing::warn!(path = %self.path.display(), %error, "the reserve file was not removed");
            }
            _ => {}
        }
    }
}

fn allocate(path: &Path, bytes: u64) -> io::Result<()> {
    let mut file = File::create(path)?;
    match fallocate(&file, FallocateFlags::empty(), 0, bytes) {
        Ok(()) => {}
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
            // Anything but zeroes, which some file systems keep as holes.
            let chunk = vec![b'r'; CHUNK];
            let mut left = bytes;
            while left > 0 {
                let now = left.min(CHUNK as u64);
                file.write_all(&chunk[..now as usize])?;
                left -= now;
            }
        }
        Err(error) => return Err(error.into()),
    }
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserve_is_real_blocks_and_a_part_of_one_is_none() {
        use std::os::unix::fs::MetadataExt as _;
        let root = tempfile::tempdir().unwrap();
        let reserve = Reserve::find(root.path(), 3 << 20);
        assert_eq!((reserve.held(), reserve.missing()), (false, 3 << 20));
        reserve.restore().unwrap();
        let found = fs::metadata(root.path().join(RESERVE_FILE)).unwrap();
        assert_eq!(found.len(), 3 << 20);
        assert!(found.blocks() * 512 >= 3 << 20, "{} blocks", found.blocks());
        assert!(Reserve::find(root.path(), 3 << 20).held());
        assert!(reserve.release());
        assert!(!reserve.release() && !root.path().join(RESERVE_FILE).exists());
        fs::write(root.path().join(RESERVE_FILE), b"half").unwrap();
        assert!(!Reserve::find(root.path(), 3 << 20).held());
        assert!(!root.path().join(RESERVE_FILE).exists());
        probe(root.path()).unwrap();
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }
}
