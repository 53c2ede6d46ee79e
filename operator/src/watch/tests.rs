use super::*;

/// What an object that cannot be read is news of.
fn read_badly(event: Event<u8>) -> Option<Change<u8, u8>> {
    change(event, |object| (object != 7).then_some(10 / (object - 1)), |object| Some(*object))
}

#[test]
fn a_panic_over_an_object_leaves_what_was_known_of_it() {
    assert!(matches!(read_badly(Event::Apply(3)), Some(Change::Set(5))));
    assert!(matches!(read_badly(Event::Apply(7)), Some(Change::Gone(7))));
    // 10 / 0.
    assert!(matches!(read_badly(Event::InitApply(1)), Some(Change::Present(1))));
}
