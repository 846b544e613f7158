//! Tests of code memory: published code runs, pages are never writable and executable, forks do not disturb each other.

use super::*;

/// Machine code of a function without arguments that returns `value`.
fn returning(value: u16) -> Vec<u8> {
    icache::returns(value).to_vec()
}

/// Runs code made by `returning`.
fn run(at: CodePtr) -> u16 {
    // SAFETY: the tests call this only with what they published through `returning`, a function of this type.
    let function: extern "C" fn() -> i32 = unsafe { std::mem::transmute(at.0) };
    function() as u16
}

/// Lines of the process's memory map that are writable and executable.
fn writable_and_executable() -> Vec<String> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines()
        .filter(|line| {
            line.split(' ')
                .nth(1)
                .is_some_and(|p| p.contains('w') && p.contains('x'))
        })
        .map(String::from)
        .collect()
}

fn both_protections(test: impl Fn(CodeMemory)) {
    test(CodeMemory::with_cap(4 << 20, Some(Protection::DualMapped)));
    test(CodeMemory::with_cap(4 << 20, Some(Protection::Private)));
}

#[test]
fn published_code_runs_where_it_was_announced() {
    both_protections(|memory| {
        for value in 1..200 {
            let announced = memory.next_address().unwrap();
            let at = memory.publish(&returning(value)).unwrap();
            assert_eq!(at, announced);
            assert_eq!(at.0 as usize % ALIGNMENT, 0);
            assert_eq!(run(at), value);
            assert!(memory.contains(at));
        }
        assert_eq!(writable_and_executable(), Vec::<String>::new());
    });
}

#[test]
fn code_larger_than_a_step_of_growth_is_contiguous() {
    both_protections(|memory| {
        let mut code = returning(7);
        code.resize((1 << 20) + 4096, 0);
        let first = memory.publish(&code).unwrap();
        let second = memory.publish(&returning(8)).unwrap();
        assert_eq!(second.0 as usize - first.0 as usize, code.len());
        assert_eq!((run(first), run(second)), (7, 8));
    });
}

#[test]
fn the_cap_is_an_error_and_not_the_end() {
    let memory = CodeMemory::with_cap(1 << 20, None);
    let mut code = returning(3);
    code.resize(1000 << 10, 0);
    let at = memory.publish(&code).unwrap();
    let cap = CodeMemoryError::CapReached { cap: 1 << 20 };
    assert_eq!(memory.publish(&code), Err(cap));
    let small = memory.publish(&returning(4)).unwrap();
    assert_eq!((run(at), run(small)), (3, 4));
    memory
        .publish(&vec![0; (1 << 20) - memory.usage().used])
        .unwrap();
    assert_eq!(memory.next_address(), Err(cap));
    assert_eq!(
        CodeMemory::with_cap(0, None).next_address(),
        Err(CodeMemoryError::CapReached { cap: 0 })
    );
}

#[test]
fn freed_code_is_reused_and_neighbours_join() {
    let memory = CodeMemory::with_cap(4 << 20, None);
    let code = returning(5);
    let pieces: Vec<CodePtr> = (0..4).map(|_| memory.publish(&code).unwrap()).collect();
    let len = round_up(code.len(), ALIGNMENT);
    // SAFETY: published above with this length, never run.
    unsafe {
        memory.free(pieces[0], code.len());
        memory.free(pieces[2], code.len());
        memory.free(pieces[1], code.len());
    }
    assert_eq!(memory.usage().reusable, 3 * len);
    let at = memory.address_for(3 * len).unwrap();
    assert_eq!(at, pieces[0]);
    assert_eq!(
        memory.publish_at(at, &vec![0; 3 * len + 1]),
        Err(CodeMemoryError::DoesNotFit { needed: 4 * len })
    );
    assert_eq!(memory.publish_at(at, &returning(6)), Ok(at));
    assert_eq!(run(at), 6);
    assert_eq!(memory.usage().reusable, 2 * len);
    assert_eq!(memory.address_for(3 * len), memory.next_address());
    assert_eq!(run(pieces[3]), 5);
}

/// What `ic ivau` does not reach (an emulator's translations) must not be rewritten: whichever it is here, new code is what runs.
#[test]
fn rewriting_is_tried_before_it_is_relied_on() {
    let memory = CodeMemory::with_cap(1 << 20, Some(Protection::DualMapped));
    memory.lock().rewriting = Rewriting::Untried;
    let first = memory.publish(&returning(3)).unwrap();
    assert_eq!(run(first), 3);
    // SAFETY: published above, and nothing runs in it.
    unsafe { memory.free(first, ALIGNMENT) };
    let at = memory.address_for(ALIGNMENT).unwrap();
    let rewriting = memory.lock().rewriting;
    assert_eq!(at == first, rewriting == Rewriting::Seen, "{rewriting:?}");
    memory.publish_at(at, &returning(4)).unwrap();
    assert_eq!(run(at), 4);
    if cfg!(target_arch = "x86_64") {
        assert_eq!(rewriting, Rewriting::Seen);
    }
}

