//! The data directory: `FORMAT` says whose it is and which format, `db/` is the RocksDB database. Checked before anything is opened, so
//! that a foreign or newer directory, or one that has lost what RocksDB cannot do without, is refused untouched.

use std::{
    fs,
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
};

use super::EngineError;

/// Newest data format this version reads and writes.
const FORMAT: u32 = 1;
const FORMAT_FILE: &str = "FORMAT";
const FORMAT_NAME: &str = "sluice-store data format";
const DATABASE: &str = "db";

/// A data directory that is ours.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Prepared {
    /// Where the database is.
    pub(crate) database: PathBuf,
    /// Whether there is none yet.
    pub(crate) empty: bool,
}

/// Checks the directory, makes it ours when it is new, and returns where the database is.
pub(crate) fn prepare(path: &Path) -> Result<Prepared, EngineError> {
    fs::create_dir_all(path).map_err(EngineError::directory(path))?;
    let (format_path, database) = (path.join(FORMAT_FILE), database_of(path));
    match fs::read_to_string(&format_path) {
        Ok(text) => check_format(path, &text)?,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            if let Some(found) = first_entry(path)? {
                return Err(EngineError::Foreign { path: path.into(), found });
            }
            // The database's folder first: a directory with FORMAT and without it has lost it.
            fs::create_dir_all(&database).map_err(EngineError::directory(&database))?;
            write_format(path).map_err(EngineError::directory(&format_path))?;
        }
        Err(error) if error.kind() == ErrorKind::InvalidData => {
            return Err(EngineError::Foreign { path: path.into(), found: FORMAT_FILE.into() });
        }
        Err(error) => return Err(EngineError::directory(&format_path)(error)),
    }
    let empty = is_empty(path, &database)?;
    Ok(Prepared { database, empty })
}

/// Whether no database was made there yet. RocksDB would make a new one where `CURRENT` is missing, and delete the files of the old.
fn is_empty(directory: &Path, database: &Path) -> Result<bool, EngineError> {
    let missing = |missing: String| EngineError::Incomplete { path: database.into(), missing };
    let names = match names(database) {
        Ok(names) => names,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(EngineError::Incomplete { path: directory.into(), missing: DATABASE.into() });
        }
        Err(error) => return Err(EngineError::directory(database)(error)),
    };
    let current = database.join("CURRENT");
    match fs::read_to_string(&current) {
        Ok(text) => {
            let manifest = text.trim_end();
            if !manifest.starts_with("MANIFEST-") {
                return Err(missing("a readable CURRENT".into()));
            }
            if names.iter().any(|name| name == manifest) { Ok(false) } else { Err(missing(manifest.into())) }
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            // The first manifest is written before CURRENT: with nothing else there, a first start was cut short.
            let data = |name: &&String| {
                let table = [".sst", ".log", ".blob"].iter().any(|end| name.ends_with(end));
                table || (name.starts_with("MANIFEST-") && *name != "MANIFEST-000001")
            };
            if names.iter().any(|name| data(&name)) { Err(missing("CURRENT".into())) } else { Ok(true) }
        }
        Err(error) if error.kind() == ErrorKind::InvalidData => Err(missing("a readable CURRENT".into())),
        Err(error) => Err(EngineError::directory(&current)(error)),
    }
}

