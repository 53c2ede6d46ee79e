//! An error and all that led to it, in one line.

use std::error::Error;

/// The error's message and those of its causes, leaving out causes that a message already tells.
#[must_use]
pub fn causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let message = cause.to_string();
        if !text.contains(&message) {
            text = format!("{text}: {message}");
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapath::DatapathError;

    #[test]
    fn nothing_is_said_twice() {
        let system = std::io::Error::from_raw_os_error(13);
        let inner = DatapathError::Kernel { what: format!("attaching: {system}"), source: Box::new(system) };
        assert_eq!(causes(&inner), "attaching: Permission denied (os error 13)");
        let outer = DatapathError::Kernel { what: "pod p".into(), source: Box::new(inner) };
        assert_eq!(causes(&outer), "pod p: attaching: Permission denied (os error 13)");
    }
}
