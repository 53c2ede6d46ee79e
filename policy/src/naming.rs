//! Names in a message for people: the first of many, because messages are copied to everybody whom they concern.

/// More names than this help nobody.
const NAMED: usize = 5;

/// The names with commas between them; of more than five the first, and how many more there are.
#[must_use]
pub fn name_some<T: AsRef<str>>(names: &[T]) -> String {
    let named: Vec<&str> = names.iter().take(NAMED).map(AsRef::as_ref).collect();
    let named = named.join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_five() {
        let names: Vec<String> = (1..=100).map(|number| format!("Egg {number}")).collect();
        assert_eq!(name_some(&names[..0]), "");
        assert_eq!(name_some(&names[..5]), "Egg 1, Egg 2, Egg 3, Egg 4, Egg 5");
        assert_eq!(name_some(&names), "Egg 1, Egg 2, Egg 3, Egg 4, Egg 5 and 95 more");
    }
}
