package together

import (
	"context"
	"sync"
)

// errand is what a provider is asked for; those of one kind never wait for those of another.
type errand int

const (
	preparing errand = iota // may take as long as managers of sites do
	confirming
	ending // which may have to be prepared again, to learn what there is to end
	reading
)

// share is how many requests of one kind one provider is asked at a time, so that one that does not
// answer keeps nobody else waiting.
const share = 8

// lane is the requests of one kind to one provider.
type lane struct {
	kind     errand
	provider string
}

// lanes bounds the requests that are under way.
type lanes struct {
	all map[errand]chan struct{} // of a kind, to all providers; what is not there has no bound of its own

	mu sync.Mutex
	of map[lane]*queue
}

// queue is a lane in use.
type queue struct {
	tokens chan struct{}
	users  int // who have a token, or wait for one
}

func newLanes(prepare, read int) *lanes {
	return &lanes{
		all: map[errand]chan struct{}{preparing: make(chan struct{}, prepare), reading: make(chan struct{}, read)},
		of:  map[lane]*queue{},
	}
}

// enter waits for its turn, and gives what to call afterwards.
func (l *lanes) enter(ctx context.Context, kind errand, provider string) (leave func(), err error) {
	at := lane{kind, provider}
	l.mu.Lock()
	q := l.of[at]
	if q == nil {
		q = &queue{tokens: make(chan struct{}, share)}
		l.of[at] = q
	}
	q.users++
	l.mu.Unlock()
	done := func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if q.users--; q.users == 0 {
			delete(l.of, at)
		}
	}
	if err := take(ctx, q.tokens); err != nil {
		done()
		return nil, err
	}
	all := l.all[kind]
	if all != nil {
		if err := take(ctx, all); err != nil {
			<-q.tokens
			done()
			return nil, err
		}
	}
	return func() {
		if all != nil {
			<-all
		}
		<-q.tokens
		done()
	}, nil
}

func take(ctx context.Context, tokens chan struct{}) error {
	select {
	case tokens <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
