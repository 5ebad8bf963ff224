//! The configuration: flags over environment over a TOML file over defaults.
//!
//! Owns the file and what `--print-config` says. Knows no setting by name: every long flag of the command is a key, and
//! what the file says becomes the flag's default, so clap reads all of them in one way.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, CommandFactory, FromArgMatches};
use toml::{Table, Value};

/// Flags that ask for something else than a setting.
const NOT_SETTINGS: [&str; 4] = ["config", "print-config", "help", "version"];
/// What a password in a URL is printed as.
const HIDDEN: &str = "***";

/// What was typed, with what the file adds.
#[derive(Debug)]
pub struct Parsed<P> {
    /// The program's arguments.
    pub program: P,
    /// Where each setting comes from; `None` where the relay was not asked for.
    pub settings: Option<Settings>,
}

/// Why a file is not a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("{path} cannot be read: {source}; name another file with --config")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not TOML.
    #[error("{path} is not TOML: {why}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why.
        why: String,
    },
    /// There is no such flag.
    #[error("{path}: `{key}` is no setting; the keys are the long flags that --help shows")]
    Unknown {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
    },
    /// The key is there with `-` and with `_`.
    #[error("{path}: `{key}` is set twice, with - and with _; keep one")]
    Twice {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
    },
    /// The value has another type than the flag takes.
    #[error("{path}: `{key}` is {found}; write {wanted}")]
    Type {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// The type in the file.
        found: &'static str,
        /// What the flag takes.
        wanted: &'static str,
    },
    /// The flag does not take the value.
    #[error("{path}: `{key}`: {why}")]
    Value {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// Why.
        why: String,
    },
}

/// Reads arguments, environment and the file that they name. `under` is the subcommand that runs the relay; `None`: the
/// program is the relay.
///
/// # Errors
/// What is wrong, as clap says it; help and version are errors, too.
pub fn parse<P: CommandFactory + FromArgMatches>(
    arguments: impl IntoIterator<Item = OsString>,
    under: Option<&str>,
) -> Result<Parsed<P>, clap::Error> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let matches = P::command().try_get_matches_from(&arguments)?;
    let Some(relay) = below(&matches, under) else {
        return Ok(Parsed { program: read(&matches)?, settings: None });
    };
    let file = match relay.get_one::<PathBuf>("config") {
        Some(path) => File::read(path, &relay_of(P::command(), under))
            .map_err(|error| clap::Error::raw(ErrorKind::ValueValidation, format!("{error}\n")))?,
        None => File::default(),
    };
    let command = match under {
        Some(name) => P::command().mut_subcommand(name, |relay| file.applied(relay)),
        None => file.applied(P::command()),
    };
    let matches = command.try_get_matches_from(arguments)?;
    let settings =
        below(&matches, under).map(|relay| Settings::of(&relay_of(P::command(), under), relay, &file));
    Ok(Parsed { program: read(&matches)?, settings })
}

fn read<P: CommandFactory + FromArgMatches>(matches: &ArgMatches) -> Result<P, clap::Error> {
    P::from_arg_matches(matches).map_err(|error| error.format(&mut P::command()))
}

/// The matches of the relay, if it was asked for.
fn below<'a>(matches: &'a ArgMatches, under: Option<&str>) -> Option<&'a ArgMatches> {
    under.map_or(Some(matches), |name| matches.subcommand_matches(name))
}

/// The command of the relay.
fn relay_of(command: Command, under: Option<&str>) -> Command {
    under.and_then(|name| command.find_subcommand(name).cloned()).unwrap_or(command)
}

/// The flags of a command that are settings.
fn settings(command: &Command) -> impl Iterator<Item = (&str, &Arg)> {
    let named = command.get_arguments().filter_map(|arg| Some((arg.get_long()?, arg)));
    named.filter(|(long, _)| !NOT_SETTINGS.contains(long))
}

/// What a file says: the words for each flag, by its id.
#[derive(Debug, Default)]
struct File {
    values: BTreeMap<String, Vec<String>>,
}

impl File {
    fn read(path: &Path, command: &Command) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, path, command)
    }

    fn parse(text: &str, path: &Path, command: &Command) -> Result<Self, ConfigError> {
        let path = path.to_owned();
        let table: Table = match text.parse() {
            Ok(table) => table,
            Err(error) => {
                // Not the line itself: it may hold a password.
                let at = error.span().map_or(0, |span| span.start);
                let line = 1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count();
                let why = format!("line {line}: {}", error.message());
                return Err(ConfigError::Syntax { path, why });
            }
        };
        let mut values = BTreeMap::new();
        for (key, value) in table {
            let long = key.replace('_', "-");
            let Some((_, arg)) = settings(command).find(|(name, _)| *name == long) else {
                return Err(ConfigError::Unknown { path, key });
            };
            let words = match words(arg, value) {
                Ok(words) => words,
                Err((found, wanted)) => return Err(ConfigError::Type { path, key, found, wanted }),
            };
            if let Some(why) = refused(command, arg, &long, &words) {
                return Err(ConfigError::Value { path, key, why });
            }
            if values.insert(arg.get_id().to_string(), words).is_some() {
                return Err(ConfigError::Twice { path, key });
            }
        }
        Ok(Self { values })
    }

    /// The command with the file's values in place of its defaults.
    fn applied(&self, command: Command) -> Command {
        self.values.iter().fold(command, |command, (id, words)| {
            command.mut_arg(id, |arg| arg.default_values(words.clone()))
        })
    }
}

