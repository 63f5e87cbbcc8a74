//! The xl.cfg syntax: `key = value`, one a line or separated by `;`, where a value is a number, a string or a list.

use std::fmt;
use std::sync::Arc;

/// Where something was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file, or what stands for one.
    pub file: Arc<str>,
    /// Its line, from 1.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 { f.write_str(&self.file) } else { write!(f, "{}:{}", self.file, self.line) }
    }
}

/// What is wrong with a configuration, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {what}")]
pub struct ConfigError {
    /// Where.
    pub place: Place,
    /// What, and what to do.
    pub what: String,
}

/// A setting's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Decimal or hexadecimal.
    Number(u64),
    /// In either kind of quotes.
    Text(String),
    /// Anything in brackets.
    List(Vec<Value>),
}

impl Value {
    /// Does it ask for nothing: `""`, `0`, `[]`?
    pub fn is_nothing(&self) -> bool {
        match self {
            Value::Number(n) => *n == 0,
            Value::Text(text) => text.is_empty(),
            Value::List(list) => list.is_empty(),
        }
    }
}

/// One `key = value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Its name.
    pub key: String,
    /// Its value.
    pub value: Value,
    /// Where the key stands.
    pub place: Place,
}

/// Reads a file's text. `file` is for messages.
pub fn parse(file: &str, text: &str) -> Result<Vec<Setting>, ConfigError> {
    let mut parser = Parser { rest: text, place: Place { file: file.into(), line: 1 } };
    let mut settings: Vec<Setting> = Vec::new();
    while parser.next_setting() {
        parser.setting(&mut settings)?;
    }
    Ok(settings)
}

/// Reads a `key=value` of the command line. What is neither a number, a string in quotes nor a list is taken as a string, so
/// that the shell's quotes are enough.
pub fn parse_override(text: &str) -> Result<Setting, ConfigError> {
    let place = Place { file: format!("`{text}` on the command line").into(), line: 0 };
    let error = |what: &str| ConfigError { place: place.clone(), what: what.to_owned() };
    let (key, value) = text.split_once('=').ok_or_else(|| error("is no key=value"))?;
    let (key, value) = (key.trim(), value.trim());
    if !is_key(key) {
        return Err(error("has no setting's name before the ="));
    }
    let quoted = value.starts_with(['"', '\'', '[']) || value.starts_with(|c: char| c.is_ascii_digit());
    if quoted
        && let Ok(mut settings) = parse("", text)
        && settings.len() == 1
        && let Some(setting) = settings.pop()
    {
        return Ok(Setting { place, ..setting });
    }
    if value.starts_with(['"', '\'', '[']) {
        return Err(error("has a string or list that does not end"));
    }
    Ok(Setting { key: key.to_owned(), value: Value::Text(value.to_owned()), place })
}

fn is_key(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && text.chars().all(in_key)
}

fn in_key(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '-'
}

struct Parser<'a> {
    rest: &'a str,
    place: Place,
}

