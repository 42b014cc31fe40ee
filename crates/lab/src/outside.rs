//! Threads of their own for callers, as a server's HTTP workers are for its clients: a thousand callers that are answered
//! at once do not stand before those who decide the next thousand.

use tokio::runtime::{Builder, Handle, Runtime};

pub(super) struct Outside {
    handle: Handle,
    /// Shut down when dropped, without waiting for anybody.
    runtime: Option<Runtime>,
}

impl Outside {
    pub(super) fn start(threads: usize) -> std::io::Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(threads.max(1)).thread_name("lab-callers").enable_all().build()?;
        Ok(Self { handle: runtime.handle().clone(), runtime: Some(runtime) })
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
