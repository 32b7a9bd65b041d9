use std::time::Duration;

use super::*;

fn parse(args: &[&str]) -> Result<Config, ConfigError> {
    Config::parse(["worker-orcd"].iter().chain(args))
}

/// The message of the usage error that `args`, after a good `--model`, must give.
fn usage(args: &[&str]) -> String {
    let args: Vec<_> = ["--model", "m.gguf"].iter().chain(args).copied().collect();
    let error = parse(&args).expect_err(&format!("{args:?} passed"));
    assert_eq!(error.exit_code(), 2, "{args:?}");
    let text = error.to_string();
    assert!(
        text.starts_with("error: USAGE: ") && text.lines().count() == 1,
        "{text:?}"
    );
    text
}

#[test]
fn defaults_are_those_of_the_contract() {
    let config = parse(&["--model", "m.gguf"]).unwrap();
    assert!(config.model.is_absolute() && config.model.ends_with("m.gguf"));
    assert_eq!(config.device, DEFAULT_DEVICE);
    assert_eq!((config.host.as_str(), config.port), ("127.0.0.1", 8080));
    let flags = &config.flags;
    assert_eq!((flags.max_tokens_out, flags.queue), (2048, 64));
    assert_eq!(
        (flags.context, flags.parallel, flags.threads),
        (None, None, None)
    );
    assert_eq!(flags.inference_timeout, Duration::from_secs(300));
    assert_eq!(flags.drain_timeout, Duration::from_secs(5));
    assert_eq!(flags.resume_ttl, Duration::from_secs(60));
    assert_eq!(config.log_format, None);
    assert!(config.callback_url.is_none() && config.runtime_dir.is_none());
    assert!(config.worker_bin.is_none() && flags.max_restarts.is_none());
}

#[test]
fn a_pre_tokenizer_has_a_known_name() {
    let of = |args: &[&str]| parse(args).unwrap().text.pre_tokenizer;
    let named = of(&["--model", "m.gguf", "--pre-tokenizer", "tekken"]);
    assert_eq!(named, Some("tekken".parse().unwrap()));
    assert_eq!(of(&["--model", "m.gguf"]), None);
    let unknown = usage(&["--pre-tokenizer", "falcon"]);
    for part in ["--pre-tokenizer", "`falcon` is not known", "`falcon3`"] {
        assert!(unknown.contains(part), "{unknown}");
    }
}

#[test]
fn the_prefix_cache_is_on_unless_it_is_turned_off() {
    let of = |args: &[&str]| parse(args).unwrap().flags.prefix_cache;
    assert_eq!(of(&["--model", "m.gguf"]), Switch::On);
    assert_eq!(
        of(&["--model", "m.gguf", "--prefix-cache", "on"]),
        Switch::On
    );
    assert_eq!(
        of(&["--model", "m.gguf", "--prefix-cache=off"]),
        Switch::Off
    );
}

#[test]
fn usage_errors_are_one_line_and_name_the_flag() {
    for (args, flag) in [
        (["--port", "65536"], "--port"),
        (["--port", "x"], "--port"),
        (["--device", "cuda"], "--device"),
        (["--device", "gpu:0"], "--device"),
        (["--gpu-device", "-1"], "--gpu-device"),
        (["--max-tokens-out", "0"], "--max-tokens-out"),
        (["--context", "1"], "--context"),
        (["--queue", "0"], "--queue"),
        (["--parallel", "0"], "--parallel"),
        (["--threads", "0"], "--threads"),
        (["--inference-timeout-sec", "0"], "--inference-timeout-sec"),
        (["--drain-timeout-sec", "-1"], "--drain-timeout-sec"),
        (["--resume-ttl-sec", "1.5"], "--resume-ttl-sec"),
        (["--worker-id", "seven"], "--worker-id"),
        (["--callback-url", "ftp://x/"], "--callback-url"),
        (["--callback-url", "/ready"], "--callback-url"),
        (["--callback-url", "http://x:0/"], "--callback-url"),
        (["--callback-url", "http://x:99999/"], "--callback-url"),
        (["--callback-url", "http://u:p@x/"], "--callback-url"),
        (["--log-format", "xml"], "--log-format"),
        (["--debug-kv-pages", "0"], "--debug-kv-pages"),
        (["--kv-memory", "0"], "--kv-memory"),
        (["--prefix-cache", "sometimes"], "--prefix-cache"),
        (["--no-such-flag", "1"], "--no-such-flag"),
        (["--host", ""], "--host"),
    ] {
        let message = usage(&args);
        assert!(message.contains(flag), "{args:?}: {message}");
    }
    assert!(usage(&["--callback-url", "https://x/"]).contains("https is not available"));
    assert!(parse(&[]).unwrap_err().to_string().contains("--model"));
}

