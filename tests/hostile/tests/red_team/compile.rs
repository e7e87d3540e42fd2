//! Modules that are made to keep a compiler busy.

use std::fmt::Write as _;
use std::time::Duration;

use partita_policy::{CompileError, CompileLimits, Host, HostConfig, Limits, LoadError, Reason, Stage};

use crate::support::{compiler, config};

/// A function of many blocks and locals, which is what makes a register allocator slow: `blocks` branches, each of which moves a value
/// between two of `locals` locals.
fn function(blocks: usize, locals: usize) -> String {
    let mut text = format!("(func (param i32) (local {})", "i32 ".repeat(locals));
    for block in 0..blocks {
        let (from, to) = (1 + block * 7 % locals, 1 + (block * 13 + 5) % locals);
        // Writing to a string cannot fail.
        let _ = write!(text, "(block local.get 0 br_if 0 local.get {from} local.get {to} i32.add local.set {to})");
    }
    text + ")"
}

/// A component with the exports of world `partitioner`, as far as the static checks look, and `functions` beside them.
fn component(functions: &str) -> Vec<u8> {
    let text = format!(
        r#"(component (core module {functions}) (instance $i)
        (export "partita:policy/lifecycle@0.1.0" (instance $i)) (export "partita:policy/partitioning@0.1.0" (instance $i)))"#
    );
    wat::parse_str(text).unwrap()
}

/// Functions that are each within the caps and together take a compiler many seconds.
fn bomb() -> Vec<u8> {
    component(&function(3_500, 4_000).repeat(24))
}

fn load(component: &[u8], limits: CompileLimits) -> LoadError {
    let host = Host::new(HostConfig { compiler: compiler(limits), ..config(None) }).unwrap();
    host.load("bomb", component, "", Limits::default()).unwrap_err()
}

#[track_caller]
fn compile_error(limits: CompileLimits) -> CompileError {
    let error = load(&bomb(), limits);
    assert_eq!(error.stage, Stage::Compile);
    match error.reason {
        Reason::Compile(error) => error,
        other => panic!("{other}"),
    }
}

#[test]
fn a_large_function_is_refused_before_it_is_compiled() {
    let error = load(&component(&function(30_000, 1_000)), CompileLimits::default());
    assert_eq!(error.stage, Stage::Static);
    let text = error.to_string();
    assert!(text.contains("function 0 has") && text.contains("bytes and may have 65536"), "{text}");
    let error = load(&component(&function(10, 5_001)), CompileLimits::default());
    assert!(error.to_string().contains("function 0 has 5001 locals and may have 5000"), "{error}");
}

#[test]
fn many_functions_end_at_the_limit_of_cpu() {
    let error = compile_error(CompileLimits { cpu_seconds: 1, ..CompileLimits::default() });
    assert!(matches!(error, CompileError::Cpu { seconds: 1 }), "{error}");
}

#[test]
fn many_functions_end_at_the_limit_of_memory() {
    let error = compile_error(CompileLimits { memory_bytes: 64 << 20, ..CompileLimits::default() });
    assert!(matches!(error, CompileError::Memory { .. }), "{error}");
}

#[test]
fn many_functions_end_at_the_limit_of_wall_clock() {
    let error = compile_error(CompileLimits { wall: Duration::from_millis(100), ..CompileLimits::default() });
    assert!(matches!(error, CompileError::Wall(_)), "{error}");
}

#[test]
fn too_much_machine_code_is_refused() {
    let host =
        Host::new(HostConfig { compiler: compiler(CompileLimits { artifact_bytes: 10_000, ..CompileLimits::default() }), ..config(None) });
    let error = host.unwrap().load("guest", partita_hostile::COMPONENT, "", Limits::default()).unwrap_err();
    assert!(matches!(error.reason, Reason::Compile(CompileError::Output { bytes: 10_000 })), "{error}");
}
