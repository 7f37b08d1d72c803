//! Reading settings from where they come.

use std::{fs, path::PathBuf};

use super::settings::{ALIASES, Settings, Spec, spec, specs};

/// Longest configuration file that is read.
const FILE_LEN_MAX: u64 = 1 << 20;
const ENVIRONMENT_PREFIX: &str = "SLUICE_";
/// Names with our prefix in the environment that are the build's and the tests', not a store's.
const NOT_SETTINGS: [&str; 13] = [
    "SLUICE_API_PORT",
    "SLUICE_CACHE",
    "SLUICE_CLUSTER",
    "SLUICE_CLUSTER_NAME",
    "SLUICE_CRASH_KILLS",
    "SLUICE_DIFFERENTIAL_CASES",
    "SLUICE_DIFFERENTIAL_SEED",
    "SLUICE_IMAGE_PREFIX",
    "SLUICE_KUBECONFIG",
    "SLUICE_LOAD_PASSWORD",
    "SLUICE_MIGRATION_KILLS",
    "SLUICE_TARGET_LIMIT_GIB",
    "SLUICE_TEST_SETTINGS",
];

/// Why the configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("configuration file {path} cannot be read: {why}")]
    File {
        /// The file.
        path: PathBuf,
        /// The reason.
        why: String,
    },
    /// A key nobody knows.
    #[error("{place}: there is no setting `{name}`; the nearest is `{nearest}`")]
    Unknown {
        /// Where it stands.
        place: String,
        /// The key.
        name: String,
        /// The known key most like it.
        nearest: &'static str,
    },
    /// A value that the setting cannot have.
    #[error("{place}: `{name}` cannot be `{value}`: {why}")]
    Value {
        /// Where it stands.
        place: String,
        /// The key.
        name: &'static str,
        /// The value; stars for a secret.
        value: String,
        /// What it has to look like.
        why: String,
    },
    /// A line or argument that is no `key value`.
    #[error("{place}: {why}")]
    Syntax {
        /// Where it stands.
        place: String,
        /// What is wrong.
        why: String,
    },
    /// Two settings contradict each other.
    #[error("{0}")]
    Conflict(String),
}

/// What the command line asks for.
#[derive(Debug)]
pub enum Invocation {
    /// Serve with these settings.
    Serve(Box<Settings>),
    /// Print the usage.
    Help,
    /// Print the version.
    Version,
    /// Print every setting with its meaning.
    ListSettings,
    /// Print every command.
    ListCommands,
}