#[test]
fn slips_are_answered_with_what_was_probably_meant() {
    for (args, suggested) in [
        (
            &["--modle", "x.gguf"][..],
            "a similar argument exists: '--model'",
        ),
        (&["--que=3"], "a similar argument exists: '--queue'"),
        (
            &["-p", "80"],
            "similar arguments exist: '--pre-tokenizer', '--port', '--parallel'",
        ),
        (
            &["-s"],
            "similar arguments exist: '--served-model-name', '--standby'",
        ),
        (&["--log-format", "jsn"], "a similar value exists: 'json'"),
    ] {
        let message = usage(args);
        assert!(message.contains(suggested), "{args:?}: {message}");
        assert!(message.ends_with("see --help"), "{message}");
    }
    let unlike = usage(&["--color"]);
    assert!(!unlike.contains("exist"), "{unlike}");
}

/// Every flag that takes a whole number, whoever added it.
#[test]
fn wrong_numbers_are_answered_with_the_range() {
    use std::any::TypeId;

    let numeric = [
        TypeId::of::<u16>(),
        TypeId::of::<u32>(),
        TypeId::of::<u64>(),
        TypeId::of::<usize>(),
        TypeId::of::<Duration>(),
    ];
    let command = CommandLine::command();
    let flags = command.get_arguments().filter(|arg| {
        let kind = arg.get_value_parser().type_id();
        arg.get_action().takes_values() && numeric.iter().any(|known| kind == *known)
    });
    let flags: Vec<_> = flags.filter_map(|arg| arg.get_long()).collect();
    assert!(flags.contains(&"port") && flags.contains(&"hang-timeout-ms"));
    for flag in flags {
        for wrong in ["many", "-1", "1.5", "", "99999999999999999999"] {
            let message = usage(&[&format!("--{flag}"), wrong]);
            assert!(
                message.contains(&format!("'--{flag} <")) && message.contains("whole number from "),
                "--{flag} {wrong}: {message}"
            );
        }
    }
    let message = usage(&["--port", "65536"]);
    assert!(message.contains("from 0 to 65535"), "{message}");
}

#[test]
fn the_model_may_be_given_by_position_once() {
    let model = |args: &[&str]| parse(args).map(|config| config.model);
    for args in [
        &["m.gguf"][..],
        &["-m", "m.gguf"],
        &["--port", "0", "m.gguf", "--standby"],
        &["m.gguf", "--model", "m.gguf"],
    ] {
        assert!(model(args).unwrap().ends_with("m.gguf"), "{args:?}");
    }
    let message = usage(&["other.gguf"]);
    assert!(
        message.contains("m.gguf") && message.contains("other.gguf"),
        "{message}"
    );
}

#[test]
fn gpu_device_is_a_short_form_that_must_agree() {
    let device = |args: &[&str]| {
        let args: Vec<_> = ["--model", "m"].iter().chain(args).copied().collect();
        parse(&args).map(|c| c.device)
    };
    assert_eq!(device(&["--gpu-device", "2"]).unwrap(), Device::Cuda(2));
    assert_eq!(
        device(&["--gpu-device", "2", "--device", "cuda:2"]).unwrap(),
        Device::Cuda(2)
    );
    assert!(device(&["--gpu-device", "2", "--device", "cpu"]).is_err());
}

#[test]
fn device_of_another_build_is_refused() {
    let config = parse(&["--model", "m", "--device", "cuda:3"]).unwrap();
    let checked = config.check_device();
    assert_eq!(checked.is_ok(), HAS_CUDA);
    if let Err(error) = checked {
        assert_eq!(error.exit_code(), 2);
        let text = error.to_string();
        assert!(text.starts_with("error: CUDA_ERROR: --device cuda:3: this build has no CUDA"));
    }
}

#[test]
fn help_and_version_are_no_errors() {
    let help = parse(&["--help"]).unwrap_err();
    assert_eq!(help.exit_code(), 0);
    for part in [
        "--model",
        "[default: 2048]",
        "ORCD_PORT",
        "Example:",
        "curl",
    ] {
        assert!(help.to_string().contains(part), "no {part} in help");
    }
    assert!(!help.to_string().contains("debug"));
    for flag in ["--version", "-V"] {
        let text = parse(&[flag]).unwrap_err().to_string();
        for part in [
            "worker-orcd 0.",
            "revision: ",
            &format!("protocol: {}", orcd_shared::protocol::version::PROTOCOL),
            "devices: cpu",
        ] {
            assert!(text.contains(part), "no {part} in {text}");
        }
    }
}

#[test]
fn every_flag_has_its_variable_and_is_in_the_written_document() {
    let api = include_str!("../../../docs/API.md");
    for arg in command().get_arguments() {
        let Some(long) = arg.get_long().filter(|l| !["help", "version"].contains(l)) else {
            continue;
        };
        let variable = format!("ORCD_{}", long.replace('-', "_").to_uppercase());
        assert_eq!(
            arg.get_env().and_then(|e| e.to_str()),
            Some(variable.as_str())
        );
        let is_written = api.contains(&format!("`--{long}`"));
        assert!(
            is_written || arg.is_hide_set(),
            "--{long} is not in docs/API.md"
        );
    }
}
