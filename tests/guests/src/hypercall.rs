//! The hypercall instruction: number in rax, arguments in rdi, rsi, rdx, r10, r8, result in rax.
use crate::ret::Ret;
use core::arch::asm;

/// Issues hypercall `number` with up to five arguments; missing ones are 0.
pub fn call(number: usize, args: &[u64]) -> Ret {
    let a = |i: usize| args.get(i).copied().unwrap_or(0);
    Ret(raw(number as u64, [a(0), a(1), a(2), a(3), a(4)]))
}

/// As [`call`], with all 64 bits of the number.
pub fn raw(number: u64, a: [u64; 5]) -> i64 {
    let ret;
    // SAFETY: the ABI's register contract; what the call does to memory is the test's business (crate comment).
    unsafe {
        asm!("syscall",
            inlateout("rax") number => ret,
            inlateout("rdi") a[0] => _, inlateout("rsi") a[1] => _, inlateout("rdx") a[2] => _,
            inlateout("r10") a[3] => _, inlateout("r8") a[4] => _,
            lateout("rcx") _, lateout("r11") _);
    }
    ret
}

/// `op(cmd, &mut argument)`, the form of most `*_op` calls.
pub fn call_ref<T>(number: usize, cmd: u64, argument: &mut T) -> Ret {
    call(number, &[cmd, core::ptr::from_mut(argument) as u64])
}
