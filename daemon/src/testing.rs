//! What is told, for tests.

use std::{
    io::Write,
    sync::{Arc, LazyLock, Mutex},
};

use tracing::Dispatch;
use tracing_subscriber::fmt;

/// Never the only one: with a single subscriber tracing asks that of the thread which comes to a place first, and where that has none
/// nothing is logged there any more, by any thread.
static ANOTHER: LazyLock<Dispatch> =
    LazyLock::new(|| fmt().with_max_level(tracing::Level::WARN).with_writer(std::io::sink).finish().into());

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
    LazyLock::force(&ANOTHER);
    let buffer = Buffer::default();
    let writer = buffer.clone();
    let log = fmt().with_max_level(tracing::Level::WARN).with_ansi(false).with_writer(move || writer.clone());
    tracing::subscriber::with_default(log.finish(), work);
    let told = buffer.0.lock().unwrap();
    String::from_utf8_lossy(&told).lines().map(str::to_owned).collect()
}
