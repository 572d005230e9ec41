//! How a command fails.

/// The input is wrong: exit 1. The text is complete and goes to standard error.
#[derive(Debug)]
pub struct Failure(pub String);

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(inner) = cause {
            // Many errors say their cause themselves.
            let said = inner.to_string();
            if !text.contains(&said) {
                text.push_str(": ");
                text.push_str(&said);
            }
            cause = inner.source();
        }
        Self(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Error {
        #[error("the file {0}")]
        Quiet(&'static str, #[source] std::fmt::Error),
        #[error("listener `edge`: {0}")]
        Talkative(#[source] Box<Error>),
    }

    #[test]
    fn every_cause_is_said_once() {
        let quiet = Error::Quiet("a.pem", std::fmt::Error);
        let all = format!("listener `edge`: the file a.pem: {}", std::fmt::Error);
        assert_eq!(Failure::from(Error::Talkative(Box::new(quiet))).0, all);
    }
}
