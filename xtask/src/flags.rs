//! Arguments: words in order, `--switch`es and `--option VALUE`s. Enough for a handful of commands.

use std::str::FromStr;

use crate::failure::{Failure, Result};

#[derive(Debug, Clone)]
pub struct Flags {
    rest: Vec<String>,
}

impl Flags {
    pub fn new(arguments: impl IntoIterator<Item = String>) -> Flags {
        Flags { rest: arguments.into_iter().collect() }
    }

    /// Takes the next argument, where it is a word.
    pub fn word(&mut self) -> Option<String> {
        let is_word = self.rest.first().is_some_and(|argument| !argument.starts_with("--"));
        is_word.then(|| self.rest.remove(0))
    }

    /// Takes `name` out, and says whether it was there.
    pub fn switch(&mut self, name: &str) -> bool {
        let before = self.rest.len();
        self.rest.retain(|argument| argument != name);
        self.rest.len() != before
    }

    /// Takes `name VALUE` out.
    ///
    /// # Errors
    /// When the value is missing or does not parse.
    pub fn option<T: FromStr>(&mut self, name: &str) -> Result<Option<T>> {
        let Some(at) = self.rest.iter().position(|argument| argument == name) else { return Ok(None) };
        self.rest.remove(at);
        if at == self.rest.len() {
            return Err(Failure::usage(format!("{name} needs a value")));
        }
        let value = self.rest.remove(at);
        value.parse().map(Some).map_err(|_| Failure::usage(format!("{name} does not take `{value}`")))
    }

    /// # Errors
    /// When something is left that nobody took.
    pub fn end(self) -> Result {
        match self.rest.first() {
            None => Ok(()),
            Some(argument) => Err(Failure::usage(format!("`{argument}` is not understood here"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_nobody_took_is_refused() {
        let mut flags = Flags::new(["--rounds", "3", "--detach", "--oops"].map(str::to_owned));
        assert_eq!(flags.option::<u32>("--rounds").unwrap(), Some(3));
        assert!(flags.switch("--detach"));
        assert_eq!(flags.end().unwrap_err().to_string(), "`--oops` is not understood here");
    }

    #[test]
    fn a_value_of_the_wrong_kind_is_refused() {
        let mut flags = Flags::new(["--rounds", "many"].map(str::to_owned));
        assert_eq!(flags.option::<u32>("--rounds").unwrap_err().code(), 2);
    }
}