impl<'a> Parser<'a> {
    fn error<T>(&self, what: impl Into<String>) -> Result<T, ConfigError> {
        Err(ConfigError { place: self.place.clone(), what: what.into() })
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn bump(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.rest = self.rest.get(c.len_utf8()..).unwrap_or_default();
        if c == '\n' {
            self.place.line += 1;
        }
        Some(c)
    }

    fn take_while(&mut self, mut wanted: impl FnMut(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !wanted(c)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at_checked(end).unwrap_or((self.rest, ""));
        self.rest = rest;
        taken
    }

    /// Skips blanks and comments; with `lines` also line ends.
    fn skip(&mut self, lines: bool) {
        loop {
            match self.peek() {
                Some('#') => drop(self.take_while(|c| c != '\n')),
                Some('\n') if !lines => return,
                Some(c) if c.is_whitespace() => drop(self.bump()),
                _ => return,
            }
        }
    }

    /// Skips to the next setting; false at the end.
    fn next_setting(&mut self) -> bool {
        loop {
            self.skip(true);
            match self.peek() {
                Some(';') => drop(self.bump()),
                other => return other.is_some(),
            }
        }
    }

    /// What stands here, for messages.
    fn here(&self) -> String {
        let word: String = self.rest.chars().take_while(|c| !c.is_whitespace()).take(20).collect();
        if word.is_empty() { "the line ends".into() } else { format!("there is `{word}`") }
    }

    fn setting(&mut self, settings: &mut Vec<Setting>) -> Result<(), ConfigError> {
        let place = self.place.clone();
        if !self.rest.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
            return self.error(format!("a setting's name is expected, and {}", self.here()));
        }
        let key = self.take_while(in_key).to_owned();
        self.skip(false);
        let append = self.rest.starts_with("+=");
        if append {
            self.bump();
        }
        if self.peek() != Some('=') {
            return self.error(format!("an = is expected after `{key}`, and {}", self.here()));
        }
        self.bump();
        self.skip(false);
        let value = self.value(&key)?;
        self.skip(false);
        match self.peek() {
            None | Some('\n' | ';') => {}
            _ => {
                return self.error(format!("the value of `{key}` has ended, and {}", self.here()));
            }
        }
        let value = if append { appended(settings, &key, value).or_else(|what| self.error(what))? } else { value };
        settings.push(Setting { key, value, place });
        Ok(())
    }

    fn value(&mut self, key: &str) -> Result<Value, ConfigError> {
        match self.peek() {
            Some(quote @ ('"' | '\'')) => self.string(key, quote).map(Value::Text),
            Some('[') => self.list(key),
            Some(c) if c.is_ascii_digit() => {
                let word = self.take_while(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.');
                let number = match word.strip_prefix("0x").or_else(|| word.strip_prefix("0X")) {
                    Some(digits) => u64::from_str_radix(digits, 16),
                    None => word.parse(),
                };
                number
                    .map(Value::Number)
                    .or_else(|_| self.error(format!("`{word}` is no number that `{key}` could have")))
            }
            Some(c) if in_key(c) => {
                let word = self.take_while(|c| !c.is_whitespace() && c != ';' && c != '#');
                self.error(format!("the value of `{key}` needs quotes: {key} = \"{word}\""))
            }
            _ => self.error(format!(
                "a value is expected for `{key}`: a number, a string in quotes or a [list], and {}",
                self.here()
            )),
        }
    }

    fn string(&mut self, key: &str, quote: char) -> Result<String, ConfigError> {
        let place = self.place.clone();
        self.bump();
        let mut text = String::new();
        loop {
            let c = match self.bump() {
                None | Some('\n') => {
                    return Err(ConfigError { place, what: format!("the string of `{key}` has no closing {quote}") });
                }
                Some(c) if c == quote => return Ok(text),
                Some('\\') => self.escape(key, &place)?,
                Some(c) => c,
            };
            if c == '\0' {
                return self.error(format!("the string of `{key}` has a NUL character in it"));
            }
            text.push(c);
        }
    }

    /// What a backslash and what follows it mean, as xl reads them.
    fn escape(&mut self, key: &str, place: &Place) -> Result<char, ConfigError> {
        let digits =
            |radix: u32, most: usize, rest: &str| rest.chars().take(most).take_while(|c| c.is_digit(radix)).count();
        let (radix, len) = match self.peek() {
            Some('x') => {
                self.bump();
                (16, digits(16, 2, self.rest))
            }
            Some('0'..='7') => (8, digits(8, 3, self.rest)),
            Some(c) => {
                self.bump();
                return match c {
                    'a' => Ok('\x07'),
                    'b' => Ok('\x08'),
                    'f' => Ok('\x0c'),
                    'n' => Ok('\n'),
                    'r' => Ok('\r'),
                    't' => Ok('\t'),
                    'v' => Ok('\x0b'),
                    c if !c.is_alphanumeric() => Ok(c),
                    c => Err(ConfigError {
                        place: place.clone(),
                        what: format!("the string of `{key}` has an unknown escape \\{c}; write \\\\ for a backslash"),
                    }),
                };
            }
            None => (16, 0),
        };
        let (number, rest) = self.rest.split_at_checked(len).unwrap_or_default();
        self.rest = rest;
        match u32::from_str_radix(number, radix).ok().filter(|n| (1..128).contains(n)).and_then(char::from_u32) {
            Some(c) => Ok(c),
            None => Err(ConfigError {
                place: place.clone(),
                what: format!(
                    "the string of `{key}` has an escape that is no ASCII character; write \\\\ for a backslash"
                ),
            }),
        }
    }

    fn list(&mut self, key: &str) -> Result<Value, ConfigError> {
        let place = self.place.clone();
        self.bump();
        let mut values = Vec::new();
        loop {
            self.skip(true);
            match self.peek() {
                Some(']') => break,
                None => {
                    return Err(ConfigError { place, what: format!("the list of `{key}` has no closing ]") });
                }
                Some('[') => {
                    return self.error(format!("a list inside of the list of `{key}` makes no sense"));
                }
                _ => values.push(self.value(key)?),
            }
            self.skip(true);
            match self.peek() {
                Some(',') => drop(self.bump()),
                Some(']') => break,
                None => {
                    return Err(ConfigError { place, what: format!("the list of `{key}` has no closing ]") });
                }
                _ => {
                    return self.error(format!("a comma or ] is expected in the list of `{key}`, and {}", self.here()));
                }
            }
        }
        self.bump();
        Ok(Value::List(values))
    }
}

/// `key += value`: what `key` was until now and `value` after it. What it was is taken out of `settings`: were it copied, a file
/// that says this often would take memory by the square of its length.
fn appended(settings: &mut Vec<Setting>, key: &str, value: Value) -> Result<Value, String> {
    let before = settings.iter().rposition(|setting| setting.key == key).map(|at| settings.remove(at).value);
    match (before, value) {
        (None, value) => Ok(value),
        (Some(Value::Text(before)), Value::Text(value)) => Ok(Value::Text(before + &value)),
        (Some(Value::List(mut before)), Value::List(value)) => {
            before.extend(value);
            Ok(Value::List(before))
        }
        _ => Err(format!("+= cannot join what `{key}` was before and this")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn values(text: &str) -> Vec<(String, Value)> {
        parse("f", text).unwrap().into_iter().map(|s| (s.key, s.value)).collect()
    }

    fn error(text: &str) -> String {
        parse("/etc/x.cfg", text).unwrap_err().to_string()
    }

    #[test]
    fn what_people_write() {
        let text = "# demo\nname = \"demo\" # yes\nvcpus=2; memory = 0x100\n\nextra = 'a \"b\"'\r\ndisk = [\n  'phy:/dev/a,xvda,w', # one\n  \"b\",\n]\nvif = []\n";
        let text_value = |s: &str| Value::Text(s.into());
        assert_eq!(
            values(text),
            [
                ("name".into(), text_value("demo")),
                ("vcpus".into(), Value::Number(2)),
                ("memory".into(), Value::Number(256)),
                ("extra".into(), text_value("a \"b\"")),
                ("disk".into(), Value::List(vec![text_value("phy:/dev/a,xvda,w"), text_value("b")])),
                ("vif".into(), Value::List(vec![])),
            ]
        );
    }

    #[test]
    fn strings_join_with_plus() {
        assert_eq!(values("extra = \"a\"\nextra += \" b\"")[0].1, Value::Text("a b".into()));
        assert_eq!(values("x += [1]\nx += [2]")[0].1, Value::List(vec![Value::Number(1), Value::Number(2)]));
        assert_eq!(error("x = 1\nx += \"a\""), "/etc/x.cfg:2: += cannot join what `x` was before and this");
    }

    #[test]
    fn lines_are_counted() {
        let settings = parse("f", "a = [\n1,\n2 ]\n\nb = 'x'").unwrap();
        assert_eq!(settings.iter().map(|s| s.place.line).collect::<Vec<_>>(), [1, 5]);
    }

    #[test]
    fn bad_lines() {
        assert_eq!(
            error("memory = 96\nvcpus = = 2\n"),
            "/etc/x.cfg:2: a value is expected for `vcpus`: a number, a string in quotes or a [list], and there is `=`"
        );
        assert_eq!(
            error("vcpus ="),
            "/etc/x.cfg:1: a value is expected for `vcpus`: a number, a string in quotes or a [list], and the line ends"
        );
        assert_eq!(error("vcpus 2"), "/etc/x.cfg:1: an = is expected after `vcpus`, and there is `2`");
        assert_eq!(error("= 2"), "/etc/x.cfg:1: a setting's name is expected, and there is `=`");
        assert_eq!(error("name = demo # x"), "/etc/x.cfg:1: the value of `name` needs quotes: name = \"demo\"");
        assert_eq!(error("\nname = \"demo\nvcpus = 1"), "/etc/x.cfg:2: the string of `name` has no closing \"");
        assert_eq!(error("disk = [ 'a',\n 'b'\n"), "/etc/x.cfg:1: the list of `disk` has no closing ]");
        assert_eq!(
            error("disk = [ 'a' 'b' ]"),
            "/etc/x.cfg:1: a comma or ] is expected in the list of `disk`, and there is `'b'`"
        );
        assert_eq!(error("memory = 12MB"), "/etc/x.cfg:1: `12MB` is no number that `memory` could have");
        assert_eq!(
            error("memory = 99999999999999999999"),
            "/etc/x.cfg:1: `99999999999999999999` is no number that `memory` could have"
        );
        assert_eq!(
            error("memory = 1 vcpus = 2"),
            "/etc/x.cfg:1: the value of `memory` has ended, and there is `vcpus`"
        );
        assert_eq!(
            error("x = '\\q'"),
            "/etc/x.cfg:1: the string of `x` has an unknown escape \\q; write \\\\ for a backslash"
        );
        assert_eq!(error("disk = [[1]]"), "/etc/x.cfg:1: a list inside of the list of `disk` makes no sense");
    }

    #[test]
    fn the_command_line_is_lenient_with_quotes() {
        let one = |text: &str| parse_override(text).map(|s| (s.key, s.value)).map_err(|e| e.to_string());
        assert_eq!(one("memory=256"), Ok(("memory".into(), Value::Number(256))));
        assert_eq!(one("name=demo"), Ok(("name".into(), Value::Text("demo".into()))));
        assert_eq!(one("name=\"demo\""), Ok(("name".into(), Value::Text("demo".into()))));
        assert_eq!(one("extra=console=hvc0 a=b"), Ok(("extra".into(), Value::Text("console=hvc0 a=b".into()))));
        assert_eq!(one("kernel=6.1/vmlinuz"), Ok(("kernel".into(), Value::Text("6.1/vmlinuz".into()))));
        assert_eq!(one("disk=['a']"), Ok(("disk".into(), Value::List(vec![Value::Text("a".into())]))));
        assert_eq!(one("demo"), Err("`demo` on the command line: is no key=value".into()));
        assert_eq!(one("=1"), Err("`=1` on the command line: has no setting's name before the =".into()));
        assert_eq!(one("name='a"), Err("`name='a` on the command line: has a string or list that does not end".into()));
    }

    #[test]
    fn no_string_has_a_nul() {
        for text in ["x = 'a\0'", "x = 'a\\\0'"] {
            assert_eq!(error(text), "/etc/x.cfg:1: the string of `x` has a NUL character in it");
        }
    }

    #[test]
    fn escapes() {
        assert_eq!(values(r#"x = "a\tb\\\"\x41\101\'\ ""#)[0].1, Value::Text("a\tb\\\"AA' ".into()));
        assert_eq!(
            error(r"x = '\xzz'"),
            r"/etc/x.cfg:1: the string of `x` has an escape that is no ASCII character; write \\ for a backslash"
        );
        assert_eq!(
            error(r"x = '\777'"),
            r"/etc/x.cfg:1: the string of `x` has an escape that is no ASCII character; write \\ for a backslash"
        );
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[\\PC\n\"'=\\[\\]#;,+\\\\]{0,80}") {
            let _ = parse("f", &text);
            let _ = parse_override(&text);
        }

        #[test]
        fn what_is_quoted_comes_back(text in "[a-z \"'#=\\[\\];\\\\]{0,30}") {
            let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
            prop_assert_eq!(&values(&format!("x = \"{quoted}\""))[0].1, &Value::Text(text));
        }
    }
}
