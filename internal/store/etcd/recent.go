package etcd

import "sync"

// recent remembers some of what was seen last, by id. What is not there can be
// read from etcd; what is there is true of the revision it names.
type recent[V any] struct {
	mu         sync.Mutex
	young, old map[string]V
}

// recentSize is how many of each generation are kept.
const recentSize = 1 << 14

func (r *recent[V]) put(id string, v V) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.young == nil || len(r.young) >= recentSize {
		r.old, r.young = r.young, make(map[string]V)
	}
	r.young[id] = v
}

func (r *recent[V]) get(id string) (V, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if v, ok := r.young[id]; ok {
		return v, true
	}
	v, ok := r.old[id]
	return v, ok
}