/// Reads `[FILE] [-c FILE] [--key value …]` and the environment.
pub fn load(
    arguments: impl Iterator<Item = String>,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<Invocation, ConfigError> {
    let syntax = |why: String| ConfigError::Syntax { place: "command line".into(), why };
    let (mut file, mut given) = (None, Vec::new());
    let mut arguments = arguments.peekable();
    while let Some(word) = arguments.next() {
        match word.as_str() {
            "-h" | "--help" => return Ok(Invocation::Help),
            "-v" | "--version" => return Ok(Invocation::Version),
            "--settings" => return Ok(Invocation::ListSettings),
            "--commands" => return Ok(Invocation::ListCommands),
            "-c" => file = Some(arguments.next().ok_or_else(|| syntax("-c needs the name of a file".into()))?),
            option if option.starts_with("--") => {
                let name = option.trim_start_matches("--").to_owned();
                // As in Redis, a value may be several words: up to the next option.
                let mut words = Vec::new();
                while let Some(next) = arguments.next_if(|next| !next.starts_with("--")) {
                    words.push(next);
                }
                if words.is_empty() {
                    return Err(syntax(format!("--{name} needs a value")));
                }
                given.push((name, words.join(" ")));
            }
            _ if file.is_none() && given.is_empty() => file = Some(word),
            other => return Err(syntax(format!("`{other}` is neither a file nor a --key value; see --help"))),
        }
    }
    let mut settings = Settings::default();
    if let Some(path) = file {
        let path = PathBuf::from(path);
        read_file(&mut settings, path.clone())?;
        settings.source = Some(path);
    }
    read_environment(&mut settings, environment)?;
    for (name, value) in given {
        set(&mut settings, "command line", &name, &value)?;
    }
    settings.check().map_err(ConfigError::Conflict)?;
    Ok(Invocation::Serve(Box::new(settings)))
}

fn read_file(settings: &mut Settings, path: PathBuf) -> Result<(), ConfigError> {
    let error = |why: String| ConfigError::File { path: path.clone(), why };
    let length = fs::metadata(&path).map_err(|e| error(e.to_string()))?.len();
    if length > FILE_LEN_MAX {
        return Err(error(format!("it has {length} bytes, at most {FILE_LEN_MAX} are read")));
    }
    let text = fs::read_to_string(&path).map_err(|e| error(e.to_string()))?;
    for (position, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let place = format!("{}:{}", path.display(), position + 1);
        let Some((name, value)) = line.split_once(char::is_whitespace) else {
            return Err(ConfigError::Syntax { place, why: format!("`{line}` has no value: write `key value`") });
        };
        set(settings, &place, name, &unquote(value.trim()))?;
    }
    Ok(())
}

/// Takes double quotes with backslash escapes, or single quotes, off a value.
pub fn unquote(value: &str) -> String {
    if let Some(inner) = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        let (mut plain, mut escaped) = (String::new(), false);
        for c in inner.chars() {
            if escaped || c != '\\' {
                plain.push(c);
                escaped = false;
            } else {
                escaped = true;
            }
        }
        return plain;
    }
    value.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')).unwrap_or(value).to_owned()
}

fn read_environment(settings: &mut Settings, environment: impl Iterator<Item = (String, String)>) -> Result<(), ConfigError> {
    let plain = |name: &str| name.to_ascii_uppercase().replace(['-', '.'], "_");
    for (variable, value) in environment {
        let Some(name) = variable.strip_prefix(ENVIRONMENT_PREFIX) else { continue };
        // `{NAME}_SERVICE_HOST`, `{NAME}_PORT_6379_TCP_ADDR` and their like, for a Service whose name begins with `sluice`.
        let service =
            ["SERVICE_HOST", "SERVICE_PORT", "PORT_"].into_iter().any(|mark| name.contains(mark)) || value.starts_with("tcp://");
        let names = specs().iter().map(|spec| spec.name).chain(ALIASES.iter().map(|(alias, _)| *alias));
        let known = names.filter(|known| plain(known) == name).find_map(spec);
        match known {
            // SLUICE_PORT=tcp://… is given to every container when a Service is called `sluice`.
            Some(_) if value.starts_with("tcp://") => {}
            Some(spec) => set(settings, &format!("environment variable {variable}"), spec.name, &value)?,
            None if service || NOT_SETTINGS.contains(&variable.as_str()) => {}
            None => {
                let name = name.to_ascii_lowercase().replace('_', "-");
                let nearest = nearest(&name);
                return Err(ConfigError::Unknown { place: format!("environment variable {variable}"), name, nearest });
            }
        }
    }
    Ok(())
}

fn set(settings: &mut Settings, place: &str, name: &str, value: &str) -> Result<(), ConfigError> {
    let Some(spec) = spec(name) else {
        return Err(ConfigError::Unknown {
            place: place.into(),
            name: name.chars().take(64).collect(),
            nearest: nearest(&name.to_ascii_lowercase()),
        });
    };
    (spec.set)(settings, value).map_err(|why| ConfigError::Value {
        place: place.into(),
        name: spec.name,
        value: if spec.secret { "***".into() } else { value.chars().take(64).collect() },
        why,
    })
}

fn nearest(name: &str) -> &'static str {
    specs().iter().min_by_key(|spec| distance(spec.name, name)).map_or("", |Spec { name, .. }| name)
}

