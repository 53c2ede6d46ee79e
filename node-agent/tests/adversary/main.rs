//! The adversary suite: every way out of a pod that we know, tried by a process inside a pod, on the real kernel.
//!
//! The attackers are in `ways/`, one file a family. Each is tried twice: in a pod that no policy is enforced for,
//! where it must get something out (or be one that some kernels are known not to have), and in one that is
//! enforced, where it must not. What got out is judged by what arrived in the world, not by what the attacker was
//! told. Needs root, python3, and the binaries of the e2e crate (`cargo xtask test adversary` sees to it).

mod arena;
mod attacker;
#[path = "../kernel/harness/mod.rs"]
#[allow(dead_code, unused_imports)] // Shared with the kernel tests, which use all of it.
mod harness;
mod way;

use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use libtest_mimic::{Arguments, Completion, Trial};

use crate::arena::{Arena, Attempt};
use crate::way::Way;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // One pod, one attacker: what arrives in the world is the one attacker's.
    arguments.test_threads = Some(1);
    let arena = Arc::new(Mutex::new(None));
    let trials = way::all().into_iter().map(|way| trial(way, arena.clone())).collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    if !arguments.list {
        println!(
            "adversary: {} ways tried, {} escaped",
            conclusion.num_passed + conclusion.num_failed,
            conclusion.num_failed
        );
    }
    conclusion.exit_code()
}

/// `arena` is made by the first that needs it, and goes with the last.
fn trial(way: Way, arena: Arc<Mutex<Option<Arena>>>) -> Trial {
    Trial::ignorable_test(way.name.clone(), move || {
        if let Some(reason) = &way.out_of_scope {
            return Ok(Completion::ignored_with(format!("out of scope: {reason}")));
        }
        let mut arena = arena.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match arena.get_or_insert_with(Arena::new).try_way(&way) {
            Attempt::Held => Ok(Completion::Completed),
            Attempt::NoWay { said } => {
                let last = said.lines().last().unwrap_or("nothing arrives");
                let why = format!("no way out of a pod without a policy here: {last}");
                if way.is_lacking(&said) { Ok(Completion::ignored_with(why)) } else { Err(why.into()) }
            }
            Attempt::Escaped { evidence, said } => Err(format!(
                "{}\nescaped: {}\nthe attacker said: {said}",
                way.what,
                evidence.join("\n         ")
            )
            .into()),
        }
    })
}
