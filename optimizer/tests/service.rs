//! The compiler thread with the real shared object behind it: results, order, idleness, forks, exits, and LLVM giving up.
//!
//! The service is one for a process, and most of this ends or forks processes: each test starts this binary again, as one of the programs at the end, which runs
//! as the test `program` when `PROGRAM` names it.

use std::collections::BTreeMap;
use std::env;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hotstamp_optimizer::ir_job;
use hotstamp_runtime::code_memory::CodeMemory;
use hotstamp_runtime::optimize::loader;
use hotstamp_runtime::optimize::object;
use hotstamp_runtime::optimize::service::{self, Finished, Job, QUEUE_LIMIT, Rejected};

const PROGRAM: &str = "HOTSTAMP_TEST_PROGRAM";

/// The shared object that cargo built with this test.
fn shared_object() -> PathBuf {
    env::current_exe()
        .unwrap()
        .with_file_name(loader::FILE_NAME)
}

fn command(program: &str, argument: usize) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["--exact", "program", "--nocapture", "--test-threads=1"])
        .env(PROGRAM, format!("{program}:{argument}"))
        .env(loader::VARIABLE, shared_object())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn text(output: &Output) -> String {
    format!(
        "{}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn succeeds(program: &str) {
    let output = command(program, 0).output().unwrap();
    assert!(output.status.success(), "{program}: {}", text(&output));
}

#[test]
fn results_come_back_and_run() {
    succeeds("results");
}

#[test]
fn the_hottest_is_compiled_first() {
    succeeds("order");
}

#[test]
fn a_full_queue_drops_the_coldest() {
    succeeds("full");
}

#[test]
fn an_idle_thread_ends_and_starts_again() {
    succeeds("idle");
}

#[test]
fn the_thread_takes_no_signals() {
    succeeds("signals");
}

#[test]
fn llvm_giving_up_ends_the_service_and_not_the_process() {
    succeeds("fatal");
}

#[test]
fn without_a_shared_object_everything_is_refused() {
    for file in ["/nonexistent/optimizer.so", "/proc/self/exe", "libc.so.6"] {
        let output = command("missing", 0)
            .env(loader::VARIABLE, file)
            .output()
            .unwrap();
        assert!(output.status.success(), "{file}: {}", text(&output));
    }
}

#[test]
fn a_fork_finds_no_thread_where_compilations_are_short() {
    succeeds("fork_quiet");
}

#[test]
fn forks_in_the_middle_of_compilations() {
    succeeds("forks");
}

/// Ends processes at different moments of a compilation, in different ways.
#[test]
fn exits_in_the_middle_of_compilations() {
    let count = if cfg!(target_arch = "x86_64") {
        120
    } else {
        12
    };
    let mut delays = Vec::new();
    for argument in 0..count {
        let output = command("exit", argument).output().unwrap();
        let end = now();
        assert_eq!(
            output.status.code(),
            Some(42),
            "exit {argument}: {}",
            text(&output)
        );
        let said = String::from_utf8_lossy(&output.stdout);
        let begin: u128 = said
            .lines()
            .find_map(|line| line.strip_prefix("exit begins: "))
            .expect("it says when")
            .parse()
            .unwrap();
        delays.push(end.saturating_sub(begin) / 1000);
    }
    delays.sort_unstable();
    let (quarter, median) = (delays[count / 4], delays[count / 2]);
    println!("from exit to the end, in microseconds: a quarter {quarter}, half {median}");
    // What is compiled takes hundreds of milliseconds, which nobody may wait for. How long an end takes beyond that is up to the machine's load, and emulation is slow.
    if cfg!(target_arch = "x86_64") {
        assert!(quarter < 20_000, "{delays:?}");
    }
}

/// Nanoseconds of a clock that all processes share.
fn now() -> u128 {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u128::from(time.as_secs()) * 1_000_000_000 + u128::from(time.subsec_nanos())
}

// ---------------------------------------------------------------------------------------------- jobs

fn job(id: u64, heat: u64, passes: &str, ir: &str) -> Job {
    let bytes = [ir_job::PREFIX, passes.as_bytes(), b"\0", ir.as_bytes()].concat();
    Job { id, heat, bytes }
}

/// A function that returns `value`.
fn small(id: u64, heat: u64, value: u64) -> Job {
    let ir = format!("define i64 @hotstamp_entry() {{ ret i64 {value} }}");
    job(id, heat, "default<O2>", &ir)
}

/// A function that keeps LLVM busy: loops after loops, `size` of them.
fn large(id: u64, heat: u64, size: usize) -> Job {
    let mut ir =
        String::from("define i64 @hotstamp_entry(i64 %n, ptr %p) {\nentry:\n br label %l0\n");
    for i in 0..size {
        let before = if i == 0 {
            "entry".to_owned()
        } else {
            format!("e{}", i - 1)
        };
        ir += &format!(
            "l{i}:\n %i{i} = phi i64 [ 0, %{before} ], [ %j{i}, %l{i} ]\n %s{i} = phi double [ 0.0, %{before} ], [ %t{i}, %l{i} ]\n \
             %q{i} = getelementptr double, ptr %p, i64 %i{i}\n %v{i} = load double, ptr %q{i}\n %w{i} = fmul double %v{i}, {i}.5\n \
             %t{i} = fadd double %s{i}, %w{i}\n store double %w{i}, ptr %q{i}\n %j{i} = add i64 %i{i}, 1\n %c{i} = icmp slt i64 %j{i}, %n\n \
             br i1 %c{i}, label %l{i}, label %e{i}\ne{i}:\n store double %t{i}, ptr %p\n br label %l{}\n",
            i + 1
        );
    }
    ir += &format!("l{size}:\n ret i64 {size}\n}}\n");
    job(id, heat, "default<O2>", &ir)
}

fn wait() -> Finished {
    let begin = Instant::now();
    loop {
        if let Some(finished) = service::take_finished() {
            return finished;
        }
        assert!(begin.elapsed() < Duration::from_secs(120), "no result");
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// What compiled code returns.
fn run(finished: &Finished) -> u64 {
    let Finished::Compiled { object, .. } = finished else {
        panic!("not compiled: {finished:?}");
    };
    let placed = object::place(CodeMemory::global(), object).unwrap();
    // SAFETY: `small` makes functions of this type.
    let entry: extern "C" fn() -> u64 = unsafe { std::mem::transmute(placed.entry.0) };
    entry()
}

/// The process's threads by name, with the field `SigBlk` of each.
fn threads() -> Vec<(String, u64)> {
    let mut threads = Vec::new();
    for entry in std::fs::read_dir("/proc/self/task").unwrap() {
        let path = entry.unwrap().path();
        // It may have ended meanwhile.
        let Ok(status) = std::fs::read_to_string(path.join("status")) else {
            continue;
        };
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_default().trim().to_owned()
        };
        let blocked = u64::from_str_radix(&field("SigBlk:"), 16).unwrap();
        threads.push((field("Name:"), blocked));
    }
    threads
}

fn compiler_threads() -> usize {
    threads()
        .iter()
        .filter(|(name, _)| name == "hotstamp")
        .count()
}

// ---------------------------------------------------------------------------------------------- programs

#[test]
fn program() {
    let Ok(chosen) = env::var(PROGRAM) else {
        return;
    };
    let (name, argument) = chosen.split_once(':').unwrap();
    let argument: usize = argument.parse().unwrap();
    match name {
        "results" => results(),
        "order" => order(),
        "full" => full(),
        "idle" => idle(),
        "signals" => signals(),
        "fatal" => fatal(),
        "missing" => missing(),
        "fork_quiet" => fork_quiet(),
        "forks" => forks(),
        "exit" => exit(argument),
        _ => panic!("no program {name}"),
    }
}

static WOKEN: AtomicUsize = AtomicUsize::new(0);

fn results() {
    service::set_wakeup(|| {
        WOKEN.fetch_add(1, Ordering::SeqCst);
    });
    for id in 0..20 {
        service::submit(small(id, id, 1000 + id)).unwrap();
    }
    let mut seen = BTreeMap::new();
    while seen.len() < 20 {
        let finished = wait();
        let id = finished.id();
        assert_eq!(seen.insert(id, run(&finished)), None);
    }
    assert!(seen.iter().all(|(id, value)| *value == 1000 + id));
    assert!(WOKEN.load(Ordering::SeqCst) >= 20);
    assert_eq!(service::outstanding(), 0);
    assert_eq!(service::take_finished(), None);
    assert_eq!(run(&service::compile_now(small(99, 0, 7))), 7);
    let refused = service::compile_now(Job {
        id: 5,
        heat: 0,
        bytes: b"what".to_vec(),
    });
    assert!(!matches!(refused, Finished::Compiled { .. }) && refused.id() == 5);
    let failed = service::compile_now(job(6, 0, "no-such-pass", "define void @f() { ret void }"));
    assert!(
        matches!(&failed, Finished::Failed { id: 6, message } if message.contains("no-such-pass"))
    );
}

fn order() {
    service::submit(large(1000, 9999, 40)).unwrap();
    // What comes now finds the thread at work.
    std::thread::sleep(Duration::from_millis(5));
    for (id, heat) in [
        (1, 10),
        (2, 50),
        (3, 30),
        (4, 50),
        (5, 20),
        (6, 60),
        (7, 40),
    ] {
        service::submit(small(id, heat, id)).unwrap();
    }
    service::cancel(6);
    // Superseded: hotter, and with another value.
    service::submit(small(5, 70, 555)).unwrap();
    assert_eq!(run(&service::compile_now(small(2000, 0, 8))), 8);
    let finished: Vec<Finished> = (0..8).map(|_| wait()).collect();
    // The cancelled one is dropped when the thread looks into its inbox: before the first job, if that was not begun yet.
    let (dropped, compiled): (Vec<_>, Vec<_>) = finished
        .iter()
        .partition(|finished| matches!(finished, Finished::Dropped { .. }));
    assert_eq!(dropped, [&Finished::Dropped { id: 6 }]);
    let ids: Vec<u64> = compiled.iter().map(|finished| finished.id()).collect();
    assert_eq!(ids, [1000, 5, 2, 4, 7, 3, 1]);
    assert_eq!(run(compiled[1]), 555);
    assert_eq!(service::outstanding(), 0);
}

fn full() {
    service::submit(large(1_000_000, 9999, 40)).unwrap();
    std::thread::sleep(Duration::from_millis(5));
    let mut taken = 1;
    for id in 0..QUEUE_LIMIT as u64 + 20 {
        match service::submit(small(id, 10, id)) {
            Ok(()) => taken += 1,
            Err(error) => assert_eq!((error, taken), (Rejected::QueueFull, QUEUE_LIMIT)),
        }
    }
    assert_eq!(taken, QUEUE_LIMIT);
    for id in 0..5 {
        service::submit(small(5000 + id, 100, 5000 + id)).unwrap();
    }
    assert_eq!(
        service::submit(small(6000, 10, 0)),
        Err(Rejected::QueueFull)
    );
    let (mut compiled, mut dropped) = (0, 0);
    for _ in 0..taken + 5 {
        match wait() {
            Finished::Compiled { .. } => compiled += 1,
            Finished::Dropped { id } => {
                assert!(id < 5000, "a hot job was dropped");
                dropped += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((compiled, dropped), (QUEUE_LIMIT, 5));
    assert_eq!(service::outstanding(), 0);
}

fn idle() {
    for round in 0..3 {
        assert_eq!(compiler_threads(), 0);
        service::submit(small(round, 1, round)).unwrap();
        assert_eq!(run(&wait()), round);
        assert_eq!(compiler_threads(), 1);
        let begin = Instant::now();
        while compiler_threads() > 0 {
            assert!(begin.elapsed() < Duration::from_secs(20), "it does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    // Jobs that come just as it ends are not lost.
    for round in 0..6 {
        service::submit(small(round, 1, round)).unwrap();
        assert_eq!(run(&wait()), round);
        std::thread::sleep(Duration::from_millis(498) + Duration::from_micros(700 * round));
    }
}

fn signals() {
    service::submit(small(1, 1, 1)).unwrap();
    wait();
    let thread = threads().into_iter().find(|(name, _)| name == "hotstamp");
    let (_, blocked) = thread.expect("it is still idle");
    for signal in [
        libc::SIGINT,
        libc::SIGTERM,
        libc::SIGALRM,
        libc::SIGCHLD,
        libc::SIGUSR1,
        libc::SIGPROF,
    ] {
        assert!(blocked >> (signal - 1) & 1 == 1, "signal {signal}");
    }
    assert!(blocked >> (libc::SIGSEGV - 1) & 1 == 0);
    // The thread that started it is as it was.
    let own = threads()
        .into_iter()
        .find(|(name, _)| name == "program")
        .unwrap();
    assert_eq!(own.1 >> (libc::SIGINT - 1) & 1, 0);
}

fn fatal() {
    // Without a parser for assembler, which is not linked in, inline assembly is something that LLVM cannot go on from.
    let ir = "define void @hotstamp_entry() {
                call void asm sideeffect \"nop\", \"\"()
                ret void
              }";
    service::submit(job(1, 100, "", ir)).unwrap();
    service::submit(large(2, 1, 100)).unwrap();
    let finished = wait();
    assert!(
        matches!(&finished, Finished::Failed { id: 1, message } if message.contains("asm")),
        "{finished:?}"
    );
    assert!(service::is_off());
    assert!(matches!(wait(), Finished::Refused { id: 2, .. }));
    assert_eq!(service::submit(small(3, 1, 1)), Err(Rejected::Off));
    assert!(matches!(
        service::compile_now(small(4, 1, 1)),
        Finished::Failed { id: 4, .. }
    ));
    // A fork does not wait for the thread, and the child is none the worse.
    let begin = Instant::now();
    assert_eq!(
        in_child(|| service::take_finished().is_none() && service::is_off()),
        Some(0)
    );
    assert!(begin.elapsed() < Duration::from_secs(2));
}

fn missing() {
    service::submit(small(1, 1, 1)).unwrap();
    let Finished::Refused { id: 1, reason } = wait() else {
        panic!("there is no optimizer to compile it");
    };
    assert!(
        reason.contains(&env::var(loader::VARIABLE).unwrap()),
        "{reason}"
    );
    assert!(service::is_off());
    assert_eq!(service::submit(small(2, 1, 1)), Err(Rejected::Off));
}

/// Forks, runs the function in the child, and returns its exit status, 0 for true.
fn in_child(function: impl FnOnce() -> bool) -> Option<i32> {
    // SAFETY: the child runs what is given and leaves by `_exit`.
    let child = unsafe { libc::fork() };
    assert!(child >= 0);
    if child == 0 {
        let fine = std::panic::catch_unwind(std::panic::AssertUnwindSafe(function));
        // SAFETY: ends this process at once.
        unsafe { libc::_exit(if fine.unwrap_or(false) { 0 } else { 1 }) };
    }
    let mut status = 0;
    // SAFETY: the child that was just made.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status))
}

fn fork_quiet() {
    for round in 0..20 {
        service::submit(small(round, 1, round)).unwrap();
        if round % 2 == 0 {
            assert_eq!(run(&wait()), round);
        }
        let status = in_child(|| {
            // Compiled before the fork, or given up with it; its own jobs are compiled.
            while let Some(finished) = service::take_finished() {
                assert_eq!(finished.id(), round);
            }
            service::outstanding() == 0 && run(&service::compile_now(small(77, 1, 78))) == 78
        });
        assert_eq!(status, Some(0), "round {round}");
        assert_eq!(compiler_threads(), 0, "the fork ended it, in round {round}");
        if round % 2 == 1 {
            assert_eq!(
                run(&wait()),
                round,
                "it is compiled in the parent all the same"
            );
        }
    }
}

fn forks() {
    let count = if cfg!(target_arch = "x86_64") { 40 } else { 4 };
    let mut slowest = Duration::ZERO;
    for round in 0..count {
        service::submit(large(1, 5, 12)).unwrap();
        for id in 2..6 {
            service::submit(small(id, 1, id)).unwrap();
        }
        std::thread::sleep(Duration::from_millis(round % 7));
        let begin = Instant::now();
        let status = in_child(|| {
            // A result that was there before the fork, or the news that there will be none.
            let outstanding = service::outstanding();
            let mut told = 0;
            while let Some(finished) = service::take_finished() {
                let fine = matches!(
                    finished,
                    Finished::Dropped { .. } | Finished::Compiled { .. }
                );
                assert!(fine, "{finished:?}");
                told += 1;
            }
            assert_eq!((told, service::outstanding()), (outstanding, 0));
            service::submit(small(50, 1, 51)).unwrap();
            assert_eq!(run(&wait()), 51);
            // A grandchild too.
            in_child(|| run(&service::compile_now(small(60, 1, 61))) == 61) == Some(0)
        });
        slowest = slowest.max(begin.elapsed());
        assert_eq!(status, Some(0), "round {round}");
        let mut ids: Vec<u64> = (0..5)
            .map(|_| wait())
            .map(|finished| {
                assert!(
                    matches!(finished, Finished::Compiled { .. }),
                    "{finished:?}"
                );
                finished.id()
            })
            .collect();
        ids.sort_unstable();
        assert_eq!(ids, [1, 2, 3, 4, 5]);
    }
    println!("slowest fork with all that the child does: {slowest:?}");
}

/// Registered before LLVM is loaded, so it runs after everything that LLVM would have registered: the compiler thread goes on meanwhile.
extern "C" fn linger() {
    std::thread::sleep(Duration::from_millis(4));
}

fn exit(argument: usize) {
    if argument.is_multiple_of(2) {
        // SAFETY: a function of the right type.
        unsafe { libc::atexit(linger) };
    }
    for id in 0..4 {
        service::submit(large(id, 1, 20)).unwrap();
    }
    std::thread::sleep(Duration::from_micros(argument as u64 * 1777 % 60_000));
    println!("\nexit begins: {}", now());
    match argument % 3 {
        0 => std::process::exit(42),
        // SAFETY: ends this process at once.
        1 => unsafe { libc::_exit(42) },
        _ => {
            // As the interpreter ends: told before, then through the C library.
            service::stop();
            std::process::exit(42)
        }
    }
}
