package etcd

import (
	"context"
	"errors"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/portolan-project/portolan/internal/fail"
)

// usable gives the error of a store that is closed or broken.
func (s *Store) usable(op string) error {
	select {
	case <-s.dead:
		return s.gone(op)
	default:
		return nil
	}
}

// gone is why the store is dead.
func (s *Store) gone(op string) error {
	why := s.why.Load()
	return fail.Errorf(op, fail.Unavailable, "", "%s", why.public).Because(why.cause)
}

// ending is why a store ended.
type ending struct {
	public string
	cause  error
}

// die ends the store, once.
func (s *Store) die(e ending) {
	if s.why.CompareAndSwap(nil, &e) {
		close(s.dead)
	}
}

// classify turns an error of etcd into one of ours.
func (s *Store) classify(op, subject string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, rpctypes.ErrNoSpace):
		s.quota.alarmed.Store(true)
		s.quota.wake()
		return s.quotaFull(op).Because(err)
	case errors.Is(err, rpctypes.ErrRequestTooLarge):
		return fail.Errorf(op, fail.Exhausted, subject, "what is to be stored is larger than etcd takes in one request; raise its --max-request-bytes or send less").Because(err)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fail.E(op, fail.Unavailable, subject, err)
	}
	return fail.Errorf(op, fail.Unavailable, subject, "the store cannot be reached at present").Because(err)
}

// refused reports whether a write certainly was not done.
func refused(err error) bool {
	for _, e := range []error{
		rpctypes.ErrNoSpace, rpctypes.ErrTooManyOps, rpctypes.ErrDuplicateKey, rpctypes.ErrRequestTooLarge,
		rpctypes.ErrPermissionDenied, rpctypes.ErrEmptyKey,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// call asks etcd something, and gives up when the store dies or ctx ends even if
// etcd does not notice.
func call[T any](ctx context.Context, s *Store, op string, ask func(context.Context) (T, error)) (T, error) {
	var none T
	if err := s.usable(op); err != nil {
		return none, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type answer struct {
		v   T
		err error
	}
	c := make(chan answer, 1)
	go func() {
		v, err := ask(ctx)
		c <- answer{v, err}
	}()
	select {
	case a := <-c:
		if a.err != nil {
			if err := s.usable(op); err != nil {
				return none, err
			}
			return none, s.classify(op, "", a.err)
		}
		return a.v, nil
	case <-s.dead:
		return none, s.gone(op)
	case <-ctx.Done():
		return none, fail.E(op, fail.Unavailable, "", context.Cause(ctx))
	}
}