#[test]
fn a_parents_code_stays_and_a_childs_code_is_its_own() {
    let memory = CodeMemory::global();
    let before = memory.publish(&returning(11)).unwrap();
    let freed = memory.publish(&returning(12)).unwrap();
    // SAFETY: published above, never run.
    unsafe { memory.free(freed, returning(12).len()) };
    let (mut to_parent, mut to_child) = ([0; 2], [0; 2]);
    // SAFETY: both arrays have room for two descriptors.
    let failed = unsafe { libc::pipe(to_parent.as_mut_ptr()) | libc::pipe(to_child.as_mut_ptr()) };
    assert_eq!(failed, 0);
    let signal = |fd: i32| {
        // SAFETY: one byte is readable at this address.
        assert_eq!(unsafe { libc::write(fd, [0u8].as_ptr().cast(), 1) }, 1);
    };
    let wait = |fd: i32| {
        // SAFETY: one byte is writable at this address.
        assert_eq!(unsafe { libc::read(fd, [0u8].as_mut_ptr().cast(), 1) }, 1);
    };
    // SAFETY: the child only publishes, runs and reads and writes pipes, and leaves by `_exit`.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let body = || {
            assert_eq!(memory.usage().reusable, 0);
            let own: Vec<CodePtr> = (0..2000)
                .map(|i| memory.publish(&returning(i)).unwrap())
                .collect();
            signal(to_parent[1]);
            wait(to_child[0]); // the parent has published at the same addresses
            assert_eq!(run(before), 11);
            for (value, at) in own.iter().enumerate() {
                assert_eq!(run(*at), value as u16);
            }
            assert_eq!(writable_and_executable(), Vec::<String>::new());
        };
        let passed = std::panic::catch_unwind(body).is_ok();
        // SAFETY: ends the child without the test harness's exit handlers.
        unsafe { libc::_exit(if passed { 0 } else { 1 }) };
    }
    wait(to_parent[0]);
    let usage = memory.usage();
    assert_eq!(usage.reusable, 0);
    assert!(usage.sealed > 0 && usage.used.is_multiple_of(rustix::param::page_size()));
    let own: Vec<CodePtr> = (0..2000)
        .map(|i| memory.publish(&returning(10_000 + i)).unwrap())
        .collect();
    signal(to_child[1]);
    let mut status = 0;
    // SAFETY: waits for the child of this test only.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    assert_eq!(status, 0, "the child's assertions");
    assert_eq!(run(before), 11);
    for (value, at) in own.iter().enumerate() {
        assert_eq!(run(*at), 10_000 + value as u16);
    }
}

#[test]
fn forks_without_new_code_cost_no_memory() {
    let memory = CodeMemory::with_cap(1 << 20, None);
    memory.publish(&returning(1)).unwrap();
    memory.lock().seal(false);
    let used = memory.usage().used;
    for _ in 0..1000 {
        memory.lock().seal(false);
    }
    assert_eq!(memory.usage().used, used);
}

#[test]
fn free_blocks_agree_with_a_plain_model() {
    let mut blocks = FreeBlocks::default();
    let mut model = [false; 64]; // by unit of 16 bytes
    let mut random = 1u32;
    let mut next = |below: usize| {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (random >> 16) as usize % below
    };
    for _ in 0..5000 {
        let unit = next(64);
        if !model[unit] {
            model[unit] = true;
            blocks.insert(unit * 16, 16);
        } else if let Some(at) = blocks.best_fit((1 + next(4)) * 16) {
            let len = 16 * (1 + next(blocks.by_address[&at] / 16));
            assert!(blocks.fits(at, len));
            blocks.take(at, len);
            model[at / 16..(at + len) / 16].fill(false);
        }
        assert_eq!(
            blocks.bytes,
            16 * model.iter().filter(|&&free| free).count()
        );
        assert_eq!(blocks.by_len.len(), blocks.by_address.len());
        for (&at, &len) in &blocks.by_address {
            assert!(model[at / 16..(at + len) / 16].iter().all(|&free| free));
            assert!(
                model.get((at + len) / 16) != Some(&true),
                "neighbours are joined"
            );
        }
    }
}
