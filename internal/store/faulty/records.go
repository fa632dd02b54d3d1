package faulty

import (
	"context"

	"github.com/portolan-project/portolan/internal/store"
)

// PutRecords implements store.Records.
func (s *Store) PutRecords(ctx context.Context, sess store.Session, changes ...store.RecordChange) (int64, error) {
	f, err := s.begin(ctx, PutRecords)
	if err != nil {
		return 0, err
	}
	if f.Lose && sess != nil {
		_ = sess.Close()
	}
	revision, err := s.inner.PutRecords(ctx, sess, changes...)
	if err == nil && f.After {
		return 0, lost(PutRecords)
	}
	return revision, err
}

// ListRecords implements store.Records.
func (s *Store) ListRecords(ctx context.Context, prefix string, o store.RecordOptions) ([]store.Record, int64, error) {
	var revision int64
	records, err := do(ctx, s, ListRecords, func() (records []store.Record, err error) {
		records, revision, err = s.inner.ListRecords(ctx, prefix, o)
		return records, err
	})
	if err != nil {
		return nil, 0, err
	}
	return records, revision, nil
}

// WatchRecords implements store.Records. A watch whose answer is lost ends after what
// it emitted first.
func (s *Store) WatchRecords(ctx context.Context, prefix string, after int64, emit func([]store.Record, int64)) error {
	f, err := s.begin(ctx, WatchRecords)
	if err != nil {
		return err
	}
	if !f.After {
		return s.inner.WatchRecords(ctx, prefix, after, emit)
	}
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	err = s.inner.WatchRecords(inner, prefix, after, func(records []store.Record, revision int64) {
		if inner.Err() == nil {
			emit(records, revision)
			cancel()
		}
	})
	if ctx.Err() == nil && inner.Err() != nil {
		return lost(WatchRecords)
	}
	return err
}
