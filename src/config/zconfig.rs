//! Reads a file in the format of ZConfig, such as a `zeo.conf`: sections, keys and values.
//!
//! The facts come from ZConfig 4 (`cfgparser.py`, `substitution.py`). White space around a line
//! does not count.
//!
//! | line | meaning |
//! | --- | --- |
//! | empty, or `# ...` | a comment |
//! | `<type name>`, `<type>` | the start of a section |
//! | `<type name/>`, `<type/>` | a section without content |
//! | `</type>` | the end of the section that was started last |
//! | `%define name value` | defines a variable |
//! | `%include file` | reads a file in the place of this line |
//! | `%import package` | has no meaning here |
//! | `key value`, `key` | a key |
//!
//! Types, names and variables are not case-sensitive. In values, definitions and names of
//! included files, `$name` and `${name}` are variables, `$(NAME)` is an environment variable, and
//! `$$` is a dollar sign. A type, a name or a key contains no white space and no parenthesis.

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};

use super::file::{Text, usage};
use crate::error::Error;

/// The maximum depth of sections in each other, and of included files.
const MAX_DEPTH: usize = 20;

/// The maximum number of included files.
const MAX_FILES: usize = 100;

/// The maximum length of a value, in bytes.
const MAX_VALUE_LEN: usize = 32 * 1024;

/// A section, or the whole file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Section {
    /// Lower-case; empty for the whole file.
    pub(super) kind: String,
    /// Lower-case.
    pub(super) name: Option<String>,
    /// The file and the line of its start, for messages.
    pub(super) place: String,
    /// The values of its keys. The keys are lower-case.
    pub(super) values: BTreeMap<String, String>,
    /// The sections in it.
    pub(super) sections: Vec<Section>,
}

/// Reads a file, and the files that it includes. Every error is [`Error::Usage`].
pub(super) fn read(path: &Path) -> Result<Section, Error> {
    let mut reader = Reader {
        definitions: BTreeMap::new(),
        files: 0,
    };
    let mut whole = Section::default();
    reader.read(path, 0, &mut whole)?;
    Ok(whole)
}

struct Reader {
    definitions: BTreeMap<String, String>,
    files: usize,
}

impl Reader {
    /// Adds the content of a file to a section. `depth` is the number of files that include it.
    fn read(&mut self, path: &Path, depth: usize, into: &mut Section) -> Result<(), Error> {
        self.files += 1;
        if depth > MAX_DEPTH || self.files > MAX_FILES {
            return Err(usage(path, &"too many files include each other"));
        }
        let text = Text::read(path)?;
        let mut open = vec![std::mem::take(into)];
        for (n, line) in text.lines().map(str::trim).enumerate() {
            let place = format!("{}, line {}", path.display(), n + 1);
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let fail = |why: String| Error::Usage(format!("{place}: {why}"));
            if let Some(directive) = line.strip_prefix('%') {
                let included = self.obey(directive).map_err(fail)?;
                if let Some(name) = included
                    && let Some(section) = open.last_mut()
                {
                    let file = path.parent().unwrap_or(Path::new("")).join(name);
                    self.read(&file, depth + 1, section)?;
                }
            } else {
                self.add(line, &place, &mut open).map_err(fail)?;
            }
        }
        match (open.pop(), open.is_empty()) {
            (Some(whole), true) => *into = whole,
            (Some(section), false) => {
                let why = format!("section <{}> is not ended", section.kind);
                return Err(Error::Usage(format!("{}: {why}", section.place)));
            }
            (None, _) => {}
        }
        Ok(())
    }

    /// Adds a line to the sections that are open, of which the last one is the innermost.
    fn add(&self, line: &str, place: &str, open: &mut Vec<Section>) -> Result<(), String> {
        if let Some(end) = line.strip_prefix("</") {
            let kind = end.strip_suffix('>').map(|it| it.trim().to_lowercase());
            let ended = (open.len() > 1).then(|| open.pop()).flatten();
            match (ended, open.last_mut()) {
                (Some(ended), Some(around)) if kind.as_ref() == Some(&ended.kind) => {
                    around.sections.push(ended);
                }
                _ => return Err("this does not end the section that was started last".to_owned()),
            }
        } else if let Some(start) = line.strip_prefix('<') {
            let (section, is_empty) = section(start, place).ok_or("not the start of a section")?;
            if !is_empty && open.len() > MAX_DEPTH {
                return Err("too many nested sections".to_owned());
            }
            match open.last_mut() {
                Some(around) if is_empty => around.sections.push(section),
                _ => open.push(section),
            }
        } else if let Some(section) = open.last_mut() {
            let (key, value) = word(line).ok_or("not a key")?;
            let value = self.replace(value)?;
            section.values.insert(key.to_lowercase(), value);
        }
        Ok(())
    }

