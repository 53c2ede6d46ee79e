//! What is kept for the next agent, as text.

use std::fs;
use std::os::fd::AsFd;

use l7egg_node_agent::kernel::{Kernel, NOTE_MAX, Note, remove_everything, sys};

use crate::harness::{Bpffs, fail, settings};

#[test]
fn a_note_outlives_who_wrote_it_and_ends_with_all_else() {
    let bpffs = Bpffs::new();
    let open = || Kernel::open(&settings(&bpffs)).unwrap_or_else(fail);
    drop(open());
    let path = settings(&bpffs).bpffs;
    let note = || Note::new(&path, "resolvers");
    assert_eq!(note().read().expect("nothing yet"), None);
    let long = "x".repeat(NOTE_MAX);
    for text in ["first", long.as_str(), "third"] {
        note().write(text).expect("to write");
        assert_eq!(note().read().expect("to read").as_deref(), Some(text));
    }
    assert!(note().write(&format!("{long}x")).is_err());
    drop(open());
    assert_eq!(note().read().expect("to read").as_deref(), Some("third"), "it is no version's own");
    // Somebody pins something else there.
    let pin = path.join("l7egg/resolvers");
    fs::remove_file(&pin).expect("a pin");
    let other = fs::read_dir(path.join("l7egg")).expect("versions").flatten();
    let version = other.map(|it| it.path()).find(|it| it.join("maps").is_dir()).expect("a version");
    let map = sys::open_pinned(&version.join("maps/CONFIG")).expect("a map");
    sys::pin(map.as_fd(), &pin).expect("to pin it");
    assert!(note().read().is_err());
    note().write("fourth").expect("to write");
    assert_eq!(note().read().expect("to read").as_deref(), Some("fourth"));
    remove_everything(&path).expect("to remove all");
    assert!(!pin.exists());
}
