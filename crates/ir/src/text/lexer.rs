//! Words and marks of the text form.

use crate::error::GraphError;

/// One word or mark.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// An identifier: letters, digits, `_ . / ?`, starting with no digit.
    Word(String),
    /// A quoted string, unescaped.
    Quoted(String),
    /// A number as written.
    Number(String),
    /// A single mark.
    Mark(char),
}

/// Tokens with the line each starts on.
pub(super) fn tokens(text: &str) -> Result<Vec<(Token, usize)>, GraphError> {
    let mut list = Vec::new();
    let mut line = 1;
    let mut rest = text.chars().peekable();
    while let Some(&c) = rest.peek() {
        if c == '\n' {
            line += 1;
            rest.next();
        } else if c.is_whitespace() {
            rest.next();
        } else if c == '"' {
            rest.next();
            list.push((Token::Quoted(quoted(&mut rest, line)?), line));
        } else if c.is_ascii_alphabetic() || matches!(c, '_' | '?') {
            list.push((Token::Word(take(&mut rest, is_word)), line));
        } else if c.is_ascii_digit() {
            let mut number = String::new();
            while let Some(&c) = rest.peek() {
                let signed = matches!(c, '+' | '-') && number.ends_with(['e', 'E']);
                if !(c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E') || signed) {
                    break;
                }
                number.push(c);
                rest.next();
            }
            list.push((Token::Number(number), line));
        } else {
            rest.next();
            list.push((Token::Mark(c), line));
        }
    }
    Ok(list)
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '/' | '?')
}

type Chars<'a> = std::iter::Peekable<std::str::Chars<'a>>;

fn take(rest: &mut Chars<'_>, keep: fn(char) -> bool) -> String {
    let mut word = String::new();
    while let Some(&c) = rest.peek().filter(|&&c| keep(c)) {
        word.push(c);
        rest.next();
    }
    word
}

/// The inside of a string in Rust's `{:?}` escapes.
fn quoted(rest: &mut Chars<'_>, line: usize) -> Result<String, GraphError> {
    let broken = |why: &str| GraphError::Text { line, why: why.to_string() };
    let mut text = String::new();
    loop {
        match rest.next().ok_or_else(|| broken("a string does not end"))? {
            '"' => return Ok(text),
            '\\' => match rest.next().ok_or_else(|| broken("a string does not end"))? {
                'n' => text.push('\n'),
                't' => text.push('\t'),
                'r' => text.push('\r'),
                '0' => text.push('\0'),
                'u' => {
                    let code = take(rest, |c| c == '{' || c.is_ascii_hexdigit());
                    let code = u32::from_str_radix(code.trim_start_matches('{'), 16);
                    let symbol =
                        code.ok().and_then(char::from_u32).filter(|_| rest.next() == Some('}'));
                    text.push(symbol.ok_or_else(|| broken("not a character code"))?);
                }
                other => text.push(other),
            },
            other => text.push(other),
        }
    }
}
