//! A text that outlives the agent. bpffs holds no files, so it is the value of a map. It is beside the directories of all versions, so it
//! outlives those too, and ends with the boot, as pods do.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use aya::maps::{Array, Map, MapData, MapError};

use super::sys;

/// Most bytes of one.
pub const NOTE_MAX: usize = 32 * 1024;

/// Behind it are zeros.
type Bytes = [u8; NOTE_MAX];

/// Why a text cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum NoteError {
    /// bpf(2) or bpffs.
    #[error("{path}: {source}")]
    System {
        /// Where it is pinned.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// What is pinned there is something else.
    #[error("{path}: {source}")]
    Map {
        /// Where it is pinned.
        path: PathBuf,
        /// What is wrong with it.
        source: MapError,
    },
    /// It is longer than [`NOTE_MAX`].
    #[error("{length} bytes are more than {NOTE_MAX}")]
    TooLong {
        /// Its length.
        length: usize,
    },
}

/// Where a text is kept.
#[derive(Clone, Debug)]
pub struct Note {
    path: PathBuf,
}

impl Note {
    /// That of this name. There need not be one.
    #[must_use]
    pub fn new(bpffs: &Path, name: &str) -> Self {
        Note { path: bpffs.join("l7egg").join(name) }
    }

    /// What was written last, if anything was.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(&self) -> Result<Option<String>, NoteError> {
        let Some(bytes) = self.open()? else { return Ok(None) };
        let bytes = bytes.get(&0, 0).map_err(|source| self.map_error(source))?;
        let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        Ok((!text.is_empty()).then(|| String::from_utf8_lossy(text).into_owned()))
    }

    /// Writes another text in its place. One without zeros.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, text: &str) -> Result<(), NoteError> {
        let mut bytes: Bytes = [0; NOTE_MAX];
        let length = text.len();
        bytes.get_mut(..length).ok_or(NoteError::TooLong { length })?.copy_from_slice(text.as_bytes());
        match self.open() {
            Ok(Some(mut there)) => return there.set(0, bytes, 0).map_err(|source| self.map_error(source)),
            Ok(None) => {}
            // Another version may have had more room for it.
            Err(_) => fs::remove_file(&self.path).map_err(|source| self.system(source))?,
        }
        let mut map = Array::<MapData, Bytes>::create(1, 0).map_err(|source| self.map_error(source))?;
        map.set(0, bytes, 0).map_err(|source| self.map_error(source))?;
        map.pin(&self.path).map_err(|error| self.system(io::Error::other(error)))
    }

    fn open(&self) -> Result<Option<Array<MapData, Bytes>>, NoteError> {
        match sys::open_pinned(&self.path) {
            Ok(map) => self.array(map).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.system(error)),
        }
    }

    fn array(&self, map: OwnedFd) -> Result<Array<MapData, Bytes>, NoteError> {
        let array = MapData::from_fd(map).and_then(Map::from_map_data).and_then(Array::try_from);
        array.map_err(|source| self.map_error(source))
    }

    fn system(&self, source: io::Error) -> NoteError {
        NoteError::System { path: self.path.clone(), source }
    }

    fn map_error(&self, source: MapError) -> NoteError {
        NoteError::Map { path: self.path.clone(), source }
    }
}
