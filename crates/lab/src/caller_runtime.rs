//! A runtime of their own for callers, as a server's HTTP workers are for its clients: waking a thousand answered callers
//! does not delay the tasks that decide the next thousand commands.

use tokio::runtime::{Builder, Handle, Runtime};

pub(super) struct CallerRuntime {
    handle: Handle,
    /// Shut down when dropped, without waiting for its tasks.
    runtime: Option<Runtime>,
}

impl CallerRuntime {
    pub(super) fn start(threads: usize) -> std::io::Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(threads.max(1)).thread_name("lab-callers").enable_all().build()?;
        Ok(Self { handle: runtime.handle().clone(), runtime: Some(runtime) })
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for CallerRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
