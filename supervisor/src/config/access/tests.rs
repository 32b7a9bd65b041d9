use std::io::Write as _;

use http::{HeaderMap, HeaderValue, header};

use super::super::Config;
use std::os::unix::fs::PermissionsExt as _;

use super::*;

fn parse(args: &[&str]) -> Result<Config, ConfigError> {
    Config::parse(["worker-orcd", "--model", "m"].iter().chain(args))
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn opens(config: &Config, key: &str) -> bool {
    let mut headers = HeaderMap::new();
    let value = HeaderValue::from_str(&format!("Bearer {key}")).unwrap();
    headers.insert(header::AUTHORIZATION, value);
    config.access.keys.holder(&headers).is_some()
}

#[test]
fn keys_come_from_flags_and_from_a_file() {
    assert!(parse(&[]).unwrap().access.keys.is_empty());
    let file = file("\u{feff}# ours\n\n  third-key  \r\n#fourth\nfifth");
    let path = file.path().to_str().unwrap();
    let args = [
        "--api-key",
        "one,two",
        "--api-key",
        "2nd",
        "--api-key-file",
        path,
    ];
    let config = parse(&args).unwrap();
    for key in ["one", "two", "2nd", "third-key", "fifth"] {
        assert!(opens(&config, key), "{key}");
    }
    for other in ["one,two", "fourth", "#fourth", "# ours"] {
        assert!(!opens(&config, other), "{other}");
    }
    // The file is its owner's alone.
    assert!(config.access_warnings.is_empty());
    let everybody = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(path, everybody).unwrap();
    let warning = parse(&args).unwrap().access_warnings.remove(0);
    assert!(
        warning.contains(path) && warning.contains("chmod"),
        "{warning}"
    );
}

#[test]
fn what_is_wrong_with_a_key_is_said_without_it() {
    let empty = file("# nothing\n\n");
    let bad = file("good\ns3cret key\n");
    let path = |file: &tempfile::NamedTempFile| file.path().to_str().unwrap().to_owned();
    for (args, part) in [
        (vec!["--api-key", ""], "--api-key"),
        (vec!["--api-key", "a,,b"], "empty"),
        (vec!["--api-key", "s3cret key"], "space"),
        (vec!["--api-key", "s3crét"], "ASCII"),
        (vec!["--api-key-file", "/no/such"], "/no/such"),
        (vec!["--admin-key-file", "/no/such"], "--admin-key-file"),
        (vec!["--admin-key", "s3crét"], "--admin-key"),
        (vec!["--api-key-file", &path(&empty)], "no key"),
        (vec!["--api-key-file", &path(&bad)], "line 2"),
        (vec!["--api-key", "k", "--insecure-no-auth"], "one of them"),
    ] {
        let error = parse(&args).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        let text = error.to_string();
        assert!(
            text.contains(part) && !text.contains("s3cr"),
            "{args:?}: {text}"
        );
    }
}

#[test]
fn keys_are_in_no_picture_of_the_configuration() {
    let config = parse(&["--api-key", "s3cret"]).unwrap();
    assert!(!format!("{config:?}").contains("s3cret"));
    let args = AccessArgs {
        api_key: vec![Secret("s3cret".into())],
        api_key_file: None,
        admin_key: vec![Secret("s3cret".into())],
        admin_key_file: None,
        insecure_no_auth: false,
        allow_origin: Vec::new(),
        allow_host: Vec::new(),
    };
    assert!(!format!("{args:?}").contains("s3cret"));
}

#[test]
fn origins_and_hosts_are_read_or_named() {
    let config = parse(&[
        "--allow-origin",
        "https://a.example/,http://b.example:3000",
        "--allow-host",
        "gpu.example",
    ])
    .unwrap();
    assert_eq!(config.access.origins.len(), 2);
    assert_eq!(
        config.access.hosts,
        [HostName::parse("gpu.example").unwrap()]
    );
    for args in [
        ["--allow-origin", "a.example"],
        ["--allow-origin", "*"],
        ["--allow-origin", "null"],
        ["--allow-host", "http://a.example"],
        ["--allow-host", ""],
    ] {
        let text = parse(&args).unwrap_err().to_string();
        assert!(text.contains(args[0]) && text.contains("such as"), "{text}");
    }
}
