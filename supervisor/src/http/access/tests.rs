use std::os::unix::fs::PermissionsExt as _;

use super::*;

const LOOPBACK: &str = "127.0.0.1:8080";
const ANYWHERE: &str = "0.0.0.0:8080";

fn guard(address: &str, change: impl FnOnce(&mut Access)) -> Guard {
    let mut access = Access::default();
    change(&mut access);
    let address: SocketAddr = address.parse().unwrap();
    access.guard(&address.ip().to_string(), address)
}

/// The status with which a request is refused, or 200.
fn status(guard: &Guard, head: &str) -> u16 {
    match guard.judge(&parts(head)) {
        Ok(_) => 200,
        Err((error, _)) => error.into_response().status().as_u16(),
    }
}

/// `METHOD PATH`, then header fields, each after a line break.
fn parts(head: &str) -> Parts {
    let mut lines = head.lines();
    let (method, path) = lines.next().unwrap().split_once(' ').unwrap();
    let mut request = http::Request::builder().method(method).uri(path);
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        request = request.header(name, value);
    }
    request.body(()).unwrap().into_parts().0
}

#[test]
fn on_loopback_only_this_machines_names_and_pages_are_served() {
    let guard = guard(LOOPBACK, |_| {});
    for path in ["/execute", "/health", "/metrics", "/nowhere"] {
        for good in [
            "Host: localhost",
            "Host: 127.0.0.1:8080",
            "Host: [::1]:9",
            "Host: localhost\nOrigin: http://localhost:3000",
            "Host: localhost\nOrigin: http://127.0.0.1:8080",
        ] {
            assert_eq!(
                status(&guard, &format!("POST {path}\n{good}")),
                200,
                "{good}"
            );
        }
        for foreign in [
            "Host: evil.example",
            "Host: 127.0.0.1.evil.example:8080",
            "Host: 10.0.0.1",
            "Host: localhost\nOrigin: http://evil.example",
            "Host: localhost\nOrigin: null",
            "Host: localhost\nOrigin: http://localhost.evil.example",
            "Host: localhost\nOrigin: chrome-extension://localhost",
            "Host: localhost\nOrigin: http://localhost\nOrigin: http://localhost",
            "Host: evil.example\nOrigin: http://evil.example",
        ] {
            assert_eq!(
                status(&guard, &format!("POST {path}\n{foreign}")),
                403,
                "{foreign}"
            );
        }
    }
    // The request line counts before the header.
    assert_eq!(
        status(&guard, "GET http://evil.example/health\nHost: localhost"),
        403
    );
    assert_eq!(
        status(&guard, "GET http://localhost/health\nHost: localhost"),
        200
    );
}

#[test]
fn a_host_is_given_once_and_is_a_name() {
    let guard = guard(LOOPBACK, |_| {});
    for bad in [
        "GET /health",
        "GET /health\nHost: a b",
        "GET /health\nHost: localhost\nHost: x",
    ] {
        assert_eq!(status(&guard, bad), 400, "{bad}");
    }
    let mut old = parts("GET /health");
    old.version = Version::HTTP_10;
    assert!(guard.judge(&old).is_ok());
}

#[test]
fn more_names_and_pages_can_be_allowed() {
    let guard = guard(LOOPBACK, |access| {
        access.hosts.extend(HostName::parse("gpu.example"));
        access.origins.extend(Origin::parse("https://app.example"));
    });
    for (head, expected) in [
        ("Host: gpu.example:8080", 200),
        ("Host: gpu.example.evil.example", 403),
        ("Host: localhost\nOrigin: https://app.example", 200),
        ("Host: localhost\nOrigin: https://gpu.example", 200),
        ("Host: localhost\nOrigin: http://app.example", 403),
        ("Host: localhost\nOrigin: https://app.example:444", 403),
    ] {
        assert_eq!(
            status(&guard, &format!("POST /execute\n{head}")),
            expected,
            "{head}"
        );
    }
}

#[test]
fn keys_open_all_but_what_monitors_ask() {
    for address in [LOOPBACK, ANYWHERE] {
        let guard = guard(address, |access| access.keys.add("k", Role::User));
        for (head, expected) in [
            ("POST /execute\nHost: localhost", 401),
            (
                "POST /execute\nHost: localhost\nAuthorization: Bearer x",
                401,
            ),
            (
                "POST /execute\nHost: localhost\nAuthorization: Bearer k",
                200,
            ),
            ("POST /shutdown\nHost: localhost", 401),
            ("GET /jobs/a/events\nHost: localhost", 401),
            ("GET /nowhere\nHost: localhost", 401),
            ("GET /healthy\nHost: localhost", 401),
            ("GET /health\nHost: localhost", 200),
            ("GET /health/live\nHost: localhost", 200),
            ("GET /health/ready\nHost: localhost", 200),
            ("GET /metrics\nHost: localhost", 200),
        ] {
            assert_eq!(status(&guard, head), expected, "{address}: {head}");
        }
    }
}