/// Names of what is in a folder.
pub(super) fn names(path: &Path) -> std::io::Result<Vec<String>> {
    fs::read_dir(path)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

fn check_format(path: &Path, text: &str) -> Result<(), EngineError> {
    let foreign = || EngineError::Foreign { path: path.into(), found: FORMAT_FILE.into() };
    let number = text.strip_prefix(FORMAT_NAME).ok_or_else(foreign)?;
    let found: u32 = number.trim().parse().map_err(|_| foreign())?;
    if found > FORMAT {
        return Err(EngineError::Newer { path: path.into(), found, known: FORMAT });
    }
    Ok(())
}

/// What stands in the directory that is not ours; `lost+found` is part of a fresh volume, the rest was left by a first start cut short.
fn first_entry(path: &Path) -> Result<Option<String>, EngineError> {
    for name in names(path).map_err(EngineError::directory(path))? {
        let unused = name == DATABASE && names(&path.join(&name)).is_ok_and(|names| names.is_empty());
        if name != "lost+found" && name != format!("{FORMAT_FILE}.new") && !unused {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// Where the database of a data directory is.
pub(super) fn database_of(directory: &Path) -> PathBuf {
    directory.join(DATABASE)
}

/// Makes a directory one of ours, durably.
pub(super) fn write_format(directory: &Path) -> std::io::Result<()> {
    let path = directory.join(FORMAT_FILE);
    let fresh = path.with_extension("new");
    let mut file = fs::File::create(&fresh)?;
    writeln!(file, "{FORMAT_NAME} {FORMAT}")?;
    file.sync_all()?;
    fs::rename(&fresh, &path)?;
    fs::File::open(directory)?.sync_all()
}

/// RocksDB's reason for not opening the database, in our words.
pub(crate) fn explain(directory: &Path, database: &Path, error: EngineError) -> EngineError {
    let (EngineError::Storage(reason) | EngineError::Unreadable(reason)) = &error else { return error };
    let why = reason.to_string();
    let unusable = |advice| EngineError::Unusable { path: database.into(), why: why.clone(), advice };
    let any = |marks: &[&str]| marks.iter().any(|mark| why.contains(mark));
    if any(&["LOCK: Resource temporarily unavailable", "lock hold by current process"]) {
        EngineError::InUse { path: directory.into() }
    } else if any(&["Permission denied", "Operation not permitted"]) {
        unusable("give the user this process runs as the right to read and write it")
    } else if any(&["Read-only file system"]) {
        unusable("the file system is read-only: see to the disk, then mount it for writing")
    } else if any(&["No space left on device", "Disk quota exceeded"]) {
        unusable("the disk is full: free space or grow the volume; the reserve file was removed already")
    } else if reason.kind() == rocksdb::ErrorKind::Corruption {
        EngineError::DamagedFiles { path: database.into(), why }
    } else {
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_empty_or_own_directory_is_taken() {
        let root = tempfile::tempdir().unwrap();
        let fresh = root.path().join("fresh");
        let prepared = Prepared { database: fresh.join("db"), empty: true };
        assert_eq!(prepare(&fresh).unwrap(), prepared);
        assert_eq!(prepare(&fresh).unwrap(), prepared);

        let foreign = root.path().join("foreign");
        fs::create_dir(&foreign).unwrap();
        fs::write(foreign.join("dump.rdb"), "REDIS0011").unwrap();
        assert!(matches!(prepare(&foreign), Err(EngineError::Foreign { found, .. }) if found == "dump.rdb"));
        assert_eq!(fs::read_dir(&foreign).unwrap().count(), 1, "a refusal changes nothing");

        fs::write(fresh.join(FORMAT_FILE), format!("{FORMAT_NAME} 2\n")).unwrap();
        assert!(matches!(prepare(&fresh), Err(EngineError::Newer { found: 2, known: 1, .. })));
        fs::write(fresh.join(FORMAT_FILE), "something else").unwrap();
        assert!(matches!(prepare(&fresh), Err(EngineError::Foreign { .. })));
    }

    #[test]
    fn a_first_start_that_was_cut_short_is_gone_on_with() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("db")).unwrap();
        fs::write(root.path().join("FORMAT.new"), "slui").unwrap();
        assert!(prepare(root.path()).unwrap().empty);
        for name in ["IDENTITY", "LOCK", "MANIFEST-000001", "000001.dbtmp"] {
            fs::write(root.path().join("db").join(name), "").unwrap();
        }
        assert!(prepare(root.path()).unwrap().empty);
    }

    #[test]
    fn a_database_that_lost_its_way_in_is_not_begun_anew() {
        let root = tempfile::tempdir().unwrap();
        let database = root.path().join("db");
        assert!(prepare(root.path()).unwrap().empty);
        let lacks = |expected: &str| match prepare(root.path()) {
            Err(EngineError::Incomplete { missing, .. }) => assert_eq!(missing, expected),
            other => panic!("{other:?}"),
        };
        fs::write(database.join("000012.sst"), "").unwrap();
        lacks("CURRENT");
        fs::write(database.join("CURRENT"), "MANIFEST-000005\n").unwrap();
        lacks("MANIFEST-000005");
        fs::write(database.join("CURRENT"), "\0\0").unwrap();
        lacks("a readable CURRENT");
        fs::write(database.join("CURRENT"), "MANIFEST-000005\n").unwrap();
        fs::write(database.join("MANIFEST-000005"), "").unwrap();
        assert!(!prepare(root.path()).unwrap().empty);
        fs::remove_dir_all(&database).unwrap();
        lacks("db");
    }
}
