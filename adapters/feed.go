package adapters

import (
	"context"
	"sync"
)

// Feed passes evidence on to whoever watches: the means for Watcher. The zero
// value works. It keeps the newest evidence of each job that a watcher has not
// taken yet, so that a slow watcher costs no more than the jobs that there are.
type Feed struct {
	mu       sync.Mutex
	watchers map[*watch]struct{}
}

type watch struct {
	pending map[Tag]Evidence
	order   []Tag
	wake    chan struct{}
}

// Publish passes evidence on; it never waits.
func (f *Feed) Publish(e Evidence) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for w := range f.watchers {
		if _, ok := w.pending[e.Tag]; !ok {
			w.order = append(w.order, e.Tag)
		}
		w.pending[e.Tag] = e
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}

// Watch calls emit with nothing, as from then on nothing is missed, and then with
// what is published, until ctx ends.
func (f *Feed) Watch(ctx context.Context, emit func([]Evidence)) error {
	w := &watch{pending: map[Tag]Evidence{}, wake: make(chan struct{}, 1)}
	f.mu.Lock()
	if f.watchers == nil {
		f.watchers = map[*watch]struct{}{}
	}
	f.watchers[w] = struct{}{}
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.watchers, w)
	}()
	emit(nil)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.wake:
		}
		if batch := f.take(w); len(batch) > 0 {
			emit(batch)
		}
	}
}

func (f *Feed) take(w *watch) []Evidence {
	f.mu.Lock()
	defer f.mu.Unlock()
	batch := make([]Evidence, 0, len(w.order))
	for _, tag := range w.order {
		batch = append(batch, w.pending[tag])
	}
	w.order = nil
	clear(w.pending)
	return batch
}
