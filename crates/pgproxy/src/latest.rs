//! A value that is replaced now and then, for whoever looks at it all the time.

use tokio::sync::watch;

pub(crate) struct Latest<T> {
    news: watch::Receiver<T>,
    value: T,
}

impl<T: Clone> Latest<T> {
    pub fn of(mut news: watch::Receiver<T>) -> Latest<T> {
        let value = news.borrow_and_update().clone();
        Latest { news, value }
    }

    /// As long as it is the same, nothing is locked and nothing counted.
    pub fn get(&mut self) -> &T {
        // A channel that is closed does not say whether its last value was seen.
        if self.news.has_changed().unwrap_or(true) {
            self.update();
        }
        &self.value
    }

    #[cold]
    fn update(&mut self) {
        self.value = self.news.borrow_and_update().clone();
    }

    /// For whoever waits for the next.
    pub fn news(&self) -> watch::Receiver<T> {
        self.news.clone()
    }
}
