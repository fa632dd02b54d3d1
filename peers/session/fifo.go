package session

// fifo is a queue that is a value: what was made of one by push or pop leaves it as it was.
// Pushes that follow one another share memory, so that they need not copy all of it.
type fifo[T any] struct {
	s    []T
	end  int  // index behind the last of s in the memory that is shared
	used *int // how much of that memory is taken
}

func (q fifo[T]) len() int { return len(q.s) }

func (q fifo[T]) push(x ...T) fifo[T] {
	if q.used == nil || *q.used != q.end || cap(q.s)-len(q.s) < len(x) {
		s := make([]T, len(q.s), 2*(len(q.s)+len(x)))
		copy(s, q.s)
		q = fifo[T]{s: s, end: len(s), used: new(int)}
	}
	q.s = append(q.s, x...)
	q.end += len(x)
	*q.used = q.end
	return q
}

// pop drops the first n. The memory goes when the queue is empty, or has to grow.
func (q fifo[T]) pop(n int) fifo[T] {
	if n >= len(q.s) {
		return fifo[T]{}
	}
	q.s = q.s[n:]
	return q
}
