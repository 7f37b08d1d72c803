//! Heap profiles as files: of a bounded size, a bounded number of them, each written whole or not at all.

use std::{
    fs,
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::SystemTime,
};

use super::heap::ProfileError;
use crate::engine::free_space;

/// What dumps may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DumpLimits {
    /// Most bytes of one.
    pub size_max: u64,
    /// Most of them in a directory.
    pub kept: usize,
    /// Bytes of disk that stay free.
    pub free_min: u64,
}

/// Says so when that is no directory.
pub(super) fn check_directory(directory: &Path) -> Result<(), ProfileError> {
    if directory.is_dir() { Ok(()) } else { Err(ProfileError::NotADirectory(directory.into())) }
}

/// Writes a dump, then removes the oldest beyond the limit.
pub(super) fn write(directory: &Path, bytes: &[u8], limits: &DumpLimits) -> Result<PathBuf, ProfileError> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let refused = |why| ProfileError::NotWritable { path: directory.into(), why };
    let (size, free) = (bytes.len() as u64, free_space(directory).map_err(refused)?);
    if free.saturating_sub(size) < limits.free_min {
        return Err(ProfileError::DiskFull { path: directory.into(), free, size, kept: limits.free_min });
    }
    // In a container every run has the same process id: numbers that are taken are passed over.
    let path = loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = directory.join(format!("jeprof.{}.{number}.heap", std::process::id()));
        if !path.exists() {
            break path;
        }
    };
    let fresh = path.with_extension("tmp");
    let written = fs::File::create(&fresh).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&fresh, &path)
    });
    if let Err(why) = written {
        let _ = fs::remove_file(&fresh);
        return Err(match why.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                ProfileError::DiskFull { path: directory.into(), free, size, kept: limits.free_min }
            }
            _ => refused(why),
        });
    }
    remove_oldest(directory, &path, limits.kept);
    Ok(path)
}

/// Whether a file's name is that of a dump: `jeprof.PID.NUMBER.heap`.
fn is_dump(name: &str) -> bool {
    let numbers = name.strip_prefix("jeprof.").and_then(|rest| rest.strip_suffix(".heap")).and_then(|rest| rest.split_once('.'));
    numbers.is_some_and(|(process, number)| [process, number].iter().all(|part| part.parse::<u64>().is_ok()))
}

fn remove_oldest(directory: &Path, newest: &Path, kept: usize) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    let mut others: Vec<(SystemTime, PathBuf)> = entries
        .flatten()
        .filter(|entry| entry.file_name().to_str().is_some_and(is_dump) && entry.path() != newest)
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    others.sort();
    for (_, path) in others.iter().take((others.len() + 1).saturating_sub(kept.max(1))) {
        if let Err(error) = fs::remove_file(path) {
            tracing::warn!(path = %path.display(), %error, "an old heap profile was not removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: DumpLimits = DumpLimits { size_max: 100, kept: 2, free_min: 0 };

    fn dumps(directory: &Path) -> usize {
        fs::read_dir(directory).unwrap().flatten().filter(|entry| is_dump(entry.file_name().to_str().unwrap())).count()
    }

    #[test]
    fn the_oldest_go_and_nothing_else_does() {
        let directory = tempfile::tempdir().unwrap();
        for other in ["jeprof.1.x.heap", "jeprof.heap", "data.1.2.heap"] {
            fs::write(directory.path().join(other), "mine").unwrap();
        }
        let paths: Vec<PathBuf> = (0..4).map(|_| write(directory.path(), b"profile", &LIMITS).unwrap()).collect();
        assert_eq!(dumps(directory.path()), 2);
        assert!(paths[3].exists() && !paths[0].exists() && !paths[1].exists());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 5, "what is no dump stays, and no half of one is left");
    }

    #[test]
    fn numbers_that_another_run_took_are_passed_over() {
        let directory = tempfile::tempdir().unwrap();
        let first = write(directory.path(), b"first", &LIMITS).unwrap();
        let (name, process) = (first.file_name().unwrap().to_str().unwrap().to_owned(), std::process::id());
        let number: u64 = name.trim_start_matches(&format!("jeprof.{process}.")).trim_end_matches(".heap").parse().unwrap();
        for taken in number + 1..number + 40 {
            fs::write(directory.path().join(format!("jeprof.{process}.{taken}.heap")), "another run's").unwrap();
        }
        let second = write(directory.path(), b"second", &DumpLimits { kept: 100, ..LIMITS }).unwrap();
        assert_eq!((fs::read(second).unwrap(), dumps(directory.path())), (b"second".to_vec(), 41));
    }

    #[test]
    fn a_disk_that_would_be_too_full_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let refused = write(directory.path(), b"profile", &DumpLimits { free_min: u64::MAX, ..LIMITS }).unwrap_err();
        assert!(matches!(refused, ProfileError::DiskFull { size: 7, .. }), "{refused}");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        let missing = check_directory(&directory.path().join("missing")).unwrap_err().to_string();
        assert!(missing.ends_with("missing\" is not a directory"), "{missing}");
    }
}
