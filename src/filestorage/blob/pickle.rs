//! Recognises the pickle of a blob.
//!
//! A data record consists of two pickles: the class of the object, and its state. ZODB 6.4
//! (`ZODB/blob.py`: `is_blob_record`) takes a record for a blob if its first pickle is the global
//! `ZODB.blob.Blob`. Subclasses of that class are forbidden. These spellings are known:
//!
//! | bytes of the first pickle | writer |
//! | --- | --- |
//! | `cZODB.blob\nBlob\nq\x01.` | ZODB up to 4 |
//! | `\x80\x03cZODB.blob\nBlob\nq\x01.` | ZODB 5 under Python 2, `zodbupdate` |
//! | `\x80\x03cZODB.blob\nBlob\nq\x00.` | ZODB under Python 3 |
//! | `\x80\x04\x95…\x8c\tZODB.blob\x94\x8c\x04Blob\x94\x93\x94.` | protocol 4, not used by ZODB 6.4 |
//!
//! [`is_blob_pickle`] interprets the opcodes of these pickles, so that it also recognises other
//! spellings of the same value, such as another memo index. It rejects all other opcodes. The
//! integers in a pickle are little-endian.
//!
//! | opcode | argument, in bytes | effect |
//! | --- | --- | --- |
//! | `\x80` PROTO | 1: the version | none |
//! | `\x95` FRAME | 8: a length | none |
//! | `c` GLOBAL | two lines: module, name | pushes a class |
//! | `\x8c` SHORT_BINUNICODE, `U` SHORT_BINSTRING | 1: a length; the string | pushes a string |
//! | `X` BINUNICODE, `T` BINSTRING | 4: a length; the string | pushes a string |
//! | `\x93` STACK_GLOBAL | | pops name and module, pushes a class |
//! | `q` BINPUT | 1: an index | stores the last value in the memo |
//! | `r` LONG_BINPUT | 4: an index | stores the last value in the memo |
//! | `p` PUT | a line: an index | stores the last value in the memo |
//! | `\x94` MEMOIZE | | stores the last value in the memo |
//! | `.` STOP | | the last value is the result |

/// The number of bytes at the start of a data record's pickle that decide whether the record is
/// one of a blob.
pub const PICKLE_START_LEN: usize = 64;

/// The highest protocol that Python 3.14 reads.
const HIGHEST_PROTOCOL: u8 = 5;

const MODULE: &[u8] = b"ZODB.blob";
const CLASS: &[u8] = b"Blob";

/// The argument of GLOBAL.
const MODULE_AND_CLASS: &[u8] = b"ZODB.blob\nBlob\n";

/// The values that were pushed, and are on the stack.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stack {
    Empty,
    Module,
    ModuleAndName,
    Class,
}

/// Whether a data record is one of a blob. `first` has the first [`PICKLE_START_LEN`] bytes of
/// its pickle, or all if there are fewer.
#[inline]
#[must_use]
pub fn is_blob_pickle(first: &[u8]) -> bool {
    // Nearly all records are of other classes. The common spellings reach the module's name after
    // at most three bytes, so most records are rejected there.
    match first {
        [b'c', rest @ ..] | [b'\x80', _, b'c', rest @ ..] => {
            rest.starts_with(MODULE_AND_CLASS) && interpret(first)
        }
        [b'\x80' | b'\x95' | b'\x8c' | b'U' | b'X' | b'T', ..] => interpret(first),
        _ => false,
    }
}

/// Interprets a pickle from its start, and returns whether it is the class of blobs.
fn interpret(first: &[u8]) -> bool {
    let mut rest = &first[..first.len().min(PICKLE_START_LEN)];
    let mut stack = Stack::Empty;
    while let Some((&opcode, after)) = rest.split_first() {
        rest = after;
        let stepped = match opcode {
            b'\x80' => skip_protocol(&mut rest),
            b'\x95' => skip(&mut rest, 8),
            b'c' if stack == Stack::Empty => {
                stack = Stack::Class;
                skip_if(&mut rest, MODULE_AND_CLASS)
            }
            b'\x8c' | b'U' => push(&mut stack, &mut rest, 1),
            b'X' | b'T' => push(&mut stack, &mut rest, 4),
            b'\x93' if stack == Stack::ModuleAndName => {
                stack = Stack::Class;
                Some(())
            }
            // Only a value can be stored.
            b'q' if stack != Stack::Empty => skip(&mut rest, 1),
            b'r' if stack != Stack::Empty => skip(&mut rest, 4),
            b'p' if stack != Stack::Empty => skip_number(&mut rest),
            b'\x94' if stack != Stack::Empty => Some(()),
            b'.' => return stack == Stack::Class,
            _ => None,
        };
        if stepped.is_none() {
            return false;
        }
    }
    // The pickle does not end within these bytes.
    false
}

fn skip(rest: &mut &[u8], len: usize) -> Option<()> {
    *rest = rest.get(len..)?;
    Some(())
}

/// Skips these bytes, if the rest starts with them.
fn skip_if(rest: &mut &[u8], expected: &[u8]) -> Option<()> {
    *rest = rest.strip_prefix(expected)?;
    Some(())
}

fn skip_protocol(rest: &mut &[u8]) -> Option<()> {
    let (&version, after) = rest.split_first()?;
    *rest = after;
    (version <= HIGHEST_PROTOCOL).then_some(())
}

/// Skips a line that consists of digits.
fn skip_number(rest: &mut &[u8]) -> Option<()> {
    let len = rest.iter().position(|&byte| byte == b'\n')?;
    let (digits, after) = rest.split_at(len);
    *rest = &after[1..];
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    is_number.then_some(())
}

/// Pushes a string with a length of `len_len` bytes. Only the names of module and class are
/// accepted, in this order.
fn push(stack: &mut Stack, rest: &mut &[u8], len_len: usize) -> Option<()> {
    let (expected, next) = match stack {
        Stack::Empty => (MODULE, Stack::Module),
        Stack::Module => (CLASS, Stack::ModuleAndName),
        Stack::ModuleAndName | Stack::Class => return None,
    };
    let (len, after) = rest.split_at_checked(len_len)?;
    *rest = after;
    let mut bytes = [0; 4];
    bytes[..len_len].copy_from_slice(len);
    if u32::from_le_bytes(bytes) as usize != expected.len() {
        return None;
    }
    *stack = next;
    skip_if(rest, expected)
}

#[cfg(test)]
mod tests;