#[test]
fn beyond_loopback_pages_are_kept_out_where_no_key_is_asked_for() {
    let open = guard(ANYWHERE, |access| {
        access.everybody = true;
        access.hosts.extend(HostName::parse("gpu.lan"));
    });
    let keyed = guard(ANYWHERE, |access| access.keys.add("k", Role::User));
    for (head, without_key) in [
        ("Host: gpu.lan:8080", 200),
        ("Host: gpu.lan:8080\nOrigin: http://gpu.lan:8080", 200),
        ("Host: gpu.lan:8080\nOrigin: http://evil.example", 403),
        ("Host: gpu.lan:8080\nOrigin: http://localhost", 403),
        (
            "Host: 192.168.0.7:8080\nOrigin: http://192.168.0.7:8080",
            200,
        ),
        ("Host: [fd00::7]:8080\nOrigin: http://[fd00::7]:8080", 200),
        // Its owner has let it point here.
        (
            "Host: evil.example:8080\nOrigin: http://evil.example:8080",
            403,
        ),
    ] {
        let head = format!("POST /execute\n{head}\nAuthorization: Bearer k");
        assert_eq!(status(&open, &head), without_key, "{head}");
        assert_eq!(status(&keyed, &head), 200, "{head}");
    }
}

#[test]
fn a_preflight_needs_an_allowed_origin_and_no_key() {
    let guard = guard(LOOPBACK, |access| access.keys.add("k", Role::User));
    let preflight = |origin: &str| {
        let head = format!(
            "OPTIONS /execute\nHost: localhost\nOrigin: {origin}\nAccess-Control-Request-Method: POST"
        );
        guard
            .judge(&parts(&head))
            .map(|admitted| admitted.is_preflight)
    };
    assert!(matches!(preflight("http://localhost:3000"), Ok(true)));
    assert!(preflight("http://evil.example").is_err());
    // An error too may be read by the page.
    let refused = parts("POST /execute\nHost: localhost\nOrigin: http://localhost:3000");
    let (_, reader) = guard.judge(&refused).unwrap_err();
    assert_eq!(reader.unwrap(), "http://localhost:3000");
}

#[test]
fn listening_beyond_loopback_needs_a_decision() {
    let suffices = |access: &Access, address: &str| access.suffices_at(address.parse().unwrap());
    let none = Access::default();
    for own in [
        "127.0.0.1:1",
        "127.8.0.1:1",
        "[::1]:1",
        "[::ffff:127.0.0.1]:1",
    ] {
        assert!(suffices(&none, own).is_ok(), "{own}");
    }
    for beyond in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1"] {
        let message = suffices(&none, beyond).unwrap_err();
        for part in [beyond, "--api-key-file", "--insecure-no-auth"] {
            assert!(message.contains(part), "{message}");
        }
        let everybody = Access {
            everybody: true,
            ..Access::default()
        };
        assert!(suffices(&everybody, beyond).is_ok());
        let mut keyed = Access::default();
        keyed.keys.add("k", Role::User);
        assert!(suffices(&keyed, beyond).is_ok());
    }
}

#[test]
fn only_an_admin_s_key_ends_the_service_where_keys_are_asked_for() {
    let open = guard(LOOPBACK, |_| {});
    assert_eq!(status(&open, "POST /shutdown\nHost: localhost"), 200);
    let asks = guard(LOOPBACK, |access| {
        access.keys.add("user", Role::User);
        access.keys.add("admin", Role::Admin);
    });
    let with = |path: &str, key: &str| {
        status(
            &asks,
            &format!("POST {path}\nHost: localhost\nAuthorization: Bearer {key}"),
        )
    };
    assert_eq!(
        [with("/shutdown", "user"), with("/execute", "user")],
        [401, 200]
    );
    assert_eq!(
        [with("/shutdown", "admin"), with("/execute", "admin")],
        [200, 200]
    );
    assert_eq!(
        [with("/shutdown", "none"), with("/execute", "none")],
        [401, 401]
    );
}

#[test]
fn keys_of_a_file_follow_it_and_a_broken_one_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    std::fs::write(&path, "old\n").unwrap();
    let guard = guard(LOOPBACK, |access| {
        access.source.add("flag", Role::User, "--api-key").unwrap();
        access
            .source
            .add_file("--api-key-file", path.clone(), Role::User)
            .unwrap();
        access.keys = access.source.read().unwrap().0;
    });
    let opens = |key: &str| {
        let head = format!("POST /execute\nHost: localhost\nAuthorization: Bearer {key}");
        status(&guard, &head) == 200
    };
    assert!(opens("old") && opens("flag") && !opens("new"));
    let mut seen = watch::look(&guard, watch::Seen::default());
    for (text, old, new) in [
        (Some("new and longer\n"), true, false),
        (Some(""), true, false),
        (None, true, false),
        (Some("# changed\nnew\n"), false, true),
        (Some("old\nnew\n"), true, true),
    ] {
        match text {
            Some(text) => std::fs::write(&path, text).unwrap(),
            None => std::fs::remove_file(&path).unwrap(),
        }
        seen = watch::look(&guard, seen);
        assert_eq!((opens("old"), opens("new")), (old, new), "{text:?}");
        assert!(opens("flag"), "{text:?}");
    }
    // What can be read again counts though only its mode has changed.
    let mode = |bits| {
        let mode = std::fs::Permissions::from_mode(bits);
        std::fs::set_permissions(&path, mode).unwrap();
    };
    let before = seen.stamp.clone();
    mode(0o400);
    assert_ne!(watch::look(&guard, seen).stamp, before);
}
