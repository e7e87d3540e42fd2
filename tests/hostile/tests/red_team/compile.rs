//! Modules that are made to keep a compiler busy.

use std::time::Duration;

use partita_hostile::bomb;
use partita_policy::{CompileError, CompileLimits, Compiler, Host, HostConfig, Limits, LoadError, Reason, Stage, chain};

use crate::support::{compiler, config};

fn load(component: &[u8], limits: CompileLimits) -> LoadError {
    let host = Host::new(HostConfig { compiler: compiler(limits), ..config(None) }).unwrap();
    host.load("bomb", component, "", Limits::default()).unwrap_err()
}

#[track_caller]
fn compile_error(component: &[u8], limits: CompileLimits) -> CompileError {
    let error = load(component, limits);
    assert_eq!(error.stage, Stage::Compile);
    match error.reason {
        Reason::Compile(error) => error,
        other => panic!("{other}"),
    }
}

#[test]
fn a_large_function_is_refused_before_it_is_compiled() {
    let error = load(&bomb::large(), CompileLimits::default());
    assert_eq!(error.stage, Stage::Static);
    let text = chain(&error);
    assert!(text.contains("function 0 has") && text.contains("bytes and may have 65536"), "{text}");
    let error = load(&bomb::component(&bomb::function(10, 5_001)), CompileLimits::default());
    assert!(chain(&error).contains("function 0 has 5001 locals and may have 5000"), "{error:?}");
}

#[test]
fn many_functions_end_at_the_limit_of_cpu() {
    let error = compile_error(&bomb::slow(), CompileLimits { cpu_seconds: 1, ..CompileLimits::default() });
    assert!(matches!(error, CompileError::Cpu { seconds: 1 }), "{error}");
}

#[test]
fn a_limit_that_the_host_was_started_with_stays() {
    let shell = Compiler {
        program: "/bin/sh".into(),
        args: vec!["-c".into(), r#"ulimit -t 3; exec "$0""#.into(), compiler(CompileLimits::default()).program.into()],
        limits: CompileLimits::default(),
    };
    let host = Host::new(HostConfig { compiler: shell, ..config(None) }).unwrap();
    let error = host.load("bomb", &bomb::slow(), "", Limits::default()).unwrap_err();
    assert!(matches!(error.reason, Reason::Compile(CompileError::Cpu { .. })), "{error:?}");
    // A component that takes next to nothing comes past the compiler.
    assert_eq!(host.load("empty", &bomb::component(""), "", Limits::default()).unwrap_err().stage, Stage::Instantiate);
}

#[test]
fn many_functions_end_at_the_limit_of_memory() {
    let error = compile_error(&bomb::many(), CompileLimits { memory_bytes: 64 << 20, ..CompileLimits::default() });
    assert!(matches!(error, CompileError::Memory { .. }), "{error}");
}

#[test]
fn many_functions_end_at_the_limit_of_wall_clock() {
    let error = compile_error(&bomb::slow(), CompileLimits { wall: Duration::from_millis(100), ..CompileLimits::default() });
    assert!(matches!(error, CompileError::Wall(_)), "{error}");
}

#[test]
fn too_much_machine_code_is_refused() {
    let host =
        Host::new(HostConfig { compiler: compiler(CompileLimits { artifact_bytes: 10_000, ..CompileLimits::default() }), ..config(None) });
    let error = host.unwrap().load("guest", partita_hostile::COMPONENT, "", Limits::default()).unwrap_err();
    assert!(matches!(error.reason, Reason::Compile(CompileError::Output { bytes: 10_000 })), "{error:?}");
}
