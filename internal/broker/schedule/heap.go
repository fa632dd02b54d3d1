package schedule

// heap is a binary heap whose elements know where they are, so that any of them
// can be moved or taken out.
type heap[T any] struct {
	items []T
	less  func(a, b T) bool
	moved func(x T, at int) // -1: it is out
}

func (h *heap[T]) len() int { return len(h.items) }

func (h *heap[T]) push(x T) {
	h.items = append(h.items, x)
	h.moved(x, len(h.items)-1)
	h.up(len(h.items) - 1)
}

// take takes the element at a position out.
func (h *heap[T]) take(i int) T {
	x, last := h.items[i], len(h.items)-1
	if i != last {
		h.items[i] = h.items[last]
		h.moved(h.items[i], i)
	}
	var none T
	h.items[last] = none
	h.items = h.items[:last]
	if i != last {
		h.fix(i)
	}
	h.moved(x, -1)
	return x
}

// order puts right what changed everywhere.
func (h *heap[T]) order() {
	for i := len(h.items)/2 - 1; i >= 0; i-- {
		h.down(i)
	}
}

// fix puts right what changed at a position.
func (h *heap[T]) fix(i int) {
	if !h.down(i) {
		h.up(i)
	}
}

func (h *heap[T]) up(i int) {
	x := h.items[i]
	for i > 0 {
		parent := (i - 1) / 2
		if !h.less(x, h.items[parent]) {
			break
		}
		h.items[i] = h.items[parent]
		h.moved(h.items[i], i)
		i = parent
	}
	h.items[i] = x
	h.moved(x, i)
}

func (h *heap[T]) down(i int) bool {
	x, from := h.items[i], i
	for {
		child := 2*i + 1
		if child >= len(h.items) {
			break
		}
		if right := child + 1; right < len(h.items) && h.less(h.items[right], h.items[child]) {
			child = right
		}
		if !h.less(h.items[child], x) {
			break
		}
		h.items[i] = h.items[child]
		h.moved(h.items[i], i)
		i = child
	}
	h.items[i] = x
	h.moved(x, i)
	return i != from
}
