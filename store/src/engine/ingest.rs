//! What an import brings in order goes into table files and into the database as a whole: no log, no memtable, no compaction to pay later.
//!
//! Files are built in `incoming/` of the data directory, on the same disk as the database, which takes them over by a link. Nobody sees
//! them there, nor after: they hold staged generations alone. What a crash leaves of them is removed by the next start.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use rocksdb::{IngestExternalFileOptions, Options, SstFileWriter};
use sluice_topology::Slot;

use super::{EngineError, Generation, RawFamily, RawRecord, contents::marks_of, database::Engine, families, layout::encode_key};

const DIRECTORY: &str = "incoming";
/// A file that overlaps what is in a memtable is refused rather than have all writes wait for a flush; after one of our own flushes it
/// is tried again, so often.
const TRIES: u32 = 8;
/// Bytes that are put between two looks at a file's size.
const ASK_BYTES: usize = 256 << 10;

/// Where files are built, and what they are called.
pub(crate) struct Incoming {
    directory: PathBuf,
    next: AtomicU64,
}

impl Incoming {
    /// Removes what the last run left.
    pub(crate) fn open(directory: &Path) -> Result<Self, EngineError> {
        let directory = directory.join(DIRECTORY);
        match fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(EngineError::directory(&directory)(error)),
            _ => Ok(Self { directory, next: AtomicU64::new(0) }),
        }
    }

    fn fresh(&self) -> Result<PathBuf, EngineError> {
        fs::create_dir_all(&self.directory).map_err(EngineError::directory(&self.directory))?;
        Ok(self.directory.join(format!("{}.sst", self.next.fetch_add(1, Ordering::Relaxed))))
    }
}

/// What became part of the database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ingested {
    /// Bytes of the files, as compressed as they are.
    pub bytes: u64,
    /// Files.
    pub files: u64,
}

impl Engine {
    /// Takes records as `next` gives them to its argument, each with its staged generation: families one after another, keys in order.
    /// They go into files of about `file_bytes`, each of one family, compressed as that family's files are; a file is ingested as soon
    /// as it is full. Durable on return. After an error what was ingested stays where nobody sees it, until its generation is aborted.
    pub fn ingest_staged<E: From<EngineError>>(
        &self,
        file_bytes: u64,
        next: impl FnOnce(&mut dyn FnMut(Generation, RawRecord<'_>) -> Result<(), E>) -> Result<(), E>,
    ) -> Result<Ingested, E> {
        let cache = self.block_cache();
        let options = RawFamily::ALL.map(|family| families::of_incoming(family.0, self.options(), &cache));
        let (mut open, mut ingested, mut stored): (Option<Open<'_>>, _, _) = (None, Ingested::default(), Vec::new());
        next(&mut |generation, record| {
            if let Some(full) = open.take_if(|open| open.family != record.family || open.is_full(file_bytes)) {
                self.ingest(full, &mut ingested)?;
            }
            let file = match &mut open {
                Some(file) => file,
                none => none.insert(Open::create(self, record.family, &options[usize::from(record.family.to_byte())])?),
            };
            if file.last != Some((record.slot, generation)) {
                file.last = Some((record.slot, generation));
                file.held.insert((record.slot, generation));
            }
            encode_key(&mut stored, record.slot, generation, record.key);
            self.note_staged_expiry(&record);
            let value = record.value.ok_or_else(|| EngineError::RawBatch("a snapshot holds a deletion".into()))?;
            // Refused by RocksDB when it is not in order.
            file.writer.put(&stored, value).map_err(EngineError::from)?;
            file.unasked += stored.len() + value.len();
            Ok(())
        })?;
        if let Some(last) = open {
            self.ingest(last, &mut ingested)?;
        }
        Ok(ingested)
    }

    /// Makes a file part of the database; durable on return.
    fn ingest(&self, open: Open<'_>, ingested: &mut Ingested) -> Result<(), EngineError> {
        let Open { mut writer, path, family, held, .. } = open;
        writer.finish()?;
        // Before it looks at generations: what is aborted from now on is not given back under it.
        let _reader = self.long_reader("import");
        self.admit_write(false)?;
        // Before the look as well: whoever aborts sees the mark, or this sees that it was aborted.
        held.iter().for_each(|(slot, _)| self.contents().mark_staged(*slot, marks_of(family.0)));
        if let Some((slot, generation)) = held.iter().find(|(slot, generation)| !self.table().is_staged(*slot, *generation)) {
            let number = generation.0;
            return Err(EngineError::RawBatch(format!("generation {number} of slot {slot} is not staged (any more)")));
        }
        let mut options = IngestExternalFileOptions::default();
        options.set_move_files(true);
        options.set_allow_blocking_flush(false);
        let handle = self.database().family(family.0);
        let ingest = || self.database().db().ingest_external_file_cf_opts(handle, &options, vec![&path.0]);
        let mut outcome = ingest();
        for _ in 1..TRIES {
            if !outcome.as_ref().is_err_and(|error| error.kind() == rocksdb::ErrorKind::InvalidArgument) {
                break;
            }
            self.flush_blocking()?;
            outcome = ingest();
        }
        outcome?;
        ingested.bytes += writer.file_size();
        ingested.files += 1;
        Ok(())
    }
}

/// A file's name until the database has taken it over: it has a link of its own then.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// A file being written.
struct Open<'a> {
    writer: SstFileWriter<'a>,
    path: Temporary,
    family: RawFamily,
    held: BTreeSet<(Slot, Generation)>,
    last: Option<(Slot, Generation)>,
    /// Bytes put since its size was asked for.
    unasked: usize,
}

impl<'a> Open<'a> {
    fn create(engine: &Engine, family: RawFamily, options: &'a Options) -> Result<Self, EngineError> {
        engine.admit_write(false)?;
        let path = Temporary(engine.incoming().fresh()?);
        let writer = SstFileWriter::create(options);
        writer.open(&path.0)?;
        Ok(Self { writer, path, family, held: BTreeSet::new(), last: None, unasked: 0 })
    }

    /// Asked for every record: the file itself is not.
    fn is_full(&mut self, file_bytes: u64) -> bool {
        if self.unasked < ASK_BYTES {
            return false;
        }
        self.unasked = 0;
        self.writer.file_size() >= file_bytes
    }
}
