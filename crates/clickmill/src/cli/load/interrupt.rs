//! Ctrl-C during a load that cannot simply be run again.

use std::io;
use std::process::exit;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::signal::ctrl_c;

/// The status of a program that SIGINT has ended.
const EXIT_INTERRUPTED: i32 = 130;

/// Whether Ctrl-C was pressed.
#[derive(Debug, Default, Clone)]
pub(super) struct Interrupt {
    pressed: Arc<AtomicBool>,
}

impl Interrupt {
    pub(super) fn was_pressed(&self) -> bool {
        self.pressed.load(Ordering::Relaxed)
    }

    /// From now on the first Ctrl-C is only noted. The second one ends the program at once.
    pub(super) fn listen(&self) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let pressed = self.pressed.clone();
        std::thread::spawn(move || {
            runtime.block_on(async {
                if ctrl_c().await.is_ok() {
                    pressed.store(true, Ordering::Relaxed);
                    eprintln!("\nclickmill: stopping when the request under way is answered");
                    let _ = ctrl_c().await;
                    exit(EXIT_INTERRUPTED);
                }
            });
        });
        Ok(())
    }
}
