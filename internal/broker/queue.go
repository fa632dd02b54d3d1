package broker

import (
	"container/heap"
	"slices"
	"time"
)

// queue holds the jobs that wait for a place, in the order in which they were
// submitted, apart by the sites that each may use, so that jobs pinned to a full
// site are not walked over again and again. Jobs that wait for a moment are in
// later, ordered by it. Its owner holds the broker's lock.
type queue struct {
	classes map[siteSet]*jobHeap
	later   jobHeap
	n       int
	ready   int // those that wait for a place only, and could have one
}

func newQueue() *queue {
	return &queue{
		classes: map[siteSet]*jobHeap{},
		later: jobHeap{less: func(a, b *job) bool {
			return a.rec.Status.NotBefore.Before(b.rec.Status.NotBefore)
		}},
	}
}

// add puts a job in; it must not be in.
func (q *queue) add(j *job, now time.Time) {
	h := &q.later
	if !j.rec.Status.NotBefore.After(now) {
		h = q.classes[j.candidates()]
		if h == nil {
			h = &jobHeap{less: before}
			q.classes[j.candidates()] = h
		}
	}
	heap.Push(h, j)
	j.queued = h
	q.n++
	if q.counts(j) {
		q.ready++
	}
}

// remove takes a job out, if it is in.
func (q *queue) remove(j *job) {
	if j.queued == nil {
		return
	}
	heap.Remove(j.queued, j.place)
	if q.counts(j) {
		q.ready--
	}
	j.queued = nil
	q.n--
}

// counts reports whether a job that is in waits for nothing but a place.
func (q *queue) counts(j *job) bool { return j.queued != &q.later && j.queued != q.classes[0] }

// stuck reports whether there are jobs that no site could run.
func (q *queue) stuck() bool { return q.classes[0] != nil && len(q.classes[0].jobs) > 0 }

// due moves the jobs whose moment has come to their class, and gives how long it
// is until the next one's; 0 when none waits.
func (q *queue) due(now time.Time) time.Duration {
	for len(q.later.jobs) > 0 {
		j := q.later.jobs[0]
		if wait := j.rec.Status.NotBefore.Sub(now); wait > 0 {
			return wait
		}
		q.remove(j)
		q.add(j, now)
	}
	return 0
}

// take takes out the jobs that could be placed with so much room at each site,
// oldest first.
func (q *queue) take(room []int) []*job {
	var out []*job
	for class, h := range q.classes {
		n := 0
		for i, r := range room {
			if class.has(i) {
				n += r
			}
		}
		for ; n > 0 && len(h.jobs) > 0; n-- {
			j := h.jobs[0]
			q.remove(j)
			out = append(out, j)
		}
		if len(h.jobs) == 0 {
			delete(q.classes, class)
		}
	}
	slices.SortFunc(out, func(a, b *job) int {
		if before(a, b) {
			return -1
		}
		return 1
	})
	return out
}

// before is the order of jobs: those whose place was lost go first.
func before(a, b *job) bool {
	if a.rec.Status.Class != b.rec.Status.Class {
		return a.rec.Status.Class > b.rec.Status.Class
	}
	return a.rec.ID < b.rec.ID
}

// jobHeap is a heap of jobs that know their place in it.
type jobHeap struct {
	jobs []*job
	less func(a, b *job) bool
}

func (h *jobHeap) Len() int           { return len(h.jobs) }
func (h *jobHeap) Less(i, k int) bool { return h.less(h.jobs[i], h.jobs[k]) }
func (h *jobHeap) Swap(i, k int) {
	h.jobs[i], h.jobs[k] = h.jobs[k], h.jobs[i]
	h.jobs[i].place, h.jobs[k].place = i, k
}

func (h *jobHeap) Push(x any) {
	j := x.(*job)
	j.place = len(h.jobs)
	h.jobs = append(h.jobs, j)
}

func (h *jobHeap) Pop() any {
	last := len(h.jobs) - 1
	j := h.jobs[last]
	h.jobs[last] = nil
	h.jobs = h.jobs[:last]
	return j
}
