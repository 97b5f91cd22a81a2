//! Expands variables in the strings of a configuration file: `${NAME}` is the value of an
//! environment variable, and `$$` is a dollar sign. Any other dollar sign is an error, since
//! a shell would give it a meaning that it does not have here.

use std::env::VarError;

/// The longest result, in bytes. A file of the largest size could otherwise expand to gigabytes.
const MAX_LEN: usize = 32 * 1024;

/// A string that cannot be expanded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ExpandError {
    /// The variable is not set.
    #[error("the environment variable {0} is not set; write `$$` for a dollar sign")]
    Unset(String),
    /// The value of the variable is not UTF-8.
    #[error("the environment variable {0} is not UTF-8")]
    NotUtf8(String),
    /// A dollar sign that is followed by something else.
    #[error("a dollar sign must be followed by `{{NAME}}` or by another dollar sign")]
    Stray,
    /// The result is too long.
    #[error("the value is longer than {MAX_LEN} bytes")]
    TooLong,
}

/// Expands a string. `variable` looks up an environment variable.
pub(super) fn expand(
    text: &str,
    variable: impl Fn(&str) -> Result<String, VarError>,
) -> Result<String, ExpandError> {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        expanded += &rest[..at];
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            expanded.push('$');
            rest = after;
        } else {
            let (name, after) = braced_name(rest).ok_or(ExpandError::Stray)?;
            expanded += &variable(name).map_err(|error| match error {
                VarError::NotPresent => ExpandError::Unset(name.to_owned()),
                VarError::NotUnicode(_) => ExpandError::NotUtf8(name.to_owned()),
            })?;
            rest = after;
        }
        if expanded.len() > MAX_LEN {
            return Err(ExpandError::TooLong);
        }
    }
    expanded += rest;
    if expanded.len() > MAX_LEN {
        return Err(ExpandError::TooLong);
    }
    Ok(expanded)
}

/// Writes a string so that [`expand`] returns it unchanged.
pub(super) fn escape(text: &str) -> String {
    text.replace('$', "$$")
}

/// The name in `{NAME}` at the start of a text, and the text after it.
fn braced_name(text: &str) -> Option<(&str, &str)> {
    let (name, after) = text.strip_prefix('{')?.split_once('}')?;
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    is_name.then_some((name, after))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    /// Some variables.
    fn variable(name: &str) -> Result<String, VarError> {
        match name {
            "HOME" => Ok("/root".to_owned()),
            "COST" => Ok("$5 ${HOME}".to_owned()),
            "LONG" => Ok("x".repeat(MAX_LEN / 2)),
            "LATIN" => Err(VarError::NotUnicode(OsString::new())),
            _ => Err(VarError::NotPresent),
        }
    }

    #[test]
    fn variables_are_replaced_once() {
        for (text, expected) in [
            ("", ""),
            ("plain", "plain"),
            ("ssh -i ${HOME}/.ssh/fssync", "ssh -i /root/.ssh/fssync"),
            ("${HOME}${HOME}", "/root/root"),
            ("a$$b$$$$", "a$b$$"),
            ("$${HOME}", "${HOME}"),
            ("${COST}", "$5 ${HOME}"),
            ("{HOME}é", "{HOME}é"),
            ("${LONG}", &"x".repeat(MAX_LEN / 2)),
        ] {
            assert_eq!(expand(text, variable).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn anything_else_is_an_error() {
        let unset = |name: &str| ExpandError::Unset(name.to_owned());
        for (text, expected) in [
            ("${USER_}", unset("USER_")),
            ("${home}", unset("home")),
            ("${LATIN}", ExpandError::NotUtf8("LATIN".to_owned())),
            ("$", ExpandError::Stray),
            ("a$", ExpandError::Stray),
            ("$$$", ExpandError::Stray),
            ("$HOME", ExpandError::Stray),
            ("$(HOME)", ExpandError::Stray),
            ("${HOME", ExpandError::Stray),
            ("${}", ExpandError::Stray),
            ("${1}", ExpandError::Stray),
            ("${HOME:-x}", ExpandError::Stray),
            ("${LONG}${LONG}x", ExpandError::TooLong),
        ] {
            assert_eq!(expand(text, variable), Err(expected), "{text}");
        }
    }

    #[test]
    fn an_escaped_text_expands_to_itself() {
        for text in ["", "a", "$", "$$", "${HOME}", "a$b"] {
            assert_eq!(expand(&escape(text), variable).as_deref(), Ok(text));
        }
    }
}