/// Whether the flag has no value.
fn is_switch(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::SetTrue | ArgAction::SetFalse)
}

/// Whether the flag may be given several times.
fn is_list(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Append)
}

/// The words that the flag would be given on a command line, or the type that is there and the one that should be.
fn words(arg: &Arg, value: Value) -> Result<Vec<String>, (&'static str, &'static str)> {
    let wanted = match (is_switch(arg), is_list(arg)) {
        (true, _) => "true or false",
        (false, true) => "a list of texts",
        (false, false) => "a text or a whole number",
    };
    match value {
        Value::Boolean(is) if is_switch(arg) => Ok(vec![is.to_string()]),
        Value::Array(values) if is_list(arg) => {
            let words = values.into_iter().map(|value| word(value).map_err(|found| (found, wanted)));
            words.collect()
        }
        other => {
            let is_switch = is_switch(arg);
            let word =
                word(other).and_then(|word| if is_switch { Err("a text or a number") } else { Ok(word) });
            word.map(|word| vec![word]).map_err(|found| (found, wanted))
        }
    }
}

fn word(value: Value) -> Result<String, &'static str> {
    match value {
        Value::String(text) => Ok(text),
        Value::Integer(number) => Ok(number.to_string()),
        Value::Boolean(_) => Err("true or false"),
        Value::Float(_) => Err("a fraction"),
        Value::Datetime(_) => Err("a date"),
        Value::Array(_) => Err("a list"),
        Value::Table(_) => Err("a table"),
    }
}

/// Why the flag does not take these words, as clap tells it. Relations between flags are looked at later, when all of
/// them are known.
fn refused(command: &Command, arg: &Arg, long: &str, words: &[String]) -> Option<String> {
    if is_switch(arg) {
        return None;
    }
    let typed = words.iter().map(|word| format!("--{long}={word}"));
    let error = command.clone().no_binary_name(true).try_get_matches_from(typed).err()?;
    let relation = [ErrorKind::MissingRequiredArgument, ErrorKind::ArgumentConflict];
    if relation.contains(&error.kind()) {
        return None;
    }
    let value = match error.get(ContextKind::InvalidValue) {
        Some(ContextValue::String(value)) => hidden(value),
        _ => String::new(),
    };
    let why = match (std::error::Error::source(&error), error.get(ContextKind::ValidValue)) {
        (Some(source), _) => source.to_string(),
        (None, Some(ContextValue::Strings(valid))) => format!("one of {}", valid.join(", ")),
        _ => format!("{:?}", error.kind()),
    };
    Some(format!("{value:?} is refused: {why}"))
}

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Flag,
    Environment,
    File,
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flag => "flag",
            Self::Environment => "environment",
            Self::File => "file",
            Self::Default => "default",
        })
    }
}

/// One setting.
#[derive(Debug)]
struct Setting {
    key: String,
    /// `None`: it is not set.
    value: Option<Value>,
    origin: Origin,
}

/// The effective configuration. Prints itself as a file that says the same, without passwords.
#[derive(Debug)]
pub struct Settings(Vec<Setting>);

impl Settings {
    fn of(command: &Command, matches: &ArgMatches, file: &File) -> Self {
        let setting = |(long, arg): (&str, &Arg)| {
            let id = arg.get_id().as_str();
            let origin = match matches.value_source(id) {
                Some(ValueSource::CommandLine) => Origin::Flag,
                Some(ValueSource::EnvVariable) => Origin::Environment,
                _ if file.values.contains_key(id) => Origin::File,
                _ => Origin::Default,
            };
            Setting { key: long.to_owned(), value: value(arg, matches), origin }
        };
        Self(settings(command).map(setting).collect())
    }
}

/// The value of a flag, as a file would have it.
fn value(arg: &Arg, matches: &ArgMatches) -> Option<Value> {
    let id = arg.get_id().as_str();
    if is_switch(arg) {
        return Some(Value::Boolean(matches.get_flag(id)));
    }
    let words = matches.get_raw(id).into_iter().flatten();
    let mut words = words.map(|word| match word.to_string_lossy().parse::<i64>() {
        Ok(number) => Value::Integer(number),
        Err(_) => Value::String(hidden(&word.to_string_lossy())),
    });
    if is_list(arg) { Some(Value::Array(words.collect())) } else { words.next() }
}

/// The text without the password of a URL.
fn hidden(text: &str) -> String {
    let shown = || {
        let (scheme, rest) = text.split_once("://")?;
        let authority = rest.split(['/', '?', '#']).next()?;
        let (login, _) = authority.rsplit_once('@')?;
        let (user, _) = login.split_once(':')?;
        Some(format!("{scheme}://{user}:{HIDDEN}{}", rest.get(login.len()..)?))
    };
    shown().unwrap_or_else(|| text.to_owned())
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# Each value with where it comes from: flag, environment, file or default.")?;
        for Setting { key, value, origin } in &self.0 {
            match value {
                Some(value) => writeln!(f, "{key} = {value} # {origin}")?,
                None => writeln!(f, "# {key} is not set")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