/// Levenshtein distance.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, b) in right.iter().enumerate() {
            let substitute = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Settings, String> {
        let arguments = arguments.iter().map(|a| (*a).to_owned());
        let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        match load(arguments, environment).map_err(|error| error.to_string())? {
            Invocation::Serve(settings) => Ok(*settings),
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn file_environment_and_command_line_win_in_this_order() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(
            file.path(),
            "# a comment\nport 1111\nmaxclients 5\nrequirepass \"a \\\"b\"\nbind 127.0.0.1 -::1\nsync always\n",
        )
        .unwrap();
        let path = file.path().to_str().unwrap();
        let read = settings(
            &[path, "--maxclients", "7", "--bind", "127.0.0.2", "-::1"],
            &[("SLUICE_PORT", "2222"), ("SLUICE_MAXCLIENTS", "6")],
        )
        .unwrap();
        assert_eq!((read.port, read.maxclients, read.requirepass.as_str()), (2222, 7, "a \"b"));
        assert_eq!(read.bind.0, ["127.0.0.2", "-::1"]);
        assert_eq!(read.sync.name(), "always");
        assert_eq!(settings(&["-c", path], &[("SLUICE_ROCKSDB_ROW_CACHE_SIZE", "1mb")]).unwrap().row_cache.0, 1 << 20);
    }

    #[test]
    fn refusals_say_what_where_and_what_to_do() {
        let cases: [(&[&str], &[(&str, &str)], &str); 9] = [
            (&["--maxclient", "1"], &[], "no setting `maxclient`; the nearest is `maxclients`"),
            (&["--port", "70000"], &[], "`port` cannot be `70000`: it has to be a whole number from 0 to 65535"),
            (&["--port"], &[], "--port needs a value"),
            (&["/does/not/exist"], &[], "/does/not/exist cannot be read"),
            (&["--wal", "maybe"], &[], "it has to be yes or no"),
            (
                &["--port", "7000", "--admin-port", "7000"],
                &[],
                "`port 7000` and `admin-port 7000` do not go together: give one of them another number",
            ),
            (&["--memory-budget", "5 elephants"], &[], "a size like 1024"),
            (&[], &[("SLUICE_PROT", "1")], "environment variable SLUICE_PROT: there is no setting `prot`; the nearest is `port`"),
            (&["--loglevel", "loud"], &[], "it has to be error, warn"),
        ];
        for (arguments, environment, expected) in cases {
            let error = settings(arguments, environment).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn what_kubernetes_adds_for_services_is_no_setting() {
        let environment = [
            ("SLUICE_PORT", "tcp://10.0.0.1:6379"),
            ("SLUICE_PORT_6379_TCP_ADDR", "10.0.0.1"),
            ("SLUICE_SERVICE_HOST", "10.0.0.1"),
            ("SLUICE_KUBECONFIG", "/tmp/k"),
        ];
        assert_eq!(settings(&[], &environment).unwrap().port, 6379);
    }

    #[test]
    fn every_setting_reads_what_it_writes() {
        let defaults = Settings::default();
        for spec in specs() {
            let mut other = Settings::default();
            let text = unquote(&(spec.get)(&defaults));
            (spec.set)(&mut other, &text).unwrap_or_else(|why| panic!("{} {text}: {why}", spec.name));
            assert_eq!((spec.get)(&other), (spec.get)(&defaults), "{}", spec.name);
        }
    }

    #[test]
    fn a_setting_goes_by_its_older_name_as_well() {
        let threshold = |arguments: &[&str], environment: &[(&str, &str)]| {
            settings(arguments, environment).map(|settings| settings.busy_reply_threshold)
        };
        assert_eq!(threshold(&["--Lua-Time-Limit", "7"], &[]), Ok(7));
        assert_eq!(threshold(&[], &[("SLUICE_LUA_TIME_LIMIT", "8")]), Ok(8));
        assert_eq!(threshold(&["--busy-reply-threshold", "0"], &[]), Ok(0));
    }

    #[test]
    fn a_wrong_secret_is_not_shown() {
        let error = settings(&["--requirepass", "hunter2\u{7}"], &[]).unwrap_err();
        assert!(!error.contains("hunter2"), "{error}");
    }
}
