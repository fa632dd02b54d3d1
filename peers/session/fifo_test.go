package session

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// What is made of a queue leaves those before as they were, in whatever order they are used.
func TestFifo(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		queues, want := []fifo[int]{{}}, [][]int{nil}
		for i := range rapid.IntRange(1, 60).Draw(t, "steps") {
			at := rapid.IntRange(0, len(queues)-1).Draw(t, "of")
			q, w := queues[at], want[at]
			if rapid.Bool().Draw(t, "push") {
				x := make([]int, rapid.IntRange(0, 5).Draw(t, "n"))
				for j := range x {
					x[j] = i*10 + j
				}
				q, w = q.push(x...), slices.Concat(w, x)
			} else {
				n := rapid.IntRange(0, len(w)).Draw(t, "n")
				q, w = q.pop(n), w[n:]
			}
			queues, want = append(queues, q), append(want, w)
			for k := range queues {
				if queues[k].len() != len(want[k]) || !slices.Equal(queues[k].s, want[k]) {
					t.Fatalf("queue %d has %v and not %v", k, queues[k].s, want[k])
				}
			}
		}
	})
}
