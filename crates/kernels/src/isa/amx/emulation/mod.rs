//! AMX in software, for tests on machines without it (the feature `emulated-amx`): a processor that does not
//! know an instruction of tiles raises SIGILL, whose handler does what the instruction would have done
//! and goes on behind it. An instruction that is not one of the kernels' ends the process as ever.
//!
//! Tiles belong to a thread. What a processor would refuse (a configuration that is none, tiles that do not fit)
//! ends the process with a line that says why. Prefixes before VEX (segments, 32-bit addresses) are not
//! read: no kernel has them.

mod decode;
#[cfg(test)]
mod tests;
mod tiles;

use std::cell::UnsafeCell;
use std::ffi::{c_int, c_void};
use std::io::Write;
use std::mem::MaybeUninit;
use std::sync::OnceLock;

use decode::Instruction;
use tiles::{Refusal, Tiles};

thread_local! {
    /// The tiles of a thread; made at compile time and without an end, so that the handler may use them.
    static TILES: UnsafeCell<Tiles> = const { UnsafeCell::new(Tiles::new()) };
}

/// What SIGILL did before; `None` where the handler could not be installed.
static PREVIOUS: OnceLock<Option<libc::sigaction>> = OnceLock::new();

/// Installs the handler, once; false where the system refuses. For processors with AVX-512, VNNI.
pub(super) fn install() -> bool {
    PREVIOUS.get_or_init(set_handler).is_some()
}

fn set_handler() -> Option<libc::sigaction> {
    let mut previous = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: an action of zeros is valid, and its mask is made empty; the handler has the form that
    // SA_SIGINFO asks for; where the call succeeds, it has written what was before.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigemptyset(&mut action.sa_mask);
        action.sa_sigaction = on_illegal_instruction as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        let answer = libc::sigaction(libc::SIGILL, &action, previous.as_mut_ptr());
        (answer == 0).then(|| previous.assume_init())
    }
}

/// Registers by the number of their encoding.
const REGISTERS: [c_int; 16] = [
    libc::REG_RAX,
    libc::REG_RCX,
    libc::REG_RDX,
    libc::REG_RBX,
    libc::REG_RSP,
    libc::REG_RBP,
    libc::REG_RSI,
    libc::REG_RDI,
    libc::REG_R8,
    libc::REG_R9,
    libc::REG_R10,
    libc::REG_R11,
    libc::REG_R12,
    libc::REG_R13,
    libc::REG_R14,
    libc::REG_R15,
];

/// Does the instructions of tiles that stand where the signal came from, as many as follow each other:
/// a signal takes longer than most of them.
extern "C" fn on_illegal_instruction(_: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the system hands a handler the context of what it interrupted.
    let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    let register = |which: c_int| which as usize;
    let mut done = 0;
    loop {
        let here = registers[register(libc::REG_RIP)] as u64;
        let code = std::ptr::with_exposed_provenance::<u8>(here as usize);
        // SAFETY: decoding asks for no bytes but those of the instruction that would run next.
        let Some((instruction, length)) = decode::decode((0..).map(|at| unsafe { *code.add(at) }))
        else {
            break;
        };
        let next = here + length;
        let value = |number: u8| registers[register(REGISTERS[usize::from(number)])] as u64;
        // SAFETY: the instruction's operands are what its kernel vouches for; the handler is installed only
        // where AVX-512 with VNNI is.
        if let Err(refusal) = unsafe { execute(instruction, value, next) } {
            die(instruction, here, refusal);
        }
        registers[register(libc::REG_RIP)] = next as i64;
        done += 1;
    }
    if let (0, Some(Some(previous))) = (done, PREVIOUS.get()) {
        // SAFETY: what was in force before; the instruction is tried again and does what it did then.
        unsafe { libc::sigaction(libc::SIGILL, previous, std::ptr::null_mut()) };
    }
}

/// Does one instruction on this thread's tiles.
///
/// # Safety
/// What the instruction reads and writes is there; the processor has AVX-512 with VNNI.
unsafe fn execute(
    instruction: Instruction,
    register: impl Fn(u8) -> u64,
    next: u64,
) -> Result<(), Refusal> {
    TILES.with(|tiles| {
        // SAFETY: nobody else has this thread's tiles: an instruction does not interrupt another. The
        // rest is the caller's promise.
        unsafe {
            let tiles = &mut *tiles.get();
            match instruction {
                Instruction::Configure(from) => {
                    let (base, index) = from.resolve(register, next);
                    let from =
                        std::ptr::with_exposed_provenance::<[u8; 64]>((base + index) as usize);
                    tiles.configure(&*from)
                }
                Instruction::Release => {
                    tiles.release();
                    Ok(())
                }
                Instruction::Zero(tile) => tiles.zero(tile),
                Instruction::Load(tile, from) => {
                    let (first, stride) = from.resolve(register, next);
                    tiles.load(tile, first, stride)
                }
                Instruction::Store(to, tile) => {
                    let (first, stride) = to.resolve(register, next);
                    tiles.store(tile, first, stride)
                }
                Instruction::Multiply(product, operands) => tiles.multiply(product, operands),
            }
        }
    })
}

/// Ends the process with a line on the error output.
fn die(instruction: Instruction, at: u64, why: Refusal) -> ! {
    let _ = writeln!(std::io::stderr(), "emulated AMX: {instruction} at {at:#x}: {why}");
    std::process::abort();
}
