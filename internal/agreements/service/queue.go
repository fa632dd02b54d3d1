package service

import (
	"container/heap"
	"context"
	"sync"
	"time"
)

// queue has what is to be looked at, by name, and when. No name is looked at twice at once.
type queue struct {
	now  func() time.Time
	wake chan struct{}
	off  bool // nobody looks, and nothing is kept

	mu   sync.Mutex
	due  map[string]time.Time // of those that wait
	heap moments
	busy map[string]bool // true: it is to be looked at again when that is done
}

func newQueue(now func() time.Time) *queue {
	return &queue{now: now, wake: make(chan struct{}, 1), due: map[string]time.Time{}, busy: map[string]bool{}}
}

// add has a name looked at no later than at; the zero time is at once.
func (q *queue) add(name string, at time.Time) {
	if q.off {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.addLocked(name, at)
}

func (q *queue) addLocked(name string, at time.Time) {
	now := q.now()
	if at.Before(now) {
		at = now
	}
	if _, busy := q.busy[name]; busy && !at.After(now) {
		q.busy[name] = true
		return
	}
	if old, ok := q.due[name]; ok && !at.Before(old) {
		return
	}
	q.due[name] = at
	heap.Push(&q.heap, moment{at, name})
	nudge(q.wake)
}

// run looks at what is due, at no more than so many at once, until ctx ends. look gives when the name
// is to be looked at again; the zero time is that nothing is to come by itself.
func (q *queue) run(ctx context.Context, most int, look func(context.Context, string) time.Time) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	free := make(chan struct{}, most)
	for {
		name, wait := q.next()
		if name != "" {
			select {
			case free <- struct{}{}:
			case <-ctx.Done():
				return nil
			}
			wg.Go(func() {
				again := look(ctx, name)
				<-free
				q.done(name, again)
			})
			continue
		}
		var alarm <-chan time.Time
		if wait > 0 {
			t := time.NewTimer(wait)
			alarm = t.C
		}
		select {
		case <-ctx.Done():
			return nil
		case <-q.wake:
		case <-alarm:
		}
	}
}

// next takes a name that is due; else it gives how long it is until one is, 0 for ever.
func (q *queue) next() (string, time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.heap) > 0 {
		m := q.heap[0]
		if at, ok := q.due[m.name]; !ok || !at.Equal(m.at) {
			heap.Pop(&q.heap) // it was looked at sooner
			continue
		}
		if wait := m.at.Sub(q.now()); wait > 0 {
			return "", wait
		}
		heap.Pop(&q.heap)
		delete(q.due, m.name)
		if _, busy := q.busy[m.name]; busy {
			q.busy[m.name] = true
			continue
		}
		q.busy[m.name] = false
		return m.name, 0
	}
	return "", 0
}

func (q *queue) done(name string, again time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	more := q.busy[name]
	delete(q.busy, name)
	if more {
		q.addLocked(name, time.Time{})
	}
	if !again.IsZero() {
		q.addLocked(name, again)
	}
}

// moment is when a name is due.
type moment struct {
	at   time.Time
	name string
}

type moments []moment

func (h moments) Len() int           { return len(h) }
func (h moments) Less(a, b int) bool { return h[a].at.Before(h[b].at) }
func (h moments) Swap(a, b int)      { h[a], h[b] = h[b], h[a] }
func (h *moments) Push(x any)        { *h = append(*h, x.(moment)) }
func (h *moments) Pop() any {
	old := *h
	x := old[len(old)-1]
	*h = old[:len(old)-1]
	return x
}
