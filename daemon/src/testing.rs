//! What is told, for tests.

use std::{
    io::Write,
    sync::{Arc, Mutex},
};

use tracing_subscriber::fmt;

#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The warnings and errors that `work` logs on its thread, a line each.
///
/// # Panics
/// When `work` does.
pub fn warnings(work: impl FnOnce()) -> Vec<String> {
    let buffer = Buffer::default();
    let writer = buffer.clone();
    let log = fmt().with_max_level(tracing::Level::WARN).with_ansi(false).with_writer(move || writer.clone());
    tracing::subscriber::with_default(log.finish(), work);
    let told = buffer.0.lock().unwrap();
    String::from_utf8_lossy(&told).lines().map(str::to_owned).collect()
}