    /// Obeys a line that starts with `%`. Returns the name of a file to include.
    fn obey(&mut self, directive: &str) -> Result<Option<PathBuf>, String> {
        let (name, argument) = word(directive).ok_or("not a directive")?;
        match (name, argument) {
            (_, "") => Err(format!("%{name} has no argument")),
            ("import", _) => Ok(None),
            ("include", file) => {
                let file = self.replace(file)?;
                let file = file.strip_prefix("file://").unwrap_or(&file);
                if file.contains("://") {
                    return Err(format!("cannot include {file}: only files can be included"));
                }
                Ok(Some(file.into()))
            }
            ("define", definition) => {
                let (name, value) = word(definition).ok_or("not a definition")?;
                let name = name.to_lowercase();
                if variable(&name) != Some((&name, "")) {
                    return Err(format!("{name} is not the name of a variable"));
                }
                let value = self.replace(value)?;
                self.definitions.insert(name, value);
                Ok(None)
            }
            _ => Err(format!("%{name} is not a directive of ZConfig")),
        }
    }

    /// The text with its variables replaced.
    fn replace(&self, text: &str) -> Result<String, String> {
        const STRAY: &str = "a dollar sign must be followed by a variable or a dollar sign";
        let mut replaced = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            replaced += &rest[..at];
            let after = &rest[at + 1..];
            let (value, end) = match after.chars().next() {
                Some('$') => ("$".to_owned(), &after[1..]),
                Some('(') => {
                    let (name, end) = variable(&after[1..]).ok_or(STRAY)?;
                    let value = env::var(name);
                    let value = value.map_err(|_| {
                        format!("the environment variable {name} is not set, or not UTF-8")
                    });
                    (value?, end.strip_prefix(')').ok_or(STRAY)?)
                }
                Some('{') => {
                    let (name, end) = variable(&after[1..]).ok_or(STRAY)?;
                    (self.defined(name)?, end.strip_prefix('}').ok_or(STRAY)?)
                }
                _ => {
                    let (name, end) = variable(after).ok_or(STRAY)?;
                    (self.defined(name)?, end)
                }
            };
            replaced += &value;
            rest = end;
            if replaced.len() > MAX_VALUE_LEN {
                return Err(format!("the value is longer than {MAX_VALUE_LEN} bytes"));
            }
        }
        Ok(replaced + rest)
    }

    fn defined(&self, name: &str) -> Result<String, String> {
        let value = self.definitions.get(&name.to_lowercase()).cloned();
        value.ok_or_else(|| format!("the variable {name} is not defined"))
    }
}

/// The section that starts after `<`, and whether it is empty.
fn section(start: &str, place: &str) -> Option<(Section, bool)> {
    let start = start.strip_suffix('>')?;
    let (start, is_empty) = match start.strip_suffix('/') {
        Some(start) => (start, true),
        None => (start, false),
    };
    let (kind, rest) = word(start.trim_end())?;
    let name = match rest {
        "" => None,
        rest => match word(rest)? {
            (name, "") => Some(name.to_lowercase()),
            _ => return None,
        },
    };
    let section = Section {
        kind: kind.to_lowercase(),
        name,
        place: place.to_owned(),
        ..Section::default()
    };
    Some((section, is_empty))
}

/// The first word of a text, and the rest without white space around it.
fn word(text: &str) -> Option<(&str, &str)> {
    let is_end = |c: char| c.is_whitespace() || c == '(' || c == ')';
    let (word, rest) = text.split_at(text.find(is_end).unwrap_or(text.len()));
    (!word.is_empty()).then(|| (word, rest.trim()))
}

/// The name of a variable at the start of a text, and the rest.
fn variable(text: &str) -> Option<(&str, &str)> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let end = text.find(|c| !is_part(c)).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let is_name = name.starts_with(|c: char| !c.is_ascii_digit());
    is_name.then_some((name, rest))
}
